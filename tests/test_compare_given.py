"""Networks against laws of their own: atoms once, one law each, the distance of means."""

import numpy as np
import pytest

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.compare import compare, compare_given
from rmtbn.result import EmpiricalSpectrum
from rmtbn.theory.fuss_catalan import FussCatalan
from rmtbn.theory.given_layers import law_given_ranks


def spectrum(log_lam):
    """Networks by rows of ln λ."""
    return EmpiricalSpectrum(by_network=-np.sort(-np.asarray(log_lam) / 2), relative_error=0.0, method="dense")


def test_comparison_given_laws_counts_atoms_once():
    """Two networks at the atoms of two laws of one point each: no distance; at each other's: all of it."""
    two = [law_given_ranks([1.0], weights="orthogonal", sigma_w=sigma) for sigma in (1.0, 2.0)]
    right = spectrum(2 * np.log([[1.0] * 3, [2.0] * 3]))
    assert compare_given(two, right).ks == 0
    shifted = spectrum(2 * np.log([[1.0] * 3, [2.0] * 3]) + 10.0)
    assert compare_given(two, shifted).ks == 1.0


def test_one_law_for_all_is_the_comparison_with_that_law():
    """The same law for every network: distance, error and p-value of `compare`."""
    law = FussCatalan(depth=3)
    draws = rng.generator(1, "given")
    measured = spectrum(law.log_ppf((np.arange(40) + draws.random((6, 40))) / 40))
    alone, given = compare(law, measured), compare_given([law] * 6, measured)
    assert given.ks == pytest.approx(alone.ks, abs=1e-8)
    assert given.ks_se == pytest.approx(alone.ks_se, rel=1e-6)
    assert given.ks_pvalue == pytest.approx(alone.ks_pvalue, abs=1e-3)


def test_each_network_is_laid_over_its_own_law():
    """Quantiles of laws of different depth: at most 1/(2N) from their own laws in order, far in another order."""
    laws = [FussCatalan(depth=depth) for depth in (1, 2, 2, 8)]
    middles = (np.arange(50) + 0.5) / 50
    measured = spectrum([law.log_ppf(middles) for law in laws])
    assert compare_given(laws, measured).ks <= 0.5 / 50 + 1e-6
    other = [FussCatalan(depth=depth) for depth in (8, 8, 8, 8)]
    assert compare_given(other, measured).ks > 0.1


def test_laws_are_one_per_network_and_networks_two_or_more():
    laws = [FussCatalan(depth=1)] * 2
    with pytest.raises(
        InvalidArgumentError, match=r"`laws` must be one for each of two or more networks, here 3; got 2"
    ):
        compare_given(laws, spectrum(np.zeros((3, 4))))
    with pytest.raises(InvalidArgumentError, match=r"`laws` must be .*here 1; got 1"):
        compare_given(laws[:1], spectrum(np.zeros((1, 4))))
