"""Which cells are computed, and which of them together."""

import numpy as np
import pytest
from sweep_cells import DRAW, TOTALS

from rmtbn._checks import InvalidArgumentError
from rmtbn.sweep.grid import Cell, grid
from rmtbn.sweep.job import Failure, Job, work
from rmtbn.sweep.jobs import chosen, jobs
from rmtbn.sweep.run import CellsFailedError, run
from rmtbn.sweep.store import MemoryStore

CELLS = grid({"size": (5, 9), "scale": (1.0, 2.5)}, seeds=range(6))


def test_cells_of_one_shape_come_together_up_to_the_size():
    """24 cells of two sizes in fives: 5 + 5 + 2 of each, every cell once, never two sizes in one job."""
    found = list(jobs(TOTALS, CELLS, together=5))
    assert sorted(len(job.cells) for job in found) == [2, 2, 5, 5, 5, 5]
    assert all(len({cell.parameters["size"] for cell in job.cells}) == 1 for job in found)
    assert {str(cell) for job in found for cell in job.cells} == {str(cell) for cell in CELLS}


def test_study_says_how_many_by_device():
    """Eight on a GPU, alone on the CPU."""
    for device, sizes in (("cuda", {8, 4}), ("cpu", {1})):
        wanted = grid({"size": (5,), "scale": (1.0,), "device": (device,)}, seeds=range(12))
        assert {len(job.cells) for job in jobs(TOTALS, wanted)} == sizes


def test_study_without_a_group_takes_cells_one_by_one():
    assert {len(job.cells) for job in jobs(DRAW, CELLS, together=5)} == {1}


def test_limit_grows_with_the_number_of_cells():
    """n cells may take n times as long."""
    assert {job.limit for job in jobs(TOTALS, CELLS[:6], together=6, seconds=2.0)} == {12.0}


def test_grouping_changes_no_result_beyond_rounding():
    """|together - alone| ≤ 8 eps Σ|x|, for every cell; and each call really served several."""
    alone = run(TOTALS, CELLS, store=MemoryStore()).table("sums")
    together = run(TOTALS, CELLS, store=MemoryStore(), together=4)
    found = together.table("sums")
    assert set(found["calls"]) == {4}
    np.testing.assert_allclose(found["total"], alone["total"], rtol=0, atol=8 * np.finfo(float).eps * 30)
    assert {record.provenance["cells_together"] for record in together.records} == {"4"}


def test_the_time_of_a_call_is_shared_by_its_cells():
    """Wall times of cells add up to that of the calls."""
    found = run(TOTALS, CELLS[:4], store=MemoryStore(), together=4)
    times = {record.provenance["wall_seconds"] for record in found.records}
    assert len(times) == 1


def test_cells_of_a_call_that_fails_are_computed_alone():
    """Seed 13 breaks its call of four: all four come out, each alone; the other calls are as they were."""
    wanted = grid({"size": (5,), "scale": (1.0,)}, seeds=(11, 12, 13, 14, 15, 16, 17, 18))
    found = run(TOTALS, wanted, store=MemoryStore(), together=4).table("sums")
    assert found.set_index("seed")["calls"].to_dict() == dict.fromkeys((11, 12, 13, 14), 1) | dict.fromkeys(
        (15, 16, 17, 18), 4
    )


def test_poisoned_cell_of_a_call_fails_alone():
    """A cell that raises alone as well is the only failure."""
    wanted = [*grid({"size": (5,), "scale": (1.0,)}, seeds=(1, 2)), Cell(parameters={"size": 5, "scale": "x"}, seed=3)]
    with pytest.raises(CellsFailedError, match="1 of 3 cells failed") as caught:
        run(TOTALS, wanted, store=MemoryStore(), together=3)
    assert caught.value.failures[0].cell.seed == 3


def test_a_call_that_returns_too_few_results_is_a_failure():
    """Never two cells mixed up."""
    from dataclasses import replace

    from rmtbn.sweep.grid import Group

    short = Group(compute=lambda found: [{}] * (len(found) - 1), same=("size",), size=len)
    outcomes = work(replace(TOTALS, group=short), Job(cells=CELLS[:3]))
    assert all(isinstance(outcome, Failure) for outcome in outcomes)
    assert len(outcomes) == 3


@pytest.mark.parametrize(
    ("only", "count"),
    [({}, 24), ({"size": "5"}, 12), ({"scale": "2.50"}, 12), ({"scale": "25e-1", "seed": "3"}, 2), ({"seed": "0"}, 4)],
)
def test_only_the_cells_asked_for_are_chosen(only, count):
    """Numbers in any way they can be written."""
    assert len(chosen(CELLS, only)) == count


def test_texts_and_truth_values_are_chosen_by_name():
    wanted = grid({"norm": ("none", "batch"), "bias": (True, False)}, seeds=(1,))
    assert len(chosen(wanted, {"norm": "batch"})) == 2
    assert [cell.parameters["bias"] for cell in chosen(wanted, {"bias": "false"})] == [False, False]


@pytest.mark.parametrize(
    ("only", "said"),
    [({"width": "5"}, "`only` must be named by one of size, scale, seed; got 'width'"),
     ({"size": "6"}, "`only size` must be one of 5, 9; got '6'"),
     ({"size": "large"}, "`only size` must be one of 5, 9; got 'large'")],
)  # fmt: skip
def test_what_no_cell_has_is_refused_with_what_they_have(only, said):
    with pytest.raises(InvalidArgumentError, match=said):
        chosen(CELLS, only)


def test_numbers_of_a_job_are_checked():
    with pytest.raises(InvalidArgumentError, match="`seconds` must be a finite number > 0"):
        list(jobs(DRAW, CELLS, seconds=0.0))
    with pytest.raises(InvalidArgumentError, match="`together` must be an integer >= 1"):
        list(jobs(DRAW, CELLS, together=0))
