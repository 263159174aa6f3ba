"""Networks are left bit for bit as they were found: by the snapshot, and by every measure that uses it."""

import copy

import numpy as np
import pytest
import torch
from cases import inputs
from torch import nn

from rmtbn import rng
from rmtbn.measure import batch_statistics
from rmtbn.measure.batch_norm_gradient import batch_norm_gradients, radial_gradients
from rmtbn.measure.channel_gradient import channel_gradients
from rmtbn.measure.channel_moments import channel_moments
from rmtbn.measure.class_bias import class_bias
from rmtbn.measure.conv_gradient import sum_ratios
from rmtbn.measure.divergence import first_divergence, partial_updates
from rmtbn.measure.example_gradients import example_gradients
from rmtbn.measure.gradient_tails import gradient_tails
from rmtbn.measure.gradients import log_gradient_norms
from rmtbn.measure.sgd_noise import sgd_noise
from rmtbn.measure.shattering import input_gradients
from rmtbn.measure.smoothness import smoothness
from rmtbn.measure.snapshot import left_as_found, probe
from rmtbn.measure.step_size import largest_step, relative_losses

X, Y = inputs(6, 3, 6, 6), torch.arange(6) % 5
TENSORS = ("_parameters", "_buffers")


def weights(module):
    return {name: p.detach().clone() for name, p in module.named_parameters()}


# Every measure of this room that looks at a loss, called on a network with everything that could be moved.
PROBES = {
    "log_gradient_norms": lambda net: log_gradient_norms(net, X, lambda o: nn.functional.cross_entropy(o, Y)),
    "channel_moments": lambda net: channel_moments(net, X),
    "sum_ratios": lambda net: sum_ratios(net, X, Y),
    "channel_gradients": lambda net: channel_gradients(net, X, Y, layers=["0"]),
    "class_bias": lambda net: class_bias(net, X, Y),
    "relative_losses": lambda net: relative_losses(net, X, Y, steps=[0.1, 1e300]),
    "largest_step": lambda net: largest_step(net, X, Y, accuracy=0.5),
    "first_divergence": lambda net: first_divergence(net, [(X, Y)] * 3, learning_rate=0.1),
    "gradient_tails": lambda net: gradient_tails(net, X, Y),
    "example_gradients": lambda net: example_gradients(net, X, Y),
    "sgd_noise": lambda net: sgd_noise(net, X, Y, batch_size=3, draws=2, generator=rng.torch_generator(1)),
    "input_gradients": lambda net: input_gradients(net, X),
    "smoothness": lambda net: smoothness(net, X, Y, steps=[0.1, 1e300]),
    "batch_norm_gradients": lambda net: batch_norm_gradients(net, X, Y),
    "radial_gradients": lambda net: radial_gradients(net, X, Y, layers=["0"]),
    "partial_updates": lambda net: partial_updates(net, X, Y, update=(weights(net), weights(net)), layers=["0"]),
}


class Averaging(nn.Module):
    """A layer that replaces its buffer by a new tensor in every forward pass."""

    def __init__(self):
        super().__init__()
        self.register_buffer("average", torch.zeros((), dtype=torch.float64))

    def forward(self, x):
        self.average = 0.9 * self.average + 0.1 * x.mean()
        return x


def network():
    """Convolutions, batch normalisation, dropout, a buffer that is replaced; one gradient set, one layer frozen."""
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Dropout(0.3),
        nn.utils.parametrizations.spectral_norm(nn.Conv2d(4, 4, 3)),
        nn.BatchNorm2d(4),
        Averaging(),
        nn.Flatten(),
        nn.Linear(64, 5),
    ).double()
    generator = rng.torch_generator(1, "left as found")
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=torch.float64) * 0.3)
    net[8].weight.grad = torch.full_like(net[8].weight, torch.nan)
    net[0].bias.requires_grad_(False)
    return net


def bits(tensor):
    return None if tensor is None else tensor.detach().contiguous().numpy().tobytes()


def state(module):
    """Everything there is: tensors by identity and by their bits, gradients, flags, modes, generators."""
    tensors = [
        (name, key, id(t), bits(t), bits(t.grad) if t.is_leaf else None, t.requires_grad)
        for name, part in module.named_modules()
        for table in TENSORS
        for key, t in getattr(part, table).items()
        if t is not None
    ]
    modes = [part.training for part in module.modules()]
    tracking = [getattr(part, "track_running_stats", None) for part in module.modules()]
    hooks = [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules()]
    return tensors, modes, tracking, hooks, bits(torch.get_rng_state())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", PROBES)
def test_measures_leave_networks_bit_for_bit(name, training):
    """Parameters, buffers, gradients, flags, modes, hooks, generators: nothing is another than before."""
    net = network().train(training)
    images, before = X.clone(), state(net)
    with torch.no_grad():  # the caller's mode of autograd is not the probe's
        PROBES[name](net)
    assert state(net) == before
    assert torch.equal(X, images)
    assert not X.requires_grad
    assert X.grad is None


def disturb(net):
    """Change everything that a snapshot puts back."""
    with torch.no_grad():
        net[0].weight.add_(1.0)
        net[1].running_mean.data.mul_(3.0)
        net[8].weight.grad.zero_()
    net(X)
    net[8].weight.grad = None
    net[0].weight.grad = torch.ones_like(net[0].weight)
    net[0].bias.requires_grad_(True)
    net[4].weight  # noqa: B018 - a step of the spectral norm's power iteration
    net[8].weight = nn.Parameter(torch.zeros_like(net[8].weight))
    net.eval()
    torch.rand(3)


def disturb_and_fail(net):
    """Leave the block halfway."""
    disturb(net)
    return 1 // 0


def test_snapshots_put_everything_back():
    """What `disturb` changes differs inside the block and is as before after it."""
    net = network()
    net[5].eval()
    before = state(net)
    with left_as_found(net):
        disturb(net)
        inside = state(net)
    after = state(net)
    assert all(a != b for a, b in zip(inside[:2], before[:2], strict=True))
    assert after == before


def test_snapshots_put_everything_back_after_an_exception():
    """The block ends by an exception, which goes on."""
    net = network()
    before = state(net)
    with pytest.raises(ZeroDivisionError), left_as_found(net):
        disturb_and_fail(net)
    assert state(net) == before


def test_bits_are_put_back_not_values():
    """-0 and 0 are equal, and NaN is not equal to itself: the bits decide."""
    net = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[-0.0, torch.nan]]))
    before = bits(net.weight)
    with left_as_found(net), torch.no_grad():
        net.weight.copy_(torch.tensor([[0.0, torch.nan]]))
    assert bits(net.weight) == before


def test_graphs_that_hold_a_tensor_stay_good():
    """Tensors that did not change are not written: a graph from before the probe can still be run back."""
    net = network()
    loss = net(X).square().sum()
    class_bias(net, X, Y)
    loss.backward()  # an in-place write in between raises here
    assert net[0].weight.grad is not None


def test_probes_begin_from_the_same_draws():
    """Two blocks draw the same dropout mask, and the caller's generator does not move."""
    net, before = network(), torch.get_rng_state()
    outputs = []
    for _ in range(2):
        with probe(net, "batch"):
            outputs.append(net(X))
            assert torch.is_grad_enabled()
    assert torch.equal(*outputs)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(outputs[0], network().eval()(X))


def test_probes_use_the_statistics_named():
    """ "running" in train mode is the eval mode of batch normalisation, "batch" in eval mode its train mode."""
    net = network()
    net[3] = nn.Identity()
    reference = copy.deepcopy(net)
    for norm in (reference[1], reference[5]):
        norm.eval()
    with probe(net, batch_statistics.resolve(net, "running")):
        found = net(X).detach()
    np.testing.assert_array_equal(found, reference(X).detach())
