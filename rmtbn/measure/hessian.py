"""The ends of the spectrum of the Hessian of the loss, and the rate 2/λ_max that they allow gradient descent.

On a quadratic loss with Hessian H, w ← w - α∇L contracts in every direction of positive curvature if and only if
α < 2/λ_max; with momentum μ, v ← μv + ∇L, w ← w - αv, if and only if α < 2(1 + μ)/λ_max (Polyak 1964; Goh 2017, "Why
momentum really works"). A network's loss is no quadratic: 2/λ_max at a point is about small steps from it. Under batch
statistics H is that of the loss in train mode, in which examples share their statistics.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from rmtbn import _checks, _modules
from rmtbn.linalg.operator import Operator
from rmtbn.linalg.symmetric_lanczos import spectrum_ends
from rmtbn.measure.loss import check_batch, cross_entropy, parameters_of
from rmtbn.measure.snapshot import probe


@dataclass(frozen=True, slots=True, kw_only=True)
class Curvature:
    """The ends of the spectrum of the Hessian H of the mean cross-entropy by all parameters.

    Parameters
    ----------
    loss
        L(w).
    smallest, largest
        λ_min and λ_max.
    smallest_bound, largest_bound
        Norms of their residuals ‖Hv - λv‖, ‖v‖ = 1, as `rmtbn.linalg.symmetric_lanczos` gives them.
    products
        Number of products of H with a vector.
    """

    loss: float
    smallest: float
    largest: float
    smallest_bound: float
    largest_bound: float
    products: int

    def critical_rate(self, *, momentum: float = 0.0) -> float:
        """Return 2(1 + μ)/λ_max, above which a quadratic of this Hessian diverges; inf where λ_max <= 0."""
        momentum = _checks.real("momentum", momentum, at_least=0.0, below=1.0)
        return 2 * (1 + momentum) / self.largest if self.largest > 0 else math.inf


def curvature(
    module: nn.Module,
    x: Float[Tensor, "examples ..."],
    y: Int[Tensor, " examples"],
    *,
    tolerance: float = 0.01,
    limit: int | None = None,
    batch_stats: str | None = None,
    generator: torch.Generator,
) -> Curvature:
    """Measure both ends of the spectrum of the Hessian by Lanczos with Hessian–vector products.

    H is the derivative of the gradient (Pearlmutter 1994), exact wherever the loss is twice differentiable; a kink of φ
    adds nothing. The gradient is differentiated once for each product, and its graph is held in memory.

    Parameters
    ----------
    module
        Any network from inputs to logits; left as found.
    x, y
        Inputs (examples, ...) and their classes.
    tolerance
        Residual asked for at λ_max relative to it, and at λ_min relative to the larger of the two in size (under batch
        normalisation -λ_min may be many times λ_max). 1 % is less than curvature changes from one mini-batch to the
        next.
    limit
        Most products, >= 1; None: as many as there are parameters.
    batch_stats
        "batch", "running", or None for the module's own mode.
    generator
        For the first vector (on the CPU).

    Returns
    -------
    Curvature

    Raises
    ------
    InvalidArgumentError
        For a batch that is not finite, labels that are no classes, a loss that is not finite, or numbers out of range.

    Examples
    --------
    >>> net = nn.Linear(1, 2, bias=False).double()
    >>> _ = nn.init.zeros_(net.weight)
    >>> found = curvature(net, 2 * torch.ones(1, 1).double(), torch.tensor([0]), generator=torch.Generator())
    >>> round(found.largest, 6), round(found.critical_rate(), 6)
    (2.0, 1.0)
    """
    check_batch(module, x, y)
    weights = parameters_of(module)
    with probe(module, batch_stats):
        loss = cross_entropy(_modules.call(module, weights, x), y)
        if not bool(torch.isfinite(loss)):
            raise _checks.fail("module", "of a finite loss at x", float(loss.detach()))
        ends = spectrum_ends(
            _hessian(loss, list(weights.values())), tolerance=tolerance, limit=limit, generator=generator
        )
    return Curvature(
        loss=float(loss.detach()),
        smallest=ends.smallest,
        largest=ends.largest,
        smallest_bound=ends.smallest_bound,
        largest_bound=ends.largest_bound,
        products=ends.products,
    )


def _hessian(loss: Tensor, weights: list[Tensor]) -> Operator:
    """Return v -> Hv for the Hessian of a scalar by tensors, laid one after the other in a row."""
    found = torch.autograd.grad(loss, weights, create_graph=True, allow_unused=True)
    gradient = torch.cat(
        [(torch.zeros_like(w) if g is None else g).flatten() for w, g in zip(weights, found, strict=True)]
    )

    def product(vector: Tensor) -> Tensor:
        if not gradient.requires_grad:  # the loss is linear in every weight
            return torch.zeros_like(vector)
        images = torch.autograd.grad(gradient, weights, vector, retain_graph=True, allow_unused=True)
        return torch.cat(
            [(torch.zeros_like(w) if g is None else g).flatten() for w, g in zip(weights, images, strict=True)]
        ).detach()

    def apply(block: Tensor) -> Tensor:
        return torch.stack([product(vector) for vector in block])

    return Operator(
        inputs=gradient.numel(),
        outputs=gradient.numel(),
        apply=apply,
        apply_transpose=apply,
        dtype=gradient.dtype,
        device=gradient.device,
    )
