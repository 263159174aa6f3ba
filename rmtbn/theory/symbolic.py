"""Closed forms of the mean field, derived by sympy from φ itself, as formulas, as LaTeX and as numerical functions.

sympy derives the moments of one pre-activation where φ is made of polynomials and exponentials between kinks, and those
of a pair where a derivative of φ is a polynomial times a Gaussian (erf, GELU) or φ is linear on either side of 0. Where
there is no closed form (tanh, SiLU) the field is None.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from sympy.printing.latex import LatexPrinter

from rmtbn.activations import Activation
from rmtbn.activations import activation as find_activation
from rmtbn.theory import gaussian_algebra as algebra
from rmtbn.theory.gaussian_algebra import P, Q, X

Array = NDArray[np.float64]

C = sp.Symbol("c", real=True)
SIGMA_W, SIGMA_B = sp.symbols("sigma_w sigma_b", positive=True)
HIGHEST_DERIVATIVE = 2  # of φ that is tried for being a Gaussian
SHORT = 8  # characters of a decimal that is read as a fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class Derivation:
    """What sympy derives from φ; h ~ N(0, q), and h₁, h₂ of length q and correlation c.

    Parameters
    ----------
    phi, dphi
        φ(x) and φ′(x).
    second_moment, slope_second_moment
        E φ² and E φ′² in q, or None.
    pair_moment, slope_product
        E φ(h₁)φ(h₂) and E φ′(h₁)φ′(h₂) in q and c, or None.
    """

    phi: sp.Expr
    dphi: sp.Expr
    second_moment: sp.Expr | None
    slope_second_moment: sp.Expr | None
    pair_moment: sp.Expr | None
    slope_product: sp.Expr | None


@functools.lru_cache(maxsize=32)
def derive(activation: str | Activation) -> Derivation:
    """Derive the moments of φ from its formula.

    Parameters
    ----------
    activation
        Name or record of φ.

    Returns
    -------
    Derivation
        With None for what has no closed form that sympy finds.

    Examples
    --------
    >>> derive("relu").second_moment
    q/2
    """
    record = find_activation(activation)
    phi = sp.sympify(record.formula, locals={"x": X}).replace(_is_short, lambda number: sp.Rational(str(number)))
    dphi = sp.diff(phi, X)
    pair, slopes = _pairs(phi, record)
    return Derivation(
        phi=phi,
        dphi=dphi,
        second_moment=_on_diagonal(pair) if pair is not None else _moment(phi, record),
        slope_second_moment=_on_diagonal(slopes) if slopes is not None else _moment(dphi, record),
        pair_moment=_in_c(pair),
        slope_product=_in_c(slopes),
    )


def numerical(expression: sp.Expr, *names: str) -> Callable[..., Array]:
    """Turn a formula into a numpy function of the named symbols, for example "q", "c".

    Notes
    -----
    It computes what the formula says, term by term; for differences of nearly equal terms `rmtbn.theory.pair_moments`
    keeps the digits.
    """
    symbols = {str(symbol): symbol for symbol in expression.free_symbols}
    arguments = [symbols.get(name, sp.Symbol(name)) for name in names]
    function = sp.lambdify(arguments, expression.rewrite(sp.erfc), modules=["scipy", "numpy"])
    return lambda *values: np.asarray(
        function(*values) + 0 * sum(np.asarray(value, dtype=np.float64) for value in values)
    )


def maps(activation: str | Activation) -> Mapping[str, sp.Expr]:
    """Write φ and its maps in x, q, c, σ_w and σ_b, each where it is known.

    Returns
    -------
    dict
        "phi": φ(x). "length_map": q′. "chi1": χ₁. "correlation_map": q′c′, the next covariance. "chi": χ at c.

    Examples
    --------
    >>> maps("relu")["length_map"]
    q*sigma_w**2/2 + sigma_b**2
    """
    found, weight, bias = derive(activation), SIGMA_W**2, SIGMA_B**2
    after = {
        "length_map": (found.second_moment, bias),
        "chi1": (found.slope_second_moment, sp.S.Zero),
        "correlation_map": (found.pair_moment, bias),
        "chi": (found.slope_product, sp.S.Zero),
    }
    known = {name: weight * moment + added for name, (moment, added) in after.items() if moment is not None}
    return {"phi": found.phi, **known}


def latex(activation: str | Activation) -> Mapping[str, str]:
    """Write φ and its `maps` in LaTeX, as equations; constants of many digits are rounded for reading."""
    return {name: f"{LEFT_SIDES[name]} = {_latex(right)}" for name, right in maps(activation).items()}


class _Printer(LatexPrinter):  # type: ignore[misc]
    """LaTeX in one line: "a if x > 0, b otherwise" for cases, so that matplotlib can draw it too."""

    def _print_Piecewise(self, expr: sp.Expr) -> str:  # noqa: N802 - sympy's name
        return r",\ ".join(f"{self._print(part)}{self._condition(region)}" for part, region in expr.args)

    def _condition(self, region: sp.Basic) -> str:
        return r"\ \mathrm{otherwise}" if region == sp.true else rf"\ \mathrm{{if}}\ {self._print(region)}"


def _latex(expression: sp.Expr) -> str:
    short = expression.xreplace({number: sp.Float(number, 6) for number in expression.atoms(sp.Float)})
    return str(_Printer({"inv_trig_style": "full"}).doprint(short))


def _pairs(phi: sp.Expr, record: Activation) -> tuple[sp.Expr, sp.Expr] | tuple[None, None]:
    """Derive E φφ and E φ′φ′ in q and p, integrating up from the derivative whose pair moment is algebraic."""
    if record.slopes is not None and set(record.kinks) <= {0.0}:
        jump = sp.nsimplify(record.slopes[-1]) - sp.nsimplify(record.slopes[0])
        return _integrated(phi, order=2, lowest=jump**2 / (2 * sp.pi * sp.sqrt(Q**2 - P**2)), scale=Q)
    for order in range(1, HIGHEST_DERIVATIVE + 1):
        form = None if record.kinks else algebra.gaussian_form(sp.diff(phi, X, order))
        if form is not None:
            lowest, scale = algebra.pair_of_gaussians(*form), (1 + 2 * form[1] * Q) / (2 * form[1])
            return _integrated(phi, order=order, lowest=lowest, scale=scale)
    return None, None


def _integrated(phi: sp.Expr, *, order: int, lowest: sp.Expr, scale: sp.Expr) -> tuple[sp.Expr, sp.Expr]:
    """Integrate E φ⁽ⁿ⁾φ⁽ⁿ⁾ over p, n = order times; at p = 0 the inputs are independent: (E φ)², (E φ′)²."""
    once = _mean(phi if order == 1 else sp.diff(phi, X)) ** 2 + algebra.integral_over_p(lowest, scale)
    if order == 1:
        return algebra.in_p(once, scale), lowest
    twice = _mean(phi) ** 2 + algebra.integral_over_theta(once, scale)
    return algebra.in_p(twice, scale), algebra.in_p(once, scale)


def _mean(f: sp.Expr) -> sp.Expr:
    """E f(h): by pieces if there are any, else up from q = 0 by the heat equation, which removes error functions."""
    if f.has(sp.Piecewise, sp.Max, sp.Heaviside):
        return algebra.expectation(f)
    bend = algebra.expectation(sp.diff(f, X, 2))
    return f.subs(X, 0) + sp.integrate(bend / 2, (Q, 0, Q))


def _moment(f: sp.Expr, record: Activation) -> sp.Expr | None:
    """E f² of an f that is made of polynomials and exponentials between the kinks; None for others."""
    pieces = sp.piecewise_fold(f.rewrite(sp.Piecewise))
    if not record.kinks or pieces.has(sp.tanh, sp.erf):
        return None
    return sp.simplify(algebra.expectation(f**2).rewrite(sp.erfc))


def _is_short(number: sp.Basic) -> bool:
    """Whether a number was written with few digits, as the slope 0.01 is, so that it is meant as a fraction."""
    return isinstance(number, sp.Float) and len(repr(float(number))) <= SHORT


def _on_diagonal(pair: sp.Expr) -> sp.Expr:
    return _tidy(pair.subs(P, Q))


def _in_c(pair: sp.Expr | None) -> sp.Expr | None:
    return None if pair is None else _tidy(pair.subs(P, Q * C))


def _tidy(expression: sp.Expr) -> sp.Expr:
    """Add up what stands under square roots, and collect what goes with each root and arcsine."""
    bases = {sp.expand(power.base) for power in expression.atoms(sp.Pow) if _is_root(power)}
    roots = {base: sp.Dummy(positive=True) for base in sorted(bases, key=sp.default_sort_key)}
    powers = {
        power: roots[sp.expand(power.base)] ** (2 * power.exp) for power in expression.atoms(sp.Pow) if _is_root(power)
    }
    apart = sp.expand(sp.cancel(expression.xreplace(powers)))
    kernels = [*apart.atoms(sp.asin), *roots.values()]
    collected = sp.collect(apart, kernels, evaluate=False)
    by_kernel = sp.Add(*(kernel * sp.factor(part) for kernel, part in collected.items()))
    tidied = by_kernel.xreplace({root: sp.sqrt(base) for base, root in roots.items()})
    return min((tidied, sp.simplify(tidied)), key=sp.count_ops)


def _is_root(power: sp.Pow) -> bool:
    return bool(power.exp.is_Rational and not power.exp.is_Integer)


LEFT_SIDES: Mapping[str, str] = MappingProxyType(
    {"phi": r"\varphi(x)", "length_map": "q'", "chi1": r"\chi_1", "correlation_map": "q'c'", "chi": r"\chi"}
)
