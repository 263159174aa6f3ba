"""Time the laws of deep Jacobians, and say what a Monte Carlo of equal accuracy would cost.

For each network: seconds to make the law, and then for the density, the distribution function and quantiles at 512
points, in process time on one core. The alternative is to draw networks of width N and pool their squared singular
values. Equal accuracy is that of the histogram at 512 points to 1 % of the density, which is generous: with N values
from each network and repulsion of eigenvalues, a bin that holds a share 1/512 of them fluctuates by about one value,
so that 100 · 512 values are needed, 51,200/N networks. One network is timed, by a dense SVD of the product at N = 512
(which is wrong far below the top at depth; right ones by QR cost more), and scaled.

Run: OMP_NUM_THREADS=1 python benchmarks/jacobian_laws.py
"""

import time
from collections.abc import Callable
from statistics import mean, stdev

import numpy as np

from rmtbn.activations import activation
from rmtbn.theory.jacobian import JacobianLaw, jacobian_law

POINTS, TURNS, WIDTH, VALUES = 512, 3, 512, 100 * 512
NETWORKS = [
    ("linear", "gaussian", 0.0),
    ("relu", "gaussian", 0.0),
    ("hard_tanh", "orthogonal", 0.2),
    ("tanh", "gaussian", 0.2),
    ("erf", "orthogonal", 0.2),
    ("gelu", "gaussian", 0.2),
    ("silu", "gaussian", 0.2),
]
DEPTHS = (2, 32, 1024)


def seconds(action: Callable[[], object]) -> float:
    """Process time of one call."""
    start = time.process_time()
    action()
    return time.process_time() - start


def law_of(name: str, weights: str, sigma_b: float, *, depth: int) -> JacobianLaw:
    """Make the law at criticality."""
    return jacobian_law(name, depth=depth, weights=weights, sigma_b=sigma_b)


def times(name: str, weights: str, sigma_b: float, *, depth: int) -> dict[str, list[float]]:
    """Seconds of each step, a new law in every turn."""
    found: dict[str, list[float]] = {"make": [], "pdf": [], "cdf": [], "ppf": []}
    p = (np.arange(POINTS) + 0.5) / POINTS
    for _ in range(TURNS):
        laws: list[JacobianLaw] = []
        found["make"].append(seconds(lambda laws=laws: laws.append(law_of(name, weights, sigma_b, depth=depth))))
        law = laws[0]
        high = law.log_bulk[1] if law.log_bulk else 0.0
        x = np.linspace(high - 20 - depth, high, POINTS + 2)[1:-1]
        found["pdf"].append(seconds(lambda law=law, x=x: law.log_pdf_log(x)))
        found["cdf"].append(seconds(lambda law=law, x=x: law.cdf_log(x)))
        found["ppf"].append(seconds(lambda law=law: law.log_ppf(p)))
    return found


def monte_carlo(name: str, weights: str, sigma_b: float, *, depth: int) -> float:
    """Seconds for 51,200 pooled values, from one network of a few layers."""
    law, record = law_of(name, weights, sigma_b, depth=1), activation(name)
    generator, layers = np.random.default_rng(0), min(depth, 2)

    def draw() -> None:
        product = np.eye(WIDTH)
        for _ in range(layers):
            w = generator.standard_normal((WIDTH, WIDTH)) * law.sigma_w / WIDTH**0.5
            w = np.linalg.qr(w)[0] * law.sigma_w if weights == "orthogonal" else w
            h = generator.standard_normal(WIDTH) * max(float(law.q[0]), 1e-12) ** 0.5
            product = record.dphi(h)[:, None] * (w @ product)

    layer = seconds(draw) / layers
    values = np.random.default_rng(1).standard_normal((WIDTH, WIDTH))
    return VALUES / WIDTH * (layer * depth + seconds(lambda: np.linalg.svd(values, compute_uv=False)))


def main() -> None:
    """Print a table."""
    for name, weights, sigma_b in NETWORKS:
        for depth in DEPTHS:
            found = times(name, weights, sigma_b, depth=depth)
            shown = "  ".join(f"{step} {mean(t) * 1e3:6.1f} ± {stdev(t) * 1e3:4.1f} ms" for step, t in found.items())
            ratio = monte_carlo(name, weights, sigma_b, depth=depth) / (mean(found["make"]) + mean(found["pdf"]))
            print(f"{name:9s} {weights:10s} L = {depth:4d}  {shown}  Monte Carlo {ratio:.3g} times", flush=True)


if __name__ == "__main__":
    main()
