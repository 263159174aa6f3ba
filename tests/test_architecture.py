"""The rooms of the package and the arrows between them, read off the source; and the rules every file keeps."""

import ast
import functools
import graphlib
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE, ANALYSES = ROOT / "rmtbn", ROOT / "analyses"

EVERYWHERE = {"_checks", "_modules", "rng"}
EVERYTHING = {"*"}
# room → rooms (or rooms' modules) it may import. `inits` asks the mean field where a scheme is critical: the one arrow
# from what torch may touch into theory, and only to that module. `data` and `sweep` know nothing of ours.
ARROWS: dict[str, set[str]] = {
    "_checks": set(),
    "rng": set(),
    "_likeness": set(),
    "_modules": {"_likeness"},
    "result": set(),
    "activations": set(),
    "inits": {"activations", "theory.mean_field"},
    "linalg": {"result"},
    "theory": {"activations", "result"},
    "nets": {"activations", "inits"},
    "data": set(),
    "measure": {"linalg", "result"},
    "train": set(),
    "compare": {"result"},
    "sweep": set(),
    "plot": {"result"},
    "report": set(),
    "diagnose": EVERYTHING,  # but analyses, which nothing imports
    "analyses": EVERYTHING,
}
NO_TORCH = ("_checks", "result", "activations", "theory", "compare", "plot", "report")
NO_PLOTTING = ("result", "activations", "inits", "linalg", "theory", "nets", "data", "measure", "compare", "sweep")
FILES = sorted([*PACKAGE.rglob("*.py"), *ANALYSES.rglob("*.py")])
LONGEST = 300


def module_name(path: Path) -> str:
    """Dotted name as installed: `analyses/schemes.py` is rmtbn.analyses.schemes."""
    relative = path.relative_to(ROOT).with_suffix("")
    parts = relative.parts if relative.parts[0] == "rmtbn" else ("rmtbn", *relative.parts)
    return ".".join(parts).removesuffix(".__init__")


def room_of(module: str) -> str:
    """First name below rmtbn: rmtbn.theory.mean_field is in the room theory."""
    return module.split(".")[1] if "." in module else "rmtbn"


MODULES = {module_name(path): path for path in FILES}
LIBRARY = [path for path in FILES if PACKAGE in path.parents]


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def offenders(rule: Callable[[Path], Collection[str]], files: list[Path] = FILES) -> dict[str, list[str]]:
    """What a rule objects to, file by file: empty where all keep it, and else what a failing test shows."""
    return {module_name(path): sorted(found) for path in files if (found := rule(path))}


@functools.cache
def imported(path: Path) -> frozenset[str]:
    """Every module a file imports, at whatever level; `from rmtbn.theory import mean_field` names mean_field."""
    return frozenset(_imported(path))


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = origin(node, path)
            names = [f"{source}.{alias.name}" for alias in node.names]
            submodules = [name for name in names if name in MODULES]
            yield from submodules
            if len(submodules) < len(names):
                yield source


def origin(node: ast.ImportFrom, path: Path) -> str:
    """Dotted name after `from`, relative imports resolved."""
    parents = [*module_name(path).split("."), *(["__init__"] if path.name == "__init__.py" else [])]
    above = parents[: len(parents) - node.level] if node.level else []
    return ".".join([*above, *([node.module] if node.module else [])])


def ours(path: Path) -> set[str]:
    return {name for name in imported(path) if name.split(".")[0] in {"rmtbn", "analyses"}}


def allowed(room: str, target: str) -> bool:
    """Whether a file of `room` may import the module `target`."""
    there = room_of(target)
    within = there == room or there in EVERYWHERE or target == "rmtbn"
    named = ARROWS[room] & {there, target.removeprefix("rmtbn.")}
    return within or bool(named) or (ARROWS[room] == EVERYTHING and (there != "analyses" or room == "analyses"))


def test_every_room_is_in_the_plan():
    """Section 2 of the design lists them; a new room is a decision, not an accident."""
    rooms = {room_of(name) for name in MODULES} - {"rmtbn"}
    assert rooms <= set(ARROWS)


def test_files_import_only_along_the_arrows():
    """Import only what follows ← in section 2 of the design, at module or function level."""
    assert not offenders(against_the_arrows)


def against_the_arrows(path: Path) -> set[str]:
    room = room_of(module_name(path))
    return ours(path) if room == "rmtbn" else {target for target in ours(path) if not allowed(room, target)}


def test_the_rule_of_the_arrows_can_fail():
    """What the design forbids is refused by the rule above, and what it allows is not."""
    assert not allowed("measure", "rmtbn.theory.mean_field")
    assert not allowed("measure", "rmtbn.nets.mlp")
    assert not allowed("inits", "rmtbn.theory.gauss_hermite")
    assert not allowed("theory", "rmtbn.analyses.schemes")
    assert not allowed("diagnose", "rmtbn.analyses.schemes")
    assert not allowed("data", "rmtbn.result")
    assert allowed("inits", "rmtbn.theory.mean_field")
    assert allowed("analyses", "rmtbn.measure.jacobian")
    assert allowed("linalg", "rmtbn._checks")


def test_imports_have_no_cycle():
    """Files can be listed so that each imports only those above it."""
    graph = {name: {t for t in ours(path) if t in MODULES and t != name} for name, path in MODULES.items()}
    packages = {name for name in MODULES if MODULES[name].name == "__init__.py"}
    list(graphlib.TopologicalSorter({name: targets - packages for name, targets in graph.items()}).static_order())


@pytest.mark.parametrize("room", NO_TORCH)
def test_rooms_without_torch_never_import_it(room):
    """Theory, comparison, plots and pages are numpy; torch's forms live in the rooms of networks."""
    found = [name for name, path in MODULES.items() if room_of(name) == room and uses(path, "torch")]
    assert not found


@pytest.mark.parametrize("room", NO_PLOTTING)
def test_rooms_that_compute_never_import_matplotlib(room):
    """Statistics never import matplotlib; only plot, report and analyses do."""
    found = [name for name, path in MODULES.items() if room_of(name) == room and uses(path, "matplotlib", "seaborn")]
    assert not found


def uses(path: Path, *libraries: str) -> bool:
    return any(name.split(".")[0] in libraries for name in imported(path))


def loaded_by(modules: list[str]) -> set[str]:
    """Top-level packages in memory after importing `modules` in a fresh interpreter."""
    code = f"import sys\nfor m in {modules!r}: __import__(m)\nprint(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


def test_theory_loads_without_torch():
    """Importing every module of rmtbn.theory, and rmtbn.compare, leaves torch out of the process."""
    rooms = {"theory", "compare"}
    assert "torch" not in loaded_by([name for name in MODULES if room_of(name) in rooms])


def test_importing_the_package_is_light():
    """`rmtbn --help` answers at once: the package itself loads none of its dependencies."""
    heavy = {"torch", "numpy", "scipy", "sympy", "mpmath", "pandas", "matplotlib", "sklearn", "pyarrow"}
    assert not loaded_by(["rmtbn"]) & heavy


def test_files_are_short():
    """Beyond 300 lines there is a second concept to find."""
    lines = {module_name(path): len(path.read_text().splitlines()) for path in FILES}
    assert not {name: count for name, count in lines.items() if count > LONGEST}


def test_functions_are_short():
    """No function body passes 50 lines, docstrings not counted."""
    assert not offenders(lambda path: [node.name for node in functions(path) if body_lines(node) > 50])


def functions(path: Path) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.FunctionDef)]


def body_lines(function: ast.FunctionDef) -> int:
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


GLOBAL = {
    "print",
    "torch.manual_seed",
    "torch.seed",
    "torch.cuda.manual_seed_all",
    "torch.set_default_dtype",
    "torch.set_default_device",
    "torch.set_default_tensor_type",
    "torch.set_num_threads",
    "torch.use_deterministic_algorithms",
    "np.random.seed",
    "np.seterr",
    "random.seed",
    "warnings.filterwarnings",
    "warnings.simplefilter",
}


def test_the_library_never_prints_nor_touches_global_state():
    """No print; no global seed, default dtype, default device or error state set outside a with-statement."""
    assert not offenders(lambda path: GLOBAL & calls(path), LIBRARY)


def calls(path: Path) -> set[str]:
    """What a file calls by name, as it is written there."""
    return {
        ast.unparse(node.func)
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute)
    }


def test_public_names_have_docstrings():
    """Modules, and public classes, functions and methods at module level, say what they are."""
    assert not offenders(nameless)


def nameless(path: Path) -> list[str]:
    tree = tree_of(path)
    silent = [node.name for node in public(tree) if not ast.get_docstring(node) and not is_overload(node)]
    return silent if ast.get_docstring(tree) else ["the module", *silent]


def test_functions_of_many_arguments_describe_them():
    """A public function of the library with four or more arguments has a section Parameters."""
    assert not offenders(undescribed, [path for path in LIBRARY if not path.name.startswith("_")])


def undescribed(path: Path) -> list[str]:
    return [
        node.name
        for node in tree_of(path).body
        if isinstance(node, ast.FunctionDef)
        and not node.name.startswith("_")
        and len(node.args.args + node.args.kwonlyargs) >= 4
        and "Parameters\n----------" not in (ast.get_docstring(node) or "")
        and not is_overload(node)
    ]


def test_functions_take_at_most_three_positional_arguments():
    """At most three (the mathematical objects), then `*`; private modules such as _checks are exempt."""
    assert not offenders(crowded, [path for path in FILES if not path.name.startswith("_")])


def crowded(path: Path) -> list[str]:
    return [
        node.name
        for node in functions(path)
        if not node.name.startswith("_")
        and not is_overload(node)
        and not is_command(node)
        and len([a for a in node.args.args if a.arg not in {"self", "cls"}]) > 3
    ]


BAD = (
    """
import torch
from rmtbn.theory import mean_field

def f(a, b, c, d):
    torch.manual_seed(1)
    print(a)
"""
    + "    a = 1\n" * 60
)


def test_every_rule_can_be_broken(tmp_path, monkeypatch):
    """A file of `measure` that imports theory, prints, seeds, and is long, crowded and silent; and one that is well."""
    (tmp_path / "rmtbn" / "measure").mkdir(parents=True)
    bad, good = (tmp_path / "rmtbn" / "measure" / f"{name}.py" for name in ("bad", "good"))
    bad.write_text(BAD)
    good.write_text('"""Good."""\n\nfrom rmtbn.linalg import product\n')
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    assert against_the_arrows(bad) == {"rmtbn.theory.mean_field"}
    assert GLOBAL & calls(bad) == {"print", "torch.manual_seed"}
    assert nameless(bad) == ["the module", "f"]
    assert undescribed(bad) == crowded(bad) == ["f"]
    assert offenders(lambda path: [node.name for node in functions(path) if body_lines(node) > 50], [bad, good]) == {
        "rmtbn.measure.bad": ["f"]
    }
    for rule in (against_the_arrows, nameless, undescribed, crowded):
        assert not rule(good)


def public(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    """Public functions and classes of a module, and the public methods of its public classes."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from (m for m in node.body if isinstance(m, ast.FunctionDef) and not m.name.startswith("_"))


def decorators(node: ast.FunctionDef | ast.ClassDef) -> set[str]:
    return {ast.unparse(decorator).split("(")[0] for decorator in node.decorator_list}


def is_overload(node: ast.FunctionDef | ast.ClassDef) -> bool:
    return "overload" in decorators(node)


def is_command(node: ast.FunctionDef | ast.ClassDef) -> bool:
    return any(name.split(".")[-1] in {"command", "group"} for name in decorators(node))
