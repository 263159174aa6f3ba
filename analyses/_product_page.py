"""The page of `rmtbn product`: the product over its law, the factors over theirs."""

import math
from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from rmtbn.compare import FINITE_SIZE, SpectrumComparison
from rmtbn.plot.points import points
from rmtbn.plot.spectrum_density import spectrum_density
from rmtbn.report.number import number, with_error
from rmtbn.report.page import Block, Claim, Figure, Page, Section, Table

from ._product_records import EDGE_LIMIT, Layer, Products

QUANTILES = np.array([0.01, 0.25, 0.5, 0.75, 0.99])
POINTS = 40  # of the figure of one factor, beside the ten largest
ROWS = 40  # of the table of factors; further ones are passed over evenly
ROUNDING = 1e-9  # distances below are written 0
FEWEST = 8  # singular values that a factor needs to be told from a random matrix
LAWS = {"gaussian": "Gaussian", "uniform": "uniform", "orthogonal": "orthogonal"}
KINDS = {"random": "random", "orthogonal": "orthogonal", "neither": "deviates"}
LAYER_COLUMNS = ("factor", "size", "σ_max", "σ_min", "‖W‖", "condition", "σ_w²")
LAW_COLUMNS = ("KS to random", "limit", "beyond the edge", "W₁ to random", "W₁ to orthogonal", "verdict")
COLUMNS = ("quantity", "measured", "predicted")


def page(products: Products, *, manifest: Mapping[str, str]) -> Page:
    """Write the page."""
    product = (Section(title="The product", blocks=tuple(_product_blocks(products))),) if products.spectrum else ()
    return Page(
        title=f"Singular values of {_subject(products)}",
        summary=_summary(products),
        sections=(
            *product,
            Section(title="The factors", blocks=tuple(_layer_blocks(products))),
            Section(title="Claims", blocks=tuple(_claims(products))),
        ),
        manifest=manifest,
    )


def text(products: Products) -> str:
    """Return the tables as lines of text."""
    layers = _lines((*LAYER_COLUMNS, *LAW_COLUMNS), [(*_sizes(layer), *_laws(layer)) for layer in shown(products)])
    return layers if products.spectrum is None else f"{layers}\n\n{_lines(COLUMNS, rows(products))}"


def shown(products: Products) -> tuple[Layer, ...]:
    """Return the factors that tables list: all, or `ROWS` at even distances."""
    places = np.unique(np.linspace(0, products.depth - 1, min(ROWS, products.depth)).round().astype(int))
    return tuple(products.layers[i] for i in places)


def _subject(products: Products) -> str:
    if products.is_drawn:
        return f"products of {products.depth} {LAWS[products.law_name]} matrices"
    name = products.names[0].rsplit("/", 1)[-1].rsplit("\\", 1)[-1]
    more = f" and {products.networks - 1} more" if products.networks > 1 else ""
    return f"the weights in {name}{more}"


def _summary(products: Products) -> str:
    kinds = [layer.kind for layer in products.layers]
    said = f"{kinds.count('random')} of {len(kinds)} matrices look random, {kinds.count('orthogonal')} orthogonal, "
    said += f"{kinds.count('neither')} neither. "
    found = products.comparison
    if found is None:
        return said + "They were not multiplied."
    said += (
        f"The product lies at a Kolmogorov–Smirnov distance of {_with_error(found.ks, found.ks_se)} from the law of "
    )
    said += f"{_law(products)}: "
    return said + (f"{found.verdict}." if products.networks > 1 else "one product, so there is no error bar.")


def _with_error(value: float, error: float) -> str:
    """Write a value, with its error if there is more than one product."""
    return with_error(value, error) if math.isfinite(error) else number(value)


def _law(products: Products) -> str:
    kind = LAWS[products.law_name]
    sigmas = "" if products.is_drawn else ", each with the fitted σ_w²"
    return f"{products.depth} {kind} matrices of these sizes{sigmas}"


def _product_blocks(products: Products) -> Iterator[Block]:
    yield (
        "The matrices are multiplied as they stand, the first factor applied first and no activation between them: "
        "this is what the weights alone do to a signal. σ is a singular value of the product and λ = σ². Where λ spans "
        "many decades, a few directions are stretched far more than the rest."
    )
    if products.networks == 1:
        yield (
            "This is one product. A distance from the law has no error bar between networks then, and no p-value: "
            f"random products of this size are themselves at a distance of the order of 1/N = "
            f"{number(1 / min(products.widths), digits=2)}. Give several files (or --products) for a test."
        )
    sizes = " → ".join(str(n) for n in _abridged(products.widths))
    yield Figure(
        draw=partial(_draw_product, products),
        caption=f"Density of λ of the product, per decade: {products.networks} × {products.widths[-1]} values as bars, "
        f"the law of {_law(products)} for infinite width as a line. Widths {sizes}.",
        alt="Histogram of λ over decades with the density of the law over it.",
    )
    yield Table(
        caption="Measured"
        + (f" (standard errors over {products.networks} products)" if products.networks > 1 else "")
        + f" and predicted by the law of {_law(products)}. All singular values are right to a relative error of "
        f"{number(products.spectrum.relative_error, digits=1) if products.spectrum else '—'}.",
        columns=COLUMNS,
        rows=rows(products),
    )


def _abridged(widths: tuple[int, ...]) -> tuple[int | str, ...]:
    return widths if len(widths) <= 8 else (*widths[:4], "…", *widths[-2:])


def rows(products: Products) -> tuple[tuple[str, ...], ...]:
    """Return the rows of the product's table: quantity, measured, predicted."""
    spectrum, found = products.spectrum, products.comparison
    if spectrum is None or found is None:
        return ()
    finite = np.isfinite(spectrum.by_network)
    smallest = [row[live][-1] if live.any() else -np.inf for row, live in zip(spectrum.by_network, finite, strict=True)]
    edges = [number(edge / 2, digits=5) for edge in products.law.log_bulk or ()][::-1] or ["—", "—"]
    listed: list[tuple[str, ...]] = [
        ("largest ln σ (law: edge)", number(float(spectrum.by_network[:, 0].mean()), digits=5), edges[0]),
        ("smallest ln σ of σ > 0 (law: edge)", number(float(np.mean(smallest)), digits=5), edges[1]),
    ]
    for p, measured, law in zip(QUANTILES, spectrum.log_ppf(QUANTILES), products.law.log_ppf(QUANTILES), strict=True):
        listed.append((f"{p:g} quantile of ln σ", number(measured / 2, digits=5), number(law / 2, digits=5)))
    if products.log_det is not None:
        measured_det, exact = products.log_det
        listed.append(("ln|det|, exact at this width", *(_with_error(s.value, s.se) for s in (measured_det, exact))))
    return (*listed, *_comparison_rows(found))


def _comparison_rows(found: SpectrumComparison) -> Iterator[tuple[str, str, str]]:
    yield "share of zeros", number(found.zeros.measured), number(found.zeros.predicted)
    mean = found.moments[0]
    yield "mean of λ", _with_error(mean.measured, mean.se), number(mean.predicted)
    yield "Kolmogorov–Smirnov distance", _with_error(found.ks, found.ks_se), "0"
    yield "Wasserstein-1 distance in ln λ", number(found.wasserstein_log), "0"


def _layer_blocks(products: Products) -> Iterator[Block]:
    yield (
        "A matrix of independent entries of variance σ_w²/(inputs) has squared singular values that follow "
        "Marchenko and Pastur's law, which ends at the edge σ_w²(1 + √(outputs/inputs))². An orthogonal matrix has one "
        "singular value only. Training shows as values beyond the edge (a direction that was learnt), or as a bulk of "
        "another form. σ_w² is fitted to each matrix."
    )
    yield Figure(
        draw=partial(_draw_extremes, products),
        caption="Largest and smallest singular value of every factor"
        + (f", means over {products.networks} products with one standard error" if products.networks > 1 else "")
        + "; lines are the edges of Marchenko and Pastur's law at the fitted σ_w².",
        alt="Singular values against the place of the factor, with the edges of the law of random matrices.",
    )
    if any(layer.positions > 1 for layer in products.layers):
        yield (
            "Kernels are taken as circular convolutions of stride 1 on images of the given side: their singular values "
            "are those of outputs × inputs matrices, one for each frequency (Sedghi, Gupta & Long 2019, "
            "arXiv:1805.10408)."
        )
    far = max(products.layers, key=lambda layer: max(layer.ks / layer.ks_limit, layer.excess / EDGE_LIMIT))
    yield Figure(
        draw=partial(_draw_layer, far),
        caption=f"The factor that is farthest from a random matrix, {far.name} ({far.size}): its "
        "singular values by rank, the largest first. The line is where Marchenko and Pastur's law at the fitted σ_w² "
        "expects them; points above its left end are directions that no random matrix has.",
        alt="Singular values of one factor against their rank, with the quantiles of the law of a random matrix.",
    )
    listed = shown(products)
    some = "" if len(listed) == products.depth else f" {len(listed)} of {products.depth}, evenly chosen."
    yield Table(
        caption=f"The factors, first to be applied first.{some} Size is outputs × inputs, ‖W‖ the Frobenius norm, "
        "condition σ_max/σ_min, σ_w² = ‖W‖²/outputs.",
        columns=LAYER_COLUMNS,
        rows=tuple(_sizes(layer) for layer in listed),
    )
    yield Table(
        caption="The factors against random matrices: Kolmogorov–Smirnov distance to Marchenko and Pastur's law and "
        "the distance that a random matrix does not pass; how far σ_max² is beyond its edge, in units of Tracy and "
        f"Widom's law (a random matrix stays below {EDGE_LIMIT:g}), and how many singular values are beyond that; "
        "Wasserstein-1 distances in ln λ to the laws of random and of orthogonal matrices.",
        columns=("factor", *LAW_COLUMNS),
        rows=tuple((layer.name, *_laws(layer)) for layer in listed),
    )


def _sizes(layer: Layer) -> tuple[str, ...]:
    largest, smallest = layer.log_sigma("largest"), layer.log_sigma("smallest")
    return (
        layer.name,
        layer.size,
        number(math.exp(largest.value)),
        number(math.exp(smallest.value)),
        number(layer.frobenius),
        number(math.exp(largest.value - smallest.value)),
        number(layer.sigma_w2),
    )


def _laws(layer: Layer) -> tuple[str, ...]:
    beyond = f"{number(layer.excess, digits=2)} ({layer.outliers:g})"
    return (
        number(layer.ks),
        number(layer.ks_limit, digits=2),
        beyond,
        number(layer.to_random),
        number(layer.to_orthogonal) if layer.to_orthogonal > ROUNDING else "0",
        KINDS[layer.kind],
    )


def _draw_product(products: Products, canvas: Canvas) -> None:
    ax = canvas.subplots()
    assert products.spectrum is not None
    spectrum_density(products.spectrum, law=products.law, ax=ax)
    ax.legend(loc="best")


def _draw_layer(layer: Layer, canvas: Canvas) -> None:
    ax, count = canvas.subplots(), layer.count
    rank = np.unique([*range(1, min(10, count) + 1), *np.linspace(1, count, min(POINTS, count)).round().astype(int)])
    sigma = np.exp(layer.spectrum.by_network[:, rank - 1])
    expected = np.exp(layer.law.log_ppf(1 - (rank - 0.5) / (layer.outputs * layer.positions)) / 2)
    se = sigma.std(axis=0, ddof=1) / len(sigma) ** 0.5 if len(sigma) > 1 else np.full(rank.size, np.inf)
    points(rank, sigma.mean(axis=0), se=se, label="measured", line=(rank, expected), ax=ax)
    ax.set(xlabel="rank k", ylabel="singular value σ_k")
    ax.set_ylim(bottom=0)
    ax.legend()


def _draw_extremes(products: Products, canvas: Canvas) -> None:
    ax, place = canvas.subplots(), np.arange(1, products.depth + 1)
    for index, name in enumerate(("largest", "smallest")):
        found = [layer.log_sigma(name) for layer in products.layers]
        sigma = np.array([math.exp(one.value) for one in found])
        se = np.array([one.se for one in found]) * sigma
        edges = [math.exp(layer.law.log_bulk[1 - index] / 2) for layer in products.layers]
        points(place, sigma, se=se, label=f"{name} σ", line=(place, edges), ax=ax)
    ax.set(xlabel="factor, in the order of application", ylabel="singular value σ")
    ax.set_ylim(bottom=0)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend()


def _claims(products: Products) -> Iterator[Claim]:
    wanted = "orthogonal" if products.law_name == "orthogonal" else "random"
    large = [layer for layer in products.layers if min(layer.outputs, layer.inputs) >= FEWEST]
    other = [layer.name for layer in large if layer.kind != wanted]
    described = "an orthogonal matrix" if wanted == "orthogonal" else "a matrix of independent entries"
    yield Claim(
        statement=f"Every factor has the singular values of {described}.",
        source="Marchenko & Pastur 1967; Tracy & Widom 1996" if wanted == "random" else "all singular values equal",
        predicted=f"{len(large)} of {len(large)}",
        measured=f"{len(large) - len(other)} of {len(large)}",
        verdict="inconclusive" if not large else ("contradicted" if other else "supported"),
        evidence=f"Factors with {FEWEST} or more singular values, by the limits in the table. "
        f"Others: {', '.join(other[:8]) or 'none'}{' and more' if len(other) > 8 else ''}.",
    )
    found = products.comparison
    if found is not None:
        verdict = {"rejected": "contradicted", "undecided": "inconclusive"}.get(found.verdict, "supported")
        yield Claim(
            statement=f"The product follows the law of {_law(products)}.",
            source="Penson & Życzkowski 2011, arXiv:1103.3453; Müller 2002, IEEE Trans. Inf. Theory 48, 2086",
            predicted="KS distance 0, up to the order of 1/N",
            measured=_with_error(found.ks, found.ks_se),
            verdict=verdict,
            evidence=f"{found.networks} products of {found.dimension} singular values, networks as the unit: "
            f"{found.verdict}. Supported if no difference stands out from that between products or it is below "
            f"{FINITE_SIZE:g}/N; one product is inconclusive.",
        )


def _lines(columns: tuple[str, ...], listed: list[tuple[str, ...]] | tuple[tuple[str, ...], ...]) -> str:
    table = (columns, *listed)
    widths = [max(len(row[i]) for row in table) for i in range(len(columns))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
    )
