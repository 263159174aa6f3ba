"""Batched augmentation against a loop over images, and images as bytes against the images."""

import numpy as np
import pytest
import torch

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.data.digits import digits
from rmtbn.train.augment import PADDING, Views, seen
from rmtbn.train.held_images import held

CPU = torch.device("cpu")


def test_views_are_those_of_a_loop_over_images():
    """Pad by 4 zeros, cut the window out, mirror it: one image at a time, in numpy."""
    generator = rng.torch_generator(1, "views")
    x = torch.randn(40, 3, 6, 9, generator=generator)
    views = Views.drawn(40, generator=generator)
    batched = seen(x, views).numpy()
    for image, row, column, flip, result in zip(
        x.numpy(), views.rows, views.columns, views.flips, batched, strict=True
    ):
        padded = np.zeros((3, 14, 17), dtype=np.float32)
        padded[:, 4:10, 4:13] = image
        window = padded[:, row : row + 6, column : column + 9]
        np.testing.assert_array_equal(result, window[:, :, ::-1] if flip else window)
    assert 0 < int(views.flips.sum()) < 40


def test_the_view_of_the_middle_is_the_image():
    """Rows = columns = 4, no flip: the identity."""
    x = torch.randn(2, 1, 5, 5, generator=rng.torch_generator(1, "middle"))
    middle = torch.full((2,), PADDING)
    assert torch.equal(seen(x, Views(rows=middle, columns=middle, flips=torch.zeros(2).bool())), x)


def test_all_views_are_equally_likely():
    """9 · 9 · 2 = 162 views: χ² of 16,200 draws within 4 standard deviations of its mean, 161."""
    views = Views.drawn(16_200, generator=rng.torch_generator(1, "likely"))
    kind = (views.rows * 9 + views.columns) * 2 + views.flips
    counts = torch.bincount(kind, minlength=162).double()
    assert len(counts) == 162
    assert abs(float(((counts - 100) ** 2 / 100).sum()) - 161) < 4 * np.sqrt(2 * 161)


def test_views_of_other_images_are_refused():
    """One view for each image."""
    views = Views.drawn(3, generator=rng.torch_generator(1, "three"))
    with pytest.raises(InvalidArgumentError, match="`views` must be as many as images, 2; got 3"):
        seen(torch.zeros(2, 1, 4, 4), views)


def test_images_held_as_bytes_are_the_images():
    """17 levels of grey, one byte each; the inputs come back bit for bit, rounded to the dtype of the network."""
    data = digits()
    kept = held(data.inputs, data.targets, device=CPU, dtype=torch.float32)
    chosen = torch.tensor([5, 1000, 1796, 5])
    assert kept.codes.dtype == torch.uint8
    assert len(kept.levels) == 17
    assert torch.equal(kept.inputs(chosen), data.inputs[chosen].float())
    assert torch.equal(kept.inputs(slice(3, 9)), data.inputs[3:9].float())


def test_the_last_level_of_256_is_held_too():
    """Levels that only turn up after the first thousand images are found; 257 levels are not bytes."""
    values = torch.arange(256.0, dtype=torch.float64).sub(3).div(7)
    inputs = values[torch.arange(1500 * 4) % 255].view(1500, 4)
    inputs[-1, -1] = values[255]
    kept = held(inputs, torch.zeros(1500).long(), device=CPU, dtype=torch.float64)
    assert kept.codes.dtype == torch.uint8
    assert torch.equal(kept.inputs(slice(None)), inputs)
    inputs[700, 2] = 0.123
    whole = held(inputs, torch.zeros(1500).long(), device=CPU, dtype=torch.float32)
    assert whole.levels is None
    assert torch.equal(whole.inputs(slice(None)), inputs.float())
