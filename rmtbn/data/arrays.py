"""Inputs of the user's own: a numpy file with one example per row."""

from pathlib import Path

import numpy as np
import torch

from rmtbn import _checks
from rmtbn.data.labelled import Labelled, standardise


def from_file(path: str | Path) -> Labelled:
    """Read inputs of shape (examples, ...) from a `.npy` file; they carry no labels, so that all are of class 0.

    Raises
    ------
    InvalidArgumentError
        If the file is missing, is no plain numeric array of examples, or holds NaN or infinity; it names the file.
    """
    path = Path(path)
    if not path.is_file():
        raise _checks.fail("path", "an existing .npy file", str(path))
    try:
        raw = np.load(path, allow_pickle=False)
        values = np.asarray(raw, dtype=np.float64)
    except (ValueError, TypeError, OSError, EOFError):
        raise _checks.fail("path", "a .npy file with an array of numbers", str(path)) from None
    if values.ndim < 2 or values.size == 0:
        raise _checks.fail("path", "a file with an array (examples, ...)", f"{path}: shape {values.shape}")
    if not np.isfinite(values).all():
        raise _checks.fail("path", "a file of finite numbers", f"{path}: NaN or infinity in it")
    return Labelled(
        name=f"{path.name} ({len(values):,} examples)",
        inputs=standardise(torch.from_numpy(values)),
        targets=torch.zeros(len(values), dtype=torch.int64),
        classes=1,
    )
