"""Gauss–Legendre panels, and the exact error that the rule makes at a pole.

On a panel -1 <= s <= 1 a smooth function is its interpolating polynomial. The rule integrates R/(s - s0) as Σ w_k
R/(s_k - s0), while the truth is R ln((1 - s0)/(-1 - s0)) for every s0, however close to the panel. Adding the
difference makes the rule exact to rounding for an integrand with a simple pole, down to the panel itself, reached
from one side (Sokhotski–Plemelj).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]
Index = NDArray[np.intp]

ORDER = 16
NODES, WEIGHTS = np.polynomial.legendre.leggauss(ORDER)
AT_NODES = np.polynomial.legendre.legvander(NODES, ORDER)
# values at the nodes → Legendre coefficients of the interpolating polynomial
TO_SERIES = (AT_NODES[:, :ORDER] * WEIGHTS[:, None] * (np.arange(ORDER) + 0.5)).T
# coefficients of g → those of its integral from -1, and of its derivative
INTEGRAL = np.stack([np.polynomial.legendre.legint(row, lbnd=-1) for row in np.eye(ORDER)], axis=1)
DERIVATIVE = np.stack([np.append(np.polynomial.legendre.legder(row), 0.0) for row in np.eye(ORDER)], axis=1)
FAR = 3.2  # size of the Bernstein ellipse outside which a pole is harmless: the rule errs by FAR^-32 = 7e-17
_STEPS = 12
_TINY = 1e-300  # stands for +0: on which side of the panel a pole lies


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Poles:
    """Poles of d/(ζ - d) near panels.

    Parameters
    ----------
    s0
        Where they are.
    pair
        To which of the given pairs (panel, ζ) each belongs.
    basis
        P_j(s0), j <= ORDER, shape (poles, ORDER + 1).
    slope, bend
        The first two derivatives of ln d at s0.
    """

    s0: Complex
    pair: Index
    basis: Complex
    slope: Complex
    bend: Complex

    def error(self) -> tuple[Complex, Complex]:
        """Compute ∫ ds/(s - s0) - Σ w_k/(s_k - s0) and its slope in s0."""
        offset = 1.0 / (NODES - self.s0[:, None])
        error = np.log((1 - self.s0) / (-1 - self.s0)) - offset @ WEIGHTS
        return error, -1 / (1 - self.s0) - 1 / (1 + self.s0) - offset**2 @ WEIGHTS

    def value(self, series: Array) -> Complex:
        """Evaluate one polynomial at each pole, given by its Legendre coefficients."""
        return _dot(series, self.basis[:, : series.shape[1]])


def poles(log_d: Array, v: Complex) -> Poles:
    """Solve ln d(s) = v near the panel, for pairs of a panel (ln d at its nodes) and a v = ln ζ.

    A panel may hold an extremum of ln d; then there are two solutions, and the second is sought opposite the first.
    """
    expansion = log_d @ _EXPANSION
    start = NODES[np.abs(log_d - v.real[:, None]).argmin(axis=1)].astype(np.complex128)
    first = _newton(expansion, v, start)
    _, slope, bend, _ = _expand(expansion, first)
    with np.errstate(all="ignore"):
        opposite = first - 2 * slope / bend
    other = np.flatnonzero(_is_near(opposite))
    second = _newton(expansion[other], v[other], opposite[other])
    distinct = np.abs(second - first[other]) > 1e-9
    s0, pair = np.concatenate([first, second[distinct]]), np.concatenate([np.arange(v.size), other[distinct]])
    value, slope, bend, basis = _expand(expansion[pair], s0)
    with np.errstate(all="ignore"):
        kept = np.flatnonzero(_is_near(s0) & (np.abs(value - v[pair]) < 1e-9 * (1 + np.abs(slope))))
    s0, slope = s0[kept], slope[kept]
    side = 1j * np.where(slope.real > 0, _TINY, -_TINY)
    s0 = np.where(np.abs(s0.imag) < _TINY, s0.real + side, s0)
    return Poles(s0=s0, pair=pair[kept], basis=basis[kept], slope=slope, bend=bend[kept])


# ln d at the nodes → Legendre coefficients of ln d and its first two derivatives, one after the other
_EXPANSION = np.concatenate([TO_SERIES, DERIVATIVE @ TO_SERIES, DERIVATIVE @ DERIVATIVE @ TO_SERIES]).T


def _legendre(s: Complex) -> Complex:
    """Compute P_j(s), j <= ORDER, shape (n, ORDER + 1)."""
    value = np.empty((ORDER + 1, s.size), dtype=np.complex128)
    value[0], value[1] = 1, s
    for j in range(2, ORDER + 1):
        value[j] = (2 - 1 / j) * s * value[j - 1] - (1 - 1 / j) * value[j - 2]
    return np.ascontiguousarray(value.T)


def _expand(expansion: Array, s: Complex) -> tuple[Complex, Complex, Complex, Complex]:
    """Compute ln d, its first two derivatives, and the basis."""
    basis = _legendre(s)
    parts = expansion.reshape(-1, 3, ORDER)
    value, slope, bend = np.einsum("kij,kj->ik", parts, basis[:, :ORDER])
    return value, slope, bend, basis


def _newton(expansion: Array, v: Complex, start: Complex) -> Complex:
    """Solve with steps that are exact for a parabola, so that an extremum of ln d is no obstacle."""
    solution, left = start.copy(), np.arange(v.size)
    for _ in range(_STEPS):
        s = solution[left]
        value, slope, bend, _ = _expand(expansion[left], s)
        gap = v[left] - value
        root = np.sqrt(slope**2 + 2 * bend * gap)
        larger = np.where(np.abs(slope + root) >= np.abs(slope - root), slope + root, slope - root)
        with np.errstate(all="ignore"):
            step = np.where(gap == 0, 0, 2 * gap / larger)
        solution[left] = np.where(np.abs(s + step) < 2 * FAR, s + step, 2 * FAR)
        left = left[(np.abs(step) > 1e-6) & (np.abs(solution[left]) < FAR)]
        if left.size == 0:
            break
    return solution


def _dot(rows: Array, columns: Complex) -> Complex:
    return np.asarray(np.einsum("ij,ij->i", rows, columns))


def _is_near(s0: Complex) -> NDArray[np.bool_]:
    with np.errstate(all="ignore"):
        return np.asarray(np.abs(s0 + np.sqrt(s0 - 1) * np.sqrt(s0 + 1)) < FAR)
