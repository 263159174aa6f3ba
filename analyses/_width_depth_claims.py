"""Claim 31 of Bjorck et al. 2018 on the records of `rmtbn width-depth`: fluctuations that grow with depth."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from rmtbn.report.number import number, with_error
from rmtbn.report.page import Claim
from rmtbn.result import Scalar
from rmtbn.theory.width_expansion import beta

from . import _paper_claims as judged

Values = npt.NDArray[np.float64]


def fluctuations(rows: pd.DataFrame) -> Claim:
    """Judge whether the variance over networks of ln ‖Jv‖² grows with depth, for He's ReLU networks without norm.

    Parameters
    ----------
    rows
        The table "growth" of the study.
    """
    chosen = rows[(rows.activation == "relu") & (rows.norm == "none")]
    width = int(chosen.width.max())
    by_depth = _by_depth(chosen[chosen.width == width])
    first, last = min(by_depth), max(by_depth)
    squares = {depth: _squared_deviations(by_depth[depth]) for depth in (first, last)}
    gain = Scalar.over_networks(squares[last] - squares[first], symbol="Δ", label="growth of the variance")
    laws = [number(beta("relu", widths=(width,) * (depth + 1))) for depth in squares]
    variances = [number(float(square.mean())) for square in squares.values()]
    kept = Scalar.over_networks(np.exp(by_depth[last]), symbol="E", label="mean of ‖Jv‖²")
    return judged.claim(
        31,
        predicted=f"the variance of ln ‖Jv‖² grows from depth {first} to {last}; β = 5 Σ 1/n_l goes from {laws[0]} to "
        f"{laws[1]} (Hanin and Nica 2019, arXiv:1812.05994)",
        measured=f"from {variances[0]} to {variances[1]}, by {with_error(gain.value, gain.se)}",
        verdict=judged.above(gain, 0.0),
        evidence=f"{gain.networks} ReLU networks of width {width} without norm in He's initialisation, which keeps the "
        f"mean of ‖Jv‖² at 1: at depth {last} it is {with_error(kept.value, kept.se)}. The variance over networks is "
        "judged at the largest depth minus at the smallest.",
    )


def _by_depth(rows: pd.DataFrame) -> Mapping[int, Values]:
    """Return ln ‖Jv‖² of the same networks, in the same order, at every depth; those that died are left out."""
    depths = sorted(set(rows.depth.tolist()))
    values = {int(depth): rows.log_norm[rows.depth == depth].to_numpy() for depth in depths}
    alive = np.isfinite(np.stack(list(values.values()))).all(axis=0)
    return {depth: value[alive] for depth, value in values.items()}


def _squared_deviations(values: Values) -> Values:
    """Return one number per network whose mean is the variance, unbiased."""
    count = len(values)
    deviations: Values = (values - values.mean()) ** 2 * (count / max(count - 1, 1))
    return deviations
