"""Modules of torch: what a network is made of, and whether several differ in the values of their tensors only."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import zip_longest
from operator import itemgetter
from types import FunctionType, MethodType
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from rmtbn import _checks

# What torch keeps in every module; hooks and forwards, which are looked at apart; and whether a layer works in place,
# which is no part of its function.
_NO_SETTINGS = (vars(nn.Module()).keys() - {"training"}) | {"forward", "inplace"}


def parts(module: nn.Module) -> list[nn.Module]:
    """Return the modules of `module.modules()`: each once, itself first, by generations.

    Without the names that torch's walk builds on the way and throws away: they took as long as pushing tangents through
    an ensemble of small networks.
    """
    found = {id(module): module}
    ahead = [module]
    while ahead:
        for child in ahead.pop()._modules.values():
            if child is not None and id(child) not in found:
                found[id(child)] = child
                if child._modules:
                    ahead.append(child)
    return list(found.values())


def layers(module: nn.Module, prefix: str = "") -> list[tuple[str, nn.Module]]:
    """Flatten sequential containers, nested ones too, into (dotted name, layer) in the order of the forward pass.

    A module that is no `Sequential`, or one with hooks or a forward of its own, is one layer, named "" at the top. A
    layer that is used twice is there twice.
    """
    plain = type(module).forward is nn.Sequential.forward and not is_altered(module)
    children = [(name, child) for name, child in module._modules.items() if child is not None] if plain else []
    found = []
    for name, child in children:
        found += layers(child, f"{prefix}{name}.") if child._modules else [(prefix + name, child)]
    return found or [(prefix.removesuffix("."), module)]


def is_altered(module: nn.Module) -> bool:
    """Tell whether hooks, or a forward set on the instance, change what its class does."""
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__)


def stacked_state(same: Sequence[nn.Module]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return parameters and buffers by name, those of modules that are alike side by side.

    As `torch.func.stack_module_state`, for modules of which one is set to another mode: the one that is called.
    """
    parameters = [dict(module.named_parameters()) for module in same]
    buffers = [dict(module.named_buffers()) for module in same]
    return _stacked(parameters), _stacked(buffers)


def _stacked(tables: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    return {name: torch.stack([table[name] for table in tables]) for name in tables[0]}


def check_alike(name: str, same: Sequence[nn.Module]) -> None:
    """Refuse modules that one call for all (`torch.func.functional_call` of the first) would not run as each alone.

    They may differ in the values of parameters and buffers. Hooks, and forwards set on an instance, must be the same:
    those of the first are what is run.

    Parameters
    ----------
    name
        Where they are in their networks, for the message; "" for these themselves.
    same
        One or more.

    Raises
    ------
    InvalidArgumentError
        Naming `modules`, the place and the difference.
    """
    if len(same) == 1:
        return
    columns = [parts(module) if module._modules else [module] for module in same]
    for row in zip_longest(*columns):
        like = _likeness(row[0]) if row[0] is not None else None
        for part in row:
            if like is None or part is None or not like(part):
                first, second = (same[0] if found is None else found for found in (row[0], part))
                raise _difference(name, same[0], first, second)


def _difference(place: str, module: nn.Module, first: nn.Module, second: nn.Module) -> _checks.InvalidArgumentError:
    """Say in what a part of a layer is not that of another network."""
    inner = next((name for name, part in module.named_modules() if part is first), "")
    where = ".".join(filter(None, (place, inner))) or "the top"
    if not _agree(first, second, _alterations):
        rule = "networks with the same hooks and patched forwards, as one call serves all; measure one at a time"
        return _checks.fail("modules", rule, where)
    if first.training != second.training:
        modes = ("train" if part.training else "eval" for part in (first, second))
        return _checks.fail("modules", "networks in the same mode, train or eval", f"{' and '.join(modes)} at {where}")
    found = " and ".join(_described(part) for part in (first, second))
    other = [name for name in _settings(first) if not _agree(first, second, partial(_setting, name))]
    names = f", which differ in {', '.join(other)}" if other else ""
    return _checks.fail("modules", "networks of one architecture", f"{found} at {where}{names}")


def _settings(module: nn.Module) -> list[str]:
    return [name for name in vars(module) if name not in _NO_SETTINGS]


def _setting(name: str, module: nn.Module) -> object:
    return vars(module).get(name)


def _alterations(module: nn.Module) -> list[object]:
    """Hooks, and a forward set on the instance."""
    return [[*module._forward_pre_hooks.values()], [*module._forward_hooks.values()], vars(module).get("forward")]


def _agree(first: nn.Module, second: nn.Module, read: Callable[[nn.Module], object]) -> bool:
    """Compare what two modules hold; where they hold themselves, as in bound methods, that is the same."""
    return _same(read(first), read(second), {(id(first), id(second)): None})


def _described(module: nn.Module) -> str:
    shapes = [f"{name} {tuple(held.shape)}" for name, held in _tensors(module).items() if held is not None]
    inside = ", ".join(filter(None, (module.extra_repr(), *shapes, *module._modules)))
    return f"{type(module).__name__}({inside})"


def _likeness(base: nn.Module) -> Callable[[nn.Module], bool]:
    """Return a test whether a module is of the class, settings and shapes of another, its children not looked at."""
    read = itemgetter(*_settings(base))
    settings, kind, children, forms = read(vars(base)), type(base), base._modules.keys(), _forms(base)
    altered = is_altered(base)

    def like(module: nn.Module) -> bool:
        if type(module) is not kind and type_before_parametrizations(module) is not type_before_parametrizations(base):
            return False
        try:
            found = read(module.__dict__)
        except KeyError:
            return False
        if (children or module._modules) and module._modules.keys() != children:
            return False
        if (forms or module._parameters or module._buffers) and _forms(module) != forms:
            return False
        if (altered or is_altered(module)) and not _agree(base, module, _alterations):
            return False
        return _equal(found, settings) or _agree(base, module, lambda part: read(vars(part)))

    return like


def _forms(module: nn.Module) -> list[tuple[Any, ...]]:
    """Names, shapes, dtypes and devices of the tensors of a module."""
    return [(name, x if x is None else (x.shape, x.dtype, x.device)) for name, x in _tensors(module).items()]


def _tensors(module: nn.Module) -> Mapping[str, Tensor | None]:
    return {**module._parameters, **module._buffers} if module._buffers else module._parameters


def _equal(a: object, b: object) -> bool:
    """Compare by ==, where arrays have no single answer."""
    try:
        return bool(a == b)
    except (RuntimeError, TypeError, ValueError):
        return False


def _same(a: Any, b: Any, met: dict[tuple[int, int], object]) -> bool:
    """Compare settings that == does not: tensors, functions, and other objects by what they hold."""
    if a is b or (id(a), id(b)) in met:
        return True
    met[id(a), id(b)] = (a, b)  # held, so that no other object gets their ids
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor | np.ndarray):
        return torch.equal(a, b) if isinstance(a, Tensor) else np.array_equal(a, b)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(_same(x, y, met) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key], met) for key in a)
    return _equal(a, b) or (_held(a) is not None and _same(_held(a), _held(b), met))


def _held(value: Any) -> object:
    """Return what tells an object from another of its class; None if that is unknown."""
    if isinstance(value, FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        return (value.__code__, value.__defaults__, value.__kwdefaults__, cells)
    if isinstance(value, partial):
        return (value.func, value.args, value.keywords)
    if isinstance(value, MethodType):
        return (value.__func__, value.__self__)
    return getattr(value, "__dict__", None) if cast(Any, type(value)).__eq__ is object.__eq__ else None
