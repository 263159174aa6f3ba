"""`rmtbn train` as a user meets it: what it prints, its recipe, its checkpoint, and what it refuses."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from click.testing import CliRunner
from rmtbn.analyses.__main__ import main
from rmtbn.analyses._training import FIELDS, named_network, training_images

from rmtbn.train import checkpoint
from rmtbn.train.loop import train
from rmtbn.train.recipe import Recipe

SMALL = ("--network", "cnn-3", "--batch-size", "256", "--rate", "0.2", "--epochs", "2")


def call(*arguments):
    return CliRunner().invoke(main, ["train", *arguments])


def test_the_numbers_are_those_of_the_library():
    """--json is the record of `train` with the recipe that the options say; one line of progress per epoch."""
    found = call(*SMALL, "--augment", "--no-decay-norms", "--json")
    assert found.exit_code == 0
    assert [line.split()[:2] for line in found.stderr.splitlines()] == [["epoch", "1"], ["epoch", "2"]]
    told = json.loads(found.stdout)
    recipe = Recipe(rate=0.2, epochs=2, batch_size=256, augment=True, decay_norms=False, seed=1)
    assert Recipe.of(told["recipe"]) == recipe
    images, test = training_images("digits", dtype="float32")
    net = named_network("cnn-3", norm="batch", scheme="glorot_normal", seed=1, like=images)
    record = train(net, images, recipe, test=test)
    assert told["steps"]["loss"] == record.steps.loss.tolist()
    assert [epoch["test_accuracy"] for epoch in told["epochs"]] == record.epochs.test_accuracy.tolist()
    assert (told["reason"], told["diverged_at"]) == ("finished", None)


def test_images_held_out_are_not_trained_on():
    """1,438 and 359 of the 1,797 digits, each once."""
    images, test = training_images("digits", dtype="float64")
    together = torch.cat([images.inputs, test.inputs]).flatten(1)
    assert (len(images.targets), len(test.targets)) == (1438, 359)
    whole = torch.cat([split.inputs for split in training_images("digits", dtype="float64")])
    assert torch.equal(together, whole.flatten(1))
    assert len(torch.unique(together, dim=0)) == 1797
    assert len(together.unique()) == 17  # the grey levels, alike in both: one shift and one scale


def test_cifar_is_tested_on_its_own_test_set(write_cifar, tmp_path):
    """A folder of its binary files."""
    write_cifar("data_batch_1.bin", [0, 1, 2] * 4)
    write_cifar("test_batch.bin", [3, 4])
    images, test = training_images(str(tmp_path), dtype="float32")
    assert (len(images.targets), test.targets.tolist()) == (12, [3, 4])
    assert images.inputs.shape[1:] == (3, 32, 32)


@pytest.mark.parametrize("name", ["resnet-8", "cnn-3"])
def test_networks_have_the_layers_of_their_names(name):
    """N layers with weights, the readout among them."""
    images, _ = training_images("digits", dtype="float32")
    net = named_network(name, norm="group", scheme="he_normal", seed=1, like=images)
    layers = [part for part in net.modules() if isinstance(part, torch.nn.Conv2d | torch.nn.Linear)]
    assert len(layers) == int(name.partition("-")[2])


def test_divergence_ends_well():
    """It is a result: exit code 0, and a line that says where."""
    found = call(*SMALL, "--norm", "none", "--rate", "1e8")
    assert found.exit_code == 0
    assert found.stdout.startswith("diverged at step 1: loss ")


def test_the_same_command_goes_on(tmp_path):
    """Two epochs of a file that is there are not computed again; --restart does, another recipe is refused."""
    path = tmp_path / "run.pt"
    first, second = (call(*SMALL, "--checkpoint", str(path)) for _ in range(2))
    assert first.stdout == second.stdout
    assert (len(first.stderr.splitlines()), second.stderr) == (2, "")
    assert len(call(*SMALL, "--checkpoint", str(path), "--restart").stderr.splitlines()) == 2
    other = call(*SMALL, "--momentum", "0.5", "--checkpoint", str(path))
    assert (other.exit_code, len(other.stderr.splitlines())) == (1, 1)
    assert "config 'momentum' is 0.9 in the file and 0.5 here" in other.stderr


def test_a_recipe_can_be_a_file(tmp_path):
    """TOML; options that are given go first; defaults fill what neither says."""
    file = tmp_path / "recipe.toml"
    file.write_text('rate = 0.5\nsteps = 3\nbatch_size = 64\namp = "bf16"\n')
    told = json.loads(call("--network", "cnn-2", "--recipe", str(file), "--rate", "0.1", "--json").stdout)["recipe"]
    assert Recipe.of(told) == Recipe(rate=0.1, steps=3, batch_size=64, amp="bf16", seed=1)
    told = json.loads(call("--network", "cnn-2", "--recipe", str(file), "--epochs", "1", "--json").stdout)["recipe"]
    assert (told["epochs"], "steps" in told) == (1, False)


def test_every_field_of_a_recipe_has_an_option():
    """All but the seed, which is an option of the command; defaults agree."""
    fields = {name: field.default for name, field in Recipe.__dataclass_fields__.items() if name != "seed"}
    assert set(FIELDS) == set(fields)
    for name, kind in FIELDS.items():
        if name != "rate":
            assert kind.get("default") in (fields[name], "no", None)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--network", "vgg-16"), "`network` must be resnet-N or cnn-N of N layers; got 'vgg-16'"),
        (("--network", "resnet-21"), "`depth` must be 6 n + 2"),
        (("--network", "cnn-4", "--norm", "final"), "`norm` must be one that a cnn has"),
        (("--data", "gaussian"), "`data` must be labelled images"),
        (("--data", "nowhere"), "nowhere"),
        (("--epochs", "1", "--steps", "2"), "`epochs` must be given, or `steps`, and not both"),
        (("--batch-size", "5000"), "`batch_size` must be <= the number of images, 1438; got 5000"),
        (("--accumulate", "3"), "`accumulate` must be a divisor of the batch size 128; got 3"),
        (("--amp", "fp16"), "`amp` must be False or 'bf16' on a device other than CUDA; got 'fp16'"),
        (("--device", "cuda:9"), "cuda:9"),
        (("--rate", "-1"), "--rate"),
    ],
)
def test_wrong_usage_is_one_line(arguments, named):
    """Exit code 2, what is wrong, and nothing else."""
    found = call("--network", "cnn-3", *arguments) if "--network" not in arguments else call(*arguments)
    assert (found.exit_code, found.stdout, len(found.stderr.splitlines())) == (2, "", 1)
    assert named in found.stderr


def test_recipes_that_are_none_are_refused(tmp_path):
    """Not TOML; a field that there is not."""
    file = tmp_path / "recipe.toml"
    for text, named in (("rate = ", "recipe.toml"), ("learning_rate = 1.0", "got 'learning_rate'")):
        file.write_text(text)
        found = call("--recipe", str(file))
        assert (found.exit_code, len(found.stderr.splitlines())) == (2, 1)
        assert named in found.stderr


@pytest.mark.slow
def test_ctrl_c_writes_a_checkpoint_and_says_how_to_go_on(tmp_path):
    """SIGINT in the middle: exit code 1, one line; the same command ends as an undisturbed one."""
    options = ["--network", "cnn-3", "--epochs", "60", "--json"]
    whole = json.loads(call(*options).stdout)
    path = tmp_path / "run.pt"
    command = [sys.executable, "-m", "rmtbn.analyses", "train", *options, "--checkpoint", str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not path.exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    steps = len(checkpoint.read(path)["parts"]["history"]["state"]["steps"][0])
    assert (process.returncode, stdout) == (1, "")
    assert stderr.splitlines()[-1] == f"Error: interrupted after {steps} steps; the same command goes on from {path}"
    assert 0 < steps < 660
    resumed = json.loads(call(*options, "--checkpoint", str(path)).stdout)
    assert resumed["steps"] == whole["steps"]


@pytest.mark.slow
def test_torchrun_starts_processes_that_train_together():
    """`torchrun --nproc-per-node 2 -m rmtbn.analyses train`: the losses of one process, without batch normalisation."""
    options = ["--network", "cnn-3", "--norm", "group", "--dtype", "float64", "--epochs", "1", "--json"]
    arguments = ["--nproc-per-node", "2", "-m", "rmtbn.analyses", "train", *options]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("epoch")]) == 1
    alone = json.loads(call(*options).stdout)
    assert json.loads(done.stdout)["steps"]["loss"] == pytest.approx(alone["steps"]["loss"], rel=1e-12)
