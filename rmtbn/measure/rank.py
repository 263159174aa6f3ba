"""How much of its width a layer uses: effective ranks, orthogonality and isometry gaps, dead units.

For the outputs H of a layer, one row per example, with singular values s_i, p_i = s_i²/Σs² and K = H Hᵀ (n examples):

- participation rank (tr K)²/tr K² = 1/Σp² (Daneshmand et al. 2020, arXiv:2003.01652, soft rank);
- entropy rank exp(-Σ p ln p) (Roy & Vetterli 2007);
- orthogonality gap ‖K/tr K - I/n‖_F (Daneshmand et al. 2021, arXiv:2106.03970), 0 for orthogonal rows of one length;
- isometry gap ln[(tr K/n)/(det K)^{1/n}] (Meterez et al. 2023, arXiv:2310.02012), 0 for these too, inf for dependent
  rows;
- the share of units that are 0 for every example.

Everything is scale-free, and what can leave the floating range is a logarithm.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from rmtbn import _checks
from rmtbn.measure import recording
from rmtbn.measure.ensemble import State, aligned, pushed

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ranks:
    """Rank measures of the layers of one or more networks, arrays of shape (networks, layers).

    Parameters
    ----------
    layers
        Names of the layers.
    log_participation, log_entropy
        Logarithms of the effective ranks, between 0 and ln(min(examples, units)).
    log_orthogonality_gap
        Logarithm of the orthogonality gap; -inf where it is 0.
    isometry_gap
        A logarithm by itself; inf where the rows are dependent to the last digit (there are at least as many units as
        examples, or it is always inf).
    log_collapse
        ln(1 - 1/(participation rank)): how far the rank is from 1, with its digits as it gets there.
    dead_share
        Share of units that are 0 for every example.
    log_trace
        ln tr K, the squared norm of the layer over all examples and units.
    """

    layers: tuple[str, ...]
    log_participation: Array
    log_entropy: Array
    log_orthogonality_gap: Array
    isometry_gap: Array
    log_collapse: Array
    dead_share: Array
    log_trace: Array


def layer_ranks(
    module: nn.Module,
    x: Float[Tensor, "examples ..."],
    *,
    layers: Sequence[str] | None = None,
    batch_stats: str | None = None,
) -> Ranks:
    """Measure the ranks of the outputs of chosen layers of one network of any shape.

    Parameters
    ----------
    module
        Any network; left as found.
    x
        Inputs (examples, ...), at least 2.
    layers
        Names as in `named_modules`; those with a weight matrix if left out.
    batch_stats
        "batch", "running", or None for the module's own mode.
    """
    _checks.integer("number of examples in x", len(x), at_least=2)
    names = recording.weight_layers(module) if layers is None else tuple(layers)
    with torch.no_grad():
        outputs, _ = recording.forward(module, x, layers=names, batch_stats=batch_stats)
    return _collected(names, [_measures(output.flatten(1)[None]) for output in outputs])


def ensemble_ranks(
    modules: Sequence[nn.Module],
    x: Float[Tensor, "examples ..."],
    *,
    layers: Sequence[str] | None = None,
    batch_stats: str | None = None,
) -> Ranks:
    """Measure the ranks of the outputs of layers of many networks in one pass, at any depth.

    Parameters
    ----------
    modules
        Networks of one architecture, left as found.
    x
        Inputs (examples, ...), at least 2, the same for all.
    layers
        Names of layers as `rmtbn.measure.ensemble.pushed` sees them; all if left out. They are measured in the order of
        the forward pass.
    batch_stats
        "batch", "running", or None for the modules' own mode.

    Raises
    ------
    InvalidArgumentError
        As `rmtbn.measure.ensemble.pushed`, and for fewer than 2 examples or a layer that is not there.
    """
    _checks.integer("number of examples in x", len(x), at_least=2)
    known = [name for name, _ in aligned(modules)]
    wanted = set(known) if layers is None else {_checks.one_of("layers", name, known) for name in layers}

    def measured(state: State) -> tuple[str, Tensor]:
        return state.name, _measures(state.outputs.flatten(2), state.log_scale)

    with pushed(modules, x, batch_stats=batch_stats) as states:
        found = [measured(state) for state in states if state.name in wanted]
    return _collected(tuple(name for name, _ in found), [measures for _, measures in found])


def _measures(
    h: Float[Tensor, "networks examples units"], log_scale: Float[Tensor, " networks"] | float = 0.0
) -> Float[Tensor, "measures networks"]:
    h = h.double()
    dead = (h == 0).all(1).double().mean(1)
    peak = h.abs().flatten(1).amax(1).clamp_min(torch.finfo(torch.float64).tiny)
    h = h / peak[:, None, None]
    squared = torch.linalg.svdvals(h).square()
    examples = h.shape[1]
    p = squared / squared.sum(1, keepdim=True)
    concentration = p.square().sum(1)
    entropy = -torch.special.xlogy(p, p).sum(1)
    rest = p[:, 1:].sum(1)  # 1 - Σp² from the small ones, which keep their digits
    collapse = rest * (1 + p[:, 0]) - p[:, 1:].square().sum(1)
    gap = (p - 1 / examples).square().sum(1) + (examples - p.shape[1]) / examples**2
    enough = p.shape[1] == examples  # units, for independent rows
    isometry = -torch.log(p * examples).sum(1) / examples if enough else torch.full_like(dead, torch.inf)
    trace = squared.sum(1).log() + 2 * (peak.log() + log_scale)
    return torch.stack(
        [-concentration.log(), entropy, gap.log() / 2, isometry, collapse.clamp_min(0).log(), dead, trace]
    )


def _collected(names: Sequence[str], measures: list[Tensor]) -> Ranks:
    columns = torch.stack(measures, dim=-1).cpu().numpy()  # (measures, networks, layers)
    return Ranks(
        layers=tuple(names),
        log_participation=columns[0],
        log_entropy=columns[1],
        log_orthogonality_gap=columns[2],
        isometry_gap=columns[3],
        log_collapse=columns[4],
        dead_share=columns[5],
        log_trace=columns[6],
    )
