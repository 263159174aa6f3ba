"""A network left bit for bit as it was found, whatever is done to it in between."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn

from rmtbn.measure import batch_statistics

Table = dict[str, Tensor | None]


@contextmanager
def left_as_found(module: nn.Module) -> Iterator[None]:
    """Put a module back, bit for bit, when the block ends, also by an exception.

    Put back are the parameters and buffers (which tensors, and their values), the gradients, what requires a gradient,
    the mode of every layer, and the torch generators of the CPU and of every CUDA device in use. Tensors whose bits did
    not change are not written, so that a graph which holds them stays good.

    Parameters
    ----------
    module
        The network.
    """
    tables: list[tuple[Table, Table]] = [
        (table, dict(table)) for part in module.modules() for table in (cast(Table, part._parameters), part._buffers)
    ]
    modes = [(part, part.training) for part in module.modules()]
    tensors = {id(t): t for _, content in tables for t in content.values() if t is not None}.values()
    grads = [(t, t.grad, t.requires_grad) for t in tensors if t.is_leaf]
    kept = [*tensors, *(grad for _, grad, _ in grads if grad is not None)]
    values = [(t, t.detach().clone()) for t in kept]
    with torch.random.fork_rng(_cuda_devices()):
        try:
            yield
        finally:
            for table, content in tables:
                table.clear()
                table.update(content)
            for part, training in modes:
                part.training = training
            for tensor, grad, required in grads:
                tensor.requires_grad_(required)
                tensor.grad = grad
            for tensor, value in values:
                _write_back(tensor, value)


@contextmanager
def probe(module: nn.Module, batch_stats: str | None) -> Iterator[None]:
    """Measure inside this block: gradients are on, the statistics are those named, and all is left as found.

    Blocks begin from the same state of the generators, so that dropout draws the same mask in each.

    Parameters
    ----------
    module
        The network.
    batch_stats
        "batch", "running", or None for the module's own mode.
    """
    statistics = batch_statistics.resolve(module, batch_stats)
    with left_as_found(module), batch_statistics.fixed(module, statistics), torch.enable_grad():
        yield


def _cuda_devices() -> list[int]:
    used: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return list(range(torch.cuda.device_count())) if used else []


@torch.no_grad()
def _write_back(tensor: Tensor, value: Tensor) -> None:
    if not torch.equal(_bits(tensor), _bits(value)):
        tensor.copy_(value)


def _bits(tensor: Tensor) -> Tensor:
    """View the bytes: 0 and -0 differ, and a NaN equals itself."""
    return tensor.detach().reshape(-1).contiguous().view(torch.uint8)
