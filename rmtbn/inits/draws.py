"""Random weights: independent entries, Haar-distributed orthonormal frames, frames at the central tap of a kernel."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rmtbn.inits.laws import WeightLaw

Generator = torch.Generator | np.random.Generator


def fans(weight: Tensor) -> tuple[int, int]:
    """Return the numbers of inputs and outputs of one unit of a layer, taps counted."""
    receptive = weight[0, 0].numel()
    return weight.shape[1] * receptive, weight.shape[0] * receptive


def entries(shape: torch.Size, distribution: str, generator: torch.Generator) -> Tensor:
    """Draw independent entries of mean 0 and variance 1 in float64."""
    if distribution == "uniform":
        return (2 * torch.rand(shape, generator=generator, dtype=torch.float64, device=generator.device) - 1) * 3**0.5
    return torch.randn(shape, generator=generator, dtype=torch.float64, device=generator.device)


def weights(weight: Tensor, law: WeightLaw, generator: torch.Generator, *, groups: int = 1) -> Tensor:
    """Draw weights of a law.

    Parameters
    ----------
    weight
        Gives the shape (outputs, inputs per group, taps...).
    law
        Of the weights.
    generator
        Source of the draws.
    groups
        Of a convolution, whose channels do not mix.

    Returns
    -------
    Tensor
        In float64 on the generator's device.
    """
    fan_in, _ = fans(weight)
    if law.central_tap:
        return _at_central_tap(weight, law.sigma_w, generator, groups=groups)
    drawn = entries(weight.shape, law.distribution, generator)
    if law.distribution == "orthogonal":
        # NOTE: for more outputs than inputs torch.nn.init.orthogonal_ keeps WᵀW = I; here the entries keep variance
        # σ_w²/fan_in, so that the mean square of the activations follows the same map for every law.
        frame = haar(drawn.flatten(1)).view_as(drawn)
        return frame * law.sigma_w * max(1.0, weight.shape[0] / fan_in) ** 0.5
    return drawn * law.sigma_w / fan_in**0.5


def _at_central_tap(weight: Tensor, sigma_w: float, generator: torch.Generator, *, groups: int) -> Tensor:
    """Put one frame for each group at the tap in the middle (of an even number the later), 0 elsewhere."""
    outputs, inputs, *taps = weight.shape
    gain = sigma_w * max(1.0, outputs / inputs) ** 0.5
    shape = torch.Size((outputs // groups, inputs))
    frames = [haar(entries(shape, "gaussian", generator)) for _ in range(groups)]
    kernel = torch.zeros(weight.shape, dtype=torch.float64, device=generator.device)
    central: tuple[slice | int, ...] = (slice(None), slice(None), *(size // 2 for size in taps))
    kernel[central] = gain * torch.cat(frames)
    return kernel


def haar(gaussian: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
    """Make Haar-distributed orthonormal rows (or columns, if there are more rows); Mezzadri 2007, math-ph/0609050."""
    tall = gaussian if gaussian.shape[0] >= gaussian.shape[1] else gaussian.T
    q, r = torch.linalg.qr(tall)
    q = q * torch.sign(torch.diagonal(r))
    return q if tall is gaussian else q.T


def torch_generator(generator: Generator) -> torch.Generator:
    """Return a torch generator: the one given, or a new one whose seed a numpy generator draws."""
    if isinstance(generator, torch.Generator):
        return generator
    return torch.Generator().manual_seed(int(generator.integers(2**63)))
