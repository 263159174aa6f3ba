"""Linear maps of tangents laid out by feature, shape (features · k, r): layers that can be inverted and transposed."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

# (features · k, r) -> (features' · k', r)
ColumnMap: TypeAlias = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mixing:
    """A matrix W on the features, the same for each of the k rows of a feature: W ⊗ I.

    Parameters
    ----------
    weight
        W, shape (features', features).
    rows
        k.
    """

    weight: Float[Tensor, "after before"]
    rows: int

    def __call__(self, columns: Float[Tensor, "start r"], /) -> Float[Tensor, "end r"]:
        """Apply W ⊗ I."""
        mixed = self.weight @ columns.reshape(self.weight.shape[1], -1)
        return mixed.reshape(self.weight.shape[0] * self.rows, -1)

    def transposed(self) -> "Mixing":
        """Return Wᵀ ⊗ I."""
        return replace(self, weight=self.weight.mT)

    def inverse(self) -> "Mixing | None":
        """Return W⁻¹ ⊗ I, or None if W has none."""
        weight = _inverted(self.weight)
        return None if weight is None else replace(self, weight=weight)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Blocks:
    """A matrix of its own for each feature: block diagonal.

    Parameters
    ----------
    blocks
        Shape (features, k', k).
    back
        Their inverses where they are known better than by inversion, shape (features, k, k').
    """

    blocks: Float[Tensor, "features after before"]
    back: Float[Tensor, "features before after"] | None = None

    def __call__(self, columns: Float[Tensor, "start r"], /) -> Float[Tensor, "end r"]:
        """Apply each block to its feature."""
        features, after, before = self.blocks.shape
        return torch.bmm(self.blocks, columns.reshape(features, before, -1)).reshape(features * after, -1)

    def transposed(self) -> "Blocks":
        """Return the map with each block transposed."""
        return Blocks(blocks=self.blocks.mT, back=None if self.back is None else self.back.mT)

    def inverse(self) -> "Blocks | None":
        """Return the map with each block inverted, or None if one has no inverse."""
        back = _inverted(self.blocks) if self.back is None else self.back
        return None if back is None or not bool(back.isfinite().all()) else Blocks(blocks=back, back=self.blocks)

    def without_isometry(self) -> "Blocks":
        """Return the map with R for each block Q R of more rows than columns: singular values are the same."""
        _, after, before = self.blocks.shape
        return self if after <= before else Blocks(blocks=torch.linalg.qr(self.blocks, mode="r").R)


def _inverted(matrix: Float[Tensor, "*batch after before"]) -> Float[Tensor, "*batch before after"] | None:
    """Invert square matrices; None if they are not, or one is singular."""
    if matrix.shape[-1] != matrix.shape[-2]:
        return None
    inverse, info = torch.linalg.inv_ex(matrix)
    return inverse if bool((info == 0).all() & inverse.isfinite().all()) else None
