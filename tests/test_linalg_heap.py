"""Freed memory that stays with the process."""

import platform
import subprocess
import sys

import pytest

# Page faults of the third of three products of 20 layers of width 256: 1,300 and more if memory is given back.
LOOP = """
import resource, torch
from torch import nn
from rmtbn.measure.jacobian import spectrum
torch.set_num_threads(1)
draws = torch.Generator().manual_seed(1)
layers = [layer for _ in range(20) for layer in (nn.Linear(256, 256, bias=False), nn.Tanh())]
for layer in layers[::2]:
    layer.weight.data = torch.randn(256, 256, generator=draws) / 16.0
module, x = nn.Sequential(*layers).double().requires_grad_(False), torch.ones(1, 256, dtype=torch.float64)
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    spectrum(module, x, method="product")
    found = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(found)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives the top of its heap back")
def test_memory_is_not_fetched_anew_page_by_page():
    """A block of 16 matrices, asked for and freed, lets those of the loop stay."""
    done = subprocess.run([sys.executable, "-c", LOOP], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 300
