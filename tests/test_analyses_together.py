"""Cells of the built-in studies that are measured together on a GPU: the numbers are those of each alone."""

import numpy as np
import pytest
import torch
from rmtbn.analyses import _together, width_depth

from rmtbn.measure.ensemble import pushed
from rmtbn.nets.mlp import mlp
from rmtbn.sweep.grid import grid
from rmtbn.sweep.run import run
from rmtbn.sweep.store import MemoryStore

# Rounding of a log norm after L layers, L eps relative to 1, and a factor for the conditioning of batch normalisation.
TOLERANCE = {"float64": 1e-11, "float32": 2e-3}


@pytest.mark.parametrize(
    ("activation", "norm", "dtype"),
    [("linear", "none", "float64"), ("relu", "none", "float32"), ("relu", "batch", "float64")],
)
def test_networks_of_several_cells_grow_as_each_alone(activation, norm, dtype):
    """ln ‖J v‖² of 3 cells in one call = that of each alone, up to rounding; inputs and tangents differ by cell."""
    axes = {"activation": (activation,), "norm": (norm,), "width": (16,), "eighths": (4,), "batch": (6,),
            "device": ("cpu",), "dtype": (dtype,)}  # fmt: skip
    wanted = grid(axes, seeds=(1, 2, 3))
    alone = run(width_depth.STUDY, wanted, store=MemoryStore()).table("growth")
    records = run(width_depth.STUDY, wanted, store=MemoryStore(), together=3)
    assert {record.provenance["cells_together"] for record in records.records} == {"3"}
    found = records.table("growth")
    assert found.drop(columns="log_norm").equals(alone.drop(columns="log_norm"))
    np.testing.assert_allclose(found["log_norm"], alone["log_norm"], rtol=0, atol=TOLERANCE[dtype])
    assert alone.groupby(["width", "seed"])["log_norm"].mean().nunique() == 3


def test_network_behind_its_inputs_is_the_network_there():
    """The layers of net(x) by the names they had, though all networks are given 0."""
    x = torch.randn(2, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    nets = [mlp(depth=3, width=8).double() for _ in range(2)]
    with pushed([_together.at(net, at) for net, at in zip(nets, x, strict=True)], torch.zeros_like(x[0])) as states:
        outputs = {state.name: state.outputs for state in states}
    for i, net in enumerate(nets):
        torch.testing.assert_close(outputs["phi_3"][i], net(x[i]).detach(), rtol=1e-13, atol=1e-13)


def test_cells_are_together_on_a_gpu_within_the_budget():
    """Alone on the CPU; on a GPU as many as 4 GB of weights, 64 at most, one at least."""
    small = {"activation": "relu", "norm": "none", "width": 50, "eighths": 4, "batch": 32, "dtype": "float64"}
    assert width_depth.how_many({**small, "device": "cpu"}) == 1
    assert width_depth.how_many({**small, "device": "cuda"}) == 64
    assert width_depth.how_many({**small, "device": "cuda", "width": 200}) == 4 * 10**9 // (10 * 100 * 200**2 * 8)
    assert width_depth.how_many({**small, "device": "cuda", "width": 2000}) == 1
