"""`rmtbn shattering`: its cells, its statistics, its claims both ways, its page."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from paper_records import changed, few, options
from rmtbn.analyses import _shattering_claims, shattering
from rmtbn.analyses._shattering_records import KINDS, Gradients

from rmtbn.measure.shattering import pair_correlation
from rmtbn.report.render import render
from rmtbn.theory.shattering import balduzzi_correlation, batch_gradient_correlation, gradient_correlation

TINY = {"depth": 2, "width": 32, "examples": 16, "points": 48, "device": "cpu", "dtype": "float64"}
# Claims in their order, and the number that decides each.
PLAIN, PLAIN_BATCH, RESIDUAL, RESIDUAL_BATCH, LAW, WHITE, WHITE_BATCH, FAR, LINEAR = range(9)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Every kind at depths 1, 2 and 5, four networks of width 64 each."""
    return shattering.ANALYSIS.measure(options(tmp_path_factory.mktemp("reports")))


def told(records, correlation, *, near=None, noise=0.001):
    """Records of these correlations, `correlation(kind, depth)`, and at one lag of these autocorrelations by kind."""
    draws = np.random.default_rng(1)

    def change(name, parameters, seed, frame):
        kind, depth = parameters["kind"], parameters["depth"]
        if name == "pairs":
            return frame.assign(own=1.0, cross=correlation(kind, depth) * (1 + noise * (seed - 2.5)))
        if near is None or kind not in near:
            return frame
        return frame.assign(gradient=_curve(len(frame), near[kind](depth), draws))

    return changed(records, change)


def _curve(points, rough, draws):
    """White noise if rough, else a smooth wave."""
    return draws.standard_normal(points) if rough else np.sin(np.linspace(0, 3 * math.pi, points))


def formula(kind, depth):
    return 1.0 if kind == "looks_linear" else balduzzi_correlation(kind, depth=depth)


def law(kind, depth):
    if kind == "looks_linear":
        return 1.0
    return (
        batch_gradient_correlation(kind, depth=depth, batch_size=32)
        if kind.endswith("batch")
        else gradient_correlation(kind, depth=depth)
    )


def verdicts(records):
    return [claim.verdict for claim in _shattering_claims.claims(Gradients(records))]


def test_a_cell_is_a_function_of_its_parameters_alone():
    """The same twice, and other draws for another seed; own > 0 and |cross| <= own."""
    first, second = (shattering.cell(seed=1, kind="plain", **TINY) for _ in range(2))
    for name in first:
        pd.testing.assert_frame_equal(first[name], second[name], check_exact=True)
    other = shattering.cell(seed=2, kind="plain", **TINY)
    assert other["pairs"].own[0] != first["pairs"].own[0]
    assert first["pairs"].own[0] > abs(first["pairs"].cross[0]) > 0


@pytest.mark.parametrize("kind", KINDS)
def test_cells_hold_sums_over_all_pairs_of_inputs(kind):
    """own = Σ‖g_i‖²/B and cross = Σ_{i≠j}⟨g_i, g_j⟩/(B(B-1)), term by term, gradients by finite differences."""
    sizes = {"depth": 2, "width": 32}
    found = shattering.cell(seed=3, kind=kind, **TINY)["pairs"].iloc[0]
    net = shattering.network(seed=3, kind=kind, **sizes).double()
    x = shattering.orthogonal_inputs(3, width=32, examples=16)
    np.testing.assert_allclose(x @ x.T, 32 * np.eye(16), atol=1e-12)
    shattering._gradients(net, x)  # sets the statistics that are held
    gradients = torch.autograd.functional.jacobian(lambda inputs: net(inputs).sum(0), x)[0].numpy()
    step = 1e-6 * torch.eye(32, dtype=torch.float64)[5]
    with torch.no_grad():
        np.testing.assert_allclose(gradients[:, 5], (net(x + step) - net(x - step))[:, 0] / 2e-6, atol=1e-5)
    pairs = [gradients[i] @ gradients[j] for i in range(16) for j in range(16) if i != j]
    assert found.own == pytest.approx((gradients**2).sum(1).mean())
    assert found.cross == pytest.approx(np.mean(pairs), rel=1e-9, abs=1e-12)


def test_curves_are_slopes_along_the_line():
    """∂f/∂t at u + t v by finite differences, t from -2 to 2."""
    found = shattering.cell(seed=1, kind="residual", **TINY)["curve"]
    assert (found.t.min(), found.t.max(), len(found)) == (-2.0, 2.0, 48)
    net = shattering.network(seed=1, kind="residual", depth=2, width=32).double()
    u, v = shattering.orthogonal_inputs(1, width=32, examples=16)[:2]
    at = torch.tensor(found.t.tolist(), dtype=torch.float64)[:, None]
    with torch.no_grad():
        slopes = (net(u + (at + 1e-7) * v) - net(u + (at - 1e-7) * v))[:, 0] / 2e-7
    np.testing.assert_allclose(found.gradient, slopes, rtol=1e-5, atol=1e-5)


def test_correlations_are_those_of_pairs_with_the_error_of_the_jackknife(records):
    """Σ cross/Σ own: with one pair per network, that is `pair_correlation` of gradients of equal lengths."""
    draws = np.random.default_rng(2)
    one = draws.standard_normal((4, 3))
    other = one + 0.5 * draws.standard_normal((4, 3))
    one, other = (g / np.linalg.norm(g, axis=1, keepdims=True) for g in (one, other))
    cosines = (one * other).sum(1)
    found = Gradients(changed(records, lambda name, _p, seed, frame: frame.assign(own=1.0, cross=cosines[seed - 1])
                              if name == "pairs" else frame)).correlation("plain", 5)  # fmt: skip
    expected = pair_correlation(one, other)
    assert (found.value, found.se) == (pytest.approx(expected.value), pytest.approx(expected.se))
    assert found.networks == 4


def test_claims_hold_for_the_formulae_of_the_paper(records):
    """Correlations as the formulae say, waves for shallow or residual networks and white noise for deep plain ones."""
    near = {kind: lambda depth: depth > 1 for kind in ("plain", "plain_batch")} | {"residual_batch": lambda _d: False}
    found = verdicts(told(records, formula, near=near))
    assert [found[i] for i in (PLAIN, PLAIN_BATCH, RESIDUAL, RESIDUAL_BATCH)] == ["supported"] * 4
    assert found[LAW] == "contradicted"
    assert [found[i] for i in (WHITE, WHITE_BATCH, FAR, LINEAR)] == ["supported"] * 4


def test_claims_fall_for_the_law_and_for_rough_gradients(records):
    """The law of wide networks contradicts three formulae; noise where waves should be contradicts the figure."""
    near = {kind: lambda depth: depth == 1 for kind in ("plain", "plain_batch")} | {"residual_batch": lambda _d: True}
    found = verdicts(told(records, lambda kind, depth: law(kind, depth) if kind != "looks_linear" else 0.9, near=near))
    assert found[PLAIN] == "contradicted"
    assert found[RESIDUAL] == "contradicted"
    assert found[PLAIN_BATCH] == "supported"
    assert found[LAW] == "supported"
    assert [found[i] for i in (WHITE, WHITE_BATCH, FAR, LINEAR)] == ["contradicted"] * 4
    off = told(records, lambda kind, depth: 0.5 * formula(kind, depth))
    assert [verdicts(off)[i] for i in (PLAIN_BATCH, RESIDUAL_BATCH)] == ["contradicted"] * 2


def test_one_network_or_much_noise_decides_nothing(records):
    """Too few networks, or an error larger than the distance from the bound."""
    assert set(verdicts(few(told(records, formula)))) == {"inconclusive"}
    assert verdicts(told(records, formula, noise=0.5))[:4] == ["inconclusive"] * 4


def test_formulae_are_judged_where_enough_is_left_of_them(records):
    """The largest depth with more than 0.02: 2^-5 = .031, but 2^-6 = .016."""
    found = Gradients(records)
    assert _shattering_claims.judged_depth(found, "plain") == 5
    found.depths = (1, 5, 6, 50)
    assert [_shattering_claims.judged_depth(found, kind) for kind in ("plain", "residual_batch")] == [5, 50]


def test_networks_with_batch_norm_and_looks_linear_ones_are_what_they_are_called(records):
    """Along the line: looks-linear networks have one gradient, so 1 - k/points, uncentred."""
    found = Gradients(records).along("looks_linear", 5)
    np.testing.assert_allclose(found.value, 1 - found.lags / 128, atol=1e-6)
    norms = [m for m in shattering.network(seed=1, kind="residual_batch", depth=3, width=8).modules()
             if isinstance(m, torch.nn.BatchNorm1d)]  # fmt: skip
    assert len(norms) == 3


def test_the_page_shows_every_kind_and_the_claims(records):
    """Nine claims; none is one of the 31 of Bjorck et al."""
    html = render(shattering.ANALYSIS.page(records))
    for text in ("looks-linear", "Theorem 1", "Theorem 2", "Theorem 3", "white noise"):
        assert text in html
    assert shattering.ANALYSIS.claims(records) == {}
    numbers = shattering.ANALYSIS.numbers(records)
    assert set(numbers) == set(KINDS)
    assert numbers["plain"]["5"]["formula"] == 2**-5
