"""Divergence: the same training by hand, an update in parts, and channel moments by numpy."""

import math

import numpy as np
import pytest
import torch
from cases import conv_net, inputs, network
from torch import nn

from rmtbn._checks import InvalidArgumentError
from rmtbn.measure.channel_moments import channel_moments
from rmtbn.measure.divergence import first_divergence, partial_updates
from rmtbn.measure.recording import names_of

Y = torch.arange(6) % 5


def batches(count):
    """Batches for the small convolutional network."""
    return [(inputs(6, 3, 6, 6, seed=k), Y) for k in range(1, count + 1)]


@pytest.mark.parametrize("rate", [0.01, 30.0])
def test_training_is_that_of_sgd(rate):
    """The losses of a loop with torch.optim.SGD (momentum 0.9, decay 1e-4), up to the first above 1e3."""
    torch.manual_seed(3)  # a network that diverges at the fifth batch; a few of a hundred do not within twelve
    net = conv_net().double()
    found = first_divergence(net, batches(12), learning_rate=rate)
    student = conv_net().double()
    student.load_state_dict(net.state_dict())
    optimiser = torch.optim.SGD(student.parameters(), lr=rate, momentum=0.9, weight_decay=1e-4)
    losses, weights = [], [student[0].weight.detach().clone()]
    for x, y in batches(12):
        loss = nn.functional.cross_entropy(student(x), y)
        losses.append(loss.item())
        if losses[-1] > 1e3:
            break
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        weights.append(student[0].weight.detach().clone())
    np.testing.assert_allclose(found.losses, losses, rtol=1e-10)
    assert found.step == (None if rate < 1 else len(losses) - 1)
    torch.testing.assert_close(found.before["0.weight"], weights[-2])
    torch.testing.assert_close(found.after["0.weight"], weights[-1])


def test_losses_that_are_not_finite_are_divergence():
    """A step of 1e300 gives NaN at the next batch: divergence at index 1, after 1 update, with loss inf."""
    found = first_divergence(conv_net().double(), batches(5), learning_rate=1e300)
    assert found.step == 1
    assert found.losses[1] == math.inf
    assert found.batch is not None
    assert torch.equal(found.batch[0], batches(2)[1][0])


def test_networks_that_start_beyond_the_threshold_diverge_before_any_update():
    """Step 0: as many updates as the index says, none; before and after are the same."""
    net = conv_net().double()
    found = first_divergence(net, batches(3), learning_rate=0.1, threshold=1e-6)
    assert found.step == 0
    assert len(found.losses) == 1
    assert all(torch.equal(found.before[name], p) for name, p in net.named_parameters())
    assert all(torch.equal(found.after[name], p) for name, p in net.named_parameters())


def test_frozen_parameters_are_not_trained():
    """As in any training loop; a network that is frozen altogether is refused."""
    net = conv_net().double()
    net[0].weight.requires_grad_(False)
    found = first_divergence(net, batches(3), learning_rate=0.1)
    assert torch.equal(found.after["0.weight"], net[0].weight)
    assert not torch.equal(found.after["3.weight"], net[3].weight)
    with pytest.raises(InvalidArgumentError, match="`module` must be a network with parameters that require a gradi"):
        first_divergence(net.requires_grad_(False), batches(1), learning_rate=0.1)


def test_no_more_batches_are_taken_than_needed():
    """An endless source is read up to the divergence; an empty one gives no step."""

    def endless():
        while True:
            yield batches(1)[0]

    assert first_divergence(conv_net().double(), endless(), learning_rate=1e300).step == 1
    empty = first_divergence(conv_net().double(), [], learning_rate=0.1)
    assert (empty.step, empty.losses.size, empty.batch) == (None, 0, None)


def test_parts_of_an_update_are_between_its_ends():
    """w = (1-t) before + t after: losses and channel moments of a network that holds these weights."""
    net, (x, y) = conv_net().double(), batches(1)[0]
    run = first_divergence(net, batches(4), learning_rate=0.5)
    found = partial_updates(net, x, y, update=(run.before, run.after), layers=["0", "3"])
    np.testing.assert_allclose(found.fractions, np.arange(11) / 10)
    student = conv_net().double()
    for place, t in enumerate(found.fractions):
        weights = {name: (1 - t) * run.before[name] + t * run.after[name] for name in run.before}
        student.load_state_dict(weights, strict=False)
        with torch.no_grad():
            assert found.losses[place] == pytest.approx(nn.functional.cross_entropy(student(x), y).item(), rel=1e-9)
            h = student[:4](x).numpy()
        np.testing.assert_allclose(found.channel_means("3")[place], h.mean(axis=(0, 2, 3)), rtol=1e-8, atol=1e-14)
        np.testing.assert_allclose(
            found.channel_log_variances("3")[place], np.log(h.var(axis=(0, 2, 3))), rtol=1e-9, atol=1e-9
        )


def test_updates_that_leave_the_range_are_infinite():
    """Weights of 1e300: the loss and the variances of later layers are inf; before the update they are finite."""
    net, (x, y) = conv_net().double(), batches(1)[0]
    run = first_divergence(net, batches(3), learning_rate=1e300)
    found = partial_updates(net, x, y, update=(run.before, run.after), layers=["0", "6"], fractions=[0.0, 1.0])
    assert math.isfinite(found.losses[0])
    assert found.losses[1] == math.inf
    assert np.isfinite(found.channel_log_variances("6")[0]).all()
    assert np.isposinf(found.channel_log_variances("6")[1]).all()
    assert found.channel_log_variances("0")[1].max() > 1000


def test_what_cannot_be_applied_is_refused():
    """Unknown layers and parameters, by name."""
    net, (x, y) = conv_net().double(), batches(1)[0]
    weights = {name: p.detach() for name, p in net.named_parameters()}
    with pytest.raises(InvalidArgumentError, match=r"`layers` must be one of .*; got '9'"):
        partial_updates(net, x, y, update=(weights, weights), layers=["9"])
    with pytest.raises(InvalidArgumentError, match=r"`update` must be one of .*; got 'w'"):
        partial_updates(net, x, y, update=({"w": x}, {"w": x}), layers=["0"])
    with pytest.raises(InvalidArgumentError, match="`layer` must be one of '0'; got '3'"):
        partial_updates(net, x, y, update=(weights, weights), layers=["0"]).channel_means("3")
    with pytest.raises(InvalidArgumentError, match=r"`learning_rate` must be a finite number > 0.0; got 0.0"):
        first_divergence(net, batches(1), learning_rate=0.0)


def test_channel_moments_are_those_of_numpy():
    """Mean and log variance over examples and places of each channel; a unit of a linear layer is a channel."""
    net, x = conv_net().double(), inputs(6, 3, 6, 6)
    found = channel_moments(net, x)
    assert [one.layer for one in found] == ["0", "3", "6"]
    with torch.no_grad():
        h = net[0](x).numpy()
        last = net(x).numpy()
    np.testing.assert_allclose(found[0].mean, h.mean(axis=(0, 2, 3)), rtol=1e-9)
    np.testing.assert_allclose(found[0].log_variance, np.log(h.var(axis=(0, 2, 3))), atol=1e-12)
    np.testing.assert_allclose(found[2].mean, last.mean(axis=0), rtol=1e-9)
    assert found[0].mean_square_mean == pytest.approx(np.mean(h.mean(axis=(0, 2, 3)) ** 2))
    assert found[0].log_mean_variance == pytest.approx(np.log(h.var(axis=(0, 2, 3)).mean()))


@pytest.mark.parametrize("log_scale", [-300, 300])
def test_channel_moments_beyond_the_range_of_squares_are_finite(log_scale):
    """Outputs of 1e±300 have variances of 1e±600: held as logarithms."""
    net = nn.Sequential(nn.Identity())
    x = inputs(9, 4, 3, 3)
    (found,) = channel_moments(net, x * 10.0**log_scale, layers=["0"])
    expected = x.var((0, 2, 3), correction=0).log() + 2 * log_scale * math.log(10)
    np.testing.assert_allclose(found.log_variance, expected, rtol=1e-12)


def test_channels_that_are_constant_or_not_finite_are_told_apart():
    """-inf for a constant, inf where an output is not finite: no channel spoils another."""
    net = network(depth=1, width=3)
    with torch.no_grad():
        net[0].weight.copy_(torch.diag(torch.tensor([0.0, 1.0, math.inf], dtype=torch.float64)))
        net[0].bias.zero_()
        net[0].weight[2] = math.inf
        net[0].weight[:2, 2] = 0.0
    (found,) = channel_moments(net, inputs(5, 3), layers=[names_of(net, [net[0]])[0]])
    assert found.log_variance[0] == -math.inf
    assert math.isfinite(found.log_variance[1])
    assert found.log_variance[2] == math.inf


def test_layers_at_hand_have_names():
    """`names_of` turns layers into names, in their order; layers of other networks are refused."""
    net = conv_net()
    assert names_of(net, [net[3], net[0]]) == ("3", "0")
    with pytest.raises(InvalidArgumentError, match="`parts` must be parts of the module; got 'ReLU'"):
        names_of(net, [nn.ReLU()])
