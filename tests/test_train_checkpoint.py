"""Checkpoints: resumed training is bit for bit the same, a killed writer harms nothing, wrong files change nothing."""

import copy
import json
import math
import os
import pickle
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.train import checkpoint, sealed_file
from rmtbn.train.checkpoint import CheckpointError, load, read, save

X = torch.randn(24, 3, 6, 6, generator=rng.torch_generator(1, "checkpoint images"))
Y = torch.arange(24) % 5


class Counting(nn.Module):
    """A layer with a buffer that is not persistent and with extra state, both of which move."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()), persistent=False)
        self.calls = 0

    def forward(self, x):
        self.calls += self.training
        self.seen += float(self.training)
        return x * (1 + 1e-3 * self.seen + 1e-4 * self.calls)

    def get_extra_state(self):
        return {"calls": self.calls}

    def set_extra_state(self, state):
        self.calls = state["calls"]


class Sampler:
    """A permutation of the examples, a position in it, and the generator that draws the next one."""

    def __init__(self, seed):
        self.generator = rng.torch_generator(seed, "sampler")
        self.order, self.position = torch.randperm(24, generator=self.generator), 0

    def next(self, size):
        if self.position + size > 24:
            self.order, self.position = torch.randperm(24, generator=self.generator), 0
        self.position += size
        return self.order[self.position - size : self.position]

    def state_dict(self):
        return {"order": self.order, "position": self.position}

    def load_state_dict(self, state):
        self.order, self.position = state["order"], state["position"]


class Run:
    """Training with all that has a state: momentum, a schedule, dropout, batch normalisation, draws of every kind."""

    def __init__(self, seed=1):
        self.module = nn.Sequential(
            nn.Conv2d(3, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Dropout(0.3),
            Counting(),
            nn.Flatten(),
            nn.Linear(64, 5),
        )
        generator = rng.torch_generator(seed, "weights")
        with torch.no_grad():
            for p in self.module.parameters():
                p.copy_(0.2 * torch.randn(p.shape, generator=generator))
        scales = [p for p in self.module.parameters() if p.ndim == 1]
        weights = [p for p in self.module.parameters() if p.ndim > 1]
        groups = [{"params": weights, "weight_decay": 1e-3}, {"params": scales, "weight_decay": 0.0}]
        self.optimiser = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
        self.schedule = torch.optim.lr_scheduler.MultiStepLR(self.optimiser, milestones=[4, 8])
        self.sampler, self.noise = Sampler(seed), rng.generator(seed, "noise")
        self.step = 0

    @property
    def everything(self):
        parts = {"optimiser": self.optimiser, "schedule": self.schedule, "sampler": self.sampler}
        return {"parts": parts, "generators": {"sampler": self.sampler.generator, "noise": self.noise}}

    def train(self, steps):
        for _ in range(steps):
            chosen = self.sampler.next(7)
            x = X[chosen] + float(self.noise.normal()) + float(np.random.random())  # noqa: NPY002
            self.optimiser.zero_grad()
            nn.functional.cross_entropy(self.module(x), Y[chosen]).backward()
            self.optimiser.step()
            self.schedule.step()
            self.step += 1

    def save(self, path):
        save(path, self.module, **self.everything, progress={"step": self.step}, config={"rate": 0.1})

    def load(self, path):
        self.step = load(path, self.module, **self.everything, config={"rate": 0.1})["step"]


def bits(value):
    """Everything as comparable plain values, tensors by their bytes."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.detach().cpu().contiguous().numpy().tobytes()
    if isinstance(value, dict):
        return {str(key): bits(item) for key, item in value.items()}
    return [bits(item) for item in value] if isinstance(value, list | tuple) else value


def state(run, path):
    """All that a checkpoint of the run holds, bit for bit; but for Python's generator, which the type checker uses."""
    run.save(path)
    found = bits(read(path))
    del found["random"]["python"]
    return found


@pytest.fixture(autouse=True)
def global_generators():
    """Known states of the global generators before, and what they were after."""
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002
    torch.default_generator.manual_seed(3)
    random.setstate(random.Random(3).getstate())
    np.random.set_state(np.random.RandomState(3).get_state())  # noqa: NPY002
    yield
    torch.set_rng_state(before[0])
    random.setstate(before[1])
    np.random.set_state(before[2])  # noqa: NPY002


def disturb():
    """Move the global generators."""
    torch.rand(5)
    random.random()
    np.random.random()  # noqa: NPY002


@pytest.mark.parametrize("interrupted_after", [0, 1, 5, 11])
def test_resumed_training_is_bit_identical(tmp_path, interrupted_after):
    """12 steps = k steps, a checkpoint, another process's draws, 12 - k steps: every bit of every state."""
    path = tmp_path / "run.ckpt"
    first = Run()
    first.train(interrupted_after)
    first.save(path)
    first.train(12 - interrupted_after)
    whole = state(first, tmp_path / "whole")
    disturb()
    second = Run(seed=2)
    second.load(path)
    assert second.step == interrupted_after
    second.train(12 - interrupted_after)
    resumed = state(second, tmp_path / "resumed")
    assert resumed == whole
    assert torch.equal(first.module.eval()(X), second.module.eval()(X))


LEFT_OUT = {
    "tensors": lambda run: run.module.load_state_dict(Run(2).module.state_dict()),
    "optimiser": lambda run: run.optimiser.state.clear(),
    "schedule": lambda run: run.schedule.load_state_dict(Run().schedule.state_dict()),
    "sampler position": lambda run: setattr(run.sampler, "position", 0),
    "named generator": lambda run: run.noise.normal(),
    "generators of the process": lambda _: disturb(),
    "running variance": lambda run: run.module[1].running_var.fill_(1.0),
    "buffer that is not persistent": lambda run: run.module[4].seen.zero_(),
    "extra state": lambda run: setattr(run.module[4], "calls", 0),
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_everything_that_is_kept_is_needed(tmp_path, name):
    """Without any one of the states the resumed run differs: the test above can fail for each of them."""
    path = tmp_path / "run.ckpt"
    first = Run()
    first.train(5)
    first.save(path)
    first.train(7)
    whole = state(first, tmp_path / "whole")
    second = Run(seed=2)
    second.load(path)
    LEFT_OUT[name](second)
    second.train(7)
    assert state(second, tmp_path / "resumed") != whole


def test_checkpoints_of_parameters_alone_lose_the_running_statistics(tmp_path):
    """Fact 3: the outputs in eval mode differ without the statistics, and are the same bits with them."""
    run, path = Run(), tmp_path / "run.ckpt"
    run.train(6)
    run.save(path)
    expected = run.module.eval()(X)
    alone, restored = Run(2), Run(2)
    with torch.no_grad():
        for mine, saved in zip(alone.module.parameters(), run.module.parameters(), strict=True):
            mine.copy_(saved)
    restored.load(path)
    assert not torch.allclose(alone.module.eval()(X), expected, rtol=0.01)
    assert torch.equal(restored.module.eval()(X), expected)
    assert int(restored.module[1].num_batches_tracked) == 6


def test_modes_of_layers_are_kept(tmp_path):
    """Batch normalisation that was frozen stays frozen."""
    run, other = Run(), Run(2)
    run.module[1].eval()
    run.save(tmp_path / "x")
    other.load(tmp_path / "x")
    assert [part.training for part in other.module] == [True, False, True, True, True, True, True]


def test_tensors_are_written_in_place(tmp_path):
    """Whoever holds a parameter or buffer, such as an optimiser or a wrapper, holds what was loaded."""
    run, other = Run(), Run(2)
    held = [*other.module.parameters(), *other.module.buffers()]
    run.save(tmp_path / "x")
    other.load(tmp_path / "x")
    now = [*other.module.parameters(), *other.module.buffers()]
    assert all(a is b for a, b in zip(held, now, strict=True))


def test_wrappers_are_looked_through(tmp_path):
    """A checkpoint of a data-parallel network is that of the network."""
    run, other = Run(), Run(2)
    save(tmp_path / "x", nn.DataParallel(run.module), progress={})
    load(tmp_path / "x", other.module)
    assert bits(other.module.state_dict()) == bits(run.module.state_dict())
    load(tmp_path / "x", nn.DataParallel(Run(2).module))


def test_global_generators_go_on_where_they_were(tmp_path):
    """Torch's, numpy's and Python's, after other draws."""
    run, path = Run(), tmp_path / "x"
    run.save(path)
    saved = read(path)["random"]
    expected = torch.rand(3).tolist(), np.random.random(3).tolist()  # noqa: NPY002
    disturb()
    assert random.getstate() != saved["python"]
    run.load(path)
    assert random.getstate() == saved["python"]
    assert (torch.rand(3).tolist(), np.random.random(3).tolist()) == expected  # noqa: NPY002


@pytest.mark.parametrize("bit_generator", [np.random.PCG64, np.random.Philox, np.random.MT19937, np.random.SFC64])
def test_generators_of_numpy_go_on_where_they_were(tmp_path, bit_generator):
    """128-bit integers and arrays of 64 bits come back exactly, with half-used words."""
    generator = np.random.Generator(bit_generator(7))
    generator.integers(0, 9, size=3, dtype=np.uint32)
    save(tmp_path / "x", nn.Identity(), generators={"g": generator})
    expected = generator.integers(0, 2**32, size=5, dtype=np.uint32).tolist(), generator.normal(size=3).tolist()
    again = np.random.Generator(bit_generator(8))
    load(tmp_path / "x", nn.Identity(), generators={"g": again})
    assert (again.integers(0, 2**32, size=5, dtype=np.uint32).tolist(), again.normal(size=3).tolist()) == expected


OPTIMISERS = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-2),
    "nesterov": lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9, nesterov=True),
}
SCHEDULES = {
    "cosine": lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 10),
    "plateau": lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o, patience=0),
    "sequence": lambda o: torch.optim.lr_scheduler.SequentialLR(
        o, [torch.optim.lr_scheduler.LinearLR(o), torch.optim.lr_scheduler.StepLR(o, 2)], [2]
    ),
    "one cycle": lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=20),
}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_optimisers_and_schedules_of_torch_go_on(tmp_path, optimiser, schedule):
    """The same weights and rates after three more steps."""

    def made():
        module = nn.Linear(4, 3)
        nn.init.constant_(module.weight, 0.5)
        nn.init.constant_(module.bias, 0.1)
        o = OPTIMISERS[optimiser](module.parameters())
        return module, {"optimiser": o, "schedule": SCHEDULES[schedule](o)}

    def train(module, parts):
        for i in range(3):
            parts["optimiser"].zero_grad()
            loss = (module(X[i, :, :2, :2].reshape(3, 4)) ** 2).sum()
            loss.backward()
            parts["optimiser"].step()
            parts["schedule"].step(*([loss.item()] if schedule == "plateau" else []))
        return bits(module.state_dict()), parts["optimiser"].param_groups[0]["lr"]

    first, second = made(), made()
    train(*first)
    save(tmp_path / "x", first[0], parts=first[1])
    load(tmp_path / "x", second[0], parts=second[1])
    assert train(*second) == train(*first)


KILLED = '''
import json, os, random, signal, sys, time
from pathlib import Path
import torch
from rmtbn.train import checkpoint

torch.set_num_threads(1)
module = torch.nn.Linear(500, 500)  # a megabyte: most of the time is spent writing

def plain(path, module, progress):
    torch.save({"tensors": module.state_dict(), **progress}, path)

def write(folder, how):
    save = checkpoint.save if how == "atomic" else plain
    for step in range(10**9):
        with torch.no_grad():
            module.weight.fill_(step)
            module.bias.fill_(step)
        save(folder / "run.ckpt", module, progress={"step": step})
        (folder / "last").write_text(str(step))

def found(path, how):
    """The step of the file, if it is whole and of one moment."""
    try:
        if how == "atomic":
            step = checkpoint.load(path, module, global_generators=False)["step"]
        else:
            content = torch.load(path, weights_only=True)
            step = content["step"]
            module.load_state_dict(content["tensors"])
        return step if bool((module.weight == step).all()) and bool((module.bias == step).all()) else "mixed"
    except Exception as error:
        return repr(error)

def kills(folder, how):
    folder.mkdir()
    draws, results = random.Random(1), []
    for _ in range(20):
        (folder / "last").write_text("-1")
        child = os.fork()
        if child == 0:
            write(folder, how)
        while (folder / "last").read_text() in ("-1", ""):
            time.sleep(0.001)
        time.sleep(draws.uniform(0, 0.05))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        results.append((found(folder / "run.ckpt", how), (folder / "last").read_text()))
    return results, sorted(os.listdir(folder))

print(json.dumps({how: kills(Path(sys.argv[1]) / how, how) for how in ("atomic", "plain")}))
'''


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Kill processes that write checkpoints 20 times, at random moments: steps found, steps announced, files."""
    if not hasattr(os, "fork"):
        pytest.skip("kill -9 is of POSIX")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(checkpoint.__file__).parents[2])}
    command = [sys.executable, "-c", KILLED, str(tmp_path_factory.mktemp("killed"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_writer_killed_at_any_moment_leaves_the_last_good_checkpoint(killed):
    """20 times kill -9: the file is whole, of one moment, and not older than what was announced as written."""
    results, files = killed["atomic"]
    assert len(results) == 20
    for step, announced in results:
        assert isinstance(step, int), step
        if announced:  # empty where the kill came while the announcement was written
            assert int(announced) <= step <= int(announced) + 1
    assert set(files) <= {"run.ckpt", ".run.ckpt.tmp", "last"}  # leftovers do not pile up


def test_kills_at_these_moments_do_tear_files_that_are_written_in_place(killed):
    """20 such kills of a bare torch.save: some leave no checkpoint at all, so the test above can fail."""
    results, _ = killed["plain"]
    assert any(not isinstance(step, int) for step, _ in results)


@pytest.fixture
def saved(tmp_path):
    """A checkpoint after 3 steps, and another run that is to be left as it is when loading fails."""
    run = Run()
    run.train(3)
    run.save(tmp_path / "run.ckpt")
    other = Run(seed=2)
    other.train(2)
    return tmp_path / "run.ckpt", other


def refuse(path, run, match, **changes):
    """Loading raises one error that names the file, and changes nothing."""
    aside = path.with_name("aside")
    before = state(run, aside)
    with pytest.raises(CheckpointError, match=match) as caught:
        load(path, run.module, **{**run.everything, **changes})
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert state(run, aside) == before


@pytest.mark.parametrize("share", [0.0, 0.0005, 0.01, 0.3, 0.9, 1.0])
def test_truncated_files_are_refused(saved, share):
    """Cut anywhere, from no byte to all but one."""
    path, run = saved
    content = path.read_bytes()
    path.write_bytes(content[: math.floor(share * (len(content) - 1))])
    refuse(path, run, r"run\.ckpt is truncated")


@pytest.mark.parametrize("place", [0.02, 0.1, 0.4, 0.7, 0.999])
def test_altered_files_are_refused(saved, place):
    """One bit anywhere; a byte more at the end."""
    path, run = saved
    content = bytearray(path.read_bytes())
    path.write_bytes(bytes(content) + b"x")
    refuse(path, run, r"run\.ckpt was altered")
    content[int(place * len(content))] ^= 16
    path.write_bytes(bytes(content))
    refuse(path, run, r"run\.ckpt was altered")


def test_every_altered_byte_of_the_first_line_is_refused(saved):
    """Format, version, length, checksum: no byte of the header can be another."""
    path, _ = saved
    content = path.read_bytes()
    for i in range(content.index(b"\n") + 1):
        altered = bytearray(content)
        altered[i] ^= 1
        path.write_bytes(bytes(altered))
        with pytest.raises(CheckpointError, match=r"run\.ckpt (is|was) "):
            read(path)


def test_other_versions_are_refused_by_their_number(saved, monkeypatch):
    """A file of version 2 for a reader of version 1."""
    path, run = saved
    monkeypatch.setattr(sealed_file, "VERSION", 2)
    run.save(path)
    monkeypatch.undo()
    refuse(path, run, r"run\.ckpt is of version 2; this rmtbn reads version 1")


def test_foreign_files_are_refused(saved, tmp_path):
    """A bare torch.save, text, a folder, nothing; a sealed file of something else."""
    path, run = saved
    torch.save(run.module.state_dict(), path)
    refuse(path, run, r"run\.ckpt is no checkpoint of rmtbn")
    path.write_text("text\n")
    refuse(path, run, r"run\.ckpt is no checkpoint of rmtbn")
    sealed_file.write(path, {"tensors": {}})
    refuse(path, run, r"run\.ckpt is no checkpoint of training: it holds tensors")
    path.unlink()
    refuse(path, run, r"run\.ckpt cannot be read: No such file")
    path.mkdir()
    refuse(path, run, r"run\.ckpt cannot be read: Is a directory")


class Evil:
    """Runs code when a plain unpickler reads it."""

    def __reduce__(self):
        return Path.touch, (Path("executed"),)


def test_nothing_of_a_file_is_executed(saved, monkeypatch, tmp_path):
    """A file with the right checksum whose content calls a function."""
    path, run = saved
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(sealed_file, "_check_plain", lambda *_: None)
        sealed_file.write(path, {"tensors": Evil()})
    refuse(path, run, "holds more than tensors and plain values; nothing was executed")
    assert not Path("executed").exists()
    pickle.loads(pickle.dumps(Evil()))
    assert Path("executed").exists()


ARCHITECTURES = {
    "wider": (
        lambda net: net.__setitem__(6, nn.Linear(64, 7)),
        r"tensor '6.weight' is \(5, 64\) float32 in the file and ",
    ),
    "another activation": (lambda net: net.__setitem__(2, nn.Tanh()), "layer '2' is ReLU in the file and Tanh here"),
    "another momentum": (
        lambda net: setattr(net[1], "momentum", None),
        r"layer '1' is BatchNorm2d\(eps=1e-05, momentum=0.1\) in the file and .* momentum=None\) here",
    ),
    "one layer more": (lambda net: net.append(nn.Identity()), "layer '7' is not in the file"),
    "one layer less": (lambda net: net.__delitem__(6), "layer '6' is in the file alone"),
    "double": (
        lambda net: net.double(),
        r"'0.weight' is \(4, 3, 3, 3\) float32 in the file and .* float64 here",
    ),
    "no statistics": (
        lambda net: net[1].register_buffer("running_mean", None),
        "'1.running_mean' is in the file alone",
    ),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_other_architectures_are_refused_by_what_differs(saved, name):
    """Classes, shapes, dtypes, and the numbers of norms that decide how averages go on."""
    path, run = saved
    change, match = ARCHITECTURES[name]
    change(run.module)
    refuse(path, run, match)


def test_other_parts_are_refused_by_what_differs(saved):
    """Optimisers of another class or other parameters, missing and surplus parts and generators."""
    path, run = saved
    parts, generators = run.everything["parts"], run.everything["generators"]
    adam = torch.optim.Adam(run.module.parameters())
    swapped = torch.optim.SGD(run.optimiser.param_groups[::-1], lr=0.1)
    refuse(path, run, "part 'optimiser' is .*SGD.* in the file and .*Adam.* here", parts={**parts, "optimiser": adam})
    refuse(path, run, r"part 'optimiser' is .* \[\['0.weight', '6.weight'\]", parts={**parts, "optimiser": swapped})
    refuse(
        path, run, "part 'schedule' is in the file alone", parts={"optimiser": run.optimiser, "sampler": run.sampler}
    )
    refuse(path, run, "part 'scaler' is not in the file", parts={**parts, "scaler": run.sampler})
    refuse(path, run, "generator 'noise' is numpy Philox in the file and numpy PCG64 here",
           generators={**generators, "noise": np.random.default_rng(1)})  # fmt: skip
    refuse(path, run, "generator 'noise' is in the file alone", generators={"sampler": run.sampler.generator})


def test_other_configurations_are_refused_by_what_differs(saved):
    """The keys that differ, with both values; without a configuration nothing is compared."""
    path, run = saved
    refuse(path, run, "config 'rate' is 0.1 in the file and 0.2 here", config={"rate": 0.2})
    refuse(path, run, "config 'depth' is not in the file", config={"rate": 0.1, "depth": 3})
    load(path, run.module, **run.everything)


def test_generators_of_devices_that_are_not_there_are_named(saved):
    """A checkpoint of a machine with a GPU more: refused, unless other draws will do."""
    path, run = saved
    content = read(path)
    content["random"]["devices"]["cuda:63"] = torch.zeros(16, dtype=torch.uint8)
    sealed_file.write(path, content)
    refuse(path, run, "generators of cuda:63 are in it, not here")
    load(path, run.module, **run.everything, global_generators=False)


class Fragile(Sampler):
    """A part whose state fits in form and is refused by itself."""

    def load_state_dict(self, state):
        super().load_state_dict(state)
        if state["position"] == 21:
            raise ValueError("position 21 is unlucky")


def test_what_a_part_refuses_undoes_all_that_was_loaded(tmp_path):
    """The last of the parts raises after the others were written: network, optimiser, schedule are as before."""
    path, run, other = tmp_path / "run.ckpt", Run(), Run(seed=2)
    for one in (run, other):
        one.sampler.__class__ = Fragile
    run.train(3)
    run.save(path)
    other.train(2)
    refuse(path, other, "does not fit: position 21 is unlucky")


def test_what_could_not_be_read_is_not_written(tmp_path):
    """The error names where the object is; the checkpoint before it stays."""
    path, net = tmp_path / "x", nn.Identity()
    save(path, net, progress={"step": 1})
    for value in (np.float64(1.0), {1, 2}, Path("x"), np.zeros(2)):
        with pytest.raises(InvalidArgumentError, match=r"`progress.a\[1\]\.b` must be a tensor or a plain value"):
            save(path, net, progress={"a": [0, {"b": value}]})
    assert load(path, net) == {"step": 1}


def test_progress_comes_back_as_it_was(tmp_path):
    """Plain values and tensors, nested."""
    progress = {
        "epoch": 3,
        "best": math.inf,
        "order": torch.arange(4),
        "why": None,
        "history": [(1, 0.5)],
        "id": 2**100,
    }
    save(tmp_path / "new" / "x", nn.Identity(), progress=copy.deepcopy(progress))
    assert bits(load(tmp_path / "new" / "x", nn.Identity())) == bits(progress)


@pytest.mark.gpu
def test_generators_of_cuda_go_on_where_they_were(tmp_path):
    """Networks, optimiser and draws on the device."""
    net = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)).cuda()
    x = torch.ones(8, 4, device="cuda")
    net(x)
    save(tmp_path / "x", net)
    expected = net(x)
    torch.rand(3, device="cuda")
    load(tmp_path / "x", net)
    assert torch.equal(net(x), expected)
