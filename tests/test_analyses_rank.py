"""`rmtbn rank`: its cells, its statistics, its claims both ways, its page."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from rmtbn.analyses import _rank_page, rank
from rmtbn.analyses._options import Common
from rmtbn.analyses._rank_claims import claims, root_slope
from rmtbn.analyses._rank_records import (
    Kind,
    Measured,
    Ranked,
    isometry_decay,
    late_slope,
    predicted_gap,
    predicted_rank,
)

from rmtbn import rng
from rmtbn.measure.rank import layer_ranks
from rmtbn.report.page import Claim, Figure
from rmtbn.sweep.grid import Cell
from rmtbn.sweep.run import run
from rmtbn.sweep.store import MemoryStore
from rmtbn.theory import bn_mean_field
from rmtbn.theory import rank as theory

LINEAR = Kind(part="depth", activation="linear", norm="uncentred", weights="gaussian", examples=5, width=12, depth=6,
              start=0.3)  # fmt: skip
PLACE = {"networks": 3, "device": "cpu", "dtype": "float64"}


def small():
    """Every part at sizes that take no time."""
    found = [replace(LINEAR, activation=a, norm=n) for a, n in rank.KINDS]
    found.append(replace(LINEAR, part="recursion", norm="none"))
    found += [replace(LINEAR, part="batches", examples=n, start=0.0) for n in (3, 6, 12)]
    for d in (6, 12):
        square = replace(LINEAR, examples=d, width=d, start=0.0)
        found += [replace(square, part="widths", activation=a, norm=n) for a, n in rank.KINDS]
        found += [replace(square, part="isometry", norm=n, weights=w, depth=8 * d) for n, w in rank.ISOMETRY]
    return found


@pytest.fixture(scope="module")
def measured():
    """All of them, three networks each."""
    cells = [Cell(parameters={**kind.parameters(), **PLACE}, seed=1) for kind in small()]
    return Ranked(run(rank.STUDY, cells, store=MemoryStore(), progress=False))


def test_few_networks_are_in_flight_at_once(monkeypatch):
    """Room for two of three networks: the same table."""
    whole = rank.cell(seed=1, **LINEAR.parameters(), **PLACE)["ranks"]
    monkeypatch.setattr(rank, "IN_FLIGHT", 2 * 8 * LINEAR.depth * LINEAR.width**2)
    sizes, measure = [], rank.ensemble_ranks
    monkeypatch.setattr(
        rank, "ensemble_ranks", lambda modules, *a, **k: sizes.append(len(modules)) or measure(modules, *a, **k)
    )
    pd.testing.assert_frame_equal(whole, rank.cell(seed=1, **LINEAR.parameters(), **PLACE)["ranks"], rtol=1e-9)
    assert sizes == [2, 1]


def made_up(kind, found, ranks, *, isometry=None):
    """Networks that scatter about given ranks by 1e-4, with traces of their own."""
    draws = np.random.default_rng(1)
    noise = draws.normal(0, 1e-4, (60, len(found.blocks)))
    log_rank = np.log(1 + (np.asarray(ranks) - 1) * np.exp(noise))
    gaps = np.maximum(np.exp(-log_rank) - 1 / kind.examples, 1e-12)
    flat = np.ones(len(found.blocks)) if isometry is None else isometry
    return Measured(
        blocks=found.blocks, log_rank=log_rank, log_gap=np.log(gaps) / 2, isometry=flat * np.exp(noise),
        log_trace=np.zeros_like(log_rank),
    )  # fmt: skip


def from_theory(measured, *, power=1.0, root=0.5, decay=1.0):
    """Networks whose ranks are those of theory to a power, √d at n = d and beyond 2√d, and gaps that decay so."""
    ranked = Ranked.__new__(Ranked)
    ranked.found = {}
    for kind, found in measured.found.items():
        wide = replace(kind, width=128 * kind.width) if kind.part == "depth" else kind
        at = found.blocks.astype(int)
        if kind.part == "widths":
            ranks = np.full(len(at), kind.width**root if kind.norm != "none" else 1.01)
        elif kind.part == "isometry":
            ranks = np.full(len(at), 2.0)
        elif kind.part == "batches" and kind.examples**2 > 4 * kind.width:
            ranks = np.full(len(at), 5.0 * kind.width**0.5)
        else:
            predicted = predicted_rank(wide, found)
            ranks = np.full(len(at), 2.0) if predicted is None else predicted[at]
            if kind.norm != "none" or kind.activation != "linear" or kind.part == "recursion":
                ranks = np.r_[ranks[0], 1 + (ranks[1:] - 1) ** power]
        slope = isometry_decay(kind)
        isometry = None if slope is None else 0.04 * np.exp(decay * slope * found.blocks)
        ranked.found[wide] = made_up(wide, found, ranks, isometry=isometry)
    return ranked


def test_a_cell_is_a_function_of_its_parameters_alone():
    """The same twice; one row per network and block looked at."""
    first, second = (rank.cell(seed=1, **LINEAR.parameters(), **PLACE)["ranks"] for _ in range(2))
    pd.testing.assert_frame_equal(first, second, check_exact=True)
    assert len(first) == 3 * 7
    assert sorted(set(first.block)) == [0, 1, 2, 3, 4, 5, 6]


def test_blocks_looked_at_are_early_and_even():
    """The input, all early blocks and evenly spread ones; the last is among them."""
    assert list(rank.looked_at(4)) == [0, 1, 2, 3, 4]
    chosen = list(rank.looked_at(400))
    assert chosen[:4] == [0, 1, 2, 3]
    assert chosen[-1] == 400
    assert len(chosen) < 35


@pytest.mark.parametrize("norm", ["none", "batch", "uncentred"])
def test_inputs_are_normalised_as_layers_do_it(norm):
    """Correlation 0.3 before, then per feature mean square 1, with torch's batch normalisation of mean 0."""
    x = rank._inputs(norm, 0.3, 50, 4000, generator=rng.torch_generator(1, "x"))
    if norm == "none":
        assert float((x[0] @ x[1]) / 4000) == pytest.approx(0.3, abs=0.06)
        return
    torch.testing.assert_close(x.square().mean(0), torch.ones(4000, dtype=torch.float64))
    assert bool((x.mean(0).abs() < 1e-12).all()) == (norm == "batch")


def test_ranks_are_those_of_the_network_and_its_input(measured):
    """Block 0 is the input, block l the output of φ_l: against `layer_ranks` of the first network."""
    kind = replace(LINEAR, activation="relu", norm="batch")
    generator = rng.torch_generator(1, "weights", "relu", "batch", "gaussian", 12, 0)
    net = rank._network("relu", "batch", "gaussian", depth=6, width=12, generator=generator)
    x = rank._inputs("batch", 0.3, 5, 12, generator=rng.torch_generator(1, "inputs", "depth", 5, 12))
    alone = layer_ranks(net, x, layers=["input", "phi_1", "phi_6"])
    np.testing.assert_allclose(measured.found[kind].log_rank[0, [0, 1, -1]], alone.log_participation[0], rtol=1e-9)
    np.testing.assert_allclose(measured.found[kind].log_trace[0, [0, 1, -1]], alone.log_trace[0], rtol=1e-9)


def test_ratio_of_means_weighs_networks_by_their_size():
    """Σ (tr K)²/Σ tr K², its error by the delta method, and the share of the networks that carries it."""
    traces, ranks = np.array([1.0, 2.0, 10.0]), np.array([3.0, 2.0, 1.5])
    found = Measured(
        blocks=np.array([0.0]), log_rank=np.log(ranks)[:, None], log_gap=np.zeros((3, 1)), isometry=np.zeros((3, 1)),
        log_trace=np.log(traces)[:, None],
    )  # fmt: skip
    ratio, error, share = (values.item() for values in found.ratio_of_means())
    squares = traces**2 / ranks  # tr K²
    expected = np.sum(traces**2) / np.sum(squares)
    assert ratio == pytest.approx(expected)
    assert error == pytest.approx(np.sqrt(np.sum((traces**2 - expected * squares) ** 2)) / np.sum(squares))
    assert share == pytest.approx(np.sum(squares) ** 2 / (3 * np.sum(squares**2)))


def test_predictions_are_those_of_theory(measured):
    """The recursions from the measured start; c* of ReLU with torch's norm; n - 1 examples; nothing for the rest."""
    found = measured.found[LINEAR]
    gap = math.exp(found.log_gap[:, 0].mean())
    np.testing.assert_allclose(
        predicted_gap(LINEAR, found), theory.orthogonality_gap(gap, examples=5, width=12, depth=6), rtol=1e-6
    )
    np.testing.assert_allclose(predicted_rank(LINEAR, found), 1 / (1 / 5 + predicted_gap(LINEAR, found) ** 2))
    assert predicted_rank(replace(LINEAR, norm="batch"), found)[3] == theory.stationary_soft_rank(examples=4, width=12)
    c = bn_mean_field.fixed_point("relu", batch_size=5).c
    assert predicted_rank(replace(LINEAR, activation="relu", norm="batch"), found)[0] == 5 / (1 + 4 * c * c)
    assert predicted_rank(replace(LINEAR, activation="relu"), found) is None
    assert predicted_rank(replace(LINEAR, weights="orthogonal"), found) is None
    square = replace(LINEAR, weights="orthogonal", examples=12)
    assert isometry_decay(square) == pytest.approx(math.log(12 / 14))
    assert isometry_decay(replace(square, norm="none")) is None


def test_centred_normalisation_ends_at_the_rank_of_one_example_less():
    """Linear, B = 8, d = 128: 1/(1/n + f²) at n = B - 1, within 4 s.e. and 2 %; 8 networks."""
    kind = replace(LINEAR, norm="batch", examples=8, width=128, depth=24)
    records = run(rank.STUDY, [Cell(parameters={**kind.parameters(), **PLACE, "networks": 8}, seed=1)],
                  store=MemoryStore(), progress=False)  # fmt: skip
    late = Ranked(records).soft_rank(kind)
    predicted = theory.stationary_soft_rank(examples=7, width=128)
    assert late.value == pytest.approx(predicted, abs=4 * late.se + 0.02 * predicted)
    assert late.value + 4 * late.se < theory.stationary_soft_rank(examples=8, width=128)


def verdicts(records):
    return [claim.verdict for claim in claims(records)]


def test_claims_can_come_out_either_way(measured):
    """Ranks as predicted, level beyond 2√d, and gaps that decay so: all but the formula for any n is supported; other
    powers, roots and decays contradict."""
    right = verdicts(from_theory(measured))
    assert right == [*["supported"] * 5, "contradicted", "supported", "supported"]
    other = verdicts(from_theory(measured, power=2.5, root=0.9, decay=0.5))
    assert other == ["contradicted"] * 8


def test_slopes_are_those_of_powers(measured):
    """rank = d^0.7: slope 0.7 with an error; a line: its slope in the second half."""
    assert root_slope(from_theory(measured, root=0.7), norm="uncentred").value == pytest.approx(0.7, abs=1e-3)
    found = measured.found[LINEAR]
    line = np.outer([1.0, 2.0], found.blocks)
    assert late_slope(found, line).value == pytest.approx(1.5)


def test_page_has_every_part(measured):
    """Sections, four figures, and all claims; numbers of every kind."""
    page = _rank_page.page(measured, manifest={"finished": "now"})
    blocks = [block for section in page.sections for block in section.blocks]
    assert sum(isinstance(block, Figure) for block in blocks) == 4
    assert sum(isinstance(block, Claim) for block in blocks) == 8
    assert "Soft rank of 5 examples" in page.summary
    found = _rank_page.numbers(measured)
    assert {part: len(rows) for part, rows in found.items()} == {
        "depth": 6, "recursion": 1, "batches": 3, "widths": 12, "isometry": 8,
    }  # fmt: skip
    assert len(found["depth"][0]["soft_rank"]) == len(found["depth"][0]["blocks"])


def test_one_kind_alone_has_a_page_too(measured):
    """A single kind: no figure that needs others."""
    records = Ranked.__new__(Ranked)
    kind = replace(LINEAR, activation="relu", norm="batch")
    records.found = {kind: measured.found[kind]}
    page = _rank_page.page(records, manifest={"finished": "now"})
    assert [section.title for section in page.sections] == ["What is measured", "Claims", "Numbers"]


def test_presets_have_every_part():
    """Cells of all five parts; the recursion on many networks."""
    for preset in rank.GRID:
        options = Common(seed=3, device="cpu", dtype="float64", out=Path("reports"), preset=preset, engine="inline",
                         workers=None, as_json=True)  # fmt: skip
        cells = rank.cells(options, rank.kinds(preset))
        assert {cell.parameters["part"] for cell in cells} == {"depth", "recursion", "batches", "widths", "isometry"}
        counts = {cell.parameters["part"]: cell.parameters["networks"] for cell in cells}
        assert counts["recursion"] > 10 * counts["depth"]
        assert {cell.seed for cell in cells} == {3}
