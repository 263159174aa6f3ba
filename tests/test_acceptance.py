"""The claims that the first issue asks to see come true, on real networks and through the public functions."""

import math

import numpy as np
import pytest
from cases import inputs, network

from rmtbn.compare import compare
from rmtbn.measure.gradients import log_gradient_norms
from rmtbn.measure.jacobian import spectrum
from rmtbn.result import EmpiricalSpectrum
from rmtbn.theory import bn_mean_field
from rmtbn.theory.fuss_catalan import FussCatalan


def gaussian_products(width, *, seed, depth=4, networks=20):
    """Spectra of linear networks with N(0, 1/N) weights, pooled."""
    modules = (
        network(activation="linear", depth=depth, width=width, sigma_w=1.0, sigma_b=0.0, seed=1000 * seed + k)
        for k in range(networks)
    )
    return EmpiricalSpectrum.pool([spectrum(module, inputs(1, width)) for module in modules])


def slope_of_distance(repetitions):
    """Log–log slope against N of the KS distance of 20 pooled networks to FC_4, the mean over repetitions by width."""
    law = FussCatalan(depth=4)
    distances = [
        np.mean([compare(law, gaussian_products(width, seed=seed)).ks for seed in range(count)])
        for width, count in repetitions.items()
    ]
    slope, _ = np.polyfit(np.log(list(repetitions)), np.log(distances), 1)
    return slope


def test_distance_of_products_of_4_gaussian_matrices_falls_as_one_over_width():
    """KS of 20 pooled networks to FC_4: slope -1 ± 0.25 over N = 16 … 128 (the whole range is in the slow tests)."""
    assert slope_of_distance({16: 4, 32: 3, 64: 2, 128: 1}) == pytest.approx(-1.0, abs=0.25)


def test_law_of_5_factors_is_rejected_for_products_of_4():
    """KS to FC_5 > 0.04 and rejected, whereas FC_4 is not, N = 128; networks are the unit of the p-value."""
    measured = gaussian_products(128, seed=77)
    right, wrong = (compare(FussCatalan(depth=depth), measured) for depth in (4, 5))
    assert right.verdict in {"agrees", "agrees to order 1/N"}
    assert right.ks < 1.5 / 128
    assert wrong.ks > 0.04
    assert wrong.ks_pvalue < 0.01
    assert wrong.verdict == "rejected"


@pytest.mark.slow
def test_distance_of_products_of_4_gaussian_matrices_over_the_whole_range():
    """KS of 20 pooled networks to FC_4 is < 0.005 at N = 512, slope -1 ± 0.25 over 16 … 512; FC_5 is > 0.04 away."""
    measured = gaussian_products(512, seed=0)
    assert compare(FussCatalan(depth=4), measured).ks < 0.005
    wrong = compare(FussCatalan(depth=5), measured)
    assert wrong.ks > 0.04
    assert wrong.verdict == "rejected"
    assert slope_of_distance({16: 8, 32: 8, 64: 8, 128: 4, 256: 2, 512: 1}) == pytest.approx(-1.0, abs=0.25)


def bn_growth(batch_size, *, networks, depth=10, width=384):
    """Mean growth per layer of ‖∂ℓ/∂h‖² in ReLU + he_normal + BN networks (both ends dropped), and its s.e."""
    rates = []
    for seed in range(networks):
        module = network(norm="batch", scheme="he_normal", depth=depth, width=width, seed=seed)
        x, direction = (inputs(batch_size, width, seed=seed + shift) for shift in (0, 1000))
        logs = log_gradient_norms(module, x, lambda y, direction=direction: (y * direction).sum())
        rates.append(np.exp(-np.diff(logs))[2:-2].mean())
    return np.mean(rates), np.std(rates, ddof=1) / math.sqrt(networks)


def test_gradients_of_relu_and_batch_norm_grow_by_pi_over_pi_minus_one_as_batches_grow():
    """Measured growth at B = 12 … 64 is λ_G(B) within 4 s.e., falls with B, and extrapolates to π/(π - 1) ≈ 1.467.

    λ_G = (B - 2 + J₀ + J₁)/((B - 3)(1 - J₁)) is linear in 1/(B - 3) up to order 1/B²: the limit is the intercept.
    Batches stay well below the width: at B = N/2 and depth 30 the growth is 0.65 % below λ_G, a finite-width effect.
    """
    sizes = np.array([12, 16, 32, 64])
    rates, errors = np.array([bn_growth(int(size), networks=12) for size in sizes]).T
    predicted = [bn_mean_field.fixed_point("relu", batch_size=int(size)).explosion_rate for size in sizes]
    assert (np.abs(rates - predicted) < 4 * errors).all()
    assert (np.diff(rates) < 0).all()
    design = np.stack([np.ones(4), 1 / (sizes - 3.0)], axis=1) / errors[:, None]
    (limit, _), *_ = np.linalg.lstsq(design, rates / errors)
    error = math.sqrt(np.linalg.inv(design.T @ design)[0, 0])
    assert limit == pytest.approx(math.pi / (math.pi - 1), abs=4 * error)
    assert error < 0.01
