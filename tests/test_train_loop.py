"""The training loop against a hand-written update, against itself interrupted, and against its own record."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from rmtbn import inits, rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.data.digits import digits
from rmtbn.data.labelled import Labelled
from rmtbn.nets.cnn import plain_cnn
from rmtbn.nets.norms import UncentredBatchNorm
from rmtbn.train import schedule
from rmtbn.train.checkpoint import CheckpointError
from rmtbn.train.evaluation import evaluate
from rmtbn.train.loop import train
from rmtbn.train.recipe import Recipe

DIGITS = digits()
TRAIN = DIGITS.first(200)
TEST = Labelled(name="test", inputs=DIGITS.inputs[-90:], targets=DIGITS.targets[-90:], classes=10)
SHORT = {"rate": 0.1, "epochs": 3, "batch_size": 32, "seed": 1}


def small(norm="batch", *, seed=1, dtype=torch.float32):
    """Two convolutions and a readout."""
    net = plain_cnn(depth=2, channels=4, norm=norm, in_channels=1, classes=10)
    return inits.initialise(net, "he_normal", generator=rng.torch_generator(seed, "w"), activation="relu").to(dtype)


def linear(dtype=torch.float64):
    """Softmax regression."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    return inits.initialise(net, "lecun_normal", generator=rng.torch_generator(1, "w"), activation="linear").to(dtype)


def state(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def furthest(a, b):
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in a)


def assert_same(first, second):
    """All of two records but speed."""
    pd.testing.assert_frame_equal(first.steps, second.steps, check_exact=True)
    timeless = [record.epochs.drop(columns="images_per_second") for record in (first, second)]
    pd.testing.assert_frame_equal(*timeless, check_exact=True)
    assert (first.diverged_at, first.limit) == (second.diverged_at, second.limit)


def by_hand(w, b, *, x, y, steps, rate, momentum, decay, decayed_bias):
    """Softmax regression by full-batch gradient descent in numpy: v ← μv + g + dw, w ← w - rate·v; ÷10 at ½ and ¾."""
    v_w, v_b, losses = np.zeros_like(w), np.zeros_like(b), []
    for step in range(steps):
        logits = x @ w.T + b
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        losses.append(-np.log(p[np.arange(len(y)), y]).mean())
        error = (p - np.eye(10)[y]) / len(y)
        v_w = momentum * v_w + error.T @ x + decay * w
        v_b = momentum * v_b + error.sum(0) + decay * b * decayed_bias
        now = rate / (100 if 4 * step >= 3 * steps else 10 if 2 * step >= steps else 1)
        w, b = w - now * v_w, b - now * v_b
    return w, b, np.array(losses)


def test_steps_are_those_written_out_by_hand():
    """SGD with momentum and decay on all images at once, so that their order is nothing: 8 steps in numpy."""
    net = linear()
    start = [p.detach().numpy().copy() for p in net.parameters()]
    x, y = TRAIN.inputs.flatten(1).numpy(), TRAIN.targets.numpy()
    numbers = {"rate": 0.3, "momentum": 0.8}
    w, b, losses = by_hand(*start, x=x, y=y, steps=8, decay=0.05, decayed_bias=1, **numbers)
    record = train(net, TRAIN, Recipe(steps=8, batch_size=200, weight_decay=0.05, seed=1, **numbers))
    np.testing.assert_allclose(net[1].weight.detach().numpy(), w, rtol=0, atol=1e-12)
    np.testing.assert_allclose(net[1].bias.detach().numpy(), b, rtol=0, atol=1e-12)
    np.testing.assert_allclose(record.steps.loss, losses, rtol=1e-12)
    np.testing.assert_allclose(record.steps.rate, [0.3] * 4 + [0.03] * 2 + [0.003] * 2, rtol=1e-12)
    other = by_hand(*start, x=x, y=y, steps=8, decay=0.0, decayed_bias=1, **numbers)[0]
    assert np.abs(w - other).max() > 1e-3


def test_the_record_is_what_the_network_did():
    """Mini-batch losses and accuracies from the logits that the network gave; those of the test from `evaluate`."""
    net = small()
    logits, inputs = [], []

    def note(module, x, out):
        if module.training:
            inputs.append(x[0].clone())
            logits.append(out.detach())

    net.register_forward_hook(note)
    record = train(net, TRAIN, Recipe(**SHORT), test=TEST)
    rows = {image.numpy().tobytes(): place for place, image in enumerate(TRAIN.inputs.float())}
    used = [[rows[image.numpy().tobytes()] for image in batch] for batch in inputs]
    y = [TRAIN.targets[batch] for batch in used]
    losses = [float(nn.functional.cross_entropy(z.double(), t)) for z, t in zip(logits, y, strict=True)]
    hits = [float((z.argmax(1) == t).double().mean()) for z, t in zip(logits, y, strict=True)]
    np.testing.assert_allclose(record.steps.loss, losses, rtol=1e-6)
    np.testing.assert_allclose(record.steps.accuracy, hits, rtol=1e-12)
    np.testing.assert_allclose(record.epochs.train_loss, np.reshape(losses, (3, 6)).mean(1), rtol=1e-6)
    np.testing.assert_allclose(record.epochs.train_accuracy, np.reshape(hits, (3, 6)).mean(1), rtol=1e-12)
    found = evaluate(net, [(TEST.inputs.float(), TEST.targets)])
    assert record.epochs.test_accuracy.iloc[-1] == found.accuracy
    assert record.epochs.test_loss.iloc[-1] == pytest.approx(found.loss, rel=1e-6)
    assert list(record.epochs.step) == [6, 12, 18]
    assert (record.reason, record.diverged_at, net.training) == ("finished", None, True)
    for epoch in range(3):
        seen = [place for batch in used[6 * epoch : 6 * epoch + 6] for place in batch]
        assert len(set(seen)) == len(seen) == 192
    assert used[0] != used[6]


def test_what_is_random_is_named_by_the_seed():
    """The same seed twice is the same run, whatever the global generators do; another seed is another."""
    runs = []
    for seed in (1, 1, 2):
        torch.rand(seed)
        net = small()
        train(net, TRAIN, Recipe(**{**SHORT, "seed": seed, "augment": True}))
        runs.append(state(net))
    assert equal(runs[0], runs[1])
    assert furthest(runs[0], runs[2]) > 1e-3


def test_divergence_is_a_result():
    """The first loss above 1e3 ends the run; nothing of it is lost, and the file knows it."""
    net = small("none")
    record = train(net, TRAIN, Recipe(**{**SHORT, "rate": 1e4}), test=TEST)
    assert record.reason == "diverged"
    assert record.diverged_at == len(record.steps) - 1 >= 1
    assert record.limit == 1e3
    assert record.steps.loss.iloc[-1] > 1e3
    assert (record.steps.loss.iloc[:-1] <= 1e3).all()
    assert len(record.epochs) == 1


def test_networks_that_begin_high_may_stay_there():
    """A loss that starts at 5e3 diverges above 5e4, not at once."""
    net = linear()
    with torch.no_grad():
        net[1].weight.mul_(2e3)
    record = train(net, TRAIN, Recipe(**{**SHORT, "rate": 1e-9}))
    assert record.steps.loss[0] > 1e3
    assert record.limit == 10 * record.steps.loss[0]
    assert record.reason == "finished"


def test_losses_that_are_not_finite_diverge_at_once():
    """A NaN in the weights: step 0."""
    net = linear()
    with torch.no_grad():
        net[1].weight[0, 0] = np.nan
    record = train(net, TRAIN, Recipe(**SHORT))
    assert (record.diverged_at, len(record.steps), record.steps.loss[0]) == (0, 1, np.inf)


RANDOM = Recipe(**{**SHORT, "augment": True, "schedule": "plateau"})


def dropping(*, seed):
    """A network that draws from the global generator in every step."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Dropout(0.2), small(seed=seed))


@pytest.fixture(scope="module")
def undisturbed():
    """A run with dropout, augmentation and batch normalisation, in whole."""
    net = dropping(seed=1)
    record = train(net, TRAIN, RANDOM, test=TEST)
    return state(net), record


class KilledError(BaseException):
    """Ends a run without a word, as SIGKILL would."""


def interrupted(net, *, path, step, kill):
    """Train with checkpoints every 2 steps until as many are done as `step`."""

    def stop():
        reached = int(net[1].norm_1.num_batches_tracked) >= step
        if reached and kill:
            raise KilledError
        return reached

    return train(net, TRAIN, RANDOM, test=TEST, checkpoint=path, checkpoint_steps=2, stop=stop)


def test_interrupted_training_is_bit_identical(undisturbed, tmp_path):
    """Broken off at steps 5, 9 and 13 of 18, stopped at 15: parameters, running statistics and record are the same."""
    path = tmp_path / "run.pt"
    for seed, step in enumerate((5, 9, 13), start=1):  # the first start draws the weights, the others take the file's
        with pytest.raises(KilledError):
            interrupted(dropping(seed=seed), path=path, step=step, kill=True)
    record = interrupted(dropping(seed=4), path=path, step=15, kill=False)
    assert (record.reason, len(record.steps), len(record.epochs)) == ("stopped", 15, 2)
    net = dropping(seed=5)
    assert_same(train(net, TRAIN, RANDOM, test=TEST, checkpoint=path), undisturbed[1])
    assert equal(state(net), undisturbed[0])
    again = dropping(seed=6)
    assert_same(train(again, TRAIN, RANDOM, test=TEST, checkpoint=path), undisturbed[1])
    assert equal(state(again), undisturbed[0])
    train(anew := dropping(seed=6), TRAIN, RANDOM, test=TEST, checkpoint=path, resume=False)
    assert not equal(state(anew), undisturbed[0])


def test_the_plateau_goes_on_where_it_was(tmp_path, monkeypatch):
    """Every epoch that gains less than 90 % divides the rate: the second does, and the third goes on at a tenth."""
    monkeypatch.setattr(schedule, "PATIENCE", 0)
    monkeypatch.setattr(schedule, "LEAST_PROGRESS", 0.9)
    path = tmp_path / "run.pt"
    assert len(interrupted(dropping(seed=1), path=path, step=15, kill=False).steps) == 15
    record = train(dropping(seed=1), TRAIN, RANDOM, test=TEST, checkpoint=path)
    np.testing.assert_allclose(record.steps.rate, [0.1] * 12 + [0.01] * 6, rtol=1e-12)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"recipe": Recipe(**{**SHORT, "rate": 0.2})}, "config 'rate' is 0.1 in the file and 0.2 here"),
        ({"module": small("layer")}, "layer 'norm_1' is BatchNorm2d"),
        ({"images": TRAIN.first(199)}, "config 'examples' is 200 in the file and 199 here"),
        ({"images": DIGITS.take(200, generator=rng.torch_generator(1, "others"))}, "config 'digest of the images' is "),
    ],
)
def test_checkpoints_of_another_run_are_refused(tmp_path, changed, message):
    """Another recipe, network or data: one line that says what differs."""
    path, recipe = tmp_path / "run.pt", Recipe(**SHORT)
    train(small(), TRAIN, recipe, checkpoint=path, stop=lambda: True)
    given = {"module": small(), "images": TRAIN, "recipe": recipe, **changed}
    with pytest.raises(CheckpointError, match=message):
        train(given["module"], given["images"], given["recipe"], checkpoint=path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"run\.pt is truncated"):
        train(small(), TRAIN, recipe, checkpoint=path)


def test_accumulation_without_batch_norm_is_the_large_batch():
    """Mean of the gradients of 4 micro-batches = gradient of the batch, to rounding in float64."""
    nets = [small("group", dtype=torch.float64) for _ in range(2)]
    records = [
        train(net, TRAIN, Recipe(**{**SHORT, "accumulate": parts})) for net, parts in zip(nets, (1, 4), strict=True)
    ]
    assert furthest(*map(state, nets)) < 1e-11
    np.testing.assert_allclose(records[0].steps.loss, records[1].steps.loss, rtol=1e-11)


def test_accumulation_with_batch_norm_is_not():
    """Micro-batches are normalised by themselves; running statistics move once per step, the first layer's as one."""
    nets = [small(dtype=torch.float64) for _ in range(2)]
    for net, parts in zip(nets, (1, 4), strict=True):
        train(net, TRAIN, Recipe(**{**SHORT, "epochs": None, "steps": 1, "accumulate": parts}))
    one, four = map(state, nets)
    assert float((one["conv_1.weight"] - four["conv_1.weight"]).abs().max()) > 1e-4
    assert int(four["norm_1.num_batches_tracked"]) == 1
    torch.testing.assert_close(four["norm_1.running_var"], one["norm_1.running_var"], rtol=1e-12, atol=0)
    assert float((one["norm_2.running_var"] - four["norm_2.running_var"]).abs().max()) > 1e-6


def test_channels_last_changes_the_layout_alone():
    """The same run to rounding."""
    nets = [small(dtype=torch.float64) for _ in range(2)]
    for net, last in zip(nets, (False, True), strict=True):
        train(net, TRAIN, Recipe(**{**SHORT, "channels_last": last}))
    assert nets[1].conv_2.weight.is_contiguous(memory_format=torch.channels_last)
    assert furthest(*map(state, nets)) < 1e-11


def test_bf16_computes_in_bf16_and_keeps_weights_in_float32():
    """Logits of 8 bits: the losses agree to 2 % and not better than 1e-6."""
    nets, kinds = [small(), small()], []
    nets[1].conv_2.register_forward_hook(lambda _m, _x, out: kinds.append(out.dtype))
    plain, mixed = (
        train(net, TRAIN, Recipe(**{**SHORT, "amp": amp}), test=TEST).steps.loss
        for net, amp in zip(nets, (False, "bf16"), strict=True)
    )
    assert set(kinds) == {torch.bfloat16}
    assert nets[1].conv_2.weight.dtype == torch.float32
    np.testing.assert_allclose(mixed, plain, rtol=0.02)
    assert np.abs(mixed / plain - 1).max() > 1e-6


def test_norms_without_running_statistics_are_tested_with_those_of_batches():
    """Nothing else is there to evaluate with."""
    net = small()
    net.norm_1 = nn.BatchNorm2d(4, track_running_stats=False)
    record = train(net, TRAIN, Recipe(**SHORT), test=TEST)
    batch = evaluate(net, [(TEST.inputs.float(), TEST.targets)], batch_stats="batch")
    assert record.epochs.test_accuracy.iloc[-1] == batch.accuracy


def broken(**changes):
    """What has the shape of a data set and is none."""
    return SimpleNamespace(**{"name": "broken", "inputs": TRAIN.inputs, "targets": TRAIN.targets, **changes})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"images": broken(inputs=TRAIN.inputs * np.nan)}, "`images` must be finite; got 'broken'"),
        ({"images": broken(targets=TRAIN.targets[:5])}, "`images` must be as many as targets, 5; got 200"),
        ({"images": TRAIN.first(20)}, "`batch_size` must be <= the number of images, 20; got 32"),
        ({"images": TRAIN.flattened(), "recipe": {"augment": True}}, r"`augment`.*no images; got \(200, 64\)"),
        ({"recipe": {"amp": "fp16"}}, "`amp` must be False or 'bf16' on a device other than CUDA; got 'fp16'"),
        (
            {"recipe": {"sync_batch_norm": True}},
            "`sync_batch_norm` must be False on a device other than CUDA; got True",
        ),
        ({"module": nn.Flatten()}, "`module` must be a network with parameters; got 'Flatten'"),
        ({"checkpoint_steps": 0}, "`checkpoint_steps` must be an integer >= 1; got 0"),
        (
            {"module": nn.Sequential(UncentredBatchNorm(1), linear(torch.float32)), "recipe": {"accumulate": 2}},
            "`module` must be one of torch's own batch normalisation; got",
        ),
    ],
)
def test_what_does_not_fit_is_refused(given, message):
    """One line, before anything is trained."""
    module, recipe = given.get("module", small()), Recipe(**{**SHORT, **given.get("recipe", {})})
    before = state(module)
    with pytest.raises(InvalidArgumentError, match=message):
        train(module, given.get("images", TRAIN), recipe, checkpoint_steps=given.get("checkpoint_steps"))
    assert equal(state(module), before)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler, of torch itself
def test_compiled_training_is_training():
    """torch.compile fuses and changes rounding only (it needs a compiler, and half a minute)."""
    nets = [small(dtype=torch.float64) for _ in range(2)]
    for net, compiled in zip(nets, (False, True), strict=True):
        train(net, TRAIN, Recipe(**{**SHORT, "compile": compiled}), test=TEST)
    assert furthest(*map(state, nets)) < 1e-10


@pytest.mark.gpu
@pytest.mark.parametrize("how", [{}, {"amp": "bf16"}, {"amp": "fp16"}, {"channels_last": True, "compile": True}])
def test_training_on_a_gpu_is_training(how):
    """The CPU's losses within 2 %, on the same batches and views; the record and the file are complete."""
    nets = [small(), small()]
    plain = train(nets[0], TRAIN, Recipe(**{**SHORT, "augment": True}), test=TEST)
    found = train(nets[1], TRAIN, Recipe(**{**SHORT, "augment": True, **how}), test=TEST, device="cuda")
    np.testing.assert_allclose(found.steps.loss, plain.steps.loss, rtol=0.02)
    assert list(found.epochs.step) == list(plain.epochs.step)
    assert next(nets[1].parameters()).is_cuda


@pytest.mark.gpu
def test_a_gpu_goes_on_where_it_stopped(tmp_path):
    """Stopped at 16 of 18 steps: the record of an undisturbed run to 1e-4, since sums on a GPU have no fixed order."""
    whole = train(dropping(seed=1), TRAIN, RANDOM, device="cuda")
    path = tmp_path / "run.pt"
    assert train(dropping(seed=1), TRAIN, RANDOM, device="cuda", checkpoint=path, stop=lambda: True).reason == "stopped"
    found = train(dropping(seed=2), TRAIN, RANDOM, device="cuda", checkpoint=path)
    np.testing.assert_allclose(found.steps.loss, whole.steps.loss, rtol=1e-4)


@pytest.mark.gpu
def test_divergence_on_a_gpu_is_found_at_its_step():
    """Losses are read after 16 steps at once; the first that diverges ends the tables."""
    record = train(small("none"), TRAIN, Recipe(**{**SHORT, "rate": 1e4}), device="cuda")
    assert record.diverged_at == len(record.steps) - 1 >= 1
    assert (record.steps.loss.iloc[:-1] <= 1e3).all()
