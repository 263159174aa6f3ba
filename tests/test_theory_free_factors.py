"""Factors: their T = 1/S against the moment transform of their law, scaling, samples, refusals."""

import math

import numpy as np
import pytest
from scipy import integrate, optimize

from rmtbn._checks import InvalidArgumentError
from rmtbn.theory.free import factors
from rmtbn.theory.free.terms import Place
from rmtbn.theory.free.weighted_points import WeightedPoints
from rmtbn.theory.free_probability import free_product_law
from rmtbn.theory.marchenko_pastur import MarchenkoPastur
from rmtbn.theory.residual import ResidualLaw


def t_of(factor, m):
    """T = e^log_mean ∏ (1 + M/c)^e e^terms, at a real M in (-p, 0), which is s < 0."""
    place = Place.at(np.array([np.log(complex(m / (factor.rank + m))).conjugate()]), rank=factor.rank)
    terms = sum(float(term.value(place)[0][0].real) for term in factor.terms)
    return math.exp(factor.log_mean + terms) * math.prod((1 + m / c) ** e for c, e in factor.powers)


def t_of_law(transform, m):
    """ζM/(1 + M) at the ζ < 0 at which M(ζ) = E d/(ζ - d) is m."""
    log_size = optimize.brentq(lambda x: transform(-math.exp(x)) - m, -12, 12, xtol=1e-14)
    return -math.exp(log_size) * m / (1 + m)


def density_transform(law):
    """M(ζ) of a law with a density, by `quad`."""
    low, high = np.exp(law.log_bulk)
    return lambda zeta: integrate.quad(
        lambda lam: lam * float(law.pdf(lam)) / (zeta - lam), low, high, limit=400, epsabs=1e-13
    )[0]


@pytest.mark.parametrize(("ratio", "variance"), [(0.5, 1.0), (0.3, 2.5), (2.0, 0.7)])
@pytest.mark.parametrize("m", [-0.3, -0.1])
def test_gaussian_factor_is_marchenko_pastur(ratio, variance, m):
    """T = σ²(1 + cM), against the density of Marchenko & Pastur integrated."""
    transform = density_transform(MarchenkoPastur(ratio=ratio, log_scale=math.log(variance)))
    factor = factors.gaussian(variance, ratio=ratio)
    assert t_of(factor, m) == pytest.approx(t_of_law(transform, m), rel=1e-8)
    assert factor.rank == min(1.0, 1 / ratio)


@pytest.mark.parametrize(("p", "value"), [(0.5, 2.0), (0.9, 0.1), (1.0, 3.0)])
def test_bernoulli_factor_is_a_point_and_zero(p, value):
    """T = a(p + M)/(1 + M), from M = pa/(ζ - a); its atom and its mean."""
    factor = factors.bernoulli(p, value=value)
    for m in (-0.6 * p, -0.1 * p):
        assert t_of(factor, m) == pytest.approx(t_of_law(lambda z: p * value / (z - value), m), rel=1e-10)
    assert factor.atoms == ((math.log(value), p),)
    assert math.exp(factor.log_mean) == pytest.approx(p * value)
    assert factor.rank == p


def test_constant_factor_is_a_point():
    """T = a, whatever M."""
    assert t_of(factors.constant(1.7), -0.4) == pytest.approx(1.7, rel=1e-14)
    assert factors.constant(1.7).atoms == ((math.log(1.7), 1.0),)


@pytest.mark.parametrize("c", [0.2, 1.0])
def test_multiplicative_normal_has_the_moments_of_residual_networks(c):
    """S = e^{-c(1 + 2M)}, against the Laguerre polynomials of the residual law."""
    law, exact = free_product_law([factors.multiplicative_normal(c)]), ResidualLaw(c=c)
    for k in range(1, 6):
        assert law.moment(k) == pytest.approx(exact.moment(k), rel=1e-11)


def test_a_transform_of_the_users_own_has_its_mean():
    """S = (1/5)/(1 + M): T = 5(1 + M), the mean is 1/S(0)."""
    factor = factors.from_s_transform(lambda m: -np.log(5.0) - np.log1p(m))
    assert math.exp(factor.log_mean) == pytest.approx(5.0)
    assert t_of(factor, -0.4) == pytest.approx(3.0, rel=1e-12)


def test_centred_factors_have_mean_one_and_their_atoms_moved():
    """d/E d: mean 1, atoms over the mean, everything else as before."""
    for factor in (factors.gaussian(3.0), factors.bernoulli(0.25, value=8.0), factors.points([1.0, 4.0], [0.25, 0.75])):
        centred = factor.centred()
        assert centred.log_mean == 0.0
        assert (centred.rank, centred.powers, centred.law) == (factor.rank, factor.powers, factor.law)
        for (x, mass), (before, same) in zip(centred.atoms, factor.atoms, strict=True):
            assert mass == same
            assert x == pytest.approx(before - factor.log_mean, abs=1e-14)


def test_points_are_merged_and_zeros_are_a_lack_of_rank():
    """Values 4, 1, 4, 0 of weight 1/4: mean 9/4, mass 1/2 at 4, 1/4 at 1, rank 3/4."""
    factor = factors.points([4.0, 1.0, 4.0, 0.0])
    assert isinstance(factor.law, WeightedPoints)
    assert factor.rank == 0.75
    assert math.exp(factor.log_mean) == pytest.approx(9 / 4, rel=1e-14)
    np.testing.assert_allclose(factor.atoms, [(0.0, 0.25), (math.log(4.0), 0.5)], atol=1e-14)
    assert factor.law.log_moment(1) == pytest.approx(0.0, abs=1e-14)


def test_weights_are_normalised_and_one_point_is_a_bernoulli_factor():
    """Weights of sum 1 up to 1e-9; a single point that is not 0 has closed form."""
    factor = factors.points([0.0, 3.0], [0.4, 0.6])
    assert factor.law is None
    assert factor == factors.bernoulli(0.6, value=3.0)
    assert factors.points([3.0, 3.0]) == factors.bernoulli(1.0, value=3.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: factors.constant(0.0), "`value` must be .*> 0.*got 0.0"),
        (lambda: factors.gaussian(-1.0), "`variance` must be .*got -1.0"),
        (lambda: factors.gaussian(ratio=0.0), "`ratio` must be .*got 0.0"),
        (lambda: factors.bernoulli(1.5), "`p` must be .*got 1.5"),
        (lambda: factors.points([]), "`values` must be one or more finite"),
        (lambda: factors.points([0.0, 0.0]), "`values` must be not all zero"),
        (lambda: factors.points([1.0, math.inf]), "`values` must be one or more finite"),
        (lambda: factors.points([1.0, 2.0], [0.5]), "`weights` must be one number per value"),
        (lambda: factors.points([1.0, 2.0], [0.5, 0.6]), "`weights` must be .*of sum 1"),
        (lambda: factors.multiplicative_normal(0.0), "`c` must be .*got 0.0"),
    ],
)
def test_bad_factors_are_refused(call, message):
    with pytest.raises(InvalidArgumentError, match=message):
        call()
