"""The defining equation of a free product in LaTeX, through sympy."""

from fractions import Fraction

import sympy as sp

from rmtbn.theory.free.curve import SpectralCurve
from rmtbn.theory.free.terms import Drift, Term, Thinning

_M, _Z = sp.symbols("M z")
_DIGITS, _LARGEST, _EXACT = 8, 1000, 1e-13  # digits of a number; denominators tried; agreement that makes it a fraction


def defining_equation(curve: SpectralCurve) -> str:
    """Write z as a function of M, and for a factor given by its law the equation of its ζ.

    Parameters
    ----------
    curve
        The spectral curve: z = (mean/M) ∏ (1 + M/c)^e ∏ (ζ_l M/d_l)^n_l ∏ e^term, with E d/(ζ_l - d) = M/d_l over the
        law of factor l divided by its mean.
    """
    lines = [sp.latex(sp.Eq(_Z, _product(curve), evaluate=False))]
    for i, factor in enumerate(curve.factors, start=1):
        zeta, argument = sp.Symbol(f"zeta_{i}"), _M / _number(factor.dimension)
        lines.append(rf"E_{{{i}}} \frac{{d}}{{{sp.latex(zeta)} - d}} = {sp.latex(argument)}")
    return r",\quad ".join(lines)


def _product(curve: SpectralCurve) -> sp.Expr:
    mean = sp.Integer(1) if abs(curve.log_mean) < _EXACT else sp.exp(_number(curve.log_mean))
    parts = [mean / _M]
    parts += [(1 + _M / _number(pole)) ** _number(power) for pole, power in zip(curve.poles, curve.powers, strict=True)]
    for i, factor in enumerate(curve.factors, start=1):
        parts.append((sp.Symbol(f"zeta_{i}") * _M / _number(factor.dimension)) ** _number(factor.count))
    parts += [_term(term, i) for i, term in enumerate(curve.terms, start=1)]
    return sp.Mul(*parts)


def _term(term: Term, number: int) -> sp.Expr:
    if isinstance(term, Drift):
        return sp.exp(_number(term.a) * _M)
    if isinstance(term, Thinning):
        return sp.exp(_number(term.a) * _M / (_number(term.dimension) + _M))
    count, dimension = getattr(term, "count", 1.0), getattr(term, "dimension", 1.0)
    return sp.Function(f"T_{number}")(_M / _number(dimension)) ** _number(count)


def _number(value: float) -> sp.Expr:
    """Return a fraction where the value is one to rounding, else a decimal number."""
    near = Fraction(float(value)).limit_denominator(_LARGEST)
    if abs(near - value) <= _EXACT * abs(value):
        return sp.Rational(near.numerator, near.denominator)
    return sp.Float(float(value), _DIGITS)
