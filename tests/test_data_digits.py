"""The bundled digits: real images with the right labels."""

import pytest
import torch

from rmtbn.data.digits import digits


def test_digits_are_1797_standardised_images_of_ten_classes():
    """1,797 images of 8 × 8, mean 0 and variance 1 over the set, between 174 and 183 of each class."""
    found = digits()
    assert found.inputs.shape == (1797, 1, 8, 8)
    assert found.inputs.dtype == torch.float64
    assert float(found.inputs.mean()) == pytest.approx(0, abs=1e-13)
    assert float(found.inputs.square().mean()) == pytest.approx(1, rel=1e-12)
    counts = torch.bincount(found.targets)
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert found.classes == 10


def test_labels_belong_to_their_images():
    """Nearest class mean classifies handwritten digits far above chance (0.1): images and labels are in one order."""
    found = digits().flattened()
    means = torch.stack([found.inputs[found.targets == digit].mean(0) for digit in range(10)])
    nearest = torch.cdist(found.inputs, means).argmin(1)
    assert float((nearest == found.targets).double().mean()) > 0.85
