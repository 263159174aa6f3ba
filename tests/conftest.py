"""What every test shares: one thread, reproducible draws, guarded global settings, CIFAR-10 files."""

import gc
import random
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typechecker
from hypothesis import settings

typechecker.install("rmtbn")
gc.disable()  # what is imported and collected stays: to search it for garbage takes a quarter of the time

ROOT = Path(__file__).resolve().parents[1]

# Same examples on every machine; no deadline, since two cores are shared with whatever else runs.
settings.register_profile("rmtbn", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("rmtbn")


def pytest_collectstart(collector: pytest.Collector) -> None:
    """Seed the global generators before a module is imported: what it draws then is the same in every run."""
    _seed(collector.nodeid)


def pytest_collection_finish() -> None:
    """Look for garbage again, among what the tests make alone."""
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def seeded(request: pytest.FixtureRequest) -> None:
    """Seed the global generators by the name of the test, so that neither order nor neighbours decide its draws."""
    _seed(request.node.nodeid)


def _seed(name: str) -> None:
    seed = zlib.crc32(name.encode())
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (what a module draws from globally is what has to be seeded)
    torch.manual_seed(seed)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Let torch compute in one thread: sums are then taken in one order, and two cores can run two sessions."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def global_settings_untouched() -> Iterator[None]:
    """Fail a test after which a setting of torch or numpy is another than before."""
    before = _global_settings()
    yield
    assert _global_settings() == before


def _global_settings() -> tuple[object, ...]:
    deterministic = torch.are_deterministic_algorithms_enabled()
    return torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads(), deterministic, np.geterr()


@pytest.fixture(scope="module", autouse=True)
def sketched_pages(request: pytest.FixtureRequest) -> Iterator[None]:
    """Lay out each figure of an analysis's page once, where a page has it four times: in two inks, as SVG and PNG.

    The tests of the report and of the commands (`test_report_*`, `test_analyses_cli`) draw theirs in full.
    """
    name = request.module.__name__
    with pytest.MonkeyPatch.context() as patch:
        if name.startswith("test_analyses_") and name != "test_analyses_cli":
            patch.setattr("rmtbn.report.render.picture", _sketch)
        yield


def _sketch(figure: Any, *, styles: Mapping[str, Mapping[str, Any]]) -> Any:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from rmtbn.report.picture import Picture

    with rc_context(dict(styles["light"])):
        canvas = Figure(figsize=figure.size, layout="constrained")
        figure.draw(canvas)
        canvas.draw_without_rendering()
    return Picture(light="data:,", dark="data:,", width=1, height=1)


@pytest.fixture(scope="session")
def cifar_folder() -> Path:
    """The folder of real CIFAR-10 images beside the repository, where there is one."""
    folder = ROOT.parent / "shared" / "data" / "cifar10-subset"
    if not folder.is_dir():
        pytest.skip("no CIFAR-10 images beside the repository")
    return folder


@pytest.fixture
def write_cifar(tmp_path: Path) -> Callable[..., np.ndarray]:
    """Give a function that writes a file in CIFAR-10's layout into `tmp_path` and returns its pixels (n, 3072)."""

    def write(name: str, labels: Sequence[int], *, surplus: bytes = b"") -> np.ndarray:
        pixels = np.random.default_rng(len(labels)).integers(0, 256, size=(len(labels), 3072), dtype=np.uint8)
        records = np.column_stack([np.asarray(labels, dtype=np.uint8), pixels])
        (tmp_path / name).write_bytes(records.tobytes() + surplus)
        return pixels

    return write
