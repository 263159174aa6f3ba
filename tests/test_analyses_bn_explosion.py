"""`rmtbn bn-explosion`: its cells, its predictions, its claims both ways, its page."""

import functools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rmtbn.analyses import _bn_explosion_page, bn_explosion
from rmtbn.analyses._bn_explosion_claims import claims
from rmtbn.analyses._bn_explosion_records import (
    Explosions,
    Kind,
    crossing,
    depth_grown,
    first_unstable,
    is_stable,
    local_rates,
    log_gradients,
    power,
    rate,
)
from rmtbn.analyses._options import Common

from rmtbn.measure.explosion import Explosion
from rmtbn.report.page import Claim, Figure, Table
from rmtbn.result import DepthProfile
from rmtbn.sweep.grid import Cell
from rmtbn.sweep.run import run
from rmtbn.sweep.store import MemoryStore
from rmtbn.theory import bn_mean_field
from rmtbn.theory.residual_moments import batch_norm_residual_moments

RELU = Kind(part="rates", block="plain", activation="relu", norm="batch", batch=8, width=12, depth=6)
PLACE = {"networks": 3, "device": "cpu", "dtype": "float64"}


@pytest.fixture(scope="module")
def measured():
    """Three activations at two batches, with norm and without, deep networks and all four with and without skips."""
    rates = [replace(RELU, activation=a, batch=b) for a in ("linear", "relu", "gelu") for b in (8, 12)]
    rates += [replace(RELU, activation=a, norm="none") for a in ("linear", "relu", "gelu")]
    deep = [replace(RELU, part="deep", activation=a, norm=n, batch=48, depth=12) for a, n in bn_explosion.DEEP]
    skips = [replace(RELU, part="skips", block=b, norm=n, depth=8) for b, n in bn_explosion.SKIPS]
    widths = [replace(RELU, part="widths", width=w) for w in (12, 16)]
    cells = [Cell(parameters={**kind.parameters(), **PLACE}, seed=1) for kind in (*rates, *deep, *skips, *widths)]
    return Explosions(run(bn_explosion.STUDY, cells, store=MemoryStore(), progress=False))


def from_theory(measured, *, tilt=0.0, swap=False, leave=0.05):
    """Networks that grow as theory says, each step times exp(tilt); unstable ones by `leave` more (or none)."""
    draws, found = np.random.default_rng(1), Explosions.__new__(Explosions)
    found.found = {}
    for kind in (*measured.found, replace(RELU, batch=2048)):
        wide = replace(kind, width=4096)
        profile = log_gradients(replace(kind, norm={"none": "batch", "batch": "none"}[kind.norm]) if swap else kind)
        steps = np.arange(kind.depth - 1.0, -1, -1)
        extra = tilt + (leave if kind.part == "deep" and not is_stable(kind) else 0.0)
        noise = np.cumsum(draws.normal(0, 2e-4, (6, kind.depth)), axis=1)
        gradients = profile + extra * steps + noise
        layers = tuple(map(str, range(1, kind.depth + 1)))
        jacobians = gradients[:, ::-1] + noise
        found.found[wide] = Explosion(
            layers=layers, log_gradient=gradients, log_jacobian=jacobians, edge=max(1, kind.depth // 5)
        )
    return found


def test_a_cell_is_a_function_of_its_parameters_alone():
    """The same twice; one row per network and layer, a residual block being one."""
    for kind in (RELU, replace(RELU, block="residual", norm="none")):
        first, second = (bn_explosion.cell(seed=1, **kind.parameters(), **PLACE) for _ in range(2))
        pd.testing.assert_frame_equal(first["layers"], second["layers"], check_exact=True)
        assert len(first["layers"]) == 3 * kind.depth
        other = bn_explosion.cell(seed=2, **kind.parameters(), **PLACE)["layers"]
        assert not np.isclose(other.log_jacobian, first["layers"].log_jacobian).any()


def test_few_networks_are_in_flight_at_once(monkeypatch):
    """Room for two of three networks: the same signals, so that the first two are the same and the third has a rate."""
    cell = functools.partial(bn_explosion.cell, seed=1, **RELU.parameters(), **PLACE)
    whole = cell()["layers"]
    monkeypatch.setattr(bn_explosion, "IN_FLIGHT", 2 * 8 * RELU.depth * RELU.width**2)
    sizes, measure = [], bn_explosion.explosion
    monkeypatch.setattr(
        bn_explosion, "explosion", lambda modules, *a, **k: sizes.append(len(modules)) or measure(modules, *a, **k)
    )
    parts = cell()["layers"]
    assert sizes == [2, 1]
    same = whole.network < 2
    pd.testing.assert_frame_equal(whole[same], parts[same], rtol=1e-9)
    assert np.isfinite(parts.log_gradient).all()


def test_presets_have_the_batches_they_say():
    """B = 4 … 512 by default, all six activations with and without norm; more networks of smaller batches."""
    options = Common(seed=2, device="cpu", dtype="float64", out=Path("reports"), preset="default", engine="inline",
                     workers=None, as_json=True)  # fmt: skip
    cells = bn_explosion.cells(options, bn_explosion.kinds("default"))
    rates = [cell.parameters for cell in cells if cell.parameters["part"] == "rates"]
    assert {p["batch"] for p in rates if p["norm"] == "batch"} == {4, 8, 16, 32, 64, 128, 256, 512}
    assert {(p["activation"], p["norm"]) for p in rates} == {
        (a, n) for a in bn_explosion.ACTIVATIONS for n in ("batch", "none")
    }
    assert {p["batch"]: p["networks"] for p in rates}[4] == 24
    assert {p["batch"]: p["networks"] for p in rates}[512] == 6
    one = bn_explosion.kinds("default", activation="tanh", batch_size=64)
    assert [(k.activation, k.norm, k.batch) for k in one] == [("tanh", "batch", 64), ("tanh", "none", 16)]


def test_predictions_are_those_of_the_mean_field():
    """λ_G per layer but the first, 1 for critical networks, 2 per He block, the product of normed residual blocks."""
    lam = bn_mean_field.fixed_point("relu", batch_size=8).explosion_rate
    assert (rate(RELU), rate(replace(RELU, norm="none"))) == (lam, 1.0)
    np.testing.assert_allclose(np.exp(log_gradients(RELU))[1:], lam ** np.arange(4, -1, -1))
    point = bn_mean_field.fixed_point("relu", batch_size=8)  # the first layer meets inputs of spread 1
    assert np.exp(log_gradients(RELU))[0] == pytest.approx(lam**5 * point.q * (1 - point.c))
    np.testing.assert_allclose(
        np.exp(log_gradients(replace(RELU, block="residual", norm="none"))), 2.0 ** np.arange(5, -1, -1)
    )
    residual = replace(RELU, block="residual", depth=20)
    theory = batch_norm_residual_moments("relu", depth=20, batch_size=8, sigma_w=2**0.5).log_gradient
    np.testing.assert_allclose(log_gradients(residual), theory[1:])
    layers = tuple(map(str, range(1, 21)))
    found = Explosion(layers=layers, log_gradient=theory[None, 1:], log_jacobian=theory[None, 1:], edge=4)
    assert power(residual, found) == pytest.approx(found.gradient_power().value)


def test_depth_of_a_thousandfold_gradient():
    """λ^{L/2} = 10³: 36 layers of ReLU for B → ∞; never at 1; in a profile the first layer back where it is passed."""
    assert depth_grown(math.pi / (math.pi - 1)) == pytest.approx(36.05, abs=0.01)
    assert depth_grown(1.0) == math.inf
    growth = math.log(1e6) / 7.5  # passed between 7 and 8 layers back
    profile = DepthProfile(depth=np.arange(1.0, 12), value=growth * np.arange(10, -1, -1), se=np.zeros(11), symbol="",
                           label="", is_log=True)  # fmt: skip
    assert crossing(profile) == 8
    assert crossing(replace(profile, value=profile.value / 10)) is None


def test_unstable_batches_are_found():
    """GELU from B = 39, SiLU from 26, the others never."""
    assert [first_unstable(a) for a in ("gelu", "silu", "relu", "tanh")] == [39, 26, None, None]


def test_local_rates_are_means_over_groups_of_layers():
    """Ratios after the first, in groups: 2 and 3 of growth 4, then 1."""
    logs = -np.log([[1.0, 9.0, 36.0, 144.0, 144.0, 144.0]])
    layers = tuple("123456")
    found = Explosion(layers=layers, log_gradient=np.repeat(logs, 2, axis=0), log_jacobian=logs, edge=1)
    middle, value, error = local_rates(found, bin_size=2)
    assert middle.tolist() == [3.0, 5.0]
    np.testing.assert_allclose(value, [4.0, 1.0])
    np.testing.assert_allclose(error, 0.0, atol=1e-12)


def verdicts(records):
    return [claim.verdict for claim in claims(records)]


def test_claims_can_come_out_either_way(measured):
    """Growth as predicted supports every claim; a fifth more per layer contradicts the rates and the powers, norm and
    none exchanged all but the equality of gradients and ‖J‖²; unstable networks that stay leave theirs open."""
    right = verdicts(from_theory(measured))
    assert right == ["supported"] * 8
    tilted = verdicts(from_theory(measured, tilt=0.2))
    assert [tilted[i] for i in (0, 3, 4, 5, 7)] == ["contradicted"] * 5
    swapped = verdicts(from_theory(measured, swap=True))
    assert [swapped[i] for i in (0, 2, 3, 4, 5, 6)] == ["contradicted"] * 6
    assert verdicts(from_theory(measured, leave=0.0))[7] == "inconclusive"


def test_gradients_apart_from_the_jacobian_contradict_their_claim(measured):
    """‖J‖² that grows a tenth faster."""
    records = from_theory(measured)
    for kind, found in records.found.items():
        jacobians = found.log_jacobian + 0.1 * np.arange(kind.depth)
        records.found[kind] = replace(found, log_jacobian=jacobians)
    assert verdicts(records)[1] == "contradicted"


def test_page_has_every_part(measured):
    """Sections, five figures that can be drawn, the table of depths, and the marks of what is not to be trusted."""
    page = _bn_explosion_page.page(measured, manifest={"finished": "now"})
    blocks = [block for section in page.sections for block in section.blocks]
    assert sum(isinstance(block, Figure) for block in blocks) == 5
    (cost,) = [b for b in blocks if isinstance(b, Table) and "10³" in b.caption]
    assert cost.columns[5] == "B → ∞"
    assert {row[0]: row[5] for row in cost.rows} == {"linear": "never", "ReLU": "36", "GELU": "50"}
    assert sum(isinstance(block, Claim) for block in blocks) == 8
    assert "ReLU" in page.summary


def test_one_kind_alone_has_a_page_too(measured):
    """Only rates of one activation: no section on depth or skips."""
    records = Explosions.__new__(Explosions)
    records.found = {k: v for k, v in measured.found.items() if k.part == "rates" and k.activation == "linear"}
    page = _bn_explosion_page.page(records, manifest={"finished": "now"})
    titles = [section.title for section in page.sections]
    assert titles[:2] == ["What is measured", "The rate against the batch"]
    assert "With and without skip connections" not in titles


def test_numbers_have_every_kind(measured):
    """Measured and predicted rates with their errors."""
    found = _bn_explosion_page.numbers(measured)
    assert {part: len(rows) for part, rows in found.items()} == {"rates": 9, "deep": 5, "skips": 4, "widths": 2}
    one = found["rates"][2]
    assert (one["activation"], one["batch"], one["networks"]) == ("relu", 8, 3)
    assert one["predicted_rate"] == pytest.approx(1.78819, abs=1e-5)
    assert one["gradient_rate_se"] > 0
