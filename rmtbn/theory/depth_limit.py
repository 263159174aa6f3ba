"""What the law of λ of a deep network becomes as L → ∞.

At a fixed s = L(μ_2/μ_1² - 1), the spread of the layers' slopes φ′² (moments μ_k) added up, orthogonal weights have two
limits of mean 1 and variance s (Pennington, Schoenholz & Ganguli 2018, arXiv:1802.09979): where φ′² differs little from
1 everywhere, z = (1 + M)/M e^{sM}, reached as L^{-1/2}; and where φ′² is 1 but for few units for which it is 0,
z = e^{sv}/v, v = M/(1 + M), reached as 1/L. At fixed slopes it is λ^{1/L} that has a limit. Derivations:
docs/derivations/depth_limits.md.
"""

import math

from rmtbn import _checks
from rmtbn.activations import Activation
from rmtbn.activations import activation as find_activation
from rmtbn.theory.bernoulli_limit import BernoulliLimit
from rmtbn.theory.residual import ResidualLaw
from rmtbn.theory.root_limit import RootLimit
from rmtbn.theory.slope_law import slope_factor


def smooth_limit(*, s: float) -> ResidualLaw:
    """Return the limit for smooth slopes: the law of residual networks with c = s/2, divided by its mean.

    Parameters
    ----------
    s
        Variance of λ, > 0.

    Examples
    --------
    >>> [round(edge, 10) for edge in smooth_limit(s=0.25).support]
    [0.3213189208, 2.4237626004]
    """
    s = _checks.real("s", s, above=0.0)
    return ResidualLaw(c=s / 2, log_scale=-s / 2)


def bernoulli_limit(*, s: float) -> BernoulliLimit:
    """Return the limit for slopes that are 0 or 1, and seldom 0.

    Parameters
    ----------
    s
        Variance of λ, > 0; below 1 a share 1 - s of λ is e^s.
    """
    return BernoulliLimit(s=s)


def root_limit(*, p: float, weights: str = "gaussian") -> RootLimit:
    """Return the law of λ^{1/L} for layers that keep a share p of their units, each at its critical σ_w.

    Parameters
    ----------
    p
        0 < p <= 1: 1 for linear layers, 1/2 for ReLU.
    weights
        "gaussian" or "orthogonal".
    """
    return RootLimit(p=p, weights=weights)


def slope_spread(activation: str | Activation, *, q: float) -> float:
    """Compute μ_2/μ_1² - 1 = Var φ′²/(E φ′²)² at h ~ N(0, q): s is L times it, or its sum over layers.

    Parameters
    ----------
    activation
        Name or record of φ.
    q
        Variance of the pre-activations, >= 0.

    Examples
    --------
    >>> slope_spread("relu", q=1.0)
    1.0
    """
    factor = slope_factor(find_activation(activation), q)
    return 1.0 / factor.rank - 1.0 if factor.law is None else math.expm1(factor.law.log_moment(2))
