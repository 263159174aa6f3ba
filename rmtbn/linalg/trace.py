"""Traces of symmetric matrices from products with random vectors: Hutch++ and XTrace, and moments of spectra by them.

Both take a low-rank part out exactly and sample the rest; XTrace uses every vector for both purposes, leaving one out
at a time. Statements and proofs: docs/derivations/trace_estimation.md.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from rmtbn import _checks
from rmtbn.linalg.operator import BlockMap, Operator

METHODS = ("xtrace", "hutch++")


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceEstimate:
    """An estimate, its standard error over the random vectors, and the number of vectors the matrix was applied to."""

    value: float
    standard_error: float
    products: int


def moment(
    operator: Operator, k: int, *, products: int = 64, method: str = "xtrace", generator: torch.Generator
) -> TraceEstimate:
    """Estimate the mean of λ^k over the outputs of J, tr (J Jᵀ)^k / m.

    Parameters
    ----------
    operator
        J.
    k
        Order, >= 1.
    products
        Vectors to apply (J Jᵀ)^k to, >= 4; no more than m.
    method
        "xtrace" or "hutch++".
    generator
        For the vectors (on the CPU).

    Returns
    -------
    TraceEstimate

    Raises
    ------
    InvalidArgumentError
        If a number is out of its range or the method unknown.
    """
    k = _checks.integer("k", k, at_least=1)
    estimate = {"xtrace": xtrace, "hutch++": hutch_plus_plus}[_checks.one_of("method", method, METHODS)]
    m = operator.outputs

    def power(block: Tensor) -> Tensor:
        for _ in range(k):
            block = operator.apply(operator.apply_transpose(block))
        return block

    start = torch.zeros(0, m, dtype=operator.dtype, device=operator.device)
    found = estimate(power, start, products=products, generator=generator)
    return TraceEstimate(value=found.value / m, standard_error=found.standard_error / m, products=found.products)


def hutch_plus_plus(
    apply: BlockMap, like: Float[Tensor, "_ n"], *, products: int, generator: torch.Generator
) -> TraceEstimate:
    """Estimate tr A: a third of the products finds a range Q, a third takes tr QᵀAQ, a third samples the rest.

    Parameters
    ----------
    apply
        V -> V A, rows to rows, A symmetric and positive semi-definite.
    like
        Tensor of n columns that says the dimension, dtype and device.
    products
        Vectors to apply A to, between 4 and 3 n, in thirds.
    generator
        For the vectors (on the CPU).

    Returns
    -------
    TraceEstimate
        Unbiased; the standard error is that of the samples, given Q.

    References
    ----------
    Meyer, Musco, Musco, Woodruff, arXiv:2010.09649, algorithm 1.
    """
    n = like.shape[1]
    products = _checks.integer("products", products, at_least=6, at_most=3 * n)
    third = products // 3
    basis = torch.linalg.qr(apply(_normal(third, like, generator)).mT).Q.mT
    known = (basis * apply(basis)).sum()
    probes = _normal(products - 2 * third, like, generator)
    probes = probes - (probes @ basis.mT) @ basis
    samples = (probes * apply(probes)).sum(dim=1).double()
    value = float(known + samples.mean())
    error = _error(float(samples.var()) / len(samples), value, like)
    return TraceEstimate(value=value, standard_error=error, products=products)


def xtrace(apply: BlockMap, like: Float[Tensor, "_ n"], *, products: int, generator: torch.Generator) -> TraceEstimate:
    """Estimate tr A by the mean over vectors ω_i of tr Q_iᵀ A Q_i + (what ω_i says of the complement of Q_i).

    Q_i is the range of A on the other vectors, found for all i from one factorisation: leaving ω_i out takes from Q the
    direction orthogonal to the other images.

    Parameters
    ----------
    apply
        V -> V A, rows to rows, A symmetric and positive semi-definite.
    like
        Tensor of n columns that says the dimension, dtype and device.
    products
        Vectors to apply A to, between 4 and 2 n; half of them are ω's.
    generator
        For the vectors (on the CPU).

    Returns
    -------
    TraceEstimate
        Unbiased. The single estimates share their vectors, so that their spread alone understates the error (by 2 or 3
        with few vectors). The standard error is the jackknife's, from the estimates that leave one vector out: its
        square is not below the variance on average (Efron and Stein, Ann. Stat. 9, 586, 1981), and above it where all
        vectors act together (up to 3 times the scatter: eigenvalues 0.7^i, 12 vectors). Where rounding is all
        that is left, it is that of the spread.

    References
    ----------
    Epperly, Tropp, Webber, arXiv:2301.07825, sections 2 and 3: the exchangeable estimator, with test vectors of one
    length in the complement.
    """
    n = like.shape[1]
    count = _checks.integer("products", products, at_least=4, at_most=2 * n) // 2
    omega = _normal(count, like, generator)
    images = apply(omega)
    q, r = torch.linalg.qr(images.mT)
    inner = q.mT @ apply(q.mT.contiguous()).mT
    inside = q.mT @ omega.mT
    sums = torch.stack([omega.square().sum(dim=1), (omega * images).sum(dim=1)])  # ω_iᵀω_i and ω_iᵀA ω_i
    single = _exchangeable(r, inner, inside, sums=sums, dimension=n)
    others = torch.tensor([[j for j in range(count) if j != i] for i in range(count)], device=r.device)
    rotation, fewer = torch.linalg.qr(r.mT[others].mT)
    without = _exchangeable(
        fewer,
        rotation.mT @ inner @ rotation,
        rotation.mT @ inside.mT[others].mT,
        sums=sums.mT[others].mT,
        dimension=n,
    ).mean(dim=-1)
    value = float(single.mean())
    variance = max(float(without.var()) * (count - 1) ** 2 / count, float(single.var()) / count)
    return TraceEstimate(value=value, standard_error=_error(variance, value, like), products=2 * count)


def _exchangeable(
    r: Float[Tensor, "*batch k k"],
    inner: Float[Tensor, "*batch k k"],
    inside: Float[Tensor, "*batch k k"],
    *,
    sums: Float[Tensor, "*batch 2 k"],
    dimension: int,
) -> Float[Tensor, "*batch k"]:
    """For every i tr Q_iᵀ A Q_i and what ω_i adds, from A Ω = Q R, QᵀAQ, QᵀΩ, |ω_i|² and ω_iᵀA ω_i."""
    count = r.shape[-1]
    # columns: the direction in Q that is orthogonal to all images but one
    left_out = torch.linalg.solve_triangular(_full_rank(r).mT, torch.eye(count, dtype=r.dtype).to(r), upper=False)
    left_out = left_out / torch.linalg.vector_norm(left_out, dim=-2, keepdim=True)
    inside = inside - left_out * (left_out * inside).sum(dim=-2, keepdim=True)
    known = inner.diagonal(dim1=-2, dim2=-1).sum(-1, keepdim=True) - (left_out * (inner @ left_out)).sum(dim=-2)
    length = sums[..., 0, :] - inside.square().sum(dim=-2)  # of ω off Q_i
    outside = sums[..., 1, :] - 2 * (inside * r).sum(dim=-2) + (inside * (inner @ inside)).sum(dim=-2)
    return (known + (dimension - count + 1) * outside / length).double()


def _error(variance: float, value: float, like: Tensor) -> float:
    """Root of the variance of sampling and of the rounding of the products, ε |tr A|."""
    return math.hypot(math.sqrt(variance), torch.finfo(like.dtype).eps * value)


def _full_rank(r: Float[Tensor, "*batch k k"]) -> Float[Tensor, "*batch k k"]:
    """Lift the zeros on the diagonal, of images that depend on each other, to rounding noise."""
    diagonal, info = r.diagonal(dim1=-2, dim2=-1).abs(), torch.finfo(r.dtype)
    least = (info.eps * diagonal.amax(dim=-1, keepdim=True)).clamp(min=info.tiny**0.25)
    return r + torch.diag_embed(least * (diagonal < least).to(r.dtype))


def _normal(count: int, like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(count, like.shape[1], dtype=like.dtype, generator=generator).to(like.device)
