"""Defining equations: each holds for the law's own moments, and is LaTeX that can be drawn."""

import numpy as np
import pytest
import sympy as sp
from matplotlib.mathtext import MathTextParser

from rmtbn._checks import InvalidArgumentError
from rmtbn.theory.bernoulli_limit import BernoulliLimit
from rmtbn.theory.depth_limit import smooth_limit
from rmtbn.theory.fuss_catalan import FussCatalan, Raney
from rmtbn.theory.jacobian import jacobian_law
from rmtbn.theory.law_equations import M, X, Z, equation, latex
from rmtbn.theory.marchenko_pastur import MarchenkoPastur
from rmtbn.theory.residual import residual_law
from rmtbn.theory.residual_network import residual_network_law
from rmtbn.theory.root_limit import RootLimit

LAWS = {
    "Fuss–Catalan": FussCatalan(depth=3),
    "scaled": FussCatalan(depth=2, log_scale=0.25),
    "Raney": Raney(p=2.5, r=1.5),
    "Raney of whole order": Raney(p=3, r=2),
    "wide": MarchenkoPastur(ratio=0.3),
    "tall": MarchenkoPastur(ratio=4.0, log_scale=-1.0),
    "residual": residual_law(c=0.7),
    "smooth limit": smooth_limit(s=0.25),
    "residual network": residual_network_law(depth=3, alpha=0.6),
    "Bernoulli limit": BernoulliLimit(s=0.5),
    "Bernoulli limit of no atom": BernoulliLimit(s=2.0, log_scale=0.5),
}


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_equation_holds_for_the_moments_of_the_law(law):
    """z(M) = z at M = Σ m_k z^{-k}, z fifty times the upper edge, to ten digits."""
    z = 50 * law.support[1]
    m = sum(law.moment(k) / z**k for k in range(1, 12))
    found = equation(law)
    assert found.lhs == Z
    assert float(found.rhs.subs(M, m)) == pytest.approx(z, rel=1e-10)


@pytest.mark.parametrize("law", [RootLimit(p=1.0), RootLimit(p=0.5), RootLimit(p=0.3, weights="orthogonal")], ids=str)
def test_root_limits_are_given_by_their_distribution_function(law):
    """F in x."""
    x = np.linspace(0.1, 0.9, 5)
    found = equation(law)
    assert found.lhs == sp.Symbol("F")
    assert [float(found.rhs.subs(X, one)) for one in x] == pytest.approx(law.cdf(x).tolist(), rel=1e-14)


@pytest.mark.parametrize("law", [*LAWS.values(), RootLimit(p=0.5)])
def test_latex_can_be_drawn(law):
    """Within what matplotlib knows."""
    MathTextParser("path").parse(f"${latex(law)}$")


def test_latex_of_some_laws():
    """As they stand in the derivations."""
    assert latex(FussCatalan(depth=1)) == r"z = \frac{\left(M + 1\right)^{2}}{M}"
    assert latex(smooth_limit(s=0.25)) == r"z = \frac{\left(M + 1\right) e^{\frac{M}{4}}}{M}"
    assert latex(RootLimit(p=1.0)) == "F = x"


def test_laws_without_a_closed_equation_are_named():
    """The law of a tanh network is given by a quadrature."""
    with pytest.raises(InvalidArgumentError, match=r"`law` must be one of FussCatalan, .*; got 'JacobianLaw'"):
        latex(jacobian_law("linear", depth=1, weights="orthogonal"))
