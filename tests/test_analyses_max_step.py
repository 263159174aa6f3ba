"""`rmtbn max-step`: its cells, its claim both ways, its page."""

import numpy as np
import pandas as pd
import pytest
import torch
from paper_records import changed, few, options
from rmtbn.analyses import max_step
from rmtbn.analyses._image_networks import images, network

from rmtbn.report.render import render

TINY = {"depth": 8, "examples": 6, "data": "digits", "device": "cpu", "dtype": "float64"}


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Networks of depths 8 and 20 on digits, without norm and with, three each."""
    return max_step.ANALYSIS.measure(options(tmp_path_factory.mktemp("reports")), data="digits")


def told(records, shallow, deep, *, noise=0.05):
    """Records in which the largest steps at the two depths are these, up to noise by network."""

    def change(name, parameters, seed, frame):
        if parameters["depth"] != 8:
            return frame.assign(last=deep, above=deep)
        step = shallow * np.exp(noise * (seed - 2))
        return frame.assign(last=step, above=step)

    return changed(records, change)


def verdict(records):
    return max_step.claims(records)[26].verdict


def test_a_cell_is_a_function_of_its_parameters_alone():
    """The same twice; σ₁ and σ₁₀ are those of the Jacobian by automatic differentiation."""
    first, second = (max_step.cell(seed=1, kind="none", **TINY)["steps"] for _ in range(2))
    pd.testing.assert_frame_equal(first, second, check_exact=True)
    batch = images("digits", seed=1, examples=6, device="cpu", dtype="float64")
    net = network(seed=1, kind="none", depth=8, like=batch)
    dense = [
        torch.autograd.functional.jacobian(net, image[None]).reshape(10, -1)
        for image in batch.inputs[: max_step.SINGLE]
    ]
    values = [torch.linalg.svdvals(matrix).log().numpy() for matrix in dense]
    assert first.log_sigma[0] == pytest.approx(np.mean([v[0] for v in values]), rel=1e-9)
    assert first.log_condition[0] == pytest.approx(np.mean([v[0] - v[9] for v in values]), rel=1e-9)
    assert first["last"][0] < first["above"][0] <= (1 + max_step.ACCURACY) * first["last"][0]


def test_claim_26_holds_where_the_shallower_network_stands_more(records):
    """1 at 8 layers and 0.2 at 20."""
    assert verdict(told(records, 1.0, 0.2)) == "supported"


def test_claim_26_falls_where_it_stands_less(records):
    """0.2 at 8 layers and 1 at 20."""
    assert verdict(told(records, 0.2, 1.0)) == "contradicted"


def test_one_network_or_much_noise_decides_nothing(records):
    """Too few networks, or an error larger than the ratio."""
    assert verdict(few(told(records, 1.0, 0.2))) == "inconclusive"
    assert verdict(told(records, 1.0, 0.2, noise=2.0)) == "inconclusive"


def test_ends_of_the_search_stand_for_what_is_beyond_them(records):
    """No step that lowers the loss: the first one tried; none that does not: the last."""
    assert max_step.Steps(changed(records, lambda *a: a[3].assign(last=0.0, above=1e-6))).log_mean(
        "none", 8, "step"
    ).value == pytest.approx(np.log(1e-6))
    assert max_step.Steps(changed(records, lambda *a: a[3].assign(last=100.0, above=np.inf))).log_mean(
        "none", 8, "step"
    ).value == pytest.approx(np.log(100.0))


def test_the_slope_against_the_largest_singular_value_is_found_again(records):
    """Steps of σ₁^-2 have slope -2 and R² = 1."""

    def change(name, parameters, seed, frame):
        log_sigma = np.log(parameters["depth"]) + 0.1 * seed
        return frame.assign(last=np.exp(-2 * log_sigma), above=np.exp(-2 * log_sigma), log_sigma=log_sigma)

    slope, r2 = max_step.Steps(changed(records, change)).slope("sigma")
    assert slope.value == pytest.approx(-2)
    assert r2 == pytest.approx(1)


def test_the_page_shows_the_claim(records):
    """The claim with its number."""
    assert "claim 26 of 31" in render(max_step.page(records))
