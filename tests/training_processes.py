"""Training in processes of its own, for the tests: two that share a batch, and one that is killed again and again.

Run as a script. Processes are forked from one that has imported everything, which is what takes long.
"""

import os
import random
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed, nn

from rmtbn import inits, rng
from rmtbn.data.digits import digits
from rmtbn.nets.cnn import plain_cnn
from rmtbn.train import checkpoint, parallel
from rmtbn.train.loop import train
from rmtbn.train.recipe import Recipe

DATA = digits().first(300)
SHARED = Recipe(rate=0.1, epochs=2, batch_size=64, accumulate=2, augment=True, seed=1)
ALONE = Recipe(rate=0.1, epochs=50, batch_size=32, augment=True, schedule="cosine", seed=1)


def network(norm, *, dtype=torch.float64):
    """Two convolutions and a readout, always the same."""
    net = plain_cnn(depth=2, channels=4, norm=norm, in_channels=1, classes=10)
    return inits.initialise(net, "he_normal", generator=rng.torch_generator(1, "w"), activation="relu").to(dtype)


def shared(folder, norm):
    """Train in this process, whose place in the group is known, and leave the result in a file."""
    net = network(norm)
    if parallel.world().rank == 1:
        with torch.no_grad():  # process 0's weights are what counts
            net.conv_1.weight.mul_(2)
    record = train(net, DATA, SHARED, test=DATA, checkpoint=folder / f"{norm}.pt")
    rank = parallel.world().rank
    content = {"state": dict(net.state_dict()), "loss": record.steps.loss.tolist()}
    torch.save({**content, "test": record.epochs.test_loss.tolist()}, folder / f"{norm}-{rank}.result")


def two_processes(folder):
    """Fork a second process, train in both on their halves of every batch, without batch normalisation and with."""
    other = os.fork()
    rank = 1 if other == 0 else 0
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1")
    store = distributed.FileStore(str(folder / "store"), 2)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=60))
    with parallel.joined("cpu") as place:  # the group that is there is used, and left as it is
        assert place == torch.device("cpu")
        for norm in ("group", "batch"):
            shared(folder, norm)
    distributed.destroy_process_group()
    if rank == 1:
        os._exit(0)
    assert os.waitpid(other, 0)[1] == 0


def alone(path):
    """Train with a checkpoint after every other step; a network that draws from the global generator too."""
    torch.manual_seed(os.getpid())
    if not path.exists():
        torch.manual_seed(1)
    net = nn.Sequential(nn.Dropout(0.1), network("batch", dtype=torch.float32))
    record = train(net, DATA, ALONE, test=DATA, checkpoint=path, checkpoint_steps=2)
    record.epochs.drop(columns="images_per_second").to_json(path.with_suffix(".json"), double_precision=15)


def forked(path, *, seconds=None):
    """Train in a fork, which is killed after so many seconds; tell whether it was killed, and how long it took."""
    child, began = os.fork(), time.perf_counter()
    if child == 0:
        alone(path)
        os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
    else:
        assert os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status), time.perf_counter() - began


def killed(folder, times):
    """Train undisturbed; train again, killed so many times at random moments, and to the end."""
    _, whole = forked(folder / "whole.pt")
    chance, landed, resumed, path = random.Random(times), 0, 0, folder / "killed.pt"
    while landed < times:
        before = path.exists()
        was_killed, _ = forked(path, seconds=chance.uniform(0, 2 * whole / times))
        landed, resumed = landed + was_killed, resumed + (was_killed and before)
        if not was_killed:  # it came to its end before: begin anew
            path.unlink()
    forked(path)
    steps = len(checkpoint.read(path)["parts"]["history"]["state"]["steps"][0])
    sys.stdout.write(f"{landed} {resumed} {steps}\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)  # the first one imports for seconds: before any fork
    if sys.argv[1] == "two":
        two_processes(Path(sys.argv[2]))
    else:
        killed(Path(sys.argv[2]), int(sys.argv[3]))
