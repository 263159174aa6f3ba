"""Several processes that train one network, each on its share of every batch: torch's own DistributedDataParallel.

`torchrun --nproc-per-node N` starts the processes; `joined` lets them find one another; `train` does the rest.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import SyncBatchNorm, _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from rmtbn import _checks


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Which process this is, and of how many.

    Parameters
    ----------
    rank
        0 … size - 1; process 0 writes the files.
    size
        1 where there is no group of processes.
    """

    rank: int
    size: int


def world() -> World:
    """Return the place of this process in the group that is initialised, or the only place."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return World(rank=0, size=1)
    return World(rank=distributed.get_rank(), size=distributed.get_world_size())


@contextmanager
def joined(device: str | torch.device) -> Iterator[torch.device]:
    """Join the group of processes that torchrun started, if it did, and leave it at the end of the block.

    Parameters
    ----------
    device
        "cpu" (processes talk by gloo) or "cuda" (by nccl; each process has the GPU of its number on its machine).

    Yields
    ------
    torch.device
        That of this process.
    """
    place = torch.device(device)
    if "WORLD_SIZE" not in os.environ or distributed.is_initialized():
        yield place
        return
    if place.type == "cuda":
        place = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(place)
    distributed.init_process_group("nccl" if place.type == "cuda" else "gloo")
    try:
        yield place
    finally:
        distributed.destroy_process_group()


def mean(values: Tensor) -> Tensor:
    """Return the mean over the processes; the same on each."""
    if world().size == 1:
        return values
    total = values.clone()
    distributed.all_reduce(total)
    return total / world().size


def any_of(flag: bool, device: torch.device) -> bool:
    """Tell whether the flag is set in any of the processes."""
    return flag if world().size == 1 else bool(mean(torch.tensor(float(flag), device=device)) > 0)


@contextmanager
def together(module: nn.Module, *, sync_batch_norm: bool) -> Iterator[nn.Module]:
    """Give a network whose gradients are means over the processes; it has the parameters and buffers of `module`.

    Parameters
    ----------
    module
        The network, on the device of this process. Process 0's weights are copied to the others.
    sync_batch_norm
        Whether batch normalisation sees the batches of all processes as one. Its layers are torch's `SyncBatchNorm`
        until the block ends. Otherwise each process normalises by its own share of the batch, and running statistics
        are those of process 0.

    Raises
    ------
    InvalidArgumentError
        If synchronised statistics are asked for without CUDA, which torch has not.
    """
    place = next(module.parameters()).device
    if sync_batch_norm and place.type != "cuda":
        raise _checks.fail("sync_batch_norm", "False on a device other than CUDA", sync_batch_norm)
    if world().size == 1:
        yield module
        return
    before = {name: part for name, part in module.named_modules() if isinstance(part, _BatchNorm)}
    model: nn.Module = module
    if sync_batch_norm:
        model = SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
    try:
        yield DistributedDataParallel(model, device_ids=[place] if place.type == "cuda" else None)
    finally:
        for name, part in before.items():
            if name:
                module.set_submodule(name, part)


def share_buffers(module: nn.Module) -> None:
    """Copy the buffers of process 0, such as running statistics, to the others."""
    for buffer in module.buffers() if world().size > 1 else ():
        distributed.broadcast(buffer, 0)


def gathered(state: dict[str, Any]) -> list[Any]:
    """Return the states of all processes in process 0; an empty list in the others, and where there is one process."""
    found: list[Any] = [None] * world().size if world().rank == 0 else []
    if world().size == 1:
        return []
    distributed.gather_object(state, found or None)
    return found


def unshared(model: nn.Module, *, last: bool) -> AbstractContextManager[None]:
    """Let gradients of all micro-batches but the last add up in each process, and be shared once."""
    wrapped = getattr(model, "_orig_mod", model)
    return nullcontext() if last or not isinstance(wrapped, DistributedDataParallel) else wrapped.no_sync()
