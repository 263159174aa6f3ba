"""Does *Understanding Batch Normalization* hold? `rmtbn paper` runs its studies and judges its 31 claims on one page.

Every study has a command and a page of its own; this page has each claim with its verdict, its numbers and a link. What
is stored already is not computed again. The studies that train networks are not run from here: where their results lie
in the same folder, of the same options, their claims are taken up.
"""

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType

import click
from markupsafe import Markup, escape

from rmtbn.plot.theme import STYLES
from rmtbn.report.page import VERDICTS, Block, Claim, Page, Section, Table
from rmtbn.report.render import write
from rmtbn.sweep.run import Records

from . import _paper_claims as judged
from ._image_networks import image_data
from ._options import Common, common, echo_json, example
from ._paper_study import PaperStudy
from ._sweeping import said

STUDIES = (
    "sgd-noise", "gradient-tails", "step-size", "divergence", "channel-moments", "class-bias", "conv-gradients",
    "channel-gradients", "max-step", "product-spectra", "width-depth", "smoothness", "shattering",
)  # fmt: skip
SECTIONS: Mapping[str, range] = MappingProxyType(
    {
        "Training": range(1, 7),
        "The noise of SGD": range(7, 9),
        "Gradients, steps and divergence": range(9, 14),
        "Channels and outputs": range(14, 18),
        "What gradients are made of": range(18, 27),
        "Random matrices": range(27, 32),
    }
)
# Studies that train, and what they judge; they come before those of first steps where both judge a claim.
TRAINED: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {"learning-rates": (1, 2, 3, 4, 5, 6, 17), "max-rate": (26, 30)}
)
UNMEASURED = (
    "About training, which the studies that this command runs do not do. `rmtbn {}` tests it: run with the same "
    "options and folder, and this command once more, its verdict stands here."
)


def study(name: str) -> PaperStudy:
    """Return the study of a command."""
    found: PaperStudy = importlib.import_module(f".{name.replace('-', '_')}", __package__).ANALYSIS
    return found


def collected(records: Mapping[str, Records]) -> dict[int, list[tuple[Claim, str]]]:
    """Return the claims that the studies judge, by number, each with the name of its study, those that train first."""
    found: dict[int, list[tuple[Claim, str]]] = {}
    for name in sorted(records, key=lambda name: name not in TRAINED):
        for key, claim in study(name).claims(records[name]).items():
            found.setdefault(key, []).append((claim, name))
    return found


def page(records: Mapping[str, Records]) -> Page:
    """Write the page of all claims."""
    found = collected(records)
    claims = {key: _linked(key, found) for key in judged.STATEMENTS}
    counts = {verdict: sum(claim.verdict == verdict for claim in claims.values()) for verdict in VERDICTS}
    open_ones = len(claims) - len(found)
    return Page(
        title="Understanding Batch Normalization, claim by claim",
        summary=f"Of the {len(claims)} claims, {counts['supported']} are supported, {counts['contradicted']} "
        f"contradicted and {counts['inconclusive']} inconclusive{_open(open_ones)}.",
        sections=(
            Section(title="All claims", blocks=(*_overview(claims, found), _measured_on(records))),
            *(Section(title=title, blocks=tuple(claims[key] for key in keys)) for title, keys in SECTIONS.items()),
            Section(title="Next to it", blocks=(_beside(records, found),)),
        ),
        manifest=_manifest(records),
    )


def _open(count: int) -> str:
    return f", {count} of these as they are about training, which was not measured here" if count else ""


def _linked(key: int, found: Mapping[int, list[tuple[Claim, str]]]) -> Claim:
    """Return the claim of a number, with links to the pages of the studies that judge it."""
    if key not in found:
        where = [name for name, keys in TRAINED.items() if key in keys]
        evidence = UNMEASURED.format(where[0]) if where else "Of the studies of this page none judges it."
        return judged.claim(key, predicted="—", measured="—", verdict="inconclusive", evidence=evidence)
    (claim, name), *others = found[key]
    link = Markup('<a href="../{0}/index.html">The page of {0}.</a>')
    parts = [escape(claim.evidence), link.format(name)]
    for other, beside in others:
        parts += [escape(f"Without training it is {other.verdict}: {other.measured}."), link.format(beside)]
    return replace(claim, evidence=Markup(" ").join(parts))


def _overview(claims: Mapping[int, Claim], found: Mapping[int, list[tuple[Claim, str]]]) -> Iterator[Block]:
    yield (
        "Bjorck, Gomes, Selman and Weinberger (NeurIPS 2018, arXiv:1806.02375) ask why batch normalisation helps. "
        "Their statements, in our words, are judged here by measurements of our own, by rules that could have gone the "
        "other way."
    )
    yield judged.RULE
    yield Table(
        caption="The claims and their verdicts.",
        columns=("claim", "statement", "verdict", "study"),
        rows=tuple((str(key), claim.statement, *_verdict(key, claim, found)) for key, claim in claims.items()),
    )


def _verdict(key: int, claim: Claim, found: Mapping[int, list[tuple[Claim, str]]]) -> tuple[str, str]:
    """Return the verdict and the studies of a claim, in the table."""
    if key in found:
        return claim.verdict, ", ".join(name for _, name in found[key])
    return "not measured", ", ".join(name for name, keys in TRAINED.items() if key in keys) or "—"


def _measured_on(records: Mapping[str, Records]) -> str:
    """Name the largest networks and the images, on which verdicts depend."""
    cells = [record.cell.parameters for one in records.values() for record in one.records]
    asked = [cell for cell in cells if {"data", "depth"} <= set(cell)]
    if not asked:
        return "None of these studies uses images."
    images = ", ".join(sorted({str(cell["data"]) for cell in asked}))
    return (
        f"Measured on residual networks of up to {max(cell['depth'] for cell in asked)} layers and images of {images}; "
        "the page of each study has its sizes. The paper is about ResNet-110 and CIFAR-10. A verdict is about the "
        "networks and images that were measured: shallower ones can contradict what holds at 110 layers."
    )


def _beside(records: Mapping[str, Records], found: Mapping[int, list[tuple[Claim, str]]]) -> Markup:
    """Link the studies that judge other papers' statements."""
    judging = {name for judgements in found.values() for _, name in judgements}
    links = [Markup('<a href="../{0}/index.html">{0}</a>').format(name) for name in records if name not in judging]
    said = Markup("Studies of two papers next to it, with claims of their own: {}.")
    return said.format(Markup(", ").join(links))


def _manifest(records: Mapping[str, Records]) -> dict[str, str]:
    """Join the manifests of the studies: what they share once, and the cells of each."""
    manifests = {name: one.manifest() for name, one in records.items()}
    first = next(iter(manifests.values()))
    shared = {
        key: value for key, value in first.items() if all(other.get(key) == value for other in manifests.values())
    }
    finished = max(manifest["finished"] for manifest in manifests.values())
    cells = {f"cells, {name}": manifest["cells"] for name, manifest in manifests.items()}
    return {"study": "paper", **{k: v for k, v in shared.items() if k != "study"}, **cells, "finished": finished}


@click.command(epilog=example("paper --preset quick"))
@image_data
@partial(common, dtype="float32")
def command(*, options: Common, data: str) -> None:
    """Run the studies of Understanding Batch Normalization and judge its 31 claims."""
    if options.sweep is not None and options.sweep.dry_run:
        _foretell(options, data)
        return
    records = dict(_measured(options, data)) | dict(_trained(options, data))
    if options.as_json:
        echo_json({str(key): _numbers(*one[0]) for key, one in sorted(collected(records).items())})
        return
    path = options.out / "paper" / "index.html"
    write(page(records), path, styles=STYLES)
    click.echo(path)


def _asked(one: PaperStudy, options: Common, data: str) -> tuple[Common, dict[str, str]]:
    """Return the options and arguments of a study.

    Those without images are in double precision, as by their own commands: a product of Gaussian matrices loses its
    smallest singular values in single precision.
    """
    return (options, {"data": data}) if one.of_images else (replace(options, dtype="float64"), {})


def _measured(options: Common, data: str) -> Iterator[tuple[str, Records]]:
    """Run one study after another and write its page, so that what is done is kept if a later one fails."""
    for name in STUDIES:
        one = study(name)
        own, asked = _asked(one, options, data)
        records = one.measure(own, **asked)
        if not options.as_json:
            one.write(options, records)
        yield name, records


def _trained(options: Common, data: str) -> Iterator[tuple[str, Records]]:
    """Take up the studies that train whose cells are all stored, and write their pages, so that links lead there."""
    for name in TRAINED:
        one = study(name)
        own, asked = _asked(one, options, data)
        found = one.status(own, **asked)
        if found.done == found.cells:
            records = one.measure(own, **asked)
            one.write(options, records)
            yield name, records


def _foretell(options: Common, data: str) -> None:
    """Say of every study how far it is, and how long all would take."""
    asked = [(one, *_asked(one, options, data)) for one in map(study, STUDIES)]
    every = [one.status(own, **arguments) for one, own, arguments in asked]
    for found in every:
        click.echo(said(found))
    left = sum(found.left for found in every if found.done)
    untimed = [found.study for found in every if not found.done]
    click.echo(
        f"paper: {sum(found.done for found in every)} of {sum(found.cells for found in every)} cells done; the others "
        f"would take about {left:.3g} s on one worker"
        + (f", besides {', '.join(untimed)}, of which no cell is timed yet" if untimed else "")
    )


def _numbers(claim: Claim, name: str) -> dict[str, str]:
    return {
        "statement": claim.statement,
        "verdict": claim.verdict,
        "predicted": claim.predicted,
        "measured": claim.measured,
        "study": name,
    }
