"""How a cell was made."""

import re
import socket
import subprocess
import sys
import time

from rmtbn.sweep import provenance


def test_time_and_versions_are_recorded():
    """wall_seconds is the time inside, to 50 ms."""
    with provenance.recorded() as found:
        time.sleep(0.1)
    assert 0.1 <= found["wall_seconds"] < 0.15
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", found["finished"])
    assert found["python"].startswith("3.")
    assert found["peak_memory_mb"] > 10


def test_commit_is_one_of_this_checkout_or_unknown():
    with provenance.recorded() as found:
        pass
    assert re.fullmatch(r"unknown|[0-9a-f]{12}(-dirty)?", found["commit"])


def test_provenance_does_not_name_the_machine():
    with provenance.recorded() as found:
        pass
    assert socket.gethostname() not in " ".join(str(value) for value in found.values())


def test_torch_is_not_loaded_to_record_its_version():
    script = """if True:
        import sys
        from rmtbn.sweep import provenance
        with provenance.recorded() as found:
            pass
        assert found["torch"] != "unknown"
        assert "torch" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", script], check=True)


def test_state_of_torch_is_recorded_where_it_is_loaded():
    import torch

    with provenance.recorded() as found:
        pass
    assert found["float32_matmul"] == torch.get_float32_matmul_precision()
    assert found["threads"] == str(torch.get_num_threads())


def test_accelerator_and_its_peak_memory_are_recorded_where_it_is_used(monkeypatch):
    """A stand-in for torch.cuda: the peak counts from the start of the cell, in MiB."""
    import torch  # noqa: F401

    class Cuda:
        peak = 5 * 2**20

        def reset_peak_memory_stats(self):
            self.peak = 0

        def max_memory_allocated(self):
            return self.peak

        def get_device_name(self):
            return "a device"

    cuda = Cuda()
    monkeypatch.setattr(provenance, "_cuda", lambda: cuda)
    with provenance.recorded() as found:
        cuda.peak += 3 * 2**20
    assert found["accelerator"] == "a device"
    assert found["accelerator_peak_memory_mb"] == 3.0


def test_summary_adds_seconds_and_lists_what_differs():
    """Σ seconds, max of peaks, the last date, all versions."""
    one = {"wall_seconds": 1.25, "peak_memory_mb": 100.0, "finished": "2026-01-01", "torch": "2.6"}
    two = {"wall_seconds": 2.5, "peak_memory_mb": 90.0, "finished": "2026-02-01", "torch": "2.13"}
    assert provenance.summarise([one, two]) == {
        "wall_seconds": "3.8",
        "peak_memory_mb": "100",
        "finished": "2026-02-01",
        "torch": "2.13, 2.6",
    }
