"""`rmtbn channel-moments`: its cells, its claims both ways, its page."""

import numpy as np
import pandas as pd
import pytest
from paper_records import changed, few, options
from rmtbn.analyses import channel_moments

from rmtbn.report.render import render

TINY = {"depth": 20, "examples": 6, "data": "digits", "device": "cpu", "dtype": "float64"}
STAGE = np.tile(np.arange(1, 4), 3)  # place of each of the nine blocks of depth 20 in its stage


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Networks of depth 20 with and without norm on digits and noise, three of each."""
    return channel_moments.ANALYSIS.measure(options(tmp_path_factory.mktemp("reports")), data="digits")


def told(records, *, plain="exponential", normed="linear", noise_growth=1.0, logits=1000.0, noise=0.02):
    """Records in which variances grow in a given way, up to noise by network."""
    shapes = {"exponential": 0.8 * np.arange(1, 10), "linear": np.log(STAGE)}

    def change(name, parameters, seed, frame):
        factor = 1 + noise * (seed - 2)
        if name == "logits":
            return frame.assign(log_size=np.log(logits) * factor)
        log = shapes[plain if parameters["kind"] == "none" else normed] * factor
        wiggle = 0.01 * np.sin(np.arange(9) + seed)  # so that no fit is exact
        return frame.assign(log_variance=log * (noise_growth if parameters["inputs"] == "noise" else 1.0) + wiggle)

    return changed(records, change)


def verdicts(records):
    return {key: claim.verdict for key, claim in channel_moments.claims(records).items()}


def test_a_cell_is_a_function_of_its_parameters_alone():
    """The same twice, one row per block; noise is another input."""
    first, second, noise = (
        channel_moments.cell(seed=1, kind="none", inputs=inputs, **TINY) for inputs in ("images", "images", "noise")
    )
    pd.testing.assert_frame_equal(first["blocks"], second["blocks"], check_exact=True)
    assert list(first["blocks"].block) == list(range(1, 10))
    assert not np.allclose(first["blocks"].log_variance, noise["blocks"].log_variance)


def test_logits_are_as_large_as_the_network_gives_them():
    """The largest root mean square over classes, by a forward pass."""
    found = channel_moments.cell(seed=1, kind="none", inputs="images", **TINY)["logits"].log_size.iloc[0]
    batch = channel_moments.images("digits", seed=1, examples=6, device="cpu", dtype="float64")
    logits = channel_moments.network(seed=1, kind="none", depth=20, like=batch)(batch.inputs)
    assert found == pytest.approx(float(logits.detach().square().mean(0).max().log() / 2))


@pytest.mark.parametrize("kind", ["linear", "exponential"])
def test_a_line_and_an_exponential_are_told_apart(kind):
    """Each fits its own data with no error but rounding; neither fits the other's."""
    logs = np.log(2 + 3 * np.arange(6)) if kind == "linear" else 2 + 0.5 * np.arange(6)
    misfits = {"linear": channel_moments._linear(logs), "exponential": channel_moments._exponential(logs)}
    assert misfits.pop(kind) < 1e-20
    assert min(misfits.values()) > 1e-3


def test_claims_hold_for_the_growth_of_the_paper(records):
    """Exponential without norm, linear with, the same on noise, logits above 100."""
    assert set(verdicts(told(records)).values()) == {"supported"}


@pytest.mark.parametrize(
    ("numbers", "contradicted"),
    [
        ({"plain": "linear"}, {14}),
        ({"normed": "exponential"}, {14}),
        ({"noise_growth": 0.5}, {15}),
        ({"noise_growth": 2.0}, {15}),
        ({"logits": 10.0}, {16}),
    ],
)
def test_each_claim_falls_with_its_number(records, numbers, contradicted):
    """Another growth contradicts its claim alone."""
    found = verdicts(told(records, **numbers))
    assert {key for key, verdict in found.items() if verdict == "contradicted"} == contradicted


def test_one_network_or_much_noise_decides_nothing(records):
    """Too few networks, or an error larger than the distance from the bound."""
    assert set(verdicts(few(told(records))).values()) == {"inconclusive"}
    assert verdicts(told(records, logits=110.0, noise=0.5))[16] == "inconclusive"


def test_the_page_shows_both_moments_and_the_claims(records):
    """Each claim with its number."""
    html = render(channel_moments.page(records))
    for key in (14, 15, 16):
        assert f"claim {key} of 31" in html
