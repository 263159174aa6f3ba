"""Spectra against laws: distances by definition, p-values calibrated over networks, verdicts that can go either way."""

import functools
import math

import numpy as np
import pytest
from scipy import stats

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.compare import FINITE_SIZE, LawDistance, compare
from rmtbn.result import EmpiricalSpectrum, SpectralMeasure
from rmtbn.theory.fuss_catalan import FussCatalan


class TwoAtoms(SpectralMeasure):
    """Mass `zero` at 0, the rest at λ = 2: the law of orthogonal ReLU at depth 1."""

    __slots__ = ("zero",)
    log_bulk = None
    accuracy = 1e-15

    def __init__(self, zero):
        self.zero = zero

    @property
    def atoms(self):
        return tuple((lam, mass) for lam, mass in ((0.0, self.zero), (2.0, 1 - self.zero)) if mass > 0)

    def log_pdf_log(self, log_lam):
        return np.full(np.shape(log_lam), -np.inf)

    def cdf_log(self, log_lam):
        return np.where(np.asarray(log_lam) >= math.log(2.0), 1.0, self.zero)

    def log_ppf(self, p):
        return np.where(np.asarray(p) <= self.zero, -np.inf, math.log(2.0))

    def moment(self, k):
        return (1 - self.zero) * 2.0**k if k else 1.0

    def log_moment(self, k=1):
        return math.log(2.0) ** k if self.zero == 0 else (-math.inf) ** k


def spectrum(log_lam, **changes):
    fields = {"by_network": np.asarray(log_lam, dtype=float) / 2, "relative_error": 1e-12, "method": "dense"}
    return EmpiricalSpectrum(**(fields | changes))


def products(networks, *, width, depth, seed):
    """Log squared singular values of products of `depth` Gaussian matrices, shape (networks, width)."""
    generator = rng.generator(seed, "products", networks, width, depth)
    product = np.eye(width)[None]
    for _ in range(depth):
        product = generator.standard_normal((networks, width, width)) @ product / math.sqrt(width)
    return 2 * np.log(np.linalg.svd(product, compute_uv=False))


def stratified(law, *, networks, width, seed=1):
    """Networks whose mean law is `law` and whose values repel: one draw in each of `width` equal shares."""
    u = (np.arange(width) + rng.generator(seed, "stratified").random((networks, width))) / width
    return spectrum(law.log_ppf(u))


@functools.cache
def mean_law(width, depth):
    return spectrum(products(6000, width=width, depth=depth, seed=99))


@pytest.mark.parametrize("networks", [3, 5, 20])
def test_pvalues_are_uniform_under_the_null(networks):
    """Against the mean law at this very N, 200 replicates: P(p < α) = α within 3.5 s.e. for α = .05, .1, .25, .5, .75.

    The mean law is that of 6,000 other networks. The counts of eigenvalues are integers while the theory of the test is
    Gaussian, which costs a few percent in the middle: P(p < 1/2) may be 0.08 off.
    """
    width, depth = 16, 4
    law = mean_law(width, depth)
    found = [spectrum(products(networks, width=width, depth=depth, seed=seed)) for seed in range(200)]
    pvalues = np.array([compare(law, one).ks_pvalue for one in found])
    for level, slack in ((0.05, 0.0), (0.1, 0.0), (0.25, 0.04), (0.5, 0.08), (0.75, 0.04)):
        error = math.sqrt(level * (1 - level) / 200)
        assert np.mean(pvalues < level) == pytest.approx(level, abs=3.5 * error + slack)


def test_independent_critical_values_would_never_reject():
    """Eigenvalues repel: the distance to the law of one factor more is below the i.i.d. 1 % value, and yet real.

    N = 32, 20 networks, 10 factors against 11: with networks as the unit it is rejected.
    """
    measured = spectrum(products(20, width=32, depth=10, seed=1))
    wrong = spectrum(products(3000, width=32, depth=11, seed=2))
    found = compare(wrong, measured)
    assert found.ks < stats.kstwo(20 * 32).isf(0.01)
    assert found.ks_pvalue < 0.01


def test_right_law_is_accepted_and_its_neighbours_are_rejected():
    """Products of 4 factors, N = 128, 12 networks: FC_4 up to order 1/N, FC_3 and FC_5 not."""
    measured = spectrum(products(12, width=128, depth=4, seed=1))
    assert compare(FussCatalan(depth=4), measured).verdict in {"agrees", "agrees to order 1/N"}
    for depth in (3, 5):
        found = compare(FussCatalan(depth=depth), measured)
        assert found.verdict == "rejected"
        assert found.ks_pvalue < 0.01
        assert found.ks - 3 * found.ks_se > FINITE_SIZE / 128


def test_law_of_other_weights_is_rejected():
    """σ_w² larger by a tenth shifts log λ by 4 ln 1.1/2 at depth 4: a distance of several percent."""
    measured = spectrum(products(12, width=128, depth=4, seed=1))
    shifted = FussCatalan(depth=4, log_scale=4 * math.log(1.1))
    assert compare(shifted, measured).verdict == "rejected"


def test_ks_distance_is_the_largest_gap_on_either_side_of_the_steps():
    """sup |F_n - F| by scipy's definition for a continuous law, networks pooled."""
    rows = products(3, width=40, depth=2, seed=5)
    law = FussCatalan(depth=2)
    expected = stats.kstest(rows.ravel(), law.cdf_log).statistic
    assert compare(law, spectrum(rows)).ks == pytest.approx(expected, abs=1e-12)


def test_ks_error_is_the_scatter_of_the_distance():
    """The jackknife over 10 networks agrees within a factor 2 with the scatter over 80 repetitions."""
    law = FussCatalan(depth=3)
    found = [compare(law, spectrum(products(10, width=16, depth=2, seed=seed))) for seed in range(80)]
    scatter = np.std([one.ks for one in found])
    assert 0.5 < np.mean([one.ks_se for one in found]) / scatter < 2.0


@pytest.mark.parametrize("shift", [0.0, 0.5, -2.0])
def test_wasserstein_distance_of_a_shifted_spectrum_is_the_shift(shift):
    """W₁ in log λ between a law and its translate: the size of the shift."""
    law = FussCatalan(depth=2)
    measured = spectrum(law.log_ppf((np.arange(4096) + 0.5) / 4096)[None] + shift)
    assert compare(law, measured).wasserstein_log == pytest.approx(abs(shift), abs=0.01)


def test_moments_and_zeros_carry_their_errors_over_networks():
    """m₁, m₂, the share of zeros: mean over networks, standard error, z-score against the law."""
    law = FussCatalan(depth=2)
    rows = products(16, width=64, depth=2, seed=7)
    found = compare(law, spectrum(rows))
    for k, deviation in zip((1, 2), found.moments, strict=True):
        per_network = np.exp(k * rows).mean(axis=1)
        assert deviation.measured == pytest.approx(per_network.mean())
        assert deviation.se == pytest.approx(per_network.std(ddof=1) / 4)
        assert deviation.predicted == pytest.approx({1: 1.0, 2: 3.0}[k])
        assert deviation.z == pytest.approx((deviation.measured - deviation.predicted) / deviation.se)
    assert abs(found.moments[0].z) < 4
    assert (found.zeros.measured, found.zeros.predicted, found.zeros.z) == (0.0, 0.0, 0.0)
    assert found.edge.predicted == pytest.approx(math.log(6.75))
    assert found.edge.measured == pytest.approx(rows.max(axis=1).mean())
    assert (found.networks, found.dimension) == (16, 64)


def test_values_at_an_atom_up_to_rounding_are_on_it():
    """Orthogonal ReLU at depth 1: half zeros, half λ = 2(1 ± 1e-13); no distance, and no drama about rounding."""
    rounding = 1e-13 * rng.generator(1, "rounding").standard_normal((5, 8))
    rows = np.concatenate([math.log(2.0) + rounding, np.full((5, 8), -np.inf)], axis=1)
    found = compare(TwoAtoms(0.5), spectrum(rows))
    assert (found.ks, found.ks_pvalue, found.verdict) == (0.0, 1.0, "agrees")
    assert found.wasserstein_log == pytest.approx(0.0, abs=1e-12)
    assert found.zeros.z == 0.0


def test_values_beside_an_atom_are_not_on_it():
    """λ = 2.2 where the law has its atom at 2: a distance of the whole mass."""
    rows = np.full((5, 8), math.log(2.2))
    found = compare(TwoAtoms(0.0), spectrum(rows))
    assert found.ks == 1.0
    assert found.verdict == "rejected"
    assert found.wasserstein_log == pytest.approx(math.log(1.1))


def test_a_missing_atom_at_zero_is_seen():
    """A law with half its mass at 0 against a spectrum without zeros: distance 1/2, z-score of the zeros infinite."""
    found = compare(TwoAtoms(0.5), spectrum(np.full((4, 10), math.log(2.0))))
    assert found.ks == pytest.approx(0.5)
    assert (found.zeros.measured, found.zeros.predicted) == (0.0, 0.5)
    assert found.zeros.z == -math.inf
    assert found.verdict == "rejected"


@pytest.mark.parametrize(
    ("law", "rows", "distance"),
    [
        (TwoAtoms(1.0), np.full((3, 4), -np.inf), 0.0),
        (TwoAtoms(1.0), np.zeros((3, 4)), math.inf),
        (TwoAtoms(0.5), np.full((3, 4), -np.inf), math.inf),
    ],
    ids=["both", "law only", "spectrum only"],
)
def test_spectra_that_are_all_zero_have_a_distance(law, rows, distance):
    """Nothing is at distance 0 from nothing, and infinitely far in log λ from something."""
    assert compare(law, spectrum(rows)).wasserstein_log == distance


def test_one_network_decides_nothing():
    """No p-value, no standard error, no verdict; the distance stands."""
    found = compare(FussCatalan(depth=9), spectrum(products(1, width=32, depth=1, seed=1)))
    assert (found.ks_pvalue, found.ks_se, found.verdict) == (None, math.inf, "undecided")
    assert found.ks > 0.2
    assert found.moments[0].z is None


def test_allowance_for_finite_size_is_kappa_over_width():
    """A distance of order 1/N is no disagreement: the verdict turns where ks - 3 se passes κ/N, N given or its own."""
    law = FussCatalan(depth=4)
    measured = spectrum(products(200, width=16, depth=4, seed=1))
    found = compare(law, measured)
    turn = 16 * (found.ks - 3 * found.ks_se)
    assert found.ks_pvalue < 0.01
    assert 0 < turn < FINITE_SIZE
    assert found.verdict == "agrees to order 1/N"
    assert compare(law, measured, finite_size=0.99 * turn).verdict == "rejected"
    assert compare(law, measured, finite_size=1.01 * turn).verdict == "agrees to order 1/N"
    assert compare(law, measured, finite_size=turn, width=15).verdict == "agrees to order 1/N"
    assert compare(law, measured, finite_size=turn, width=17).verdict == "rejected"


@pytest.mark.parametrize(("depth", "width"), [(4, 48), (10, 96)])
def test_the_allowance_tells_neighbouring_laws_apart(depth, width):
    """L = 4 at N = 48, L = 10 at N = 96: laws of L ± 1 factors are rejected, the right one not; κ = 4 lets one pass."""
    measured = spectrum(products(20, width=width, depth=depth, seed=3))
    assert compare(FussCatalan(depth=depth), measured).verdict in {"agrees", "agrees to order 1/N"}
    wrong = [compare(FussCatalan(depth=other), measured) for other in (depth - 1, depth + 1)]
    assert [one.verdict for one in wrong] == ["rejected"] * 2
    lenient = compare(FussCatalan(depth=depth + 1), measured, finite_size=4.0)
    assert lenient.verdict == "agrees to order 1/N"


def test_results_are_reproducible():
    """The null distribution is drawn from a named stream: the same question, the same p-value."""
    measured = stratified(FussCatalan(depth=2), networks=6, width=20)
    first, second = (compare(FussCatalan(depth=2), measured).ks_pvalue for _ in range(2))
    assert first == second


def test_spectra_beyond_the_floating_range_are_compared_in_logarithms():
    """log λ near 1,500: moments are inf and cannot be judged, distances and edge can."""
    law = FussCatalan(depth=4, log_scale=1500.0)
    found = compare(law, spectrum(products(8, width=64, depth=4, seed=3) + 1500.0))
    assert found.verdict in {"agrees", "agrees to order 1/N"}
    assert found.moments[0].z is None
    assert found.edge.predicted == pytest.approx(1500 + 5 * math.log(5) - 4 * math.log(4))
    assert abs(found.edge.measured - found.edge.predicted) < 0.3


def test_two_laws_are_as_far_apart_as_their_distribution_functions():
    """sup |F - G| on a fine grid, and W₁ = ∫ |F⁻¹ - G⁻¹|; zero from a law to itself; symmetric."""
    first, second = FussCatalan(depth=4), FussCatalan(depth=5)
    x = np.linspace(-40, first.log_bulk[1] + 1, 20_001)
    found = compare(first, second)
    assert isinstance(found, LawDistance)
    assert found.ks == pytest.approx(np.abs(first.cdf_log(x) - second.cdf_log(x)).max(), abs=1e-5)
    assert 0.06 < found.ks < 0.07
    assert found.ks == compare(second, first).ks
    assert compare(first, FussCatalan(depth=4)) == LawDistance(ks=0.0, wasserstein=0.0, wasserstein_log=0.0)
    shifted = compare(first, FussCatalan(depth=4, log_scale=0.3))
    assert shifted.wasserstein_log == pytest.approx(0.3, rel=1e-9)


def test_two_laws_with_atoms_are_compared_at_their_atoms():
    """Masses 1/4 and 1/2 at zero: distance 1/4; an atom where the other law is continuous: its mass."""
    assert compare(TwoAtoms(0.25), TwoAtoms(0.5)).ks == pytest.approx(0.25)
    law = FussCatalan(depth=1)
    expected = max(float(law.cdf(2.0)), 1 - float(law.cdf(2.0)))
    assert compare(law, TwoAtoms(0.0)).ks == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "`width` must be an integer >= 1; got 0"),
        ({"finite_size": -1.0}, "`finite_size` must be a finite number >= 0.0; got -1.0"),
        ({"finite_size": math.nan}, "`finite_size` must be a finite number >= 0.0; got nan"),
    ],
)
def test_impossible_allowances_are_refused(options, message):
    """N >= 1, κ >= 0."""
    with pytest.raises(InvalidArgumentError, match=message):
        compare(FussCatalan(depth=1), spectrum([[0.0, 0.1]]), **options)


@pytest.mark.parametrize("ulps", [-1, 0, 1])
def test_an_atom_counts_whichever_way_its_logarithm_rounds(ulps):
    """A law that holds its atom one unit in the last place beside ln λ of `atoms` is at distance 0 from that atom."""

    class Beside(TwoAtoms):
        __slots__ = ()

        def cdf_log(self, log_lam):
            place = math.log(2.0) + ulps * np.spacing(math.log(2.0))
            return np.where(np.asarray(log_lam) >= place, 1.0, self.zero)

    measured = spectrum(np.full((3, 4), math.log(2.0)))
    assert compare(Beside(0.0), measured).ks == 0
    assert compare(Beside(0.0), TwoAtoms(0.0)).ks == 0
    assert compare(Beside(0.25), measured).ks == 0.25
