"""Which law do the singular values of a deep network follow, and how wide must it be to do so? `rmtbn laws`.

Free probability gives the law of the squared singular values λ of a Jacobian in the limit of infinite width: for
products of Gaussian matrices (Penson & Życzkowski 2011, arXiv:1103.3453), and for networks with activations
(Pennington, Schoenholz & Ganguli 2017, 2018, arXiv:1711.04735, arXiv:1802.09979). The study draws networks at growing
width and lays them over their laws, right and wrong ones. With `--law` it is one law with its numbers.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import click

from rmtbn import _checks
from rmtbn.activations import ACTIVATIONS
from rmtbn.plot.theme import STYLES
from rmtbn.report.render import write
from rmtbn.result import EmpiricalSpectrum
from rmtbn.sweep import provenance
from rmtbn.sweep.grid import Cell
from rmtbn.sweep.run import Records

from . import _laws_page, _laws_single
from ._laws_networks import STUDY, WEIGHTS, Kind
from ._laws_records import Laws, pooled
from ._laws_registry import LAWS, Entry, Options, asked
from ._options import Common, common, echo_json, example

CHUNK = 16  # networks of a cell

# σ_b of the bounded activations: σ_b² = 0.05, in the middle of the range that Schoenholz et al. 2017
# (arXiv:1611.01232) study.
SIGMA_B: Mapping[str, float] = MappingProxyType(
    {"linear": 0.0, "relu": 0.0, "hard_tanh": 0.05**0.5, "tanh": 0.05**0.5, "erf": 0.05**0.5}
)
UNIFORM = ("relu", "tanh")  # also drawn with uniform weights, whose law is that of Gaussian ones
ACTIVATIONS_OF: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"quick": ("linear", "relu", "tanh"), "default": tuple(SIGMA_B), "paper": tuple(SIGMA_B)}
)
WIDTHS = MappingProxyType({"quick": (8, 16), "default": (16, 32, 64, 128), "paper": (125, 250, 500, 1000)})
DEPTHS = MappingProxyType({"quick": (1, 4), "default": (1, 4, 16), "paper": (1, 4, 16)})
# Networks for each unit of width N: their noise then falls as 1/N, like the bias of the law. The width is that of the
# networks that are laid over one law. Quick: seconds; default: two minutes.
GRID: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "quick": {"networks_per_width": 1.0, "width": 32},
        "default": {"networks_per_width": 0.5, "width": 256},
        "paper": {"networks_per_width": 0.1, "width": 1000},
    }
)


def kinds(preset: str) -> tuple[Kind, ...]:
    """Return the kinds of networks of a preset, all on their critical lines."""
    chosen = ACTIVATIONS_OF[preset]
    pairs = [(name, weights) for name in chosen for weights in ("gaussian", "orthogonal")]
    pairs += [(name, "uniform") for name in UNIFORM if name in chosen]
    return tuple(Kind(activation=name, weights=weights, sigma_b=SIGMA_B[name]) for name, weights in pairs)


def cells(options: Common) -> tuple[Cell, ...]:
    """Return the cells of a preset: `networks_per_width` · N networks of each kind and width N."""
    share, stops = GRID[options.preset]["networks_per_width"], DEPTHS[options.preset]
    found: list[Cell] = []
    for kind in kinds(options.preset):
        for width in WIDTHS[options.preset]:
            shared = kind.parameters(width=width, depths=stops, device=options.device, dtype=options.dtype)
            found += _chunks(shared, round(share * width), seed=options.seed)
    return tuple(found)


def _chunks(shared: Mapping[str, Any], networks: int, *, seed: int) -> list[Cell]:
    """Cut networks of one kind into cells of `CHUNK` at most."""
    sizes = [min(CHUNK, networks - done) for done in range(0, networks, CHUNK)]
    return [Cell(parameters={**shared, "networks": size}, seed=seed + i) for i, size in enumerate(sizes)]


def _integers(_ctx: click.Context, param: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    """Read integers >= 1 with commas between them."""
    if text is None:
        return None
    if not re.fullmatch(r"0*[1-9]\d*(,0*[1-9]\d*)*", text):
        raise click.BadParameter(f"{text!r} is not a list of integers >= 1 with commas between them.", param=param)
    return tuple(int(number) for number in text.split(","))


REAL = click.FLOAT
SIGMA = click.FloatRange(min=0)


@click.command(epilog=example("laws --law jacobian --activation tanh --sigma-b 0.2 --depth 1,4,16 --networks 10"))
@click.option("--law", type=click.Choice(list(LAWS)), help="One law instead of the study.")
@click.option("--activation", type=click.Choice(list(ACTIVATIONS)), help="φ.  [default: relu]")
@click.option("--weights", type=click.Choice(WEIGHTS), help="Law of the weights.  [default: gaussian]")
@click.option("--depth", callback=_integers, help="Number of layers L, or several: 1,4,16.  [default: 4]")
@click.option("--widths", callback=_integers, help="n_0,...,n_L where they differ; only the ratios matter.")
@click.option("--sigma-w", type=SIGMA, help="Standard deviation of √N·W.  [default: critical]")
@click.option("--sigma-b", type=SIGMA, help="Standard deviation of the biases.  [default: 0]")
@click.option("--q0", type=SIGMA, help="Mean square of the input.  [default: every layer at q*]")
@click.option("--ratio", type=REAL, help="Rows over columns c of one Gaussian matrix.  [default: 1]")
@click.option("--p", type=REAL, help="p of raney, or share of units that root-limit keeps.  [default: 2.5, 0.5]")
@click.option("--r", type=REAL, help="r of raney.  [default: 1]")
@click.option("--c", type=REAL, help="Variance of all branches of residual.  [default: 1]")
@click.option("--s", type=REAL, help="Spread of all slopes of smooth-limit, bernoulli-limit.  [default: 0.25]")
@click.option("--networks", type=click.IntRange(min=0), help="Networks to lay over one law.  [default: none]")
@click.option("--width", type=click.IntRange(min=1), help="Their width.  [default: by preset, 32, 256, 1000]")
@common
def command(*, options: Common, law: str | None, networks: int | None, width: int | None, **given: Any) -> None:
    """Plot laws of singular values, and lay networks over them."""
    given = {name: value for name, value in given.items() if value is not None}
    if "depth" in given:
        given["depth"] = tuple(sorted(set(given["depth"])))
    if law is None:
        _refuse({**given, "networks": networks, "width": width})
        _study(options)
    else:
        _single(options, law, given, networks=networks or 0, width=width)


def _refuse(given: Mapping[str, Any]) -> None:
    """Refuse the options of one law where none is asked for."""
    for name, value in given.items():
        if value is not None:
            raise _checks.fail(name, f"left out without --law (one of {', '.join(LAWS)})", value)


def _study(options: Common) -> None:
    """Lay networks over all laws of a preset."""
    records = options.run(STUDY, cells(options), folder="laws")
    found = Laws(records.table("spectra"))
    if options.as_json:
        echo_json(_laws_page.numbers(found))
        return
    path = options.out / "laws" / "index.html"
    write(_laws_page.page(found, manifest=records.manifest()), path, styles=STYLES)
    click.echo(path)


def _single(options: Common, law: str, given: Mapping[str, Any], *, networks: int, width: int | None) -> None:
    """Show one law, and lay networks over it if they are asked for."""
    if width is not None and not networks:
        raise _checks.fail("width", "left out without --networks", width)
    entry, complete = asked(law, given)
    with provenance.recorded() as made:
        laws = entry.laws(complete)
    size = width or int(GRID[options.preset]["width"])
    wanted = _overlay_cells(entry, complete, options, networks=networks, width=size) if networks else ()
    records = options.run(STUDY, wanted, folder=f"laws-{law}")
    spectra = dict(zip(laws, _spectra(records, entry, complete), strict=True)) if networks else {}
    family = _laws_single.Family(name=law, entry=entry, options=complete, laws=laws, networks=spectra)
    if options.as_json:
        echo_json(_laws_single.numbers(family))
        return
    path = options.out / f"laws-{law}" / "index.html"
    manifest = records.manifest() if networks else provenance.summarise([made])
    write(_laws_single.page(family, manifest=manifest), path, styles=STYLES)
    click.echo(path)


def _overlay_cells(entry: Entry, complete: Options, options: Common, *, networks: int, width: int) -> tuple[Cell, ...]:
    """Return one cell per network of the overlay."""
    if entry.kind is None:
        raise _checks.fail("networks", "left out for this law, over which no networks are laid", networks)
    kind = entry.kind(complete, width)
    shared = kind.parameters(width=width, depths=entry.depths(complete), device=options.device, dtype=options.dtype)
    return tuple(Cell(parameters={**shared, "networks": 1}, seed=options.seed + i) for i in range(networks))


def _spectra(records: Records, entry: Entry, options: Options) -> list[EmpiricalSpectrum]:
    """Pool the networks of a run at each depth; of λ^{1/L} where that is what follows the law."""
    table = records.table("spectra")
    found = [pooled(table[table.depth == stop]) for stop in entry.depths(options)]
    if not entry.is_root:
        return found
    return [
        replace(one, by_network=one.by_network / stop) for one, stop in zip(found, entry.depths(options), strict=True)
    ]
