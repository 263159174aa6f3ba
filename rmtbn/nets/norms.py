"""Normalisation layers by name."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from torch import nn

NORMS: Mapping[str, Callable[[int], nn.Module] | None] = MappingProxyType({"none": None, "batch": nn.BatchNorm1d})
