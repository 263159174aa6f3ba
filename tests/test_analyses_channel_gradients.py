"""`rmtbn channel-gradients`: its cells, its claims both ways, its page."""

import numpy as np
import pandas as pd
import pytest
from paper_records import changed, few, options
from rmtbn.analyses import channel_gradients

from rmtbn.report.render import render

TINY = {"depth": 8, "examples": 6, "data": "digits", "device": "cpu", "dtype": "float64"}


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """All four kinds of network of depth 20 on digits, three networks each."""
    return channel_gradients.ANALYSIS.measure(options(tmp_path_factory.mktemp("reports")), data="digits")


def told(records, *, plain=0.95, normed=0.4, correlation=0.9, noise=0.005):
    """Records with these shares and correlations, up to noise by network."""

    def change(name, parameters, seed, frame):
        if name != "layers":
            return frame
        share = plain if parameters["kind"] == "none" else normed
        return frame.assign(signed_share=share + noise * (seed - 2), correlation=correlation + 2 * noise * (seed - 2))

    return changed(records, change)


def verdicts(records):
    return {key: claim.verdict for key, claim in channel_gradients.claims(records).items()}


def test_layers_are_those_of_figure_7():
    """45 of 110, seven convolutions into its stage, and the same place in the others."""
    assert channel_gradients.shown_layers(110) == (9, 45, 81)
    assert channel_gradients.shown_layers(8) == (3, 5, 7)


def test_a_cell_is_a_function_of_its_parameters_alone():
    """The same twice; the share is that of the map's largest singular value, by its eigenvalues."""
    first, second = (channel_gradients.cell(seed=1, kind="none", **TINY) for _ in range(2))
    pd.testing.assert_frame_equal(first["layers"], second["layers"], check_exact=True)
    sizes = np.array(first["map"].sizes.tolist())
    eigenvalues = np.linalg.eigvalsh(sizes @ sizes.T)
    assert first["layers"].share[1] == pytest.approx(eigenvalues[-1] / eigenvalues.sum())
    np.testing.assert_allclose(first["channels"].outgoing, sizes.mean(axis=0))


def test_claims_hold_for_what_the_paper_shows(records):
    """Rank one without norm, less with; large means go with large gradients."""
    assert verdicts(told(records)) == {24: "supported", 25: "supported"}


@pytest.mark.parametrize(
    ("numbers", "contradicted"),
    [({"plain": 0.5}, 24), ({"normed": 0.99}, 24), ({"correlation": -0.5}, 25)],
)
def test_each_claim_falls_with_its_number(records, numbers, contradicted):
    """Another share or correlation contradicts its claim alone."""
    found = verdicts(told(records, **numbers))
    assert {key for key, verdict in found.items() if verdict == "contradicted"} == {contradicted}


def test_one_network_or_much_noise_decides_nothing(records):
    """Too few networks, or an error larger than the distance from the bound."""
    assert set(verdicts(few(told(records))).values()) == {"inconclusive"}
    assert verdicts(told(records, correlation=0.1, noise=0.1))[25] == "inconclusive"


def test_the_page_shows_the_maps_and_the_claims(records):
    """Each claim with its number."""
    html = render(channel_gradients.page(records))
    for key in (24, 25):
        assert f"claim {key} of 31" in html
