"""The claims of `rmtbn lyapunov`, each by a rule on the numbers and their errors that can come out either way."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from rmtbn.compare import compare
from rmtbn.report.number import number, with_error
from rmtbn.report.page import Claim
from rmtbn.result import DepthProfile

from ._lyapunov_records import Exponents
from ._lyapunov_theory import Kind, expected_log_sigma, linear_like, name, predict, wide_spectrum, wide_top

Array = NDArray[np.float64]

ALLOWED = 4.0  # standard errors
ROUNDING = 1e-9  # of an exponent
LEVEL = 0.01  # of a claim on all widths together
BULK = (0.1, 0.9)  # shares of the exponents of a wide network that are held against its law
# What finite width may add to an exponent, in units of 1/N. Measured (docs/derivations/exponent_spectrum.md): 0.1 to
# 1.9 over whole spectra, rms; below 1.5 for means and top exponents (ReLU layers shift ln‖Jv‖² by 5/(2N)).
FINITE_WIDTH, FINITE_WIDTH_RMS = 2.0, 3.0


def claims(exponents: Exponents) -> Iterator[Claim]:
    """Judge what can be judged from the kinds of network that were measured."""
    plain = [kind for kind in exponents.kinds if kind.norm == "none"]
    for kind in plain:
        if kind.is_exact and kind.init == "gaussian":
            yield from _exact_claims(exponents, kind)
    wide = [kind for kind in plain if not kind.is_exact]
    if wide:
        yield _wide_claim(exponents, wide)
        yield _top_claim(exponents, wide)
    sloped = [kind for kind in wide if exponents.prediction(kind, width=exponents.widths(kind)[-1]).mean is not None]
    if sloped:
        yield _mean_claim(exponents, sloped)
    normed = [kind for kind in exponents.kinds if kind.norm == "batch"]
    if normed:
        yield _wide_claim(exponents, normed)
    yield from (_batch_claim(exponents, kind) for kind in normed)


def _exact_claims(exponents: Exponents, kind: Kind) -> Iterator[Claim]:
    """Hold every exponent of every width against the exact ones, and against those of infinite width."""
    widths = [width for width in exponents.widths(kind) if exponents.profile(kind, width=width).value.size]
    if not widths:
        return
    own, other = [], []
    for width in widths:
        measured, exact, wide = _exact_profiles(exponents, kind, width=width)
        own.append(_pvalue(exact, measured))
        other.append(_pvalue(wide, measured))
    smallest, alternative = (min(1.0, min(p) * len(widths)) for p in (own, other))
    agrees = smallest >= LEVEL
    what, source = _EXACT[kind.activation]
    counts = ", ".join(str(exponents.profile(kind, width=width).value.size) for width in widths)
    yield Claim(
        statement=f"{what} (widths {', '.join(str(width) for width in widths)}).",
        source=source,
        predicted=f"p ≥ {LEVEL}",
        measured=f"p = {number(smallest, digits=2)}",
        verdict="contradicted" if not agrees else ("supported" if alternative < LEVEL else "inconclusive"),
        evidence=f"The largest of {counts} deviations in units of its standard error over "
        f"{exponents.profile(kind, width=widths[-1]).networks} networks (Student's t, corrected for their number and "
        f"for the widths). The same test has p = {number(alternative, digits=2)} for the exponents of infinite width; "
        f"supported if that is below {LEVEL}, else inconclusive.",
    )


_EXACT = {
    "linear": (
        "Singular values of linear networks grow by Newman's exponents, E ln σ_k = L λ_k + ½[ψ((N−k+1)/2) − ψ(k/2)]",
        "Newman 1986; docs/derivations/lyapunov.md",
    ),
    "relu": (
        "ReLU networks have the exponents of their very width, as far as no network has lost them",
        "docs/derivations/exponent_spectrum.md",
    ),
}


def _exact_profiles(exponents: Exponents, kind: Kind, *, width: int) -> tuple[DepthProfile, DepthProfile, DepthProfile]:
    """Measured, exact and infinite-width exponents; for linear networks ln σ_k itself after all layers, over L."""
    measured = exponents.profile(kind, width=width)
    spectrum, wide = exponents.prediction(kind, width=width).spectrum, wide_spectrum(kind, width=width)
    if kind.activation == "linear":
        depth = exponents.depths(kind)[-1]
        values = exponents.log_sigma(kind, width=width, depth=depth) / depth
        expected = expected_log_sigma(kind, width=width, depth=depth)
        assert expected is not None
        k = np.arange(1, width + 1)
        measured = DepthProfile.over_networks(values, depth=k, symbol="λ_k", label="exponent")
        wide, spectrum = wide + expected / depth - spectrum, expected / depth
    known = np.isfinite(wide[: measured.value.size])
    return _chosen(measured, known), _predicted(spectrum, known), _predicted(wide, known)


def _predicted(values: Array, known: NDArray[np.bool_]) -> DepthProfile:
    chosen = np.flatnonzero(known)
    k, se = np.asarray(chosen + 1, dtype=np.float64), np.zeros(chosen.size)
    return DepthProfile(depth=k, value=values[chosen], se=se, symbol="λ_k", label="theory")


def _chosen(profile: DepthProfile, known: NDArray[np.bool_]) -> DepthProfile:
    return DepthProfile(
        depth=profile.depth[known], value=profile.value[known], se=profile.se[known], symbol=profile.symbol,
        label=profile.label, networks=profile.networks,
    )  # fmt: skip


def _pvalue(predicted: DepthProfile, measured: DepthProfile) -> float:
    found = compare(predicted, measured).pvalue
    return 1.0 if found is None else found


def bulk_deviation(exponents: Exponents, kind: Kind, *, width: int, predicted: Array) -> float:
    """Return N times the rms deviation from a law in the bulk, what the errors make of it taken off."""
    measured = exponents.profile(kind, width=width)
    live = int(np.isfinite(exponents.prediction(kind, width=width).spectrum).sum())
    count = min(measured.value.size, live)
    share = (np.arange(count) + 0.5) / live
    chosen = (share > BULK[0]) & (share < BULK[1])
    if not chosen.any():
        return 0.0
    away = (measured.value[:count] - predicted[:count])[chosen]
    square = float(np.mean(away**2) - np.mean(measured.se[:count][chosen] ** 2))
    return width * max(square, 0.0) ** 0.5


def _without_slopes(exponents: Exponents, kind: Kind, *, width: int) -> Array:
    """Exponents if slopes and normalisation stretched all directions alike: those of the weights, at the same top."""
    if kind.norm == "none":
        return wide_spectrum(linear_like(kind), width=width)
    live = (exponents.batch(kind) - 1) * width
    fall = np.log1p(-(np.arange(live) + 0.5) / live) / 2 if kind.init == "gaussian" else np.zeros(live)
    return np.asarray(exponents.prediction(kind, width=width).top + fall)


def _wide_claim(exponents: Exponents, kinds: list[Kind]) -> Claim:
    """Hold whole spectra against those of wide networks, and against those of the weights alone at the same top."""
    own, other = {}, {}
    for kind in kinds:
        width = exponents.widths(kind)[-1]
        law, plain = exponents.prediction(kind, width=width).spectrum, _without_slopes(exponents, kind, width=width)
        own[kind] = bulk_deviation(exponents, kind, width=width, predicted=law)
        other[kind] = bulk_deviation(exponents, kind, width=width, predicted=plain)
    outside = [name(kind) for kind, away in own.items() if away > FINITE_WIDTH_RMS]
    told = sum(away > FINITE_WIDTH_RMS for away in other.values())
    subject, source = _WIDE[kinds[0].norm]
    return Claim(
        statement=f"Whole spectra of exponents {subject} are those of wide networks, up to the order of 1/N.",
        source=source,
        predicted=f"{counted(len(kinds))} within {number(FINITE_WIDTH_RMS, digits=1)}/N",
        measured=f"{len(kinds) - len(outside)} of {len(kinds)}; largest {_over_width(max(own.values()))}",
        verdict="contradicted" if outside else ("supported" if told else "inconclusive"),
        evidence=f"Rms deviation between the shares {BULK[0]} and {BULK[1]} of the exponents that are finite, at the "
        f"largest width, less what the standard errors make of it. Outside: {'; '.join(outside) or 'none'}. Those of "
        f"the weights alone with the same largest exponent fail that for {told} of {len(kinds)}; supported if for any.",
    )


_WIDE = {
    "none": ("of nonlinear networks", "Tucci 2010, arXiv:0802.4226; docs/derivations/exponent_spectrum.md"),
    "batch": ("under batch normalisation", "docs/derivations/batch_norm_jacobian.md"),
}


def _top_claim(exponents: Exponents, kinds: list[Kind]) -> Claim:
    """Hold the largest exponent of every width against ½ ln χ₁, which must be told from 0 somewhere."""
    worst, apart, listed = 0.0, 0, []
    for kind in kinds:
        limit = wide_top(kind)
        for width in exponents.widths(kind):
            found = exponents.top(kind, width=width)
            worst = max(worst, width * (abs(found.value - limit) - ALLOWED * found.se))
        last = exponents.top(kind, width=exponents.widths(kind)[-1])
        apart += abs(last.value) > ALLOWED * last.se + FINITE_WIDTH / exponents.widths(kind)[-1]
        shown = "0" if abs(limit) < ROUNDING else number(limit)
        listed.append(f"{name(kind)}: {with_error(last.value, last.se)} ({shown})")
    return Claim(
        statement="The largest exponent of a nonlinear network is ½ ln χ₁, up to the order of 1/N.",
        source="Schoenholz et al. 2017, arXiv:1611.01232, eq. (6), for gradients",
        predicted=f"within {number(FINITE_WIDTH, digits=1)}/N",
        measured=_over_width(worst),
        verdict="contradicted" if worst > FINITE_WIDTH else ("supported" if apart else "inconclusive"),
        evidence=f"At every width, less {ALLOWED:g} standard errors. At the largest (½ ln χ₁): {'; '.join(listed)}. "
        "Supported if one of them at least is told from 0.",
    )


def _mean_claim(exponents: Exponents, kinds: list[Kind]) -> Claim:
    """Hold the mean of all exponents against E ln|φ′| and the determinant of the weights."""
    worst, told, listed = 0.0, 0, []
    for kind in kinds:
        width = exponents.widths(kind)[-1]
        found, predicted = exponents.mean(kind, width=width), exponents.prediction(kind, width=width).mean
        assert predicted is not None
        slack = ALLOWED * found.se + FINITE_WIDTH / width
        worst = max(worst, width * (abs(found.value - predicted) - ALLOWED * found.se))
        flat = predict(linear_like(kind), width=width, depth=1, batch=1).mean
        assert flat is not None
        told += abs(found.value - flat) > slack
        listed.append(f"{name(kind)}: {with_error(found.value, found.se)} ({number(predicted, digits=4)})")
    return Claim(
        statement="The mean of all exponents is ln σ_w + E ln|φ′| and what the weights' determinant adds.",
        source="ln|det J| is additive; docs/derivations/exponent_spectrum.md",
        predicted=f"within {number(FINITE_WIDTH, digits=1)}/N",
        measured=_over_width(worst),
        verdict="contradicted" if worst > FINITE_WIDTH else ("supported" if told else "inconclusive"),
        evidence=f"At the largest width, less {ALLOWED:g} standard errors (predicted): {'; '.join(listed)}. ½ ln E φ′² "
        f"in place of E ln|φ′| is excluded for {told} of {len(kinds)}; supported if for any.",
    )


def counted(kinds: int) -> str:
    """Write a number of kinds."""
    return f"{kinds} kind{'s' if kinds > 1 else ''}"


def _over_width(worst: float) -> str:
    """Write a deviation in units of 1/N."""
    return f"{number(worst, digits=2)}/N" if worst > 0 else "within the errors"


def _batch_claim(exponents: Exponents, kind: Kind) -> Claim:
    """Hold the largest exponent under batch normalisation against ½ ln λ_G and against 0."""
    width = exponents.widths(kind)[-1]
    found, limit = exponents.top(kind, width=width), exponents.prediction(kind, width=width).top
    slack = ALLOWED * found.se + FINITE_WIDTH / width
    near, grows = abs(found.value - limit) <= slack, found.value > ALLOWED * found.se
    return Claim(
        statement=f"Batch normalisation lets the largest singular value grow by ½ ln λ_G per layer ({name(kind)}).",
        source="Yang et al. 2019, arXiv:1902.08129, for gradients",
        predicted=f"{number(limit)}, up to {number(FINITE_WIDTH, digits=1)}/N",
        measured=with_error(found.value, found.se),
        verdict="contradicted" if not near else ("supported" if grows else "inconclusive"),
        evidence=f"Width {width}, batch of {exponents.batch(kind)}, {found.networks} networks. Contradicted if farther "
        f"than {ALLOWED:g} standard errors and {number(FINITE_WIDTH, digits=1)}/N = {number(FINITE_WIDTH / width)} "
        "away; inconclusive if not told from 0.",
    )
