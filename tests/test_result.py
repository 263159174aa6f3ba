"""The three kinds of result: laws in λ follow from their primitives in log λ, errors are taken over networks."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import integrate, stats

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.result import DepthProfile, EmpiricalSpectrum, Scalar, SpectralMeasure

LOG = st.floats(-50, 50) | st.just(-math.inf)
ROWS = hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=LOG)


class LogUniform(SpectralMeasure):
    """A law known by heart: mass 1/4 at 0, else log λ uniform on (a, a + 2)."""

    __slots__ = ("low",)

    def __init__(self, low):
        self.low = low

    accuracy = 0.0
    atoms = ((0.0, 0.25),)

    @property
    def log_bulk(self):
        return (self.low, self.low + 2)

    def log_pdf_log(self, log_lam):
        inside = (np.asarray(log_lam) > self.low) & (np.asarray(log_lam) < self.low + 2)
        return np.where(inside, math.log(0.375), -np.inf)

    def cdf_log(self, log_lam):
        return np.asarray(0.25 + 0.375 * np.clip(np.asarray(log_lam) - self.low, 0, 2))

    def log_ppf(self, p):
        p = np.asarray(p)
        return np.where(p <= 0.25, -np.inf, self.low + (p - 0.25) / 0.375)

    def moment(self, k):
        return 0.375 * (math.exp(k * (self.low + 2)) - math.exp(k * self.low)) / k if k else 1.0

    def log_moment(self, k=1):
        return (-math.inf) ** k


def spectrum(rows, **changes):
    return EmpiricalSpectrum(**({"by_network": np.asarray(rows), "relative_error": 1e-12, "method": "dense"} | changes))


def test_density_in_lambda_is_that_in_log_lambda_over_lambda():
    """ρ(λ) = ρ_log(log λ)/λ, so that mass and moments integrate to what they are; 0 for λ <= 0."""
    law = LogUniform(-1.0)
    mass, _ = integrate.quad(law.pdf, *np.exp(law.log_bulk))
    mean, _ = integrate.quad(lambda lam: lam * law.pdf(lam), *np.exp(law.log_bulk))
    assert mass == pytest.approx(0.75, rel=1e-10)
    assert mean == pytest.approx(law.moment(1), rel=1e-10)
    np.testing.assert_array_equal(law.pdf([-1.0, 0.0, 100.0, np.inf]), 0.0)


def test_distribution_function_in_lambda_counts_the_atom_at_zero():
    """F(λ) = 0 for λ < 0, the mass of the atom at 0, 1 beyond the bulk."""
    law = LogUniform(-1.0)
    np.testing.assert_allclose(law.cdf([-1e-9, 0.0, 1.0, np.inf]), [0.0, 0.25, 0.625, 1.0])
    np.testing.assert_allclose(law.ppf([0.1, 0.25, 0.625, 1.0]), [0.0, 0.0, 1.0, math.e])
    assert law.support == pytest.approx((0.0, math.e))


def test_laws_beyond_the_floating_range_give_zero_and_infinity_without_a_warning():
    """log λ = ±1000 is what depth 1,000 does; λ itself is then 0 or inf."""
    assert LogUniform(-2000.0).support == (0.0, 0.0)
    assert LogUniform(1000.0).support == (0.0, math.inf)
    np.testing.assert_array_equal(LogUniform(1000.0).ppf([0.1, 0.9]), [0.0, math.inf])
    np.testing.assert_array_equal(LogUniform(-2000.0).ppf([0.1, 0.9]), [0.0, 0.0])
    deep = spectrum([[800.0, -900.0]])
    assert deep.support == (0.0, math.inf)
    assert deep.moment(1) == math.inf


def test_draws_follow_the_law():
    """λ = F⁻¹(U): the share of zeros is the atom's mass, the rest uniform in log λ."""
    law = LogUniform(-1.0)
    lam = law.rvs(4000, generator=rng.generator(1, "draws"))
    assert np.mean(lam == 0) == pytest.approx(0.25, abs=4 * math.sqrt(0.25 * 0.75 / 4000))
    assert stats.kstest(np.log(lam[lam > 0]), stats.uniform(-1, 2).cdf).pvalue > 1e-3
    assert law.rvs(0, generator=rng.generator(1)).shape == (0,)
    with pytest.raises(InvalidArgumentError, match="`n` must be an integer >= 0; got -1"):
        law.rvs(-1, generator=rng.generator(1))


@given(ROWS)
def test_empirical_quantiles_are_the_order_statistics(rows):
    """F(x) = #{log λ <= x}/n and F⁻¹(p) = min{x: F(x) >= p}, with log λ = 2 log s, zeros at -inf."""
    law, ascending = spectrum(rows), np.sort(2 * rows, axis=None)
    n = ascending.size
    np.testing.assert_array_equal(law.log_ppf(np.arange(1, n + 1) / n), ascending)
    np.testing.assert_array_equal(law.log_ppf((np.arange(1, n + 1) - 0.5) / n), ascending)
    counts = [np.sum(ascending <= x) / n for x in ascending]
    np.testing.assert_allclose(law.cdf_log(ascending), counts, rtol=1e-15)
    assert law.cdf_log(np.inf) == 1.0
    assert law.log_ppf(0.0) == ascending[0]


@given(ROWS)
def test_empirical_moments_are_means_over_all_values(rows):
    """E λ^k = mean s^2k, zeros included; E (log λ)^k = mean (2 log s)^k, infinite where there is a zero."""
    law, log_lam = spectrum(rows), 2 * np.sort(rows, axis=None)
    for k in (1, 2):
        assert law.moment(k) == pytest.approx(np.mean(np.exp(k * log_lam)), rel=1e-12)
        assert law.log_moment(k) == pytest.approx(np.mean(log_lam**k), rel=1e-12, abs=1e-300)
    assert law.moment(0) == 1.0
    assert law.zero_fraction == np.mean(np.isneginf(rows))
    assert law.atoms == (((0.0, law.zero_fraction),) if np.isneginf(rows).any() else ())


@pytest.mark.parametrize("law", [LogUniform(0.0), spectrum([[0.0, 1.0]])], ids=lambda law: type(law).__name__)
@pytest.mark.parametrize("call", ["pdf", "cdf", "ppf", "log_pdf_log", "cdf_log", "log_ppf"])
def test_functions_of_a_law_keep_the_shape_of_what_they_are_given(law, call):
    """A number gives an array of shape (), an array one of its own shape."""
    for x in (0.5, [0.25, 0.5], np.full((2, 3), 0.5)):
        found = getattr(law, call)(x)
        assert isinstance(found, np.ndarray)
        assert found.shape == np.shape(x)


@pytest.mark.parametrize("low", [-1.0, -3000.0])
def test_view_in_log_sigma_is_the_same_law_at_half_the_logarithm(low):
    """log σ = (log λ)/2: F and F⁻¹ follow, the density doubles, the support stays right beyond the floating range."""
    law = LogUniform(low)
    view, p = law.in_log_sigma, np.array([0.1, 0.3, 0.9])
    np.testing.assert_allclose(view.ppf(p), law.log_ppf(p) / 2)
    np.testing.assert_allclose(view.cdf(view.ppf(p)[1:]), p[1:], rtol=1e-12)
    x = np.linspace(low / 2 - 0.5, low / 2 + 1.5, 2001)
    assert np.sum(view.pdf(x)) * (x[1] - x[0]) == pytest.approx(0.75, rel=2e-3)
    assert view.support == (-math.inf, low / 2 + 1)
    assert spectrum([[-900.0, 800.0]]).in_log_sigma.support == (-900.0, 800.0)


def test_view_in_log_sigma_has_atoms_moments_and_draws():
    """E (log σ)^k = E (ln λ)^k/2^k over the values; zeros at -inf; draws are those of λ, halved in the logarithm."""
    law = spectrum([[0.5, -1.0, -2.0]])
    view = law.in_log_sigma
    assert (view.moment(), view.moment(2)) == pytest.approx((-2.5 / 3, 5.25 / 3))
    draws = view.rvs(50, generator=rng.generator(1, "view"))
    assert np.allclose(draws, np.log(law.rvs(50, generator=rng.generator(1, "view"))) / 2)
    assert LogUniform(-1.0).in_log_sigma.atoms == ((-math.inf, 0.25),)
    assert LogUniform(-1.0).in_log_sigma.moment(1) == -math.inf


def test_condition_number_is_the_ratio_of_singular_values_outside_zero():
    """(log λ_max - log λ_min)/2 of the non-zero part; at a quantile p, between p and 1 - p of that part."""
    law = LogUniform(-1.0)  # non-zero part uniform over (-1, 1)
    assert law.log_condition_number() == 1.0
    assert law.log_condition_number(0.25) == pytest.approx(0.5)
    assert law.condition_number() == pytest.approx(math.e)
    measured = spectrum([[3.0, 1.0, -np.inf], [2.0, -4.0, -np.inf]])
    assert measured.log_condition_number() == 7.0
    assert spectrum([[400.0, -400.0]]).condition_number() == math.inf


@pytest.mark.parametrize("quantile", [-0.1, 0.5, math.nan])
def test_condition_numbers_at_impossible_quantiles_are_refused(quantile):
    """0 <= p < 1/2, and a law that is all zeros has none."""
    with pytest.raises(
        InvalidArgumentError, match=f"`quantile` must be a finite number >= 0.0 and < 0.5; got {quantile}"
    ):
        spectrum([[1.0]]).log_condition_number(quantile)
    with pytest.raises(InvalidArgumentError, match="`law` must be one with mass outside 0"):
        spectrum([[-np.inf]]).log_condition_number()


def test_values_are_sorted_within_networks_and_pooled_descending():
    """Each row descends; `log_singular_values` is all of them, descending; the array handed in stays as it was."""
    rows = np.array([[0.0, 2.0, -np.inf], [1.0, -1.0, 3.0]])
    law = spectrum(rows)
    np.testing.assert_array_equal(law.by_network, [[2.0, 0.0, -np.inf], [3.0, 1.0, -1.0]])
    np.testing.assert_array_equal(law.log_singular_values, [3.0, 2.0, 1.0, 0.0, -1.0, -np.inf])
    np.testing.assert_array_equal(rows[0], [0.0, 2.0, -np.inf])
    assert (law.networks, law.dimension, law.log_bulk) == (2, 3, (-2.0, 6.0))
    with pytest.raises(ValueError, match="read-only"):
        law.by_network[0, 0] = 1.0


def test_kernel_density_holds_the_mass_of_the_nonzero_values():
    """∫ ρ_log = 1 - share of zeros, and the estimate tends to the density of what was drawn."""
    normal = rng.generator(2, "normal").standard_normal((1, 4000)) / 2
    law = spectrum(np.concatenate([normal, np.full((1, 1000), -np.inf)], axis=1))
    x = np.linspace(-6, 6, 1201)
    density = np.exp(law.log_pdf_log(x))
    assert np.sum(density) * (x[1] - x[0]) == pytest.approx(0.8, rel=1e-6)
    assert np.abs(density - 0.8 * stats.norm.pdf(x)).max() < 0.03
    assert np.isneginf(spectrum([[-np.inf]]).log_pdf_log([0.0])).all()
    assert spectrum([[-np.inf]]).log_bulk is None


def test_pooling_keeps_the_networks_apart():
    """The pool of one-network spectra has one row each; its error is the worst, its method all of theirs."""
    first, second = spectrum([[1.0, 0.0]]), spectrum([[3.0, 2.0]], relative_error=1e-3, method="product")
    pooled = EmpiricalSpectrum.pool([first, second, first])
    assert (pooled.networks, pooled.dimension) == (3, 2)
    assert (pooled.relative_error, pooled.accuracy, pooled.method) == (1e-3, 1e-3, "dense+product")


@pytest.mark.parametrize(
    "spectra",
    [[], [spectrum([[1.0]]), spectrum([[1.0, 2.0]])], [spectrum([[1.0]]), spectrum([[1.0]], batch_stats="batch")]],
    ids=["none", "two dimensions", "two kinds of statistics"],
)
def test_spectra_of_different_things_are_not_pooled(spectra):
    """One dimension and one meaning of the Jacobian."""
    with pytest.raises(InvalidArgumentError, match="`spectra` must be one or more spectra of one dimension"):
        EmpiricalSpectrum.pool(spectra)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([1.0, 2.0], r"got \(2,\)"),
        (np.empty((0, 3)), r"got \(0, 3\)"),
        ([[np.inf, 1.0]], r"finite or -inf values; got \(1, 2\)"),
        ([[np.nan]], "without NaN; got nan"),
    ],
)
def test_spectra_of_no_values_or_of_nonsense_are_refused(rows, message):
    """Networks by dimension, finite or -inf."""
    with pytest.raises(InvalidArgumentError, match=f"`by_network` must be .*{message}"):
        spectrum(rows)


@pytest.mark.parametrize("call", ["log_ppf", "ppf"])
@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
def test_quantiles_outside_zero_to_one_are_refused(call, p):
    """A probability is between 0 and 1."""
    with pytest.raises(InvalidArgumentError, match=f"`p` must be .*; got {p}"):
        getattr(spectrum([[1.0]]), call)(p)


def test_moments_of_no_order_are_refused():
    """k >= 0 for λ, k >= 1 for log λ."""
    with pytest.raises(InvalidArgumentError, match="`k` must be an integer >= 0; got -1"):
        spectrum([[1.0]]).moment(-1)
    with pytest.raises(InvalidArgumentError, match="`k` must be an integer >= 1; got 0"):
        spectrum([[1.0]]).log_moment(0)


def test_profile_error_is_that_of_the_mean_over_networks():
    """se = s/√M with the unbiased s, which is what M repeated measurements scatter by."""
    values = rng.generator(3, "profile").standard_normal((2000, 5, 2))  # 2,000 repetitions of 5 networks at 2 depths
    profiles = [DepthProfile.over_networks(v, depth=[1, 2], symbol="q", label="length") for v in values]
    means, errors = (np.array([getattr(p, name) for p in profiles]) for name in ("value", "se"))
    np.testing.assert_allclose(means.std(axis=0), 1 / math.sqrt(5), rtol=4 / math.sqrt(2 * 2000))
    np.testing.assert_allclose(np.mean(errors**2, axis=0), 1 / 5, rtol=4 * math.sqrt(2 / 4 / 2000))
    assert profiles[0].networks == 5
    assert profiles[0].is_log is False


def test_one_network_has_no_standard_error():
    """A single network cannot tell its scatter: infinite, so that nothing is significant."""
    assert np.isposinf(DepthProfile.over_networks([[1.0, 2.0]], depth=[1, 2], symbol="q", label="length").se).all()
    assert Scalar.over_networks([1.5], symbol="λ", label="rate").se == math.inf


def test_scalar_is_mean_and_standard_error():
    """The numbers 1, 2, 4: mean 7/3, se = √(7/3)/√3."""
    one = Scalar.over_networks([1.0, 2.0, 4.0], symbol="λ", label="rate")
    assert one.value == pytest.approx(7 / 3)
    assert one.se == pytest.approx(math.sqrt(7 / 3 / 3))
    assert one.networks == 3


def test_profiles_of_unequal_lengths_are_refused():
    """One value and one error per depth."""
    with pytest.raises(InvalidArgumentError, match="`value` must be one number per depth"):
        DepthProfile(depth=np.arange(3.0), value=np.zeros(2), se=np.zeros(3), symbol="q", label="length")
    with pytest.raises(InvalidArgumentError, match="`value` must be one number per depth"):
        DepthProfile(depth=np.zeros((1, 1)), value=np.zeros((1, 1)), se=np.zeros((1, 1)), symbol="q", label="length")


@pytest.mark.parametrize("depth", [[2.0, 1.0], [1.0, 1.0], [1.0, math.nan]])
def test_profiles_over_layers_out_of_order_are_refused(depth):
    """Depths increase: comparisons and figures take them in order."""
    with pytest.raises(InvalidArgumentError, match=r"`depth` must be increasing; got \["):
        DepthProfile(depth=np.array(depth), value=np.zeros(2), se=np.zeros(2), symbol="q", label="length")


@pytest.mark.parametrize(
    "result",
    [
        spectrum([[1.0]]),
        DepthProfile(depth=np.ones(1), value=np.ones(1), se=np.zeros(1), symbol="q", label="length"),
        Scalar(value=1.0, se=0.0, symbol="λ", label="rate"),
    ],
    ids=lambda result: type(result).__name__,
)
def test_results_are_frozen(result):
    """A result is what was found; it does not change afterwards."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(result, dataclasses.fields(result)[0].name, None)
    assert not hasattr(result, "__dict__")


def test_a_dead_network_leaves_its_layers_without_a_standard_error():
    """mean of (−1, −∞) = −∞ with se = ∞; other layers keep theirs: (1, 3) → 2 ± 1."""
    profile = DepthProfile.over_networks(
        [[1.0, -1.0], [3.0, -np.inf]], depth=[1, 2], symbol="g", label="g", is_log=True
    )
    assert profile.value.tolist() == [2.0, -np.inf]
    assert profile.se.tolist() == [1.0, np.inf]
