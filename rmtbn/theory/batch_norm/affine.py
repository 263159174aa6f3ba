"""The scale γ and the shift β of batch normalisation, taken into the activation: φ(γ u + β)."""

import re

from rmtbn import _checks
from rmtbn.activations import Activation


def affine(phi: Activation, *, gamma: float, beta: float) -> Activation:
    """Return the record of u ↦ φ(γ u + β), whose slope is γ φ′; γ is not 0.

    Closed-form Gaussian moments are left out: they do not hold for the shifted function.
    """
    gamma, beta = _checks.real("gamma", gamma), _checks.real("beta", beta)
    if gamma == 0:
        raise _checks.fail("gamma", "a finite number other than 0, which would cut every gradient", gamma)
    if (gamma, beta) == (1.0, 0.0):
        return phi
    slopes = None if phi.slopes is None else tuple(gamma * slope for slope in phi.slopes)
    turned = gamma < 0
    return Activation(
        name=f"{phi.name}({gamma:g} u + {beta:g})",
        formula=re.sub(r"\bx\b", f"({gamma!r}*x + {beta!r})", phi.formula),
        phi=lambda u: phi.phi(gamma * u + beta),
        dphi=lambda u: gamma * phi.dphi(gamma * u + beta),
        kinks=tuple(sorted((kink - beta) / gamma + 0.0 for kink in phi.kinks)),
        slopes=slopes[::-1] if turned and slopes else slopes,
    )
