"""Initialisation schemes: what is drawn follows the law that is stated, and the law is the one in print."""

import math

import numpy as np
import pytest
import torch
from cases import ACTIVATION_NAMES, SCHEMES, SEEDS, conv_net, network
from scipy import stats
from torch import nn

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.activations import ACTIVATIONS, leaky_relu
from rmtbn.inits import INITS, WeightLaw, initialise, weight_law
from rmtbn.theory import mean_field

FAN_IN, FAN_OUT = 250, 400


def drawn(scheme, activation, *, fan_in=FAN_IN, fan_out=FAN_OUT, seed=1):
    """A layer drawn by the scheme, and its stated law."""
    layer = nn.Linear(fan_in, fan_out, dtype=torch.float64)
    generator = rng.torch_generator(seed, scheme, activation)
    initialise(layer, scheme, generator=generator, activation=activation, **SCHEMES[scheme])
    law = weight_law(scheme, activation, fan_in=fan_in, fan_out=fan_out, **SCHEMES[scheme])
    return layer.weight.detach().numpy(), layer.bias.detach().numpy(), law


@pytest.mark.parametrize("activation", ACTIVATION_NAMES)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_weights_have_the_variance_of_their_law(scheme, activation):
    """Var W_ij = σ_w²/fan_in within 4.5 standard errors, √((kurtosis - 1)/n) of the variance; mean 0 likewise."""
    weights, _, law = drawn(scheme, activation)
    expected = law.sigma_w**2 / FAN_IN
    kurtosis = {"gaussian": 3.0, "uniform": 9 / 5, "orthogonal": 1.0}[law.distribution]
    error = math.sqrt((kurtosis - 1) / weights.size)
    assert np.mean(weights**2) == pytest.approx(expected, rel=4.5 * error + 1e-12)
    assert abs(weights.mean()) < 4.5 * math.sqrt(expected / weights.size)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_weights_have_the_distribution_of_their_law(scheme):
    """Gaussian, uniform on ±√3σ, or (in one entry of a Haar matrix of this size nearly) Gaussian again."""
    weights, _, law = drawn(scheme, "tanh")
    sigma = law.sigma_w / math.sqrt(FAN_IN)
    reach = math.sqrt(3) * sigma
    cdf = stats.uniform(-reach, 2 * reach).cdf if law.distribution == "uniform" else stats.norm(0, sigma).cdf
    assert stats.kstest(weights[:, ::7].ravel(), cdf).pvalue > 1e-3


@pytest.mark.parametrize("scheme", SCHEMES)
def test_biases_have_the_variance_of_their_law(scheme):
    """Var b = σ_b², uniform where the weights are; exactly 0 where σ_b is."""
    _, biases, law = drawn(scheme, "tanh", fan_in=20, fan_out=20_000 if scheme != "orthogonal" else 2000)
    if law.sigma_b == 0:
        assert (biases == 0).all()
        return
    reach = math.sqrt(3) * law.sigma_b
    cdf = stats.uniform(-reach, 2 * reach).cdf if law.distribution == "uniform" else stats.norm(0, law.sigma_b).cdf
    assert stats.kstest(biases, cdf).pvalue > 1e-3


@pytest.mark.parametrize(("fan_in", "fan_out"), [(30, 30), (40, 25), (25, 40)])
def test_orthogonal_layers_are_isometries_up_to_their_scale(fan_in, fan_out):
    """W Wᵀ = σ_w² I for fan_out <= fan_in, WᵀW = σ_w² (fan_out/fan_in) I beyond; either way tr WᵀW = σ_w² fan_out."""
    weights, _, law = drawn("orthogonal", "relu", fan_in=fan_in, fan_out=fan_out)
    gram = weights @ weights.T if fan_out <= fan_in else weights.T @ weights
    scale = law.sigma_w**2 * max(1, fan_out / fan_in)
    np.testing.assert_allclose(gram, scale * np.eye(min(fan_in, fan_out)), atol=1e-13)
    assert law.sigma_w**2 == pytest.approx(2.0)
    assert np.sum(weights**2) == pytest.approx(law.sigma_w**2 * fan_out)


def test_orthogonal_layers_are_haar_distributed():
    """E tr W = 0, E (tr W)² = 1, E (tr W²)² = 3 on O(N) (Diaconis & Shahshahani 1994); a bare QR fails the first."""
    draws = [drawn("orthogonal", "linear", fan_in=6, fan_out=6, seed=seed)[0] for seed in range(1500)]
    trace = np.array([np.trace(w) for w in draws])
    square = np.array([np.trace(w @ w) for w in draws])
    for values, expected in ((trace, 0.0), (trace**2, 1.0), (square, 1.0), (square**2, 3.0)):
        assert values.mean() == pytest.approx(expected, abs=4 * values.std() / math.sqrt(len(draws)))


@pytest.mark.parametrize(
    ("scheme", "activation", "reference"),
    [
        ("he_normal", "relu", lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu")),
        ("he_uniform", "relu", lambda w: nn.init.kaiming_uniform_(w, nonlinearity="relu")),
        ("he_normal", "leaky_relu", lambda w: nn.init.kaiming_normal_(w, a=0.01)),
        ("glorot_normal", "tanh", nn.init.xavier_normal_),
        ("glorot_uniform", "tanh", nn.init.xavier_uniform_),
        ("lecun_normal", "selu", lambda w: nn.init.kaiming_normal_(w, nonlinearity="linear")),
        ("torch_default", "relu", lambda w: nn.init.kaiming_uniform_(w, a=5**0.5)),
    ],
)
def test_schemes_are_those_of_torch(scheme, activation, reference):
    """Two samples, ours and torch.nn.init's, of one distribution; a factor 2 in the variance shows at p < 1e-300."""
    weights, _, _ = drawn(scheme, activation)
    with torch.random.fork_rng():
        theirs = reference(torch.empty(FAN_OUT, FAN_IN, dtype=torch.float64)).numpy()
    assert stats.ks_2samp(weights.ravel(), theirs.ravel()).pvalue > 1e-4
    assert weights.std() == pytest.approx(theirs.std(), rel=0.02)


def test_torch_default_is_what_a_new_layer_has():
    """Weights and biases both uniform on ±1/√fan_in."""
    weights, biases, law = drawn("torch_default", "relu")
    with torch.random.fork_rng():
        layer = nn.Linear(FAN_IN, FAN_OUT, dtype=torch.float64)
    edge = 1 / math.sqrt(FAN_IN)
    for ours, theirs in ((weights, layer.weight), (biases, layer.bias)):
        for values in (ours, theirs.detach().numpy()):
            assert 0.98 * edge < np.abs(values).max() <= edge
    assert (law.sigma_w, law.sigma_b) == pytest.approx((3**-0.5, (3 * FAN_IN) ** -0.5))


@pytest.mark.parametrize("activation", ACTIVATION_NAMES)
@pytest.mark.parametrize("sigma_b", [None, 0.0])
def test_critical_scheme_is_on_the_order_to_chaos_line(activation, sigma_b):
    """χ₁(q*) = 1 with q* = σ_w² E φ(q*)² + σ_b²; the default σ_b makes q* attract."""
    law = weight_law("critical", activation, fan_in=100, sigma_b=sigma_b)
    q = mean_field.critical_point(activation, sigma_b=law.sigma_b).q
    assert float(mean_field.chi1(q, activation, sigma_w=law.sigma_w)) == pytest.approx(1.0, abs=1e-9)
    mapped = float(mean_field.length_map(q, activation, sigma_w=law.sigma_w, sigma_b=law.sigma_b))
    assert mapped == pytest.approx(q, rel=1e-9, abs=1e-250)
    if sigma_b is None and law.sigma_b > 0:
        assert mean_field.fixed_point(activation, sigma_w=law.sigma_w, sigma_b=law.sigma_b).q == pytest.approx(q)


def test_gain_of_he_follows_the_slope_below_zero():
    """He et al. 2015, eq. (15): σ_w² = 2/(1 + a²), for a record or a module of any slope a."""
    assert weight_law("he_normal", leaky_relu(0.5), fan_in=10).sigma_w ** 2 == pytest.approx(2 / 1.25)
    module = nn.Sequential(nn.Linear(200, 200, bias=False), nn.LeakyReLU(0.5))
    initialise(module, "he_normal", generator=rng.torch_generator(1))
    assert float(module[0].weight.detach().square().sum() / 200) == pytest.approx(2 / 1.25, rel=4 * math.sqrt(2) / 200)


CONVOLVED = ["he_normal", "he_uniform", "glorot_normal", "glorot_uniform", "lecun_normal", "orthogonal", "gaussian"]


@pytest.mark.parametrize("scheme", CONVOLVED)
def test_convolutions_count_their_receptive_field(scheme):
    """fan_in = in_channels/groups · kernel area; fan_out alike with the output channels."""
    module = nn.Conv2d(24, 36, 3, groups=2, dtype=torch.float64)
    initialise(module, scheme, generator=rng.torch_generator(1), activation="relu", **SCHEMES[scheme])
    fan_in, fan_out = 12 * 9, 36 * 9
    law = weight_law(scheme, "relu", fan_in=fan_in, fan_out=fan_out, **SCHEMES[scheme])
    error = math.sqrt(2 / module.weight.numel())
    mean_square = float(module.weight.detach().square().mean())
    assert mean_square == pytest.approx(law.sigma_w**2 / fan_in, rel=4 * error)


def test_orthogonal_convolutions_have_orthonormal_kernels():
    """Rows of the kernel as a (cout, cin·k·k) matrix are orthogonal, of norm σ_w."""
    module = initialise(nn.Conv2d(4, 6, 3, dtype=torch.float64), "orthogonal", generator=rng.torch_generator(1))
    rows = module.weight.detach().flatten(1)
    torch.testing.assert_close(rows @ rows.T, torch.eye(6, dtype=torch.float64))


def test_networks_of_another_precision_are_the_same_network():
    """float32 weights are the float64 weights rounded: dtype is no part of the draw."""
    double, single = (network(scheme="gaussian", dtype=dtype) for dtype in (torch.float64, torch.float32))
    for wide, narrow in zip(double.parameters(), single.parameters(), strict=True):
        assert torch.equal(wide.float(), narrow)


@pytest.mark.parametrize("seed", SEEDS)
def test_networks_are_a_function_of_their_generator(seed):
    """The same name gives the same network, another seed another; numpy generators serve too."""
    first, again, other = (network(seed=s)[0].weight for s in (seed, seed, seed + 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    modules = [nn.Linear(3, 3), nn.Linear(3, 3)]
    for module in modules:
        initialise(module, "he_normal", generator=rng.generator(seed, "weights"))
    assert torch.equal(modules[0].weight, modules[1].weight)


def test_layers_of_other_kinds_are_left_alone():
    """Norms keep γ = 1, β = 0 and their running statistics; every linear and convolutional layer is drawn."""
    module = conv_net()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    assert initialise(module, "gaussian", generator=rng.torch_generator(1), sigma_w=1.0, sigma_b=0.5) is module
    changed = {name for name, tensor in module.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {f"{layer}.{kind}" for layer in (0, 3, 6) for kind in ("weight", "bias")}


@pytest.mark.parametrize(
    ("layer", "activation"),
    [(nn.ReLU(), "relu"), (nn.Tanh(), "tanh"), (nn.GELU(), "gelu"), (nn.Identity(), "linear"), (nn.SELU(), "selu")],
)
def test_activation_is_read_off_the_modules(layer, activation):
    """Left out, the activation is the one kind the module holds; none is linear."""
    kinds = (None, activation)
    modules = [nn.Sequential(nn.Linear(8, 8), layer) for _ in kinds]
    for module, name in zip(modules, kinds, strict=True):
        initialise(module, "critical", generator=rng.torch_generator(1), activation=name)
    assert torch.equal(modules[0][0].weight, modules[1][0].weight)


@pytest.mark.parametrize(
    ("scheme", "options", "message"),
    [
        ("he", {}, "`scheme` must be one of 'he_normal', .*; got 'he'"),
        ("gaussian", {}, "`sigma_w` must be given for the scheme 'gaussian'; got None"),
        ("gaussian", {"sigma_w": -1.0}, "`sigma_w` must be a finite number >= 0.0; got -1.0"),
        ("gaussian", {"sigma_w": math.nan}, "`sigma_w` must be a finite number >= 0.0; got nan"),
        ("gaussian", {"sigma_w": 1.0, "sigma_b": math.inf}, "`sigma_b` must be a finite number >= 0.0; got inf"),
        (
            "he_normal",
            {"sigma_w": 1.0},
            "`sigma_w` must be left out for the scheme 'he_normal', which sets it; got 1.0",
        ),
        ("critical", {"sigma_w": 1.0}, "`sigma_w` must be left out for the scheme 'critical'"),
        ("critical", {"sigma_b": 0.1}, "`sigma_b` must be 0 for 'relu', which is critical at no other; got 0.1"),
        ("lecun_normal", {"sigma_b": 0.1}, "`sigma_b` must be left out for the scheme 'lecun_normal'"),
        ("he_normal", {"activation": "Relu"}, "`activation` must be one of 'linear', .*; got 'Relu'"),
    ],
)
@pytest.mark.parametrize("kind", [rng.torch_generator, rng.generator])
def test_refused_schemes_draw_nothing(scheme, options, message, kind):
    """The message names argument, rule and value; neither weights nor generator have moved."""
    module, generator, twin = nn.Linear(4, 4), kind(1), kind(1)
    before = module.weight.detach().clone()
    with pytest.raises(InvalidArgumentError, match=message):
        initialise(module, scheme, generator=generator, **({"activation": "relu"} | options))
    assert torch.equal(module.weight, before)
    first, second = (
        torch.rand(1, generator=g).item() if isinstance(g, torch.Generator) else g.random() for g in (generator, twin)
    )
    assert first == second


def test_modules_of_several_activations_ask_which_is_meant():
    """ReLU and tanh in one module: no one criticality."""
    module = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2), nn.Tanh())
    with pytest.raises(InvalidArgumentError, match="`activation` must be given for a module with several kinds"):
        initialise(module, "he_normal", generator=rng.torch_generator(1))


@pytest.mark.parametrize("name", ["fan_in", "fan_out"])
def test_layers_without_inputs_or_outputs_are_refused(name):
    """Fans are integers >= 1."""
    with pytest.raises(InvalidArgumentError, match=f"`{name}` must be an integer >= 1; got 0"):
        weight_law("he_normal", "relu", **({"fan_in": 3} | {name: 0}))


def test_every_scheme_says_where_it_comes_from():
    """A source, a known distribution, and the same law for a name and a record."""
    for name, scheme in INITS.items():
        assert scheme.source
        assert scheme.distribution in {"gaussian", "uniform", "orthogonal"}
        by_name = weight_law(name, "tanh", fan_in=7, **SCHEMES[name])
        assert isinstance(by_name, WeightLaw)
        assert by_name == weight_law(name, ACTIVATIONS["tanh"], fan_in=7, fan_out=7, **SCHEMES[name])


@pytest.mark.parametrize(
    "foreign", [nn.ELU(), nn.Sigmoid(), nn.GELU(approximate="tanh"), nn.Hardtanh(-2.0, 2.0), nn.ReLU6()]
)
def test_an_activation_without_a_record_is_never_taken_for_another(foreign):
    """σ_w of ELU, say, is not that of a linear network: `activation` must be given, and nothing is drawn."""
    module = nn.Sequential(nn.Linear(3, 3), foreign)
    before = module[0].weight.detach().clone()
    with pytest.raises(InvalidArgumentError, match=type(foreign).__name__):
        initialise(module, "critical", generator=rng.torch_generator(1))
    assert torch.equal(module[0].weight, before)
    initialise(module, "critical", generator=rng.torch_generator(1), activation="relu")
