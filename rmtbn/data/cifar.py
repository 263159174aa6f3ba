"""CIFAR-10 in its standard binary layout: records of 1 label byte and 3,072 pixel bytes (R, G, B planes of 32 × 32)."""

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from rmtbn import _checks
from rmtbn.data.labelled import Labelled

Records = np.ndarray[tuple[int, int], np.dtype[np.uint8]]
RECORD = 1 + 3 * 32 * 32
_BLOCK = 2000  # records that are counted at a time: their bytes become 8 bytes each
FILES = {"train": "data_batch_*.bin", "test": "test_batch.bin"}


def cifar10(folder: str | Path, *, split: str = "train") -> Labelled:
    """Read CIFAR-10 (Krizhevsky 2009), whole or in part, from a folder of the standard binary files.

    Both splits are shifted and scaled by the mean and standard deviation of all pixels of the training images.

    Parameters
    ----------
    folder
        Holds `data_batch_*.bin` (any number of them, of any number of records) and `test_batch.bin`.
    split
        "train" or "test", which needs the training files too.

    Returns
    -------
    Labelled
        Inputs of shape (examples, 3, 32, 32), standardised by the training images of the folder.

    Raises
    ------
    InvalidArgumentError
        If the folder or the files are missing, a file is no whole number of records, or a label is above 9; it names
        the file.
    """
    folder = Path(folder)
    _checks.one_of("split", split, FILES)
    if not folder.is_dir():
        raise _checks.fail("folder", "an existing folder of CIFAR-10's binary files", str(folder))
    records = _records(folder, FILES[split])
    training = records if split == "train" else _records(folder, FILES["train"], use=" to standardise by")
    pixels = _standardised(training)[records[:, 1:]]
    return Labelled(
        name=f"CIFAR-10 ({split}, {len(records):,} images)",
        inputs=torch.from_numpy(pixels).view(-1, 3, 32, 32),
        targets=torch.from_numpy(records[:, 0].astype(np.int64)),
        classes=10,
    )


def _records(folder: Path, pattern: str, *, use: str = "") -> Records:
    paths = sorted(folder.glob(pattern))
    if not paths:
        raise _checks.fail("folder", f"a folder that holds {pattern}{use}", str(folder))
    return np.concatenate([_file(path) for path in paths])


def _standardised(records: Records) -> Float[np.ndarray, "256"]:
    """Map the 256 bytes to numbers by the mean and the deviation of the pixels, exact as bytes are counted."""
    blocks = np.array_split(records, 1 + len(records) // _BLOCK)
    counts = np.sum([np.bincount(block[:, 1:].ravel(), minlength=256) for block in blocks], axis=0).astype(object)
    values, total = np.arange(256).astype(object), counts.sum()
    first, second = counts @ values, counts @ values**2
    if second * total == first**2:
        raise _checks.fail("inputs", "not all the same number", int(records[0, 1]))
    mean, variance = Fraction(first, total), Fraction(second * total - first**2, total**2)
    return np.array([float(value - mean) for value in range(256)]) / math.sqrt(variance)


def _file(path: Path) -> Records:
    raw = np.fromfile(path, dtype=np.uint8)
    if raw.size == 0 or raw.size % RECORD:
        raise _checks.fail(
            "folder", f"a folder whose files hold whole records of {RECORD} bytes", f"{path}: {raw.size} bytes"
        )
    records = raw.reshape(-1, RECORD)
    worst = int(records[:, 0].max())
    if worst > 9:
        raise _checks.fail("folder", "a folder whose files hold labels 0 to 9", f"{path}: label {worst}")
    return records
