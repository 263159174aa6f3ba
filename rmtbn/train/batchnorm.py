"""Running statistics of batch normalisation that survive what is done to a network while it is trained.

In train mode torch normalises with the biased variance of the batch and moves `running_var` towards the unbiased one,
by a share `momentum` of the way (Ioffe & Szegedy 2015, arXiv:1502.03167, algorithm 2; a `momentum` of None makes them
the plain average of all batches so far). Every forward pass in train mode does so, with gradients or without.

Under gradient accumulation and data parallelism each micro-batch is normalised by its own statistics, so that gradients
are those of small batches, and moves the running ones once: k micro-batches act as a momentum of 1 - (1 - m)^k. With
`one_update` they move once per step, by the moments of all micro-batches together. What is exactly a large batch,
gradients too, in less memory, is a large batch with `checkpointed` blocks.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.utils.checkpoint import checkpoint

from rmtbn import _checks
from rmtbn.train.channel_moments import centred, gathered, tracking_norms, write

MOMENTS = ("averaged", "pooled")
_recomputed: set[nn.Module] = set()  # norms whose forward pass is the second one of a checkpointed block


@contextmanager
def statistics_kept(module: nn.Module) -> Iterator[None]:
    """Let batch (and instance) normalisation work on copies of its running statistics until the block ends.

    For probes in train mode, such as line searches or interpolated weights. The buffers themselves are never written,
    so that graphs that hold them stay good; after the block they are in place again, also after an exception.

    Parameters
    ----------
    module
        The network.
    """
    tables = [part._buffers for part in module.modules() if isinstance(part, _NormBase)]
    before = [dict(table) for table in tables]
    for table in tables:
        table.update({name: value if value is None else value.clone() for name, value in table.items()})
    try:
        yield
    finally:
        for table, content in zip(tables, before, strict=True):
            table.update(content)


def update_once(module: nn.Module) -> Callable[[], tuple[AbstractContextManager[None], AbstractContextManager[None]]]:
    """Return a `context_fn` for `torch.utils.checkpoint.checkpoint`, whose second forward pass then updates nothing.

    Activation checkpointing runs a block again in the backward pass, and plainly used updates its running statistics
    twice: the momentum m acts as 1 - (1 - m)², 0.19 for 0.1.

    Parameters
    ----------
    module
        Holds the norms of the block, for example the block itself or the whole network.
    """
    return lambda: (nullcontext(), _recomputation(module))


def checkpointed(module: nn.Module, *inputs: Any) -> Any:
    """Call a module with activation checkpointing, and update its running statistics once.

    Outputs and gradients are those of `module(*inputs)`, bit for bit on the CPU.
    """
    return checkpoint(module, *inputs, use_reentrant=False, context_fn=update_once(module))


@contextmanager
def one_update(module: nn.Module) -> Iterator[None]:
    """Update running statistics once, by the moments of all forward passes of this block together.

    For the micro-batches of one step. The first layer of batch normalisation then has the running statistics of one
    large batch; later ones see inputs that were normalised per micro-batch, whose moments are exact too. After an
    exception nothing is updated.

    Parameters
    ----------
    module
        A network with torch's own batch normalisation. Layers in eval mode are left alone.

    Raises
    ------
    InvalidArgumentError
        For a norm of another class.
    """
    norms = centred(tracking_norms(module))
    with statistics_kept(module), gathered(norms, when=_counts) as found:
        yield
    for name, moments in found.items():
        norm = norms[name]
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
        share = 1 / int(norm.num_batches_tracked or 1) if norm.momentum is None else norm.momentum
        write(norm, mean=moments.mean, variance=moments.unbiased_variance, share=share)


@torch.no_grad()
def recalibrate(module: nn.Module, batches: Iterable[Tensor], *, moments: str = "averaged") -> None:
    """Compute the running statistics anew, for weights that were changed outside the loop (averaged, interpolated).

    The data pass through the network once with batch statistics; other layers are in eval mode, so that dropout is off
    (`torch.optim.swa_utils.update_bn` leaves it on). Nothing but running statistics changes, and these only at the end.

    Parameters
    ----------
    module
        The network; its modes and momenta are left as they are.
    batches
        Inputs, on the device of the network. Shuffled: single-class batches distort the statistics of each.
    moments
        "averaged": mean over batches, each of the same weight, of their means and unbiased variances (momentum None).
        For batches drawn at random these estimate the moments of the data; where the values of a batch belong together
        (sorted classes, places of an image), the variance of the batches' means is missing. "pooled": mean and unbiased
        variance of all values together, whatever the batches; for torch's own classes of batch normalisation.

    Raises
    ------
    InvalidArgumentError
        If there are no batches, one has a single value per channel, or `moments` is unknown.
    """
    _checks.one_of("moments", moments, MOMENTS)
    norms, count = tracking_norms(module), 0
    watched = centred(norms) if moments == "pooled" else {}
    with using(module, "batch"), _averaging(norms.values()), gathered(watched) as pooled:
        for x in batches:
            module(x)
            count += 1
        averaged = {name: (norm.running_mean, norm.running_var) for name, norm in norms.items()}
    if count == 0:
        raise _checks.fail("batches", "one or more batches of inputs (an iterator can be walked once)", count)
    for name, norm in norms.items():
        mean, variance = (pooled[name].mean, pooled[name].unbiased_variance) if name in pooled else averaged[name]
        write(norm, mean=mean, variance=variance, share=1.0)
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked.fill_(count)


def initial_shares(module: nn.Module) -> dict[str, float]:
    """Return how much of each running statistic is still its initial value: (1 - m)^k after k updates.

    Parameters
    ----------
    module
        A network whose updates all had the momentum that its layers have now.

    Returns
    -------
    dict
        Name of a layer to a share from 1 (never updated) to 0; 0 after the first update if `momentum` is None.

    Examples
    --------
    >>> norm = nn.BatchNorm1d(2)
    >>> _ = [norm(torch.randn(4, 2)) for _ in range(10)]
    >>> round(initial_shares(norm)[""], 4)
    0.3487
    """
    shares = {}
    for name, norm in tracking_norms(module).items():
        updates = int(norm.num_batches_tracked) if norm.num_batches_tracked is not None else 0
        momentum = 1.0 if norm.momentum is None else norm.momentum
        shares[name] = (1 - momentum) ** updates
    return shares


@contextmanager
def using(module: nn.Module, batch_stats: str) -> Iterator[None]:
    """Put a network into eval mode, its batch normalisation on the statistics named, and put all back after the block.

    Parameters
    ----------
    module
        The network. Modes and running statistics are as before after the block; nothing else is protected.
    batch_stats
        "running", or "batch": those of each batch, as in train mode, without updating the running ones.

    Raises
    ------
    InvalidArgumentError
        If `batch_stats` is another value, "running" for a layer that keeps none, or (in the forward pass) a batch has
        one value per channel.
    """
    _checks.one_of("batch_stats", batch_stats, ("running", "batch"))
    norms = {name: part for name, part in module.named_modules() if isinstance(part, _BatchNorm)}
    if batch_stats == "running" and (bare := [name for name, norm in norms.items() if norm.running_var is None]):
        raise _checks.fail("batch_stats", f"'batch', since layer {bare[0]!r} keeps no statistics", batch_stats)
    modes = [(part, part.training) for part in module.modules()]
    chosen = norms.values() if batch_stats == "batch" else ()
    handles = [norm.register_forward_pre_hook(_refuse_single_values) for norm in chosen]
    with statistics_kept(module):
        try:
            module.eval()
            for norm in chosen:
                norm.training = True
            yield
        finally:
            for part, training in modes:
                part.training = training
            for handle in handles:
                handle.remove()


@contextmanager
def _averaging(norms: Iterable[_BatchNorm]) -> Iterator[None]:
    """Let the statistics that the norms have in this block be plain averages over its batches."""
    momenta = [(norm, norm.momentum) for norm in norms]
    try:
        for norm, _ in momenta:
            norm.reset_running_stats()
            norm.momentum = None
        yield
    finally:
        for norm, momentum in momenta:
            norm.momentum = momentum


@contextmanager
def _recomputation(module: nn.Module) -> Iterator[None]:
    """Keep the statistics, and tell `one_update` that this forward pass was counted before."""
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm)]
    with statistics_kept(module):
        _recomputed.update(norms)
        try:
            yield
        finally:
            _recomputed.difference_update(norms)


def _counts(norm: _BatchNorm) -> bool:
    return norm.training and norm not in _recomputed


def _refuse_single_values(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    x = inputs[0]
    if x.shape[0] * math.prod(x.shape[2:]) < 2:
        raise _checks.fail("batches", "of two or more values per channel under batch statistics", tuple(x.shape))
