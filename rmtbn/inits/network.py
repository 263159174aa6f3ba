"""Draw the weights of a network by a scheme."""

from typing import TypeVar

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from rmtbn import _checks
from rmtbn.activations import Activation, leaky_relu
from rmtbn.activations import activation as find_activation
from rmtbn.inits import draws
from rmtbn.inits.laws import weight_law

Module = TypeVar("Module", bound=nn.Module)


def initialise(
    module: Module,
    scheme: str,
    *,
    generator: draws.Generator,
    activation: str | Activation | None = None,
    sigma_w: float | None = None,
    sigma_b: float | None = None,
) -> Module:
    """Draw the weights and biases of every linear and convolutional layer, in place.

    The draws are made in float64 on the generator's device and then rounded, so that networks of different dtype or
    device are the same network. Layers of other kinds keep their parameters (norms start at γ = 1, β = 0).

    Parameters
    ----------
    module
        Any network.
    scheme
        A name in `INITS` or `CONVOLUTION_INITS`.
    generator
        Source of the draws, for example `rmtbn.rng.torch_generator(seed, "weights")`.
    activation
        φ of the network; if left out it is read off the modules, which must then hold one kind at most (none: linear).
    sigma_w, sigma_b
        As in `weight_law`.

    Returns
    -------
    Module
        The same module.

    Raises
    ------
    InvalidArgumentError
        As `weight_law`, or if `activation` is left out and cannot be told. Nothing has been drawn then.
    """
    record = _activation_of(module) if activation is None else find_activation(activation)
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear | _ConvNd)]
    fans = [draws.fans(layer.weight) for layer in layers]
    laws = {  # one for each shape: a critical point takes longer than the draws of a small layer
        shape: weight_law(scheme, record, fan_in=shape[0], fan_out=shape[1], sigma_w=sigma_w, sigma_b=sigma_b)
        for shape in dict.fromkeys(fans)
    }
    source = draws.torch_generator(generator)
    with torch.no_grad():
        for layer, shape in zip(layers, fans, strict=True):
            law = laws[shape]
            # the assignment sets what a weight is computed from under weight normalisation
            drawn = draws.weights(layer.weight, law, source, groups=getattr(layer, "groups", 1))
            layer.weight = layer.weight.copy_(drawn)
            if layer.bias is not None:
                layer.bias.copy_(law.sigma_b * draws.entries(layer.bias.shape, law.distribution, source))
    return module


def _activation_of(module: nn.Module) -> Activation:
    foreign = [str(m) for m in module.modules() if _is_foreign(m)]
    if foreign:
        raise _checks.fail("activation", "given for a module with an activation that has no record", foreign[0])
    kinds = [(_CLASS_NAMES[kind], m) for m in module.modules() if (kind := type(m).__name__) in _CLASS_NAMES]
    found = {(name, m.negative_slope if isinstance(m, nn.LeakyReLU) else None) for name, m in kinds}
    if len(found) > 1:
        raise _checks.fail("activation", "given for a module with several kinds of them", sorted(found, key=str))
    name, slope = next(iter(found), ("linear", None))
    return find_activation(name) if slope is None else leaky_relu(slope)


def _is_foreign(module: nn.Module) -> bool:
    """Whether it is an activation of torch's, elementwise, that `ACTIVATIONS` does not hold in this very form."""
    if type(module) in {nn.Hardtanh, nn.GELU}:
        return str(module) not in {"Hardtanh(min_val=-1.0, max_val=1.0)", "GELU(approximate='none')"}
    known = type(module).__name__ in _CLASS_NAMES or isinstance(module, _NOT_ELEMENTWISE)
    return type(module).__module__ == nn.ReLU.__module__ and not known


_NOT_ELEMENTWISE = (nn.MultiheadAttention, nn.Softmax, nn.Softmax2d, nn.LogSoftmax, nn.Softmin, nn.GLU)

_CLASS_NAMES = {
    "ReLU": "relu",
    "CReLU": "relu",  # each entry of (relu(x), relu(-x)) is a rectified one
    "LeakyReLU": "leaky_relu",
    "Tanh": "tanh",
    "Erf": "erf",
    "Hardtanh": "hard_tanh",
    "GELU": "gelu",
    "SiLU": "silu",
    "SELU": "selu",
}
