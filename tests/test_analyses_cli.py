"""The console script as a user meets it: help, one line for every mistake, numbers for scripts, resuming."""

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from rmtbn.analyses import spectrum
from rmtbn.analyses.__main__ import COMMANDS, main

from rmtbn.sweep.grid import Study

SMALL = ("spectrum", "--depth", "3", "--width", "6", "--networks", "2", "--activation", "relu", "--init", "he_normal")


def call(*arguments):
    """Call the console script in this process."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def unwrapped(text):
    """Text without the line breaks of a narrow terminal."""
    return " ".join(text.split())


def process(*arguments):
    """Run a program in a process of its own."""
    return subprocess.run([str(a) for a in arguments], capture_output=True, text=True, check=False, timeout=120)


def numbers(*arguments):
    """Call with --json and return what was printed, refusing NaN and Infinity."""
    result = call(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout, parse_constant=pytest.fail)


def cells(folder):
    """The stored cells of a folder with the time at which each was written."""
    return {path: path.stat().st_mtime_ns for path in Path(folder).rglob("*.parquet")}


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_help_lists_every_command_with_its_line(arguments):
    """`rmtbn`, `rmtbn --help` and `rmtbn -h` are one page, of exit code 0."""
    result = call(*arguments)
    assert result.exit_code == 0
    shown = unwrapped(result.stdout)
    assert all(f"{name} {line}" in shown for name, line in COMMANDS.items())


def test_help_loads_neither_torch_nor_numpy():
    """What makes help immediate: none of the heavy libraries is imported to show it."""
    code = (
        "import sys\n"
        "from click.testing import CliRunner\n"
        "from rmtbn.analyses.__main__ import main\n"
        "assert CliRunner().invoke(main, ['--help']).exit_code == 0\n"
        "print(*sys.modules)"
    )
    found = process(sys.executable, "-c", code)
    assert found.returncode == 0
    loaded = set(found.stdout.split())
    assert "click" in loaded
    assert not {"torch", "numpy", "scipy", "matplotlib", "pandas", "sympy", "pyarrow"} & loaded


def test_console_script_and_module_are_the_group():
    """The entry point of the installed package is what is tested here, and `python -m rmtbn.analyses` is the same."""
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name="rmtbn")
    assert entry.load() is main
    shown = unwrapped(process(sys.executable, "-m", "rmtbn.analyses").stdout)
    assert shown.endswith(unwrapped(call().stdout.partition("\n")[2]))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_line_of_help_and_an_example(name):
    """The line in the list of commands is the first of the help of the command; its example is a call of it."""
    command = importlib.import_module(f"rmtbn.analyses.{name.replace('-', '_')}").command
    assert command.help.partition("\n\n")[0] == COMMANDS[name]
    shown = call(name, "--help")
    assert shown.exit_code == 0
    assert COMMANDS[name] in unwrapped(shown.stdout)
    assert f"Example:\n    rmtbn {name} " in shown.stdout


# `sweep` works on stores (tests/test_analyses_sweep.py), `data` on files (tests/test_analyses_data.py), `train` on one
# network (tests/test_analyses_train.py): no studies.
STUDIES = [name for name in COMMANDS if name not in {"sweep", "data", "train"}]


@pytest.mark.parametrize("name", STUDIES)
def test_every_command_takes_the_common_options_and_describes_all_of_its_options(name):
    """--seed --device --dtype --out --preset --engine --workers --json, each option with help and its default."""
    command = importlib.import_module(f"rmtbn.analyses.{name.replace('-', '_')}").command
    options = {option for parameter in command.params for option in parameter.opts}
    assert options >= {"--seed", "--device", "--dtype", "--out", "--preset", "--engine", "--workers", "--json"}
    for parameter in command.params:
        assert parameter.help
        assert parameter.show_default or parameter.is_flag or not isinstance(parameter.default, str | int | float)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_example_in_the_help_can_be_parsed(name):
    """The example under the help names options that exist, with values they take."""
    command = importlib.import_module(f"rmtbn.analyses.{name.replace('-', '_')}").command
    *_, example = command.epilog.splitlines()
    _, called, *arguments = example.split()
    assert called == name
    command.make_context(name, arguments)


def test_version_is_that_of_the_package():
    """`rmtbn --version` names the version."""
    assert importlib.metadata.version("rmtbn") in call("--version").stdout


WRONG = {
    "unknown command": (("spectra",), "spectra", *COMMANDS),
    "unknown option of the group": (("--width", "3"), "--width"),
    "unknown option": (("spectrum", "--deep", "3"), "--deep"),
    "no value": (("spectrum", "--depth"), "--depth"),
    "surplus argument": (("info", "all"), "all"),
    "unknown activation": (("spectrum", "--activation", "swish"), "swish", "silu"),
    "unknown scheme": (("spectrum", "--init", "xavier"), "xavier", "glorot_normal"),
    "unknown norm": (("spectrum", "--norm", "layer"), "layer", "batch"),
    "unknown preset": (("schemes", "--preset", "tiny"), "tiny", "quick"),
    "unknown dtype": (("schemes", "--dtype", "float16"), "float16", "float64"),
    "unknown engine": (("schemes", "--engine", "cluster"), "cluster", "inline"),
    "depth 0": (("spectrum", "--depth", "0"), "--depth", "0"),
    "width 0": (("spectrum", "--width", "0"), "--width", "0"),
    "no networks": (("spectrum", "--networks", "0"), "--networks", "0"),
    "depth that is no number": (("spectrum", "--depth", "deep"), "--depth", "deep"),
    "negative seed": (("schemes", "--seed", "-1"), "--seed", "-1"),
    "batch of 1 under batch normalisation": (("spectrum", "--norm", "batch", "--batch-size", "1"), "batch", "1"),
    "negative σ_w": (("spectrum", "--init", "gaussian", "--sigma-w", "-1"), "sigma", "-1"),
    "σ_w of 0": (("spectrum", "--init", "gaussian", "--sigma-w", "0"), "sigma_w", "0"),
    "σ_w that is no number": (("spectrum", "--init", "gaussian", "--sigma-w", "nan"), "sigma_w", "nan"),
    "negative σ_b": (("spectrum", "--init", "critical", "--sigma-b", "-0.1"), "sigma", "-0.1"),
    "σ_w for a scheme that sets it": (("spectrum", "--init", "he_normal", "--sigma-w", "1"), "sigma_w", "he_normal"),
    "no σ_w for the scheme that needs it": (("spectrum", "--init", "gaussian"), "sigma_w", "gaussian"),
    "missing file": (("spectrum", "--data", "nowhere.npy"), "nowhere.npy"),
    "missing folder": (("schemes", "--data", "nowhere"), "nowhere"),
    "folder without images": (("schemes", "--data", "empty"), "empty", "data_batch_*.bin"),
    "file of the wrong length": (("schemes", "--data", "short"), "data_batch_1.bin", "3072"),
    "label above 9": (("schemes", "--data", "labels"), "data_batch_1.bin", "label 12"),
    "NaN in the data": (("schemes", "--data", "nan.npy"), "nan.npy", "NaN"),
    "infinity in the data": (("spectrum", "--data", "inf.npy"), "inf.npy", "infinity"),
    "no array in the file": (("spectrum", "--data", "text.npy"), "text.npy"),
    "too few examples": (("schemes", "--preset", "quick", "--data", "few.npy"), "few.npy", "at least 32"),
    "device that is not there": (("spectrum", "--device", "cuda:99"), "cuda:99", "'cpu'"),
    "device of no known kind": (("info", "--device", "abacus"), "abacus", "'cpu'"),
    "device that holds no numbers": (("info", "--device", "meta"), "meta", "'cpu'"),
    "workers without an engine for them": (("schemes", "--engine", "inline", "--workers", "2"), "workers", "2"),
    "no workers": (("schemes", "--engine", "local", "--workers", "0"), "--workers", "0"),
    "file as folder": (("spectrum", "--out", "few.npy"), "few.npy"),
    "no reports to list": (("report",), "out", "rmtbn schemes"),
    "folder as picture": (("spectrum", "--png", "empty"), "empty"),
    "picture in a folder that is not there": (("spectrum", "--png", "nowhere/s.png"), "nowhere"),
}


@pytest.fixture
def wrong_files(tmp_path, monkeypatch):
    """A working directory with every kind of file that is no good."""
    monkeypatch.chdir(tmp_path)
    good = np.random.default_rng(1).normal(size=(40, 6))
    for name, value in (("nan", np.nan), ("inf", np.inf)):
        bad = good.copy()
        bad[3, 2] = value
        np.save(f"{name}.npy", bad)
    np.save("few.npy", good[:5])
    Path("text.npy").write_text("six numbers")
    for folder, content in (("empty", None), ("short", bytes(3072)), ("labels", bytes([12]) + bytes(3072))):
        Path(folder).mkdir()
        if content is not None:
            Path(folder, "data_batch_1.bin").write_bytes(content)
    return tmp_path


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_is_one_clear_line_and_writes_nothing(case, wrong_files):
    """Exit code 2, one line on stderr that names what is wrong, nothing on stdout, no traceback, no file."""
    arguments, *named = WRONG[case]
    before = sorted(wrong_files.rglob("*"))
    result = call(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    for text in named:
        assert text in result.stderr
    assert sorted(wrong_files.rglob("*")) == before  # no reports/, which is where they would go


def test_the_installed_script_ends_a_mistake_the_same_way(tmp_path):
    """The process itself: exit code 2, one line, no traceback, no folder."""
    script = Path(sys.executable).with_name("rmtbn")
    found = process(script, "spectrum", "--depth", "0", "--out", tmp_path / "reports")
    assert found.returncode == 2
    assert found.stdout == ""
    assert found.stderr == "Error: Invalid value for '--depth': 0 is not in the range x>=1.\n"
    assert not list(tmp_path.iterdir())


def test_what_fails_though_it_was_asked_well_ends_with_exit_code_1(tmp_path, monkeypatch):
    """A cell that breaks: one line that names study and cell, exit code 1."""

    def broken(*, seed, **parameters):
        raise ZeroDivisionError("of the weights")

    monkeypatch.setattr(spectrum, "STUDY", Study(name="spectrum", version=1, compute=broken))
    result = call(*SMALL, "--out", tmp_path)
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "2 of 2 cells failed" in result.stderr
    assert "ZeroDivisionError: of the weights" in result.stderr


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    """Exit code 1 and the name of the file, no traceback."""
    (tmp_path / "file").write_text("")
    result = call(*SMALL, "--out", tmp_path / "file" / "reports")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert str(tmp_path / "file") in result.stderr


@pytest.mark.parametrize("arguments", [SMALL, ("info",)])
def test_json_is_strict_alone_on_stdout_and_writes_nothing(arguments, tmp_path, monkeypatch):
    """One JSON object, where ±∞ and NaN are null; no file anywhere."""
    monkeypatch.chdir(tmp_path)
    found = numbers(*arguments)
    assert found
    assert not list(tmp_path.iterdir())


def test_json_of_the_list_of_reports_writes_no_list(tmp_path):
    """`rmtbn report --json` says what `rmtbn report` would list."""
    call(*SMALL, "--out", tmp_path)
    found = numbers("report", "--out", tmp_path)
    assert list(found) == ["spectrum/index.html"]
    assert "ReLU" in found["spectrum/index.html"]["title"]
    assert not (tmp_path / "index.html").exists()


def test_reports_are_listed_and_linked(tmp_path):
    """`rmtbn report` writes index.html with a link to every page, and says where."""
    assert call(*SMALL, "--out", tmp_path).exit_code == 0
    result = call("report", "--out", tmp_path)
    assert result.stdout.strip() == str(tmp_path / "index.html")
    assert 'href="spectrum/index.html"' in (tmp_path / "index.html").read_text()


def test_a_command_ends_with_the_path_of_its_page(tmp_path):
    """The last line on stdout; the page is there and self-contained, and nothing is on stderr."""
    result = call(*SMALL, "--out", tmp_path / "reports")
    path = Path(result.stdout.splitlines()[-1])
    assert path == tmp_path / "reports" / "spectrum" / "index.html"
    assert path.read_text().startswith("<!doctype html>")
    assert result.stderr == ""


def test_a_finished_run_computes_nothing_again(tmp_path):
    """The second call rewrites the page and no cell."""
    call(*SMALL, "--out", tmp_path)
    first = cells(tmp_path)
    assert len(first) == 2
    assert call(*SMALL, "--out", tmp_path).exit_code == 0
    assert cells(tmp_path) == first


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path, monkeypatch):
    """Ctrl-C in the second of three cells: the first is stored, and the next call computes the other two."""
    seeds = []

    def interrupted(*, seed, **parameters):
        seeds.append(seed)
        if seeds == [1, 2]:
            raise KeyboardInterrupt
        return spectrum.cell(seed=seed, **parameters)

    monkeypatch.setattr(spectrum, "STUDY", Study(name="spectrum", version=1, compute=interrupted))
    arguments = (*SMALL, "--networks", "3", "--out", tmp_path)
    assert call(*arguments).exit_code == 1
    assert not (tmp_path / "spectrum" / "index.html").exists()
    first = cells(tmp_path)
    assert len(first) == 1
    assert call(*arguments).exit_code == 0
    assert seeds == [1, 2, 2, 3]
    assert cells(tmp_path).items() > first.items()
    monkeypatch.undo()
    assert call(*arguments).stdout == call(*arguments[:-1], tmp_path / "again").stdout.replace("/again/", "/")


def test_same_seed_same_numbers_and_another_seed_others():
    """Runs with one seed agree to the last bit, wherever they write; another seed is another network."""
    first, again = numbers(*SMALL), numbers(*SMALL)
    assert first == again
    other = numbers(*SMALL, "--seed", "2")
    assert other["log_singular_values"][0] == first["log_singular_values"][1]
    assert other["log_singular_values"][1] not in first["log_singular_values"]


def test_numbers_do_not_depend_on_the_folder(tmp_path):
    """Pages written into two folders show the same table."""
    shown = [call(*SMALL, "--out", tmp_path / name).stdout.splitlines()[:-1] for name in ("a", "b")]
    assert shown[0] == shown[1]


def test_float32_is_the_same_network_to_its_precision():
    """Weights are drawn in float64 and rounded: ln σ agrees to about eps · condition number."""
    double, single = numbers(*SMALL), numbers(*SMALL, "--dtype", "float32")
    assert single["parameters"]["dtype"] == "float32"
    pairs = zip(np.ravel(double["log_singular_values"]), np.ravel(single["log_singular_values"]), strict=True)
    finite = [(a, b) for a, b in pairs if a is not None]
    assert all(abs(a - b) < 1e-3 for a, b in finite)
    assert any(a != b for a, b in finite)
    assert single["relative_error"] > 1e3 * double["relative_error"]


def test_a_picture_is_written_where_it_is_asked_for(tmp_path):
    """--png beside --json writes the picture and nothing else."""
    picture = tmp_path / "spectrum.picture"
    result = call(*SMALL, "--png", picture, "--json")
    assert result.exit_code == 0, result.output
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert list(tmp_path.iterdir()) == [picture]


def test_information_names_versions_and_devices():
    """For a bug report: the versions of what matters, the device, the precision."""
    found = numbers("info")
    assert found["torch"] == importlib.metadata.version("torch")
    assert "cpu" in found["devices"]
    text = call("info").stdout
    assert all(f"{name} " in text and value in text for name, value in found.items())
