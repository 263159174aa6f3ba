"""Jacobian spectra: a dense autograd oracle, batch statistics, exact zeros, depth, and a network left untouched."""

import copy
import math

import numpy as np
import pytest
import torch
from cases import SEEDS
from scipy.special import digamma, polygamma
from torch import Tensor, nn
from torch.nn import functional

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.measure import jacobian
from rmtbn.result import EmpiricalSpectrum


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=rng.torch_generator(seed, "jacobian", *shape), dtype=torch.float64)


def drawn(module: nn.Module, *, seed: int = 1) -> nn.Module:
    """The module in float64 with parameters drawn anew: matrices of variance 1/fan_in, vectors near 1 or 0."""
    module = module.double()
    for i, (name, parameter) in enumerate(module.named_parameters()):
        values = draw(*parameter.shape, seed=seed + i)
        spread = 1.0 / math.sqrt(parameter[0].numel()) if parameter.ndim > 1 else 0.2
        shift = 1.0 if parameter.ndim == 1 and name.endswith("weight") else 0.0
        parameter.data.copy_(shift + spread * values)
    return module


def mlp(width: int, depth: int, activation: type[nn.Module], *, norm: bool = False, seed: int = 1) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(width, width), *([nn.BatchNorm1d(width)] if norm else []), activation()]
    return drawn(nn.Sequential(*layers), seed=seed)


def linear_network(width: int, depth: int, *, seed: int, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """Linear layers of variance 1/width without bias."""
    layers = [nn.Linear(width, width, bias=False, dtype=dtype) for _ in range(depth)]
    weights = draw(depth, width, width, seed=seed) / math.sqrt(width)
    for layer, weight in zip(layers, weights, strict=True):
        layer.weight.data.copy_(weight)
    return nn.Sequential(*layers)


class Residual(nn.Module):
    """x + W₂ tanh(LN(W₁ x))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width), nn.Tanh(), nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


class Attention(nn.Module):
    """Self-attention over the features taken as 4 tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.MultiheadAttention(width // 4, 1, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.reshape(x.shape[0], 4, -1)
        return self.layer(tokens, tokens, tokens)[0].flatten(1)


class BatchNormBlock(nn.Module):
    """A block with batch normalisation inside, which `torch.func` cannot see."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.linear = nn.BatchNorm1d(width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + functional.gelu(self.norm(self.linear(x)))


def dense_oracle(module: nn.Module, x: Tensor) -> np.ndarray:
    """All singular values of the batch Jacobian by reverse-mode autograd on a copy of the module, zeros appended."""
    twin = copy.deepcopy(module)
    outputs = twin(x)[0].numel() * len(x)
    matrix = torch.autograd.functional.jacobian(twin, x).reshape(outputs, x.numel())
    values = torch.linalg.svdvals(matrix).numpy()
    return np.pad(values, (0, max(0, outputs - values.size)))[:outputs]


def close_to_the_oracle(spectrum: EmpiricalSpectrum, expected: np.ndarray) -> None:
    found = np.exp(spectrum.log_singular_values)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-14 * len(expected) * expected[0])


WIDTH, BATCH = 8, 5
FLAT: dict[str, nn.Module] = {
    "linear": nn.Sequential(nn.Linear(WIDTH, WIDTH)),
    "wide": nn.Sequential(nn.Linear(WIDTH, 13), nn.Tanh()),
    "narrow": nn.Sequential(nn.Linear(WIDTH, 3), nn.Sigmoid()),
    "bottleneck": nn.Sequential(nn.Linear(WIDTH, 3), nn.SiLU(), nn.Linear(3, 9)),
    "relu": mlp(WIDTH, 3, nn.ReLU),
    "tanh": mlp(WIDTH, 3, nn.Tanh),
    "gelu": mlp(WIDTH, 3, nn.GELU),
    "gelu-tanh": mlp(WIDTH, 2, lambda: nn.GELU(approximate="tanh")),
    "sigmoid": mlp(WIDTH, 2, nn.Sigmoid),
    "leaky": mlp(WIDTH, 2, nn.LeakyReLU),
    "layer norm": nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH)),
    "group norm": nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GroupNorm(2, WIDTH), nn.Linear(WIDTH, WIDTH)),
    "nested": nn.Sequential(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Sequential(nn.Tanh())), nn.Linear(WIDTH, WIDTH)),
    "residual": nn.Sequential(nn.Linear(WIDTH, WIDTH), Residual(WIDTH), Residual(WIDTH)),
    "attention": nn.Sequential(nn.Linear(WIDTH, WIDTH), Attention(WIDTH)),
    "one block": Residual(WIDTH),
    "batch norm": mlp(WIDTH, 2, nn.Tanh, norm=True),
    "batch norm, relu": mlp(WIDTH, 3, nn.ReLU, norm=True),
    "batch norm first": nn.Sequential(nn.BatchNorm1d(WIDTH), nn.Linear(WIDTH, WIDTH)),
    "batch norm in a block": nn.Sequential(nn.Linear(WIDTH, WIDTH), BatchNormBlock(WIDTH), nn.ReLU()),
}
IMAGES: dict[str, nn.Module] = {
    "conv": nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(48, 5)),
    "pooling": nn.Sequential(nn.Conv2d(2, 4, 3), nn.MaxPool2d(2), nn.Flatten()),
    "average": nn.Sequential(nn.Conv2d(2, 4, 3, stride=2), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    "conv batch norm": nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 4)),
    "instance norm": nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.InstanceNorm2d(3), nn.Flatten()),
}


@pytest.mark.parametrize("batch_stats", ["batch", "running"])
@pytest.mark.parametrize("name", [*FLAT, *IMAGES])
def test_spectra_are_those_of_autograd(name, batch_stats):
    """σ of the B·m × B·n Jacobian of x -> module(x), zeros included, by push-forward and by reverse mode."""
    module, x = (FLAT[name], draw(BATCH, WIDTH)) if name in FLAT else (IMAGES[name], draw(3, 2, 4, 4))
    module = drawn(copy.deepcopy(module)).train(batch_stats == "batch")
    spectrum = jacobian.spectrum(module, x)
    close_to_the_oracle(spectrum, dense_oracle(module, x))
    has_norm = any(isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d) for layer in module.modules())
    assert spectrum.batch_stats == (batch_stats if has_norm else None)
    assert (spectrum.method, spectrum.networks) == ("product", 1)


def test_an_explicit_mode_overrides_that_of_the_module():
    """batch_stats="batch" in eval mode is what None gives in train mode, and the other way round."""
    module, x = mlp(WIDTH, 2, nn.Tanh, norm=True), draw(BATCH, WIDTH)
    for mode in ("batch", "running"):
        asked = jacobian.spectrum(module.train(mode == "running"), x, batch_stats=mode)
        found = jacobian.spectrum(module.train(mode == "batch"), x)
        np.testing.assert_array_equal(asked.by_network, found.by_network)
        assert asked.batch_stats == found.batch_stats == mode


def test_the_whole_spectrum_of_batch_normalisation():
    """J_f = (G - u u'/B) / sqrt(v + ε) per feature: B - 2 values 1/sqrt(v + ε), one ε/(v + ε)^{3/2}, one 0."""
    batch, width, eps = 6, 5, 1e-5
    x = draw(batch, width) * torch.logspace(-2, 2, width, dtype=torch.float64)
    variance = x.var(dim=0, unbiased=False).numpy()
    spectrum = jacobian.spectrum(nn.BatchNorm1d(width, eps=eps).double(), x)
    bulk = np.repeat(-0.5 * np.log(variance + eps), batch - 2)
    scale = np.log(eps) - 1.5 * np.log(variance + eps)
    expected = -np.sort(-np.concatenate([bulk, scale, np.full(width, -np.inf)]))
    # the smallest is 1e-9 of the values of its feature: its own rounding is amplified as much, and so it is stated
    np.testing.assert_allclose(spectrum.log_singular_values, expected, rtol=0, atol=1e-6)
    assert spectrum.relative_error > 1e-9


@pytest.mark.parametrize(("batch", "depth"), [(4, 1), (8, 3), (16, 2)])
def test_linear_batch_normalised_networks_lose_two_of_the_batch(batch, depth):
    """A share 2/B of the values is exactly 0 at any depth as ε -> 0, and 1/B with ε > 0."""
    width, x = 6, draw(batch, 6)
    for eps, share in ((1e-40, 2 / batch), (1e-5, 1 / batch)):
        layers = [(nn.Linear(width, width, bias=False), nn.BatchNorm1d(width, eps=eps)) for _ in range(depth)]
        module = drawn(nn.Sequential(*[layer for pair in layers for layer in pair]))
        assert jacobian.spectrum(module, x).zero_fraction == pytest.approx(share, abs=1e-12)


def test_dead_units_are_exact_zeros():
    """Per example, the zeros of a deep ReLU network number at least the units off in its emptiest layer."""
    width, depth, x = 32, 60, draw(3, 32)
    module = mlp(width, depth, nn.ReLU)
    off, h = [], x
    for layer in module:
        h = layer(h)
        off.append((h == 0).sum(dim=1) if isinstance(layer, nn.ReLU) else torch.zeros(3))
    expected = torch.stack(off).max(dim=0).values.sum()
    assert jacobian.spectrum(module, x).zero_fraction == float(expected) / (3 * width)


def test_cancelled_directions_are_exact_zeros():
    """Instance normalisation centres each channel, so its mean over space does not depend on the input at all."""
    module = nn.Sequential(nn.InstanceNorm2d(3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()
    assert jacobian.spectrum(module, draw(2, 3, 4, 4)).zero_fraction == 1.0


def test_saturated_units_keep_their_slopes():
    """tanh' = 1/cosh² to full relative accuracy where 1 - tanh² has no digit left: σ of diag(tanh'(x))."""
    x = torch.tensor([[-25.0, 0.5, 12.0, 300.0]], dtype=torch.float64)
    spectrum = jacobian.spectrum(nn.Sequential(nn.Tanh()), x)
    expected = 2 * math.log(2) - 2 * x.abs() - 2 * torch.log1p(torch.exp(-2 * x.abs()))
    np.testing.assert_allclose(spectrum.log_singular_values, np.sort(expected.numpy())[0, ::-1], rtol=1e-14, atol=1e-12)


def test_prefix_spectra_are_those_of_the_prefixes():
    """One pass gives what separate calls on the first k layers give, by place and by name."""
    module, x = mlp(WIDTH, 4, nn.ReLU, norm=True), draw(BATCH, WIDTH)
    found = jacobian.prefix_spectra(module, x, after=[2, "5", 11])
    assert list(found) == [2, "5", 11]
    for key, spectrum in found.items():
        alone = jacobian.spectrum(module[: int(key) + 1], x)
        np.testing.assert_array_equal(np.isneginf(spectrum.by_network), np.isneginf(alone.by_network))
        finite = np.isfinite(alone.by_network)
        np.testing.assert_allclose(spectrum.by_network[finite], alone.by_network[finite], rtol=0, atol=1e-9)


def test_prefixes_take_the_route_that_fits():
    """In little memory a prefix is measured without being assembled: the prefix, not the whole network."""
    module, x = linear_network(64, 40, seed=1), draw(1, 64)
    found = jacobian.prefix_spectra(module, x, after=[29], memory_budget=120_000)[29]
    exact = jacobian.prefix_spectra(module, x, after=[29])[29]
    assert (found.method, exact.method) == ("slq", "product")
    assert found.by_network[0, 0] == pytest.approx(exact.by_network[0, 0], abs=1e-3)


def test_layers_used_twice_count_twice():
    """One activation object shared by all layers is applied after each of them."""
    phi, first, second = nn.Tanh(), nn.Linear(4, 4), nn.Linear(4, 4)
    module, x = drawn(nn.Sequential(first, phi, second, phi)), draw(2, 4)
    close_to_the_oracle(jacobian.spectrum(module, x), dense_oracle(module, x))


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_deep_linear_networks_have_newmans_exponents(seed):
    """E log σ_k = L [ln 2 + ψ((N-k+1)/2) - ln N] / 2 at k = 1 and k = N, within 4 standard errors, L = 500.

    Newman 1986; for one network the log of σ_k has variance L ψ'((N-k+1)/2)/4.
    """
    width, depth, networks = 12, 500, 4
    x = draw(1, width)
    spectra = [jacobian.spectrum(linear_network(width, depth, seed=100 * seed + i), x) for i in range(networks)]
    pooled = EmpiricalSpectrum.pool(spectra)
    assert pooled.relative_error < 1e-8
    for k in (1, width):
        exponent = 0.5 * (math.log(2 / width) + digamma((width - k + 1) / 2))
        se = math.sqrt(depth * polygamma(1, (width - k + 1) / 2) / 4 / networks)
        mean = pooled.by_network[:, k - 1].mean()
        assert abs(mean - depth * exponent) < 4 * se
        assert k == 1 or abs(mean - 1.25 * depth * exponent) > 4 * se


@pytest.mark.slow
@pytest.mark.parametrize(("width", "depth"), [(128, 1000), (32, 5000), (128, 5000)])
def test_deep_wide_networks_conserve_the_determinant(width, depth):
    """Σ log σ = Σ_l log |det W_l| and a stated error <= 1e-8, at depth 1,000 and 5,000."""
    module = linear_network(width, depth, seed=1)
    spectrum = jacobian.spectrum(module, draw(1, width))
    expected = sum(float(torch.linalg.slogdet(layer.weight.detach()).logabsdet) for layer in module)
    assert float(spectrum.log_singular_values.sum()) == pytest.approx(expected, rel=1e-11)
    assert spectrum.relative_error < 2e-8


def test_float32_agrees_with_float64_within_its_stated_error():
    """The dtype of the input is the dtype of the measurement."""
    x = draw(2, 16).float()
    module = mlp(16, 30, nn.Tanh).float()
    single = jacobian.spectrum(module, x)
    double = jacobian.spectrum(copy.deepcopy(module).double(), x.double())
    difference = np.abs(single.by_network - double.by_network).max()
    assert difference <= single.relative_error < 1e-3


def test_samples_that_do_not_couple_are_pooled(monkeypatch):
    """The spectrum of a batch is the union of those of its examples, also where memory allows one at a time."""
    module, x = mlp(WIDTH, 2, nn.Tanh), draw(BATCH, WIDTH)
    whole = jacobian.spectrum(module, x)
    alone = [jacobian.spectrum(module, x[i : i + 1]).by_network for i in range(BATCH)]
    assert whole.by_network.shape == (1, BATCH * WIDTH)
    np.testing.assert_allclose(whole.by_network, -np.sort(-np.concatenate(alone, axis=1)), rtol=0, atol=1e-11)
    monkeypatch.setattr(jacobian, "_PART", 1)
    small = jacobian.spectrum(module, x)
    np.testing.assert_allclose(small.by_network, whole.by_network, rtol=0, atol=1e-11)


def test_chunks_of_tangents_change_nothing(monkeypatch):
    """Layers without a rule of their own are differentiated in chunks that fit the budget."""
    module, x = drawn(copy.deepcopy(IMAGES["conv batch norm"])), draw(3, 2, 4, 4)
    whole = jacobian.spectrum(module, x)
    monkeypatch.setattr(jacobian, "_PART", 5000)
    small = jacobian.spectrum(module, x)
    np.testing.assert_allclose(small.by_network, whole.by_network, rtol=0, atol=1e-11)


def test_coupling_of_any_kind_is_found():
    """A module that subtracts the mean over the batch couples the examples: its Jacobian is full."""

    class Centred(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(x - x.mean(dim=0))

    module, x = nn.Sequential(Centred(), nn.Linear(4, 4).double()), draw(3, 4)
    close_to_the_oracle(jacobian.spectrum(module, x), dense_oracle(module, x))


def test_the_dense_route_is_right_where_it_says_so():
    """The same values as by products at small depth; at depth 60 what is lost in rounding is censored."""
    shallow, deep, x = mlp(WIDTH, 2, nn.Tanh, norm=True), linear_network(16, 60, seed=1), draw(BATCH, WIDTH)
    dense = jacobian.spectrum(shallow.eval(), x, method="dense")
    close_to_the_oracle(dense, dense_oracle(shallow, x))
    assert (dense.method, dense.batch_stats) == ("dense", "running")
    assert dense.relative_error < 1e-9
    wrong, right = (jacobian.spectrum(deep, draw(1, 16), method=method) for method in ("dense", "product"))
    assert wrong.censored_fraction > 0.3
    assert wrong.relative_error < 1.0
    known = ~wrong.censored
    np.testing.assert_allclose(wrong.by_network[known], right.by_network[known], rtol=0, atol=0.05)
    assert (right.by_network[~known] < 2 + wrong.log_floor).all()
    assert abs(wrong.by_network[0, 0] - right.by_network[0, 0]) < 1e-9


@pytest.mark.parametrize("batch_stats", ["batch", "running"])
def test_the_module_is_left_as_it_was(batch_stats):
    """Parameters, gradients, buffers, modes, hooks and generators are what they were, bit for bit."""
    module = nn.Sequential(*mlp(WIDTH, 2, nn.ReLU, norm=True), BatchNormBlock(WIDTH).double(), nn.Dropout(0.5))
    module[-1].eval()
    module[1].eval()
    module[0].weight.grad = torch.ones_like(module[0].weight)
    x = draw(BATCH, WIDTH).requires_grad_()
    before, modes = copy.deepcopy(module.state_dict()), [layer.training for layer in module.modules()]
    state = torch.get_rng_state()
    jacobian.spectrum(module, x, batch_stats=batch_stats)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert [layer.training for layer in module.modules()] == modes
    assert all(layer.track_running_stats for layer in module.modules() if isinstance(layer, nn.BatchNorm1d))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(module[0].weight.grad, torch.ones_like(module[0].weight))
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert module[2].weight.grad is None if hasattr(module[2], "weight") else True
    assert x.grad is None


def test_the_module_is_left_as_it_was_when_measuring_fails():
    """Also after an error in the middle."""

    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError(f"no way for {len(x)}")

    norm = nn.BatchNorm1d(4).double()
    with pytest.raises(RuntimeError, match="no way"):
        jacobian.spectrum(nn.Sequential(norm, Fails()), draw(3, 4))
    assert norm.training
    assert norm.track_running_stats
    assert int(norm.num_batches_tracked) == 0
    assert bool((norm.running_mean == 0).all())


def nan_layer() -> nn.Module:
    module = nn.Linear(3, 3).double()
    module.weight.data[0, 0] = torch.nan
    return module


@pytest.mark.parametrize(
    ("module", "x", "options", "message"),
    [
        (nn.Linear(3, 3).double(), draw(2, 3) / 0.0, {}, "`x` must be finite"),
        (nn.Linear(3, 3).double(), torch.ones(2, 3, dtype=torch.int64), {}, "`x` must be of a floating-point dtype"),
        (nn.Linear(3, 3).double(), draw(3), {}, r"`x` must be a non-empty batch .* got \(3,\)"),
        (nn.Linear(3, 3), draw(2, 3), {}, "`x` must be of the module's dtype and device"),
        (nan_layer(), draw(2, 3), {}, "`module` must be finite at x"),
        (nn.Flatten(0).double(), draw(2, 3), {}, r"`module` must be a map from a batch of 2 .* got \(6,\)"),
        (nn.Dropout(0.5), draw(2, 30), {}, "`module` must be deterministic"),
        (nn.BatchNorm1d(3).double(), draw(1, 3), {}, "`x` must be at least 2 examples where batch normal.*; got 1"),
        (nn.Linear(3, 3).double(), draw(2, 3), {"method": "qr"}, "`method` must be one of 'auto', .*; got 'qr'"),
        (nn.Linear(3, 3).double(), draw(2, 3), {"batch_stats": "bn"}, "`batch_stats` must be one of .*; got 'bn'"),
        (nn.Linear(3, 3).double(), draw(2, 3), {"memory_budget": 0}, "`memory_budget` must be an integer >= 1; got 0"),
        (nn.Linear(3, 3).double(), draw(2, 3), {"memory_budget": 9}, r"`memory_budget` must be at least .* got '9 B'"),
        (nn.Linear(3, 3).double(), draw(2, 3), {"floor": 1.0}, "`floor` must be a finite number > 0.0 and < 1.0"),
    ],
)
def test_invalid_arguments_are_refused(module, x, options, message):
    """One clear error that names the argument and the value."""
    with pytest.raises(InvalidArgumentError, match=message):
        jacobian.spectrum(module, x, **options)


def test_unknown_layers_and_mixed_modes_are_refused():
    """`after` names layers that are there; layers in different modes need an explicit `batch_stats`."""
    module, x = mlp(WIDTH, 2, nn.Tanh, norm=True), draw(BATCH, WIDTH)
    for after, message in (([], "one or more"), ([6], ">= 0 and <= 5; got 6"), (["x"], "one of '0', .*; got 'x'")):
        with pytest.raises(InvalidArgumentError, match=f"`after` must be .*{message}"):
            jacobian.prefix_spectra(module, x, after=after)
    module[1].eval()
    with pytest.raises(InvalidArgumentError, match="`batch_stats` must be 'batch' or 'running' where"):
        jacobian.spectrum(module, x)
    forgetful = nn.BatchNorm1d(WIDTH, track_running_stats=False).double()
    assert jacobian.spectrum(forgetful.eval(), x).batch_stats == "batch"
    with pytest.raises(InvalidArgumentError, match="`batch_stats` must be 'batch' for batch normalisation without"):
        jacobian.spectrum(forgetful, x, batch_stats="running")


@pytest.mark.parametrize("examples", [1, BATCH])
def test_prefixes_by_the_dense_route_are_those_of_the_prefixes(examples):
    """Points kept from the first pass are those of the layers after each cut."""
    module, x = mlp(WIDTH, 4, nn.ReLU), draw(examples, WIDTH)
    found = jacobian.prefix_spectra(module, x, after=[0, 3, 4, 7], method="dense")
    for key, spectrum in found.items():
        alone = jacobian.spectrum(module[: key + 1], x, method="product")
        known = spectrum.by_network > spectrum.log_floor[:, None]
        assert spectrum.method == "dense"
        np.testing.assert_array_equal(np.isneginf(spectrum.by_network), np.isneginf(alone.by_network))
        np.testing.assert_allclose(spectrum.by_network[known], alone.by_network[known], rtol=0, atol=1e-9)


@pytest.mark.parametrize("method", ["product", "dense"])
def test_what_a_hook_does_belongs_to_the_map(method):
    """A layer with a hook that doubles, a ReLU behind it, one example."""
    module, x = mlp(WIDTH, 2, nn.ReLU), draw(1, WIDTH)
    module[0].register_forward_hook(lambda _layer, _inputs, output: 2.0 * output)
    close_to_the_oracle(jacobian.spectrum(module, x, method=method), dense_oracle(module, x))


def test_a_layer_that_draws_is_found_wherever_it_stands():
    """Dropout before a linear layer."""
    with pytest.raises(InvalidArgumentError, match="deterministic"):
        jacobian.spectrum(nn.Sequential(nn.Dropout(), nn.Linear(WIDTH, WIDTH)).double(), draw(1, WIDTH))


BEFORE_ACTIVATIONS = {
    "dropout": nn.Dropout().eval(),
    "softplus": nn.Softplus(),
    "tanh": nn.Tanh(),
    "identity": nn.Identity(),
    "norm without weights": nn.LayerNorm(WIDTH, elementwise_affine=False),
    "batch norm without weights": nn.BatchNorm1d(WIDTH, affine=False, dtype=torch.float64).eval(),
}


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("activation", [nn.Tanh(), nn.ReLU()])
@pytest.mark.parametrize("name", BEFORE_ACTIVATIONS)
def test_what_stands_before_an_activation_may_be_anything(name, activation, place):
    """Behind a linear layer or at the start of the network; one example."""
    linear, last = mlp(WIDTH, 2, nn.Identity)[0], mlp(WIDTH, 2, nn.Identity)[2]
    module, x = nn.Sequential(*[linear][:place], BEFORE_ACTIVATIONS[name], activation, last), draw(1, WIDTH)
    close_to_the_oracle(jacobian.spectrum(module, x, method="product"), dense_oracle(module, x))


def test_prefixes_may_be_cut_between_two_activations():
    """One example, after the linear layer and after each of the activations."""
    module, x = nn.Sequential(*mlp(WIDTH, 1, nn.Tanh), nn.ReLU(), nn.Tanh()), draw(1, WIDTH)
    for key, spectrum in jacobian.prefix_spectra(module, x, after=[0, 1, 2, 3]).items():
        close_to_the_oracle(spectrum, dense_oracle(module[: key + 1], x))


@pytest.mark.parametrize("method", ["product", "dense"])
def test_a_relu_with_a_hook_is_no_plain_one(method):
    """Rounded with the gradient passed straight through: units at 0 are not dead."""
    module, x = mlp(WIDTH, 3, nn.ReLU), draw(1, WIDTH)
    module[1].register_forward_hook(lambda _layer, _inputs, out: torch.round(out).detach() + (out - out.detach()))
    for i in (0, 2):
        module[i].bias.data += 0.3
    assert bool((module[:2](x) == 0).any())
    close_to_the_oracle(jacobian.spectrum(module, x, method=method), dense_oracle(module, x))


def test_a_sequence_with_a_forward_of_its_own_is_one_layer():
    """Set on the instance: the map is what it does, and not what its layers do one after the other."""
    module, x = mlp(WIDTH, 2, nn.Tanh), draw(1, WIDTH)
    inner = nn.Sequential(*module)
    inner.forward = lambda v: v + nn.Sequential.forward(inner, v)
    close_to_the_oracle(
        jacobian.spectrum(nn.Sequential(inner, module[0]), x), dense_oracle(nn.Sequential(inner, module[0]), x)
    )
