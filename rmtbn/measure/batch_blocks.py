"""The per-sample diagonal blocks ∂f(x)_i/∂x_i of a batch Jacobian: what one sees who looks at one example at a time.

Under batch normalisation they hold a share of ‖J‖_F² that falls to 1/B with depth; the twin in theory is
`rmtbn.theory.bn_mean_field.block_share`.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from rmtbn.linalg import dense
from rmtbn.measure import batch_statistics
from rmtbn.measure.contrasts import Chain, chained, contrasts
from rmtbn.result import EmpiricalSpectrum


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BatchBlocks:
    """The diagonal blocks of one batch Jacobian.

    Parameters
    ----------
    spectrum
        Singular values of all blocks together, one network (one row) of B·m; values below the rounding of the largest
        are censored.
    share
        Of ‖J‖_F² in the blocks, Σ_i ‖J_ii‖_F²/‖J‖_F².
    squared_norm
        ‖J‖_F² of the whole matrix.
    """

    spectrum: EmpiricalSpectrum
    share: float
    squared_norm: float


def blocks(module: nn.Module, x: Tensor) -> BatchBlocks:
    """Measure the diagonal blocks by pushing the tangents of one example at a time: 2 B² N³ operations a linear layer.

    Parameters
    ----------
    module
        The network, from a batch (B, N) to (B, N'), left bit for bit as it is found.
    x
        The batch, of B >= 2 examples and the module's dtype and device.

    Returns
    -------
    BatchBlocks

    Raises
    ------
    InvalidArgumentError
        As `rmtbn.measure.batch_jacobian.spectrum`.

    Examples
    --------
    Linear layers do not couple examples, so that nothing is outside of the blocks:

    >>> round(blocks(nn.Linear(3, 3), torch.ones(4, 3)).share, 12)
    1.0
    """
    with chained(module, x, centred=False) as links:
        found = [_one(links, example, x) for example in range(len(x))]
    values, _ = dense.singular_values(torch.stack([block for block, _ in found]))
    inside = sum(float(block.double().square().sum()) for block, _ in found)
    total = sum(squares for _, squares in found)
    alive = torch.stack([(block != 0).any(dim=1).sum() for block, _ in found]).cpu()
    values = torch.where(torch.arange(values.shape[1]) < alive[:, None], values, 0.0)
    rows = np.full((len(x), links.outputs), -np.inf)
    rows[:, : values.shape[1]] = values.log().numpy()
    share = dense.unresolved_below(found[0][0])
    floor = float(rows.max()) + math.log(share)
    known = rows[rows > floor]
    spectrum = EmpiricalSpectrum(
        by_network=rows.reshape(1, -1),
        relative_error=share * math.exp(float(rows.max() - known.min())) if known.size else 0.0,
        method="dense",
        batch_stats=batch_statistics.resolve(module, "batch"),
        log_floor=np.array([floor]) if math.isfinite(floor) else None,
        reason=f"as asked; {len(x)} × {links.outputs} × {links.inputs}",
    )
    return BatchBlocks(spectrum=spectrum, share=inside / total, squared_norm=total)


def _one(links: Chain, example: int, x: Tensor) -> tuple[Float[Tensor, "outputs inputs"], float]:
    """Return the block of one example, and the sum of squares of all that its inputs change."""
    c = contrasts(len(x), like=x)
    unit = torch.zeros(len(x), dtype=x.dtype, device=x.device)
    unit[example] = 1.0
    identity = torch.eye(links.inputs, dtype=x.dtype, device=x.device)
    before, after = (c @ unit if within else unit for within in (links.starts_in_contrasts, links.ends_in_contrasts))
    pushed = links.apply(torch.kron(identity, before[:, None]))
    parts = pushed.reshape(links.outputs, len(after), links.inputs)
    return torch.einsum("k,fkn->fn", after, parts), float(pushed.double().square().sum())
