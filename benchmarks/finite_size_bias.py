"""How far is the mean law of networks of width N from that of infinite width? N times the distance, for each φ.

The mean distribution function over thousands of small networks has no noise left to speak of; its largest distance to
the law of N → ∞ is the bias b/N that the allowance κ/N of `rmtbn.compare` must cover. Measured (N = 16, 32, 64;
L = 1, 4, 16), b is at most

    linear, tanh, erf        0.3   0.5   0.7      no larger at larger N, within errors
    SELU, SiLU, GELU         0.4   1.0   1.2
    leaky ReLU, slope 0.01   0.7   2.5   2.4      and grows as N^0.4: nearly a unit that is off, whose number is a rank

so that κ = 1.5 (`compare.FINITE_SIZE`) covers the first two rows. The alternative, taking the distance of one
comparison for the bias, counts its noise too, 0.5 to 1.0 for 20 networks (benchmarks/finite_size_ks.py). Dense singular
values below e^-25 of the largest are rounding, and their part of the law is left out. About two minutes of one core.

    python benchmarks/finite_size_bias.py
"""

import math

import numpy as np
from numpy.typing import NDArray
from rmtbn.analyses._laws_networks import Kind

from rmtbn import rng
from rmtbn.activations import activation
from rmtbn.result import SpectralMeasure

Array = NDArray[np.float64]

SIGMA_B = {"linear": 0.0, "tanh": 0.05**0.5, "erf": 0.05**0.5, "gelu": 0.3**0.5, "silu": 0.8**0.5, "selu": 0.2,
           "leaky_relu": 0.0}  # fmt: skip
DEPTHS = (1, 4, 16)
NETWORKS = {16: 3000, 32: 1500, 64: 400}  # by width
ROUNDING = 50.0  # of ln λ below the largest, beyond which dense singular values are not to be trusted


def main() -> None:
    """Measure and print."""
    print(f"{'φ':10} {'weights':10} {'L':>3}" + "".join(f"{f'N = {width}':>14}" for width in NETWORKS))
    for name, sigma_b in SIGMA_B.items():
        for weights in ("gaussian", "orthogonal"):
            for depth in DEPTHS:
                kind = Kind(activation=name, weights=weights, sigma_b=sigma_b)
                law = kind.exact_law(depth)
                if law.log_bulk is None or law.log_atoms:
                    continue  # at an atom that is not 0 the rounding of dense singular values is all the distance
                row = "".join(f"{written(*bias(kind, width, depth)):>14}" for width in NETWORKS)
                print(f"{name:10} {weights:10} {depth:3}{row}", flush=True)


def written(value: float, error: float) -> str:
    """Write a number with its error."""
    return f"{value:.2f} ± {error:.2f}"


def bias(kind: Kind, width: int, depth: int) -> tuple[float, float]:
    """Compute N sup |mean F_N - F| with the standard error of the mean at that place."""
    law, log_lam = kind.exact_law(depth), spectra(kind, width, depth)
    x = places(law, float(log_lam.max()) - ROUNDING)
    gaps = np.stack([np.searchsorted(row, x, side="right") / width for row in log_lam]) - law.cdf_log(x)
    mean = gaps.mean(axis=0)
    at = int(np.abs(mean).argmax())
    return width * float(np.abs(mean[at])), width * float(gaps[:, at].std()) / math.sqrt(len(gaps))


def places(law: SpectralMeasure, floor: float) -> Array:
    """Lay 300 quantiles, and points next to the upper edge, above the floor."""
    quantiles = law.log_ppf(np.linspace(0.002, 0.998, 300))
    edge = law.log_bulk[1] if law.log_bulk else 0.0
    x = np.unique(np.concatenate([quantiles[np.isfinite(quantiles)], edge - np.geomspace(1e-3, 1, 40)]))
    return np.asarray(x[x > floor])


def spectra(kind: Kind, width: int, depth: int) -> Array:
    """Draw networks at once and take ln λ of each, ascending."""
    law, record = kind.exact_law(depth), activation(kind.activation)
    draws = rng.generator(1, "bias", kind.activation, kind.weights, width, depth)
    given = kind.parameters(width=width, depths=(depth,), device="cpu", dtype="float64")
    x = draws.standard_normal((NETWORKS[width], width))
    x *= np.sqrt(given["q0"] / np.mean(x**2, axis=1, keepdims=True))
    jacobian = np.eye(width)
    for _ in range(depth):
        weight = law.sigma_w * matrices(kind.weights, draws.standard_normal((NETWORKS[width], width, width)))
        h = np.einsum("mij,mj->mi", weight, x) + kind.sigma_b * draws.standard_normal(x.shape)
        jacobian = record.dphi(h)[:, :, None] * (weight @ jacobian)
        x = record.phi(h)
    return np.asarray(2 * np.log(np.maximum(np.linalg.svd(jacobian, compute_uv=False)[:, ::-1], 1e-300)))


def matrices(weights: str, normal: Array) -> Array:
    """Make Gaussian or Haar matrices of standard normal entries."""
    if weights == "gaussian":
        return normal / math.sqrt(normal.shape[-1])
    q, r = np.linalg.qr(normal)
    return np.asarray(q * np.sign(np.einsum("mii->mi", r))[:, None, :])


if __name__ == "__main__":
    main()
