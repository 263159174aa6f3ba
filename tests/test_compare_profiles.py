"""Profiles and scalars against predictions: z-scores, joint p-values, the size of a 1/N correction, kinds."""

import math

import numpy as np
import pytest
from scipy import stats

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.compare import compare
from rmtbn.result import DepthProfile, EmpiricalSpectrum, Scalar
from rmtbn.theory.fuss_catalan import FussCatalan

DEPTH = np.arange(1.0, 9.0)


def predicted(value, **changes):
    value = np.asarray(value, dtype=float)
    fields = {
        "depth": DEPTH[: value.size],
        "value": value,
        "se": np.zeros(value.size),
        "symbol": "q",
        "label": "length",
    }
    return DepthProfile(**(fields | changes))


def measured(networks, *, seed=1, shift=0.0, depth=DEPTH):
    """Profiles of independent N(shift, 1) values."""
    values = shift + rng.generator(seed, "profile", networks).standard_normal((networks, len(depth)))
    return DepthProfile.over_networks(values, depth=depth, symbol="q", label="length")


def test_z_scores_are_differences_over_standard_errors():
    """z = (measured - predicted)/se, the two errors added in squares."""
    one = measured(10)
    theory = predicted(np.full(8, 0.5), se=np.full(8, 0.3))
    found = compare(theory, one)
    np.testing.assert_allclose(found.z, (one.value - 0.5) / np.hypot(one.se, 0.3))
    np.testing.assert_array_equal(found.depth, DEPTH)


@pytest.mark.parametrize("networks", [3, 20])
def test_pvalues_are_uniform_under_the_null(networks):
    """P of the largest |z| among 8 independent layers, with Student's t over networks: uniform over 400 replicates."""
    pvalues = [compare(predicted(np.zeros(8)), measured(networks, seed=seed)).pvalue for seed in range(400)]
    assert stats.kstest(pvalues, "uniform").pvalue > 0.005


def test_one_layer_is_students_t_test():
    """With a single layer the p-value is scipy's."""
    values = rng.generator(4, "one layer").standard_normal((6, 1)) + 0.7
    one = DepthProfile.over_networks(values, depth=[1.0], symbol="q", label="length")
    assert compare(predicted([0.0]), one).pvalue == pytest.approx(stats.ttest_1samp(values[:, 0], 0.0).pvalue)


def test_verdict_can_come_out_either_way():
    """Right values agree; wrong by ten errors is rejected, or is of order 1/N where the allowance says so."""
    one = measured(20)
    assert compare(predicted(np.zeros(8)), one).verdict == "agrees"
    wrong = predicted(np.full(8, 3.0))
    assert compare(wrong, one).verdict == "rejected"
    assert compare(wrong, one, width=100, finite_size=200.0).verdict == "rejected"
    assert compare(wrong, one, width=100, finite_size=400.0).verdict == "agrees to order 1/N"


def test_correction_is_the_difference_in_units_of_one_over_width():
    """N·(measured - predicted), and what could not be told from zero: 2·N·se."""
    one = measured(10)
    found = compare(predicted(np.zeros(8)), one, width=64)
    np.testing.assert_allclose(found.correction, 64 * one.value)
    np.testing.assert_allclose(found.undetectable, 128 * one.se)
    without = compare(predicted(np.zeros(8)), one)
    assert without.correction is None
    assert without.undetectable is None


def test_only_layers_of_both_are_compared():
    """A prediction at 1 … 8 against a measurement at 2, 4, 16: the layers 2 and 4."""
    one = measured(5, depth=np.array([2.0, 4.0, 16.0]))
    found = compare(predicted(DEPTH), one)
    np.testing.assert_array_equal(found.depth, [2.0, 4.0])
    np.testing.assert_allclose(found.z, (one.value[:2] - [2.0, 4.0]) / one.se[:2])


def test_one_network_decides_nothing():
    """No p-value and no verdict; z is 0, for its error is infinite."""
    found = compare(predicted(np.full(8, 100.0)), measured(1))
    assert (found.pvalue, found.verdict) == (None, "undecided")
    assert (found.z == 0).all()


def test_exact_profiles_agree_exactly_or_not_at_all():
    """Without errors on either side z is 0 or infinite."""
    assert compare(predicted(np.ones(8)), predicted(np.ones(8))).verdict == "agrees"
    found = compare(predicted(np.ones(8)), predicted(np.full(8, 1.0 - 1e-9)))
    assert np.isneginf(found.z).all()
    assert (found.pvalue, found.verdict) == (0.0, "rejected")


@pytest.mark.parametrize(("value", "verdict"), [(2.1, "agrees"), (3.0, "rejected")])
def test_scalars_are_compared_by_their_joint_error(value, verdict):
    """z = (measured - predicted)/√(se² + se²), two-sided, Student's t over the networks of the measurement."""
    theory = Scalar(value=2.0, se=0.06, symbol="λ", label="rate")
    found = compare(theory, Scalar(value=value, se=0.08, symbol="λ", label="rate", networks=12))
    assert found.z == pytest.approx((value - 2.0) / 0.1)
    assert found.pvalue == pytest.approx(2 * stats.t(11).sf(found.z))
    assert found.verdict == verdict


def test_scalars_of_one_network_decide_nothing():
    """An infinite error: z = 0, undecided; two predictions are compared by the normal law."""
    theory = Scalar(value=2.0, se=0.0, symbol="λ", label="rate")
    assert compare(theory, Scalar.over_networks([9.0], symbol="λ", label="rate")).verdict == "undecided"
    assert compare(theory, Scalar(value=2.0, se=0.0, symbol="λ", label="rate")).verdict == "agrees"
    assert compare(theory, Scalar(value=2.1, se=0.0, symbol="λ", label="rate")).z == math.inf


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (FussCatalan(depth=1), measured(2)),
        (predicted(DEPTH), Scalar(value=1.0, se=0.0, symbol="λ", label="rate")),
        (Scalar(value=1.0, se=0.0, symbol="λ", label="rate"), FussCatalan(depth=1)),
        (measured(2), EmpiricalSpectrum(by_network=np.zeros((2, 2)), relative_error=0.0, method="dense")),
    ],
    ids=["law-profile", "profile-scalar", "scalar-law", "profile-spectrum"],
)
def test_results_of_two_kinds_are_not_compared(first, second):
    """One kind on both sides; the message names both."""
    message = (
        f"`measured` must be of one kind with `predicted`, a {type(first).__name__}; got '{type(second).__name__}'"
    )
    with pytest.raises(InvalidArgumentError, match=message):
        compare(first, second)


def test_logarithms_are_compared_with_logarithms():
    """`is_log` on both sides or on neither."""
    with pytest.raises(
        InvalidArgumentError, match="`measured` must be a logarithm just where `predicted` is; got False"
    ):
        compare(predicted(DEPTH, is_log=True), measured(3))


def test_profiles_without_a_common_layer_are_refused():
    """Nothing to compare is an error, not agreement."""
    with pytest.raises(InvalidArgumentError, match=r"`measured` must be given at layers that `predicted` has too"):
        compare(predicted(DEPTH), measured(3, depth=np.array([0.5, 99.0])))


def test_impossible_widths_are_refused():
    """N >= 1."""
    with pytest.raises(InvalidArgumentError, match="`width` must be an integer >= 1; got 0"):
        compare(predicted(DEPTH), measured(3), width=0)
