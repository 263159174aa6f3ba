"""The page of `rmtbn lyapunov`: spectra of exponents over their laws, their convergence, batch norm against none."""

from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np

from rmtbn.report.number import number, with_error
from rmtbn.report.page import Block, Figure, Page, Section, Table

from . import _lyapunov_figures
from ._lyapunov_claims import claims, counted
from ._lyapunov_figures import LOWEST
from ._lyapunov_records import Exponents
from ._lyapunov_theory import NAMES, Kind, name

ROUNDING = 1e-9  # of an exponent
COLUMNS = ("kind", "width", "largest", "theory", "by", "mean of all", "theory", "whole spectrum")


def page(exponents: Exponents, *, manifest: Mapping[str, str]) -> Page:
    """Write the page."""
    judged = tuple(claims(exponents))
    verdicts = [claim.verdict for claim in judged]
    batch = tuple(_batch_blocks(exponents))
    return Page(
        title="Lyapunov exponents: how singular values grow with depth",
        summary=f"{counted(len(exponents.kinds))} of network. {_headline(exponents)}"
        f"{verdicts.count('supported')} of {len(judged)} claims supported.",
        sections=(
            Section(title="What is measured", blocks=tuple(_introduction(exponents))),
            *(
                (Section(title="Spectra of exponents", blocks=tuple(_spectrum_blocks(exponents))),)
                if _plain(exponents)
                else ()
            ),
            *((Section(title="Batch normalisation against none", blocks=batch),) if batch else ()),
            Section(title="Convergence", blocks=tuple(_convergence_blocks(exponents))),
            Section(title="Claims", blocks=judged or ("There is no claim for this kind of network alone.",)),
            Section(title="Numbers", blocks=tuple(_tables(exponents))),
        ),
        manifest=manifest,
    )


def _headline(exponents: Exponents) -> str:
    """Say how much the largest singular value grows under batch normalisation, if both were measured."""
    said = []
    for kind in {kind.activation: kind for kind in _batched(exponents)[::-1]}.values():
        other = _partner(exponents, kind)
        if other is not None:
            growth, plain = (np.exp(exponents.top(k, width=exponents.widths(k)[-1]).value) for k in (kind, other))
            said.append(f"{NAMES.get(kind.activation, kind.activation)} × {growth:.2f} (× {plain:.2f} without)")
    if not said:
        return ""
    return f"With batch normalisation the largest singular value grows per layer by: {', '.join(said)}. "


def _plain(exponents: Exponents) -> list[Kind]:
    return [kind for kind in exponents.kinds if kind.norm == "none"]


def _batched(exponents: Exponents) -> list[Kind]:
    """Kinds with batch normalisation and Gaussian weights first."""
    return sorted((kind for kind in exponents.kinds if kind.norm == "batch"), key=lambda kind: kind.init != "gaussian")


def _partner(exponents: Exponents, kind: Kind) -> Kind | None:
    """Find the kind without normalisation whose largest exponent is nearest to 0: the critical one."""
    same = [k for k in _plain(exponents) if (k.activation, k.init) == (kind.activation, kind.init)]
    return min(same, key=lambda k: abs(exponents.top(k, width=exponents.widths(k)[-1]).value), default=None)


def _introduction(exponents: Exponents) -> Iterator[Block]:
    depths = sorted({exponents.depths(kind)[-1] for kind in exponents.kinds})
    yield (
        "The Jacobian of L layers stretches or shrinks N directions by its singular values σ_1 ≥ … ≥ σ_N. With depth "
        "ln σ_k becomes a straight line in L; its slope is the Lyapunov exponent λ_k. At λ = 0 a direction keeps its "
        "length, at λ = −0.1 it loses a factor of e every 10 layers. Exponents that differ mean a condition number "
        "that grows exponentially with depth."
    )
    yield (
        f"Measured is the growth of ln σ_k from half the depth to the depth ({' or '.join(str(d) for d in depths)} "
        "layers), in which the first layers no longer count. Inputs start at the length at which the networks keep "
        "them."
    )
    yield (
        "What theory says: for linear networks every exponent at every width (Newman), for ReLU with Gaussian weights "
        "too, as long as units are on; for other activations the spectrum for N → ∞, whose largest exponent is "
        "½ ln χ₁ of the mean field and whose mean is that of ln|det|. Under batch normalisation it is the spectrum for "
        "N → ∞ and a fixed batch, whose largest exponent is ½ ln λ_G; how finite width changes it is not known. The "
        "mean of all is −∞ for ReLU, which turns half of the units off in every layer, and under batch normalisation, "
        "which removes the mean and the scale of every unit: there theory has nothing to say of it."
    )


def _spectrum_blocks(exponents: Exponents) -> Iterator[Block]:
    groups = _by_activation(_plain(exponents))
    yield Figure(
        draw=partial(_lyapunov_figures.draw_spectra, exponents, groups),
        size=(4.2 * max(len(groups), 1.7), 4.4),
        caption=f"Exponents λ_k without normalisation against the share k/N of those that are as large or larger, at "
        f"the largest width ({_widest(exponents, _plain(exponents))}); means over networks with one standard error. "
        "Lines: exact at this width for linear networks and for ReLU with Gaussian weights, N → ∞ for the others. "
        "ReLU networks keep only the directions that no layer has switched off: beyond the points none is left.",
        alt="Exponents fall from about 0 at the left; points lie on the lines of theory.",
    )
    yield (
        "A flat line would be an isometry at every depth. Gaussian weights alone spread the exponents from about 0 to "
        "−½ ln N; orthogonal weights leave only the spread of the activation's slopes."
    )


def _batch_blocks(exponents: Exponents) -> Iterator[Block]:
    pairs = [(kind, _partner(exponents, kind)) for kind in _batched(exponents)]
    pairs = sorted(pairs, key=lambda pair: pair[1] is None)[:3]
    if not pairs:
        return
    without = " and without (critical)" if any(other for _, other in pairs) else ""
    yield (
        "With batch normalisation the Jacobian is that of the whole batch, whose examples the normalisation couples: "
        "B·N directions. It keeps the lengths of activations at any depth, but the largest singular value grows "
        "exponentially, at the rate of the mean field, however the weights are scaled."
    )
    yield Figure(
        draw=partial(_lyapunov_figures.draw_batch, exponents, pairs),
        size=(4.2 * max(len(pairs), 1.7), 4.2),
        caption="Exponents with batch normalisation "
        f"(B = {exponents.batch(pairs[0][0])}){without}, against their share, at the largest width; "
        f"lines are theory, dashed ½ ln λ_G. Exponents below {number(LOWEST, digits=2)} are not shown: with batch "
        "normalisation a share of 2/B of them, the mean and the scale of every unit, which it removes (the scale up to "
        "its ε).",
        alt="With batch normalisation the largest exponents are above 0, at the dashed line; without, they are at 0.",
    )


def _convergence_blocks(exponents: Exponents) -> Iterator[Block]:
    followed = _followed(exponents)
    yield Figure(
        draw=partial(_lyapunov_figures.draw_depth, exponents, followed),
        size=(4.6 * max(len(followed), 1.6), 4.2),
        caption="ln σ_k/L against the depth L at the largest width, for a large, a middle and a small singular "
        "value, the smallest that is finite where all exponents are known. Lines: the exponent; for linear networks "
        "with the known term ½[ψ((N−k+1)/2) − ψ(k/2)]/L, which holds where L is well above N.",
        alt="Curves against depth that approach horizontal lines like 1/L.",
    )
    yield Figure(
        draw=partial(_lyapunov_figures.draw_widths, exponents),
        size=(9.6, 5.6),
        caption="The largest exponent against 1/N with one standard error. Lines are theory: exact, or with the first "
        "order in 1/N where it is known, else the value for N → ∞ (a flat line).",
        alt="Largest exponents near straight lines in 1/N.",
    )


def _followed(exponents: Exponents) -> list[Kind]:
    """One kind of each activation without normalisation, Gaussian and critical if there is one; else the first."""
    plain = _plain(exponents)
    gaussian = {kind.activation: _partner(exponents, kind) or kind for kind in plain if kind.init == "gaussian"}
    first = {**{kind.activation: kind for kind in plain}, **gaussian}
    return list(first.values())[:3] or list(exponents.kinds[:2])


def _by_activation(kinds: list[Kind]) -> list[tuple[str, list[Kind]]]:
    found: dict[str, list[Kind]] = {}
    for kind in kinds:
        found.setdefault(NAMES.get(kind.activation, kind.activation), []).append(kind)
    return list(found.items())


def _widest(exponents: Exponents, kinds: list[Kind]) -> int:
    return max(exponents.widths(kind)[-1] for kind in kinds)


def _tables(exponents: Exponents) -> Iterator[Block]:
    rows = [_row(exponents, kind, width=width) for kind in exponents.kinds for width in exponents.widths(kind)]
    networks = sorted({exponents.top(kind, width=exponents.widths(kind)[0]).networks for kind in exponents.kinds})
    yield Table(
        caption=f"Largest and mean exponent over {' or '.join(str(n) for n in networks)} networks, with what theory "
        "says of them and of the whole spectrum. A mean of −∞ has zeros among the singular values.",
        columns=COLUMNS,
        rows=tuple(rows),
    )


def _row(exponents: Exponents, kind: Kind, *, width: int) -> tuple[str, ...]:
    top, mean = exponents.top(kind, width=width), exponents.mean(kind, width=width)
    predicted = exponents.prediction(kind, width=width)
    whole = "exact" if kind.is_exact else "N → ∞"
    return (
        name(kind),
        str(width),
        _measured(top.value, top.se),
        _measured(predicted.top, 0.0),
        predicted.top_source,
        _measured(mean.value, mean.se),
        "—" if predicted.mean is None else _measured(predicted.mean, 0.0),
        whole,
    )


def _measured(value: float, se: float) -> str:
    """Write an exponent; one that is 0 up to rounding is 0."""
    if abs(value) < ROUNDING and not se > ROUNDING:
        return "0"
    return with_error(value, se) if se else number(value)
