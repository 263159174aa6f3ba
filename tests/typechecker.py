"""The run-time type checker of the tests: functions of the package check types and shapes as they are called.

Types are beartype's (ints are welcome where floats are, as in PEP 484), shapes are jaxtyping's: the name of a dimension
stands for one size in one call. jaxtyping's own import hook does the same at several times the price: it checks each
argument twice, builds the check of a function within a function anew whenever the outer one runs, and compiles every
library imported meanwhile. Functions within functions are left to mypy here.
"""

import ast
import dataclasses
import functools
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import CodeType, ModuleType
from typing import Any, get_args

from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray, jaxtyped

NAME = "__typechecked__"  # of the decorator, in the modules that are checked

_typed = beartype(conf=BeartypeConf(is_pep484_tower=True))


def install(package: str) -> None:
    """Let every module of `package` that is imported from now on check its calls."""
    sys.meta_path.insert(0, _Finder(package))


def typechecked(target: Any) -> Any:
    """Give a function that checks its arguments and its value, or a dataclass that checks its fields."""
    if isinstance(target, type):
        if dataclasses.is_dataclass(target):
            target.__init__ = typechecked(target.__init__)
        return target
    _forget_unreadable(target)
    hints = target.__annotations__.values()
    typed = _typed(target) if hints else target
    return _with_own_dimensions(typed) if any(map(_has_shape, hints)) else typed


def _forget_unreadable(function: Any) -> None:
    """Replace a quoted hint that only a static checker can read (`"pd.Series[Any]"`) by Any."""
    for name, hint in function.__annotations__.items():
        if isinstance(hint, str):
            try:
                eval(hint, function.__globals__)
            except NameError:  # defined later, or elsewhere: beartype looks for it at the first call
                continue
            except TypeError:
                function.__annotations__[name] = Any


def _has_shape(hint: object) -> bool:
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        return True
    return isinstance(hint, str) or any(map(_has_shape, get_args(hint)))


def _with_own_dimensions(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with jaxtyped("context"):
            return function(*args, **kwargs)

    return call


class _Finder(MetaPathFinder):
    """Finds a module of the package where the other finders do, and has it loaded with its checks."""

    def __init__(self, package: str) -> None:
        self._package = package

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.split(".", maxsplit=1)[0] != self._package:
            return None
        others = (finder.find_spec(fullname, path, target) for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, others), None)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    """Decorates the functions and classes of a module; the compiled form on disk stays that of the module itself."""

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002 (the loader's interface)
        tree = ast.parse(self.get_data(self.path), self.path)
        _decorate(tree)
        return compile(tree, self.path, "exec", dont_inherit=True)

    def exec_module(self, module: ModuleType) -> None:
        setattr(module, NAME, typechecked)
        super().exec_module(module)


def _decorate(node: ast.AST) -> None:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef):  # innermost: what other decorators make of it is theirs
            child.decorator_list.append(_decorator(child))
        elif isinstance(child, ast.ClassDef):  # outermost: a dataclass has its fields by then
            _decorate(child)
            child.decorator_list.insert(0, _decorator(child))
        elif isinstance(child, ast.If):
            _decorate(child)


def _decorator(node: ast.stmt) -> ast.Name:
    return ast.copy_location(ast.Name(NAME, ast.Load()), node)
