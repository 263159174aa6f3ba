"""Fully connected networks: layers in order, x^l = φ(norm(W^l x^{l-1} + b^l)), and nothing else."""

import numpy as np
import pytest
import torch
from cases import ACTIVATION_NAMES, NORM_NAMES, inputs, network
from torch import nn

from rmtbn._checks import InvalidArgumentError
from rmtbn.activations import ACTIVATIONS
from rmtbn.nets.mlp import mlp


@pytest.mark.parametrize("placement", ["pre", "post"])
@pytest.mark.parametrize("depth", [1, 2, 7])
@pytest.mark.parametrize("norm", NORM_NAMES)
def test_children_are_the_layers_in_order(depth, norm, placement):
    """linear_l, [norm_l,] phi_l for l = 1 … L, or phi_l in front of norm_l; then the readout if there is one."""
    kinds = {"pre": ["linear", "norm", "phi"], "post": ["linear", "phi", "norm"]}[placement]
    block = [kind for kind in kinds if kind != "norm" or norm not in {"none", "weight"}]
    names = [f"{kind}_{layer}" for layer in range(1, depth + 1) for kind in block]
    sizes = {"depth": depth, "width": 4, "norm": norm, "norm_placement": placement}
    assert [name for name, _ in mlp(**sizes).named_children()] == names
    assert [name for name, _ in mlp(**sizes, out_features=2).named_children()] == [*names, "readout"]


def normalised(h, *, norm):
    """What each norm is, in numpy, with ε = 1e-5, at γ = 1 and β = 0; eight features make two groups of four."""
    if norm == "batch":
        return (h - h.mean(axis=0)) / np.sqrt(h.var(axis=0) + 1e-5)
    if norm == "uncentred":
        return h / np.sqrt((h**2).mean(axis=0) + 1e-5)
    if norm in {"layer", "group"}:
        sets = h.reshape(len(h), {"layer": 1, "group": 2}[norm], -1)
        sets = (sets - sets.mean(axis=2, keepdims=True)) / np.sqrt(sets.var(axis=2, keepdims=True) + 1e-5)
        return sets.reshape(h.shape)
    return h


@pytest.mark.parametrize("placement", ["pre", "post"])
@pytest.mark.parametrize("norm", NORM_NAMES)
@pytest.mark.parametrize("activation", ACTIVATION_NAMES)
def test_forward_pass_is_the_recursion(activation, norm, placement):
    """x^l = φ(norm(W^l x^{l-1} + b^l)), or norm(φ(W^l x^{l-1} + b^l)), in numpy."""
    options = {"activation": activation, "norm": norm, "norm_placement": placement}
    module, x = network(**options, depth=3, width=8, in_features=5, out_features=2), inputs(9, 5)
    signal, phi = x.numpy(), ACTIVATIONS[activation].phi
    for layer in (1, 2, 3):
        h = affine(module.get_submodule(f"linear_{layer}"), signal)
        signal = phi(normalised(h, norm=norm)) if placement == "pre" else normalised(phi(h), norm=norm)
    signal = affine(module.get_submodule("readout"), signal)
    np.testing.assert_allclose(module(x).detach().numpy(), signal, rtol=1e-10, atol=1e-12)


def affine(layer: nn.Linear, signal: np.ndarray) -> np.ndarray:
    bias = 0.0 if layer.bias is None else layer.bias.detach().numpy()
    return signal @ layer.weight.detach().numpy().T + bias


@pytest.mark.parametrize("activation", ACTIVATION_NAMES)
def test_jacobian_is_the_product_of_the_theory(activation):
    """J = D_L W_L … D_1 W_1 with D_l = diag φ′(h^l), for one example."""
    module, x = network(activation=activation, depth=4, width=6), inputs(1, 6)
    product, signal = np.eye(6), x[0].numpy()
    for layer in range(1, 5):
        linear = module.get_submodule(f"linear_{layer}")
        h = affine(linear, signal)
        product = ACTIVATIONS[activation].dphi(h)[:, None] * (linear.weight.detach().numpy() @ product)
        signal = ACTIVATIONS[activation].phi(h)
    jacobian = torch.autograd.functional.jacobian(module, x)[0, :, 0]
    np.testing.assert_allclose(jacobian.numpy(), product, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("norm", NORM_NAMES)
def test_layers_have_no_bias_that_a_norm_removes(norm):
    """In front of batch normalisation; every other norm keeps what a bias does, and the readout has one."""
    for placement in ("pre", "post"):
        module = mlp(depth=2, width=8, norm=norm, norm_placement=placement, out_features=2)
        kept = (norm, placement) != ("batch", "pre")
        assert [layer.bias is not None for layer in module if isinstance(layer, nn.Linear)] == [kept, kept, True]


@pytest.mark.parametrize(("in_features", "out_features"), [(None, None), (5, None), (None, 2), (5, 2), (1, 1)])
def test_sizes_are_those_asked_for(in_features, out_features):
    """(in, N), (N, N), …, (N, out); the input has the width if nothing else is said."""
    module = mlp(depth=3, width=4, in_features=in_features, out_features=out_features)
    shapes = [tuple(layer.weight.shape) for layer in module if isinstance(layer, nn.Linear)]
    expected = [(4, in_features or 4), (4, 4), (4, 4)]
    assert shapes == (expected if out_features is None else [*expected, (out_features, 4)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 0}, "`depth` must be an integer >= 1; got 0"),
        ({"width": 0}, "`width` must be an integer >= 1; got 0"),
        ({"in_features": 0}, "`in_features` must be an integer >= 1; got 0"),
        ({"out_features": 0}, "`out_features` must be an integer >= 1; got 0"),
        ({"norm": "bn"}, "`norm` must be one of 'none', 'batch', .*; got 'bn'"),
        ({"norm": "instance"}, "`norm` must be one for inputs without space, .*; got 'instance'"),
        ({"norm": "layer", "width": 1}, "`features` must be >= 2 for the norm 'layer' .*; got 1"),
        ({"norm_placement": "both"}, "`norm_placement` must be one of 'pre', 'post'; got 'both'"),
        ({"activation": "swish"}, r"`activation` must be one of 'linear', .*; got 'swish'"),
    ],
)
def test_impossible_networks_are_refused(options, message):
    """Unknown names and sizes below 1, by name, rule and value."""
    with pytest.raises(InvalidArgumentError, match=message):
        mlp(**({"depth": 2, "width": 3} | options))
