"""Pairs of inputs with exactly the correlation and length that were asked for."""

import pytest
import torch

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.data.pairs import correlated_pairs


@pytest.mark.parametrize("c", [-1.0, -0.3, 0.0, 0.9, 1 - 1e-12, 1.0])
def test_pairs_have_the_correlation_and_length_asked_for(c):
    """⟨a, b⟩/(‖a‖‖b‖) = c and ‖a‖² = ‖b‖² = features · mean square, to rounding."""
    x = correlated_pairs(pairs=3, features=11, correlation=c, mean_square=2.5, generator=rng.torch_generator(1, "x"))
    assert x.shape == (6, 11)
    torch.testing.assert_close(x.square().mean(1), torch.full((6,), 2.5, dtype=torch.float64))
    cosines = torch.nn.functional.cosine_similarity(x[0::2], x[1::2])
    torch.testing.assert_close(cosines, torch.full((3,), c, dtype=torch.float64), atol=1e-15, rtol=1e-13)


def test_pairs_are_random_and_repeatable():
    """Different pairs differ; the same generator gives the same pairs."""
    arguments = {"pairs": 2, "features": 5, "correlation": 0.5}
    x, y = (correlated_pairs(generator=rng.torch_generator(1, "x"), **arguments) for _ in range(2))
    assert torch.equal(x, y)
    assert not torch.allclose(x[0].abs(), x[2].abs())


@pytest.mark.parametrize(
    ("change", "named"),
    [({"pairs": 0}, r"`pairs`.*0"), ({"features": 1}, r"`features`.*1"), ({"correlation": 1.5}, r"`correlation`.*1.5"),
     ({"mean_square": 0.0}, r"`mean_square`.*0")],
)  # fmt: skip
def test_arguments_out_of_range_are_named(change, named):
    """Each message names the argument and the value."""
    arguments = {"pairs": 1, "features": 2, "correlation": 0.5, "mean_square": 1.0, **change}
    with pytest.raises(InvalidArgumentError, match=named):
        correlated_pairs(generator=rng.torch_generator(1), **arguments)
