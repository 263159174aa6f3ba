"""Gradients of single examples by loops and by vmap, and the noise of SGD: every batch there is, and draws."""

import itertools
import math

import numpy as np
import pytest
import torch
from cases import SEEDS, conv_net, inputs, network
from torch import nn
from torch.func import functional_call, grad, vmap

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.measure.example_gradients import example_gradients, looped, vmapped
from rmtbn.measure.loss import parameters_of
from rmtbn.measure.sgd_noise import sgd_noise

Y = torch.tensor([0, 1, 2, 2, 1, 0, 0])


def one(norm="none", seed=1):
    return network(norm=norm, out_features=3, depth=2, width=6, in_features=5, seed=seed)


def dense(module, x, y):
    """Gradients of the examples' losses in the batch, one backward pass each, shape (examples, all parameters)."""
    losses = nn.functional.cross_entropy(module(x), y, reduction="none")
    rows = [torch.autograd.grad(loss, list(module.parameters()), retain_graph=True) for loss in losses]
    return torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_inner_products_are_those_of_the_gradients(norm):
    """⟨g_i, g_j⟩, mean cosine, ‖Σg‖²/Σ‖g‖² and C from gradients written down one by one."""
    module, x = one(norm), inputs(7, 5)
    found = example_gradients(module, x, Y)
    g = dense(one(norm), x, Y).numpy()
    np.testing.assert_allclose(found.gram, g @ g.T, rtol=1e-9, atol=1e-14)
    assert found.coupled == (norm == "batch")
    assert found.parameters == tuple(name for name, _ in module.named_parameters())
    unit = g / np.linalg.norm(g, axis=1, keepdims=True)
    assert found.mean_cosine == pytest.approx((unit @ unit.T)[~np.eye(7, dtype=bool)].mean(), rel=1e-8)
    assert found.coherence == pytest.approx(np.sum(g.sum(0) ** 2) / np.sum(g**2), rel=1e-8)
    assert found.spread == pytest.approx(np.mean(np.sum((g - g.mean(0)) ** 2, axis=1)), rel=1e-8)


def test_gradients_without_coupling_are_those_of_vmap():
    """torch.func.vmap(grad) over single examples, with running statistics, for chosen parameters."""
    net, x, y = conv_net().double().eval(), inputs(6, 3, 6, 6), torch.arange(6) % 5
    found = example_gradients(net, x, y, parameters=["3.weight", "0.weight"])

    def loss(weight, image, label):
        output = functional_call(net, {"3.weight": weight}, (image[None],))
        return nn.functional.cross_entropy(output, label[None])

    g = vmap(grad(loss), in_dims=(None, 0, 0))(net[3].weight.detach(), x, y).flatten(1).detach()
    assert found.parameters == ("3.weight", "0.weight")
    np.testing.assert_allclose(found.grams[0], g @ g.T, rtol=1e-9)


@pytest.mark.parametrize("chunk", [1, 4, 6])
def test_many_examples_at_a_time_are_the_loop(chunk):
    """vmap(grad) in chunks and one backward pass per example: equal to 1e-12, with dropout off and biases too."""
    net, x, y = conv_net().double().eval(), inputs(6, 3, 6, 6), torch.arange(6) % 5
    weights = parameters_of(net)
    for one_by_one, together in zip(
        looped(net, x, y, weights=weights), vmapped(net, x, y, weights=weights, chunk=chunk), strict=True
    ):
        torch.testing.assert_close(together, one_by_one, rtol=1e-12, atol=1e-14)


def test_networks_that_vmap_refuses_are_done_one_by_one():
    """A branch on values: the same inner products as without the branch, which never takes place."""

    class Branching(nn.Linear):
        def forward(self, x):
            return super().forward(x) if bool(x.abs().sum() >= 0) else x

    plain, branching = nn.Linear(5, 3).double(), Branching(5, 3).double()
    branching.load_state_dict(plain.state_dict())
    found = [example_gradients(net, inputs(7, 5), Y).gram for net in (plain, branching)]
    np.testing.assert_allclose(found[1], found[0], rtol=1e-12)


def test_classes_that_are_none_are_refused():
    """Also those of later examples, which are differentiated many at a time."""
    with pytest.raises(InvalidArgumentError, match=r"`y` must be classes 0 to 2; got \(0, 3\)"):
        example_gradients(one(), inputs(2, 5), torch.tensor([0, 3]))


def test_gradients_of_zero_have_no_direction():
    """Examples whose loss is 0 to the last digit are left out of the cosine and counted."""
    net = nn.Linear(2, 2).double()
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[1e4, 0.0], [0.0, 0.0]]))
    x = torch.tensor([[1.0, 1.0], [1.0, 2.0], [-1.0, 0.0], [-2.0, 0.0]], dtype=torch.float64)
    found = example_gradients(net, x, torch.tensor([0, 0, 0, 0]))
    assert found.zero_examples == 2
    assert found.mean_cosine == pytest.approx((1 + 2) / math.sqrt(2 * 5))  # rows (-x, 1): (-1,0,1), (-2,0,1)
    nothing = example_gradients(net, x[:2], torch.tensor([0, 0]))
    assert math.isnan(nothing.mean_cosine)
    assert math.isnan(nothing.coherence)


@pytest.mark.parametrize("replacement", [True, False])
def test_noise_over_all_batches_is_exact(replacement):
    """The mean over every batch of 3 of 5 examples is α²C/b, times (N-b)/(N-1) without replacement: to 1e-12."""
    module, x = one(), inputs(5, 5)
    g = dense(module, x, Y[:5]).numpy()
    every = itertools.product(range(5), repeat=3) if replacement else itertools.combinations(range(5), 3)
    squares = [np.sum((g[list(chosen)].mean(0) - g.mean(0)) ** 2) for chosen in every]
    options = {"batch_size": 3, "draws": 2, "generator": rng.torch_generator(1), "replacement": replacement}
    found = sgd_noise(module, x, Y[:5], learning_rate=0.3, **options)
    assert found.predicted == pytest.approx(0.09 * np.mean(squares), rel=1e-10)
    assert all(np.isclose(0.09 * np.array(squares), value, rtol=1e-8).any() for value in found.squares)


@pytest.mark.parametrize("replacement", [True, False])
@pytest.mark.parametrize("seed", SEEDS)
def test_noise_is_that_of_the_law(seed, replacement):
    """300 mini-batches of 4 of 12: within 4 standard errors, and the other law is not (the factor is 8/11)."""
    module, x, y = one(seed=seed), inputs(12, 5, seed=seed), torch.arange(12) % 3
    options = {"batch_size": 4, "draws": 300, "generator": rng.torch_generator(seed, "draws")}
    found = sgd_noise(module, x, y, replacement=replacement, **options)
    assert abs(found.measured.value - found.predicted) < 4 * found.measured.se
    np.testing.assert_allclose(found.of_examples, found.squares, rtol=1e-8)
    assert found.controlled.value == pytest.approx(found.predicted, rel=1e-10)
    other = found.predicted * (8 / 11 if replacement else 11 / 8)
    assert abs(found.measured.value - other) > 3 * found.measured.se


def test_noise_depends_on_the_square_of_the_rate_over_the_batch():
    """(α, b) and (2α, 4b) predict the same noise; all examples without replacement make none."""
    module, x, y = one(), inputs(12, 5), torch.arange(12) % 3
    options = {"draws": 2, "generator": rng.torch_generator(1)}
    first = sgd_noise(module, x, y, batch_size=2, learning_rate=0.1, **options)
    second = sgd_noise(module, x, y, batch_size=8, learning_rate=0.2, **options)
    assert first.predicted == pytest.approx(second.predicted, rel=1e-12)
    whole = sgd_noise(module, x, y, batch_size=12, replacement=False, **options)
    assert whole.predicted == 0
    assert whole.squares.max() < 1e-25


def test_batch_statistics_break_the_law():
    """With batch statistics the examples are coupled, and batches of 2 make far more noise than α²C/b."""
    module, x, y = one("batch"), inputs(12, 5), torch.arange(12) % 3
    options = {"batch_size": 2, "draws": 100, "generator": rng.torch_generator(1)}
    found = sgd_noise(module, x, y, replacement=False, **options)
    assert found.coupled
    assert abs(found.measured.value - found.predicted) > 4 * found.measured.se
    assert found.of_examples.mean() == pytest.approx(found.predicted, rel=0.3)  # the control variate keeps to its law
    assert abs(found.controlled.value - found.predicted) > 4 * found.controlled.se
    assert not sgd_noise(module, x, y, batch_stats="running", **options).coupled


def test_gradients_that_were_measured_serve_again():
    """The same numbers from `examples`; those of other examples are refused."""
    module, x, y = one(), inputs(6, 5), torch.arange(6) % 3
    single = example_gradients(module, x, y)
    first, second = (
        sgd_noise(module, x, y, batch_size=2, draws=3, generator=rng.torch_generator(1), examples=given)
        for given in (None, single)
    )
    np.testing.assert_array_equal(first.squares, second.squares)
    assert first.predicted == second.predicted
    with pytest.raises(InvalidArgumentError, match="`examples` must be the gradients of the 4 examples of x; got 6"):
        sgd_noise(module, x[:4], y[:4], batch_size=2, draws=3, generator=rng.torch_generator(1), examples=single)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 8, "draws": 2}, "`batch_size` must be an integer >= 1 and <= 7; got 8"),
        ({"batch_size": 2, "draws": 1}, "`draws` must be an integer >= 2; got 1"),
        ({"batch_size": 2, "draws": 2, "learning_rate": 0.0}, "`learning_rate` must be a finite number > 0.0; got 0.0"),
    ],
)
def test_numbers_out_of_range_are_refused(options, message):
    """One line that names argument, rule and value."""
    with pytest.raises(InvalidArgumentError, match=message):
        sgd_noise(one(), inputs(7, 5), Y, generator=rng.torch_generator(1), **options)
