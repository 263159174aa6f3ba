"""`rmtbn moments`: its cells, its predictions, its claims both ways, its page."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rmtbn.analyses import _moments_page, moments
from rmtbn.analyses._moments_records import QUANTITIES, Kind, Moments, deviations
from rmtbn.analyses._options import Common

from rmtbn.report.page import Claim
from rmtbn.sweep.grid import Cell
from rmtbn.sweep.run import run
from rmtbn.sweep.store import MemoryStore
from rmtbn.theory import bn_mean_field, mean_field
from rmtbn.theory.residual_moments import residual_moments

RELU = Kind(block="plain", activation="relu", norm="none", sigma_w2=2.0, sigma_b2=0.0)
TANH = Kind(block="plain", activation="tanh", norm="none", sigma_w2=1.76, sigma_b2=0.05)
WIDTHS = (16, 32, 64)
SIZES = {"depth": 6, "networks": 6, "device": "cpu", "dtype": "float64"}


@pytest.fixture(scope="module")
def measured():
    """Two plain kinds and the five others, at three widths."""
    cells = [
        Cell(parameters={**kind.parameters(), **SIZES, "width": width}, seed=1)
        for kind in (RELU, TANH, *moments.OTHERS)
        for width in WIDTHS
    ]
    records = run(moments.STUDY, cells, store=MemoryStore(), progress=False)
    return Moments(records, start=moments.START, batch=2 * moments.PAIRS)


def from_theory(measured, *, shift=0.0, networks=60):
    """Records in which the networks scatter about theory, lengths to first order in 1/width, plus a shift per layer."""
    draws, rows = np.random.default_rng(1), []
    for kind in measured.kinds:
        for width in measured.widths:
            profiles = {column: measured.prediction(kind, column).value for column in QUANTITIES}
            if kind in measured.plain_kinds:
                for column in ("log_q", "correlation"):
                    profiles[column] = profiles[column] + measured.first_order(kind, column, width=width)
            layers = np.arange(1, measured.depth + 1)
            noise = draws.standard_normal((networks, 1)) * 0.02 / width
            columns = {name: (value + noise + shift * layers).ravel() for name, value in profiles.items()}
            place = {"network": np.repeat(np.arange(networks), len(layers)), "layer": np.tile(layers, networks)}
            rows.append(pd.DataFrame({**kind.parameters(), "width": width, "seed": 1, **place, **columns}))
    found = Moments.__new__(Moments)
    found.__dict__.update(measured.__dict__)
    found.rows = pd.concat(rows, ignore_index=True)
    return found


def test_a_cell_is_a_function_of_its_parameters_alone():
    """The same twice; one row per network and layer."""
    arguments = {**RELU.parameters(), **SIZES, "width": 8}
    first, second = (moments.cell(seed=1, **arguments) for _ in range(2))
    pd.testing.assert_frame_equal(first["layers"], second["layers"], check_exact=True)
    assert len(first["layers"]) == SIZES["networks"] * SIZES["depth"]


def test_presets_have_the_kinds_they_say():
    """Six activations at three points, and five others; the quick preset one point each."""
    assert len(moments.kinds("default")) == 6 * 3 + 5
    assert len(moments.kinds("quick")) == 6 + 5
    options = Common(seed=2, device="cpu", dtype="float64", out=Path("reports"), preset="quick", engine="inline",
                     workers=None, as_json=True)  # fmt: skip
    cells = moments.cells(options, (TANH,))
    assert {(cell.seed, cell.parameters["width"]) for cell in cells} == {(2, 16), (2, 32)}


def test_predictions_without_norm_are_the_recursions(measured):
    """log q, c and Σ ln χ₁ from the end; the gradient at the last layer is its own unit."""
    found = {column: measured.prediction(TANH, column).value for column in QUANTITIES}
    q = mean_field.lengths(1.0, "tanh", depth=6, **TANH.sigmas())
    chi = mean_field.chi1(q, "tanh", sigma_w=TANH.sigmas()["sigma_w"])
    np.testing.assert_allclose(found["log_q"], np.log(q), rtol=1e-12)
    np.testing.assert_allclose(
        found["correlation"], mean_field.correlations(0.6, "tanh", q0=1.0, depth=6, **TANH.sigmas())
    )
    assert found["log_gradient"][-1] == 0
    np.testing.assert_allclose(-np.diff(found["log_gradient"]), np.log(chi[:-1]), rtol=1e-10)


def test_predictions_with_norm_and_with_blocks(measured):
    """BN: c* and λ_G per layer, the first by the spread of its inputs; residual: the moments of residual networks."""
    normed, _, plain_blocks, scaled_blocks, normed_blocks = moments.OTHERS
    point = bn_mean_field.fixed_point("relu", batch_size=16)
    np.testing.assert_allclose(measured.prediction(normed, "correlation").value, [0.0, *[point.c] * 5])
    steps = -np.diff(measured.prediction(normed, "log_gradient").value)
    np.testing.assert_allclose(steps[1:], math.log(point.explosion_rate))
    assert steps[0] == pytest.approx(math.log(point.explosion_rate * 0.5 * (1 - point.c)))
    expected = residual_moments("relu", depth=6, sigma_w=2**0.5, c0=0.6)
    np.testing.assert_allclose(measured.prediction(plain_blocks, "log_q").value, expected.log_q[1:])
    growth = np.log1p(1 / 6) * np.arange(1, 7)
    np.testing.assert_allclose(measured.prediction(scaled_blocks, "log_q").value, growth, rtol=1e-10)
    np.testing.assert_allclose(np.exp(measured.prediction(normed_blocks, "log_q").value), 1 + np.arange(1, 7))


def test_real_networks_are_near_their_predictions(measured):
    """At width 64 and 6 layers every kind is within 0.5 in ln q and ln ‖g‖², 0.15 in c."""
    for kind in measured.kinds:
        for column, most in (("log_q", 0.5), ("correlation", 0.15), ("log_gradient", 0.6)):
            found, predicted = measured.profile(kind, column, width=64), measured.prediction(kind, column)
            assert np.abs(found.value - predicted.value).max() < most + 4 * found.se.max(), (kind, column)


@pytest.mark.parametrize(("shift", "verdict"), [(0.0, "supported"), (1.0, "contradicted")])
def test_claims_can_come_out_either_way(measured, shift, verdict):
    """Records made from theory support every claim; the same drifting by 1 per layer contradict those on profiles."""
    page = _moments_page.page(from_theory(measured, shift=shift), manifest={"finished": "now"})
    claims = [block for section in page.sections for block in section.blocks if isinstance(block, Claim)]
    assert [claim.verdict for claim in claims[:3]] == [verdict] * 3
    assert len(claims) == 4
    assert claims[3].verdict == verdict


def test_deviations_are_listed_per_kind_and_width(measured):
    """From records made from theory the deviation is the first order."""
    records = from_theory(measured)
    for column in ("log_q", "correlation"):
        found = deviations(records, column)
        assert {(row.kind, row.width) for row in found} == {(kind, width) for kind in (RELU, TANH) for width in WIDTHS}
        for row in found:
            assert row.measured == pytest.approx(row.predicted, abs=5 * row.se)
    (tanh,) = [row for row in found if (row.kind, row.width) == (TANH, 16)]
    assert abs(tanh.predicted) > 1e-3


def test_numbers_have_every_kind_and_quantity(measured):
    """Predicted profile and measured ones by width."""
    found = _moments_page.numbers(measured)
    assert len(found) == 7
    one = found[_moments_page.title(TANH)]["log_q"]
    assert set(one) == {"predicted", "16", "32", "64"}
    assert len(one["16"]["measured"]) == 6
