"""Free products of factors: reachable factors, compressions, masses by an integral of its own, quantiles, formulae."""

import itertools
import math

import numpy as np
import pytest
from scipy import special

from rmtbn._checks import InvalidArgumentError
from rmtbn.theory.free import factors, series
from rmtbn.theory.free.terms import Thinning
from rmtbn.theory.free_probability import compression_law, free_product_law
from rmtbn.theory.jacobian import jacobian_law
from rmtbn.theory.marchenko_pastur import MarchenkoPastur

LAWS = {
    "linear": {"activation": "linear", "depth": 5},
    "relu": {"activation": "relu", "depth": 3},
    "relu orthogonal": {"activation": "relu", "depth": 4, "weights": "orthogonal"},
    "hard tanh": {"activation": "hard_tanh", "depth": 3, "sigma_b": 0.2, "weights": "orthogonal"},
    "tanh": {"activation": "tanh", "depth": 4, "sigma_b": 0.3},
    "rectangular": {"activation": "relu", "depth": 2, "widths": [100, 300, 50]},
}


@pytest.mark.parametrize("name", LAWS)
def test_density_and_atoms_add_up_to_one(name):
    """∫ ρ dλ + atoms = 1, by the midpoint rule in the angle w = middle + half·cos η between quantiles of no mass."""
    law = jacobian_law(**LAWS[name])
    total = sum(mass for _, mass in law.atoms)
    for part in law.bulk:
        reach = math.pi if math.isfinite(part.chart.low) else part.reach()
        eta = reach * (np.arange(400) + 0.5) / 400
        w = part.chart.place(eta)
        slope = np.abs(part.chart.slope(eta.astype(complex)))
        total += float(np.sum(np.exp(law.log_pdf_log(w)) * slope)) * reach / 400
    assert total == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("name", LAWS)
def test_density_integrates_to_the_changes_of_the_distribution_function(name):
    """∫ ρ d ln λ = F(b) - F(a) between quantiles, by 64 Gauss–Legendre nodes, to 1e-12."""
    law, (nodes, weights) = jacobian_law(**LAWS[name]), np.polynomial.legendre.leggauss(64)
    part = law.bulk[-1]
    ends = law.log_ppf(part.below + part.mass * np.array([0.3, 0.5, 0.7, 0.9]))
    for a, b in itertools.pairwise(ends):
        w = (a + b) / 2 + (b - a) / 2 * nodes
        mass = float(np.sum(weights * np.exp(law.log_pdf_log(w))) * (b - a) / 2)
        assert mass == pytest.approx(float(np.diff(law.cdf_log([a, b]))[0]), abs=1e-12)


@pytest.mark.parametrize("name", LAWS)
def test_quantiles_invert_the_distribution_function(name):
    """F(ppf(p)) = p to 1e-10 outside of atoms, and ppf is monotone."""
    law = jacobian_law(**LAWS[name])
    p = np.linspace(0, 1, 102)[1:-1]
    x = law.log_ppf(p)
    free = np.isfinite(x) & ~np.isin(x, [at for at, _ in law.log_atoms])
    np.testing.assert_allclose(law.cdf_log(x[free]), p[free], rtol=0, atol=1e-10)
    assert np.all(np.diff(x[np.isfinite(x)]) >= 0)


def test_one_gaussian_factor_is_marchenko_pastur():
    """The engine against the closed form, for more rows than columns: the atom, the density, both edges."""
    law, exact = free_product_law([factors.gaussian(2.0, ratio=3.0)]), MarchenkoPastur(ratio=3.0, log_scale=math.log(2))
    np.testing.assert_allclose(law.atoms, exact.atoms, rtol=1e-14)
    x = exact.log_ppf(np.linspace(0.68, 0.99, 50))
    np.testing.assert_allclose(law.log_pdf_log(x), exact.log_pdf_log(x), rtol=0, atol=1e-10)
    np.testing.assert_allclose(law.log_bulk, exact.log_bulk, rtol=0, atol=1e-12)


def test_the_order_of_factors_does_not_matter_and_s_of_a_user_is_a_factor():
    """S = 1/(1 + m) given by its logarithm is the Gaussian factor."""
    own = factors.from_s_transform(lambda m: -np.log1p(m))
    first = free_product_law([own, factors.bernoulli(0.5, value=2.0)])
    second = free_product_law([factors.bernoulli(0.5, value=2.0), factors.gaussian()])
    x = second.log_ppf([0.55, 0.7, 0.99])
    np.testing.assert_allclose(first.cdf_log(x), second.cdf_log(x), rtol=0, atol=1e-10)
    np.testing.assert_allclose(first.log_pdf_log(x), second.log_pdf_log(x), rtol=0, atol=1e-9)
    assert first.moment(4) == pytest.approx(second.moment(4), rel=1e-10)


def test_a_sample_is_a_factor():
    """Moments of W D Wᵀ, D of 200 values, against the series of their moments."""
    values = np.exp(np.linspace(-1, 1, 200))
    law = free_product_law([factors.gaussian(), factors.points(values)])
    moments = [float(np.mean(values**k)) for k in range(1, 6)]
    expected = series.boxtimes([1, 2, 5, 14, 42], moments)
    np.testing.assert_allclose([law.moment(k) for k in range(1, 6)], expected, rtol=1e-12)
    assert sum(part.mean(np.exp) for part in law.bulk) == pytest.approx(expected[0], rel=1e-10)


@pytest.mark.parametrize("trace", [0.3, 0.8, 1.0])
def test_a_compression_scales_free_cumulants(trace):
    """κ_n → t^{n-1} κ_n: moments of the law against the series."""
    own = [factors.gaussian(ratio=2.0), factors.points([1.0, 3.0])]
    moments = [free_product_law(own).moment(k) for k in range(1, 7)]
    law = compression_law(own, trace=trace)
    np.testing.assert_allclose([law.moment(k) for k in range(1, 7)], series.compression(moments, trace), rtol=1e-12)
    assert sum(part.mass for part in law.bulk) + sum(mass for _, mass in law.atoms) == pytest.approx(1.0, abs=1e-12)


def test_an_atom_of_a_compression_is_what_must_remain():
    """Mass (a - (1 - t))/t of an atom of mass a, at its place: a projection of trace 0.8 in a subspace of 0.5."""
    law = compression_law([factors.bernoulli(0.8)], trace=0.5)
    np.testing.assert_allclose(law.atoms, [(1.0, 0.6)], rtol=1e-13)


def test_defining_equations_are_written():
    """z(M) of ReLU networks in closed form, of tanh networks with ζ."""
    assert jacobian_law("relu", depth=5).latex() == r"z = \frac{\left(M + 1\right) \left(2 M + 1\right)^{5}}{M}"
    text = jacobian_law("tanh", depth=7, sigma_b=0.3).latex()
    assert text.startswith(r"z = M^{6} \zeta_{1}^{7} \left(M + 1\right)")
    assert r"E_{1} \frac{d}{\zeta_{1} - d} = M" in text


@pytest.mark.parametrize("make", [lambda: free_product_law([]), lambda: compression_law([], trace=0.5)])
def test_no_factor_is_refused(make):
    with pytest.raises(InvalidArgumentError, match=r"factors.*one or more"):
        make()


def test_a_trace_out_of_range_is_refused():
    with pytest.raises(InvalidArgumentError, match=r"trace.*1\.5"):
        compression_law([factors.gaussian()], trace=1.5)


@pytest.mark.parametrize("name", ["hard_tanh", "selu", "leaky_relu"])
def test_the_distribution_function_at_an_atom_holds_it(name):
    """P(λ <= atom) - P(λ < atom) = mass, and ppf on the jump is the atom, to the last bit; 20 networks."""
    for sigma in np.linspace(0.02, 2, 20):
        q0 = None if name == "hard_tanh" else 1.0
        chosen = {"sigma_b": sigma} if name == "hard_tanh" else {"sigma_w": 1 + sigma}
        law = jacobian_law(name, depth=1, weights="orthogonal", q0=q0, **chosen)
        for lam, mass in law.atoms:
            top = float(law.cdf(lam))
            if lam > 0:
                assert top - float(law.cdf(lam * (1 - 1e-14))) == pytest.approx(mass, abs=1e-9)
            assert np.all(law.ppf(top - mass * np.array([0.01, 0.5, 0.99])) == lam)


def test_an_edge_at_an_atom_that_has_just_gone_is_found():
    """Two free projections of trace 1/2, values a and b < a: the bulk is [b², a²] at every scale."""
    for sigma in np.linspace(1.02, 3, 12):
        law = jacobian_law("leaky_relu", depth=2, weights="orthogonal", sigma_w=sigma)
        low, high = law.log_bulk
        assert high == pytest.approx(4 * math.log(sigma), abs=1e-10)
        assert low == pytest.approx(4 * math.log(sigma) - 8 * math.log(10), abs=1e-10)


@pytest.mark.parametrize("a", [0.25, 1.0, 3.0])
def test_infinitely_many_projections_are_the_lambert_function(a):
    """T = e^{aM/(1 + M)}: z = e^{as}/s, s = M/(1 + M), so that s = -W(-a/z)/a; F = a/|ln λ| far down."""
    atoms = ((a, 1 - a),) if a < 1 else ()
    law = free_product_law([factors.Factor(terms=(Thinning(a=a),), atoms=atoms)])
    x = law.log_bulk[1] - np.array([0.1, 1.0, 5.0, 30.0, 600.0])
    s = -special.lambertw(-a * np.exp(-x)) / a
    np.testing.assert_allclose(np.exp(law.log_pdf_log(x)), -(s / (1 - s)).imag / np.pi, rtol=1e-10)
    np.testing.assert_allclose(law.cdf_log([-1e6]), a * 1e-6, rtol=1e-4)
    p = np.array([1e-6, 1e-3, 0.1, 0.2])
    np.testing.assert_allclose(law.cdf_log(law.log_ppf(p)), p, rtol=0, atol=1e-12)
    mass = sum(part.mean(np.ones_like) for part in law.bulk) + sum(mass for _, mass in law.atoms)
    assert mass == pytest.approx(1.0, abs=1e-8)  # the rule for the mean, over eleven decades of ln λ
