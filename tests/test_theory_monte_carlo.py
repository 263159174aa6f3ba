"""The mean field and its first correction against networks of finite width at every layer (slow: many networks).

Given lengths and covariance of two inputs at a layer, the pairs of its pre-activations are independent and Gaussian, so
networks are drawn unit by unit, exactly in law and without weights; tests/test_measure_ensemble.py has weights.
"""

import numpy as np
import pytest

from rmtbn import rng
from rmtbn.activations import ACTIVATIONS
from rmtbn.theory.correlation_expansion import correlation_expansion
from rmtbn.theory.width_expansion import width_expansion

DEPTH = 50
WIDTHS = np.array([64, 128, 256, 512])
SMOOTH = [(1.3, 0.1), (1.76, 0.05), (2.5, 0.3)]  # (σ_w², σ_b²): ordered, about critical, chaotic for tanh
POINTS = [(name, *point) for name in ("tanh", "erf", "hard_tanh") for point in SMOOTH] + [
    *(("relu", *point) for point in ((1.5, 0.1), (2.0, 0.0), (2.0, 0.1))),
    *(("gelu", *point) for point in ((1.5, 0.3), (1.9, 0.5), (1.983, 0.173))),
    *(("selu", *point) for point in ((0.6, 0.2), (0.8, 0.1), (0.95, 0.02))),
]


START = 0.6  # correlation of the inputs


def networks(name, weight, bias, *, width, count):
    """ln q^l and 1 - c^l of `count` networks, shape (DEPTH, count), in chunks that stay in the cache."""
    phi, draws = ACTIVATIONS[name].phi, rng.generator(1, "lengths", name, weight, width)
    chunks = []
    for _ in range(0, count, 100):
        q1 = q2 = np.full(100, weight + bias)
        p, rows = q1 - weight * (1 - START), []
        for _ in range(DEPTH):
            rows.append((np.log(q1), 1 - p / np.sqrt(q1 * q2)))
            z, w = draws.standard_normal((2, 100, width))
            root = np.sqrt(q1)
            a, b = phi(root[:, None] * z), phi((p / root)[:, None] * z + np.sqrt(q2 - (p / root) ** 2)[:, None] * w)
            q1, q2, p = (weight * np.einsum("ij,ij->i", x, y) / width + bias for x, y in ((a, a), (b, b), (a, b)))
        chunks.append(np.array(rows))
    return np.concatenate(chunks, axis=2).swapaxes(0, 1)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "weight", "bias"), POINTS)
def test_networks_deviate_from_the_mean_field_as_one_over_width(name, weight, bias):
    """At width 512 within 4 standard errors and 1/N (predicted, not fitted) at all 50 layers; slope -1 ± 0.25 in N."""
    deviation, sigmas = [], {"sigma_w": weight**0.5, "sigma_b": bias**0.5}
    for width in WIDTHS:
        log_q, decorrelation = networks(name, weight, bias, width=int(width), count=int(8 * width))
        chain = (int(width),) * (DEPTH + 1)
        theory = width_expansion(name, widths=chain, **sigmas)
        rest = log_q.mean(axis=1) - np.log(theory.q)
        deviation.append(abs(rest[10:].mean()))
    error = log_q.std(axis=1) / log_q.shape[1] ** 0.5
    first = theory.log_q_mean - np.log(theory.q)
    assert (np.abs(rest - first) < 4 * error + 5 * first**2 + 1e-12).all()
    slope = np.polyfit(np.log(WIDTHS), np.log(deviation), 1)[0]
    assert slope == pytest.approx(-1.0, abs=0.25)
    pair = correlation_expansion(name, widths=chain, c0=START, **sigmas)
    rest = decorrelation.mean(axis=1) - pair.decorrelation - pair.shift
    error = decorrelation.std(axis=1) / decorrelation.shape[1] ** 0.5
    second = 0.2 * pair.variance / pair.decorrelation + 5 * pair.decorrelation * (theory.q_variance / theory.q**2) ** 2
    assert (np.abs(rest) < 4 * error + second + 1e-12).all()
    np.testing.assert_allclose(decorrelation.var(axis=1)[1:12], pair.variance[1:12], rtol=0.15)
