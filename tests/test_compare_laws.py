"""Distances of two laws: closed forms, quadrature, scipy on samples, and the axioms of a distance."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from rmtbn import rng
from rmtbn.compare import compare
from rmtbn.compare.laws import compare_laws
from rmtbn.result import EmpiricalSpectrum
from rmtbn.theory.bernoulli_limit import BernoulliLimit
from rmtbn.theory.fuss_catalan import FussCatalan
from rmtbn.theory.jacobian import jacobian_law
from rmtbn.theory.marchenko_pastur import MarchenkoPastur
from rmtbn.theory.residual import ResidualLaw
from rmtbn.theory.root_limit import RootLimit

LAWS = {
    "one Gaussian matrix": FussCatalan(depth=1),
    "five Gaussian matrices": FussCatalan(depth=5),
    "wide": MarchenkoPastur(ratio=0.3),
    "tall, with zeros": MarchenkoPastur(ratio=3.0),
    "residual": ResidualLaw(c=0.4),
    "atom beside a bulk": BernoulliLimit(s=0.5),
    "ReLU, orthogonal": jacobian_law("relu", depth=1, weights="orthogonal"),
    "isometry": jacobian_law("linear", depth=3, weights="orthogonal"),
    "two points": jacobian_law("leaky_relu", depth=1, weights="orthogonal"),
}


def by_quadrature(first, second, *, step):
    """sup |F - G| and ∫ |F - G| dλ on a grid of λ."""
    low, high = 0.0, max(first.support[1], second.support[1]) + step
    lam = np.arange(low, high, step)
    gap = np.abs(first.cdf(lam) - second.cdf(lam))
    return gap.max(), gap.sum() * step


@pytest.mark.parametrize(("one", "two"), list(itertools.pairwise([*LAWS, "one Gaussian matrix"])))
def test_distances_are_those_of_the_distribution_functions(one, two):
    """ks = sup |F - G|, wasserstein = ∫ |F - G| dλ, to what a grid of 20,000 points can see; symmetric."""
    first, second = LAWS[one], LAWS[two]
    found, back = compare(first, second), compare(second, first)
    step = max(first.support[1], second.support[1]) / 20_000
    ks, wasserstein = by_quadrature(first, second, step=step)
    assert found.ks == pytest.approx(ks, abs=0.01)
    assert found.ks > ks - 1e-12
    assert found.wasserstein == pytest.approx(wasserstein, abs=2 * step)
    for name in ("ks", "wasserstein", "wasserstein_log"):
        assert getattr(found, name) == pytest.approx(getattr(back, name), rel=1e-12)


@pytest.mark.parametrize("name", LAWS)
def test_a_law_is_at_no_distance_from_itself(name):
    """d(F, F) = 0, exactly."""
    found = compare(LAWS[name], LAWS[name])
    assert (found.ks, found.wasserstein, found.wasserstein_log) == (0.0, 0.0, 0.0)


def test_triangle_inequality():
    """d(F, H) <= d(F, G) + d(G, H) for the distances of whole laws."""
    names = ["tall, with zeros", "atom beside a bulk", "two points"]
    pairs = {(a, b): compare(LAWS[a], LAWS[b]) for a, b in itertools.permutations(names, 2)}
    for a, b, c in itertools.permutations(names, 3):
        for name in ("ks", "wasserstein"):
            assert getattr(pairs[a, c], name) <= getattr(pairs[a, b], name) + getattr(pairs[b, c], name) + 1e-10


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_uniform_laws_with_zeros_have_closed_forms(p):
    """F = x against 1 - p + px: ks 1 - p, W₁ (1 - p)/2, and W₁ in ln λ of the non-zero parts 0."""
    found = compare(RootLimit(p=1.0), RootLimit(p=p))
    assert found.ks == pytest.approx(1 - p, rel=1e-14)
    assert found.wasserstein == pytest.approx((1 - p) / 2, rel=1e-12)
    assert found.wasserstein_log == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_a_gap_between_quantiles_is_found(p):
    """1 - p + px against (1 - p)/(1 - px): ks (1 - √(1 - p))² inside, W₁ 1 - p/2 + (1 - p) ln(1 - p)/p."""
    found = compare(RootLimit(p=p), RootLimit(p=p, weights="orthogonal"))
    assert found.ks == pytest.approx((1 - math.sqrt(1 - p)) ** 2, abs=1e-12)
    assert found.wasserstein == pytest.approx(1 - p / 2 + (1 - p) * math.log1p(-p) / p, abs=1e-11)


@pytest.mark.parametrize("shift", [-1.0, 1e-3, 0.5])
@pytest.mark.parametrize("law", [FussCatalan(depth=3), FussCatalan(depth=1000), MarchenkoPastur(ratio=2.0)], ids=str)
def test_scaling_costs_its_logarithm_and_its_share_of_the_mean(law, shift):
    """λ → λe^a: W₁ = |a| in ln λ and |e^a - 1| E λ in λ."""
    parameters = {"depth": law.depth} if isinstance(law, FussCatalan) else {"ratio": law.ratio}
    found = compare(law, type(law)(**parameters, log_scale=shift))
    assert found.wasserstein_log == pytest.approx(abs(shift), rel=1e-11)
    assert found.wasserstein == pytest.approx(abs(math.expm1(shift)), rel=1e-8)


def test_crossing_quantiles_are_split():
    """Residual laws of c = 0.2 and 1 cross at λ = 1: W₁ in ln λ is twice the upper half, by quadrature."""
    first, second = ResidualLaw(c=0.2), ResidualLaw(c=1.0)
    x = (np.arange(20_000) + 0.5) / 20_000 * second.log_bulk[1]
    upper = np.mean(first.cdf_log(x) - second.cdf_log(x)) * second.log_bulk[1]
    found = compare(first, second)
    assert found.wasserstein_log == pytest.approx(2 * upper, rel=1e-7)


def test_isometry_against_uniform_is_known():
    """δ_1 against the uniform law on (0, 1): ks 1, W₁ 1/2, in ln λ 1; against its own half at zero ks 1/2."""
    isometry = LAWS["isometry"]
    found = compare(isometry, RootLimit(p=1.0))
    assert (found.ks, found.wasserstein, found.wasserstein_log) == pytest.approx((1.0, 0.5, 1.0), rel=1e-12)
    relu = compare(isometry, LAWS["ReLU, orthogonal"])
    assert (relu.ks, relu.wasserstein, relu.wasserstein_log) == pytest.approx((0.5, 1.0, math.log(2)), rel=1e-12)


def test_laws_without_a_logarithmic_mean_are_infinitely_far_in_log():
    """F ~ s/|ln λ| for λ → 0; in λ itself the distance is finite."""
    found = compare(BernoulliLimit(s=0.5), FussCatalan(depth=2))
    assert found.wasserstein_log == math.inf
    assert found.wasserstein < 2


def test_samples_agree_with_scipy():
    """Two spectra as laws: scipy's two-sample distances; one against a law: the quadrature of its steps."""
    generator = rng.generator(1, "samples")
    rows = [generator.standard_normal((2, count)) for count in (7, 60)]
    first, second = (EmpiricalSpectrum(by_network=r, relative_error=0.0, method="dense") for r in rows)
    found = compare_laws(first, second)
    values = [np.exp(2 * r.ravel()) for r in rows]
    assert found.ks == pytest.approx(stats.ks_2samp(*values).statistic, abs=1e-12)
    assert found.wasserstein == pytest.approx(stats.wasserstein_distance(*values), rel=1e-7)
    assert found.wasserstein_log == pytest.approx(stats.wasserstein_distance(*(2 * r.ravel() for r in rows)), rel=1e-7)
    law = FussCatalan(depth=2)
    against = compare(second, law)
    assert against.ks == pytest.approx(stats.kstest(2 * rows[1].ravel(), law.cdf_log).statistic, abs=1e-12)
    fine = law.ppf((np.arange(120_000) + 0.5) / 120_000)
    assert against.wasserstein == pytest.approx(np.abs(np.repeat(np.sort(values[1]), 1000) - fine).mean(), rel=1e-4)
