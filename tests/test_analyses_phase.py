"""`rmtbn phase`: its cells, its fits, its map of trainability, its claims both ways, its page."""

import functools
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rmtbn.analyses import _phase_page, phase
from rmtbn.analyses._options import Common
from rmtbn.analyses._phase_records import Phase, Rate

from rmtbn.report.page import Claim
from rmtbn.sweep.grid import Cell
from rmtbn.sweep.run import run
from rmtbn.sweep.store import MemoryStore
from rmtbn.theory import mean_field

PLACE = {"activation": "tanh", "device": "cpu", "dtype": "float64"}
POINT = {**PLACE, "width": 48, "networks": 6, "layers": 10}
TRAINED = {**PLACE, "weights": 4, "units": 16, "steps": 5}


@pytest.fixture(scope="module")
def measured():
    """Two points of the plane and two depths, small."""
    points = [Cell(parameters={**POINT, "sigma_w2": w, "sigma_b2": 0.2}, seed=1) for w in (1.0, 4.0)]
    depths = [Cell(parameters={**TRAINED, "depth": depth}, seed=seed) for depth in (2, 4) for seed in (1, 2)]
    return Phase(
        run(phase.CORRELATIONS, points, store=MemoryStore(), progress=False),
        run(phase.TRAINING, depths, store=MemoryStore(), progress=False),
    )


def with_accuracies(measured, accuracy):
    """The same with accuracies that a function of depth and σ_w² gives."""
    depths, weights = (4, 8, 16, 32, 64, 128), np.linspace(1.0, 4.0, 13)
    found = Phase.__new__(Phase)
    found.__dict__.update(measured.__dict__)
    found.training = pd.DataFrame(
        [(seed, depth, weight, accuracy(depth, weight)) for seed in (1, 2) for depth in depths for weight in weights],
        columns=["seed", "depth", "sigma_w2", "accuracy"],
    )
    return found


def with_theory(measured, *, rate=1.0):
    """The same with correlations that settle at `rate` times the rate of the recursion, with a little noise."""
    draws, rows = np.random.default_rng(1), []
    for weight in (0.5, 1.0, 4.0):
        sigmas = {"sigma_w": weight**0.5, "sigma_b": 0.2**0.5}
        point = mean_field.fixed_point("tanh", **sigmas)
        layers = np.arange(1, 11)
        gap = (0.4 - (1 - point.c)) * np.exp(rate * np.log(point.chi_c) * layers)
        for network in range(20):
            noise = 1 + 0.002 * draws.standard_normal(10)
            rows.append(pd.DataFrame({"sigma_w2": weight, "sigma_b2": 0.2, "seed": 1, "network": network,
                                      "layer": layers, "decorrelation": 1 - point.c + gap * noise}))  # fmt: skip
    found = Phase.__new__(Phase)
    found.__dict__.update(measured.__dict__)
    found.correlations, found.width = pd.concat(rows, ignore_index=True), 10**6
    return found


def claims(measured):
    page = _phase_page.page(measured, manifest={"finished": "now"})
    return [block for section in page.sections for block in section.blocks if isinstance(block, Claim)]


def test_cells_are_functions_of_their_parameters_alone():
    """The same twice; a row per network and layer, and per σ_w²."""
    for compute, arguments, name, rows in (
        (phase.correlation_cell, {**POINT, "sigma_w2": 1.5, "sigma_b2": 0.05}, "correlations", 60),
        (phase.training_cell, {**TRAINED, "depth": 2}, "accuracies", 4),
    ):
        first, second = (compute(seed=1, **arguments)[name] for _ in range(2))
        pd.testing.assert_frame_equal(first, second, check_exact=True)
        assert len(first) == rows


def test_presets_have_the_cells_they_say():
    """Points of the plane once, depths once per seed."""
    options = Common(seed=3, device="cpu", dtype="float64", out=Path("reports"), preset="default", engine="inline",
                     workers=None, as_json=True)  # fmt: skip
    weights, biases = phase.POINTS["default"]
    assert len(phase.correlation_cells(options, "tanh")) == len(weights) * len(biases)
    training = phase.training_cells(options, "tanh")
    assert len(training) == len(phase.DEPTHS["default"]) * 2
    assert {cell.seed for cell in training} == {3, 4}


def test_lengths_start_at_their_fixed_point(measured):
    """So that the decay is that of the correlation alone: the first layer has correlation c¹ = c⁰ + σ_b²(1 - c⁰)/q*."""
    rows = measured.correlations
    first = rows[(rows.sigma_w2 == 1.0) & (rows.layer == 1)].decorrelation.mean()
    q = mean_field.fixed_point("tanh", sigma_w=1.0, sigma_b=0.2**0.5).q
    assert first == pytest.approx((1 - phase.START) * (1 - 0.2 / q), rel=0.2)


def test_rates_of_ordered_networks_are_those_of_the_recursion(measured):
    """At (1, 0.2) the fitted decay is within 15 % of ln χ_c at width 48."""
    (found,) = [rate for rate in measured.rates() if rate.sigma_w2 == 1.0]
    assert found.measured == pytest.approx(found.predicted, rel=0.15)
    assert found.xi_c == pytest.approx(mean_field.fixed_point("tanh", sigma_w=1.0, sigma_b=0.2**0.5).xi_c)


def test_the_limit_is_six_depth_scales(measured):
    """6 ξ_c at σ_b² = 0.05, infinite on the critical line."""
    critical = mean_field.critical_point("tanh", sigma_b=0.05**0.5).sigma_w ** 2
    limit = measured.limit(np.array([1.0, critical]))
    assert limit[0] == pytest.approx(6 * mean_field.fixed_point("tanh", sigma_w=1.0, sigma_b=0.05**0.5).xi_c)
    assert limit[1] == math.inf


def test_agreement_of_a_map_that_obeys_the_line_is_whole(measured):
    """Trained exactly below the line: agreement 1, ROC area 1, better than any depth alone."""
    obeying = with_accuracies(measured, lambda depth, w: 0.9 if depth <= _limit(w) else 0.1)
    line, alone, area = obeying.agreement(1)
    assert (line, area) == (1.0, 1.0)
    assert alone < 0.95


@pytest.mark.parametrize(
    ("accuracy", "verdict"),
    [
        (lambda depth, w: 0.9 if depth <= _limit(w) else 0.1, "supported"),
        (lambda depth, w: 0.9 if depth > _limit(w) else 0.1, "contradicted"),
        (lambda depth, _: 0.9 if depth <= 20 else 0.1, "contradicted"),
    ],
)
def test_the_claim_on_training_can_come_out_either_way(measured, accuracy, verdict):
    """The line, its opposite, and depth alone."""
    assert claims(with_accuracies(measured, accuracy))[1].verdict == verdict


@functools.cache
def _limit(weight):
    return 6 * mean_field.fixed_point("tanh", sigma_w=weight**0.5, sigma_b=0.05**0.5).xi_c


@pytest.mark.parametrize(("rate", "verdict"), [(1.3, "contradicted")])
def test_the_claim_on_rates_can_be_contradicted(measured, rate, verdict):
    """Correlations that settle a third faster than the recursion."""
    assert claims(with_theory(measured, rate=rate))[0].verdict == verdict


def test_the_claim_on_rates_can_be_supported_and_left_open():
    """Three rates that agree and differ from each other; one alone decides nothing."""

    def rates(*values):
        return [Rate(sigma_w2=1.0, sigma_b2=0.1, xi_c=1.0, layers=9, measured=v, se=0.001, predicted=v) for v in values]

    assert _phase_page._rate_claim(rates(-0.1, -0.2, -0.3), width=100).verdict == "supported"
    assert _phase_page._rate_claim(rates(-0.1), width=100).verdict == "inconclusive"


def test_numbers_have_rates_accuracies_and_agreement(measured):
    """As the page shows them."""
    found = _phase_page.numbers(measured)
    assert set(found) == {"rates", "accuracy", "agreement"}
    assert set(found["accuracy"]) == {"2", "4"}
    assert set(found["agreement"]) == {"1", "2"}
