"""Training many networks at once is training each alone."""

import numpy as np
import pytest
import torch
from torch import nn

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.data.digits import digits
from rmtbn.inits import initialise
from rmtbn.nets.mlp import mlp
from rmtbn.train.ensemble import accuracies, train_ensemble

SETTINGS = {"steps": 12, "batch_size": 16, "learning_rate": 0.1}


def networks(count=3, depth=2):
    modules = []
    for seed in range(count):
        module = mlp(depth=depth, width=20, activation="tanh", in_features=64, out_features=10).double()
        modules.append(initialise(module, "glorot_normal", generator=rng.torch_generator(seed, "w"), activation="tanh"))
    return modules


def examples():
    data = digits()
    return data.inputs.flatten(1).double(), data.targets


def test_networks_train_as_each_would_alone():
    """Parameters and losses against torch.optim.SGD on one network at a time, on the same batches."""
    x, y = examples()
    together = networks()
    losses = train_ensemble(together, x, y, generator=rng.torch_generator(1, "batches"), **SETTINGS)
    for i, module in enumerate(networks()):
        generator = rng.torch_generator(1, "batches")
        optimiser = torch.optim.SGD(module.parameters(), lr=0.1)
        for step in range(12):
            chosen = torch.randint(len(y), (16,), generator=generator)
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(module(x[chosen]), y[chosen])
            loss.backward()
            optimiser.step()
            assert losses[i, step] == pytest.approx(loss.item(), rel=1e-10)
        for a, b in zip(together[i].parameters(), module.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_training_learns_the_digits():
    """300 steps take an untrained network's accuracy from chance to above 0.8 on what it was not trained on."""
    x, y = examples()
    modules = networks(2)
    before = accuracies(modules, x[1400:], y[1400:])
    train_ensemble(
        modules, x[:1400], y[:1400], generator=rng.torch_generator(1), steps=300, batch_size=32, learning_rate=0.1
    )
    after = accuracies(modules, x[1400:], y[1400:])
    assert (before < 0.35).all()
    assert (after > 0.8).all()


def test_accuracies_are_shares_of_right_answers():
    """Against argmax of each network alone; outputs that are not finite are wrong."""
    x, y = examples()
    modules = networks(2)
    expected = [float((module(x).argmax(1) == y).double().mean()) for module in modules]
    np.testing.assert_allclose(accuracies(modules, x, y), expected)
    with torch.no_grad():
        modules[0].readout.bias.fill_(torch.nan)
    assert accuracies(modules, x, y)[0] == 0


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"steps": 0}, "`steps`.*0"),
        ({"batch_size": 0}, "`batch_size`.*0"),
        ({"learning_rate": 0.0}, "`learning_rate`.*0"),
    ],
)
def test_arguments_out_of_range_are_named(change, named):
    """Each message names the argument and the value."""
    x, y = examples()
    with pytest.raises(InvalidArgumentError, match=named):
        train_ensemble(networks(1), x, y, generator=rng.torch_generator(1), **{**SETTINGS, **change})


def test_networks_that_cannot_be_trained_together_are_refused():
    """None, two architectures, batch normalisation in train mode."""
    x, y = examples()
    normed = mlp(depth=1, width=4, norm="batch", in_features=64, out_features=10).double()
    for modules, named in (
        ([], "`modules` must be one or more"),
        ([*networks(1), *networks(1, depth=3)], "`modules` must be networks of one architecture"),
        ([normed], "`modules` must be without batch normalisation"),
    ):
        with pytest.raises(InvalidArgumentError, match=named):
            train_ensemble(modules, x, y, generator=rng.torch_generator(1), **SETTINGS)
