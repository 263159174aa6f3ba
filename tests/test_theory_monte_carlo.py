"""The mean field and its first correction against networks of finite width at every layer (slow: many networks).

Given the length q of a layer its pre-activations are independent N(0, q), so the lengths of a network are drawn unit by
unit, exactly in law and without its weights; tests/test_measure_ensemble.py does the same with weights.
"""

import numpy as np
import pytest

from rmtbn import rng
from rmtbn.activations import ACTIVATIONS
from rmtbn.theory.width_expansion import width_expansion

DEPTH = 50
WIDTHS = np.array([64, 128, 256, 512])
SMOOTH = [(1.3, 0.1), (1.76, 0.05), (2.5, 0.3)]  # (σ_w², σ_b²): ordered, about critical, chaotic for tanh
POINTS = [(name, *point) for name in ("tanh", "erf", "hard_tanh") for point in SMOOTH] + [
    *(("relu", *point) for point in ((1.5, 0.1), (2.0, 0.0), (2.0, 0.1))),
    *(("gelu", *point) for point in ((1.5, 0.3), (1.9, 0.5), (1.983, 0.173))),
    *(("selu", *point) for point in ((0.6, 0.2), (0.8, 0.1), (0.95, 0.02))),
]


def log_lengths(name, weight, bias, *, width, count):
    """ln q^l of `count` networks, shape (DEPTH, count), in chunks that stay in the cache."""
    phi, draws = ACTIVATIONS[name].phi, rng.generator(1, "lengths", name, weight, width)
    chunks = []
    for _ in range(0, count, 100):
        q, rows = np.full(100, weight + bias), []
        for _ in range(DEPTH):
            rows.append(np.log(q))
            h = draws.standard_normal((100, width)) * np.sqrt(q)[:, None]
            q = weight * np.mean(phi(h) ** 2, axis=1) + bias
        chunks.append(np.array(rows))
    return np.concatenate(chunks, axis=1)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "weight", "bias"), POINTS)
def test_lengths_deviate_from_the_mean_field_as_one_over_width(name, weight, bias):
    """At width 512 within 4 standard errors and 1/N (predicted, not fitted) at all 50 layers; slope -1 ± 0.25 in N."""
    deviation = []
    for width in WIDTHS:
        values = log_lengths(name, weight, bias, width=int(width), count=int(8 * width))
        chain = (int(width),) * (DEPTH + 1)
        theory = width_expansion(name, widths=chain, sigma_w=weight**0.5, sigma_b=bias**0.5)
        rest = values.mean(axis=1) - np.log(theory.q)
        deviation.append(abs(rest[10:].mean()))
    error = values.std(axis=1) / values.shape[1] ** 0.5
    first = theory.log_q_mean - np.log(theory.q)
    assert (np.abs(rest - first) < 4 * error + 5 * first**2 + 1e-12).all()
    slope = np.polyfit(np.log(WIDTHS), np.log(deviation), 1)[0]
    assert slope == pytest.approx(-1.0, abs=0.25)
