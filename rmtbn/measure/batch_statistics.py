"""Which statistics batch normalisation uses while a network is measured, and the network left as it was found."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.lazy import LazyModuleMixin

from rmtbn import _checks
from rmtbn._modules import parts
from rmtbn.measure.precision import full_float32

OPTIONS = ("batch", "running")


def resolve(module: nn.Module, batch_stats: str | None) -> str | None:
    """Return which statistics are meant: as asked, or as the mode of the module says.

    Parameters
    ----------
    module
        The network.
    batch_stats
        "batch", "running", or None for what each layer's mode says.

    Returns
    -------
    str or None
        "batch" or "running"; None if there is no batch normalisation.

    Raises
    ------
    InvalidArgumentError
        If `batch_stats` is another value, or None where layers disagree, or "running" where a layer has none.
    """
    if batch_stats is not None:
        _checks.one_of("batch_stats", batch_stats, OPTIONS)
    norms = [child for child in parts(module) if isinstance(child, _BatchNorm)]
    if not norms:
        return None
    if batch_stats == "running" and any(norm.running_mean is None for norm in norms):
        raise _checks.fail("batch_stats", "'batch' for batch normalisation without running statistics", batch_stats)
    if batch_stats is not None:
        return batch_stats
    found = {"batch" if norm.training or norm.running_mean is None else "running" for norm in norms}
    if len(found) > 1:
        rule = "'batch' or 'running' where layers of batch normalisation are in different modes"
        raise _checks.fail("batch_stats", rule, batch_stats)
    return found.pop()


@contextmanager
def fixed(module: nn.Module, batch_stats: str | None) -> Iterator[None]:
    """Let batch normalisation use the statistics named, and no call change the module, its buffers or a generator.

    Stock batch normalisation in train mode updates its running statistics in place, on which `torch.func.vmap` raises
    (pytorch issue 85533); here it neither updates nor raises. Attention takes the form that has a forward derivative.
    Float32 is not rounded to TF32.

    Parameters
    ----------
    module
        The network.
    batch_stats
        As `resolve` returns it.
    """
    everything = parts(module)
    norms = [part for part in everything if isinstance(part, _NormBase)]
    before = [(norm, norm.training, norm.track_running_stats) for norm in norms]
    # a lazy layer that meets its first input becomes another for good
    settings = [(part, {**vars(part)}) for part in everything if not isinstance(part, LazyModuleMixin)]
    held = [(part, name, buffer) for part in everything for name, buffer in part._buffers.items() if buffer is not None]
    buffers = [(*place, place[-1].detach().clone()) for place in held]
    weights = (weight for part in everything for weight in part._parameters.values() if weight is not None)
    devices = sorted({weight.device.index for weight in weights if weight.is_cuda})
    with torch.random.fork_rng(devices), torch.no_grad(), sdpa_kernel(SDPBackend.MATH), full_float32():
        try:
            for norm in norms:
                if batch_stats is not None and isinstance(norm, _BatchNorm):
                    norm.training = batch_stats == "batch"
                if norm.training:
                    norm.track_running_stats = False
            yield
        finally:
            for norm, training, tracking in before:
                norm.training, norm.track_running_stats = training, tracking
            for part, attributes in settings:
                _restore_attributes(part, attributes)
            for part, name, buffer, value in buffers:
                part._buffers[name] = buffer
                _restore(buffer, value)


def _restore_attributes(part: nn.Module, attributes: dict[str, object]) -> None:
    """Undo what a forward pass has set: tensors that it keeps mean nothing outside of `torch.func`."""
    for name in vars(part).keys() - attributes.keys():
        del vars(part)[name]
    vars(part).update(attributes)


def _restore(buffer: Tensor, value: Tensor) -> None:
    if not torch.equal(buffer, value):
        buffer.copy_(value)
