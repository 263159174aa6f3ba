"""The law of batch Jacobians: closed forms, a second route through the transforms, and real BN networks."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from bn_networks import bn_network, exact_inputs, log_singular_values
from scipy import stats
from torch.nn.functional import batch_norm

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.activations import ACTIVATIONS
from rmtbn.compare import compare
from rmtbn.measure.jacobian import spectrum
from rmtbn.result import EmpiricalSpectrum
from rmtbn.theory import bn_mean_field
from rmtbn.theory.batch_norm import signs
from rmtbn.theory.batch_norm.directions import direction_law
from rmtbn.theory.bn_mean_field import batch_jacobian_law, block_share, zero_share

WEIGHTS = ("gaussian", "orthogonal")


@pytest.mark.parametrize("batch_size", [4, 8, 64])
def test_law_of_a_linear_layer_is_an_inverse_chi_square(batch_size):
    """μ_D of linear φ: an atom 1/n at 0, else (B - 1)/χ²_{B-1}."""
    law, n = batch_jacobian_law("linear", batch_size=batch_size, depth=1, weights="orthogonal"), batch_size - 1
    lam = np.geomspace(0.05, 60, 40)
    expected = 1 / n + (1 - 1 / n) * stats.chi2.sf(n / lam, n)
    np.testing.assert_allclose(law.cdf(lam), expected, atol=1e-9)
    density = (1 - 1 / n) * stats.chi2.pdf(n / lam, n) * n / lam**2
    np.testing.assert_allclose(law.pdf(lam), density, rtol=1e-7, atol=1e-9)
    inner = (expected > 1 / n + 1e-3) & (expected < 1 - 1e-3)
    np.testing.assert_allclose(law.ppf(expected[inner]), lam[inner], rtol=1e-6)


@pytest.mark.parametrize("batch_size", [4, 6, 12])
def test_law_of_a_relu_layer_has_two_eigenvalues_that_are_not_zero_or_one(batch_size):
    """With k positive u_i, and a, b the sums of u and u² over them, per B: 1 (k - 2 times), and two of a 2 × 2 matrix.

    On the span of 1 and u over the positive ones, DPD DGD with D a projection: a second route to E ℓ and E ℓ².
    """
    law = batch_jacobian_law("relu", batch_size=batch_size, depth=1).layer.directions
    draws = rng.generator(3, "sphere", batch_size).standard_normal((200_000, batch_size))
    draws -= draws.mean(axis=1, keepdims=True)
    u = draws / np.sqrt(np.mean(draws**2, axis=1, keepdims=True))
    kept = u > 0
    k, a, b = kept.mean(axis=1), (kept * u).mean(axis=1), (kept * u * u).mean(axis=1)
    # DPD = I - [1 1ᵀ + u uᵀ]/B and DGD = I - 1 1ᵀ/B act on α 1 + β u by these matrices
    dpd = np.stack([np.stack([1 - k, -a], axis=-1), np.stack([-a, 1 - b], axis=-1)], axis=-2)
    dgd = np.stack([np.stack([1 - k, -a], axis=-1), np.stack([0 * k, 1 + 0 * k], axis=-1)], axis=-2)
    both = dpd @ dgd
    for power in (1, 2):
        trace = np.trace(np.linalg.matrix_power(both, power), axis1=1, axis2=2) + batch_size * k - 2
        value = trace / (batch_size - 1)
        tolerance = 4 * value.std() / math.sqrt(len(value)) + 1e-4
        assert law.moment(power) == pytest.approx(value.mean(), abs=tolerance)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize(("activation", "batch_size"), [("linear", 8), ("relu", 6), ("gelu", 4)])
def test_density_and_transforms_agree(activation, batch_size, weights):
    """E λ/(z - λ) over the density is M where z = ζ^L M^{L-1} (1 + M), or ζ^L (M/(1 + M))^{L-1}, and E d/(ζ - d) = M.

    ζ < 0 is chosen, M and z follow from the law of one layer; the density comes from the branch above the axis.
    """
    one = batch_jacobian_law(activation, batch_size=batch_size, depth=1, weights="orthogonal")
    depth = 3
    law = batch_jacobian_law(activation, batch_size=batch_size, depth=depth, weights=weights)
    for zeta in (-30.0, -0.2):
        m = one.product.bulk[0].mean(lambda w, zeta=zeta: 1 / (zeta * np.exp(-w) - 1))
        z = zeta**depth * (m ** (depth - 1) * (1 + m) if weights == "gaussian" else (m / (1 + m)) ** (depth - 1))
        assert z < 0
        found = law.product.bulk[0].mean(lambda w, z=z: 1 / (z * np.exp(-w) - 1))
        assert found == pytest.approx(m, rel=1e-7)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("activation", ["linear", "relu"])
def test_first_moment_is_the_explosion_rate_to_the_depth(activation, weights):
    """E λ = λ_G^L, stated at any depth, and from the density at L = 4."""
    rate = bn_mean_field.fixed_point(activation, batch_size=8).explosion_rate
    for depth in (1, 2, 4, 100):
        law = batch_jacobian_law(activation, batch_size=8, depth=depth, weights=weights)
        assert law.moment(1) == pytest.approx(rate**depth, rel=1e-12)
        assert depth != 4 or law.product.bulk[0].mean(np.exp) == pytest.approx(rate**depth, rel=1e-8)


@pytest.mark.parametrize(("weights", "share"), [("gaussian", 1), ("orthogonal", 0)])
@pytest.mark.parametrize("batch_size", [8, 12])
def test_second_moment_grows_by_a_constant_per_layer(batch_size, weights, share):
    """m₂/m₁² = 1 + L(v_D + v_W), v_D = (B-3)(B-1)/((B-2)(B-5)) - 1 for linear φ; from the density too."""
    v = (batch_size - 3) * (batch_size - 1) / ((batch_size - 2) * (batch_size - 5)) - 1
    for depth in (1, 2, 7):
        law = batch_jacobian_law("linear", batch_size=batch_size, depth=depth, weights=weights)
        expected = law.moment(1) ** 2 * (1 + depth * (v + share))
        assert law.moment(2) == pytest.approx(expected, rel=1e-10)
        if depth == 7:
            assert law.product.bulk[0].mean(lambda w: np.exp(2 * w)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("batch_size", "last"), [(4, 1), (5, 1), (6, 2), (8, 3), (9, 3), (10, 4)])
def test_moments_of_order_half_the_dimension_are_infinite(batch_size, last):
    """E λ^k < ∞ for k < (B - 1)/2 only: 1/χ²_n has no higher moments, at any depth."""
    law = batch_jacobian_law("linear", batch_size=batch_size, depth=2)
    assert math.isfinite(law.moment(last))
    assert law.moment(last + 1) == math.inf


@pytest.mark.parametrize(("activation", "batch_size"), [("relu", 5), ("tanh", 8)])
def test_samples_are_as_accurate_as_they_say(activation, batch_size, monkeypatch):
    """Two samples of ℓ have distribution functions within twice the stated accuracy, and E ℓ, zeros, exactly equal."""
    point = bn_mean_field.fixed_point(activation, batch_size=batch_size)
    mean = point.explosion_rate * point.q * (1 - point.c) * (batch_size - 3) / batch_size
    phi, found = ACTIVATIONS[activation], []
    for seed in (1, 2):
        other = SimpleNamespace(generator=lambda *_, seed=seed: np.random.default_rng(seed))
        monkeypatch.setattr("rmtbn.theory.batch_norm.directions.rng", other)
        found.append(direction_law(phi, batch_size=batch_size, mean=mean))
    grid = np.quantile(found[0].log_points, np.linspace(0.01, 0.99, 60)) - 1e-9  # beside the atom of ReLU at 1
    first, second = (np.array([law.weights[law.log_points <= x].sum() for x in grid]) for law in found)
    assert 0 < np.max(np.abs(first - second)) < 2 * found[0].accuracy
    for law in found:
        assert law.moment(1) == pytest.approx(mean, rel=1e-12)
        assert law.weights.sum() == pytest.approx(found[0].weights.sum(), rel=1e-12)
        assert law.weights.min() > 0


def test_law_reaches_from_zero_to_infinity():
    """Its support is [0, ∞), its logarithm has no mean, and F is 1 at infinity."""
    law = batch_jacobian_law("relu", batch_size=8, depth=3)
    assert law.support == (0.0, math.inf)
    assert law.log_moment(1) == -math.inf
    assert law.moment(0) == 1.0
    assert law.ppf([1.0])[0] == math.inf
    np.testing.assert_allclose(law.cdf_log([-math.inf, 200.0]), [law.atoms[0][1], 1.0], atol=1e-9)
    p = np.linspace(0.5, 0.999, 9)
    np.testing.assert_allclose(law.cdf_log(law.log_ppf(p)), p, atol=1e-9)
    assert 0 < law.accuracy < 1e-3


@pytest.mark.parametrize(("batch_size", "printed"), [(4, 0.17548), (5, 0.04892)])
def test_probability_of_one_negative_value(batch_size, printed):
    """P₁ at B = 4 is .17548 in the notes; P(k) sums to 1, is symmetric, and counts draws within 4 standard errors."""
    chances = signs.positive_counts(batch_size)
    assert chances[1] == pytest.approx(printed, abs=5.1e-6)
    draws = rng.generator(1, "signs", batch_size).standard_normal((100_000, batch_size))
    counts = np.bincount((draws > draws.mean(axis=1, keepdims=True)).sum(axis=1), minlength=batch_size + 1) / 100_000
    assert (np.abs(counts - chances) < 4 * np.sqrt(chances / 100_000) + 1e-12).all()


@pytest.mark.parametrize("batch_size", [6, 40, 512])
def test_distribution_of_signs_is_one(batch_size):
    """Σ P(k) = 1, P(k) = P(B - k) and Σ k P(k) = B/2."""
    chances = signs.positive_counts(batch_size)
    assert chances.sum() == pytest.approx(1.0, abs=1e-11)
    np.testing.assert_allclose(chances, chances[::-1], atol=1e-13)
    assert np.arange(batch_size + 1) @ chances == pytest.approx(batch_size / 2, rel=1e-11)


@pytest.mark.parametrize("activation", ["linear", "relu", "hard_tanh"])
def test_zeros_of_the_whole_matrix_and_of_the_law_agree(activation):
    """Linear 2/B, ReLU ½ + P₁/B, and the law's atom is the rest on 1^⊥: (1 + n·mass)/B."""
    for batch_size in (4, 8):
        law = batch_jacobian_law(activation, batch_size=batch_size, depth=3)
        share = zero_share(activation, batch_size=batch_size)
        assert law.whole_zero_share == pytest.approx(share, abs=1e-9)
        expected = {"linear": 2 / batch_size, "gelu": 2 / batch_size}
        expected["relu"] = 0.5 + signs.positive_counts(batch_size)[1] / batch_size
        assert share == pytest.approx(expected.get(activation, share), abs=1e-12)
    assert zero_share("hard_tanh", batch_size=8) > 2 / 8 + 0.05


def test_zeros_of_networks():
    """B = 6, N = 24: exactly 2/B zeros for linear at ε → 0, and 1/B at ε = 1e-5; ReLU ½ + P₁/B within 4 s.e."""
    for eps, share in ((1e-12, 2 / 6), (1e-2, 1 / 6)):
        module = bn_network("linear", depth=2, width=24, seed=1, eps=eps)
        x = exact_inputs(6, 24, spread=1.0, seed=1)
        values = np.exp(spectrum(module, x, batch_stats="batch").by_network[0])
        assert np.mean(values < 1e-9 * values[0]) == pytest.approx(share)
        assert zero_share("linear", batch_size=6, eps=0.0 if eps < 1e-9 else eps) == pytest.approx(share)
    shares = [zeros_of_one_relu_layer(seed) for seed in range(8)]
    error = np.std(shares, ddof=1) / math.sqrt(len(shares))
    assert np.mean(shares) == pytest.approx(zero_share("relu", batch_size=6), abs=4 * error)


def zeros_of_one_relu_layer(seed):
    """Share of zeros of the batch Jacobian of one layer, B = 6, N = 32."""
    module = bn_network("relu", depth=1, width=32, seed=seed)
    return spectrum(module, exact_inputs(6, 32, spread=1.0, seed=seed), batch_stats="batch").zero_fraction


@pytest.mark.parametrize("eps", [1e-5, 0.3])
def test_direction_of_scale_passes_by_eps(eps):
    """d BN(h)/dh along h - h̄ is ε/(v + ε)^{3/2}, v the biased variance: in torch, to rounding."""
    h = torch.tensor(rng.generator(1, "feature").standard_normal(9) * 1.7)
    centred, v = h - h.mean(), float(h.var(unbiased=False))
    _, slope = torch.func.jvp(
        lambda t: batch_norm(t[:, None], None, None, training=True, eps=eps)[:, 0], (h,), (centred,)
    )
    assert float(slope @ centred / (centred @ centred)) == pytest.approx(eps / (v + eps) ** 1.5, rel=1e-9)


@pytest.mark.parametrize("activation", ["linear", "relu", "tanh"])
def test_share_of_the_blocks_is_that_of_networks(activation):
    """Share of ‖J‖² in per-sample blocks, B = 6, N = 64, 12 networks, L = 1, 3: within 4 s.e.; falls to 1/B."""
    for depth in (1, 3):
        pairs = np.array([blocks_and_whole(activation, depth=depth, seed=seed) for seed in range(12)])
        blocks, whole = pairs.mean(axis=0)
        expected = block_share(activation, batch_size=6, depth=depth)
        residual = pairs[:, 0] - expected * pairs[:, 1]
        error = residual.std(ddof=1) / math.sqrt(len(pairs)) / whole
        assert blocks / whole == pytest.approx(expected, abs=4 * error)
        assert error < 0.03
    assert block_share(activation, batch_size=6, depth=400) == pytest.approx(1 / 6, abs=1e-3)


def blocks_and_whole(activation, *, depth, seed, batch_size=6, width=64, probes=8):
    """‖J‖² of the per-sample blocks and of all, by random cotangents on one sample at a time."""
    spread = bn_mean_field.fixed_point(activation, batch_size=batch_size)
    module = bn_network(activation, depth=depth, width=width, seed=seed)
    x = exact_inputs(batch_size, width, spread=spread.q * (1 - spread.c), seed=seed)
    _, pull = torch.func.vjp(lambda t: torch.func.functional_call(module, dict(module.named_parameters()), (t,)), x)
    sign = torch.tensor(rng.generator(seed, "probes").choice([-1.0, 1.0], (probes, width)))
    found = torch.zeros(2, dtype=torch.float64)
    for sample in range(batch_size):
        for probe in sign:
            cotangent = torch.zeros_like(x)
            cotangent[sample] = probe
            (gradient,) = pull(cotangent)
            found += torch.stack([gradient[sample].square().sum(), gradient.square().sum()])
    return (found / probes).tolist()


def test_block_share_of_linear_networks_is_a_power():
    """1/B + (1 - 2/B) ρ^L, ρ = (n² - 2)/((n + 2)(n - 1)), exactly."""
    for batch_size in (4, 7, 64):
        n = batch_size - 1
        rho = (n * n - 2) / ((n + 2) * (n - 1))
        for depth in (1, 2, 9):
            expected = 1 / batch_size + (1 - 2 / batch_size) * rho**depth
            assert block_share("linear", batch_size=batch_size, depth=depth) == pytest.approx(expected, rel=1e-12)


def pooled(activation, *, depth, scheme, networks, width, batch_size=8):
    """Spectra of networks on 1^⊥, and the law."""
    law = batch_jacobian_law(activation, batch_size=batch_size, depth=depth, weights=scheme)
    spread = law.layer.spread
    rows = [
        log_singular_values(
            activation, batch_size=batch_size, width=width, depth=depth, scheme=scheme, seed=seed, spread=spread
        )
        for seed in range(networks)
    ]
    return law, EmpiricalSpectrum(by_network=np.array(rows), relative_error=1e-9, method="product", batch_stats="batch")


@pytest.mark.parametrize(
    ("activation", "scheme", "depth"),
    [("linear", "gaussian", 2), ("relu", "gaussian", 2), ("tanh", "orthogonal", 2)],
)
def test_small_networks_follow_the_law_and_no_other(activation, scheme, depth):
    """B = 8, N = 40, 6 networks: KS < 0.03, and more than 0.04 to the laws of one layer more and of other weights."""
    law, measured = pooled(activation, depth=depth, scheme=scheme, networks=6, width=40)
    assert compare(law, measured).ks < 0.03
    deeper = batch_jacobian_law(activation, batch_size=8, depth=depth + 1, weights=scheme)
    assert compare(deeper, measured).ks > 0.04
    other = batch_jacobian_law(activation, batch_size=8, depth=depth, weights={*WEIGHTS}.difference({scheme}).pop())
    assert compare(other, measured).ks > 0.04


@pytest.mark.slow
@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize(("activation", "scheme", "limit"), [
    ("linear", "gaussian", 0.03),
    ("relu", "gaussian", 0.03),
    ("linear", "orthogonal", 0.02),
    ("relu", "orthogonal", 0.02),
    ("tanh", "orthogonal", 0.02),
])  # fmt: skip
def test_networks_follow_the_law(activation, scheme, limit, depth):
    """B = 8, N = 128, 8 networks (24 at L = 1, where values are independent between features): KS below the limit."""
    law, measured = pooled(activation, depth=depth, scheme=scheme, networks=24 if depth == 1 else 8, width=128)
    assert compare(law, measured).ks < limit


@pytest.mark.parametrize(("arguments", "message"), [
    ({"batch_size": 3, "depth": 1}, "`batch_size` must be an integer >= 4 .*; got 3"),
    ({"batch_size": math.inf, "depth": 1}, "`batch_size` must be an integer >= 4 .*; got inf"),
    ({"batch_size": 8, "depth": 0}, "`depth` must be an integer >= 1 .*; got 0"),
    ({"batch_size": 8, "depth": 1, "weights": "haar"}, "`weights` must be one of 'gaussian', .*; got 'haar'"),
    ({"batch_size": 8, "depth": 1, "gamma": 0.0}, "`gamma` must be .* other than 0.*; got 0.0"),
])  # fmt: skip
def test_bad_arguments_are_refused(arguments, message):
    """One line that names the argument, the rule and the value."""
    with pytest.raises(InvalidArgumentError, match=message):
        batch_jacobian_law("relu", **arguments)


def test_scale_cancels_and_shift_does_not():
    """γ multiplies λ of the last layer only in the next layer's σ: E λ = λ_G^L is the same; β changes it."""
    plain = batch_jacobian_law("relu", batch_size=8, depth=2)
    assert batch_jacobian_law("relu", batch_size=8, depth=2, gamma=-3.0).moment(1) == pytest.approx(plain.moment(1))
    shifted = batch_jacobian_law("relu", batch_size=8, depth=2, beta=1.0)
    assert shifted.moment(1) < plain.moment(1)
    assert shifted.activation == "relu(1 u + 1)"
    assert set(ACTIVATIONS) >= {plain.activation}
