"""What `rmtbn spectrum` says of the way to the numbers: which Jacobian, which route and why, what is not known."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from rmtbn.report.number import number
from rmtbn.result import EmpiricalSpectrum

# batch_stats of a spectrum → what J is the derivative of
MEANT: Mapping[str | None, str] = MappingProxyType(
    {
        None: "the output with respect to the input, at one input",
        "batch": "the output of a batch with respect to that batch, whose examples the statistics of the batch couple",
        "running": "the output with respect to the input, at each input of a batch, with the normalisation's running "
        "statistics (those of the batch) held fixed",
    }
)
ROUTES: Mapping[str, str] = MappingProxyType(
    {
        "product": "a re-factorised product, in which every value is right",
        "dense": "a singular value decomposition of the assembled Jacobian, right down to rounding",
        "slq": "block stochastic Lanczos quadrature: the density above a floor, from products with J and its transpose",
        "lanczos": "block Lanczos: the values above a floor, from products with J and its transpose",
    }
)


def route_text(spectrum: EmpiricalSpectrum) -> str:
    """Say which route was taken, why, and what it leaves open."""
    text = f"Measured by {ROUTES[spectrum.method]}. Route {spectrum.method}: {spectrum.reason}."
    if spectrum.batch_stats:
        text += f" Jacobian under {spectrum.batch_stats} statistics."
    if spectrum.censored_fraction:
        text += (
            f" A share of {number(spectrum.censored_fraction, digits=3)} of the values is censored: known to be below "
            f"the floor (ln σ {below(spectrum)}) and no more. Distances to the law are those above the floor."
        )
    if spectrum.cdf_error:
        text += f" Shares of values carry an error of up to {number(spectrum.cdf_error, digits=2)} from the probes."
    return text


def route_numbers(spectrum: EmpiricalSpectrum) -> dict[str, Any]:
    """Return the same as plain numbers; `log_floor` is in ln σ, one number per network."""
    return {
        "batch_stats": spectrum.batch_stats,
        "route": spectrum.method,
        "reason": spectrum.reason,
        "censored": spectrum.censored_fraction,
        "censored_by_network": spectrum.censored.sum(axis=1).tolist(),
        "log_floor": None if spectrum.log_floor is None else spectrum.log_floor.tolist(),
        "cdf_error": spectrum.cdf_error,
    }


def below(spectrum: EmpiricalSpectrum) -> str:
    """Write the floor as the bound that it is."""
    return f"< {number(spectrum.log_lam_floor / 2, digits=4)}"
