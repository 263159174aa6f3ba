"""Cells and their keys."""

import pickle

import numpy as np
import pytest

from rmtbn._checks import InvalidArgumentError
from rmtbn.sweep.grid import Cell, Study, grid, key


def test_grid_is_the_product_of_axes_and_seeds():
    """|grid| = Π |axis| · |seeds|, and every combination comes once."""
    cells = grid({"norm": ("none", "batch"), "depth": (1, 2, 4)}, seeds=(7, 8))
    points = {(cell.parameters["norm"], cell.parameters["depth"], cell.seed) for cell in cells}
    assert len(cells) == len(points) == 12
    assert points == {(norm, depth, seed) for norm in ("none", "batch") for depth in (1, 2, 4) for seed in (7, 8)}


def test_key_is_the_one_that_stored_cells_have():
    """Golden, by sha256sum: {"parameters":{"depth":3,"norm":"batch","sigma_w":1.4142135623730951},"seed":7,...}."""
    cell = Cell(parameters={"norm": "batch", "depth": 3, "sigma_w": 2**0.5}, seed=7)
    assert key("schemes", 2, cell) == "26ed73f5575fecf8139d7f644f12555ec602ee3da11c7c931d0fc8ad6999dcb2"


def test_key_does_not_depend_on_the_order_of_parameters_or_on_numpy():
    """key(π(parameters)) = key(parameters); np.int64(3) is 3."""
    one = Cell(parameters={"norm": "batch", "depth": 3, "sigma_w": 1.5}, seed=7)
    two = Cell(parameters={"sigma_w": np.float64(1.5), "depth": np.int64(3), "norm": np.str_("batch")}, seed=7)
    assert key("s", 1, one) == key("s", 1, two)


@pytest.mark.parametrize(
    ("name", "version", "parameters", "seed"),
    [
        ("t", 1, {"a": 1.0}, 7),
        ("s", 2, {"a": 1.0}, 7),
        ("s", 1, {"a": 1.0}, 8),
        ("s", 1, {"b": 1.0}, 7),
        ("s", 1, {"a": 1.0, "b": 1}, 7),
        ("s", 1, {}, 7),
        ("s", 1, {"a": 1}, 7),
        ("s", 1, {"a": True}, 7),
        ("s", 1, {"a": "1.0"}, 7),
        ("s", 1, {"a": float(np.nextafter(1.0, 2.0))}, 7),
    ],
)
def test_key_changes_with_everything_that_decides_the_result(name, version, parameters, seed):
    """key ≠ key(s, 1, {a: 1.0}, 7), to the last bit of a float."""
    reference = key("s", 1, Cell(parameters={"a": 1.0}, seed=7))
    assert key(name, version, Cell(parameters=parameters, seed=seed)) != reference


def test_cell_survives_pickling_and_prints_as_the_call_it_stands_for():
    """load(dump(cell)) = cell."""
    cell = Cell(parameters={"norm": "batch", "depth": 3}, seed=7)
    assert pickle.loads(pickle.dumps(cell)) == cell
    assert str(cell) == "norm='batch', depth=3, seed=7"


@pytest.mark.parametrize("value", [None, [1, 2], float("nan"), float("inf"), np.arange(3)])
def test_parameter_that_is_no_plain_scalar_is_refused(value):
    with pytest.raises(InvalidArgumentError, match="`width` must be a string, bool, int or finite float"):
        Cell(parameters={"width": value}, seed=1)


@pytest.mark.parametrize("name", ["table", "seed", "key", "two words"])
def test_parameter_named_like_a_column_of_the_store_is_refused(name):
    with pytest.raises(InvalidArgumentError, match=f"`parameters` .*{name}"):
        Cell(parameters={name: 1}, seed=1)


@pytest.mark.parametrize("axis", [(), "relu", (1, 1)])
def test_axis_that_is_empty_a_string_or_repeats_is_refused(axis):
    with pytest.raises(InvalidArgumentError, match="`activation` must be a non-empty sequence of different values"):
        grid({"activation": axis}, seeds=(1,))


def test_seeds_and_versions_are_checked():
    with pytest.raises(InvalidArgumentError, match="`seed` must be an integer >= 0; got -1"):
        Cell(parameters={}, seed=-1)
    with pytest.raises(InvalidArgumentError, match="`seeds`"):
        grid({"a": (1,)}, seeds=())
    with pytest.raises(InvalidArgumentError, match="`version` must be an integer >= 1; got 0"):
        Study(name="s", version=0, compute=dict)
    with pytest.raises(InvalidArgumentError, match="`name`"):
        Study(name="", version=1, compute=dict)
