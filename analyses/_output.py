"""What every command prints: strict JSON, and the example under its help."""

import json
import math
from collections.abc import Mapping
from typing import Any

import click


def example(arguments: str) -> str:
    """Return the line under the help of a command that shows a call, unwrapped."""
    return f"\b\nExample:\n  rmtbn {arguments}"


def echo_json(content: Mapping[str, Any]) -> None:
    """Print strict JSON on stdout; what JSON has no number for (±∞, such as the logarithm of a zero, NaN) is null."""
    click.echo(json.dumps(_strict(content), allow_nan=False))


def _strict(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
