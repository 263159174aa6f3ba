"""Two processes on one batch are one process on the joined batch; a process killed at random moments loses nothing."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from training_processes import DATA, SHARED, network

from rmtbn.train import checkpoint, parallel
from rmtbn.train.loop import train
from rmtbn.train.parallel import World, joined, world

SCRIPT = Path(__file__).with_name("training_processes.py")


def run(*arguments):
    """Run the script, and return what it prints."""
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    """What two processes make of networks with group and batch normalisation."""
    folder = tmp_path_factory.mktemp("two")
    run("two", folder)
    return folder


def result(folder, norm, rank):
    return torch.load(folder / f"{norm}-{rank}.result", weights_only=True)


def test_two_processes_train_as_one_on_the_joined_batch(halves):
    """Means of gradients over halves, of quarters accumulated, are gradients of the whole, to rounding."""
    net = network("group")
    record = train(net, DATA, SHARED, test=DATA)
    zero, one = (result(halves, "group", rank) for rank in (0, 1))
    for name, value in net.state_dict().items():
        torch.testing.assert_close(zero["state"][name], value, rtol=0, atol=1e-12)
        assert torch.equal(zero["state"][name], one["state"][name])
    torch.testing.assert_close(zero["loss"], record.steps.loss.tolist(), rtol=1e-12, atol=0)
    assert zero["loss"] == one["loss"]
    assert zero["test"] == one["test"]


def test_batch_norm_sees_the_share_of_its_process(halves):
    """Halves are normalised by themselves; weights and running statistics are the same in both, not those of one."""
    net = network("batch")
    train(net, DATA, SHARED, test=DATA)
    zero, one = (result(halves, "batch", rank) for rank in (0, 1))
    assert all(torch.equal(value, one["state"][name]) for name, value in zero["state"].items())
    assert zero["test"] == one["test"]
    assert float((zero["state"]["conv_1.weight"] - net.state_dict()["conv_1.weight"]).abs().max()) > 1e-4


def test_the_checkpoint_of_two_processes_is_of_both(halves):
    """One file, written by process 0, with the generators of each; one process can go on from it."""
    content = checkpoint.read(halves / "group.pt")
    assert len(content["progress"]["processes"]) == 2
    net = network("group")
    record = train(net, DATA, SHARED, checkpoint=halves / "group.pt")
    assert record.steps.loss.tolist() == result(halves, "group", 0)["loss"]


def test_without_torchrun_there_is_one_process(monkeypatch):
    """No group is made; means are the values themselves."""
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined("cpu") as place:
        assert place == torch.device("cpu")
        assert world() == World(rank=0, size=1)
    values = torch.arange(3.0)
    assert torch.equal(parallel.mean(values), values)
    assert parallel.any_of(True, place)
    assert not parallel.any_of(False, place)


@pytest.mark.slow
def test_twenty_kills_lose_nothing(tmp_path):
    """SIGKILL at 20 random moments: parameters, running statistics, generators and record of the undisturbed run."""
    landed, resumed, steps = map(int, run("killed", tmp_path, 20).split())
    assert (landed, steps) == (20, 450)
    assert resumed >= 10
    whole, torn = (checkpoint.read(tmp_path / f"{name}.pt") for name in ("whole", "killed"))
    assert torn["tensors"].keys() == whole["tensors"].keys()
    assert all(torch.equal(value, torn["tensors"][name]) for name, value in whole["tensors"].items())
    assert (tmp_path / "whole.json").read_text() == (tmp_path / "killed.json").read_text()
    assert torch.equal(whole["parts"]["history"]["state"]["steps"], torn["parts"]["history"]["state"]["steps"])
    assert torch.equal(whole["random"]["devices"]["cpu"], torn["random"]["devices"]["cpu"])
