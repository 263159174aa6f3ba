"""Leaks of batch Jacobians: the SVD where it can see them, the determinant where it cannot, gaps, missing inverses."""

import math

import numpy as np
import pytest
import torch
from cases import inputs, network
from test_measure_batch_jacobian import GAUSSIAN, shifted

from rmtbn.measure import batch_jacobian, batch_leaks
from rmtbn.measure.batch_jacobian import spectrum
from rmtbn.measure.contrasts import chained

WIDTH, BATCH = 8, 6


def drawn(activation="tanh", *, depth=4, eps=1e-5, **options):
    """A Gaussian network with that ε in its norms, and a batch for it."""
    module = network(activation=activation, norm="batch", width=WIDTH, depth=depth, **GAUSSIAN, **options)
    for layer in module.modules():
        if hasattr(layer, "eps"):
            layer.eps = eps
    return module, inputs(BATCH, WIDTH)


def log_determinant(module, x):
    """Σ_l ln|det A_l| on 1^⊥, those of normalisations by γ^n (v + ε)^(-n/2) ε/(v + ε)."""
    total, n, x = 0.0, len(x) - 1, x.detach()
    c = torch.from_numpy(np.linalg.qr(np.column_stack([np.ones(len(x)), np.eye(len(x))[:, 1:]]))[0][:, 1:].T)
    for layer in module:
        if isinstance(layer, torch.nn.Linear):
            total += n * float(torch.linalg.slogdet(layer.weight.detach()).logabsdet)
        elif isinstance(layer, torch.nn.BatchNorm1d):
            v, gamma = x.var(dim=0, unbiased=False), layer.weight.detach().abs()
            total += float((n * (gamma.log() - (v + layer.eps).log() / 2) + (layer.eps / (v + layer.eps)).log()).sum())
        else:
            slope = torch.func.jvp(layer, (x,), (torch.ones_like(x),))[1]
            total += float(torch.linalg.slogdet(c @ (slope.mT[..., None] * c.mT)).logabsdet.sum())
        x = layer(x).detach()
    return total


@pytest.mark.parametrize("activation", ["linear", "tanh"])
@pytest.mark.parametrize("space", batch_jacobian.SPACES)
def test_leaks_and_their_directions_are_those_of_the_svd(activation, space):
    """One layer of weights, ε = 1e-9: N leaks, and J V = 0 to their size on the space that is left out of `others`."""
    module, x = drawn(activation, depth=1, eps=1e-9)
    with chained(module, x, centred=space == "centred") as links, torch.no_grad():
        found = batch_leaks.leaks(links, like=x)
        matrix = batch_jacobian.assembled(links, x)
    expected = torch.linalg.svdvals(matrix).log()
    others = found.others
    assert others.shape == (matrix.shape[1], matrix.shape[1] - WIDTH)
    torch.testing.assert_close(others.mT @ others, torch.eye(others.shape[1]).to(others), rtol=0, atol=1e-13)
    torch.testing.assert_close(found.log_values, expected[-WIDTH:], rtol=0, atol=1e-4)  # rounding of the SVD
    kept = torch.linalg.svdvals(matrix @ others).log()
    torch.testing.assert_close(kept, expected[:-WIDTH], rtol=0, atol=1e-11)


@pytest.mark.parametrize("activation", ["linear", "tanh", "gelu"])
@pytest.mark.parametrize("depth", [4, 20])
def test_sum_of_all_values_is_the_determinant(activation, depth):
    """Σ ln σ on 1^⊥ = Σ_l ln|det A_l|, leaks of e^-30 to e^-220 included, with γ and β off 1 and 0.

    The sum is that of 40 errors, each within what is stated, or nearly (5 of 160 networks are beyond).
    """
    module, x = drawn(activation, depth=depth)
    module = shifted(module)
    found = spectrum(module, x).spectrum
    within = 3 * found.relative_error
    assert math.fsum(found.by_network[0]) == pytest.approx(log_determinant(module, x), rel=0, abs=within)
    assert found.relative_error < 1e-8


@pytest.mark.parametrize("depth", [4, 5])
def test_both_routes_agree(depth, monkeypatch):
    """With leaks apart and layers in pairs, and layer by layer on all of 1^⊥: within the error of the second."""
    module, x = drawn(depth=depth)
    apart = spectrum(module, x).spectrum
    monkeypatch.setattr(batch_leaks, "leaks", lambda *_, **__: None)
    whole = spectrum(module, x).spectrum
    difference = np.abs(apart.by_network - whole.by_network).max()
    assert 0.0 < difference < whole.relative_error
    assert apart.relative_error < whole.relative_error


def test_pairs_that_amplify_too_much_are_pushed_one_by_one(monkeypatch):
    """A limit that no pair meets gives the same values; a pair refused is two pushes."""
    module, x = drawn(depth=5)
    expected = spectrum(module, x).spectrum.by_network
    limits, push = [], batch_jacobian.products.push
    monkeypatch.setattr(batch_jacobian.products, "push", lambda *a, **k: limits.append(k.get("limit")) or push(*a, **k))
    monkeypatch.setattr(batch_jacobian, "_PAIR", -1.0)
    np.testing.assert_allclose(spectrum(module, x).spectrum.by_network, expected, rtol=0, atol=1e-10)
    assert [limit for limit in limits if limit is not None] == [-1.0, -1.0]
    assert limits[-7:] == [-1.0, None, None, -1.0, None, None, None]


@pytest.mark.parametrize(("module", "x"), [
    drawn(eps=0.1),
    drawn("relu"),
    (drawn(in_features=4)[0], inputs(BATCH, 4)),
    (network(activation="tanh", norm="none", width=WIDTH), inputs(BATCH, WIDTH)),
])  # fmt: skip
def test_no_leaks_without_gap_or_inverse(module, x):
    """ε of the size of v, dead units, layers that widen, no normalisation: None, and all values as before."""
    with chained(module, x, centred=True) as links, torch.no_grad():
        assert batch_leaks.leaks(links, like=x) is None
        expected = torch.linalg.svdvals(batch_jacobian.assembled(links, x)).numpy()
    values = np.exp(spectrum(module, x).spectrum.by_network[0][: expected.size])
    np.testing.assert_allclose(values, expected, rtol=1e-9, atol=1e-14)


def test_two_passes_give_what_three_do(monkeypatch):
    """Leaks e^-24 apart or more are found in two passes; values agree with those of three within what both state."""
    module, x = drawn(depth=6)
    two = spectrum(module, x).spectrum
    monkeypatch.setattr(batch_leaks, "_FAR", math.inf)
    three = spectrum(module, x).spectrum
    assert not np.array_equal(two.by_network, three.by_network)
    error = np.abs(two.by_network - three.by_network).max()
    assert error <= two.relative_error + three.relative_error < 1e-8
