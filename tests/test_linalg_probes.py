"""Random vectors drawn once."""

import torch

from rmtbn.linalg.probes import normals


def test_probes_are_named_by_seed_and_shape():
    """The same ones for the same name and dtype, independent of the global generator; others for another name."""
    like = torch.zeros(1, dtype=torch.float64)
    first = normals(1, 50, 4, like=like)
    torch.manual_seed(5)
    assert torch.equal(first, normals(1, 50, 4, like=like))
    assert not torch.equal(first, normals(2, 50, 4, like=like))
    assert normals(1, 50, 4, like=like.float()).dtype == torch.float32
    assert normals(1, 60, 4, like=like).shape == (60, 4)


def test_probes_drawn_in_inference_mode_serve_outside_of_it():
    """They are kept: autograd must be able to save them later."""
    with torch.inference_mode():
        found = normals(7, 30, 2, like=torch.zeros(1))
    assert not found.is_inference()


def test_probes_are_standard_normal():
    """Mean 0 ± 4/√n, variance 1 ± 4 √(2/n) of n = 40,000 numbers."""
    drawn = normals(3, 10_000, 4, like=torch.zeros(1, dtype=torch.float64))
    assert abs(float(drawn.mean())) < 4 / 200
    assert abs(float(drawn.var()) - 1) < 4 * 2**0.5 / 200
