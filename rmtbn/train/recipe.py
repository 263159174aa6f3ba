"""How to train: every number that decides a run of `rmtbn.train.loop.train`, beside the network and the images."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from rmtbn import _checks
from rmtbn.train.schedule import SCHEDULES

PRECISIONS = ("bf16", "fp16")
COMPILE_MODES = ("default", "reduce-overhead", "max-autotune")  # of torch.compile
_FLAGS = ("decay_norms", "augment", "channels_last", "sync_batch_norm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Stochastic gradient descent with momentum. Values are plain, so that `Recipe(**table)` takes a table of TOML.

    With gradient g, weight decay d and momentum μ, a step is v ← μ v + (g + d w), w ← w - rate · v (v starts as the
    first g + d w): `torch.optim.SGD`. The defaults are those of Bjorck et al. 2018 (arXiv:1806.02375) and He et al.
    2015 (arXiv:1512.03385, section 4.2), but for `augment`, which they have on.

    Parameters
    ----------
    rate
        Learning rate at the start, > 0.
    epochs, steps
        Length of training, >= 1: give one of them. An epoch is ⌊images/batch_size⌋ steps, each on other images; the
        images left over differ from epoch to epoch.
    batch_size
        Images that one step sees, over all micro-batches and processes, >= 1.
    momentum, weight_decay
        μ in [0, 1) and d >= 0.
    decay_norms
        False: no weight decay on γ and β of layers of normalisation, nor on other layers that have vectors and numbers
        only (such as the scales of Fixup). Weights and biases of linear and convolutional layers decay either way.
    schedule
        A name in `rmtbn.train.schedule.SCHEDULES`: "step" divides the rate by 10 at 50 % and at 75 % of the steps.
    augment
        Whether images are shifted by up to 4 pixels, with zeros beyond the border, and flipped at random.
    amp
        False, "bf16" or "fp16": automatic mixed precision; "fp16" scales the loss and needs CUDA.
    channels_last
        Whether networks and images are laid out with the channels last, which some kernels prefer.
    compile
        False, True ("default"), or a mode of `torch.compile` in `COMPILE_MODES`.
    accumulate
        Micro-batches that a batch is divided into, >= 1, a divisor of `batch_size`. Batch normalisation normalises
        by micro-batch; its running statistics move once per step (`rmtbn.train.batchnorm.one_update`).
    sync_batch_norm
        Whether batch normalisation sees the batch of all processes together; on CUDA only.
    seed
        Of the order of the images and of augmentation, >= 0; neither weights nor global generators are touched.

    Raises
    ------
    InvalidArgumentError
        Naming the field.

    Examples
    --------
    >>> Recipe(rate=0.1, epochs=165, seed=1).schedule
    'step'
    """

    rate: float
    epochs: int | None = None
    steps: int | None = None
    batch_size: int = 128
    momentum: float = 0.9
    weight_decay: float = 1e-4
    decay_norms: bool = True
    schedule: str = "step"
    augment: bool = False
    amp: bool | str = False
    channels_last: bool = False
    compile: bool | str = False
    accumulate: int = 1
    sync_batch_norm: bool = False
    seed: int

    def __post_init__(self) -> None:
        values: dict[str, Any] = {
            "rate": _checks.real("rate", self.rate, above=0.0),
            "momentum": _checks.real("momentum", self.momentum, at_least=0.0, below=1.0),
            "weight_decay": _checks.real("weight_decay", self.weight_decay, at_least=0.0),
            "batch_size": _checks.integer("batch_size", self.batch_size, at_least=1),
            "accumulate": _checks.integer("accumulate", self.accumulate, at_least=1),
            "seed": _checks.integer("seed", self.seed, at_least=0),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)
        self._check_length()
        for name in _FLAGS:
            _checks.instance(name, getattr(self, name), bool, "True or False")
        _checks.one_of("schedule", self.schedule, SCHEDULES)
        if self.amp is not False:
            _checks.one_of("amp", self.amp, PRECISIONS)
        if not isinstance(self.compile, bool):
            _checks.one_of("compile", self.compile, COMPILE_MODES)
        if self.batch_size % self.accumulate:
            raise _checks.fail("accumulate", f"a divisor of the batch size {self.batch_size}", self.accumulate)

    def _check_length(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise _checks.fail("epochs", "given, or `steps`, and not both", (self.epochs, self.steps))
        for name in ("epochs", "steps"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _checks.integer(name, getattr(self, name), at_least=1))

    def table(self) -> dict[str, Any]:
        """Return the fields by name, those that are None left out: what TOML and JSON can hold."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in found.items() if value is not None}

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> "Recipe":
        """Make a recipe of a table, and name what it has too much or too little."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(table) - known):
            raise _checks.fail("table", f"of the fields of a recipe ({', '.join(sorted(known))})", unknown[0])
        if missing := sorted({"rate", "seed"} - set(table)):
            raise _checks.fail("table", f"one that holds {missing[0]!r}", sorted(table))
        return cls(**table)

    def steps_per_epoch(self, images: int) -> int:
        """Return ⌊images/batch_size⌋.

        Raises
        ------
        InvalidArgumentError
            If there are fewer images than a batch needs.
        """
        if images < self.batch_size:
            raise _checks.fail("batch_size", f"<= the number of images, {images}", self.batch_size)
        return images // self.batch_size

    def total_steps(self, images: int) -> int:
        """Return the number of steps of the whole run."""
        per_epoch = self.steps_per_epoch(images)
        return self.steps if self.steps is not None else per_epoch * (self.epochs or 1)
