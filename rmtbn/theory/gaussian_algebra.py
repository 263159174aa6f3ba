"""Gaussian integrals in sympy: what `rmtbn.theory.symbolic` derives closed forms with.

Price's theorem (1958) lowers φ by a derivative: with h₁, h₂ of variance q and covariance p,

    ∂/∂p E φ(h₁)φ(h₂) = E φ′(h₁)φ′(h₂),      and      d/dq E φ(h) = ½ E φ″(h),  h ~ N(0, q).

So an error function becomes a Gaussian and a kink a point, whose expectations are algebraic, and two integrals over p
bring φ back. They are done with p = s sin θ, which makes what occurs here (powers of s² - p²) trigonometric.
"""

import sympy as sp

X = sp.Symbol("x", real=True)
Q = sp.Symbol("q", positive=True)
P = sp.Symbol("p", real=True)
_THETA = sp.Symbol("theta", real=True)
_TANGENT = sp.Symbol("w", real=True)


def gaussian_form(f: sp.Expr) -> tuple[sp.Poly, sp.Expr] | None:
    """Write f(x) as a polynomial times exp(-a x²) with a > 0: (polynomial, a), or None if it is no such thing."""
    f = sp.powsimp(sp.expand(f))
    exponentials = list(f.atoms(sp.exp))
    if len(exponentials) != 1:
        return None
    rate, factor = sp.simplify(-exponentials[0].args[0] / X**2), sp.simplify(f / exponentials[0])
    if rate.has(X) or not rate.is_positive or not factor.is_polynomial(X):
        return None
    return sp.Poly(factor, X), rate


def expectation(f: sp.Expr) -> sp.Expr:
    """Integrate E f(h), h ~ N(0, q), piece by piece."""
    density = sp.exp(-(X**2) / (2 * Q)) / sp.sqrt(2 * sp.pi * Q)
    pieces = [(sp.expand(sp.expand(part) * density), region) for part, region in _pieces(f)]
    return sp.simplify(sum(sp.integrate(part, (X, region.inf, region.sup)) for part, region in pieces))


def pair_of_gaussians(polynomial: sp.Poly, rate: sp.Expr) -> sp.Expr:
    """Compute E g(h₁)g(h₂) of g(x) = polynomial · exp(-rate x²): moments of a narrower pair over √det(1 + 2 rate Σ)."""
    determinant = (1 + 2 * rate * Q) ** 2 - (2 * rate * P) ** 2
    variance = (Q * (1 + 2 * rate * Q) - 2 * rate * P**2) / determinant
    terms = [
        a * b * _mixed_moment(m, n, variance, P / determinant)
        for (m,), a in polynomial.terms()
        for (n,), b in polynomial.terms()
    ]
    return sp.factor(sp.simplify(sum(terms))) / sp.sqrt(sp.expand(determinant))


def integral_over_p(f: sp.Expr, scale: sp.Expr) -> sp.Expr:
    """Integrate an f of p and √(scale² - p²) from 0 to p; the result is in θ = arcsin(p/scale)."""
    s = sp.Symbol("s", positive=True)
    length = sp.solve(scale - s, Q)[0]
    p = s * _TANGENT / sp.sqrt(1 + _TANGENT**2)
    integrand = f.subs(Q, length).subs(P, p) * s * (1 + _TANGENT**2) ** sp.Rational(-3, 2)
    rational = sp.factor(sp.simplify(sp.powdenest(sp.simplify(integrand), force=True)))
    primitive = sp.integrate(sp.apart(rational, _TANGENT), _TANGENT)
    back = {sp.atan(_TANGENT): _THETA, _TANGENT: sp.tan(_THETA)}
    return (primitive - primitive.subs(_TANGENT, 0)).subs(back).subs(s, scale)


def integral_over_theta(f: sp.Expr, scale: sp.Expr) -> sp.Expr:
    """Integrate an f of θ = arcsin(p/scale) over p from 0 to p; the result is in θ again."""
    primitive = sp.integrate(sp.expand(sp.simplify(f * sp.cos(_THETA))), _THETA)
    return scale * (primitive - primitive.subs(_THETA, 0))


def in_p(f: sp.Expr, scale: sp.Expr) -> sp.Expr:
    """Write an f of θ in p = scale · sin θ."""
    root = sp.sqrt(sp.expand(scale**2 - P**2)) / scale
    f = sp.expand_trig(f).subs({sp.tan(_THETA): sp.sin(_THETA) / sp.cos(_THETA)})
    f = f.subs({sp.cos(_THETA): root, sp.sin(_THETA): P / scale})
    return f.subs(_THETA, sp.asin(P / scale))


def _pieces(f: sp.Expr) -> list[tuple[sp.Expr, sp.Set]]:
    folded = sp.piecewise_fold(sp.expand(f).rewrite(sp.Piecewise))
    if not isinstance(folded, sp.Piecewise):
        return [(folded, sp.S.Reals)]
    return [
        (part, interval)
        for part, region in folded.as_expr_set_pairs(sp.S.Reals)
        for interval in (region.args if isinstance(region, sp.Union) else (region,))
    ]


def _mixed_moment(m: int, n: int, variance: sp.Expr, covariance: sp.Expr) -> sp.Expr:
    """E h₁^m h₂^n by Isserlis: j pairs across, the rest within (double factorials count them)."""
    across = [j for j in range(min(m, n) + 1) if (m - j) % 2 == 0 and (n - j) % 2 == 0]
    return sum(
        sp.binomial(m, j) * sp.binomial(n, j) * sp.factorial(j) * covariance**j
        * sp.factorial2(m - j - 1) * sp.factorial2(n - j - 1) * variance ** ((m + n - 2 * j) // 2)
        for j in across
    )  # fmt: skip
