"""Singular values of batch Jacobians in extended precision: a reference that shares no step with LAPACK or autograd.

The signal and J of linear layers, batch normalisation and tanh are formed by their formulas in `numpy.longdouble`, 64
bits of mantissa on x86, and the singular values found by one-sided Jacobi rotations, in pairs that do not overlap.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

LongDouble = NDArray[np.longdouble]
EXTENDED = np.finfo(np.longdouble).eps < 1e-18
_SWEEPS = 40


def jacobian(module: nn.Sequential, x: torch.Tensor) -> LongDouble:
    """J, (B N') × (B N), of the float64 weights as they are."""
    size, width = x.shape
    signal = x.numpy().astype(np.longdouble)
    tangents = np.eye(size * width, dtype=np.longdouble).reshape(size, width, -1)
    for layer in module:
        if isinstance(layer, nn.Linear):
            weight = layer.weight.detach().numpy().astype(np.longdouble)
            signal, tangents = signal @ weight.T, np.stack([weight @ rows for rows in tangents])
        elif isinstance(layer, nn.BatchNorm1d):
            centred = signal - signal.mean(axis=0)
            scale = 1 / np.sqrt((centred**2).mean(axis=0) + np.longdouble(layer.eps))
            signal = centred * scale
            tangents = tangents - tangents.mean(axis=0)
            along = (signal[:, :, None] * tangents).mean(axis=0)
            tangents = (tangents - signal[:, :, None] * along) * scale[:, None]
        elif isinstance(layer, nn.Tanh):
            signal = np.tanh(signal)
            tangents = (1 - signal**2)[:, :, None] * tangents
        else:
            assert isinstance(layer, nn.Identity), layer
    return tangents.reshape(size * signal.shape[1], -1)


def singular_values(matrix: LongDouble) -> LongDouble:
    """Descending, to some eps of the largest, by one-sided Jacobi on what the float64 SVD leaves."""
    right = np.linalg.svd(matrix.astype(np.float64))[2].T.astype(np.longdouble)
    for _ in range(2):  # Newton–Schulz: orthogonal to the last digit
        right = right @ (1.5 * np.eye(len(right), dtype=np.longdouble) - 0.5 * right.T @ right)
    rows = np.ascontiguousarray((matrix @ right).T)
    assert len(rows) % 2 == 0
    order = np.arange(len(rows))
    for _ in range(_SWEEPS):
        worst = 0.0
        for _ in range(len(rows) - 1):
            worst = max(worst, _rotated(rows, order[: len(order) // 2], order[len(order) // 2 :][::-1]))
            order = np.concatenate([order[:1], np.roll(order[1:], 1)])
        if worst < 1e-15:
            return -np.sort(-np.sqrt((rows**2).sum(axis=1)))
    raise AssertionError(worst)


def _rotated(rows: LongDouble, p: NDArray[np.int_], q: NDArray[np.int_]) -> float:
    """Make rows p orthogonal to rows q, pair by pair, in place; return the largest cosine there was."""
    first, second = rows[p], rows[q]
    a, b, inner = (first**2).sum(axis=1), (second**2).sum(axis=1), (first * second).sum(axis=1)
    lengths = np.sqrt(a * b)
    cosine = np.abs(inner) / np.where(lengths > 0, lengths, 1)
    turned = cosine > np.finfo(np.longdouble).eps
    ratio = (b - a) / np.where(turned, 2 * inner, 1)
    tangent = np.where(turned, np.where(ratio < 0, -1, 1) / (np.abs(ratio) + np.sqrt(1 + ratio**2)), 0)[:, None]
    cos = 1 / np.sqrt(1 + tangent**2)
    rows[p], rows[q] = cos * (first - tangent * second), cos * (second + tangent * first)
    kept = np.minimum(a, b) > (1e-14 * np.sqrt(max(a.max(), b.max()))) ** 2  # rows that are rounding turn for ever
    return float(np.max(cosine * kept))
