"""What must hold of a network and its input before its Jacobian is measured, and its layers set up for that."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import jvp
from torch.nn.parameter import is_lazy

from rmtbn import _checks
from rmtbn._modules import is_altered, layers
from rmtbn.measure import batch_statistics
from rmtbn.measure.tangents import has_rule


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pass:
    """What a forward pass has met.

    Parameters
    ----------
    shapes
        Of the input and of what each layer makes of it.
    points
        These themselves, the input first, as many as were to be kept.
    """

    shapes: list[torch.Size]
    points: list[Tensor]


@contextmanager
def layer_by_layer(module: nn.Module, batch_stats: str | None) -> Iterator[None]:
    """Let the layers of a network be applied one by one, each at a point that stays what it is.

    Within it, torch's own layers in place make a new tensor, which between layers is the same function; layers that
    change their input in another way are refused by `check_output`. For the rest, see `batch_statistics.fixed`.

    Parameters
    ----------
    module
        The network, left as it is found; of an ensemble, the one whose layers are called with the weights of all.
    batch_stats
        As `batch_statistics.resolve` returns it.
    """
    found = {id(layer): layer for _, layer in layers(module)}.values()
    in_place = [(layer, layer.__dict__["inplace"]) for layer in found if _works_in_place(layer)]
    with batch_statistics.fixed(module, batch_stats):
        try:
            for layer, _ in in_place:
                layer.inplace = False  # type: ignore[assignment]
            yield
        finally:
            for layer, before in in_place:
                layer.inplace = before


def _works_in_place(layer: nn.Module) -> bool:
    asked = bool(layer.__dict__.get("inplace"))
    return asked and type(layer).__module__.startswith("torch.nn.") and not is_altered(layer)


def check_input(module: nn.Module, x: Tensor) -> None:
    """Refuse inputs that are no finite floating-point batch of the module's dtype and device.

    Raises
    ------
    InvalidArgumentError
        Naming what is wrong with `x`, or `module` if it waits for a first input to know its shapes.
    """
    _checks.instance("x", x, Tensor, "a tensor")
    if not x.is_floating_point():
        raise _checks.fail("x", "of a floating-point dtype", x.dtype)
    if x.ndim < 2 or x.numel() == 0:
        raise _checks.fail("x", "a non-empty batch (B, ...features)", tuple(x.shape))
    if not bool(torch.isfinite(x).all()):
        raise _checks.fail("x", "finite", "inf or nan")
    for parameter in module.parameters():
        if is_lazy(parameter):
            raise _checks.fail(
                "module", "of layers that know their shapes (call lazy ones once)", type(module).__name__
            )
        if parameter.is_floating_point() and (parameter.dtype, parameter.device) != (x.dtype, x.device):
            rule = f"of the module's dtype and device ({parameter.dtype}, {parameter.device})"
            raise _checks.fail("x", rule, (x.dtype, x.device))


def check_output(module: nn.Module, x: Tensor, *, keep: int = 0) -> Pass:
    """Refuse a module that does not map batch to batch, is not finite at x or gives another answer the second time.

    Nor may a layer change its input. Those of which the rule is known do not draw, and are not asked twice.

    Parameters
    ----------
    module, x
        Checked.
    keep
        Bytes that the points beyond x may take that are kept; later ones are left out.

    Raises
    ------
    InvalidArgumentError
        Naming the module, or `x` where it holds too few examples for batch statistics.
    """
    output, shapes, points, known = x.clone(), [x.shape], [x], True
    try:
        for name, layer in layers(module):
            point, version = output, _version(output)
            output = layer(point)
            if _version(point) != version:
                culprit = f"{name or 'itself'}, {type(layer).__name__}, which works on it in place"
                raise _checks.fail("module", "made of layers that leave what they are given as it is", culprit)
            shapes.append(output.shape if isinstance(output, Tensor) else torch.Size())
            keep -= output.nbytes if isinstance(output, Tensor) else keep
            points += [output] if keep >= 0 and len(points) == len(shapes) - 1 else []
            known = known and has_rule(layer)
    except ValueError as error:
        if "more than 1 value per channel" in str(error):
            rule = "at least 2 examples where batch normalisation uses batch statistics"
            raise _checks.fail("x", rule, len(x)) from None
        raise
    if not isinstance(output, Tensor) or output.ndim < 2 or output.shape[0] != x.shape[0]:
        found = tuple(output.shape) if isinstance(output, Tensor) else type(output)
        raise _checks.fail("module", f"a map from a batch of {len(x)} to a tensor of as many rows", found)
    if not bool(torch.isfinite(output).all()):
        raise _checks.fail("module", "finite at x", "inf or nan in its output")
    if not known and not torch.allclose(module(x), output, rtol=torch.finfo(x.dtype).eps ** 0.5):
        raise _checks.fail("module", "deterministic (put dropout in eval mode)", "another output for the same x")
    return Pass(shapes=shapes, points=points)


def _version(point: object) -> int:
    """How often a tensor has been changed in place."""
    return point._version if isinstance(point, Tensor) and not point.is_inference() else 0


def couples(module: nn.Module, x: Tensor) -> bool:
    """Tell whether a tangent in the first example reaches the output of another."""
    if x.shape[0] == 1:
        return False
    tangent = torch.zeros_like(x)
    tangent[0] = torch.randn(x[0].shape, dtype=x.dtype, generator=torch.Generator().manual_seed(0)).to(x.device)
    return bool((jvp(module, (x,), (tangent,))[1][1:] != 0).any())
