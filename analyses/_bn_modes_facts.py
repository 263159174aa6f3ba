"""The eight facts of batch statistics in a training loop, each as numbers measured on one network."""

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from rmtbn.data.labelled import Labelled
from rmtbn.train.batchnorm import checkpointed, one_update, recalibrate, statistics_kept
from rmtbn.train.channel_moments import tracking_norms
from rmtbn.train.evaluation import evaluate, statistics_gap, train_eval_gap
from rmtbn.train.loop import train

from ._bn_modes_setting import Row, Setting, backward, differing, gradients, largest_error, refused, weight
from ._held_out import batched

EARLY = (1, 5, 10, 20, 40)  # steps after which the first statistics are looked for
PROBES = 10
MICRO_BATCHES = 4


def stored(setting: Setting) -> Iterator[Row]:
    """Fact 1: biased variance used, unbiased one stored; what momentum means; ε = 0."""
    yield _bias(setting)
    x, _ = setting.batch
    yield "weight of a new value, momentum 0.1", setting.momentum, weight(setting.drawn, lambda net: net(x))
    cumulative = copy.deepcopy(setting.drawn)
    for norm in tracking_norms(cumulative).values():
        norm.momentum = None
    for _ in range(3):
        cumulative(x)
    yield "weight of the fourth value, momentum None", 1 / 4, weight(cumulative, lambda net: net(x))
    yield "ε = 0 refused in train mode", 1.0, refused(nn.BatchNorm2d(x.shape[1], eps=0.0).to(x), x)


def _bias(setting: Setting) -> Row:
    """Measure the variance kept over the variance used in the last layer, which has the fewest values per channel."""
    net = copy.deepcopy(setting.drawn).train()
    norm = list(tracking_norms(net).values())[-1]
    norm.momentum = 1.0
    seen: list[Tensor] = []
    handle = norm.register_forward_hook(lambda _, inputs, output: seen.extend((inputs[0], output)))
    with torch.no_grad():
        net(setting.batch[0])
    handle.remove()
    before, after = (t.detach().double().transpose(0, 1).flatten(1) for t in seen)  # γ = 1 in a network as drawn
    used = before.var(1, correction=0) / after.var(1, correction=0) - norm.eps
    assert norm.running_var is not None
    count = before.shape[1]
    return "variance stored over variance used", count / (count - 1), float((norm.running_var / used).mean())


def passes(setting: Setting) -> Iterator[Row]:
    """Fact 2: train mode updates, with gradients or without."""
    x, _ = setting.batch

    def without_gradients(net: nn.Module) -> None:
        with torch.no_grad():
            net(x)

    yield "weight of a new value under no_grad", setting.momentum, weight(setting.drawn, without_gradients)
    yield "weight of a new value in eval mode", 0.0, weight(setting.drawn, lambda net: net.eval()(x))


def restored(setting: Setting) -> Iterator[Row]:
    """Fact 3: parameters alone lose the statistics; a whole checkpoint goes on bit for bit."""
    resumed = _resumed(setting)
    states = [dict(net.state_dict()) for net in (setting.trained, resumed)]
    yield "entries of the network that differ after a restart", 0.0, differing(*states)
    x = setting.held_out.inputs
    with torch.no_grad():
        outputs = [copy.deepcopy(net).eval()(x) for net in (setting.trained, resumed)]
    yield "entries of the logits that differ after a restart", 0.0, differing({"": outputs[0]}, {"": outputs[1]})
    alone = copy.deepcopy(setting.drawn)
    alone.load_state_dict(dict(setting.trained.named_parameters()), strict=False)
    yield "accuracy lost by parameters alone", math.nan, setting.accuracy(setting.trained) - setting.accuracy(alone)


def _resumed(setting: Setting) -> nn.Sequential:
    """Train to the middle, write a checkpoint, and go on from the file in a network with other weights."""
    steps = iter(range(setting.recipe.total_steps(len(setting.seen.targets)) // 2 - 1))
    first, second = copy.deepcopy(setting.drawn), copy.deepcopy(setting.drawn)
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.mul_(-1)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        train(first, setting.seen, setting.recipe, checkpoint=path, stop=lambda: next(steps, None) is None)
        train(second, setting.seen, setting.recipe, checkpoint=path)
    return second


def recomputed(setting: Setting) -> Iterator[Row]:
    """Fact 4: activation checkpointing runs a block again, and plainly used updates twice."""
    x, y = setting.batch

    def plain(net: nn.Module) -> None:
        backward(checkpoint(net, x, use_reentrant=False), y)

    def compensated(net: nn.Module) -> None:
        backward(checkpointed(net, x), y)

    m = setting.momentum
    yield "weight of a new value, checkpoint", 1 - (1 - m) ** 2, weight(setting.drawn, plain)
    yield "weight of a new value, checkpointed", m, weight(setting.drawn, compensated)
    with_it, without = copy.deepcopy(setting.drawn), copy.deepcopy(setting.drawn)
    compensated(with_it)
    backward(without(x), y)
    yield "entries of the gradient that differ", 0.0, differing(gradients(with_it), gradients(without))


def probed(setting: Setting) -> Iterator[Row]:
    """Fact 5: a line search in train mode moves the statistics; `statistics_kept` puts them back."""
    spoilt, kept = copy.deepcopy(setting.trained), copy.deepcopy(setting.trained)
    left = 1 - weight(setting.trained, lambda net: _line_search(net, setting))
    yield f"share of the statistics left by {PROBES} probes", (1 - setting.momentum) ** PROBES, left
    _line_search(spoilt, setting)
    with statistics_kept(kept):
        _line_search(kept, setting)
    buffers = [dict(net.named_buffers()) for net in (kept, setting.trained)]
    yield "entries of the statistics that differ after statistics_kept", 0.0, differing(*buffers)
    batches = setting.seen_batches()
    shifts = [statistics_gap(net, batches, batch_stats="batch").mean_shift.mean() for net in (spoilt, setting.trained)]
    yield "ln of the running means' error after the probes over before", math.nan, math.log(shifts[0] / shifts[1])


def _line_search(net: nn.Module, setting: Setting) -> None:
    """Look at the loss along the gradient, from a tenth of the learning rate to a thousand times it."""
    x, y = setting.batch
    net.train()
    parameters = dict(net.named_parameters())
    with statistics_kept(net):
        slopes = torch.autograd.grad(cross_entropy(net(x), y), list(parameters.values()))
    with torch.no_grad():
        for step in setting.recipe.rate * np.geomspace(0.1, 1000, PROBES):
            moved = {name: p - float(step) * g for (name, p), g in zip(parameters.items(), slopes, strict=True)}
            functional_call(net, moved, (x,))


def mixed(setting: Setting) -> Iterator[Row]:
    """Fact 6: averaged weights need statistics of their own."""
    other = copy.deepcopy(setting.drawn)
    train(other, setting.seen, replace(setting.recipe, seed=setting.recipe.seed + 1))
    net, theirs = copy.deepcopy(setting.trained), other.state_dict()
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if tensor.is_floating_point():
                tensor.lerp_(theirs[name], 0.5)
    batches = setting.seen_batches()
    stale, accuracy = statistics_gap(net, batches, batch_stats="batch"), setting.accuracy(net)
    recalibrate(net, batches, moments="pooled")
    fresh = statistics_gap(net, batches, batch_stats="batch")
    yield "|ln variance ratio| of averaged statistics", math.nan, float(stale.log_variance_ratio.mean())
    yield "|ln variance ratio| after recalibrate", 0.0, float(fresh.log_variance_ratio.mean())
    yield "accuracy gained by recalibrate", math.nan, setting.accuracy(net) - accuracy


def divided(setting: Setting) -> Iterator[Row]:
    """Fact 7: statistics are those of the micro-batch; one value per channel is refused; single classes distort."""
    x, y = setting.batch
    m, parts = setting.momentum, list(zip(x.chunk(MICRO_BATCHES), y.chunk(MICRO_BATCHES), strict=True))

    def accumulated(net: nn.Module) -> None:
        for own, targets in parts:
            backward(net(own), targets, weight=1 / len(parts))

    def merged(net: nn.Module) -> None:
        with one_update(net):
            accumulated(net)

    yield f"weight of {MICRO_BATCHES} micro-batches", 1 - (1 - m) ** MICRO_BATCHES, weight(setting.drawn, accumulated)
    yield f"weight of {MICRO_BATCHES} micro-batches, one_update", m, weight(setting.drawn, merged)
    micro, large = copy.deepcopy(setting.drawn), copy.deepcopy(setting.drawn)
    merged(micro)
    backward(large(x), y)
    first = [next(iter(tracking_norms(net).values())) for net in (micro, large)]
    yield "largest error of the first layer's merged statistics", 0.0, largest_error(*first)
    found, expected = (torch.cat([g.ravel() for g in gradients(net).values()]) for net in (micro, large))
    yield "distance of the micro-batches' gradient", math.nan, float((found - expected).norm() / expected.norm())
    yield "one value per channel refused", 1.0, refused(nn.BatchNorm1d(3).to(x), x.new_ones(1, 3))
    yield from _sorted(setting)


def _sorted(setting: Setting) -> Iterator[Row]:
    """Put images of one class together: in the batches that statistics are taken from, and in those of a test."""
    size, variances, accuracies = setting.recipe.batch_size, [], []
    for arranged in (lambda images: images, _by_class):
        net = copy.deepcopy(setting.trained)
        recalibrate(net, [x for x, _ in batched(arranged(setting.seen), size)])
        variances.append(list(tracking_norms(net).values())[-1].running_var)
        test = batched(arranged(setting.held_out), size)
        accuracies.append(evaluate(setting.trained, test, batch_stats="batch").accuracy)
    shuffled, by_class = variances
    assert shuffled is not None
    assert by_class is not None
    yield "ln of variances, shuffled over by class", math.nan, float((shuffled / by_class).log().mean())
    yield "accuracy lost by tests in batches of one class", math.nan, accuracies[0] - accuracies[1]


def _by_class(images: Labelled) -> Labelled:
    order = torch.argsort(images.targets, stable=True)
    return replace(images, inputs=images.inputs[order], targets=images.targets[order])


def early(setting: Setting) -> Iterator[Row]:
    """Fact 8: after few steps much of the first statistics is left."""
    for steps in EARLY:
        recipe = replace(setting.recipe, epochs=None, steps=steps)
        left = 1 - weight(setting.drawn, lambda net, recipe=recipe: train(net, setting.seen, recipe))  # type: ignore[misc]
        yield f"share of the first statistics left after {steps} steps", (1 - setting.momentum) ** steps, left
    net = copy.deepcopy(setting.drawn)
    train(net, setting.seen, replace(setting.recipe, epochs=None, steps=EARLY[1]))
    gap = train_eval_gap(net, setting.test_batches()).accuracy
    yield f"accuracy lost by running statistics after {EARLY[1]} steps", math.nan, gap


FACTS: Mapping[int, Callable[[Setting], Iterator[Row]]] = MappingProxyType(
    {1: stored, 2: passes, 3: restored, 4: recomputed, 5: probed, 6: mixed, 7: divided, 8: early}
)
