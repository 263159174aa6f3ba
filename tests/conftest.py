"""What every test shares: one thread, reproducible hypothesis runs, guarded global settings, CIFAR-10 files."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]

# Same examples on every machine; no deadline, since two cores are shared with whatever else runs.
settings.register_profile("rmtbn", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("rmtbn")


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
