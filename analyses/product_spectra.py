"""What are the singular values of products of Gaussian matrices? `rmtbn product-spectra`: figures 8, 9 and appendix K.

Theorem 1 of Bjorck et al. 2018 is the density of λ, the *squared* singular value, of a product of M square Gaussian
matrices with entries of variance 1/N: the Fuss–Catalan law, `rmtbn.theory.fuss_catalan`. The singular values are those
of `rmtbn.linalg.product`, right to the smallest at any M, where a singular value decomposition of the product in double
precision is wrong from M = 8 on.
"""

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

import click
import pandas as pd
import torch
from torch import Tensor

from rmtbn import rng
from rmtbn.linalg import product as products
from rmtbn.linalg import product_values
from rmtbn.linalg.push_forward import push_forward
from rmtbn.sweep.grid import Cell, Study, Value, grid

from . import _product_spectra_claims, _product_spectra_page
from ._options import Common, common, example
from ._paper_study import PaperStudy

FACTORS = (1, 2, 3, 5, 8)
# Size of the matrices and draws, which are those of the paper from "default" on.
SIZES: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "quick": MappingProxyType({"width": 64, "draws": 6}),
        "default": MappingProxyType({"width": 1000, "draws": 10}),
        "paper": MappingProxyType({"width": 1000, "draws": 100}),
    }
)


def cell(*, seed: int, width: int, device: str, dtype: str) -> dict[str, pd.DataFrame]:
    """Multiply Gaussian matrices one by one and measure the products of `FACTORS` of them.

    Returns
    -------
    dict
        "products": per number of factors all log singular values, and their estimated relative error.
    """
    place = {"device": torch.device(device), "dtype": getattr(torch, dtype)}
    whole = products.identity(width, **place)
    rows = []
    for count in range(1, max(FACTORS) + 1):
        drawn = torch.randn(width, width, generator=rng.torch_generator(seed, "factor", count), dtype=torch.float64)
        factor = (drawn / width**0.5).to(**place)
        whole, _ = push_forward(whole, factor.new_zeros(()), [[partial(_apply, factor)]])
        if count in FACTORS:
            found = product_values.log_singular_values(whole)
            rows.append(
                {
                    "factors": count,
                    "log_singular_values": found.values.tolist(),
                    "relative_error": float(found.relative_error),
                }
            )
    return {"products": pd.DataFrame(rows)}


def _apply(factor: Tensor, point: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
    return point, factor @ tangents


def cells(options: Common) -> tuple[Cell, ...]:
    """Return a cell for each draw."""
    sizes = SIZES[options.preset]
    constants: dict[str, Value] = {"width": sizes["width"], "device": options.device, "dtype": options.dtype}
    axes = {name: (value,) for name, value in constants.items()}
    return grid(axes, seeds=tuple(range(options.seed, options.seed + sizes["draws"])))


ANALYSIS = PaperStudy(
    study=Study(name="product-spectra", version=1, compute=cell),
    cells=cells,
    claims=_product_spectra_claims.claims,
    page=_product_spectra_page.page,
    numbers=_product_spectra_page.numbers,
    of_images=False,
)


@click.command(epilog=example("product-spectra --preset quick"))
@common
def command(*, options: Common) -> None:
    """Measure products of Gaussian matrices against Theorem 1 (figs. 8, 9)."""
    ANALYSIS.execute(options)
