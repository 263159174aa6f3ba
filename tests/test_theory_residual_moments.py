"""Residual networks: closed recursions, known asymptotics, and networks drawn at width."""

import math

import numpy as np
import pytest
import torch
from cases import SEEDS

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.activations import ACTIVATIONS
from rmtbn.data.pairs import correlated_pairs
from rmtbn.inits import initialise
from rmtbn.measure.ensemble_gradients import ensemble_log_gradients
from rmtbn.measure.ensemble_moments import ensemble_moments
from rmtbn.nets.resnet import fixup, residual_mlp
from rmtbn.theory import bn_mean_field
from rmtbn.theory.correlation import decorrelation_map
from rmtbn.theory.length import chi1, length_map
from rmtbn.theory.residual_moments import (
    batch_norm_residual_moments,
    block_scale,
    fixup_factor,
    residual_moments,
)


@pytest.mark.parametrize("alpha", [1.0, 0.3, 0.0])
def test_rectifiers_at_hes_scale_grow_geometrically(alpha):
    """q^l = (1 + α²)^l and gradients (1 + α²)^{L-l}: 2^l unscaled, nothing for SkipInit; exactly, far beyond e^700."""
    found = residual_moments("relu", depth=3000, sigma_w=2**0.5, alpha=alpha)
    blocks = np.arange(3001)
    np.testing.assert_allclose(found.log_q, blocks * math.log1p(alpha**2), rtol=1e-11)
    np.testing.assert_allclose(found.log_gradient, blocks[::-1] * math.log1p(alpha**2), rtol=1e-11)
    np.testing.assert_allclose(found.branch_share[1:], alpha**2 / (1 + alpha**2), rtol=1e-11)
    assert found.branch_share[0] == 0


def test_scaling_by_depth_keeps_growth_below_e():
    """α = 1/√L: (1 + 1/L)^L → e."""
    found = residual_moments("relu", depth=1000, sigma_w=2**0.5, alpha=block_scale("depth", depth=1000))
    assert found.log_q[-1] == pytest.approx(1000 * math.log1p(1 / 1000), rel=1e-12)
    assert found.log_q[-1] < 1


@pytest.mark.parametrize("name", ["tanh", "relu", "gelu"])
@pytest.mark.parametrize("linear_first", [False, True])
def test_blocks_are_the_maps_composed(name, linear_first):
    """q′ = q + α² q_f, q′c′ = qc + α² q_f c_f, growth 1 + α² Π χ₁, with the branch's maps applied one by one."""
    weight, bias, alpha, q, d = 1.3, 0.2, 0.7, 0.9, 0.6
    sigmas = {"sigma_w": weight**0.5, "sigma_b": bias**0.5}
    branch = {"branch_layers": 2, "linear_first": linear_first}
    found = residual_moments(name, depth=2, alpha=alpha, q0=q, c0=1 - d, **branch, **sigmas)
    for block in (1, 2):
        branch_q, branch_d, chi = q, d, 1.0
        for layer in range(2):
            if linear_first and layer == 0:
                chi *= weight
                branch_q, branch_d = weight * branch_q + bias, weight * branch_q * branch_d / (weight * branch_q + bias)
                continue
            chi *= float(chi1(branch_q, name, sigma_w=sigmas["sigma_w"]))
            branch_d = float(decorrelation_map(branch_d, name, q=branch_q, **sigmas))
            branch_q = float(length_map(branch_q, name, **sigmas))
        after = q + alpha**2 * branch_q
        q, d = after, (q * d + alpha**2 * branch_q * branch_d) / after
        assert math.exp(found.log_q[block]) == pytest.approx(q, rel=1e-10)
        assert found.decorrelation[block] == pytest.approx(d, rel=1e-10)
        growth = found.log_gradient[block - 1] - found.log_gradient[block]
        assert growth == pytest.approx(math.log1p(alpha**2 * chi), rel=1e-10)


def test_tanh_gradients_grow_with_the_root_of_depth():
    """Yang & Schoenholz (1712.08969): ln χ^{total} ~ A √l, A = (4/3)√(2/π) σ_v²σ_w/√(σ_v² + σ_a²); σ_v = σ_w here."""
    w, b = 1.1, 0.4
    found = residual_moments("tanh", depth=20_000, sigma_w=w, sigma_b=b, branch_layers=2, linear_first=True)
    slope = (found.log_gradient[5000] - found.log_gradient[20_000]) / (20_000**0.5 - 5000**0.5)
    assert slope == pytest.approx(4 / 3 * (2 / math.pi) ** 0.5 * w**3 / (w * w + b * b) ** 0.5, rel=0.03)


def test_batch_normalised_networks_grow_linearly():
    """q^l = 1 + l and s_l = 1 + l(1 - c*) with He's ReLU branches (De & Smith 2020), the share of block l 1/(l + 1)."""
    found = batch_norm_residual_moments("relu", depth=50, batch_size=64, sigma_w=2**0.5)
    point, blocks = bn_mean_field.fixed_point("relu", batch_size=64), np.arange(51)
    np.testing.assert_allclose(np.exp(found.log_q), 1 + blocks, rtol=1e-12)
    np.testing.assert_allclose(found.decorrelation * np.exp(found.log_q), 1 + blocks * (1 - point.c), rtol=1e-12)
    np.testing.assert_allclose(found.branch_share[1:], 1 / (1 + blocks[1:]), rtol=1e-12)


@pytest.mark.parametrize(("name", "layers"), [("relu", 1), ("relu", 2), ("tanh", 1)])
def test_their_gradients_grow_as_a_power_of_depth(name, layers):
    """ln(‖g_l‖²/‖g_L‖²) → λ_G^m ln(L/l): slope against ln l."""
    found = batch_norm_residual_moments(name, depth=20_000, batch_size=32, sigma_w=1.3, branch_layers=layers)
    slope = -np.diff(found.log_gradient[[2000, 10_000]])[0] / math.log(5)
    assert slope == pytest.approx(bn_mean_field.fixed_point(name, batch_size=32).explosion_rate ** layers, rel=1e-3)


@pytest.mark.parametrize("seed", SEEDS)
def test_wide_networks_have_the_predicted_moments(seed):
    """x^l drawn unit by unit at width 4096: mean square and correlation of two inputs within 5 standard deviations."""
    record, draws, width = ACTIVATIONS["tanh"], rng.generator(seed, "residual"), 4096
    sigma_w, sigma_b, alpha, depth = 1.4, 0.2, 0.6, 6
    found = residual_moments("tanh", depth=depth, sigma_w=sigma_w, sigma_b=sigma_b, alpha=alpha, c0=0.5)
    x = np.linalg.cholesky([[1, 0.5], [0.5, 1]]) @ draws.standard_normal((2, width))
    for block in range(1, depth + 1):
        covariance = sigma_w**2 * record.phi(x) @ record.phi(x).T / width + sigma_b**2
        x = x + alpha * np.linalg.cholesky(covariance) @ draws.standard_normal((2, width))
        q, product = np.mean(x * x, axis=1), np.mean(x[0] * x[1])
        assert np.abs(q / math.exp(found.log_q[block]) - 1).max() < 5 * (2 / width) ** 0.5
        c = 1 - found.decorrelation[block]
        assert abs(product / np.sqrt(q.prod()) - c) < 5 * (1 - c * c) / width**0.5


def test_batch_normalised_networks_drawn_at_width_agree():
    """Blocks x + W φ(BN x) at width 1024, B = 16: mean square, spread over the batch, gradients back to x⁰."""
    draws, width, batch, depth, sigma_w = rng.generator(1, "bn residual"), 1024, 16, 8, 2**0.5
    found = batch_norm_residual_moments("relu", depth=depth, batch_size=batch, sigma_w=sigma_w)
    x, tape = draws.standard_normal((batch, width)), []
    for block in range(1, depth + 1):
        spread = x.std(0)
        u = (x - x.mean(0)) / spread
        w = draws.standard_normal((width, width)) * sigma_w / width**0.5
        tape.append((u, spread, w))
        x = x + np.maximum(u, 0) @ w
        assert np.mean(x * x) == pytest.approx(math.exp(found.log_q[block]), rel=0.03)
        spread_now = np.mean(x.var(0)) * batch / (batch - 1)
        assert spread_now == pytest.approx(math.exp(found.log_q[block]) * found.decorrelation[block], rel=0.03)
    g = draws.standard_normal((batch, width))
    end = np.sum(g * g)
    for block in range(depth, 0, -1):
        u, spread, w = tape[block - 1]
        back = (g @ w.T) * (u > 0)
        g = g + (back - back.mean(0) - u * np.mean(u * back, axis=0)) / spread
        assert math.log(np.sum(g * g) / end) == pytest.approx(found.log_gradient[block - 1], abs=0.12)


def measured(count=6, *, batch=8, c=0.5, prepare=lambda net: net, **options):
    """Mean ln q^l, 1 - c^l and ln‖g_l‖² of real networks (the last against the end), with their standard errors."""
    modules, width = [], options["width"]
    for seed in range(count):
        net = residual_mlp(**options).double()
        generator = rng.torch_generator(seed, "residual", options["depth"])
        modules.append(prepare(initialise(net, "gaussian", generator=generator, activation="relu", sigma_w=2**0.5)))
    generator = rng.torch_generator(7, "pairs")
    x = correlated_pairs(pairs=batch // 2, features=width, correlation=c, generator=generator)
    v = torch.randn(x.shape, dtype=torch.float64, generator=generator)
    found = ensemble_moments(modules, x)
    gradient = np.array(list(ensemble_log_gradients(modules, x, lambda y: (y * v).sum()).values())).T
    columns = (found.log_second_moment, found.decorrelation.mean(axis=2), gradient - gradient[:, -1:])
    return [(column.mean(axis=0), column.std(axis=0) / count**0.5) for column in columns]


DEPTH = 10
SCALED = {  # scheme: (weight matrices in a branch, α, what is done to the drawn network, growth of ln q per block)
    "none": (1, 1.0, lambda net: net, math.log(2)),
    "depth": (1, DEPTH**-0.5, lambda net: net, math.log1p(1 / DEPTH)),
    "skipinit": (1, 0.0, lambda net: net, 0.0),
    "fixup": (2, 1.0, fixup, 0.0),
}


@pytest.mark.parametrize("scheme", SCALED)
def test_schemes_measured_are_schemes_predicted(scheme):
    """ln q, 1 - c and ln‖g‖² of real networks at every block: (1 + α²)^l within 4 standard errors and 5 l/N."""
    layers, alpha, prepare, growth = SCALED[scheme]
    options = {"depth": DEPTH, "width": 200, "branch_layers": layers, "alpha": alpha}
    found = measured(prepare=prepare, **options)
    scale = block_scale(scheme, depth=DEPTH)
    theory = residual_moments("relu", depth=DEPTH, sigma_w=2**0.5, alpha=scale, branch_layers=layers, c0=0.5)
    np.testing.assert_allclose(theory.log_q, growth * np.arange(DEPTH + 1), atol=1e-10)
    blocks = np.arange(1, DEPTH + 1)
    for (mean, se), predicted, way in zip(
        found,
        (theory.log_q[1:], theory.decorrelation[1:], theory.log_gradient[1:]),
        (blocks, blocks, blocks[::-1]),
        strict=True,
    ):
        assert (np.abs(mean - predicted) < 4 * se + scale**2 * 5 * way / 200 + 1e-6).all()  # α is a float32 constant


def test_fixups_factor_is_that_of_a_bounded_network():
    """All matrices but the last scaled, the last at He's scale: a branch has variance 1/L, so q^l = (1 + 1/L)^l."""

    def all_but_zero(net):
        last = [block.branch.linear_3.weight.clone() for block in net]
        for block, weight in zip(fixup(net), last, strict=True):
            block.branch.linear_3.weight.data.copy_(weight)
        return net

    (log_q, se), _, _ = measured(prepare=all_but_zero, depth=DEPTH, width=200, branch_layers=3)
    alpha = fixup_factor(depth=DEPTH, branch_layers=3) ** 2
    theory = residual_moments("relu", depth=DEPTH, sigma_w=2**0.5, alpha=alpha, branch_layers=3)
    assert theory.log_q[-1] == pytest.approx(DEPTH * math.log1p(1 / DEPTH), rel=1e-12)
    assert (np.abs(log_q - theory.log_q[1:]) < 4 * se + 0.02).all()


@pytest.mark.parametrize("layers", [1, 2])
def test_batch_normalised_networks_measured_are_those_predicted(layers):
    """Real networks, B = 16: q^l = l + 1, spread over the batch, and gradients of (L/l)^{λ_G^m}, not of another m."""
    batch, depth = 16, 12
    options = {"depth": depth, "width": 256, "norm": "batch", "branch_layers": layers}
    (log_q, _), (d, _), (gradient, se) = measured(batch=batch, c=0.0, **options)
    theory = [
        batch_norm_residual_moments("relu", depth=depth, batch_size=batch, sigma_w=2**0.5, branch_layers=m)
        for m in (layers, 3 - layers)
    ]
    np.testing.assert_allclose(log_q, np.log(2.0 + np.arange(depth)), atol=0.1)
    np.testing.assert_allclose(d, theory[0].decorrelation[1:], atol=0.05)
    allowed = 4 * se + 0.15
    assert (np.abs(gradient - theory[0].log_gradient[1:]) < allowed).all()
    assert abs(gradient - theory[1].log_gradient[1:])[0] > allowed[0]


def test_scales_and_factors():
    """α per scheme; Fixup's L^{-1/(2m-2)}: L^{-1/2} for m = 2."""
    assert [block_scale(name, depth=100) for name in ("none", "depth", "skipinit", "fixup")] == [1.0, 0.1, 0.0, 0.0]
    assert fixup_factor(depth=100, branch_layers=2) == pytest.approx(0.1)
    assert fixup_factor(depth=16, branch_layers=3) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: block_scale("rezero", depth=3), r"`scheme`.*'rezero'"),
        (lambda: fixup_factor(depth=3, branch_layers=1), r"`branch_layers`.*1"),
        (lambda: residual_moments("relu", depth=0, sigma_w=1.0), r"`depth`.*0"),
        (lambda: residual_moments("relu", depth=1, sigma_w=1.0, q0=0.0), r"`q0`.*0"),
        (lambda: batch_norm_residual_moments("relu", depth=1, batch_size=2, sigma_w=1.0), r"`batch_size`.*2"),
        (lambda: batch_norm_residual_moments("relu", depth=1, batch_size=8, sigma_w=1.0, c0=1.0), r"`c0`.*1"),
    ],
)
def test_arguments_out_of_range_are_named(call, named):
    """Each message names the argument and the value."""
    with pytest.raises(InvalidArgumentError, match=named):
        call()
