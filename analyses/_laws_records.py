"""The records of `rmtbn laws`: spectra by kind of network, width and depth, and how they compare with laws."""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pandas as pd

from rmtbn.activations import activation as find_activation
from rmtbn.compare import GivenLaws, SpectrumComparison, compare, compare_given
from rmtbn.result import EmpiricalSpectrum, Scalar
from rmtbn.theory.given_layers import law_given_ranks

from ._laws_networks import Kind

GIVEN = 20  # networks of a comparison given ranks: each needs a law of its own, and they leave little noise


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrong:
    """Networks against laws that are not theirs: of one layer more, and of the other weights."""

    deeper: SpectrumComparison | GivenLaws
    swapped: SpectrumComparison


class Laws:
    """Spectra of all kinds of networks, with their comparisons, each computed once.

    Parameters
    ----------
    rows
        The table "spectra" of a run: one row per network and depth.
    """

    def __init__(self, rows: pd.DataFrame) -> None:
        self.rows = rows.assign(width=rows.widths.astype(int))
        named = self.rows[["activation", "weights", "sigma_b"]].drop_duplicates()
        self.kinds = tuple(
            Kind(activation=a, weights=w, sigma_b=float(b)) for a, w, b in named.itertuples(index=False, name=None)
        )
        self.widths = tuple(sorted(int(width) for width in set(self.rows.width)))
        self.depths = tuple(sorted(int(depth) for depth in set(self.rows.depth)))
        self.comparison = cache(self._comparison)
        self.given_ranks = cache(self._given_ranks)
        self.wrong = cache(self._wrong)

    def chosen(self, kind: Kind, width: int, depth: int) -> pd.DataFrame:
        """Return the rows of one kind, width and depth: one per network."""
        rows = self.rows
        return rows[
            (rows.activation == kind.activation)
            & (rows.weights == kind.weights)
            & (rows.width == width)
            & (rows.depth == depth)
        ]

    def spectrum(self, kind: Kind, width: int, depth: int) -> EmpiricalSpectrum:
        """Pool the networks of one kind, width and depth."""
        return pooled(self.chosen(kind, width, depth))

    def _comparison(self, kind: Kind, width: int, depth: int) -> SpectrumComparison:
        return compare(kind.law(depth), self.spectrum(kind, width, depth))

    def _given_ranks(self, kind: Kind, width: int, depth: int, surplus: int = 0) -> GivenLaws:
        """Compare with the laws for the networks' own ranks; `surplus` layers too many have the mean rank."""
        rows = self.chosen(kind, width, depth).iloc[:GIVEN]
        alive = rows[[min(shares) > 0 for shares in rows.active]]
        sigma_w = kind.exact_law(1).sigma_w
        laws = [
            law_given_ranks([*shares, *[float(np.mean(shares))] * surplus], weights=kind.free_weights, sigma_w=sigma_w)
            for shares in alive.active
        ]
        return compare_given(laws, pooled(alive))

    def _wrong(self, kind: Kind, depth: int) -> Wrong:
        """Compare the widest networks with wrong laws; where there are zeros, the deeper one is given the ranks."""
        width = self.widths[-1]
        spectrum = self.spectrum(kind, width, depth)
        other = replace(kind, weights="gaussian" if kind.weights == "orthogonal" else "orthogonal")
        deeper: SpectrumComparison | GivenLaws = (
            self.given_ranks(kind, width, depth, 1) if has_zeros(kind) else compare(kind.law(depth + 1), spectrum)
        )
        return Wrong(deeper=deeper, swapped=compare(other.law(depth), spectrum))

    def rate(self, kind: Kind, depth: int, *, given: bool = False) -> float:
        """Slope of ln KS against ln N; NaN where there is no distance or one width only."""
        found = self.given_ranks if given else self.comparison
        distances = np.array([found(kind, width, depth).ks for width in self.widths])
        if len(self.widths) < 2 or not (distances > 1e-12).all():
            return np.nan
        return float(np.polyfit(np.log(self.widths), np.log(distances), 1)[0])

    def second_moment(self, kind: Kind, width: int, depth: int) -> Scalar:
        """Mean over networks of the second moment of λ."""
        logs = self.spectrum(kind, width, depth).by_network
        return Scalar.over_networks(np.exp(4 * logs).mean(axis=1), symbol="m₂", label="second moment of λ")


def pooled(rows: pd.DataFrame) -> EmpiricalSpectrum:
    """Join the networks of a table, all of one depth."""
    return EmpiricalSpectrum(
        by_network=np.array(rows.log_singular_values.tolist(), dtype=np.float64),
        relative_error=float(rows.relative_error.max()),
        method="product",
    )


def has_zeros(kind: Kind) -> bool:
    """Whether φ′ is 0 on an interval and 1 elsewhere, so that whole directions are lost."""
    return 0.0 in (find_activation(kind.activation).slopes or ())


def is_isometry(kind: Kind) -> bool:
    """Whether J is orthogonal, so that there is no law to speak of."""
    return (kind.activation, kind.weights) == ("linear", "orthogonal")
