"""Labelled inputs: choosing, flattening and embedding keep examples, labels and lengths together."""

import pytest
import torch
from cases import inputs

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.data.labelled import Labelled, standardise


def labelled(examples=20, shape=(3, 2)):
    """Inputs of mean square 1 whose first entry names the example, and labels that name it too."""
    x = standardise(inputs(examples, *shape))
    return Labelled(name="made up", inputs=x, targets=torch.arange(examples), classes=examples)


def test_standardised_inputs_have_mean_zero_and_variance_one():
    """(x - mean)/s over all entries: one shift and one scale, so that differences between pixels stay."""
    raw = 3 + 2 * inputs(10, 4)
    x = standardise(raw)
    assert float(x.mean()) == pytest.approx(0.0, abs=1e-15)
    assert float(x.square().mean()) == pytest.approx(1.0, rel=1e-14)
    torch.testing.assert_close((x - x[0, 0]) * raw.std(correction=0), raw - raw[0, 0])


def test_inputs_that_are_all_the_same_number_have_no_scale():
    """A constant cannot be standardised: an error instead of NaN."""
    with pytest.raises(InvalidArgumentError, match=r"`inputs` must be not all the same number; got 7\.0"):
        standardise(torch.full((4, 2), 7.0, dtype=torch.float64))


def test_examples_keep_their_labels_when_drawn():
    """`take` draws without repetition; each input stays with its label."""
    whole = labelled()
    part = whole.take(12, generator=rng.torch_generator(1))
    assert len(set(part.targets.tolist())) == 12
    assert torch.equal(part.inputs, whole.inputs[part.targets])
    assert (part.name, part.classes) == (whole.name, whole.classes)
    again = whole.take(12, generator=rng.torch_generator(1))
    assert torch.equal(part.targets, again.targets)
    assert whole.take(20, generator=rng.torch_generator(2)).targets.sort().values.tolist() == list(range(20))
    assert torch.equal(whole.first(3).targets, torch.arange(3))


@pytest.mark.parametrize("count", [0, 21])
def test_more_examples_than_there_are_cannot_be_drawn(count):
    """1 <= count <= examples."""
    message = f"`count` must be an integer >= 1 and <= 20; got {count}"
    with pytest.raises(InvalidArgumentError, match=message):
        labelled().take(count, generator=rng.torch_generator(1))
    with pytest.raises(InvalidArgumentError, match=message):
        labelled().first(count)


def test_flattened_examples_are_vectors():
    """Row-major, labels untouched."""
    whole = labelled()
    flat = whole.flattened()
    assert torch.equal(flat.inputs, whole.inputs.reshape(20, 6))
    assert torch.equal(flat.targets, whole.targets)


def test_embedding_in_more_dimensions_keeps_all_angles_and_the_mean_square():
    """x ↦ Q x √(features/n) with QᵀQ = I: Gram matrices agree up to that one factor."""
    whole = labelled()
    image = whole.embedded(50, generator=rng.torch_generator(1))
    assert image.inputs.shape == (20, 50)
    x = whole.inputs.flatten(1)
    torch.testing.assert_close(image.inputs @ image.inputs.T, x @ x.T * 50 / 6)
    assert float(image.inputs.square().mean()) == pytest.approx(1.0, rel=1e-12)


def test_embedding_in_fewer_dimensions_keeps_the_mean_square():
    """A random projection: of the right scale over the set, of the right angles only roughly."""
    image = labelled(shape=(40,)).embedded(10, generator=rng.torch_generator(1))
    assert image.inputs.shape == (20, 10)
    assert float(image.inputs.square().mean()) == pytest.approx(1.0, rel=1e-12)
    with pytest.raises(InvalidArgumentError, match="`features` must be an integer >= 1; got 0"):
        labelled().embedded(0, generator=rng.torch_generator(1))


def test_examples_move_to_another_dtype_with_their_labels():
    """Inputs are cast, labels stay integers."""
    moved = labelled().to(device=torch.device("cpu"), dtype=torch.float32)
    assert moved.inputs.dtype == torch.float32
    assert moved.targets.dtype == torch.int64
