"""Tangents through batch and layer normalisation: against autodiff, exact arithmetic and what ε lets pass."""

import mpmath
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import jvp, vmap

from rmtbn import rng
from rmtbn.measure import jacobian
from rmtbn.measure.batch_statistics import fixed
from rmtbn.measure.ensemble_jacobian import ensemble_spectrum
from rmtbn.measure.norm_tangents import cancelling_sizes, norm_rule, normalised


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=rng.torch_generator(1, "norms", *shape), dtype=torch.float64)


def moved(layer: nn.Module) -> nn.Module:
    """With γ, β and running statistics that are not the standard ones."""
    layer = layer.double()
    for i, tensor in enumerate((*layer.parameters(), *layer.buffers())):
        if tensor.is_floating_point():
            tensor.data += torch.rand(tensor.shape, generator=rng.torch_generator(i, "moved"), dtype=torch.float64)
    return layer


NORMS = {
    "batch": (nn.BatchNorm1d(4), (5, 4)),
    "batch of images": (nn.BatchNorm2d(4), (2, 4, 3, 2)),
    "without γ": (nn.BatchNorm1d(4, affine=False), (5, 4)),
    "without running statistics": (nn.BatchNorm1d(4, track_running_stats=False), (5, 4)),
    "layer": (nn.LayerNorm(4), (5, 4)),
    "layer over two dimensions": (nn.LayerNorm((3, 2), eps=0.1), (2, 4, 3, 2)),
    "layer without γ": (nn.LayerNorm(4, elementwise_affine=False), (2, 3, 4)),
    "layer without β": (nn.LayerNorm(4, bias=False), (5, 4)),
    "two values": (nn.LayerNorm(2, eps=0.1), (5, 2)),
    "batch of two": (nn.BatchNorm1d(4, eps=0.1), (2, 4)),
    "two pixels": (nn.BatchNorm2d(4, eps=0.1), (1, 4, 2, 1)),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", NORMS)
def test_tangents_are_those_of_autodiff(name, training):
    """Forward mode by torch, for one network and, with tensors in place of the layer's, for three."""
    layer, shape = NORMS[name]
    layer = moved(layer).train(training)
    rule, point, tangents = norm_rule(layer), draw(*shape), draw(6, *shape)
    statistics = ("batch" if training else "running") if isinstance(layer, nn.modules.batchnorm._BatchNorm) else None
    if name == "without running statistics":
        statistics = "batch"
    with fixed(layer, statistics):
        expected = vmap(lambda t: jvp(layer, (point,), (t,))[1])(tangents)
        torch.testing.assert_close(rule(layer, point, tangents), expected, rtol=1e-11, atol=1e-12)
        own = {k: v for k, v in (*layer.named_parameters(), *layer.named_buffers()) if v.is_floating_point()}
        several = {key: torch.stack([value, 2 * value]) for key, value in own.items()}
        found = vmap(lambda state: rule(layer, point, tangents, state=state))(several) if own else expected[None]
    torch.testing.assert_close(found[0], expected, rtol=1e-11, atol=1e-12)


def test_other_norms_have_no_rule():
    """Derived classes, hooks and norms over groups are differentiated by torch."""

    class Derived(nn.LayerNorm):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    hooked = nn.LayerNorm(4)
    hooked.register_forward_hook(lambda *_: None)
    assert all(norm_rule(layer) is None for layer in (Derived(4), hooked, nn.GroupNorm(2, 4), nn.InstanceNorm1d(4)))


@pytest.mark.parametrize("count", [2, 3, 6])
def test_small_results_are_those_of_exact_arithmetic(count):
    """Along u all that is left is ε/(v + ε) of t; of two values to rounding, of more to rounding of t."""
    h, t, eps = 30 * draw(count), draw(count), 1e-5
    found = normalised(h, t[None], dims=[-1], eps=eps)[0]
    with mpmath.workdps(50):
        exact, start = ([mpmath.mpf(float(value)) for value in values] for values in (h, t))
        mean, mean_t = sum(exact) / count, sum(start) / count
        s = mpmath.sqrt(sum((value - mean) ** 2 for value in exact) / count + eps)
        along = sum((value - mean) * other for value, other in zip(exact, start, strict=True)) / count
        expected = [(b - mean_t - (a - mean) * along / s**2) / s for a, b in zip(exact, start, strict=True)]
        error = max(abs(mpmath.mpf(float(a)) - b) for a, b in zip(found, expected, strict=True))
        assert error < 2e-15 * (max(map(abs, expected)) if count == 2 else abs(t).max().item() / s)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("features", [2, 3, 8])
def test_what_eps_lets_pass_a_layer_norm(features, dtype):
    """n - 2 values 1/s for each example, one ε/s³ and one zero; s² = v + ε, v up to 100 = 1e7 ε."""
    x = (10 * draw(2, 3, features)[1]).to(dtype)
    modules = [nn.LayerNorm(features).to(dtype) for _ in range(2)]
    s = (x.double().var(dim=1, correction=0) + modules[0].eps).sqrt()
    values = torch.cat([(1 / s).repeat(features - 2), modules[0].eps / s**3]).sort(descending=True).values.log()
    found, several = jacobian.spectrum(modules[0], x, method="product"), ensemble_spectrum(modules, x)
    for row, stated in ((found.by_network[0], found.relative_error), (several.by_network[1], several.relative_error)):
        assert int(np.isneginf(row).sum()) == 3
        assert np.abs(row[:-3] - values.numpy()).max() <= stated < 1e-3


TIES = {
    "nearly a tie": [12.4624, -11.6364, -11.6555],
    "a tie": [12.0, 3.0, 3.0],
    "one large feature": [1e3, 1.0, 1.1, 0.9, 1.05],
    "one feature alone": [1e3, 0.0, 0.0, 0.0],
}


@pytest.mark.parametrize("followed", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", TIES)
def test_zeros_are_told_where_a_norm_cancels(name, dtype, followed):
    """One feature with nearly all of the variance: its row is next to nothing, and its rounding is not; one zero."""
    x = torch.tensor([TIES[name]], dtype=dtype)
    modules = [nn.Sequential(nn.LayerNorm(x.shape[1]), *[nn.Softplus()] * followed).to(dtype) for _ in range(2)]
    for found in (jacobian.spectrum(modules[0], x, method="product"), ensemble_spectrum(modules, x)):
        assert np.isneginf(found.by_network).sum(axis=1).tolist() == [1] * len(found.by_network)


def test_random_layer_norms_have_one_zero():
    """400 of them, 2 to 8 features, variances from 1e-2 to 1e4."""
    draws = rng.torch_generator(1, "random layer norms")
    for _ in range(400):
        features = int(torch.randint(2, 9, (), generator=draws))
        scale = 10.0 ** float(torch.randint(-1, 3, (), generator=draws))
        x = scale * torch.randn(1, features, generator=draws, dtype=torch.float64)
        found = jacobian.spectrum(nn.LayerNorm(features).double(), x, method="product")
        assert int(np.isneginf(found.by_network).sum()) == 1


@pytest.mark.parametrize("name", ["batch", "layer", "batch of two"])
def test_sizes_of_what_cancels(name):
    """|γ|/√(v + ε) times those of the tangents; of two values times 1 - ρ too."""
    layer, shape = NORMS[name]
    layer = moved(layer).train()
    point, sizes = draw(*shape), draw(*shape).abs()
    dim, width = (0, (1, 4)) if isinstance(layer, nn.BatchNorm1d) else (1, (4,))
    v = point.var(dim=dim, correction=0, keepdim=True)
    passed = layer.eps / (v + layer.eps) if name == "batch of two" else 1.0
    expected = sizes * layer.weight.reshape(width).abs() / (v + layer.eps).sqrt() * passed
    with torch.no_grad(), fixed(layer, "batch" if dim == 0 else None):
        torch.testing.assert_close(cancelling_sizes(layer, point, sizes), expected.detach(), rtol=1e-12, atol=0)
