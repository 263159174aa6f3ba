"""What the per-sample view of a batch Jacobian sees, and how many zeros the whole matrix has."""

from rmtbn.activations import Activation
from rmtbn.theory.batch_norm.directions import mean_rank
from rmtbn.theory.batch_norm.fixed_point import normalised
from rmtbn.theory.batch_norm.sphere import coordinate


def block_share(phi: Activation, batch_size: int, *, depth: int) -> float:
    """Compute the share of ‖J‖_F² in the per-sample diagonal blocks, 1/B + (x₁ - 1/B)(λ_L/λ_G)^{L-1}.

    x₁ = E[φ′²P_ii²]/E[φ′²P_ii], P_ii = 1 - 1/B - u_i²/B, is the share in one layer.
    """
    point = normalised(phi, batch_size)
    u, weights = coordinate(batch_size - 1, phi.kinks)
    kept, squares = 1 - (1 + u * u) / batch_size, weights * phi.dphi(u) ** 2
    first = float(squares @ kept**2 / (squares @ kept))
    rest = (first - 1 / batch_size) * (point.backward_l / point.explosion_rate) ** (depth - 1)
    return 1 / batch_size + rest


def zero_share(phi: Activation, batch_size: int, *, eps: float) -> float:
    """Compute the share of zeros of the whole B·N × B·N matrix, 1 - E min(k, B - cut)/B, k of φ′(u_i) not 0.

    Normalisation cuts (1, …, 1) and, at ε = 0, the direction of scale: cut is 2, and 1 at ε > 0.
    """
    return 1 - mean_rank(phi, batch_size, cut=1 if eps > 0 else 2) / batch_size
