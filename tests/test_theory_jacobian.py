"""The law of a network's Jacobian: closed forms, exact moments, atoms, edges, and independent routes."""

import math
import re

import numpy as np
import pytest
from golden import LOG_EDGE
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special

from rmtbn._checks import InvalidArgumentError
from rmtbn.activations import ACTIVATIONS, Activation, activation
from rmtbn.theory import mean_field
from rmtbn.theory.fuss_catalan import FussCatalan
from rmtbn.theory.jacobian import jacobian_law

DEPTHS = (1, 2, 3, 10, 100, 1000)
LEVELS = np.linspace(0.001, 0.999, 200)


@pytest.mark.parametrize("depth", DEPTHS)
def test_linear_gaussian_networks_are_fuss_catalan(depth):
    """The general engine against the exact angle: density to 1e-10 relative, F to 1e-11, the edge to 1e-12."""
    law, exact = jacobian_law("linear", depth=depth), FussCatalan(depth=depth)
    x = exact.log_ppf(LEVELS)
    np.testing.assert_allclose(law.log_pdf_log(x), exact.log_pdf_log(x), rtol=0, atol=1e-10)
    np.testing.assert_allclose(law.cdf_log(x), LEVELS, rtol=0, atol=1e-11)
    assert law.log_bulk[1] == pytest.approx(exact.log_bulk[1], abs=1e-12)


@pytest.mark.parametrize("depth", [*DEPTHS, 10_000])
def test_moments_of_linear_gaussian_networks_are_binomial(depth):
    """m_k = C((L + 1)k, k)/(Lk + 1) to order 8, to 1e-12."""
    law = jacobian_law("linear", depth=depth)
    for k in range(1, 9):
        assert law.moment(k) == pytest.approx(math.comb((depth + 1) * k, k) / (depth * k + 1), rel=1e-12)


@pytest.mark.parametrize("key", [key for key in LOG_EDGE if key[0] != "tanh"], ids=str)
def test_upper_edges_are_those_of_the_table(key):
    """Ln of the upper edge at criticality."""
    activation, weights, depth = key
    assert LOG_EDGE[key].agrees(jacobian_law(activation, depth=depth, weights=weights).log_bulk[1])


@pytest.mark.parametrize("depth", [2, 3, 10, 1000, 10_000])
def test_orthogonal_relu_networks_are_fuss_catalan_of_one_factor_less(depth):
    """z = (1 + w)^L/w with M = w/(1 - w): the curve of FC_{L-1}, but another density on it; edge L^L/(L-1)^{L-1}."""
    law = jacobian_law("relu", depth=depth, weights="orthogonal")
    edge = depth * math.log(depth) - (depth - 1) * math.log(depth - 1)
    assert law.log_bulk[1] == pytest.approx(edge, abs=1e-10)
    angle = np.linspace(0.01, 0.99, 50) * np.pi / depth
    w = np.sin(angle) / np.sin((depth - 1) * angle) * np.exp(-1j * depth * angle)
    log_lam = depth * np.log(np.abs(1 + w)) - np.log(np.abs(w))
    density = -(w / (1 - w)).imag / np.pi
    rounding = 1e-12 * depth  # of log_lam here, 2 % of a bulk's length from the edge
    np.testing.assert_allclose(law.log_pdf_log(log_lam), np.log(density), rtol=0, atol=1e-10 + rounding)
    assert law.atoms == ((0.0, 0.5),)
    assert sum(part.mean(np.ones_like) for part in law.bulk) == pytest.approx(0.5, abs=1e-11)


@pytest.mark.parametrize("depth", [1, 2, 5, 50, 10_000])
@pytest.mark.parametrize(("activation", "weights", "per_layer"), [("linear", "gaussian", 1), ("relu", "gaussian", 2)])
def test_variance_grows_by_a_constant_per_layer(activation, weights, per_layer, depth):
    """Var λ = L(E φ′⁴/(E φ′²)² - 1 + g) at mean 1."""
    law = jacobian_law(activation, depth=depth, weights=weights)
    assert law.moment(1) == pytest.approx(1.0, rel=1e-12)
    assert law.moment(2) - 1 == pytest.approx(per_layer * depth, rel=1e-11)


@pytest.mark.parametrize("sigma_b", [0.01, 0.2, 1.0])
@pytest.mark.parametrize("depth", [1, 2, 3, 7, 40])
def test_atoms_and_bulk_of_orthogonal_hard_tanh_networks_share_the_mass(depth, sigma_b):
    """An atom 1 - p at 0, one of max(0, 1 - L(1 - p)) at p^{-L}, and the rest in the bulk, below the atom."""
    law = jacobian_law("hard_tanh", depth=depth, weights="orthogonal", sigma_b=sigma_b)
    p = math.erf(1 / math.sqrt(2 * law.q[0]))
    expected = [(0.0, 1 - p)] * (p < 1) + [(p**-depth, 1 - depth * (1 - p))] * (depth * (1 - p) < 1)
    np.testing.assert_allclose(law.atoms, expected, rtol=1e-12, atol=1e-15)
    bulk = sum(part.mean(np.ones_like) for part in law.bulk)
    assert bulk + sum(mass for _, mass in law.atoms) == pytest.approx(1.0, abs=1e-9)
    assert law.support[1] == max(
        *(lam for lam, _ in law.atoms), 0.0 if law.log_bulk is None else np.exp(law.log_bulk[1])
    )


@pytest.mark.parametrize("depth", [2, 8, 64, 1024])
@pytest.mark.parametrize("weights", ["gaussian", "orthogonal"])
def test_upper_edges_of_tanh_networks_are_those_of_the_table(weights, depth):
    """Ln of the upper edge at σ_b² = 0.05."""
    law = jacobian_law("tanh", depth=depth, weights=weights, sigma_b=0.05**0.5)
    assert LOG_EDGE["tanh", weights, depth].agrees(law.log_bulk[1])


@pytest.mark.parametrize("weights", ["gaussian", "orthogonal"])
@pytest.mark.parametrize("name", ["hard_tanh", "erf", "tanh", "silu", "selu"])
def test_variance_is_that_of_the_slopes(name, weights):
    """Var λ = L(E φ′⁴/(E φ′²)² - 1 + g) at mean 1, E by `quad`; hard-tanh 1/p, erf (1 + 4q)/√(1 + 8q)."""
    law = jacobian_law(name, depth=7, weights=weights, sigma_b=0.0 if name == "selu" else 0.3)
    q, record = float(law.q[0]), activation(name)
    if name == "hard_tanh":
        share = 1 / math.erf(1 / math.sqrt(2 * q))
    elif name == "erf":
        share = (1 + 4 * q) / math.sqrt(1 + 8 * q)
    elif q == 0:
        low, high = record.dphi(np.array([-1e-12, 1e-12])) ** 2
        share = 2 * (low**2 + high**2) / (low + high) ** 2
    else:
        second, fourth = (
            integrate.quad(
                lambda h, k=k: float(record.dphi(np.array([h]))[0]) ** k * math.exp(-h * h / 2 / q),
                -12 * q**0.5,
                12 * q**0.5,
                epsabs=1e-14,
                epsrel=1e-13,
                limit=400,
            )[0]
            / math.sqrt(2 * math.pi * q)
            for k in (2, 4)
        )
        share = fourth / second**2
    assert law.moment(1) == pytest.approx(1.0, rel=1e-11)
    assert law.moment(2) - 1 == pytest.approx(7 * (share - 1 + (weights == "gaussian")), rel=1e-10)


@pytest.mark.parametrize("depth", [1, 3, 100, 10_000])
def test_mean_logarithms_add_over_factors(depth):
    """E ln λ = L(ln σ_w² + E ln φ′² - 1) for square Gaussian layers: determinants multiply; leaky ReLU, and tanh."""
    law = jacobian_law("leaky_relu", depth=depth, sigma_w=1.1)
    assert law.log_moment(1) == pytest.approx(depth * (math.log(1.1**2) + math.log(0.01) - 1), rel=1e-9)
    law = jacobian_law("tanh", depth=depth, sigma_b=0.3)
    z = np.linspace(-12, 12, 20001) * math.sqrt(law.q[0])
    weight = np.exp(-z * z / 2 / law.q[0])
    mean = float(np.sum(weight * -4 * np.log(np.cosh(z))) / np.sum(weight))
    assert law.log_moment(1) == pytest.approx(depth * (2 * math.log(law.sigma_w) + mean - 1), rel=1e-9)


@pytest.mark.parametrize("depth", [1, 2, 8, 64, 1024, 10_000])
@pytest.mark.parametrize("weights", ["gaussian", "orthogonal"])
def test_half_of_a_relu_network_is_zero(weights, depth):
    """The atom at zero is 1/2, exactly, at every depth."""
    law = jacobian_law("relu", depth=depth, weights=weights)
    assert law.atoms[0] == (0.0, 0.5)
    assert law.cdf(0.0) == 0.5


def test_an_embedding_of_an_orthogonal_matrix_is_two_atoms():
    """n_1 = 3 n_0, W Wᵀ = 3σ_w² on a third of the space; n_1 = n_0/3: σ_w²."""
    assert jacobian_law("linear", depth=1, weights="orthogonal", sigma_w=1.0, widths=[10, 30]).atoms[1] == (
        pytest.approx(3.0),
        pytest.approx(1 / 3),
    )
    assert jacobian_law("linear", depth=1, weights="orthogonal", sigma_w=1.0, widths=[30, 10]).atoms == (
        (pytest.approx(1.0), 1.0),
    )


def test_two_orthogonal_relu_layers_are_arcsine():
    """z = (1 + 2M)²/(M(1 + M)): two free projections of trace 1/2, ρ = 1/(2π√(λ(4 - λ)))."""
    law = jacobian_law("relu", depth=2, weights="orthogonal")
    lam = np.array([0.3, 1.0, 2.5, 3.9])
    np.testing.assert_allclose(law.pdf(lam), 1 / (2 * np.pi * np.sqrt(lam * (4 - lam))), rtol=1e-10)


def test_lengths_that_leave_the_range_are_refused():
    with pytest.raises(InvalidArgumentError, match=r"depth.*10000"):
        jacobian_law("gelu", depth=10_000, sigma_w=2.0, q0=1.0)


def test_no_input_and_no_bias_is_the_limit_of_small_lengths():
    """q0 = 0 and σ_b = 0: every q_l is 0."""
    law = jacobian_law("tanh", depth=5, q0=0.0)
    assert law.q.max() == 0.0
    assert law.moment(2) == pytest.approx(6.0, rel=1e-12)


@pytest.mark.parametrize("sigma_b", [0.3, 0.5, 0.7])
def test_what_leaves_the_floating_range_is_zero(sigma_b):
    """Orthogonal erf, L = 4: ln ρ falls to -600 on the branch, and is -inf where F < 1e-303; F is 0 there."""
    law = jacobian_law("erf", depth=4, weights="orthogonal", sigma_b=sigma_b)
    x = -np.array([400.0, 1600.0, 10_000.0, 19_681.0, 1e6])[::-1]
    density = law.log_pdf_log(x)
    assert np.all(np.diff(density[np.isfinite(density)]) > 0)
    assert density[0] == density[1] == -np.inf
    assert np.isfinite(density[-1])
    np.testing.assert_allclose(law.cdf_log(x[:3]), 0.0, atol=1e-14)


@pytest.mark.parametrize(
    "network",
    [
        pytest.param(
            {
                "activation": "silu",
                "depth": 8,
                "sigma_w": 2.7124253146052673,
                "sigma_b": 0.09984519410250009,
                "q0": 1.0040108632110445,
            },
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {
                "activation": "gelu",
                "depth": 6022,
                "weights": "orthogonal",
                "sigma_w": 0.6927418751545027,
                "q0": 0.577606987421598,
            },
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"activation": "tanh", "depth": 8629, "weights": "orthogonal", "q0": 0.5769041164441491},
            marks=pytest.mark.slow,
        ),
        {
            "activation": "silu",
            "depth": 91,
            "weights": "orthogonal",
            "sigma_w": 0.3,
            "q0": 0.3,
            "widths": [3] + [2] * 90 + [4],
        },
        {"activation": "gelu", "depth": 1, "weights": "orthogonal", "sigma_b": 1.6201276210181348},
        {"activation": "selu", "depth": 2, "weights": "orthogonal", "sigma_w": 1.944119307153, "q0": 1.944119307153},
        {"activation": "leaky_relu", "depth": 1, "weights": "orthogonal", "sigma_w": 0.448, "widths": [3, 4]},
        pytest.param(
            {
                "activation": "erf",
                "depth": 1,
                "weights": "orthogonal",
                "sigma_w": 0.3,
                "sigma_b": 0.3,
                "q0": 0.3,
                "widths": [3, 4],
            },
            marks=pytest.mark.slow,
        ),
    ],
)
def test_networks_on_which_a_law_once_failed(network):
    """E λ = ∏ χ_l, and what is asked of every law.

    In order: a slope of ln d that is 0 at a sample point; weights below the floating range; a factor of small mass at
    ζ, where Newton's steps cross its cut; powers that add up to 0 but for rounding, and no mass next to the edge; a
    third of the mass within the rounding of ln λ; atoms that meet in a dimension of 0; gaps between
    the bulk and atoms on both sides of it, in which M passes 0 and -p; an edge so faint that the
    density seems to end above it.
    """
    law = jacobian_law(**network)
    chi = law.sigma_w**2 * mean_field.dphi_second_moment(law.q, activation(network["activation"]))
    assert law.curve.log_mean == pytest.approx(np.log(chi).sum(), rel=1e-11, abs=1e-11)
    check(law)


def test_layers_of_one_shape_keep_their_own_lengths():
    """tanh, n = 60, 20, 60, 20, shrinking q_l: m₂/m₁² = 1 + Σ n_L/n_{l-1} + Σ (n_L/n_l)(E φ′⁴/(E φ′²)² - 1)."""
    n = [60, 20, 60, 20]
    law, h = jacobian_law("tanh", depth=3, sigma_w=1.2, sigma_b=0.1, q0=20.0, widths=n), np.linspace(-12, 12, 20001)
    expected = 1 + sum(n[3] / x for x in n[:3])
    for size, q in zip(n[1:], law.q, strict=True):
        slope, weight = np.cosh(h * math.sqrt(q)) ** -2, np.exp(-h * h / 2)
        second, fourth = (np.sum(weight * slope**k) / np.sum(weight) for k in (2, 4))
        expected += n[3] / size * (fourth / second**2 - 1)
    assert np.ptp(law.q[1:]) > 0.05
    assert law.moment(2) / law.moment(1) ** 2 == pytest.approx(expected, rel=1e-11)


def test_lengths_that_have_settled_are_one_factor():
    """tanh, L = 1000: q_l is at its fixed point, to the last bit, after some tens of layers."""
    law = jacobian_law("tanh", depth=1000, sigma_w=1.5, sigma_b=0.3, q0=5.0)
    distinct = np.unique(law.q)
    assert distinct.size < 100
    fixed = mean_field.fixed_point(activation("tanh"), sigma_w=1.5, sigma_b=0.3).q
    assert np.all(np.diff(law.q[100:]) == 0)
    assert law.q[-1] == pytest.approx(fixed, rel=1e-12)


def hard_swish():
    """φ′ = 0 for h < -3, (2h + 3)/6 between, 1 for h > 3."""
    return Activation(
        name="hard_swish",
        formula="x*Min(Max(x + 3, 0), 6)/6",
        phi=lambda h: h * np.clip(h + 3, 0, 6) / 6,
        dphi=lambda h: np.where(h < -3, 0.0, np.where(h > 3, 1.0, (2 * h + 3) / 6)),
        kinks=(-3.0, 3.0),
    )


@pytest.mark.parametrize("depth", [3, 7])
def test_zeros_are_those_of_the_layer_that_has_most(depth):
    """Hard swish, growing lengths: P(h_L < -3) exactly, no layer between those that occur; mass 1, E λ = ∏ χ_l."""
    law = jacobian_law(hard_swish(), depth=depth, sigma_w=1.5, sigma_b=0.1, q0=3.0)
    assert np.all(np.diff(law.q) > 0)
    assert law.atoms == ((0.0, pytest.approx(special.ndtr(-3 / math.sqrt(law.q[-1])), abs=1e-14)),)
    assert law.atoms[0][1] + sum(part.mean(np.ones_like) for part in law.bulk) == pytest.approx(1.0, abs=1e-9)
    chi = 1.5**2 * mean_field.dphi_second_moment(law.q, hard_swish())
    assert law.curve.log_mean == pytest.approx(np.log(chi).sum(), rel=1e-12)


def test_too_many_layers_with_zeros_of_their_own_are_refused():
    """Hard swish, 260 layers of 260 lengths."""
    with pytest.raises(InvalidArgumentError, match=r"`q0` must be such that layers have 256 lengths at most.*260"):
        jacobian_law(hard_swish(), depth=260, sigma_w=1.5, sigma_b=0.1, q0=3.0)


def test_a_slope_that_underflows_at_one_length_is_refused_by_name():
    """φ′ = e^{-h²} given by itself, q_1 = 72.8: no factor is made up for it."""
    own = Activation(name="own", formula="x", phi=special.erf, dphi=lambda h: np.exp(-h * h))
    with pytest.raises(InvalidArgumentError, match=r"`q` must be so small that φ′.*above 1e-290"):
        jacobian_law(own, depth=3, sigma_w=10.0, sigma_b=0.1, q0=0.728)


def check(law):
    """No NaN; F of the quantiles; the mass; the mean, by the quadrature that gives the mean of ln λ."""
    p = np.array([1e-6, 1e-3, 0.1, 0.25, 0.4, 0.6, 0.9, 0.999])
    x = law.log_ppf(p)
    atoms = [at for at, _ in law.log_atoms]
    free = np.array([np.isfinite(y) and not np.any(np.abs(np.subtract(atoms, y)) < 1e-9) for y in x])
    rounding = 1e-14 * (1 + np.abs(x[free]))  # of ln λ; several per cent of the mass may lie within it
    assert np.all(law.cdf_log(x[free] - rounding) <= p[free] + 1e-9)
    assert np.all(law.cdf_log(x[free] + rounding) >= p[free] - 1e-9)
    assert not np.isnan(law.log_pdf_log(x[free])).any()
    assert np.all(np.diff(x[np.isfinite(x)]) >= 0)
    mass = sum(mass for _, mass in law.atoms) + sum(part.mean(np.ones_like) for part in law.bulk)
    assert mass == pytest.approx(1.0, abs=1e-9)
    assert not math.isnan(law.log_moment(1))
    assert not math.isnan(law.moment(1))


def networks(deepest):
    """Every φ and weight law, any depth, σ_b, input and shape in the documented ranges."""
    return st.fixed_dictionaries(
        {
            "activation": st.sampled_from(sorted(ACTIVATIONS)),
            "depth": st.integers(1, deepest) | st.sampled_from([1, 2, 3]),
            "weights": st.sampled_from(["gaussian", "orthogonal"]),
            "sigma_w": st.none() | st.floats(0.3, 3.0),
            "sigma_b": st.just(0.0) | st.floats(1e-3, 2.0),
            "q0": st.none() | st.floats(1e-3, 100.0),
            "shape": st.sampled_from([(1, 1, 1), (2, 1, 1), (1, 3, 1), (3, 2, 4)]),
        }
    )


def check_network(network):
    first, middle, last = network.pop("shape")
    widths = [first, *[middle] * (network["depth"] - 1), last]
    try:
        law = jacobian_law(**network, widths=widths)
    except InvalidArgumentError as reason:
        assert re.search("`(sigma_b|q0|q|depth)` must be", str(reason))  # noqa: PT017 - the ranges that depend on φ
        return
    check(law)


@settings(max_examples=6, deadline=None)
@given(networks(20))
def test_every_network_has_its_law(network):
    """No warning, NaN or silent fallback; what has no law says why."""
    check_network(dict(network))


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(networks(10_000))
def test_every_network_of_any_depth_has_its_law(network):
    """The same down to 10,000 layers."""
    check_network(dict(network))
