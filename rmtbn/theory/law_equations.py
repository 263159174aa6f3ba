"""The defining equations of the laws that have one in closed form, by sympy, as formulas and as LaTeX.

All but the last are equations between z and M(z) = E λ/(z - λ) = Σ m_k z^{-k}.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import sympy as sp

from rmtbn import _checks
from rmtbn.result import SpectralMeasure
from rmtbn.theory.bernoulli_limit import BernoulliLimit
from rmtbn.theory.fuss_catalan import FussCatalan, Raney
from rmtbn.theory.marchenko_pastur import MarchenkoPastur
from rmtbn.theory.residual import ResidualLaw
from rmtbn.theory.residual_network import ResidualNetworkLaw
from rmtbn.theory.root_limit import RootLimit

Z, M, X = sp.symbols("z M x", positive=True)
DIGITS = 6  # of numbers in LaTeX
SHORT = 8  # characters of a decimal that is read as a fraction


def equation(law: SpectralMeasure) -> sp.Eq:
    """Return the equation that defines a law, with its parameters put in.

    Parameters
    ----------
    law
        A `FussCatalan`, `Raney`, `MarchenkoPastur`, `ResidualLaw` (also as the smooth limit of infinite depth),
        `ResidualNetworkLaw`, `BernoulliLimit` or `RootLimit`.

    Returns
    -------
    sympy.Eq
        z = ... in M; for `RootLimit`, which has no such equation, F = ... in x.

    Raises
    ------
    InvalidArgumentError
        If the law has no closed equation here.

    Examples
    --------
    >>> equation(FussCatalan(depth=3))
    Eq(z, (M + 1)**4/M)
    """
    for kind, right in EQUATIONS.items():
        if isinstance(law, kind):
            return sp.Eq(sp.Symbol("F") if kind is RootLimit else Z, right(law))
    raise _checks.fail("law", "one of " + ", ".join(kind.__name__ for kind in EQUATIONS), type(law).__name__)


def latex(law: SpectralMeasure) -> str:
    r"""Write the equation that defines a law in LaTeX, numbers to six digits.

    Examples
    --------
    >>> latex(ResidualLaw(c=0.5))
    'z = \\frac{\\left(M + 1\\right) e^{M + \\frac{1}{2}}}{M}'
    """
    found = equation(law)
    return str(sp.latex(found.xreplace({number: sp.Float(number, DIGITS) for number in found.atoms(sp.Float)})))


def _number(value: float) -> sp.Expr:
    """Take a number that is written with few digits as the fraction it is meant to be."""
    return sp.Rational(repr(value)) if len(repr(value)) <= SHORT else sp.Float(value)


def _scaled(right: sp.Expr, log_scale: float) -> sp.Expr:
    return right * sp.exp(_number(log_scale))


def _raney(law: Raney) -> sp.Expr:
    p, r = _number(law.p), _number(law.r)
    base = (1 + M) ** (1 / r)
    return _scaled(base**p / (base - 1), law.log_scale)


def _residual(law: ResidualLaw) -> sp.Expr:
    c = _number(law.c)
    return (1 + M) / M * sp.exp(sp.expand(c * (1 + 2 * M) + _number(law.log_scale)))


def _residual_network(law: ResidualNetworkLaw) -> sp.Expr:
    eps = _number(law.alpha) ** 2
    root = sp.sqrt((1 + eps) ** 2 + 4 * eps * M)
    return (1 + M) / M * ((root + 1 + eps) * (root + 1 - eps) / 4) ** law.depth


def _root(law: RootLimit) -> sp.Expr:
    p = _number(law.p)
    return 1 - p + p * X if law.weights == "gaussian" else (1 - p) / (1 - p * X)


EQUATIONS: Mapping[type[SpectralMeasure], Callable[[Any], sp.Expr]] = MappingProxyType(
    {
        FussCatalan: lambda law: _scaled((1 + M) ** (law.depth + 1) / M, law.log_scale),
        Raney: _raney,
        MarchenkoPastur: lambda law: _scaled((1 + M) * (1 + _number(law.ratio) * M) / M, law.log_scale),
        ResidualLaw: _residual,
        ResidualNetworkLaw: _residual_network,
        BernoulliLimit: lambda law: _scaled((1 + M) / M * sp.exp(_number(law.s) * M / (1 + M)), law.log_scale),
        RootLimit: _root,
    }
)
