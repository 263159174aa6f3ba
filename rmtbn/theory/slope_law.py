"""Law of d = φ′(h)², h ~ N(0, q): the diagonal of D Dᵀ in a network's Jacobian, as a factor of a free product.

Piecewise linear φ: a few atoms with exact masses, P(a < h < b) = [erf(b/√(2q)) - erf(a/√(2q))]/2.
"""

import math

import numpy as np
from scipy import special

from rmtbn import _checks
from rmtbn.activations import Activation
from rmtbn.theory import free_factors
from rmtbn.theory.free_factors import Factor
from rmtbn.theory.gauss_hermite import SMALLEST_Q


def slope_factor(activation: Activation, q: float) -> Factor:
    """Compute the law of φ′(h)², h ~ N(0, q).

    Parameters
    ----------
    activation
        Record of φ.
    q
        Variance of the pre-activation, >= 0; 0 is the limit from above.

    Raises
    ------
    InvalidArgumentError
        If φ is not piecewise linear, or φ′ vanishes almost surely.
    """
    q = max(_checks.real("q", q, at_least=0.0), SMALLEST_Q)
    if activation.slopes is None:
        raise _checks.fail("activation", "piecewise linear", activation.name)
    cuts = np.array([-math.inf, *activation.kinks, math.inf]) / math.sqrt(2 * q)
    masses = np.diff(special.erf(cuts)) / 2
    return free_factors.points(np.square(activation.slopes), masses)
