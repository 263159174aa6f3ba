"""Singular values of circular convolutions with many channels, exactly, and the law of products of Gaussian ones.

Model: y_o(r) = Σ_i Σ_τ K_oi(τ) x_i(s r + τ), positions r modulo the image, stride s; the order of τ (convolution or
cross-correlation) leaves the singular values alone. The Fourier transform over positions makes it one block per
frequency: K̂(ω), output × input channels (Sedghi, Gupta & Long 2019, arXiv:1805.10408). A stride folds the frequencies
that alias to one, ∏s of them, into one wide block, divided by √∏s. A kernel larger than the image wraps around it.

With entries of variance σ²/(fan-in) every block is a Gaussian matrix of variance σ²/columns, real at the frequencies
that are their own negatives and complex at the others, so that products have the laws of products of Gaussian matrices
of channels × positions units: Fuss–Catalan where all are equal. A kernel that is an orthogonal matrix at one tap and 0
elsewhere (delta-orthogonal: Xiao et al. 2018, arXiv:1806.05393) has all singular values 1.
Derivation: docs/derivations/convolution.md.
"""

import math
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmtbn import _checks
from rmtbn.result import EmpiricalSpectrum, SpectralMeasure
from rmtbn.theory.fuss_catalan import FussCatalan
from rmtbn.theory.jacobian import jacobian_law

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]


def frequency_blocks(kernel: ArrayLike, *, image: Sequence[int], strides: Sequence[int] | None = None) -> Complex:
    """Compute the blocks of a convolution, one per frequency of its output.

    Parameters
    ----------
    kernel
        K, shape (output channels, input channels, one or more spatial sizes), finite.
    image
        Spatial sizes n of the input, one per spatial axis of the kernel, each >= 1.
    strides
        Strides s, which divide the sizes; None for 1.

    Returns
    -------
    array
        Shape (n_1/s_1, ..., output channels, input channels · ∏s); the product of two layers is that of their blocks.

    Raises
    ------
    InvalidArgumentError
        If shapes do not fit or an entry is not finite.
    """
    taps = _kernel(kernel)
    sizes, steps = _sizes(taps, image=image, strides=strides)
    axes = tuple(range(2, taps.ndim))
    blocks = np.moveaxis(np.fft.fftn(_wrapped(taps, sizes), axes=axes), (0, 1), (-2, -1))
    dimensions, shape = len(sizes), [n for size, step in zip(sizes, steps, strict=True) for n in (step, size // step)]
    blocks = blocks.reshape(*shape, *taps.shape[:2])
    order = [*range(1, 2 * dimensions, 2), 2 * dimensions, *range(0, 2 * dimensions, 2), 2 * dimensions + 1]
    kept = [size // step for size, step in zip(sizes, steps, strict=True)]
    return np.asarray(blocks.transpose(order).reshape(*kept, taps.shape[0], -1) / math.sqrt(math.prod(steps)))


def singular_values(kernel: ArrayLike, *, image: Sequence[int], strides: Sequence[int] | None = None) -> Array:
    """Compute the singular values of a circular convolution at every frequency.

    Parameters
    ----------
    kernel, image, strides
        As for `frequency_blocks`.

    Returns
    -------
    array
        Shape (n_1/s_1, ..., min(output channels, input channels · ∏s)), descending at each frequency; together the
        singular values of the whole matrix but for zeros that its shape enforces. Without stride and with a kernel no
        larger than the image their squares add up to ∏n ‖K‖².

    Examples
    --------
    >>> singular_values(np.full((1, 1, 2), 0.5), image=(4,)).ravel().round(6)
    array([1.      , 0.707107, 0.      , 0.707107])
    """
    blocks = frequency_blocks(kernel, image=image, strides=strides)
    return np.asarray(np.linalg.svd(blocks, compute_uv=False), dtype=np.float64)


def spectrum(kernel: ArrayLike, *, image: Sequence[int], strides: Sequence[int] | None = None) -> EmpiricalSpectrum:
    """Compute the law of λ of a circular convolution over its output, zeros included.

    Singular values below the rounding of the largest of their frequency count as zero.
    """
    blocks = frequency_blocks(kernel, image=image, strides=strides)
    values = np.linalg.svd(blocks, compute_uv=False)
    floor = np.finfo(float).eps * max(blocks.shape[-2:]) * values[..., :1]
    missing = blocks.shape[-2] - values.shape[-1]
    with np.errstate(divide="ignore"):
        logs = np.log(np.where(values > floor, values, 0.0))
    smallest = np.min(np.where(values > floor, values, np.inf) / np.maximum(values[..., :1], floor + 1e-300))
    zeros = np.full((*logs.shape[:-1], missing), -np.inf)
    return EmpiricalSpectrum(
        by_network=np.concatenate([logs, zeros], axis=-1).reshape(1, -1),
        relative_error=float(np.finfo(float).eps / min(smallest, 1.0)),
        method="fft",
    )


def gaussian_law(
    channels: Sequence[int], *, strides: Sequence[Sequence[int]] | None = None, sigma_w: float = 1.0
) -> SpectralMeasure:
    """Compute the law of λ of a product of circular convolutions with Gaussian kernels and many channels.

    Parameters
    ----------
    channels
        c_0 ... c_L, input first; only their ratios matter.
    strides
        Strides of each of the L layers, whatever the image; None for 1.
    sigma_w
        σ, > 0: kernels have entries of variance σ²/(input channels · taps).

    Returns
    -------
    SpectralMeasure
        `FussCatalan` for equal channels without stride, else the law of a linear network with c_l · positions units.
    """
    sizes = [_checks.integer("channels", n, at_least=1) for n in channels]
    depth = len(sizes) - 1
    if depth < 1:
        raise _checks.fail("channels", "two or more numbers c_0 ... c_L", channels)
    sigma_w = _checks.real("sigma_w", sigma_w, above=0.0)
    steps = [1] * depth if strides is None else [_product_of(step) for step in strides]
    if len(steps) != depth:
        raise _checks.fail("strides", f"one per layer, {depth} in all", len(steps))
    if len(set(sizes)) == 1 and set(steps) == {1}:
        return FussCatalan(depth=depth, log_scale=2 * depth * math.log(sigma_w))
    positions = [math.prod(steps) // fold for fold in accumulate([1, *steps], lambda a, b: a * b)]
    widths = [n * there for n, there in zip(sizes, positions, strict=True)]
    return jacobian_law("linear", depth=depth, weights="gaussian", sigma_w=sigma_w, widths=widths)


def _kernel(kernel: ArrayLike) -> Array:
    taps = _checks.array("kernel", kernel)
    if taps.ndim < 3 or taps.size == 0:
        raise _checks.fail("kernel", "of shape (output channels, input channels, spatial sizes), not empty", taps.shape)
    if not np.isfinite(taps).all():
        raise _checks.fail("kernel", "finite", float(taps[~np.isfinite(taps)][0]))
    return taps


def _sizes(
    taps: Array, *, image: Sequence[int], strides: Sequence[int] | None
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    sizes = tuple(_checks.integer("image", n, at_least=1) for n in image)
    steps = tuple(_checks.integer("strides", s, at_least=1) for s in ([1] * len(sizes) if strides is None else strides))
    if len(sizes) != taps.ndim - 2:
        raise _checks.fail("image", f"{taps.ndim - 2} sizes, one per spatial axis of the kernel", sizes)
    if len(steps) != len(sizes) or any(n % s for n, s in zip(sizes, steps, strict=False)):
        raise _checks.fail("strides", f"{len(sizes)} numbers that divide the sizes {sizes}", steps)
    return sizes, steps


def _wrapped(taps: Array, sizes: tuple[int, ...]) -> Array:
    """Lay the kernel out on the image; what reaches beyond it is added on the other side."""
    for axis, size in enumerate(sizes, start=2):
        turns = -(-taps.shape[axis] // size)
        padding = [(0, turns * size - taps.shape[axis]) if i == axis else (0, 0) for i in range(taps.ndim)]
        shape = (*taps.shape[:axis], turns, size, *taps.shape[axis + 1 :])
        taps = np.pad(taps, padding).reshape(shape).sum(axis=axis)
    return taps


def _product_of(strides: Sequence[int]) -> int:
    return math.prod(_checks.integer("strides", s, at_least=1) for s in strides)
