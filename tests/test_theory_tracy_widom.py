"""The largest eigenvalue of one Gaussian matrix against networks."""

import math

import numpy as np
import pytest

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.theory.marchenko_pastur import MarchenkoPastur
from rmtbn.theory.tracy_widom import top_lam_law


@pytest.mark.parametrize(("field", "shape"), [("real", (20, 20)), ("real", (10, 40)), ("complex", (20, 20))])
def test_largest_lambda_of_one_matrix_has_tracy_widom_mean_and_spread(field, shape):
    """Mean and spread over 4,000 networks: 4 standard errors plus N^{-2/3} of the scale; 1/2 in N shifts it by more."""
    generator, n_in = rng.generator(1, "edge", field), shape[1]
    j = generator.standard_normal((4000, *shape)) / math.sqrt(n_in)
    if field == "complex":
        j = (j + 1j * generator.standard_normal((4000, *shape)) / math.sqrt(n_in)) / math.sqrt(2)
    samples = np.linalg.svd(j, compute_uv=False)[:, 0] ** 2
    law = top_lam_law(*shape, field=field)
    slack = law.scale * min(shape) ** (-2 / 3)
    error = samples.std(ddof=1) / math.sqrt(samples.size)
    assert abs(samples.mean() - law.mean) < 4 * error + 0.8 * slack
    assert abs(samples.std(ddof=1) - law.std) < 4 * error + slack
    assert abs(samples.mean() - law.centre) > 20 * error


def test_centre_and_scale_tend_to_the_edge_of_the_wide_law_as_n_to_the_minus_two_thirds():
    """(mean - λ₊) N^{2/3} → mean of the Tracy–Widom law × the limiting scale."""
    edge = MarchenkoPastur(ratio=0.5).support[1]
    shifts = [(edge - top_lam_law(n, 2 * n).mean) * n ** (2 / 3) for n in (10_000, 80_000)]
    assert shifts[0] == pytest.approx(shifts[1], rel=2e-2)
    assert shifts[1] == pytest.approx(1.2065 * top_lam_law(80_000, 160_000).scale * 80_000 ** (2 / 3), rel=2e-2)


@pytest.mark.parametrize(
    ("call", "name", "value"),
    [
        (lambda: top_lam_law(0, 3), "n_out", "0"),
        (lambda: top_lam_law(3, 0), "n_in", "0"),
        (lambda: top_lam_law(3, 3, field="Real"), "field", "Real"),
    ],
)
def test_arguments_out_of_range_are_named(call, name, value):
    with pytest.raises(InvalidArgumentError, match=f"`{name}` must be .*{value}"):
        call()
