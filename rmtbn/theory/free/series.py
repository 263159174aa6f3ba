"""Moments, free cumulants and S-transforms as power series: exact for ints and fractions.

A law is the sequence m_1, m_2, ... of its moments. With ψ(w) = Σ m_k w^k, χ its inverse, S(m) = χ(m)(1 + m)/m, and
κ_n the free cumulants, each passage is one coefficient of a power of a series (Lagrange inversion):

    κ_n = [z^n] A^{1-n}/(1 - n), A = 1 + ψ;       m_n = [z^n] C^{n+1}/(n + 1), C = 1 + Σ κ_n z^n;
    [m^{n-1}] χ/m = [w^{n-1}] (ψ/w)^{-n}/n;       m_k = [m^{k-1}] ((1 + m)/S)^k/k.

Free cumulants add under free addition, S multiplies under free multiplication (Voiculescu 1986, 1987; Speicher 1994).
Derivation: docs/derivations/free_products.md.
"""

from collections.abc import Sequence
from fractions import Fraction

from rmtbn import _checks

Number = int | float | Fraction
Series = list[Number]


def power(series: Sequence[Number], exponent: Number, *, order: int) -> Series:
    """Raise a series with non-zero constant term to a power, up to z^order, by J. C. P. Miller's recurrence.

    The constant term to that power must be exact for the result to be: it is 1, or the exponent an integer.
    """
    a = _padded(series, order)
    result: Series = [_exact(a[0]) ** exponent]
    for n in range(1, order + 1):
        total = sum((k * exponent - n + k) * a[k] * result[n - k] for k in range(1, n + 1))
        result.append(_exact(total) / (n * a[0]))
    return result


def exponential(series: Sequence[Number], *, order: int) -> Series:
    """Compute exp of a series without constant term, up to z^order."""
    a = _padded(series, order)
    result: Series = [1]
    for n in range(1, order + 1):
        result.append(_exact(sum(k * a[k] * result[n - k] for k in range(1, n + 1))) / n)
    return result


def free_cumulants(moments: Sequence[Number]) -> Series:
    """Compute κ_1 ... κ_n from m_1 ... m_n."""
    a, n = [1, *moments], len(moments)
    return [*moments[:1], *(_exact(power(a, 1 - k, order=k)[k]) / (1 - k) for k in range(2, n + 1))]


def moments_of_free_cumulants(cumulants: Sequence[Number]) -> Series:
    """Compute m_1 ... m_n from κ_1 ... κ_n."""
    c, n = [1, *cumulants], len(cumulants)
    return [_exact(power(c, k + 1, order=k)[k]) / (k + 1) for k in range(1, n + 1)]


def s_series(moments: Sequence[Number]) -> Series:
    """Compute the coefficients of m^0 ... m^{n-1} in S(m) from m_1 ... m_n, m_1 not 0."""
    n = len(moments)
    if n == 0 or moments[0] == 0:
        raise _checks.fail("moments", "one or more, the first not 0", list(moments))
    chi = [_exact(power(moments, -k, order=k - 1)[k - 1]) / k for k in range(1, n + 1)]
    return [chi[0], *(chi[k] + chi[k - 1] for k in range(1, n))]


def moments_of_s_series(s: Sequence[Number]) -> Series:
    """Compute m_1 ... m_n from the coefficients of m^0 ... m^{n-1} in S(m)."""
    n = len(s)
    growth = _product([1, 1], power(s, -1, order=n), order=n)  # (1 + m)/S
    return [_exact(power(growth, k, order=k - 1)[k - 1]) / k for k in range(1, n + 1)]


def boxplus(first: Sequence[Number], second: Sequence[Number]) -> Series:
    """Compute the moments of the free sum of two laws from theirs: free cumulants add."""
    pairs = zip(free_cumulants(first), free_cumulants(second), strict=False)
    return moments_of_free_cumulants([a + b for a, b in pairs])


def boxtimes(first: Sequence[Number], second: Sequence[Number]) -> Series:
    """Compute the moments of the free product of two laws on λ >= 0 from theirs: S multiplies."""
    order = min(len(first), len(second)) - 1
    return moments_of_s_series(_product(s_series(first), s_series(second), order=order))


def boxtimes_power(moments: Sequence[Number], count: Number) -> Series:
    """Compute the moments of the free product of `count` >= 1 equal laws from those of one: S^count."""
    return moments_of_s_series(power(s_series(moments), count, order=len(moments) - 1))


def compression(moments: Sequence[Number], trace: Number) -> Series:
    """Compute the moments of P X P in the range of a free projection P of trace 0 < t <= 1: κ_n → t^{n-1} κ_n.

    Nica & Speicher 1996, arXiv:funct-an/9604011.
    """
    if not 0 < trace <= 1:
        raise _checks.fail("trace", "a number > 0 and <= 1", trace)
    cumulants = free_cumulants(moments)
    return moments_of_free_cumulants([_exact(trace) ** n * kappa for n, kappa in enumerate(cumulants)])


def moments_of_log_series(log_growth: Sequence[Number], *, order: int) -> Series:
    """Compute m_1 ... m_order for mean 1 from g = ln(m z(m)), g(0) = 0: m_k = [m^{k-1}] e^{kg}/k."""
    a = _padded(log_growth, order)
    return [_exact(exponential([k * g for g in a], order=k - 1)[k - 1]) / k for k in range(1, order + 1)]


def log_inverse_series(moments: Sequence[Number]) -> Series:
    """Compute the coefficients of m^1 ... m^{n-1} in ln(m/χ(m)) from m_1 = 1, ..., m_n: -[w^k] (ψ/w)^{-k}/k."""
    return [-_exact(power(moments, -k, order=k)[k]) / k for k in range(1, len(moments))]


def _product(first: Sequence[Number], second: Sequence[Number], *, order: int) -> Series:
    a, b = _padded(first, order), _padded(second, order)
    return [sum(a[k] * b[n - k] for k in range(n + 1)) for n in range(order + 1)]


def _padded(series: Sequence[Number], order: int) -> Series:
    return [*series[: order + 1], *([0] * (order + 1 - len(series)))]


def _exact(number: Number) -> Number:
    """Let ints divide into fractions."""
    return Fraction(number) if isinstance(number, int) else number
