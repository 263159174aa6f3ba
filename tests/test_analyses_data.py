"""`rmtbn data fetch` as a user meets it."""

import pytest
from click.testing import CliRunner
from rmtbn.analyses import data
from rmtbn.analyses.__main__ import main
from test_data_fetch import ARCHIVE, FOLDER, WHOLE, Server, tree


@pytest.fixture(autouse=True)
def small_archive(monkeypatch, tmp_path):
    """A small archive in place of the official one, in an empty folder."""
    monkeypatch.setitem(data.ARCHIVES, "cifar10", ARCHIVE)
    monkeypatch.chdir(tmp_path)


def call(*arguments):
    return CliRunner().invoke(main, ["data", "fetch", *arguments])


def test_fetching_prints_the_folder_that_studies_take(tmp_path):
    """To `data`, if nothing else is said; the second call prints the same."""
    with Server() as server:
        found = [call("cifar10", "--address", server.url) for _ in range(2)]
        assert len(server.asked) == 1
    assert [(one.exit_code, one.stdout) for one in found] == [(0, f"data/{FOLDER}\n")] * 2
    assert tree(tmp_path / "data") == WHOLE


def test_the_folder_can_be_chosen(tmp_path):
    """--to, which is made."""
    with Server() as server:
        assert call("cifar10", "--to", str(tmp_path / "a" / "b"), "--address", server.url).exit_code == 0
    assert tree(tmp_path / "a" / "b") == WHOLE


def test_failures_are_one_line():
    """Exit code 1, no traceback, and how to place the file by hand."""
    with Server(status=503) as server:
        found = call("cifar10", "--address", server.url)
    assert found.exit_code == 1
    assert found.stdout == ""
    assert len(found.stderr.splitlines()) == 1
    assert found.stderr.startswith(f"Error: {server.url} could not be downloaded (503 Service Unavailable). To place")


@pytest.mark.parametrize(
    ("arguments", "named"), [(("mnist",), "mnist"), (("cifar10", "--to", "file"), "file"), ((), "cifar10")]
)
def test_wrong_usage_is_one_line(tmp_path, arguments, named):
    """Exit code 2, and nothing is written."""
    (tmp_path / "file").touch()
    found = call(*arguments)
    assert found.exit_code == 2
    assert named in found.stderr
    assert tree(tmp_path) == {"file": b""}
