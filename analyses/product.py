"""Singular values of weight matrices and of their products, without inputs: `rmtbn product`.

The factors are drawn (Gaussian, uniform or orthogonal, of any widths) or read from files of trained weights. Each
factor is held against the laws of one random matrix, the product against the law of products of such matrices:
Fuss–Catalan for square Gaussian ones, that of their free product for others.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import click

from rmtbn import _checks
from rmtbn.data.weights import ORDERS, check_chain
from rmtbn.plot.theme import STYLES
from rmtbn.report.render import write
from rmtbn.sweep.grid import Cell

from . import _product_cells, _product_page
from ._options import Common, common, echo_json, example
from ._product_records import Products, numbers

GRID: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "quick": {"depth": 3, "width": 32, "products": 3},
        "default": {"depth": 4, "width": 256, "products": 10},
        "paper": {"depth": 4, "width": 1024, "products": 20},
    }
)
DRAWING = ("depth", "width", "widths", "products", "sigma_w")
READING = ("tensors", "order", "transpose", "image", "layers")


def drawn_cells(options: Common, asked: Mapping[str, Any], *, law: str) -> tuple[Cell, ...]:
    """Return one cell per product of drawn factors; sizes that were not given come from the preset."""
    sizes = {**GRID[options.preset], **{name: value for name, value in asked.items() if value is not None}}
    widths = sizes.get("widths") or _product_cells.SEPARATOR.join([str(sizes["width"])] * (sizes["depth"] + 1))
    sigma_w = _checks.real("sigma_w", sizes.get("sigma_w", 1.0), above=0.0)
    parameters = {"widths": _widths(widths), "law": law, "sigma_w": sigma_w, "device": options.device}
    return tuple(
        Cell(parameters={**parameters, "dtype": options.dtype}, seed=seed)
        for seed in range(options.seed, options.seed + sizes["products"])
    )


def read_cells(
    options: Common, files: tuple[str, ...], *, tensors: tuple[str, ...], order: str, transpose: bool, image: int,
    whole: bool,
) -> tuple[Cell, ...]:  # fmt: skip
    """Return one cell per file of weights, having checked what the files hold."""
    if len(set(files)) < len(files):
        raise _checks.fail("file", "different files", ", ".join(files))
    chosen: dict[str, Any] = {"tensors": _product_cells.SEPARATOR.join(tensors), "order": order,
                              "transpose": transpose, "image": image}  # fmt: skip
    cells: list[Cell] = []
    first: list[tuple[int, ...]] = []
    for file in files:
        shapes = {name: tuple(matrix.shape) for name, matrix in _product_cells.weights(file, **chosen).items()}
        if whole:
            check_chain(shapes)
        first = first or list(shapes.values())
        if list(shapes.values()) != first:
            raise _checks.fail("file", "files with matrices of the same sizes", f"{files[0]} and {file}")
        parameters = {"file": file, "digest": _product_cells.digest(file), **chosen, "whole": whole}
        kind = {"device": options.device, "dtype": options.dtype}
        cells.append(Cell(parameters={**parameters, **kind}, seed=options.seed))
    return tuple(cells)


def _widths(text: str) -> str:
    """Check a list of widths such as 784,256,10."""
    parts = text.split(_product_cells.SEPARATOR)
    if len(parts) < 2 or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise _checks.fail("widths", "two or more whole numbers > 0 between commas, inputs first", text)
    return _product_cells.SEPARATOR.join(str(int(part)) for part in parts)


def _refuse(names: tuple[str, ...], asked: Mapping[str, Any], *, rule: str) -> None:
    for name in names:
        if asked[name] is not None and asked[name] is not False and asked[name] != ():
            raise _checks.fail(name, rule, asked[name])


SIZE = click.IntRange(min=1)
LAWS = click.Choice(list(_product_cells.SCHEMES))


@click.command(epilog=example("product --depth 4 --width 256 --products 10"))
@click.option("--depth", type=SIZE, help="Factors.  [default: by preset, 3, 4, 4]")
@click.option("--width", type=SIZE, help="Size of square factors.  [default: by preset, 32, 256, 1024]")
@click.option("--widths", help="Sizes n_0,…,n_L of rectangular factors, inputs first: 784,256,10.")
@click.option("--products", type=SIZE, help="Products, one seed each.  [default: by preset, 3, 10, 20]")
@click.option("--law", type=LAWS, default="gaussian", show_default=True, help="Of the factors.")
@click.option("--sigma-w", type=click.FloatRange(min=0), help="Of drawn factors: variance σ_w²/inputs.  [default: 1]")
@click.option("--file", "files", multiple=True, help="Weights instead: .safetensors, state_dict, .npz, .npy; repeat.")
@click.option("--tensors", multiple=True, help="Names to take, with * and ?; repeat for an order.  [default: all]")
@click.option("--order", type=click.Choice(ORDERS), help="Order of the names of a file.  [default: natural]")
@click.option("--transpose", is_flag=True, help="The file holds (inputs, outputs) matrices, as JAX does.")
@click.option("--image", type=SIZE, help="Side of the images that kernels of convolutions act on (with --layers).")
@click.option("--layers", is_flag=True, help="Measure the matrices alone, without their product.")
@common
def command(*, options: Common, files: tuple[str, ...], law: str, **asked: Any) -> None:
    """Measure matrices and their products, drawn or from a weight file."""
    if files:
        _refuse(DRAWING, asked, rule="left out where weights come from a file")
        chosen: dict[str, Any] = {
            "tensors": asked["tensors"],
            "order": asked["order"] or "natural",
            "transpose": asked["transpose"],
            "image": asked["image"] or 0,
        }
        study, cells = _product_cells.READ, read_cells(options, files, **chosen, whole=not asked["layers"])
    else:
        _refuse(READING, asked, rule="left out without --file")
        sizes = {name: asked[name] for name in DRAWING}
        study, cells = _product_cells.DRAWN, drawn_cells(options, sizes, law=law)
    records = options.run(study, cells, folder="product")
    products = Products(records, law=law, sigma_w=None if files else cells[0].parameters["sigma_w"])
    if options.as_json:
        echo_json(numbers(products))
        return
    path = options.out / "product" / "index.html"
    write(_product_page.page(products, manifest=records.manifest()), path, styles=STYLES)
    click.echo(_product_page.text(products))
    click.echo(path)
