"""Training of a network on images: SGD with momentum, in steps that can be interrupted at any moment and gone on with.

Everything random is drawn from generators named by seed and epoch (`rmtbn.rng`), on the CPU: which images are in which
batch depends neither on the device nor on where a run was interrupted.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.modules.batchnorm import _BatchNorm

from rmtbn import _checks
from rmtbn.train import checkpoint as checkpoints
from rmtbn.train import parallel, random_state
from rmtbn.train.evaluation import evaluate
from rmtbn.train.held_images import HeldImages, held
from rmtbn.train.optimiser import sgd
from rmtbn.train.recipe import Recipe
from rmtbn.train.record import EpochSummary, TrainingRecord
from rmtbn.train.step import Run, advance, layout, precision

TEST_BATCH = 500  # images evaluated together
_READ_EVERY = {"cuda": 16}  # steps after which losses are read: a GPU is not waited for at each


@runtime_checkable
class LabelledImages(Protocol):
    """Images and their classes, as `rmtbn.data.labelled.Labelled` holds them."""

    @property
    def name(self) -> str:
        """Where they come from."""

    @property
    def inputs(self) -> Tensor:
        """Shape (images, ...), floating point."""

    @property
    def targets(self) -> Tensor:
        """Class of each, 0, 1, …; integers."""


def train(
    module: nn.Module,
    images: LabelledImages,
    recipe: Recipe,
    *,
    test: LabelledImages | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_steps: int | None = None,
    resume: bool = True,
    on_epoch: Callable[[EpochSummary], None] | None = None,
    stop: Callable[[], bool] | None = None,
    device: str | torch.device | None = None,
) -> TrainingRecord:
    """Train a network in place on the cross-entropy of its logits.

    Parameters
    ----------
    module
        From inputs to logits, with its weights drawn. It is put into train mode and stays in it. Parameters that
        require no gradient are not trained.
    images
        To train on; images whose pixels have at most 256 values are held as bytes.
    recipe
        How to train.
    test
        To evaluate on after every epoch, in eval mode with running statistics (where a norm keeps none, with those of
        batches of 500).
    checkpoint
        File that is written after every epoch and at the end. If it is there, training goes on from it, and on a CPU
        with the same number of threads the result is that of an uninterrupted run, bit for bit.
    checkpoint_steps
        Also write it every so many steps, >= 1.
    resume
        False: start anew, and replace the file.
    on_epoch
        Called with each epoch as it ends, in process 0.
    stop
        Asked after each step (on a GPU after every 16); True ends training, with a checkpoint.
    device
        Where to train; by default where the network is.

    Returns
    -------
    TrainingRecord
        Divergence is a result: training ends, and the record says where.

    Raises
    ------
    InvalidArgumentError
        For arguments that do not fit, or inputs that are not finite.
    CheckpointError
        If the checkpoint is damaged or of another network, recipe or data.
    """
    path = None if checkpoint is None else Path(checkpoint)
    if checkpoint_steps is not None:
        checkpoint_steps = _checks.integer("checkpoint_steps", checkpoint_steps, at_least=1)
    place = _prepare(module, images, recipe, device=device)
    with parallel.together(module, sync_batch_norm=recipe.sync_batch_norm) as model:
        run = _begin(module, model, recipe, images=images, test=test, place=place)
        config = {} if path is None else {**_described(run, images), **recipe.table()}
        if path is not None and resume and path.exists():
            _resume(run, path, config)
        stopped = False
        run.began = (run.history.step, time.perf_counter())
        while not (stopped or run.history.step >= run.total or run.history.diverged_at is not None):
            advance(run)
            at_end = run.history.step % run.per_epoch == 0 or run.history.step == run.total
            due = checkpoint_steps is not None and run.history.step % checkpoint_steps == 0
            if at_end or due or run.history.step % _READ_EVERY.get(place.type, 1) == 0:
                pending = run.history.pending()
                run.history.read(None if pending is None else parallel.mean(pending))
                stopped = parallel.any_of(stop is not None and stop(), place)
            ended = at_end or run.history.diverged_at is not None
            if ended:
                _close_epoch(run, on_epoch)
            if path is not None and (ended or due or stopped):
                _save(run, path, config)
        return run.history.record(stopped=stopped and run.history.step < run.total)


def _prepare(
    module: nn.Module, images: LabelledImages, recipe: Recipe, *, device: str | torch.device | None
) -> torch.device:
    """Check what fits together, and put the network where and how it is trained."""
    _checks.instance("recipe", recipe, Recipe, "a Recipe")
    first = next(module.parameters(), None)
    if first is None:
        raise _checks.fail("module", "a network with parameters", type(module).__name__)
    place = first.device if device is None else torch.device(device)
    if len(images.inputs) != len(images.targets):
        raise _checks.fail("images", f"as many as targets, {len(images.targets)}", len(images.inputs))
    if not bool(torch.isfinite(images.inputs).all()):
        raise _checks.fail("images", "finite", images.name)
    if recipe.augment and images.inputs.ndim != 4:
        raise _checks.fail("augment", "False for inputs that are no images", tuple(images.inputs.shape))
    if recipe.amp == "fp16" and place.type != "cuda":
        raise _checks.fail("amp", "False or 'bf16' on a device other than CUDA", recipe.amp)
    share = recipe.accumulate * parallel.world().size
    if recipe.batch_size % share:
        raise _checks.fail("batch_size", f"a multiple of micro-batches times processes, {share}", recipe.batch_size)
    recipe.steps_per_epoch(len(images.targets))
    if recipe.channels_last:
        module.to(place, memory_format=torch.channels_last)  # type: ignore[call-overload]
    module.to(place).train()
    return place


def _begin(
    module: nn.Module,
    model: nn.Module,
    recipe: Recipe,
    *,
    images: LabelledImages,
    test: LabelledImages | None,
    place: torch.device,
) -> Run:
    dtype = next(module.parameters()).dtype
    if recipe.compile:
        compiled = torch.compile(model, mode="default" if recipe.compile is True else recipe.compile)
        model = cast("nn.Module", compiled)
    return Run(
        module=module,
        model=model,
        images=held(images.inputs, images.targets, device=place, dtype=dtype),
        test=None if test is None else held(test.inputs, test.targets, device=place, dtype=dtype),
        recipe=recipe,
        device=place,
        optimiser=sgd(module, recipe),
        scaler=GradScaler(place.type, enabled=recipe.amp == "fp16"),
    )


def _described(run: Run, images: LabelledImages) -> dict[str, Any]:
    """Say what the images are, so that a checkpoint is not gone on with on others."""
    return {"images": images.name, "examples": len(images.targets), "digest of the images": run.images.digest()}


def _save(run: Run, path: Path, config: dict[str, Any]) -> None:
    """Write the checkpoint from process 0; the others add the state of their generators, of dropout for example."""
    others = parallel.gathered(random_state.state({}))
    if parallel.world().rank == 0:
        checkpoints.save(path, run.module, parts=run.parts, progress={"processes": others}, config=config)


def _resume(run: Run, path: Path, config: dict[str, Any]) -> None:
    processes = checkpoints.load(path, run.module, parts=run.parts, config=config)["processes"]
    if len(processes) == parallel.world().size:  # with another number, draws beside ours are others
        random_state.restore_global(processes[parallel.world().rank])


def _close_epoch(run: Run, on_epoch: Callable[[EpochSummary], None] | None) -> None:
    """Add up the epoch, evaluate, and let the schedule see it."""
    history, (step, began) = run.history, run.began
    done = len(history.losses)
    seconds = time.perf_counter() - began
    start = history.epochs[-1].step if history.epochs else 0
    train_loss, train_accuracy = history.means(since=start)
    parallel.share_buffers(run.module)
    test_loss, test_accuracy = _tested(run)
    summary = EpochSummary(
        epoch=len(history.epochs) + 1,
        step=done,
        train_loss=train_loss,
        train_accuracy=train_accuracy,
        test_loss=test_loss,
        test_accuracy=test_accuracy,
        rate=history.rates[-1],
        images_per_second=(done - step) * run.recipe.batch_size / seconds,
    )
    history.epochs.append(summary)
    run.plateau.see(train_loss)
    if on_epoch is not None and parallel.world().rank == 0:
        on_epoch(summary)
    run.began = (done, time.perf_counter())


def _tested(run: Run) -> tuple[float, float]:
    if run.test is None:
        return float("nan"), float("nan")
    bare = any(isinstance(part, _BatchNorm) and part.running_var is None for part in run.module.modules())
    with precision(run):
        found = evaluate(run.module, _test_batches(run, run.test), batch_stats="batch" if bare else "running")
    return found.loss, found.accuracy


def _test_batches(run: Run, test: HeldImages) -> Iterator[tuple[Float[Tensor, "batch ..."], Tensor]]:
    for start in range(0, len(test.targets), TEST_BATCH):
        chosen = slice(start, start + TEST_BATCH)
        yield layout(test.inputs(chosen), run.recipe), test.targets[chosen]
