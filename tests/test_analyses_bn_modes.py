"""`rmtbn bn-modes`: its facts on a network, its gap by momentum and layer, its claims both ways, its page."""

import math

import numpy as np
import pandas as pd
import pytest
from paper_records import changed, few, options
from rmtbn.analyses import _bn_modes_claims, _bn_modes_facts, bn_modes
from rmtbn.analyses._bn_modes_records import MOMENTA, SEGMENT_EPOCHS, Modes

from rmtbn.report.render import render
from rmtbn.sweep.grid import Study
from rmtbn.sweep.run import run
from rmtbn.sweep.store import MemoryStore
from rmtbn.theory.running_average import relative_noise

TINY = {"batch": 8, "rate": 0.02, "epochs": 2, "depth": 8, "train": 32, "test": 32, "data": "digits", "device": "cpu",
        "dtype": "float32"}  # fmt: skip
LAW, LAG, GAP = range(8, 11)  # of the claims, after the eight facts


@pytest.fixture(scope="module")
def facts():
    """The facts of one small network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_bn_modes_facts, "EARLY", (1, 6))
        return bn_modes.cell(seed=1, part="facts", **TINY)["facts"]


@pytest.fixture(scope="module")
def gap():
    """The gap of one small network."""
    return bn_modes.cell(seed=1, part="gap", **TINY)


@pytest.fixture(scope="module")
def records(facts, tmp_path_factory):
    """Records of a quick run that say what should be: exact facts, noise by its law, small momenta that lag."""

    def compute(*, part, **parameters):
        return {"facts": told_facts(facts)} if part == "facts" else told_gap(**parameters)

    cells = bn_modes.cells(options(tmp_path_factory.mktemp("reports")), data="digits")
    return run(Study(name="bn-modes", version=1, compute=compute), cells, store=MemoryStore(), progress=False)


def told_facts(facts):
    return facts.assign(measured=facts.predicted.fillna(0.5))


def told_gap(*, seed, batch, train, **_):
    accuracy = [
        {"momentum": m, "batch_accuracy": 0.9, "running_accuracy": 0.9 - 1e-4 * seed, "batch_loss": 0.3,
         "running_loss": 0.3} for m in MOMENTA
    ]  # fmt: skip
    n = train // batch
    layers = [
        {"momentum": m, "layer": layer, "shift": 0.01 / m, "log_variance": 0.1, "spread": 1 / batch,
         "held_square": relative_noise(m, steps=SEGMENT_EPOCHS * n, batches_per_epoch=n) / batch * (1 + 1e-4 * seed)}
        for m in MOMENTA for layer in range(3)
    ]  # fmt: skip
    return {"accuracy": pd.DataFrame(accuracy), "layers": pd.DataFrame(layers)}


def with_column(records, table, **columns):
    """The records with columns of one table given by functions of the frame."""
    return changed(records, lambda name, *a: a[2].assign(**columns) if name == table else a[2])


def verdicts(records):
    return [claim.verdict for claim in _bn_modes_claims.claims(Modes(records))]


def test_every_exact_number_is_met(facts):
    """All that is predicted, in float32, to 1e-4; the eight facts are there, and those by hand are what they are."""
    exact = facts[facts.predicted.notna()]
    assert set(facts.fact) == set(range(1, 9))
    assert len(exact) >= 18
    np.testing.assert_allclose(exact.measured, exact.predicted, rtol=0, atol=1e-4)
    by_hand = {
        "variance stored over variance used": 32 / 31,  # 8 images of 2 × 2 pixels
        "weight of a new value, checkpoint": 0.19,
        "weight of 4 micro-batches": 1 - 0.9**4,
        "share of the statistics left by 10 probes": 0.9**10,
        "share of the first statistics left after 6 steps": 0.9**6,
    }
    found = facts.set_index("what").measured
    for what, value in by_hand.items():
        assert found[what] == pytest.approx(value, abs=1e-4)


def test_what_has_only_a_sign_differs(facts):
    """Accuracies and distances of a network that is spoilt: finite, and not all zero."""
    rest = facts[facts.predicted.isna()].measured
    assert np.isfinite(rest).all()
    assert (rest.abs() > 1e-3).sum() >= 5


def test_gaps_are_by_momentum_and_layer(gap):
    """Accuracies with batch statistics do not depend on the momentum; the share left decides the error of the mean."""
    accuracy, layers = gap["accuracy"], gap["layers"]
    assert tuple(accuracy.momentum) == MOMENTA
    assert accuracy.batch_accuracy.nunique() == 1
    assert layers.groupby("momentum").layer.nunique().eq(7).all()
    errors = layers[layers.layer == 0].set_index("momentum")["shift"]
    assert errors[0.01] > errors[0.1] > errors[0.3]


def test_running_means_at_held_weights_have_the_noise_of_their_law(gap):
    """First layer, 8 averages of 16 channels: their mean square is that of the law within half of it."""
    first = gap["layers"][gap["layers"].layer == 0].set_index("momentum")
    for momentum in (0.1, 0.3, 1.0):
        law = relative_noise(momentum, steps=8, batches_per_epoch=4) * first.spread[momentum]
        assert first.held_square[momentum] == pytest.approx(law, rel=0.5)


def test_claims_hold_for_what_should_be(records):
    """Eight facts, the law, the lag and no gap."""
    assert verdicts(records) == ["supported"] * 11


@pytest.mark.parametrize("fact", range(1, 9))
def test_each_fact_falls_with_one_of_its_numbers(records, fact):
    """The first exact number of a fact off by 1e-3, and nothing else."""

    def spoil(name, _parameters, _seed, frame):
        if name != "facts":
            return frame
        first = frame.index[(frame.fact == fact) & frame.predicted.notna()][0]
        return frame.assign(measured=frame.measured.where(frame.index != first, frame.predicted + 1e-3))

    found = verdicts(changed(records, spoil))
    assert [i for i, verdict in enumerate(found, start=1) if verdict == "contradicted"] == [fact]


def test_signs_can_fall_and_stay_open(records):
    """Numbers of which only the sign is known: below 0 contradicts; noise of either sign decides nothing."""
    below = with_column(records, "facts", measured=lambda f: f.predicted.fillna(-0.5))
    noise = changed(records, lambda *a: a[3].assign(measured=a[3].predicted.fillna((-1) ** a[2]))
                    if a[0] == "facts" else a[3])  # fmt: skip
    assert verdicts(below)[:8].count("contradicted") == 5
    assert verdicts(noise)[:8].count("inconclusive") == 5


def test_the_law_the_lag_and_the_gap_can_fall(records):
    """Twice the noise; small momenta that are best after training; a gap of five points."""
    double = with_column(records, "layers", held_square=lambda f: 2 * f.held_square)
    assert verdicts(double)[LAW] == "contradicted"
    best = with_column(records, "layers", shift=lambda f: f.momentum)
    assert verdicts(best)[LAG] == "contradicted"
    apart = with_column(records, "accuracy", running_accuracy=lambda f: f.running_accuracy - 0.05)
    assert verdicts(apart)[GAP] == "contradicted"


def test_one_network_decides_no_mean(records):
    """Too few networks for means; exact numbers need one."""
    found = verdicts(few(records))
    assert found[LAW:] == ["inconclusive"] * 3
    assert found[0] == found[1] == "supported"


def test_records_average_squares_over_layers(records):
    """Root mean squares, the share left and the two laws by hand."""
    found = Modes(with_column(records, "layers", shift=lambda f: f.layer * 1.0))
    assert found.error(8, 0.1, "shift").value == pytest.approx(math.sqrt(5 / 3))
    assert found.error(8, 0.1, "shift", layer=2).value == 2.0
    assert found.first_share(8, 0.1) == pytest.approx(0.9**16)
    assert found.law(16, 1.0) == pytest.approx(1 / 4)
    assert found.law(8, 0.1, dealt=False) == pytest.approx(math.sqrt(relative_noise(0.1, steps=16) / 8))


def test_the_page_shows_every_fact(records):
    """Each number with what it should be, the claims, and what the study is small in."""
    html = render(bn_modes.ANALYSIS.page(records))
    for text in ("fact 8 of 8", "weight of a new value, checkpointed", "ResNet-8", "64 images", "needs several GPUs"):
        assert text in html
    numbers = bn_modes.ANALYSIS.numbers(records)
    assert numbers["facts"]["4"]["weight of a new value, checkpoint"]["predicted"] == pytest.approx(0.19)
    assert set(numbers["gaps"]["8"]) == {str(momentum) for momentum in MOMENTA}
