"""LSUV: every layer's output has variance 1 on the data, by iteration where one division does not suffice."""

import pytest
import torch
from cases import Residual, inputs
from torch import nn

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.inits.lsuv import lsuv
from rmtbn.nets.cnn import plain_cnn
from rmtbn.nets.mlp import mlp
from rmtbn.nets.resnet import resnet_cifar


@pytest.fixture(autouse=True)
def without_gradients():
    """Numbers are read off outputs."""
    with torch.no_grad():
        yield


def variances(net, x):
    """Variance of the output of every layer with weights, over all entries."""
    found = {}
    handles = [
        part.register_forward_hook(lambda _m, _i, out, name=name: found.update({name: float(out.var(correction=0))}))
        for name, part in net.named_modules()
        if isinstance(part, nn.Linear | nn.Conv2d)
    ]
    net(x)
    for handle in handles:
        handle.remove()
    return found


def networks():
    small = {"in_channels": 2, "widths": (4, 6, 8), "classes": 5}
    return {
        "mlp": (mlp(depth=10, width=20, in_features=7, out_features=4, activation="tanh"), (7,)),
        "cnn": (plain_cnn(depth=8, channels=6, in_channels=2, classes=5), (2, 8, 8)),
        "weight normalised": (plain_cnn(depth=3, channels=6, in_channels=2, norm="weight"), (2, 8, 8)),
        "resnet": (resnet_cifar(depth=20, **small), (2, 8, 8)),
        "resnet with projections": (resnet_cifar(depth=8, shortcut="projection", norm="batch", **small), (2, 8, 8)),
        "other order": (Residual(6), (6,)),
    }


@pytest.mark.parametrize("name", networks())
def test_outputs_of_all_layers_have_variance_one(name):
    """|Var - 1| ≤ 1e-3, for orthonormal weights before only by chance; inputs of variance 9."""
    net, shape = networks()[name]
    x = 3.0 * inputs(16, *shape)
    net = lsuv(net.double(), x, generator=rng.torch_generator(1, name))
    found = variances(net, x)
    assert len(found) >= 2
    assert all(abs(value - 1) <= 1e-3 for value in found.values()), found
    biases = [parameter for name, parameter in net.named_parameters() if name.endswith("bias") and "norm" not in name]
    assert not any(bias.any() for bias in biases)


def test_weights_are_orthonormal_up_to_their_scale():
    """W Wᵀ = s² I: the pre-initialisation of the paper, and only a number per layer is fitted."""
    net = mlp(depth=3, width=6, in_features=9).double()
    lsuv(net, inputs(32, 9), generator=rng.torch_generator(1))
    gram = net.linear_1.weight @ net.linear_1.weight.T
    torch.testing.assert_close(gram, gram[0, 0] * torch.eye(6, dtype=torch.float64))
    assert abs(float(gram[0, 0]) - 1.0) > 1e-3


class Offset(nn.Linear):
    """Adds to each unit an offset of its own, of variance 0.5 over the units: a division overshoots."""

    def forward(self, x):
        offset = torch.arange(self.out_features, dtype=x.dtype)
        offset = (offset - offset.mean()) / offset.std(correction=0)
        return super().forward(x) + 0.5**0.5 * offset


def test_iterates_until_the_variance_is_one():
    """V → 1 + w - w/V has the fixed point 1, reached at the rate w = 0.5: 10 steps are not enough for 1e-6, 40 are."""
    net, x = nn.Sequential(Offset(8, 8, dtype=torch.float64)), 5.0 * inputs(64, 8)
    lsuv(net, x, generator=rng.torch_generator(1), tolerance=1e-6, max_iterations=40)
    assert abs(float(net(x).var(correction=0)) - 1) <= 1e-6
    with pytest.raises(InvalidArgumentError, match=r"`tolerance` must be one that '0' reaches in 10 steps.*1e-06"):
        lsuv(net, x, generator=rng.torch_generator(1), tolerance=1e-6)


def test_statistics_mode_and_hooks_are_left_as_they_were():
    """Batch normalisation used the batch, and its running statistics did not move."""
    net = resnet_cifar(depth=8, norm="batch", widths=(4, 4, 4))
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    lsuv(net, inputs(4, 3, 8, 8, dtype=torch.float32), generator=rng.torch_generator(1))
    assert all(torch.equal(buffer, before[name]) for name, buffer in net.named_buffers())
    assert net.training
    assert not any(part._forward_hooks for part in net.modules())


def test_the_same_generator_and_data_give_the_same_network():
    """A function of both; other data scale the weights otherwise."""
    first, again, other = (
        lsuv(mlp(depth=2, width=5), scale * inputs(8, 5, dtype=torch.float32), generator=rng.torch_generator(1))
        for scale in (1.0, 1.0, 2.0)
    )
    assert torch.equal(first.linear_1.weight, again.linear_1.weight)
    torch.testing.assert_close(other.linear_1.weight, first.linear_1.weight / 2)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"x": torch.zeros(4, 5)}, r"`x` must be such that the output of 'linear_1' varies.*0\.0"),
        ({"x": torch.full((4, 5), float("nan"))}, r"`x` must be such that the output of 'linear_1' varies.*nan"),
        ({"tolerance": 0.0}, r"`tolerance`.*0\.0"),
        ({"max_iterations": 0}, r"`max_iterations`.*0"),
    ],
)
def test_data_that_cannot_be_scaled_by_are_refused(change, said):
    """The message names the layer and the value; no hook stays behind."""
    net = mlp(depth=2, width=5)
    arguments = {"x": torch.ones(4, 5), "generator": rng.torch_generator(1)} | change
    with pytest.raises(InvalidArgumentError, match=said):
        lsuv(net, arguments.pop("x"), **arguments)
    assert not any(part._forward_hooks for part in net.modules())
