"""Real networks follow the laws of free probability: right ones accepted, wrong ones rejected, at a rate of 1/N.

Networks are the unit of every p-value. The size that the project asks for, 20 networks of width 1000 for ten laws at
depths 1, 4 and 16, is benchmarks/monte_carlo_laws.py; here are smaller ones.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from rmtbn.analyses._laws_networks import Kind, cell
from rmtbn.analyses._laws_records import has_zeros, pooled

from rmtbn import rng
from rmtbn.compare import FINITE_SIZE, compare, compare_given
from rmtbn.linalg.product import identity, push
from rmtbn.linalg.product_values import log_singular_values
from rmtbn.result import EmpiricalSpectrum
from rmtbn.theory.fuss_catalan import FussCatalan
from rmtbn.theory.given_layers import law_given_ranks, zero_share

SIGMA_B = {"linear": 0.0, "relu": 0.0, "hard_tanh": 0.05**0.5, "tanh": 0.05**0.5, "erf": 0.05**0.5}
KINDS = [Kind(activation=a, weights=w, sigma_b=b) for a, b in SIGMA_B.items() for w in ("gaussian", "orthogonal")]
LINEAR, RELU, TANH = (Kind(activation=a, sigma_b=SIGMA_B[a]) for a in ("linear", "relu", "tanh"))


def networks(kind, *, width, count, depths, seed=1):
    """The table of `count` networks of one kind: a row per network and depth."""
    shared = kind.parameters(width=width, depths=depths, device="cpu", dtype="float64")
    return cell(seed=seed, networks=count, **shared)["spectra"]


def at(table, depth):
    return table[table.depth == depth]


def given(kind, rows, *, surplus=0):
    """Compare with the laws for the networks' own ranks, with `surplus` layers too many."""
    sigma_w = kind.exact_law(1).sigma_w
    return compare_given(
        [law_given_ranks([*row, *[float(np.mean(row))] * surplus], weights=kind.free_weights, sigma_w=sigma_w)
         for row in rows.active],
        pooled(rows),
    )  # fmt: skip


def right_and_deeper(kind, table, depth):
    """Comparisons with the law of `depth` layers and with that of one layer more."""
    rows = at(table, depth)
    if has_zeros(kind):
        return given(kind, rows), given(kind, rows, surplus=1)
    return compare(kind.law(depth), pooled(rows)), compare(kind.law(depth + 1), pooled(rows))


@pytest.mark.parametrize("kind", [LINEAR, RELU, TANH], ids=str)
def test_networks_follow_their_law_and_not_that_of_a_layer_more(kind):
    """L = 1, 4 at N = 48, 8 networks: distance below 2.5/N; the law of L + 1 layers is farther, at p < 0.01."""
    table = networks(kind, width=48, count=8, depths=(1, 4))
    for depth in (1, 4):
        right, deeper = right_and_deeper(kind, table, depth)
        assert right.ks < 2.5 / 48
        assert deeper.ks > 0.025
        assert deeper.ks > 2 * right.ks
        assert deeper.ks_pvalue < 0.01


@pytest.mark.parametrize("kind", [LINEAR, TANH], ids=str)
def test_gaussian_and_orthogonal_networks_are_told_apart(kind):
    """N = 48, L = 3: the law of the other weights is rejected from both sides."""
    for right, wrong in (("gaussian", "orthogonal"), ("orthogonal", "gaussian")):
        rows = networks(replace(kind, weights=right), width=48, count=6, depths=(3,))
        found = compare(replace(kind, weights=wrong).law(3), pooled(rows))
        assert found.verdict == "rejected"
        assert found.ks > 0.2


def test_relu_networks_leave_the_free_law_as_one_over_root_n():
    """At L = 4 zeros are E[1 - min n_l/N]: 0.5 + 1.03 √(1/4N), 4 s.e.; the KS distance to the free law is no less."""
    for width, count in ((16, 40), (64, 24)):
        rows = networks(RELU, width=width, count=count, depths=(4,))
        shares = np.isneginf(pooled(rows).by_network).mean(axis=1)
        expected = zero_share(0.5, width=width, depth=4)
        assert shares.mean() == pytest.approx(expected, abs=4 * shares.std() / math.sqrt(count))
        assert expected - 0.5 == pytest.approx(1.0294 * math.sqrt(0.25 / width), rel=0.1)
        assert compare(RELU.law(4), pooled(rows)).ks >= shares.mean() - 0.5 - 1e-9


def test_networks_away_from_the_fixed_point_follow_the_law_of_their_lengths():
    """tanh, input of mean square 9, L = 2, N = 48: distance below 2.5/N; the law at q* is rejected."""
    kind = Kind(activation="tanh", sigma_w=1.3, sigma_b=0.2, q0=9.0)
    measured = pooled(networks(kind, width=48, count=8, depths=(2,)))
    right, settled = compare(kind.law(2), measured), compare(replace(kind, q0=None).law(2), measured)
    assert right.ks < 2.5 / 48
    assert settled.ks > 0.15
    assert settled.verdict == "rejected"


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_uniform_weights_have_the_law_of_gaussian_ones(activation):
    """Universality, N = 48, L = 3: distance below 2.5/N; the law of orthogonal weights is rejected."""
    kind = Kind(activation=activation, weights="uniform", sigma_b=SIGMA_B[activation])
    rows = networks(kind, width=48, count=8, depths=(3,))
    right, deeper = right_and_deeper(kind, rows, 3)
    assert right.ks < 2.5 / 48
    assert deeper.ks_pvalue < 0.01
    wrong = compare(replace(kind, weights="orthogonal").law(3), pooled(rows))
    assert wrong.ks_pvalue < 0.01
    assert wrong.ks > 3 * right.ks


def entries(name, shape, draws):
    """Independent entries of mean 0 and variance 1, far from Gaussian."""
    if name == "signs":
        return draws.choice([-1.0, 1.0], size=shape)
    if name == "sparse":  # a tenth of the entries is left
        return draws.choice([-1.0, 1.0], size=shape) * (draws.random(shape) < 0.1) * math.sqrt(10.0)
    return (draws.exponential(size=shape) - 1.0) if name == "skew" else draws.standard_normal(shape)


def products(name, *, width, count, depth):
    """Log singular values of products of matrices with such entries."""
    found = []
    for i in range(count):
        draws, product = rng.generator(1, "universality", name, width, i), identity(width)
        for _ in range(depth):
            factor = torch.from_numpy(entries(name, (width, width), draws)) / math.sqrt(width)
            product = push(product, factor @ product.u)
        found.append(log_singular_values(product).values.numpy())
    return EmpiricalSpectrum(by_network=np.stack(found), relative_error=1e-10, method="product")


@pytest.mark.parametrize("name", ["signs", "sparse", "skew"])
def test_products_of_any_independent_entries_are_fuss_catalan(name):
    """Universality, L = 2: distance < 2/N at N = 96 to FC_2, FC_3 rejected; FC_1 too."""
    measured = products(name, width=96, count=12, depth=2)
    right, deeper, shallower = (compare(FussCatalan(depth=depth), measured) for depth in (2, 3, 1))
    assert right.ks < 2.0 / 96
    assert right.verdict in {"agrees", "agrees to order 1/N"}
    assert deeper.verdict == shallower.verdict == "rejected"


RECTANGULAR = [(72, 48, 72), (48, 72, 48), (72, 36, 48)]


@pytest.mark.parametrize("widths", RECTANGULAR, ids=str)
@pytest.mark.parametrize("weights", ["gaussian", "orthogonal"])
def test_rectangular_layers_follow_the_law_of_their_widths(widths, weights):
    """Linear networks of unequal widths, semi-orthogonal ones too: distance < 2.5/n_L, zeros exact."""
    kind = Kind(activation="linear", weights=weights, sigma_w=1.0, widths=widths)
    rows = networks(kind, width=0, count=8, depths=(2,))
    measured, law = pooled(rows), kind.exact_law(2)
    found = compare(law, measured)
    assert found.ks < 2.5 / widths[-1]
    assert found.zeros.measured == pytest.approx(max(0, 1 - min(widths) / widths[-1]), abs=1e-12)
    swapped = replace(kind, weights="gaussian" if weights == "orthogonal" else "orthogonal").exact_law(2)
    assert compare(swapped, measured).ks > 0.1
    square = replace(kind, widths=None).exact_law(2)
    assert compare(square, measured).ks > 0.05


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_ten_laws_at_three_depths(kind):
    """N = 256, 20 networks, L = 1, 4, 16: KS < 0.02 to the law (given ranks), L + 1 rejected at L = 1, 4.

    At N = 1000 the distances are those of the benchmark, below 0.01.
    """
    table = networks(kind, width=256, count=20, depths=(1, 4, 16))
    other = replace(kind, weights="gaussian" if kind.weights == "orthogonal" else "orthogonal")
    for depth in (1, 4, 16):
        right, deeper = right_and_deeper(kind, table, depth)
        assert right.ks < 0.02
        assert compare(other.law(depth), pooled(at(table, depth))).verdict == "rejected"
        if depth < 16 and (kind.activation, kind.weights) != ("linear", "orthogonal"):
            assert deeper.ks_pvalue < 0.01
            assert deeper.ks - 3 * deeper.ks_se > FINITE_SIZE / 256


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_distances_fall_as_one_over_width(kind):
    """Over 2 N networks at N = 16 … 128: mean slope over depths -1 ± 0.25.

    Where units switch off: 20 networks, given the ranks, which leave no noise to speak of, at N = 32 … 256. At N = 16 a
    ReLU network of 16 layers has 5 values that are not 0, too few to be far from anything.
    """
    if (kind.activation, kind.weights) == ("linear", "orthogonal"):
        pytest.skip("all λ are 1: no distance")
    slopes, widths = [], (32, 64, 128, 256) if has_zeros(kind) else (16, 32, 64, 128)
    counts = [20 if has_zeros(kind) else 2 * width for width in widths]
    tables = [networks(kind, width=n, count=m, depths=(1, 4, 16)) for n, m in zip(widths, counts, strict=True)]
    for depth in (1, 4, 16):
        distances = [right_and_deeper(kind, table, depth)[0].ks for table in tables]
        if min(distances) > 1e-9:
            slopes.append(np.polyfit(np.log(widths), np.log(distances), 1)[0])
    assert np.mean(slopes) == pytest.approx(-1.0, abs=0.25)
