"""Normalisation by the root mean square over the batch, without subtracting the mean, for odd φ.

u = √B h/|h| is uniform on the sphere of dimension B when the batch covariance is q I, and for odd φ it stays so: E
φ(u₁)φ(u₂) = 0. With P = I - uuᵀ/B and E 1/σ² = B/(q(B-2)) the squared gradient norm grows per layer by E tr[P D²]/(q
(B-2)); a small traceless deviation of the covariance shrinks for linear φ by n/(n+2), n = B
(`rmtbn.theory.rank`). Daneshmand et al. (2020, arXiv:2003.01652; 2021, arXiv:2106.03970) and Meterez et al. (2023,
arXiv:2310.02012) normalise so.
"""

from dataclasses import dataclass

import numpy as np

from rmtbn import _checks
from rmtbn.activations import Activation
from rmtbn.theory.batch_norm.sphere import coordinate

_PLACES = np.linspace(0.01, 9.99, 200)


@dataclass(frozen=True, slots=True, kw_only=True)
class UncentredFixedPoint:
    """Fixed point q* I of the batch covariance, and the rate of gradients there.

    Parameters
    ----------
    q
        q* = E φ(u)²; examples are uncorrelated.
    explosion_rate
        Growth per layer of the squared gradient norm, towards the input.
    """

    q: float
    explosion_rate: float


def uncentred(phi: Activation, batch_size: int) -> UncentredFixedPoint:
    """Compute the fixed point for odd φ and B >= 3 by quadrature over one coordinate."""
    if not np.allclose(phi.phi(_PLACES), -phi.phi(-_PLACES), rtol=1e-12, atol=0):
        raise _checks.fail("activation", "an odd function, for which the covariance stays a multiple of I", phi.name)
    u, weights = coordinate(batch_size, phi.kinks)
    q, slope, scaled = (float(weights @ f) for f in (phi.phi(u) ** 2, phi.dphi(u) ** 2, (u * phi.dphi(u)) ** 2))
    return UncentredFixedPoint(q=q, explosion_rate=(batch_size * slope - scaled) / (q * (batch_size - 2)))
