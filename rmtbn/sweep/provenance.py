"""How a cell was made: versions, machine (never its name), time and memory, kept inside its file."""

import datetime
import functools
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

Provenance = dict[str, str | float]

_PACKAGES = ("rmtbn", "torch", "numpy", "scipy", "pyarrow")


@contextmanager
def recorded() -> Iterator[Provenance]:
    """Collect the provenance of what runs inside; the mapping is filled at the end.

    Names: ``finished`` (UTC), ``wall_seconds``, ``peak_memory_mb`` (high-water mark of the process), ``commit``,
    ``python``, ``platform``, ``device`` ("cpu" or "cuda") and ``dtype`` (torch's default, "float64" without torch), one
    version per package, and ``float32_matmul``, ``threads``, ``accelerator`` where torch is loaded;
    ``accelerator_peak_memory_mb`` where it was used.
    """
    found: Provenance = {}
    cuda = _cuda()
    if cuda:
        cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    yield found
    found["wall_seconds"] = time.perf_counter() - start
    found["finished"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    found.update(software(), **_torch_state())
    found.update(_peak_memory())
    cuda = _cuda()
    if cuda:
        found["accelerator_peak_memory_mb"] = cuda.max_memory_allocated() / 2**20


def summarise(provenances: list[Mapping[str, str | float]]) -> dict[str, str]:
    """Say in texts how many cells were made: seconds added, peaks and dates at their latest, the rest listed."""
    names = dict.fromkeys(name for provenance in provenances for name in provenance)
    return {name: _summary(name, [p[name] for p in provenances if name in p]) for name in names}


def _summary(name: str, values: list[str | float]) -> str:
    numbers = [value for value in values if not isinstance(value, str)]
    if numbers:
        return f"{sum(numbers):.1f}" if name.endswith("seconds") else f"{max(numbers):.0f}"
    texts = sorted(str(value) for value in set(values))
    return texts[-1] if name == "finished" else ", ".join(texts)


@functools.cache
def _software() -> Mapping[str, str]:
    versions = {package: _version(package) for package in _PACKAGES}
    system = f"{platform.system()} {platform.machine()}"
    return {"commit": _commit(), "python": platform.python_version(), "platform": system, **versions}


def software() -> Provenance:
    """Return the versions of what cells are computed with, and of the code."""
    return dict(_software())


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"


def _commit() -> str:
    """Commit of the checkout this package runs from, with "-dirty" if changed since; "unknown" outside a checkout."""
    package = Path(__file__).resolve().parents[1]
    try:
        _git(package, "ls-files", "--error-unmatch", "__init__.py")  # not merely inside someone else's repository
        return _git(package, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


def _torch_state() -> dict[str, str]:
    torch = sys.modules.get("torch")  # a cell that needed torch has loaded it
    if torch is None:
        return {"device": "cpu", "dtype": "float64"}
    state = {
        "device": "cuda" if _cuda() else "cpu",
        "dtype": str(torch.get_default_dtype()).removeprefix("torch."),
        "float32_matmul": torch.get_float32_matmul_precision(),
        "threads": str(torch.get_num_threads()),
    }
    cuda = _cuda()
    return state | ({"accelerator": cuda.get_device_name()} if cuda else {})


def _cuda() -> Any:
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None


def _peak_memory() -> dict[str, float]:
    try:
        import resource  # noqa: PLC0415 - Unix only
    except ImportError:
        return {}
    unit = 1 if sys.platform == "darwin" else 1024
    return {"peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20}
