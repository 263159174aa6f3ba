"""Exact finite-width results against Monte Carlo over networks, exhaustive sums, determinants and known numbers."""

import itertools
import math

import numpy as np
import pytest
from cases import SEEDS
from scipy import special, stats

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.activations import leaky_relu
from rmtbn.theory.finite_width import (
    FIELDS,
    ginibre_moments,
    log_det_law,
    log_norm_law,
    log_singular_value_means,
    lyapunov_exponents,
    lyapunov_variances,
)
from rmtbn.theory.fuss_catalan import FussCatalan


def factors(generator, shape, *, field="real"):
    """Gaussian matrices of shape (networks, n_out, n_in) with entries of variance 1/n_in."""
    real = generator.standard_normal(shape)
    matrices = real if field == "real" else (real + 1j * generator.standard_normal(shape)) / math.sqrt(2)
    return matrices / math.sqrt(shape[-1])


def products(generator, widths, *, networks, field="real"):
    """J = W_L ... W_1 of each network."""
    product = np.eye(widths[0])
    for n_in, n_out in itertools.pairwise(widths):
        product = factors(generator, (networks, n_out, n_in), field=field) @ product
    return product


def deviation(samples, expected):
    """Distance of the mean over networks from `expected` in standard errors."""
    return abs(samples.mean() - expected) / (samples.std(ddof=1) / math.sqrt(samples.size))


def variance_deviation(samples, expected):
    """Distance of the variance over networks from `expected` in standard errors: the larger of normal and measured."""
    squares = (samples - samples.mean()) ** 2
    error = max(expected * math.sqrt(2 / samples.size), squares.std(ddof=1) / math.sqrt(samples.size))
    return abs(samples.var(ddof=1) - expected) / error


def qr_exponents(generator, *, width, depth, networks, field):
    """Sums over `depth` factors of ln R_kk, shape (networks, width): how the exponents are measured."""
    basis, total = np.eye(width), np.zeros((networks, width))
    for _ in range(depth):
        basis, r = np.linalg.qr(factors(generator, (networks, width, width), field=field) @ basis)
        total += np.log(np.abs(np.diagonal(r, axis1=1, axis2=2)))
    return total


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_qr_of_a_product_grows_with_newmans_exponents_and_variances(seed, field):
    """E Σ ln R_kk = L λ_k and var = L v_k for every k, within 4.5 standard errors over networks."""
    width, depth = 5, 30
    total = qr_exponents(rng.generator(seed, "qr", field), width=width, depth=depth, networks=400, field=field)
    exponents, variances = lyapunov_exponents(width, field=field), lyapunov_variances(width, field=field)
    for k in range(width):
        assert deviation(total[:, k], depth * exponents[k]) < 4.5
        assert variance_deviation(total[:, k], depth * variances[k]) < 4.5


def test_singular_values_of_a_deep_product_grow_with_the_exponents():
    """ln(σ_k)/L → λ_k: at N = 2 from det and the norm, L = 1,000, within 4 standard errors plus the O(1)/L start."""
    generator, depth, networks = rng.generator(1, "deep"), 1000, 64
    log_norm, log_det, product = np.zeros(networks), np.zeros(networks), np.eye(2)
    for _ in range(depth):
        factor = factors(generator, (networks, 2, 2))
        product, log_det = factor @ product, log_det + np.log(np.abs(np.linalg.det(factor)))
        norm = np.linalg.norm(product, axis=(1, 2), keepdims=True)
        product, log_norm = product / norm, log_norm + np.log(norm[:, 0, 0])
    measured = np.stack([log_norm, log_det - log_norm]) / depth
    error = measured.std(axis=1, ddof=1) / math.sqrt(networks)
    assert np.all(np.abs(measured.mean(axis=1) - lyapunov_exponents(2)) < 4 * error + 1 / depth)


def compound(matrices, k):
    """The k-th compound (k × k minors) of each matrix: it multiplies, and its largest σ is σ_1 ⋯ σ_k."""
    rows = list(itertools.combinations(range(matrices.shape[-1]), k))
    minors = [[np.linalg.det(matrices[:, a][:, :, b]) for b in rows] for a in rows]
    return np.moveaxis(np.asarray(minors), -1, 0)


def log_top(generator_factors, k):
    """ln(σ_1 ⋯ σ_k) of the product of the factors, rescaled as it grows: exact however far the others fall behind."""
    product, log_scale = None, 0.0
    for factor in generator_factors:
        minors = compound(factor, k)
        product = minors if product is None else minors @ product
        norm = np.linalg.norm(product, axis=(1, 2), keepdims=True)
        product, log_scale = product / norm, log_scale + np.log(norm[:, 0, 0])
    return log_scale + np.log(np.linalg.norm(product, ord=2, axis=(1, 2)))


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_log_singular_values_end_above_the_exponents_by_the_overlap_of_frames(seed, field):
    """E ln σ_k = L λ_k + [ψ((N-k+1)/2) - ψ(k/2)]/2 for all k, within 4.5 standard errors over networks.

    The volume of the first k basis vectors has E ln = L Σ λ_j exactly and the fluctuations of σ_1 ⋯ σ_k, so that their
    difference shows the second term with an error that does not grow with depth.
    """
    width, depth, networks = 4, 200, 300
    generator = rng.generator(seed, "overlap", field)
    layers = [factors(generator, (networks, width, width), field=field) for _ in range(depth)]
    basis, volume = np.eye(width), np.zeros((networks, width))
    for layer in layers:
        basis, r = np.linalg.qr(layer @ basis)
        volume += np.log(np.abs(np.diagonal(r, axis1=1, axis2=2)))
    log_sigma = np.diff([log_top(layers, k) for k in range(1, width + 1)], axis=0, prepend=0.0).T
    expected = log_singular_value_means(width, depth=depth, field=field)
    exponents = lyapunov_exponents(width, field=field)
    for k in range(width):
        assert deviation(log_sigma[:, k] - volume[:, k], expected[k] - depth * exponents[k]) < 4.5
        assert deviation(log_sigma[:, k], expected[k]) < 4.5


@pytest.mark.parametrize("k", [1, 3, 5])
def test_overlap_of_frames_is_the_log_determinant_of_a_haar_block(k):
    """Σ_{j<=k} (E ln σ_j - L λ_j) = -E ln|det A_k|, A_k the k × k corner of a Haar matrix: 4.5 standard errors."""
    width = 6
    gaussian = rng.generator(1, "haar", k).standard_normal((4000, width, width))
    corner = np.linalg.qr(gaussian)[0][:, :k, :k]  # |det| does not see the signs that make Q Haar
    overlap = (log_singular_value_means(width, depth=1) - lyapunov_exponents(width))[:k].sum()
    assert deviation(-np.log(np.abs(np.linalg.det(corner))), overlap) < 4.5


def test_overlap_of_frames_sums_to_zero_and_descends():
    """The determinant knows nothing of frames: Σ_k E ln σ_k = L Σ λ_k; at N = 128 the top gains 3.057."""
    overlap = log_singular_value_means(128, depth=7) - 7 * lyapunov_exponents(128)
    assert abs(overlap.sum()) < 1e-11
    assert np.all(np.diff(overlap) < 0)
    assert abs(overlap[0] - (special.digamma(64) + np.euler_gamma + 2 * math.log(2)) / 2) < 1e-12


def test_exponents_descend_sum_to_the_log_determinant_and_tend_to_the_uniform_law():
    """N → ∞: exp(2 λ_k) = 1 - k/N, the law of λ^{1/L} of deep products (Newman's triangle law)."""
    exponents = lyapunov_exponents(4000)
    assert np.all(np.diff(exponents) < 0)
    middle = (np.arange(1, 4001) - 0.5) / 4000
    assert np.max(np.abs(np.exp(2 * exponents) - (1 - middle))) < 2 / 4000
    assert 2 * exponents.mean() == pytest.approx(FussCatalan(depth=1).log_moment(), abs=0.01)


def test_real_exponents_of_one_and_two_dimensions_in_closed_form():
    """N = 1: E ln|h| = -(γ + ln 2)/2; N = 2: λ_1 = -γ/2, λ_2 = -γ/2 - ln 2."""
    assert lyapunov_exponents(1)[0] == pytest.approx(-(np.euler_gamma + math.log(2)) / 2, rel=1e-14)
    assert lyapunov_exponents(2) == pytest.approx([-np.euler_gamma / 2, -np.euler_gamma / 2 - math.log(2)], rel=1e-14)
    assert lyapunov_variances(1)[0] == pytest.approx(math.pi**2 / 8, rel=1e-14)


@pytest.mark.parametrize("field", FIELDS)
def test_log_determinant_has_its_exact_mean_and_variance(field):
    """ln|det J| over 4,000 networks of N = 6, L = 3."""
    law = log_det_law(6, depth=3, field=field)
    j = products(rng.generator(1, "det", field), (6,) * 4, networks=4000, field=field)
    samples = np.linalg.slogdet(j)[1]
    assert deviation(samples, law.mean) < 4
    assert variance_deviation(samples, law.variance) < 4


def test_log_norm_of_a_linear_network_is_a_sum_of_log_chi_squares():
    """Mean Σ [ψ(n_l/2) + ln(2/n_{l-1})], variance Σ ψ′(n_l/2)."""
    widths = (7, 3, 1, 200, 100_000)
    law = log_norm_law("linear", widths=widths)
    half = np.array(widths[1:]) / 2
    assert law.mean == pytest.approx(np.sum(special.digamma(half) + np.log(2 / np.array(widths[:-1]))), rel=1e-13)
    assert law.variance == pytest.approx(np.sum(special.polygamma(1, half)), rel=1e-12)
    assert law.zero_probability == 0


@pytest.mark.parametrize("n", [1, 2, 10, 100, 1000])
def test_log_norm_of_a_relu_layer_is_a_sum_over_the_units_that_are_on(n):
    """ln[(2/n) χ²_k], k ~ Bin(n, 1/2) given k >= 1: means and variances summed over k."""
    law = log_norm_law("relu", widths=(n, n))
    k = np.arange(1, n + 1)
    weight = stats.binom.pmf(k, n, 0.5) / (1 - 0.5**n)
    mean = special.digamma(k / 2) + math.log(4 / n)
    assert law.mean == pytest.approx(weight @ mean, abs=1e-12)
    within, between = weight @ special.polygamma(1, k / 2), weight @ (mean - weight @ mean) ** 2
    assert law.variance == pytest.approx(within + between, abs=1e-12)
    assert law.zero_probability == pytest.approx(0.5**n)


def test_log_norm_of_relu_layers_matches_the_notes_and_hanin_nica_at_large_width():
    """n = 100: mean -.0254208856, variance .0519399921; n = 10: -.30746, .86673; n → ∞: N(-β/2, β), β = 5 Σ 1/n."""
    hundred, ten = log_norm_law("relu", widths=(100, 100)), log_norm_law("relu", widths=(10, 10))
    assert (round(hundred.mean, 10), round(hundred.variance, 10)) == (-0.0254208856, 0.0519399921)
    assert (round(ten.mean, 5), round(ten.variance, 5)) == (-0.30746, 0.86673)
    wide = log_norm_law("relu", widths=(10_000,) * 5)
    assert wide.mean == pytest.approx(-10 / 10_000, rel=1e-3)
    assert wide.variance == pytest.approx(20 / 10_000, rel=1e-3)


@pytest.mark.parametrize("slope", [0.01, 0.5, -1.0])
def test_log_norm_of_leaky_relu_networks_matches_networks(slope):
    """ln‖Jv‖² over 20,000 networks of widths 4, 6, 3, slope a below 0, entries of variance 2/((1+a²) n_{l-1})."""
    widths, networks, generator = (4, 6, 3), 20_000, rng.generator(1, "leaky", slope)
    x = np.ones((networks, widths[0], 1)) / math.sqrt(widths[0])
    for n_in, n_out in itertools.pairwise(widths):
        h = math.sqrt(2 / (1 + slope**2)) * factors(generator, (networks, n_out, n_in)) @ x
        x = np.where(h > 0, h, slope * h)
    samples = np.log(np.sum(x**2, axis=(1, 2)))
    law = log_norm_law(leaky_relu(slope), widths=widths)
    assert deviation(samples, law.mean) < 4
    assert variance_deviation(samples, law.variance) < 4
    wide = 6 * (1 + slope**4) / (1 + slope**2) ** 2 - 1
    assert 10_000 * log_norm_law(leaky_relu(slope), widths=(9, 10_000)).variance == pytest.approx(wide, rel=2e-3)


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("widths", [(3, 3, 3, 3), (2, 5, 3), (6, 1, 4)])
def test_moments_match_networks_at_any_widths(widths, field):
    """E m_1 = 1, E m_2, E m_1² over 40,000 networks."""
    j = products(rng.generator(1, "moments", field, *widths), widths, networks=40_000, field=field)
    lam = np.linalg.svd(j, compute_uv=False) ** 2
    first, second = lam.sum(axis=1) / widths[-1], (lam**2).sum(axis=1) / widths[-1]
    law = ginibre_moments(widths, field=field)
    for samples, expected in ((first, law.m1), (second, law.m2), (first**2, law.m1_squared)):
        assert deviation(samples, expected) < 4


def test_moments_of_one_matrix_are_those_of_wishart():
    """E tr(WWᵀ)²/n_L = 1 + (n_1 + 1)/n_0 real, 1 + n_1/n_0 complex; var m_1 = 2/(n_0 n_1), 1/(n_0 n_1)."""
    real, unitary = ginibre_moments((7, 4)), ginibre_moments((7, 4), field="complex")
    assert (real.m2, unitary.m2) == pytest.approx((1 + 5 / 7, 1 + 4 / 7), rel=1e-15)
    assert (real.m1_squared, unitary.m1_squared) == pytest.approx((1 + 2 / 28, 1 + 1 / 28), rel=1e-15)


def test_second_moment_of_deep_products_leaves_the_free_value():
    """N = L = 100 gives 234.24, not 101; at fixed L the excess falls as 1/N for real entries, 1/N² for complex."""
    assert round(ginibre_moments([100] * 101).m2, 2) == 234.24
    for field, order in (("real", 1), ("complex", 2)):
        excess = [ginibre_moments([n] * 9, field=field).m2 - FussCatalan(depth=8).moment(2) for n in (1000, 2000)]
        assert math.log2(excess[0] / excess[1]) == pytest.approx(order, abs=0.02)


@pytest.mark.parametrize(
    ("call", "name", "value"),
    [
        (lambda: lyapunov_exponents(0), "width", "0"),
        (lambda: lyapunov_variances(3, field="quaternion"), "field", "quaternion"),
        (lambda: log_det_law(3, depth=0), "depth", "0"),
        (lambda: log_singular_value_means(3, depth=0), "depth", "0"),
        (lambda: log_singular_value_means(0, depth=1), "width", "0"),
        (lambda: log_norm_law("tanh", widths=(3, 3)), "activation", "tanh"),
        (lambda: log_norm_law("hard_tanh", widths=(3, 3)), "activation", "hard_tanh"),
        (lambda: log_norm_law("relu", widths=(3,)), "widths", "3"),
        (lambda: ginibre_moments((3, 0)), "widths", "0"),
    ],
)
def test_arguments_out_of_range_are_named(call, name, value):
    with pytest.raises(InvalidArgumentError, match=f"`{name}` must be .*{value}"):
        call()
