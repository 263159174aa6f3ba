"""The file of a result: one Parquet table, readable as it is by other tools, with what else is known as JSON beside it.

Nothing is shared with the files of `rmtbn.sweep`, which know no physics and which `result` may not import.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rmtbn import _checks

FORMAT = 1
_KEY = b"rmtbn.result"


def write_table(
    path: str | Path, columns: Mapping[str, NDArray[np.generic]], *, kind: str, about: Mapping[str, Any]
) -> None:
    """Write columns and a description to a file, whole or not at all.

    Parameters
    ----------
    path
        Where to write; what is there is replaced.
    columns
        Arrays of one length, by name.
    kind
        What the file holds.
    about
        Numbers, strings, None, and lists and mappings of them; infinities may be among them.
    """
    path = Path(path)
    text = json.dumps({"format": FORMAT, "kind": kind, "about": _plain(about)}, allow_nan=False)
    table = pa.table({name: pa.array(values) for name, values in columns.items()}).replace_schema_metadata({_KEY: text})
    partial = path.with_name(path.name + ".part")
    pq.write_table(table, partial, compression="zstd", write_page_checksum=True)
    partial.replace(path)


def read_table(path: str | Path, *, kind: str | None = None) -> tuple[str, dict[str, NDArray[Any]], dict[str, Any]]:
    """Read back what `write_table` wrote: its kind, columns and description.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    InvalidArgumentError
        If it is not a whole file of this package, or not of the `kind` asked for.
    """
    try:
        reader = pq.ParquetFile(path, page_checksum_verification=True)
        table = reader.read(use_threads=False)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise _checks.fail("path", "a whole Parquet file", f"{path} ({error})") from error
    text = (reader.schema_arrow.metadata or {}).get(_KEY)
    if text is None:
        raise _checks.fail("path", "a file that a result of this package wrote", str(path))
    content = json.loads(text)
    if content["format"] != FORMAT:
        raise _checks.fail("path", f"a file of format {FORMAT}", content["format"])
    if kind is not None and content["kind"] != kind:
        raise _checks.fail("path", f"a file of kind {kind!r}", content["kind"])
    columns = {name: column.to_numpy() for name, column in zip(table.column_names, table.columns, strict=True)}
    return content["kind"], columns, _numbers(content["about"])


def _plain(value: Any) -> Any:
    """Turn mappings, sequences and numbers into what JSON has; infinities into {"float": "inf"}."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _numbers(value: Any) -> Any:
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    if isinstance(value, dict):
        return float(value["float"]) if set(value) == {"float"} else {key: _numbers(v) for key, v in value.items()}
    return value
