"""Modules of torch: what a network is made of, and whether several differ in the values of their tensors only."""

from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from operator import itemgetter
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.parametrize import type_before_parametrizations

from rmtbn import _checks
from rmtbn._likeness import Twins, do_the_same, equal

# What torch keeps in every module; hooks and forwards, which are looked at apart; and whether a layer works in place or
# is compiled, which is no part of its function.
_NO_SETTINGS = (vars(nn.Module()).keys() - {"training"}) | {"forward", "inplace", "_compiled_call_impl"}


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


def call(module: nn.Module, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Apply a module to x with other tensors in place of its own, wherever it holds these.

    `torch.func.functional_call` leaves a module that holds another one twice with the tensors of the call (pytorch
    issue 164759).

    Parameters
    ----------
    module
        Left as it is found.
    tensors
        By the names of parameters and buffers.
    x
        Its input.
    """
    places = [
        (f"{name}.{key}".removeprefix("."), held)
        for name, part in module.named_modules()
        for key, held in _tensors(part).items()
    ]
    new = {id(held): tensors[place] for place, held in places if place in tensors}
    put = {place: new[id(held)] for place, held in places if id(held) in new}
    return cast(Tensor, functional_call(module, put, (x,), tie_weights=False))


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
        for part, column in zip(row[1:], columns[1:], strict=True):
            if like is None or part is None or not like(part, (columns[0], column)):
                first, second = (same[0] if found is None else found for found in (row[0], part))
                raise _difference(name, first, second, twins=(columns[0], column))
    if _may_share(columns[0]) and len({_wiring(column) for column in columns}) > 1:
        rule = "networks of one architecture, which share the same of their parts and tensors"
        raise _checks.fail("modules", rule, f"others at {name or 'the top'}")


def _may_share(found: Sequence[nn.Module]) -> bool:
    """Tell whether a part or a tensor may be there twice: there are several, of one form if of one module."""
    count = len(_tensors(found[0]))
    return len(found) > 1 or (count > 1 and len({*_forms(found[0]).values()}) < count)


def _wiring(found: Sequence[nn.Module]) -> tuple[int, ...]:
    """Return a number for each child and tensor of parts, in their order: that of an object, 0 for none."""
    seen = {id(None): 0}
    tables = (table for part in found for table in (part._modules, part._parameters, part._buffers) if table)
    return tuple([seen.setdefault(id(held), len(seen)) for table in tables for held in table.values()])


def _difference(place: str, first: nn.Module, second: nn.Module, *, twins: Twins) -> _checks.InvalidArgumentError:
    """Say in what a part of a layer is not that of another network."""
    inner = next((name for name, part in twins[0][0].named_modules() if part is first), "")
    where = ".".join(filter(None, (place, inner))) or "the top"
    if not do_the_same(_alterations(first), _alterations(second), twins):
        rule = "networks with the same hooks and patched forwards, as one call serves all; measure one at a time"
        return _checks.fail("modules", rule, where)
    if first.training != second.training:
        modes = ("train" if part.training else "eval" for part in (first, second))
        return _checks.fail("modules", "networks in the same mode, train or eval", f"{' and '.join(modes)} at {where}")
    found = " and ".join(_described(part) for part in (first, second))
    names = dict.fromkeys([*_settings(first), *_settings(second)])
    other = [name for name in names if not do_the_same(vars(first).get(name), vars(second).get(name), twins)]
    listed = f", which differ in {', '.join(other)}" if other else ""
    return _checks.fail("modules", "networks of one architecture", f"{found} at {where}{listed}")


def _settings(module: nn.Module) -> list[str]:
    return [name for name in vars(module) if name not in _NO_SETTINGS]


def _alterations(module: nn.Module) -> list[object]:
    """Hooks, and a forward set on the instance."""
    return [[*module._forward_pre_hooks.values()], [*module._forward_hooks.values()], vars(module).get("forward")]


def _described(module: nn.Module) -> str:
    shapes = [f"{name} {tuple(held.shape)}" for name, held in _tensors(module).items() if held is not None]
    inside = ", ".join(filter(None, (module.extra_repr(), *shapes, *module._modules)))
    return f"{type(module).__name__}({inside})"


def _likeness(base: nn.Module) -> Callable[[nn.Module, Twins], bool]:
    """Return a test whether a module is of the class, settings and shapes of another, its children not looked at."""
    names, size, altered = _settings(base), len(vars(base)), is_altered(base)
    kind, children, forms = type(base), [*base._modules], _forms(base)
    read = itemgetter(*names)
    settings, whole = read(vars(base)), type_before_parametrizations(base)

    def like(module: nn.Module, twins: Twins) -> bool:
        own = module.__dict__
        other = type(module) is not kind and type_before_parametrizations(module) is not whole
        if (
            other
            or (len(own) != size and {*_settings(module)} != {*names})
            or ((children or own["_modules"]) and [*own["_modules"]] != children)
            or ((forms or own["_parameters"] or own["_buffers"]) and _forms(module) != forms)
            or ((altered or is_altered(module)) and not do_the_same(_alterations(base), _alterations(module), twins))
        ):
            return False
        try:
            found = read(own)
        except KeyError:
            return False
        return bool(equal(settings, found)) or do_the_same(settings, found, twins)

    return like


def _forms(module: nn.Module) -> dict[str, object]:
    """Shapes, dtypes and devices of the tensors of a module by name, and whether they are buffers."""
    buffers, held = module._buffers, _tensors(module).items()
    try:
        return {name: x if x is None else (x.shape, x.dtype, x.device, name in buffers) for name, x in held}
    except RuntimeError:  # of a lazy layer
        rule = "networks whose lazy layers know their shapes (call them once)"
        raise _checks.fail("modules", rule, type(module).__name__) from None


def _tensors(module: nn.Module) -> Mapping[str, Tensor | None]:
    return {**module._parameters, **module._buffers} if module._buffers else module._parameters
