"""Handwritten digits: 1,797 real 8 × 8 images bundled with scikit-learn; the default that needs no download."""

import torch
from sklearn.datasets import load_digits

from rmtbn.data.labelled import Labelled, standardise


def digits() -> Labelled:
    """Load the digits (Alpaydin & Kaynak 1998, UCI optical recognition test set), shape (1797, 1, 8, 8), standardised.

    Examples
    --------
    >>> digits().inputs.shape
    torch.Size([1797, 1, 8, 8])
    """
    bundled = load_digits()
    images = torch.tensor(bundled.images, dtype=torch.float64).unsqueeze(1)
    return Labelled(
        name="Handwritten digits (scikit-learn, 1,797 images of 8 × 8)",
        inputs=standardise(images),
        targets=torch.tensor(bundled.target, dtype=torch.int64),
        classes=10,
    )
