"""The eight facts of batch statistics in a training loop, each measured, and what keeps them from doing harm."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import update_bn
from torch.utils.checkpoint import checkpoint

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.nets.norms import UncentredBatchNorm
from rmtbn.train.batchnorm import (
    checkpointed,
    initial_shares,
    one_update,
    recalibrate,
    statistics_kept,
    update_once,
    using,
)
from rmtbn.train.channel_moments import ChannelMoments
from rmtbn.train.evaluation import evaluate, statistics_gap, train_eval_gap


def draws(*shape, label="x"):
    return torch.randn(*shape, generator=rng.torch_generator(1, label), dtype=torch.float64)


X, Y = 1.5 + 2 * draws(48, 3, 4, 4), torch.arange(48) % 5


def network(seed=1):
    """Two layers of batch normalisation over images, one over features."""
    net = nn.Sequential(
        *(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 2), nn.BatchNorm2d(8), nn.Tanh()),
        *(nn.Flatten(), nn.Linear(8, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 5)),
    ).double()
    generator = rng.torch_generator(seed, "weights")
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(0.5 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return net


def pass_and_fail(net, x):
    """Leave a block halfway."""
    net(x)
    return 1 // 0


def statistics(module):
    """Running statistics as bits, by name."""
    return {name: buffer.numpy().tobytes() for name, buffer in module.named_buffers()}


def values(module):
    return {name: buffer.clone() for name, buffer in module.named_buffers()}


@pytest.mark.parametrize("momentum", [0.1, 0.3, 1.0])
def test_torch_normalises_by_the_biased_variance_and_keeps_the_unbiased_one(momentum):
    """Fact 1: y = (x - μ)/√(σ²_n + ε) with n; running ← (1 - m) running + m new, σ² with n - 1."""
    norm, x = nn.BatchNorm1d(3, momentum=momentum, affine=False).double(), X[:5, :, 0, 0]
    y = norm(x)
    expected = (x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(norm.running_mean, momentum * x.mean(0))
    torch.testing.assert_close(norm.running_var, (1 - momentum) + momentum * x.var(0, correction=1))
    assert not torch.allclose(norm.running_var, (1 - momentum) + momentum * x.var(0, correction=0), rtol=1e-3)


def test_a_momentum_of_none_averages_all_batches():
    """Fact 1: after k batches the statistics are the plain mean of theirs; ε = 0 is refused in train mode."""
    norm = nn.BatchNorm2d(3, momentum=None).double()
    batches = X.split(12)
    for x in batches:
        norm(x)
    torch.testing.assert_close(norm.running_mean, torch.stack([x.mean((0, 2, 3)) for x in batches]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([x.var((0, 2, 3)) for x in batches]).mean(0))
    with pytest.raises(ValueError, match="eps must be positive"):
        nn.BatchNorm2d(3, eps=0.0).double()(X)


@pytest.mark.parametrize("no_gradients", [torch.no_grad, torch.inference_mode])
def test_passes_without_gradients_still_update_and_eval_does_not(no_gradients):
    """Fact 2: train mode is what updates; `using` has batch statistics without it."""
    net = network()
    fresh = statistics(net)
    with no_gradients():
        net.eval()(X)
        assert statistics(net) == fresh
        with using(net, "batch"):
            net(X)
        assert statistics(net) == fresh
        net.train()(X)
    assert all(new != old for new, old in zip(statistics(net).values(), fresh.values(), strict=True))


def test_restored_statistics_give_the_same_outputs_and_go_on_exactly():
    """Fact 3: a state_dict has them, the parameters alone do not; the averages go on bit for bit."""
    net, whole, alone = network(), network(2), network(2)
    for x in X.split(16):
        net(x)
    whole.load_state_dict(net.state_dict())
    with torch.no_grad():
        for mine, theirs in zip(alone.parameters(), net.parameters(), strict=True):
            mine.copy_(theirs)
    expected = net.eval()(X)
    assert torch.equal(whole.eval()(X), expected)
    assert not torch.allclose(alone.eval()(X), expected, rtol=0.1)
    for one in (net, whole):
        one.train()(X[:9])
    assert statistics(net) == statistics(whole)


@pytest.mark.parametrize(("momentum", "twice"), [(0.1, 0.19), (0.5, 0.75)])
def test_plain_activation_checkpointing_updates_twice(momentum, twice):
    """Fact 4: the momentum acts as 1 - (1 - m)²; with `checkpointed` as m."""
    shares = []
    for call in (lambda net, x: checkpoint(net, x, use_reentrant=False), checkpointed):
        norm, x = nn.BatchNorm2d(3, momentum=momentum).double(), X.clone().requires_grad_()
        call(norm, x).square().sum().backward()
        shares.append((norm.running_mean / X.mean((0, 2, 3)), int(norm.num_batches_tracked)))
    torch.testing.assert_close(shares[0][0], torch.full((3,), twice, dtype=torch.float64))
    torch.testing.assert_close(shares[1][0], torch.full((3,), momentum, dtype=torch.float64))
    assert [count for _, count in shares] == [2, 1]
    assert twice == pytest.approx(1 - (1 - momentum) ** 2)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_checkpointed_training_is_that_without(momentum):
    """Fact 4: outputs, gradients and statistics over three steps, bit for bit; in eval mode too."""
    plain, saving = network(), network()
    for net in (plain, saving):
        for part in net:
            if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
                part.momentum = momentum
    for i, x in enumerate(X.split(16)):
        for net in (plain, saving):
            net.train(i != 1)
            net.zero_grad()
        (one,) = (plain(x),)
        other = saving[3:](checkpointed(saving[:3], x)) if i else checkpointed(saving, x)
        assert torch.equal(one, other)
        one.square().sum().backward()
        other.square().sum().backward()
        for a, b in zip(plain.parameters(), saving.parameters(), strict=True):
            assert torch.equal(a.grad, b.grad)
        assert statistics(plain) == statistics(saving)


def test_networks_that_checkpoint_inside_take_the_context():
    """`context_fn=update_once(...)` where the call of `checkpoint` is not ours; infinite statistics stay so."""
    net = network()
    x = X.clone()
    x[0, 0, 0, 0] = torch.inf
    out = checkpoint(net, x.requires_grad_(), use_reentrant=False, context_fn=update_once(net))
    after = statistics(net)
    out.sum().backward()
    assert statistics(net) == after


def test_probes_in_train_mode_leave_the_statistics():
    """Fact 5: ten forward passes at interpolated weights; without the block they move the statistics for good."""
    net, end = network(), network(2)
    for x in X.split(16):
        net(x)
    before, held = statistics(net), {name: id(buffer) for name, buffer in net.named_buffers()}

    def line():
        losses = []
        for t in np.linspace(0, 1, 10):
            mixed = {n: torch.lerp(p, dict(end.named_parameters())[n], float(t)) for n, p in net.named_parameters()}
            losses.append(nn.functional.cross_entropy(torch.func.functional_call(net, mixed, X), Y).item())
        return losses

    with statistics_kept(net):
        inside = line()
        assert statistics(net) != before
    assert statistics(net) == before
    assert {name: id(buffer) for name, buffer in net.named_buffers()} == held
    line()
    assert statistics(net) != before
    assert len(set(inside)) == 10


def test_graphs_stay_good_and_exceptions_put_back():
    """No buffer is written: a graph from before can be run back. Instance normalisation is covered."""
    net = nn.Sequential(nn.InstanceNorm2d(3, track_running_stats=True), nn.BatchNorm2d(3)).double()
    loss = net(X.clone().requires_grad_()).square().sum()
    before = statistics(net)
    with pytest.raises(ZeroDivisionError), statistics_kept(net):
        pass_and_fail(net, 1 + X)
    assert statistics(net) == before
    loss.backward()


def test_averaged_weights_need_their_statistics_anew():
    """Fact 6: the mean of two networks with the mean of their statistics is off; recalibrated it is right."""
    nets = [network(1), network(2)]
    for net in nets:
        recalibrate(net, X.split(16))
    mixed = copy.deepcopy(nets[0])
    with torch.no_grad():
        for name, tensor in mixed.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_((nets[0].state_dict()[name] + nets[1].state_dict()[name]) / 2)
    stale = statistics_gap(mixed, X.split(16), batch_stats="batch")
    recalibrate(mixed, X.split(16), moments="pooled")
    fresh = statistics_gap(mixed, X.split(16), batch_stats="batch")
    assert stale.layers == fresh.layers == ("1", "4", "8")
    assert (stale.log_variance_ratio > 0.2).all()
    np.testing.assert_allclose(fresh.mean_shift, 0, atol=1e-12)
    np.testing.assert_allclose(fresh.log_variance_ratio, 0, atol=1e-12)


def test_recalibration_is_the_average_over_batches_as_torch_takes_it():
    """torch.optim.swa_utils.update_bn on the same batches, in a network without dropout; only statistics change."""
    ours, theirs = network(), network()
    for net in (ours, theirs):
        net(5 * X)
    update_bn(X.split(16), theirs)
    ours.eval()
    modes, momenta = [part.training for part in ours.modules()], [getattr(p, "momentum", 0) for p in ours.modules()]
    recalibrate(ours, X.split(16))
    for name, value in values(theirs).items():
        torch.testing.assert_close(values(ours)[name], value, rtol=1e-12, atol=1e-12)
    assert [part.training for part in ours.modules()] == modes
    assert [getattr(p, "momentum", 0) for p in ours.modules()] == momenta


def test_averaged_statistics_are_exact_over_the_data():
    """First layer: mean over batches of x̄ and of s², second route by numpy; pooled: those of all values."""
    norm = nn.BatchNorm2d(3).double()
    parts = [x.numpy() for x in X.split(12)]
    recalibrate(norm, X.split(12))
    np.testing.assert_allclose(norm.running_mean, np.mean([p.mean((0, 2, 3)) for p in parts], axis=0))
    np.testing.assert_allclose(norm.running_var, np.mean([p.var((0, 2, 3), ddof=1) for p in parts], axis=0))
    assert int(norm.num_batches_tracked) == 4
    recalibrate(norm, X.split([5, 40, 3]), moments="pooled")
    np.testing.assert_allclose(norm.running_mean, X.numpy().mean((0, 2, 3)))
    np.testing.assert_allclose(norm.running_var, X.numpy().var((0, 2, 3), ddof=1))


def test_recalibration_leaves_dropout_off_and_fails_whole():
    """Dropout does not draw; a batch that fails changes nothing."""
    net = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm2d(3)).double()
    torch_state = torch.get_rng_state()
    recalibrate(net, [X])
    torch.testing.assert_close(net[1].running_mean, X.mean((0, 2, 3)))
    assert torch.equal(torch.get_rng_state(), torch_state)
    before, momentum = statistics(net), net[1].momentum
    with pytest.raises(RuntimeError, match="should contain 2 elements"):
        recalibrate(net, [X + 1, X[:, :2]])
    assert statistics(net) == before
    assert net[1].momentum == momentum
    assert net.training


def test_norms_of_other_kinds_keep_their_own_averages():
    """The uncentred norm averages its mean square; pooled moments are refused for it by name."""
    norm = UncentredBatchNorm(3).double()
    recalibrate(norm, X.split(12))
    torch.testing.assert_close(norm.running_var, X.square().mean((0, 2, 3)))
    assert not norm.running_mean.any()
    with pytest.raises(InvalidArgumentError, match=r"`module` must be .*UncentredBatchNorm"):
        recalibrate(norm, X.split(12), moments="pooled")


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("sizes", [[12, 12, 12, 12], [30, 2, 16]])
def test_accumulation_with_one_update_has_the_statistics_of_the_large_batch(momentum, sizes):
    """Fact 7: micro-batches alone act as a momentum of 1 - (1 - m)^k; in the block once, exactly, over two steps."""
    large, micro, once = (nn.BatchNorm2d(3, momentum=momentum).double() for _ in range(3))
    for shift in (0.0, 1.0):
        large(X + shift)
        with one_update(once):
            for x in (X + shift).split(sizes):
                once(x)
                micro(x)
    for name, value in values(large).items():
        torch.testing.assert_close(values(once)[name], value, rtol=1e-12, atol=1e-12)
    if momentum is not None and len(set(sizes)) == 1:
        share = 1 - (1 - momentum) ** 4
        means = X.mean((0, 2, 3))
        second = (1 - share) * share * means + share * (1 + means)
        assert not torch.allclose(micro.running_mean, large.running_mean, rtol=0.5)
        torch.testing.assert_close(micro.running_mean, second, rtol=0.1, atol=0.0)


def test_gradients_of_micro_batches_are_not_those_of_the_large_batch_and_checkpointing_has_them():
    """Fact 7: normalisation is per micro-batch, whatever the running statistics; the exact option is `checkpointed`."""

    def gradients(*, sizes, wrapped):
        net = network()
        with one_update(net):
            for x, y in zip(X.split(sizes), Y.split(sizes), strict=True):
                out = checkpointed(net, x) if wrapped else net(x)
                (nn.functional.cross_entropy(out, y, reduction="sum") / 48).backward()
        return [p.grad for p in net.parameters()], statistics(net)

    whole, statistics_whole = gradients(sizes=48, wrapped=False)
    exact, statistics_exact = gradients(sizes=48, wrapped=True)
    micro, _ = gradients(sizes=12, wrapped=False)
    assert all(torch.equal(a, b) for a, b in zip(whole, exact, strict=True))
    assert statistics_whole == statistics_exact  # the second pass is not counted again
    assert not torch.allclose(whole[0], micro[0], rtol=0.1)


def test_micro_batches_under_checkpointing_count_once():
    """One update with recomputation: n of the unbiased variance is that of the examples, not twice that."""
    norm = nn.BatchNorm2d(3).double()
    with one_update(norm):
        for x in X[:6, :, :1, :1].split(3):
            checkpointed(norm, x.clone().requires_grad_()).square().sum().backward()
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * X[:6, :, 0, 0].var(0))


def test_failed_steps_update_nothing_and_frozen_layers_stay():
    """An exception in the block; a layer in eval mode; a norm of another kind."""
    net = network()
    before = statistics(net)
    with pytest.raises(ZeroDivisionError), one_update(net):
        pass_and_fail(net, X)
    assert statistics(net) == before
    net[1].eval()
    with one_update(net):
        net(X)
    assert statistics(net[1]) == statistics(network()[1])
    assert int(net[4].num_batches_tracked) == 1
    with pytest.raises(InvalidArgumentError, match="UncentredBatchNorm"), one_update(UncentredBatchNorm(3)):
        pass


def test_single_values_per_channel_are_an_error():
    """Fact 7: a batch of one without places has variance 0; torch refuses it in train mode, and so do these."""
    norm, one = nn.BatchNorm1d(3).double(), X[:1, :, 0, 0]
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        norm(one)
    with pytest.raises(InvalidArgumentError, match=r"`batches` must be of two or more values per channel .*\(1, 3\)"):
        recalibrate(norm, [X[:4, :, 0, 0], one])
    assert evaluate(norm, [(one, Y[:1])]).examples == 1


def test_batches_of_single_classes_distort_the_statistics():
    """Fact 7: with class means ±d the batches' own variance is 1 of 1 + d²; pooled moments do not depend on order."""
    x, y = draws(400, 2), torch.arange(400) % 2
    x = x + 3.0 * (2 * y[:, None] - 1)
    order = torch.argsort(y, stable=True)
    found = {}
    for name, chosen in (("shuffled", torch.arange(400)), ("sorted", order)):
        for moments in ("averaged", "pooled"):
            norm = nn.BatchNorm1d(2).double()
            recalibrate(norm, x[chosen].split(50), moments=moments)
            found[name, moments] = norm.running_var.mean().item()
    assert found["sorted", "averaged"] == pytest.approx(1, rel=0.15)
    assert found["shuffled", "averaged"] == pytest.approx(10, rel=0.15)
    assert found["sorted", "pooled"] == pytest.approx(found["shuffled", "pooled"], rel=1e-12)
    assert found["sorted", "pooled"] == pytest.approx(x.var(0).mean().item(), rel=1e-12)


@pytest.mark.parametrize("momentum", [0.1, 0.01])
def test_few_steps_leave_a_share_of_the_initial_statistics(momentum):
    """Fact 8: after k steps (1 - m)^k of them; measured on a buffer that starts far away."""
    norm = nn.BatchNorm2d(3, momentum=momentum).double()
    norm.running_mean.fill_(1e6)
    for k in range(1, 8):
        norm(X)
        share = ((norm.running_mean - X.mean((0, 2, 3))) / (1e6 - X.mean((0, 2, 3)))).mean().item()
        assert share == pytest.approx((1 - momentum) ** k, rel=1e-9)
        assert initial_shares(norm)[""] == pytest.approx((1 - momentum) ** k)
        assert statistics_gap(norm, [X]).mean_shift[0] == pytest.approx(
            share * ((1e6 - X.mean((0, 2, 3))) / (X.var((0, 2, 3)) + 1e-5).sqrt()).square().mean().sqrt().item()
        )


def test_cumulative_averages_forget_the_initial_statistics_at_once():
    """m = None: the first batch replaces them."""
    norm = nn.BatchNorm2d(3, momentum=None).double()
    assert initial_shares(norm) == {"": 1.0}
    norm(X)
    assert initial_shares(norm) == {"": 0.0}


def test_gaps_of_statistics_are_those_of_known_buffers():
    """running mean = mean + 2 σ, running variance = e³ σ² in every channel: shift 2, log ratio 3; ε as in the layer."""
    norm = nn.BatchNorm2d(3, eps=1e-3).double()
    spread = X.var((0, 2, 3)) + norm.eps
    norm.running_mean.copy_(X.mean((0, 2, 3)) + 2 * spread.sqrt())
    norm.running_var.copy_(np.exp(3) * spread - norm.eps)
    found = statistics_gap(norm, X.split(7))
    np.testing.assert_allclose(found.mean_shift, 2, rtol=1e-12)
    np.testing.assert_allclose(found.log_variance_ratio, 3, rtol=1e-12)
    assert found.initial_share == 1.0
    assert found.batch_stats == "running"


def test_moments_of_parts_join_to_those_of_the_whole():
    """Chan, Golub & LeVeque: counts, means and scatter, far from 0 too."""
    x = 1e6 + X
    first, *rest = (ChannelMoments.of(part) for part in x.split([1, 30, 17]))
    for one in rest:
        first = first.joined(one)
    assert first.count == 48 * 16
    torch.testing.assert_close(first.mean, x.mean((0, 2, 3)), rtol=1e-14, atol=0.0)
    torch.testing.assert_close(first.unbiased_variance, x.var((0, 2, 3)), rtol=1e-9, atol=0.0)


def test_evaluation_uses_the_statistics_named_and_leaves_the_network():
    """Against train and eval mode by hand; dropout is off in both; modes, statistics and generators stay."""
    net = nn.Sequential(network(), nn.Dropout(0.5))
    net(X[:20] * 3)
    before, modes, state = statistics(net), [p.training for p in net.modules()], torch.get_rng_state()
    batches = list(zip(X.split(16), Y.split(16), strict=True))
    gap = train_eval_gap(net, batches)
    for found, training in ((gap.batch, True), (gap.running, False)):
        by_hand = copy.deepcopy(net[0]).train(training)
        outputs = torch.cat([by_hand(x) for x, _ in batches])
        assert found.loss == pytest.approx(nn.functional.cross_entropy(outputs, Y).item(), rel=1e-12)
        assert found.accuracy == (outputs.argmax(1) == Y).double().mean().item()
        assert found.examples == 48
    assert gap.loss == gap.running.loss - gap.batch.loss != 0
    assert gap.accuracy == gap.batch.accuracy - gap.running.accuracy
    assert (statistics(net), [p.training for p in net.modules()]) == (before, modes)
    assert torch.equal(torch.get_rng_state(), state)


def test_one_batch_that_is_the_statistics_has_no_gap_but_that_of_bias():
    """Recalibrated on one batch, eval mode is train mode up to n/(n - 1), for n values per channel."""
    norm = nn.BatchNorm1d(3).double()
    x = X[:8, :, 0, 0]
    recalibrate(norm, [x])
    with using(norm, "batch"):
        batch = norm(x)
    with using(norm, "running"):
        running = norm(x)
    torch.testing.assert_close(batch, running * (8 / 7) ** 0.5, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(batch, running, rtol=1e-2)


def test_outputs_that_are_not_finite_are_right_for_no_class():
    """Loss inf, accuracy 0, no NaN."""
    net = nn.Linear(3, 5)
    nn.init.constant_(net.weight, torch.nan)
    found = evaluate(net, [(torch.ones(4, 3), torch.zeros(4, dtype=torch.long))])
    assert (found.loss, found.accuracy) == (np.inf, 0.0)


def test_wrong_arguments_are_named():
    """No batches, an iterator used up, unknown names, layers without statistics."""
    net, bare = network(), nn.BatchNorm2d(3, track_running_stats=False).double()
    for call in (lambda: recalibrate(net, []), lambda: evaluate(net, iter(())), lambda: statistics_gap(net, [])):
        with pytest.raises(InvalidArgumentError, match=r"`batches` must be one or more .*; got 0"):
            call()
    with pytest.raises(InvalidArgumentError, match="`moments` must be one of 'averaged', 'pooled'; got 'exact'"):
        recalibrate(net, [X], moments="exact")
    with pytest.raises(InvalidArgumentError, match="`batch_stats` must be one of 'running', 'batch'; got 'train'"):
        evaluate(net, [(X, Y)], batch_stats="train")
    with pytest.raises(InvalidArgumentError, match="`batch_stats` must be 'batch', since layer '' keeps no statistics"):
        evaluate(bare, [(X, Y)])
    with pytest.raises(InvalidArgumentError, match="`module` must be a network with running statistics; got 'Linear'"):
        statistics_gap(nn.Linear(2, 2), [X])
