"""`rmtbn noise-scale`: its cells, what is best, its claims both ways, its page."""

import math

import pandas as pd
import pytest
from paper_records import few, options
from rmtbn.analyses import _noise_scale_claims, noise_scale
from rmtbn.analyses._held_out import batched, divided
from rmtbn.analyses._image_networks import network
from rmtbn.analyses._noise_scale_records import Runs

from rmtbn._checks import InvalidArgumentError
from rmtbn.report.render import render
from rmtbn.sweep.grid import Study
from rmtbn.sweep.run import run
from rmtbn.sweep.store import MemoryStore
from rmtbn.train.loop import train
from rmtbn.train.recipe import Recipe

PLACE = {"data": "digits", "device": "cpu", "dtype": "float32"}
TINY = {"batch": 8, "epochs": 1, "depth": 8, "train": 24, "test": 32, "augment": False, **PLACE}
# Claims in their order.
NONE, BATCH, NONE_RISING, BATCH_RISING, GAP, RATES, SLOPES = range(7)


def told(tmp_path, accuracy, *, diverged=lambda **_: False):
    """Records of a quick run in which accuracies are these, up to little that differs by network and batch."""

    def compute(*, seed, kind, rate, batch, **_):
        at = {"kind": kind, "batch": batch, "rate": rate}
        value = accuracy(**at) + 1e-3 * (batch == 8) + 1e-6 * seed
        row = {"diverged": diverged(**at), "train_loss": 0.1, "train_accuracy": 1.0, "stored": value}
        return {"runs": pd.DataFrame([{**row, "accuracy": value}])}

    cells = noise_scale.cells(options(tmp_path), data="digits")
    return run(Study(name="noise-scale", version=1, compute=compute), cells, store=MemoryStore(), progress=False)


def by_scale(rate, batch):
    """An accuracy that depends on α/|B| alone, best at 0.001."""
    return 0.95 - 0.02 * math.log(rate / batch / 0.001) ** 2


def by_rate(rate, batch):
    """An accuracy that depends on α alone, best at 0.008, and is worse at larger batch."""
    return 0.94 - 0.02 * math.log(rate / 0.008) ** 2 - 0.1 * (batch > 8)


def claimed(kind, batch, rate):
    """What the claims say."""
    return by_scale(rate, batch) if kind == "batch" else by_rate(rate, batch)


def reversed_(kind, batch, rate):
    """The opposite."""
    return claimed("none" if kind == "batch" else "batch", batch, rate)


def largest(rate, **_):
    return rate > 0.1


def without_the_largest(rate, batch, **_):
    """By scale, and useless at the largest rate."""
    return by_scale(rate, batch) - largest(rate)


def verdicts(records):
    return [claim.verdict for claim in _noise_scale_claims.claims(Runs(records))]


def test_a_cell_is_a_training_run_with_its_test():
    """The same twice; `stored` is the test accuracy that the loop itself finds, and without norm there is no other."""
    first, second = (noise_scale.cell(seed=1, kind="none", rate=0.05, **TINY)["runs"] for _ in range(2))
    pd.testing.assert_frame_equal(first, second, check_exact=True)
    seen, held_out = divided(seed=1, train=24, test=32, **PLACE)
    net = network(seed=1, kind="none", depth=8, like=seen)
    recipe = Recipe(rate=0.05, epochs=1, batch_size=8, schedule="constant", seed=1)
    found = train(net, seen, recipe, test=held_out).epochs
    assert first.stored[0] == first.accuracy[0] == found.test_accuracy.iloc[-1]
    assert first.train_loss[0] == found.train_loss.iloc[-1]
    assert not first.diverged[0]


def test_divergence_is_a_result():
    """A rate of 10⁴: training ends, the cell does not fail, and no accuracy is NaN."""
    row = noise_scale.cell(seed=1, kind="batch", rate=1e4, **TINY)["runs"].iloc[0]
    other = noise_scale.cell(seed=1, kind="none", rate=1e4, **TINY)["runs"].iloc[0]
    assert other.diverged
    assert 0 <= row.accuracy <= 1
    assert 0 <= other.accuracy <= 1


def test_images_are_divided_without_overlap():
    """Trained on and tested on are different images, in batches that hold all of them; too few are refused."""
    seen, held_out = divided(seed=1, train=900, test=897, **PLACE)
    assert len({tuple(x.flatten().tolist()) for x in [*seen.inputs, *held_out.inputs]}) == 1797
    assert sum(len(y) for _, y in batched(held_out, 500)) == 897
    with pytest.raises(InvalidArgumentError, match="`data` must be of at least 1798 examples"):
        divided(seed=1, train=900, test=898, **PLACE)


def test_rates_and_batches_share_their_ratios(tmp_path):
    """Equal α/|B| of different batches are equal as floating-point numbers, in every preset."""
    found = Runs(told(tmp_path, claimed))
    assert len(found.scales) == len(found.rates) + len(found.batches) - 1
    for first, rates, size, batches in noise_scale.GRID.values():
        scales = {first * 4**k / (size * 4**j) for k in range(rates) for j in range(batches)}
        assert len(scales) == rates + batches - 1


def test_what_is_best_is_found_again(tmp_path):
    """Best at α = |B|/1000 with batch norm and at 0.008 without; gap 0.01 at |B| = 8 and 0.11 at 32; slopes 1 and 0."""
    found = Runs(told(tmp_path, claimed))
    assert math.exp(found.log_best_rate("batch", 32).value) == pytest.approx(0.032)
    assert math.exp(found.log_best_rate("none", 32).value) == pytest.approx(0.008)
    assert found.gap(8).value == pytest.approx(0.01)
    assert found.gap_growth().value == pytest.approx(0.1)
    assert math.exp(found.log_ratio_growth().value) == pytest.approx(4)
    assert found.rate_slope("batch").value == pytest.approx(1)
    assert found.rate_slope("none").value == pytest.approx(0, abs=1e-9)


def test_spreads_are_root_mean_squares_over_pairs(tmp_path):
    """At equal α/|B| only the 0.001 of the batch; at equal α by hand; runs that diverged are left out."""
    found = Runs(told(tmp_path, claimed))
    assert found.spread("batch", "scale").value == pytest.approx(1e-3)
    differences = [by_scale(rate, 8) + 1e-3 - by_scale(rate, 32) for rate in found.rates]
    by_hand = math.sqrt(sum(d * d for d in differences) / 3)
    assert found.spread("batch", "rate").value == pytest.approx(by_hand)
    assert found.log_collapse("batch").value == pytest.approx(math.log(1e-3 / by_hand), rel=1e-6)
    gone = Runs(told(tmp_path, without_the_largest, diverged=largest))
    assert gone.spread("batch", "scale").value == pytest.approx(1e-3)
    assert gone.diverged("batch", 32, 0.128) == gone.networks
    tied = Runs(told(tmp_path, lambda **_: 0.5))
    assert math.exp(tied.log_best_rate("none", 8).value) == pytest.approx(0.032)


def test_up_to_the_best_rate_what_comes_after_it_does_not_count(tmp_path):
    """Accuracy falls to 0.1 at the largest rate, whatever the batch: no collapse over all, but below the best."""
    found = verdicts(
        told(tmp_path, lambda rate, batch, **_: 0.1 if rate > 0.1 else 0.9 + 0.02 * math.log(rate / batch))
    )
    assert found[:2] == ["contradicted"] * 2
    assert found[2:4] == ["supported"] * 2


def test_claims_hold_for_what_they_say(tmp_path):
    """Collapse and proportional rates with batch norm, one best rate and a growing gap without."""
    found = verdicts(told(tmp_path, claimed))
    assert [found[i] for i in (BATCH, BATCH_RISING, GAP, RATES, SLOPES)] == ["supported"] * 5
    assert found[NONE] == "contradicted"


def test_claims_fall_for_the_opposite(tmp_path):
    """The kinds exchanged."""
    found = verdicts(told(tmp_path, reversed_))
    assert [found[i] for i in (BATCH, GAP, RATES, SLOPES)] == ["contradicted"] * 4
    assert (found[NONE], found[NONE_RISING]) == ("supported", "supported")


def test_one_network_decides_nothing(tmp_path):
    """Too few networks."""
    assert set(verdicts(few(told(tmp_path, claimed)))) == {"inconclusive"}


def test_the_page_and_the_numbers_show_all(tmp_path):
    """Every claim, a table per kind, and what the study is small in."""
    records = told(tmp_path, claimed)
    html = render(noise_scale.ANALYSIS.page(records))
    for text in ("1710.06451", "2002.10444", "ResNet-8", "64 images", "2 epochs", "no norm", "batch norm"):
        assert text in html
    numbers = noise_scale.ANALYSIS.numbers(records)
    assert numbers["batch"]["batches"]["32"]["accuracy"]["0.032"]["value"] == pytest.approx(0.95, abs=1e-4)
