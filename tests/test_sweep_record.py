"""What a cell may return, and that it comes back as it was."""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from rmtbn._checks import InvalidArgumentError
from rmtbn.sweep.grid import Cell, Study
from rmtbn.sweep.parquet import UnreadableRecordError, decode, encode
from rmtbn.sweep.record import record

STUDY = Study(name="toy", version=1, compute=dict)
CELL = Cell(parameters={"norm": "batch", "sigma_w": 1.5, "depth": 2, "bias": False}, seed=3)
FRAMES = {
    "profile": pd.DataFrame({"layer": [1, 2], "value": [0.1, np.nan], "name": ["a", "β"], "dead": [True, False]}),
    "spectrum": pd.DataFrame({"layer": [2], "logs": [np.array([0.5, -1e300, -np.inf])], "note": ["—"]}),
    "empty": pd.DataFrame({"layer": np.zeros(0, dtype=np.int64)}),
}
PROVENANCE = {"wall_seconds": 0.25, "commit": "unknown"}


def made(frames=None):
    return record(STUDY, CELL, frames=FRAMES if frames is None else frames, provenance=PROVENANCE)


def test_record_comes_back_from_its_file_to_the_last_bit():
    """decode(encode(r)) = r: values, NaN, infinities, lists, empty tables, parameters in order, provenance."""
    back = decode(encode(made()))
    assert (back.study, back.version, back.cell, back.provenance) == ("toy", 1, CELL, PROVENANCE)
    assert list(back.cell.parameters) == list(CELL.parameters)
    assert list(back.tables) == list(FRAMES)
    for name, frame in FRAMES.items():
        pd.testing.assert_frame_equal(back.tables[name].to_pandas(), frame)


def test_file_is_one_plain_table_that_other_tools_can_query():
    """A row per row, its table, parameters and seed beside it; strings are plain, lists are lists of doubles."""
    import pyarrow as pa

    rows = pq.read_table(pa.BufferReader(encode(made())))
    types = {field.name: str(field.type) for field in rows.schema}
    assert types == {
        "table": "string",
        "norm": "string",
        "sigma_w": "double",
        "depth": "int64",
        "bias": "bool",
        "seed": "int64",
        "layer": "int64",
        "value": "double",
        "name": "string",
        "dead": "bool",
        "logs": "list<element: double>",
        "note": "string",
    }
    assert rows["table"].to_pylist() == ["profile", "profile", "spectrum"]
    assert rows["sigma_w"].to_pylist() == [1.5] * 3
    assert rows["layer"].to_pylist() == [1, 2, 2]


def test_long_spectra_are_stored_in_eight_bytes_a_value_or_less():
    """4,096 log singular values at 50 depths: ≤ 8 bytes each, 2 % for all else."""
    values = np.random.default_rng(1).normal(size=(50, 4096))
    content = encode(made({"spectrum": pd.DataFrame({"depth_": range(50), "logs": list(values)})}))
    assert len(content) <= 1.02 * values.nbytes


@pytest.mark.parametrize("stride", [13, pytest.param(1, marks=pytest.mark.slow)])
def test_no_altered_bit_gets_through(stride):
    """Flip a bit in every 13th byte of the file (slow: in every one): it is refused, or what it holds is the same."""
    content = encode(made())
    expected = decode(content)
    for place in range(0, len(content), stride):
        altered = bytearray(content)
        altered[place] ^= 1 << (place % 8)
        try:
            found = decode(bytes(altered))
        except UnreadableRecordError:
            continue
        assert found.key == expected.key
        assert found.provenance == expected.provenance
        for name, frame in FRAMES.items():
            pd.testing.assert_frame_equal(found.tables[name].to_pandas(), frame)


def test_no_truncated_file_gets_through():
    """Every proper prefix is refused."""
    content = encode(made())
    for length in range(0, len(content), 7):
        with pytest.raises(UnreadableRecordError):
            decode(content[:length])


@pytest.mark.parametrize(
    "column",
    [[1.0, None, "a"], ["a", None], [object()], [["a", "b"]], [[[1.0]]], [1 + 2j], pd.array([1, None], dtype="Int64")],
)
def test_column_that_is_not_plain_is_refused_by_name(column):
    with pytest.raises(InvalidArgumentError, match=r"`profile\.x` must be strings, bools"):
        made({"profile": pd.DataFrame({"x": column})})


def test_integer_beyond_64_bits_is_refused():
    with pytest.raises(InvalidArgumentError, match=r"`profile\.x` must be strings, bools, 64-bit ints"):
        made({"profile": pd.DataFrame({"x": np.array([2**63], dtype=np.uint64)})})


@pytest.mark.parametrize("column", ["norm", "seed", "table"])
def test_column_named_like_a_parameter_is_refused(column):
    with pytest.raises(InvalidArgumentError, match=rf"`tables\['profile'\]` .*{column}"):
        made({"profile": pd.DataFrame({column: [1]})})


def test_column_has_one_type_in_all_tables_of_a_cell():
    with pytest.raises(InvalidArgumentError, match=r"`tables` must be of one type per column name.*value"):
        made({"a": pd.DataFrame({"value": [1.0]}), "b": pd.DataFrame({"value": ["x"]})})


@pytest.mark.parametrize("frames", [{}, {"profile": [1, 2]}, {"profile": pd.DataFrame()}])
def test_result_that_is_no_table_is_refused(frames):
    with pytest.raises(InvalidArgumentError, match="`tables"):
        made(frames)
