"""Laws and spectra seen from above a floor: what is below counts by its mass only."""

import math

import numpy as np
import pytest

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.compare import compare
from rmtbn.compare.floored import Floored
from rmtbn.result import EmpiricalSpectrum
from rmtbn.theory.fuss_catalan import FussCatalan


def naive(width, depth, *, seed):
    """Log singular values of an assembled product of Gaussian matrices by a float64 SVD: noise below N ε of the top."""
    generator = rng.generator(seed, "naive", width, depth)
    product = np.eye(width)
    for _ in range(depth):
        product = generator.standard_normal((width, width)) @ product / math.sqrt(width)
    return np.log(np.linalg.svd(product, compute_uv=False))


def spectra(rows, *, censored):
    rows = np.stack(rows)
    floor = rows[:, 0] + math.log(rows.shape[1] * np.finfo(float).eps) if censored else None
    return EmpiricalSpectrum(by_network=rows, relative_error=1e-3, method="dense", log_floor=floor)


def test_censoring_takes_the_noise_of_a_deep_product_out_of_the_distance():
    """50 factors, N = 128, 4 networks: raw, KS 0.2 from their own law; censored, that of finite width, below 2/N.

    The noise is a fifth of all values, which the law has over decades that float64 cannot see. What is left, 1.6/N, is
    the finite width of a network of L/N = 0.4, and stands out from the spread of four networks.
    """
    rows = [naive(128, 50, seed=seed) for seed in range(4)]
    law = FussCatalan(depth=50)
    raw, found = (compare(law, spectra(rows, censored=censored)) for censored in (False, True))
    assert raw.ks > 0.15
    assert raw.verdict == "rejected"
    assert found.ks < 2 / 128
    assert found.wasserstein_log < 0.3
    assert raw.wasserstein_log > 1.0
    assert (raw.censored, raw.log_floor) == (0.0, -math.inf)
    assert 0.3 < found.censored < 0.7
    assert found.log_floor == pytest.approx(2 * max(r[0] for r in rows) + 2 * math.log(128 * np.finfo(float).eps))


@pytest.mark.slow
def test_at_width_512_the_distances_are_those_of_the_issue():
    """N = 512, 50 factors, one network: KS 0.21 raw, 0.004 above the floor."""
    rows = [naive(512, 50, seed=1)]
    law = FussCatalan(depth=50)
    assert compare(law, spectra(rows, censored=False)).ks == pytest.approx(0.21, abs=0.02)
    assert compare(law, spectra(rows, censored=True)).ks < 0.006


def test_wrong_laws_are_rejected_above_the_floor():
    """The law of 40 factors for 50: the mass below the floor and the CDF above it are both off, and it is seen."""
    rows = [naive(128, 50, seed=seed) for seed in range(4)]
    found = compare(FussCatalan(depth=40), spectra(rows, censored=True))
    assert found.ks > 0.05
    assert found.verdict == "rejected"


def test_zeros_cannot_be_judged_where_values_are_censored():
    """A censored value may be 0: no z-score for the share of zeros; the mass below the floor is compared by KS."""
    values = np.concatenate([np.zeros(50), np.full(50, -np.inf)])[None].repeat(3, axis=0)
    known = EmpiricalSpectrum(by_network=values, relative_error=0.0, method="product")
    noise = EmpiricalSpectrum(
        by_network=np.where(np.isneginf(values), -36.0, values),
        relative_error=0.0,
        method="dense",
        log_floor=np.full(3, -30.0),
    )
    for spectrum, z in ((known, 0.0), (noise, None)):
        found = compare(known, spectrum)
        assert (found.ks, found.wasserstein_log, found.zeros.z) == (0.0, 0.0, z)


def test_a_floored_law_is_the_law_of_the_larger_of_value_and_floor():
    """CDF, quantiles, density and bulk above the floor as before; below it nothing; the mass adds up to 1."""
    law, floor = FussCatalan(depth=3), -2.0
    found = Floored(law, floor=floor)
    x = np.linspace(-6.0, 3.0, 400)
    np.testing.assert_array_equal(found.cdf_log(x), np.where(x >= floor, law.cdf_log(x), 0.0))
    u = np.linspace(0.01, 0.99, 50)
    np.testing.assert_array_equal(found.log_ppf(u), np.maximum(law.log_ppf(u), floor))
    np.testing.assert_array_equal(found.log_pdf_log(x), np.where(x > floor, law.log_pdf_log(x), -np.inf))
    assert found.log_bulk == (floor, law.log_bulk[1])
    assert (found.accuracy, found.moment(2), found.atoms) == (law.accuracy, law.moment(2), ())
    assert Floored(law, floor=100.0).log_bulk is None
    with pytest.raises(InvalidArgumentError, match="`law` must be one without a floor"):
        found.log_moment()
