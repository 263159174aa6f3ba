"""Singular values of convolutions by frequency against the dense matrix; laws of Gaussian ones against draws."""

import math
from itertools import pairwise

import numpy as np
import pytest

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.compare import compare
from rmtbn.result import EmpiricalSpectrum
from rmtbn.theory.convolution import frequency_blocks, gaussian_law, singular_values, spectrum
from rmtbn.theory.fuss_catalan import FussCatalan
from rmtbn.theory.marchenko_pastur import MarchenkoPastur

GEOMETRIES = {
    "square": ((3, 3), (5, 5), (1, 1)),
    "oblong": ((3, 2), (4, 6), (1, 1)),
    "one axis": ((3,), (7,), (1,)),
    "pointwise": ((1, 1), (3, 4), (1, 1)),
    "strided": ((3, 3), (6, 4), (2, 2)),
    "strides that differ": ((3, 2), (6, 4), (3, 1)),
    "strided by the whole image": ((3, 3), (4, 4), (4, 4)),
    "kernel larger than the image": ((5, 7), (3, 3), (1, 1)),
    "larger and strided": ((5, 5), (4, 2), (2, 2)),
    "three axes": ((2, 3, 2), (3, 2, 4), (1, 2, 2)),
    "one pixel": ((3, 3), (1, 1), (1, 1)),
}
CHANNELS = {"equal": (3, 3), "more out": (4, 2), "more in": (2, 5), "one": (1, 1)}


def draw(*shape, seed=1):
    return rng.generator(seed, "kernel", *shape).standard_normal(shape)


def dense(kernel, image, strides):
    """The matrix of x ↦ y, tap by tap: y_o(r) = Σ K_oi(τ) x_i(s r + τ), positions modulo the image."""
    outputs, inputs, *sizes = kernel.shape
    kept = [n // s for n, s in zip(image, strides, strict=True)]
    matrix = np.zeros((outputs, *kept, inputs, *image))
    for place in np.ndindex(*kept):
        for tap in np.ndindex(*sizes):
            source = tuple((s * r + t) % n for s, r, t, n in zip(strides, place, tap, image, strict=True))
            matrix[(slice(None), *place, slice(None), *source)] += kernel[(..., *tap)]
    return matrix.reshape(outputs * math.prod(kept), -1)


@pytest.mark.parametrize("channels", CHANNELS.values(), ids=CHANNELS)
@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_singular_values_are_those_of_the_dense_matrix(geometry, channels):
    """Frequencies, aliases and wrapped taps give the same list, but for zeros of the shape."""
    sizes, image, strides = geometry
    kernel = draw(*channels, *sizes)
    matrix = dense(kernel, image, strides)
    exact = np.linalg.svd(matrix, compute_uv=False)
    found = singular_values(kernel, image=image, strides=strides)
    assert np.all(np.diff(found, axis=-1) <= 0)
    assert found.size == exact.size
    assert np.allclose(np.sort(found, axis=None)[::-1], exact, rtol=0, atol=1e-13 * exact[0] * len(exact))
    law = spectrum(kernel, image=image, strides=strides)
    assert law.dimension == matrix.shape[0]
    assert law.moment(1) == pytest.approx(np.sum(matrix**2) / matrix.shape[0])
    assert law.zero_fraction == pytest.approx(1 - np.linalg.matrix_rank(matrix) / matrix.shape[0])


def test_cropping_a_large_kernel_would_be_wrong():
    """np.fft.fft2(K, (n, n)) drops taps; wrapping keeps them."""
    kernel = draw(2, 2, 5, 5)
    cropped = np.linalg.svd(np.moveaxis(np.fft.fft2(kernel, (3, 3)), (0, 1), (2, 3)), compute_uv=False)
    assert not np.allclose(cropped, singular_values(kernel, image=(3, 3)), rtol=0.1)


def test_order_of_the_taps_leaves_the_singular_values_alone():
    """Cross-correlation (as in torch) and convolution are conjugate at every frequency; so are shifts."""
    kernel = draw(3, 2, 3, 3)
    one = np.sort(singular_values(kernel, image=(6, 5)), axis=None)
    flipped = np.sort(singular_values(kernel[:, :, ::-1, ::-1], image=(6, 5)), axis=None)
    assert np.allclose(one, flipped, rtol=0, atol=1e-13)


def test_squares_add_up_to_the_norm_of_the_kernel():
    """Σ σ² = n m ‖K‖² for a kernel no larger than the image."""
    kernel = draw(3, 4, 3, 2)
    assert np.sum(singular_values(kernel, image=(8, 5)) ** 2) == pytest.approx(40 * np.sum(kernel**2))


def test_product_of_layers_is_the_product_of_blocks():
    """Two circular layers: dense product against blocks multiplied at each frequency."""
    first, second = draw(3, 2, 3, 3), draw(4, 3, 2, 2)
    blocks = frequency_blocks(second, image=(4, 5)) @ frequency_blocks(first, image=(4, 5))
    matrix = dense(second, (4, 5), (1, 1)) @ dense(first, (4, 5), (1, 1))
    found = np.sort(np.linalg.svd(blocks, compute_uv=False), axis=None)
    exact = np.sort(np.linalg.svd(matrix, compute_uv=False))[-found.size :]
    assert np.allclose(found, exact, rtol=0, atol=1e-12)


@pytest.mark.parametrize("image", [(4, 4), (7, 3), (2, 2)])
def test_delta_orthogonal_kernels_are_isometries(image):
    """An orthogonal matrix at the central tap, 0 elsewhere: all singular values 1."""
    kernel = np.zeros((6, 6, 3, 3))
    kernel[:, :, 1, 1] = np.linalg.qr(draw(6, 6))[0]
    assert np.allclose(singular_values(kernel, image=image), 1.0, rtol=0, atol=1e-13)
    spread = np.linalg.qr(draw(54, 6))[0].T.reshape(6, 6, 3, 3)
    assert np.ptp(singular_values(spread, image=(4, 4))) > 0.3  # orthogonal as a 6 × 54 matrix, as torch draws it: not


def gaussian_kernels(channels, *, size, image, strides, seed=1, networks=8):
    """Spectra of products of Gaussian convolutions, one row per network."""
    rows = []
    for network in range(networks):
        grid, product = image, None
        for layer, (inputs, outputs) in enumerate(pairwise(channels)):
            kernel = draw(outputs, inputs, size, size, seed=seed + 97 * network + 7 * layer)
            matrix = dense(kernel / math.sqrt(inputs * size**2), grid, strides[layer])
            grid = tuple(n // s for n, s in zip(grid, strides[layer], strict=True))
            product = matrix if product is None else matrix @ product
        values = np.linalg.svd(product, compute_uv=False)
        logs = np.full(product.shape[0], -np.inf)
        logs[: values.size] = np.log(values)
        rows.append(logs)
    return EmpiricalSpectrum(by_network=np.array(rows), relative_error=1e-12, method="dense")


@pytest.mark.parametrize(
    ("channels", "image", "strides"),
    [
        ((30, 30), (3, 4), ((1, 1),)),
        ((20, 20, 20, 20), (3, 4), ((1, 1), (1, 1), (1, 1))),
        ((16, 32, 24), (4, 4), ((1, 1), (2, 2))),
    ],
    ids=["one layer", "three layers", "channels and stride"],
)
def test_products_of_gaussian_convolutions_follow_their_law(channels, image, strides):
    """Fuss–Catalan of the depth (3 × 3 kernels), a rectangular chain with stride; the law of one layer more is far."""
    measured = gaussian_kernels(channels, size=3, image=image, strides=strides)
    law = gaussian_law(channels, strides=strides)
    found = compare(law, measured)
    wrong = compare(gaussian_law((*channels, channels[-1]), strides=(*strides, (1, 1))), measured)
    assert found.ks < 0.6 / min(channels)
    assert wrong.ks > 0.05
    assert found.moments[0].z is None or abs(found.moments[0].z) < 4


def test_gaussian_law_is_fuss_catalan_or_marchenko_pastur():
    """Equal channels FC_L scaled by σ^{2L}; one strided layer: ratio c_1/(c_0 ∏s)."""
    assert gaussian_law((8, 8, 8), sigma_w=2.0) == FussCatalan(depth=2, log_scale=4 * math.log(2))
    law, exact = gaussian_law((3, 6), strides=((2, 2),)), MarchenkoPastur(ratio=0.5)
    x = exact.log_ppf(np.linspace(0.01, 0.99, 9))
    assert np.allclose(law.cdf_log(x), exact.cdf_log(x), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: singular_values(np.ones((2, 2)), image=()), r"`kernel` must be of shape"),
        (lambda: singular_values(np.full((1, 1, 1), np.inf), image=(2,)), r"`kernel` must be finite"),
        (lambda: singular_values(np.ones((1, 1, 2, 2)), image=(4,)), r"`image` must be 2 sizes"),
        (lambda: singular_values(np.ones((1, 1, 2)), image=(0,)), r"`image` must be an integer >= 1"),
        (lambda: singular_values(np.ones((1, 1, 2)), image=(5,), strides=(2,)), r"`strides` must be 1 numbers"),
        (lambda: gaussian_law((4,)), r"`channels` must be two or more"),
        (lambda: gaussian_law((4, 4), strides=()), r"`strides` must be one per layer"),
        (lambda: gaussian_law((4, 4), sigma_w=0.0), r"`sigma_w`"),
    ],
)
def test_arguments_that_do_not_fit_are_named(call, message):
    """One line that names the argument and the rule."""
    with pytest.raises(InvalidArgumentError, match=message):
        call()
