"""`rmtbn learning-rates`: its cells, its claims both ways, its page."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from paper_records import changed, few, options
from rmtbn.analyses import learning_rates
from rmtbn.analyses._held_out import divided
from rmtbn.analyses._image_networks import network
from rmtbn.analyses._learning_rates_claims import claims
from rmtbn.analyses._learning_rates_page import FULL, _diverged
from rmtbn.analyses._learning_rates_records import Trained
from torch import nn

from rmtbn.report.render import render

SIZE = {"depth": 8, "train": 8, "test": 8, "batch": 4, "augment": False}
TINY = {**SIZE, "data": "digits", "device": "cpu", "dtype": "float64"}
FINAL = {0.1: 0.9, 0.003: 0.8, 1e-4: 0.5}  # test accuracy with norm by rate
PLAIN = {0.1: 0.1, 0.003: 0.1, 1e-4: 0.5}
SINGLE = {0.1: 0.1, 0.03: 0.85, 0.003: 0.8}
OTHER = {0.1: 0.8}
GAPS = {0.1: 0.0, 0.03: 0.02, 0.003: 0.05, 1e-4: 0.1}
PLATEAUS = {0.1: 2, 0.03: 2, 0.003: 4, 1e-4: 8}


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Networks of depth 8 on digits, three of each kind at each rate, trained for one epoch or two."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learning_rates, "SIZES", {"quick": {**SIZE, "networks": 3}})
        patch.setattr(learning_rates, "EPOCHS", {"quick": dict.fromkeys((0.1, 0.03, 0.003, 1e-4), 1)})
        return learning_rates.ANALYSIS.measure(options(tmp_path_factory.mktemp("reports")), data="digits")


def told(records, *, final=FINAL, plain=PLAIN, single=SINGLE, other=OTHER, gaps=GAPS, plateaus=PLATEAUS, noise=0.005):
    """Records of these test accuracies, gaps and plateaus, up to noise by network and rate."""
    accuracies = {"final": final, "none": plain, "only_final": single}

    def change(name, parameters, seed, frame):
        rate, kind = parameters["rate"], parameters["kind"]
        accuracy = accuracies.get(kind, other)[rate] + noise * (seed - 2) * (1 + rate)
        if name == "ends":
            gap = gaps[rate] + noise * (seed - 2) * rate if accuracy > 0.2 else 0.0
            return frame.assign(test_accuracy=accuracy, train_accuracy=accuracy + gap)
        epochs = np.arange(1, 11)
        reached = epochs >= plateaus[rate] + (seed - 2) * (noise > 0.1)
        curve = {"test_accuracy": np.where(reached, accuracy, 0.0), "train_accuracy": accuracy}
        return pd.DataFrame({"epoch": epochs, "train_loss": 1.0, "test_loss": 1.0, **curve})

    return changed(records, change)


def verdicts(records):
    return {key: claim.verdict for key, claim in claims(records).items()}


def test_a_cell_is_a_function_of_its_parameters_alone():
    """The same twice; the accuracies after training are those of the trained network, by hand."""
    arguments = {"seed": 1, "kind": "final", "rate": 0.1, "epochs": 2, **TINY}
    first, second = (learning_rates.cell(**arguments) for _ in range(2))
    for name, frame in first.items():
        pd.testing.assert_frame_equal(frame, second[name], check_exact=True)
    assert list(first["curves"].epoch) == [1, 2]
    assert first["curves"].test_accuracy.iloc[-1] == first["ends"].test_accuracy[0]


def test_training_begins_from_the_weights_that_all_kinds_share():
    """At a rate of 1e-30 nothing moves: loss on the test images is that of the drawn network without norm."""
    found = learning_rates.cell(seed=1, kind="none", rate=1e-30, epochs=1, **TINY)["ends"]
    seen, held_out = divided("digits", seed=1, train=8, test=8, device="cpu", dtype="float64")
    net = network(seed=1, kind="none", depth=8, like=seen).eval()
    with torch.no_grad():
        for images, part in ((seen, "train"), (held_out, "test")):
            logits = net(images.inputs)
            assert found[f"{part}_loss"][0] == pytest.approx(nn.functional.cross_entropy(logits, images.targets).item())
            right = (logits.argmax(1) == images.targets).double().mean().item()
            assert found[f"{part}_accuracy"][0] == pytest.approx(right)


def test_other_norms_are_in_the_place_of_batch_norm():
    """layer, group and instance norm: as many layers of norm as with batch norm, and no batch norm.

    Instance norm has one less: after the last block it would leave the pooled features without the image.
    """
    seen, _ = divided("digits", seed=1, train=8, test=8, device="cpu", dtype="float64")
    counts = {}
    for kind, norm in (("final", nn.BatchNorm2d), ("layer", nn.GroupNorm), ("group", nn.GroupNorm),
                       ("instance", nn.InstanceNorm2d)):  # fmt: skip
        net = network(seed=1, kind=kind, depth=8, like=seen)
        counts[kind] = sum(isinstance(part, norm) for part in net.modules())
        assert kind == "final" or not any(isinstance(part, nn.BatchNorm2d) for part in net.modules())
        logits = net(seen.inputs)
        assert not torch.allclose(logits[0], logits[1])
    assert counts == {"final": 8, "layer": 8, "group": 8, "instance": 7}


def test_claims_hold_for_what_the_paper_shows(records):
    """Accuracy rises with the rate, the gap falls, and without norm only the smallest rate trains."""
    assert verdicts(told(records)) == dict.fromkeys((1, 2, 3, 4, 5, 6, 17), "supported")


@pytest.mark.parametrize(
    ("numbers", "contradicted"),
    [
        ({"plain": {**PLAIN, 0.003: 0.45}}, {1, 17}),
        ({"plain": {**PLAIN, 1e-4: 0.3}}, {2}),
        ({"final": {**FINAL, 0.1: 0.7}}, {3}),
        ({"gaps": {**GAPS, 0.1: 0.2}}, {4}),
        ({"plateaus": {**PLATEAUS, 0.1: 8}}, {5}),
        ({"other": {0.1: 0.1}}, {6}),
        ({"single": {**SINGLE, 0.03: 0.1, 0.003: 0.85}}, {17}),
        ({"single": {**SINGLE, 0.03: 0.6, 0.003: 0.6}}, {17}),
    ],
    ids=["trains without", "apart", "falls", "gap grows", "as fast", "other norms fail", "no large rate", "small gain"],
)
def test_each_claim_falls_with_its_number(records, numbers, contradicted):
    """One number on the other side of its bound contradicts the claims that rest on it."""
    found = verdicts(told(records, **numbers))
    assert {key for key, verdict in found.items() if verdict == "contradicted"} == contradicted


def test_one_network_or_much_noise_decides_nothing(records):
    """Too few networks, or an error larger than the distance from the bound."""
    assert set(verdicts(few(told(records))).values()) == {"inconclusive"}
    noisy = verdicts(told(records, noise=0.5))
    assert {noisy[key] for key in (1, 6)} == {"inconclusive"}


def test_the_plateau_begins_near_the_highest_accuracy(records):
    """The first epoch within 0.02 of the maximum; ln of the ratio is averaged."""
    found = Trained(told(records))
    assert found.mean("final", 1e-4, "plateau").value == 8
    assert found.log_plateaus("final", 1e-4, 0.1).value == pytest.approx(math.log(4))


def test_the_gain_is_that_of_the_best_rates(records):
    """0.85 with one norm against 0.5 without and 0.9 with all: 0.35, of which 0.15 is above half of 0.4."""
    gain, more = Trained(told(records, noise=0.0)).gain("only_final")
    assert (gain.value, more.value) == (pytest.approx(0.35), pytest.approx(0.15))


def test_the_page_shows_the_claims_and_says_what_was_run(records):
    """Each claim with its number; the short schedule is named as one."""
    html = render(learning_rates.ANALYSIS.page(records))
    for key in (1, 2, 3, 4, 5, 6, 17):
        assert f"claim {key} of 31" in html
    assert "a short form of the paper" in html
    assert "No run diverged." in html
    numbers = learning_rates.ANALYSIS.numbers(records)
    assert set(numbers["final"]) == {"0.1", "0.003", "0.0001"}


def test_runs_that_diverged_are_named(records):
    """Two of the three without norm at the largest rate."""

    def change(name, parameters, seed, frame):
        if name != "ends":
            return frame
        return frame.assign(diverged=parameters["kind"] == "none" and parameters["rate"] == 0.1 and seed > 1)

    assert _diverged(Trained(changed(records, change))) == "Diverged: no norm at 0.1 (2 of 3)."


def test_the_page_knows_the_schedule_of_the_paper():
    """The preset "paper", and no other, is called the paper's schedule: 110 layers, rates and epochs of section 3.1."""
    full = {name: (size["depth"], size["train"]) == FULL for name, size in learning_rates.SIZES.items()}
    assert full == {"quick": False, "default": False, "paper": True}
    assert learning_rates.EPOCHS["paper"] == {0.1: 165, 0.03: 165, 0.003: 1320, 1e-4: 2400}
