"""`rmtbn width-depth`: its cells, its statistics, its claims both ways, its page."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rmtbn.analyses import _width_depth_page, width_depth
from rmtbn.analyses._options import Common
from rmtbn.analyses._width_depth_claims import fluctuations

from rmtbn.report.page import Claim
from rmtbn.sweep.grid import Cell
from rmtbn.sweep.run import run
from rmtbn.sweep.store import MemoryStore
from rmtbn.theory.finite_width import log_norm_law

TINY = {"width": 8, "eighths": 3, "batch": 4, "device": "cpu", "dtype": "float64"}


@pytest.fixture(scope="module")
def growth():
    """Every kind of network at width 16, two seeds each: 20 networks."""
    cells = [
        Cell(parameters={"activation": a, "norm": n, **TINY, "width": 16}, seed=seed)
        for a, n in width_depth.KINDS
        for seed in (1, 2)
    ]
    return _width_depth_page.Growth(run(width_depth.STUDY, cells, store=MemoryStore(), progress=False))


def table(records, **changes):
    """The records with some columns replaced."""
    found = _width_depth_page.Growth.__new__(_width_depth_page.Growth)
    found.rows, found.kinds, found.batch = records.rows.assign(**changes), records.kinds, records.batch
    return found


def test_a_cell_is_a_function_of_its_parameters_alone():
    """The same twice; one row per network and depth, at 1, 2, 3 eighths of the width."""
    first, second = (width_depth.cell(seed=1, activation="relu", norm="none", **TINY) for _ in range(2))
    pd.testing.assert_frame_equal(first["growth"], second["growth"], check_exact=True)
    assert sorted(set(first["growth"].depth)) == [1, 2, 3]
    assert len(first["growth"]) == 3 * width_depth.CHUNK


def test_every_preset_has_cells_of_every_kind():
    """networks / CHUNK seeds of every kind and width."""
    for preset, sizes in width_depth.GRID.items():
        options = Common(seed=3, device="cpu", dtype="float64", out=Path("reports"), preset=preset, engine="inline",
                         workers=None, as_json=True)  # fmt: skip
        cells = width_depth.cells(options)
        count = len(width_depth.KINDS) * len(width_depth.WIDTHS[preset]) * sizes["networks"] // width_depth.CHUNK
        assert len(cells) == count
        assert min(cell.seed for cell in cells) == 3


def test_statistics_are_those_of_the_networks_that_live(growth):
    """Mean, variance and their errors over networks, dead ones left out."""
    (found,) = [s for s in growth.statistics("tanh", "none") if (s.width, s.depth) == (16, 6)]
    chosen = growth.rows[(growth.rows.activation == "tanh") & (growth.rows.norm == "none")]
    values = chosen[(chosen.width == 16) & (chosen.depth == 6)].log_norm
    assert (found.networks, found.mean) == (20, pytest.approx(values.mean()))
    assert found.variance == pytest.approx(values.var())
    dead = table(growth, log_norm=growth.rows.log_norm.where(growth.rows.network > 0, -np.inf))
    assert {s.networks for s in dead.statistics("linear", "none")} == {18}


def test_laws_without_norm_are_those_of_theory():
    """Exact for ReLU, to first order for tanh."""
    exact = log_norm_law("relu", widths=(16,) * 5)
    assert _width_depth_page.law("relu", width=16, depth=4) == (exact.mean, exact.variance)
    mean, variance = _width_depth_page.law("tanh", width=100, depth=4)
    assert -1.5 < mean < 0
    assert 0.05 < variance < 0.3


@pytest.mark.parametrize(("change", "verdict"), [(0.0, "supported"), (3.0, "contradicted")])
def test_claims_can_come_out_either_way(growth, change, verdict):
    """Networks drawn from the law support it; the same shifted by 3 contradict it."""
    draws, rows = np.random.default_rng(1), growth.rows
    repeated = pd.concat([rows] * 40, ignore_index=True)
    laws = {(a, w, d): _width_depth_page.law(a, width=w, depth=d)
            for a, w, d in set(zip(rows.activation, rows.width, rows.depth, strict=True))}  # fmt: skip
    means, variances = np.array(
        [laws[key] for key in zip(repeated.activation, repeated.width, repeated.depth, strict=True)]
    ).T
    drawn = means + np.sqrt(variances) * draws.standard_normal(len(repeated)) + change
    found = _width_depth_page.Growth.__new__(_width_depth_page.Growth)
    found.rows, found.kinds, found.batch = repeated.assign(log_norm=drawn), growth.kinds, 4
    page = _width_depth_page.page(found, manifest={"finished": "now"})
    claims = [block for section in page.sections for block in section.blocks if isinstance(block, Claim)]
    assert {claim.verdict for claim in claims[:2]} == {verdict}


def test_a_small_sample_of_low_variance_does_not_contradict_its_law():
    """20 networks with under half the variance of the law: 1.7 errors of the law's, though 4.1 of the sample's own."""
    sample = _width_depth_page.Statistics(
        width=32, depth=8, networks=20, mean=-0.29, mean_se=0.11, variance=0.225, variance_se=0.071
    )
    mean, variance = _width_depth_page._scores(sample, (-0.253, 0.516))
    assert mean == pytest.approx(0.037 / (0.516 / 20) ** 0.5)
    assert variance == pytest.approx(0.291 / (0.516 * (2 / 19) ** 0.5))


def test_numbers_have_a_law_where_there_is_one(growth):
    """Predicted mean and variance without normalisation only."""
    found = _width_depth_page.numbers(growth)
    assert set(found) == {f"{a}, {n}" for a, n in width_depth.KINDS}
    assert "predicted_variance" in found["relu, none"][0]
    assert "predicted_variance" not in found["relu, batch"][0]


def spread(rows, *, first, last, count=20):
    """ReLU networks without norm whose ln ‖Jv‖² has these variances at the least and at the largest depth."""
    draws = np.random.default_rng(3)
    chosen = rows[(rows.activation == "relu") & (rows.norm == "none") & rows.depth.isin([2, 6])]
    chosen = chosen[chosen.network < count / 2]
    values = np.where(chosen.depth == 2, first**0.5, last**0.5) * draws.standard_normal(len(chosen))
    return chosen.assign(log_norm=values)


def test_fluctuations_that_grow_shrink_or_cannot_be_told(growth):
    """Claim 31: the variance at the largest depth minus at the smallest, above 0, below 0, or within its error."""
    rows = growth.rows
    assert fluctuations(spread(rows, first=0.1, last=2.0)).verdict == "supported"
    assert fluctuations(spread(rows, first=2.0, last=0.1)).verdict == "contradicted"
    assert fluctuations(spread(rows, first=1.0, last=1.1)).verdict == "inconclusive"
    one = spread(rows, first=0.1, last=2.0, count=2)
    assert fluctuations(one[one.seed == 1]).verdict == "inconclusive"


def test_fluctuations_are_the_difference_of_two_variances(growth):
    """Var at depth 6 minus at depth 2, and β = 5 L/N at both: .625 and 1.875."""
    rows = spread(growth.rows, first=0.1, last=2.0)
    said = fluctuations(rows)
    gain = rows[rows.depth == 6].log_norm.var() - rows[rows.depth == 2].log_norm.var()
    assert f"by {gain:.2f} ±" in said.measured
    assert "from 0.625 to 1.88" in said.predicted
    assert said.source.endswith("(claim 31 of 31)")
    dead = rows.assign(log_norm=rows.log_norm.where(rows.network > 0, -np.inf))
    assert "18 ReLU networks of width 16" in fluctuations(dead).evidence
