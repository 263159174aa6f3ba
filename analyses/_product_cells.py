"""What `rmtbn product` measures: singular values of the factors of one product, and of the product."""

import hashlib
import itertools
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from rmtbn import _checks, inits, rng
from rmtbn.data.weights import check_chain, choose_weights, read_weights
from rmtbn.linalg import product as products
from rmtbn.linalg import product_values
from rmtbn.linalg.push_forward import push_forward
from rmtbn.sweep.grid import Study
from rmtbn.theory import convolution

SCHEMES = {"gaussian": "lecun_normal", "uniform": "torch_default", "orthogonal": "orthogonal"}
SEPARATOR = ","  # of the patterns of names, and of the widths


def drawn(*, seed: int, widths: str, law: str, sigma_w: float, device: str, dtype: str) -> dict[str, pd.DataFrame]:
    """Draw the factors of a product, of sizes n_1 × n_0, n_2 × n_1, …, and measure them and it."""
    sizes = [int(n) for n in widths.split(SEPARATOR)]
    factors = {}
    for layer, (inputs, outputs) in enumerate(itertools.pairwise(sizes), start=1):
        linear = nn.Linear(inputs, outputs, bias=False, dtype=torch.float64)
        generator = rng.torch_generator(seed, "factor", law, layer)
        inits.initialise(linear, SCHEMES[law], generator=generator, activation="linear")
        own = inits.weight_law(SCHEMES[law], "linear", fan_in=inputs, fan_out=outputs).sigma_w
        factors[f"factor {layer}"] = linear.weight.detach() * (sigma_w / own)
    return _measured(factors, image=0, whole=True, device=device, dtype=dtype)


def read(
    *, seed: int, file: str, digest: str, tensors: str, order: str, transpose: bool, image: int, whole: bool,
    device: str, dtype: str,
) -> dict[str, pd.DataFrame]:  # fmt: skip
    """Measure the weights of a file and, if `whole`, their product; `digest` and `seed` only tell the cells apart."""
    del seed, digest
    chosen = weights(file, tensors=tensors, order=order, transpose=transpose, image=image)
    return _measured(chosen, image=image, whole=whole, device=device, dtype=dtype)


DRAWN = Study(name="product", version=1, compute=drawn)
READ = Study(name="product of weights", version=1, compute=read)


def weights(file: str, *, tensors: str, order: str, transpose: bool, image: int) -> dict[str, Tensor]:
    """Read and choose the weights of a file, in float64, as (outputs, inputs, taps of a convolution).

    Kernels are refused without the side of the images that they act on (`image` = 0).
    """
    patterns = tensors.split(SEPARATOR) if tensors else ()
    found = choose_weights(read_weights(file), patterns=patterns, order=order)
    for name, tensor in found.items():
        if tensor.ndim > 2 and not image:
            rule = "weight matrices (choose them by --tensors), or give --image and --layers for the convolutions"
            raise _checks.fail("tensors", rule, f"{name} of shape {tuple(tensor.shape)}")
    return {name: (_transposed(tensor) if transpose else tensor).double() for name, tensor in found.items()}


def _transposed(tensor: Tensor) -> Tensor:
    """(taps, inputs, outputs) → (outputs, inputs, taps): JAX's order to torch's."""
    return tensor.movedim((-1, -2), (0, 1))


def digest(file: str) -> str:
    """Return the SHA-256 of a file, by which its results are stored."""
    with Path(file).open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _measured(
    factors: Mapping[str, Tensor], *, image: int, whole: bool, device: str, dtype: str
) -> dict[str, pd.DataFrame]:
    """Tabulate "layers", one row per factor, and "product", one row."""
    layers = pd.DataFrame(
        {
            "layer": range(1, len(factors) + 1),
            "name": list(factors),
            "outputs": [factor.shape[0] for factor in factors.values()],
            "inputs": [factor.shape[1] for factor in factors.values()],
            "size": [" × ".join(str(n) for n in factor.shape) for factor in factors.values()],
            "positions": [image ** (factor.ndim - 2) for factor in factors.values()],
            "log_singular_values": [_log_singular_values(f.to(device), image=image) for f in factors.values()],
        }
    )
    if not whole:
        return {"layers": layers}
    check_chain({name: tuple(factor.shape) for name, factor in factors.items()})
    place = {"device": torch.device(device), "dtype": getattr(torch, dtype)}
    found = _product([factor.to(**place) for factor in factors.values()])
    product = pd.DataFrame(
        {"log_singular_values": [found.values.tolist()], "relative_error": [float(found.relative_error)]}
    )
    return {"layers": layers, "product": product}


def _log_singular_values(factor: Tensor, *, image: int) -> list[float]:
    """All log singular values of one factor, descending; what rounding cannot tell from 0 counts as 0.

    A kernel is that of a circular convolution of stride 1 on images of side `image`.
    """
    if factor.ndim > 2:
        found = convolution.singular_values(factor.cpu().numpy(), image=(image,) * (factor.ndim - 2))
        values = torch.from_numpy(found).flatten().sort(descending=True).values
    else:
        values = torch.linalg.svdvals(factor.double())
    floor = max(factor.shape[:2]) * torch.finfo(torch.float64).eps * values[0]
    return torch.where(values > floor, values, torch.zeros_like(values)).log().tolist()


def _product(factors: list[Tensor]) -> product_values.LogSingularValues:
    """All log singular values of the product, the first factor applied first."""
    start = products.identity(factors[0].shape[1], dtype=factors[0].dtype, device=factors[0].device)
    steps = [[partial(_apply, factor)] for factor in factors]
    whole, _ = push_forward(start, factors[0].new_zeros(()), steps)
    return product_values.log_singular_values(whole)


def _apply(factor: Tensor, point: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
    return point, factor @ tangents
