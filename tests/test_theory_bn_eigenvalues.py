"""Eigenvalues of a batch-normalised layer, ε, γ and β, the uncentred case, and one-layer rates of torch's BatchNorm."""

import math

import numpy as np
import pytest
import torch
from bn_networks import bn_network, exact_inputs
from cases import ACTIVATION_NAMES
from torch import nn

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.activations import ACTIVATIONS, leaky_relu
from rmtbn.measure.gradients import log_gradient_norms
from rmtbn.nets.activations import activation_module
from rmtbn.theory import bn_mean_field
from rmtbn.theory.batch_norm.affine import affine

BATCHES = (6, 12, 24, 48, 96, 200)
MEASURED = ("linear", "relu", "tanh", "erf", "gelu", "leaky_relu")


@pytest.mark.parametrize("batch_size", [4, 8, 64])
def test_eigenvalues_of_linear_layers(batch_size):
    """Forward L = M = (B-1)/(B+1); backward L = M = λ_G (n²-2)/((n+2)(n-1))."""
    point, n = bn_mean_field.fixed_point("linear", batch_size=batch_size), batch_size - 1
    for found in (point.forward_l, point.forward_m):
        assert found == pytest.approx(n / (n + 2), rel=1e-12)
    for found in (point.backward_l, point.backward_m):
        assert found == pytest.approx(point.explosion_rate * (n * n - 2) / ((n + 2) * (n - 1)), rel=1e-12)
    assert point.forward_g == 0.0


def in_parts(batch_size):
    """A matrix of L, G diag(d) G, and one of M, zero diagonal and row sums; both of norm 1 on 1^⊥."""
    centre = np.eye(batch_size) - 1 / batch_size
    d = np.arange(batch_size) - (batch_size - 1) / 2
    in_l, in_m = centre @ np.diag(d) @ centre, np.zeros((batch_size, batch_size))
    in_m[0, 2] = in_m[1, 3] = in_m[2, 0] = in_m[3, 1] = 1.0
    in_m[0, 3] = in_m[1, 2] = in_m[3, 0] = in_m[2, 1] = -1.0
    return in_l / np.linalg.norm(in_l), in_m / np.linalg.norm(in_m)


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
@pytest.mark.parametrize(("batch_size", "eps"), [(4, 0.0), (7, 0.0), (6, 0.2)])
def test_eigenvalues_are_those_of_the_maps_of_covariances(activation, batch_size, eps):
    """E over 30,000 features of the derivative of both maps on matrices of L and M, and of λ_G: within 4 s.e.

    Forward: the likelihood of h ~ N(0, s(I + H)) changes by (hᵀHh/s)/2. Backward: tr(H M Π Mᵀ), M = dx/dh transposed.
    """
    point = bn_mean_field.fixed_point(activation, batch_size=batch_size, eps=eps, sigma_w=1.2)
    spread, phi = point.q * (1 - point.c), ACTIVATIONS[activation]
    g = rng.generator(1, "eigenvalues", activation, batch_size, str(eps)).standard_normal((30_000, batch_size))
    g -= g.mean(axis=1, keepdims=True)
    h = 1.2 * math.sqrt(spread) * g
    v = np.mean(h**2, axis=1, keepdims=True)
    u = h / np.sqrt(v + eps)
    x, d = phi.phi(u), phi.dphi(u)
    normal = h / np.sqrt(v)  # |normal|² = B
    in_l, in_m = in_parts(batch_size)
    for matrix, forward, backward in (
        (in_l, point.forward_l, point.backward_l),
        (in_m, point.forward_m, point.backward_m),
    ):
        values = 0.5 * quadratic(g, matrix) * quadratic(x, matrix) / spread
        assert forward == pytest.approx(values.mean(), abs=4 * values.std() / math.sqrt(len(values)))
        middle = d[:, :, None] * matrix * d[:, None, :]
        cut = (v / (v + eps))[:, :, None] / batch_size
        passed = middle - cut * (normal[:, :, None] @ (normal[:, None, :] @ middle))
        passed = passed - cut * ((passed @ normal[:, :, None]) @ normal[:, None, :])
        values = 1.2**2 / (v[:, 0] + eps) * np.einsum("rij,ij->r", passed, matrix)
        assert backward == pytest.approx(values.mean(), abs=4 * values.std() / math.sqrt(len(values)))


def quadratic(rows, matrix):
    """The quadratic form of each row."""
    return np.einsum("ri,ij,rj->r", rows, matrix, rows)


@pytest.mark.parametrize("activation", ACTIVATION_NAMES)
def test_eigenvalues_tend_to_those_of_independent_examples(activation):
    """At B = ∞: E[(z²-1)(φ - Eφ)²]/2s and (E zφ)²/s forward, λ_G and λ_G (E φ′)²/E φ′² backward; gaps fall as 1/B."""
    limit = bn_mean_field.fixed_point(activation, batch_size=math.inf)
    near, far = (bn_mean_field.fixed_point(activation, batch_size=size) for size in (1000, 2000))
    for name in ("forward_l", "forward_m", "backward_l", "backward_m"):
        gaps = [getattr(point, name) - getattr(limit, name) for point in (near, far)]
        assert abs(gaps[0]) < 0.02
        assert gaps[1] == pytest.approx(gaps[0] / 2, rel=0.02, abs=1e-6)


def test_smooth_rectifiers_lose_stability():
    """GELU's fixed point is unstable from B = 39 on (so at B >= 64, as the notes say), SiLU's from 26; others never."""
    assert not bn_mean_field.fixed_point("gelu", batch_size=64).stable
    for activation, first in (("gelu", 39), ("silu", 26)):
        assert bn_mean_field.fixed_point(activation, batch_size=first - 1).stable
        for batch_size in (first, 64, 500, math.inf):
            point = bn_mean_field.fixed_point(activation, batch_size=batch_size)
            assert not point.stable
            assert point.forward_l > 1
    for activation in set(ACTIVATION_NAMES) - {"gelu", "silu"}:
        for batch_size in (4, 64, 500, math.inf):
            assert bn_mean_field.fixed_point(activation, batch_size=batch_size).stable


@pytest.mark.parametrize("activation", ["linear", "relu", leaky_relu(0.4)])
def test_homogeneous_activations_are_marginal_at_infinity(activation):
    """E[(z² - 1)(φ - E φ)²] = 2 Var φ for φ of degree 1: forward_l is 1 at B = ∞, and below 1 at every B."""
    assert bn_mean_field.fixed_point(activation, batch_size=math.inf).forward_l == pytest.approx(1.0, abs=1e-12)
    values = [bn_mean_field.fixed_point(activation, batch_size=size).forward_l for size in (4, 16, 64, 256)]
    assert (np.diff(values) > 0).all()
    assert values[-1] < 1


@pytest.mark.parametrize("batch_size", [4, 9, math.inf])
@pytest.mark.parametrize(
    "activation", ["relu", *(pytest.param(name, marks=pytest.mark.slow) for name in ("tanh", "gelu"))]
)
def test_a_vanishing_eps_changes_nothing_and_frees_the_scale(activation, batch_size):
    """ε = 1e-9 gives the fixed point of ε = 0 for any σ_w, to √ε at B = 4 (λ_G there converges slowly) and ε else."""
    plain = bn_mean_field.fixed_point(activation, batch_size=batch_size)
    for sigma_w in (0.5, 3.0):
        near = bn_mean_field.fixed_point(activation, batch_size=batch_size, eps=1e-9, sigma_w=sigma_w)
        for name in ("q", "c", "explosion_rate", "forward_l", "forward_m", "backward_l", "backward_m"):
            tolerance = 1e-3 if batch_size == 4 and name in {"explosion_rate", "backward_l", "backward_m"} else 1e-6
            assert getattr(near, name) == pytest.approx(getattr(plain, name), rel=tolerance, abs=1e-7)


def test_eps_makes_the_weights_matter():
    """With ε > 0 only ε/σ_w² counts, λ_G falls as it grows, and beyond a point the spread dies out."""
    first = bn_mean_field.fixed_point("relu", batch_size=8, eps=0.04, sigma_w=2.0)
    second = bn_mean_field.fixed_point("relu", batch_size=8, eps=0.01, sigma_w=1.0)
    assert first.explosion_rate == pytest.approx(second.explosion_rate, rel=1e-9)
    assert first.q == pytest.approx(second.q, rel=1e-9)
    rates = [bn_mean_field.fixed_point("relu", batch_size=8, eps=eps).explosion_rate for eps in (0, 0.01, 0.1, 0.3)]
    assert (np.diff(rates) < 0).all()
    for eps in (0.5, 5.0, 100.0, 1e8):
        with pytest.raises(InvalidArgumentError, match=r"`eps` must be so small that the spread .* not die out; got "):
            bn_mean_field.fixed_point("relu", batch_size=8, eps=eps)


@pytest.mark.parametrize("batch_size", [6, math.inf])
def test_spread_dies_out_where_eps_is_the_variance_that_weights_give(batch_size):
    """Linear: s = E s v/(v + ε), v = s χ²_n/B: a root for ε < 1 = σ_w² only, and s ∝ 1 - ε next to it."""
    near, nearer = (bn_mean_field.fixed_point("linear", batch_size=batch_size, eps=eps) for eps in (0.99, 0.999))
    assert near.q * (1 - near.c) == pytest.approx(10 * nearer.q * (1 - nearer.c), rel=0.02)
    assert nearer.forward_g == pytest.approx(0.999, rel=1e-5)
    with pytest.raises(InvalidArgumentError, match=r"not die out; got 1\.0"):
        bn_mean_field.fixed_point("linear", batch_size=batch_size, eps=1.0)


@pytest.mark.parametrize(("activation", "variance"), [("linear", 1.0), ("relu", (1 - 1 / math.pi) / 2)])
def test_eps_takes_itself_off_the_spread_of_independent_examples(activation, variance):
    """φ of degree 1, B → ∞: s = Var φ(z) - ε/σ_w²."""
    found = bn_mean_field.fixed_point(activation, batch_size=math.inf, eps=0.4, sigma_w=2.0)
    assert found.q * (1 - found.c) == pytest.approx(variance - 0.1, rel=1e-9)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_eps_in_a_layer_of_torch(activation):
    """ε = 0.2, B = 8, σ_w = 1: spread and growth of the gradient in one layer of torch at the fixed point, 3 s.e."""
    point = bn_mean_field.fixed_point(activation, batch_size=8, eps=0.2)
    squares, pairs, rates = one_layer(activation, point, batch_size=8, features=60_000, eps=0.2)
    for values, expected in ((squares, point.q), (pairs, point.q * point.c), (rates, point.explosion_rate)):
        assert values.mean() == pytest.approx(expected, abs=3 * values.std() / math.sqrt(values.size))


def test_scale_and_shift_are_part_of_the_activation():
    """φ(γu + β): of ReLU γ > 0 changes q* only; β = 3 makes it nearly linear; γ = -1 mirrors it."""
    plain = bn_mean_field.fixed_point("relu", batch_size=16)
    for gamma in (3.0, -1.0):
        scaled = bn_mean_field.fixed_point("relu", batch_size=16, gamma=gamma)
        assert scaled.explosion_rate == pytest.approx(plain.explosion_rate, rel=1e-12)
        assert scaled.q == pytest.approx(gamma**2 * plain.q, rel=1e-12)
    nearly = bn_mean_field.fixed_point("relu", batch_size=16, beta=3.0).explosion_rate
    linear = bn_mean_field.fixed_point("linear", batch_size=16, beta=3.0).explosion_rate
    assert linear == pytest.approx(14 / 13, rel=1e-12)
    assert nearly == pytest.approx(linear, rel=2e-3)


@pytest.mark.parametrize("activation", ["tanh", "hard_tanh", "relu"])
def test_shifted_layers_of_torch(activation):
    """γ = 1.7, β = -0.4 in torch's own affine parameters: q*, q*c* and λ_G within 3 standard errors."""
    options = {"gamma": 1.7, "beta": -0.4}
    point = bn_mean_field.fixed_point(activation, batch_size=12, **options)
    squares, pairs, rates = one_layer(activation, point, batch_size=12, features=60_000, **options)
    for values, expected in ((squares, point.q), (pairs, point.q * point.c), (rates, point.explosion_rate)):
        assert values.mean() == pytest.approx(expected, abs=3 * values.std() / math.sqrt(values.size))


def test_shifted_records_are_consistent():
    """φ(γu + β) with its slope, its kinks and the slopes between them in order."""
    u = np.linspace(-3, 3, 7001)
    for gamma, beta in ((2.0, 0.5), (-0.7, 1.1)):
        record = affine(ACTIVATIONS["hard_tanh"], gamma=gamma, beta=beta)
        np.testing.assert_allclose(record.phi(u), np.clip(gamma * u + beta, -1, 1))
        pieces = np.asarray(record.slopes)[np.searchsorted(record.kinks, u)]
        np.testing.assert_allclose(pieces, record.dphi(u))
        assert f"{gamma!r}*x + {beta!r}" in record.formula
    assert affine(ACTIVATIONS["relu"], gamma=1.0, beta=0.0) is ACTIVATIONS["relu"]


@pytest.mark.parametrize(
    "batch_size", [6, 24, 96, *(pytest.param(size, marks=pytest.mark.slow) for size in (12, 48, 200))]
)
@pytest.mark.parametrize("activation", MEASURED)
def test_rates_are_those_of_a_layer_of_torch(activation, batch_size):
    """‖∂ℓ/∂h‖² of one BatchNorm1d and φ at the fixed point, an unbiased estimate of λ_G at any width: 3 s.e."""
    point = bn_mean_field.fixed_point(activation, batch_size=batch_size)
    _, _, rates = one_layer(activation, point, batch_size=batch_size, features=24_000)
    error = rates.std() / math.sqrt(rates.size)
    assert rates.mean() == pytest.approx(point.explosion_rate, abs=3 * error)
    assert error < (0.02 if batch_size > 6 else 0.04) * point.explosion_rate  # heavy tails: E σ⁻⁶ is infinite at B = 6


def one_layer(activation, point, *, batch_size, features, eps=1e-12, gamma=1.0, beta=0.0):
    """Per feature: mean square, mean product of two examples, and ‖∂ℓ/∂h‖² per unit of upstream ‖·‖² on 1^⊥."""
    generator = rng.torch_generator(7, "one layer", activation, batch_size)
    spread = point.q * (1 - point.c)
    h = math.sqrt(spread) * torch.randn(batch_size, features, generator=generator, dtype=torch.float64)
    upstream = torch.randn(batch_size, features, generator=generator, dtype=torch.float64)
    upstream -= upstream.mean(dim=0)
    norm = nn.BatchNorm1d(features, eps=eps, dtype=torch.float64)
    nn.init.constant_(norm.weight, gamma)
    nn.init.constant_(norm.bias, beta)
    h.requires_grad_()
    x = activation_module(activation)(norm(h))
    (gradient,) = torch.autograd.grad((x * upstream).sum(), h)
    x = x.detach()
    squares = x.square().mean(dim=0)
    pairs = (x.sum(dim=0).square() - batch_size * squares) / (batch_size * (batch_size - 1))
    rates = gradient.square().sum(dim=0) / (batch_size - 1)
    return squares.numpy(), pairs.numpy(), rates.numpy()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("activation", "batch_size"),
    [(name, size) for name in MEASURED for size in BATCHES if name not in {"linear", "gelu"} or size <= 24],
)
def test_rates_are_those_of_deep_networks(activation, batch_size):
    """Growth over inner layers of 10-layer BatchNorm1d networks, N = 512, 24 or 48 of them: λ_G within 3 s.e.

    Linear φ beyond B = 24 has no constant rate at this width (B² ≪ 4N fails), and GELU's fixed point is unstable from
    B = 39 on. Batches this much smaller than the width show no finite-width shift.
    """
    point = bn_mean_field.fixed_point(activation, batch_size=batch_size)
    spread, rates = point.q * (1 - point.c), []
    for seed in range(48 if batch_size <= 24 else 24):
        module = bn_network(activation, depth=10, width=512, seed=seed).float()
        x = exact_inputs(batch_size, 512, spread=spread, seed=seed).float()
        direction = torch.randn(x.shape, generator=rng.torch_generator(seed, "direction"))
        logs = log_gradient_norms(module, x, lambda y, direction=direction: (y * direction).sum())
        rates.append(float(np.mean(np.exp(-np.diff(logs))[2:-2])))
    error = np.std(rates, ddof=1) / math.sqrt(len(rates))
    assert np.mean(rates) == pytest.approx(point.explosion_rate, abs=3 * error)
    assert error < 0.02 * point.explosion_rate


@pytest.mark.parametrize("batch_size", [3, 5, 12])
def test_uncentred_rates(batch_size):
    """Linear (B-1)/(B-2); tanh by 200,000 draws on the whole sphere, 4 s.e.; others are refused, B = 2 too."""
    linear = bn_mean_field.uncentred_fixed_point("linear", batch_size=batch_size)
    assert linear.explosion_rate == pytest.approx((batch_size - 1) / (batch_size - 2), rel=1e-12)
    assert linear.q == pytest.approx(1.0, rel=1e-12)
    found = bn_mean_field.uncentred_fixed_point("tanh", batch_size=batch_size)
    u = rng.generator(1, "whole sphere", batch_size).standard_normal((200_000, batch_size))
    u /= np.sqrt(np.mean(u**2, axis=1, keepdims=True))
    squares = np.mean(np.tanh(u) ** 2, axis=1)
    assert found.q == pytest.approx(squares.mean(), abs=4 * squares.std() / math.sqrt(len(u)))
    d = ACTIVATIONS["tanh"].dphi(u) ** 2
    values = (d.sum(axis=1) - np.sum(u * u * d, axis=1) / batch_size) / (found.q * (batch_size - 2))
    assert found.explosion_rate == pytest.approx(values.mean(), abs=4 * values.std() / math.sqrt(len(u)))
    with pytest.raises(InvalidArgumentError, match=r"`activation` must be an odd function, .*; got 'relu'"):
        bn_mean_field.uncentred_fixed_point("relu", batch_size=batch_size)
    with pytest.raises(InvalidArgumentError, match="`batch_size` must be an integer >= 3; got 2"):
        bn_mean_field.uncentred_fixed_point("tanh", batch_size=2)


@pytest.mark.parametrize(("options", "message"), [
    ({"eps": -1e-5}, "`eps` must be a finite number >= 0.0; got -1e-05"),
    ({"sigma_w": 0.0}, "`sigma_w` must be a finite number > 0.0; got 0.0"),
    ({"gamma": 0.0}, "`gamma` must be a finite number other than 0.*; got 0.0"),
    ({"beta": math.nan}, "`beta` must be a finite number; got nan"),
])  # fmt: skip
def test_bad_parameters_are_refused(options, message):
    """One line that names the argument, the rule and the value."""
    with pytest.raises(InvalidArgumentError, match=message):
        bn_mean_field.fixed_point("relu", batch_size=8, **options)
