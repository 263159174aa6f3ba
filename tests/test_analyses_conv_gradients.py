"""`rmtbn conv-gradients`: its cells, its claims both ways, its page."""

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from paper_records import changed, few, options
from rmtbn.analyses import conv_gradients
from rmtbn.analyses.__main__ import main

from rmtbn.report.render import render

TINY = {"depth": 8, "examples": 4, "data": "digits", "device": "cpu", "dtype": "float64"}


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """All four kinds of network of depth 20 on digits, three networks each."""
    return conv_gradients.ANALYSIS.measure(options(tmp_path_factory.mktemp("reports")), data="digits")


def told(records, ratios, *, spread=0.05):
    """Records in which a/b of a kind and layer is `ratios(kind, layer)`, entry by entry too, up to noise by network."""

    def change(name, parameters, seed, frame):
        value = np.array([ratios(parameters["kind"], at) for at in frame.layer]) * np.exp(spread * (seed - 2))
        if name == "layers":
            return frame.assign(a=value, b=np.ones(len(frame)))
        return frame.assign(entry=value, channel=value)

    return changed(records, change)


def as_claimed(kind, layer):
    """A network as Table 1 has it, at depth 20."""
    return {3: 250.0, 9: 110.0, 15: 40.0}.get(layer, 60.0) if kind == "final" else 2.0


def verdicts(records):
    return {key: claim.verdict for key, claim in conv_gradients.claims(records).items()}


def test_a_cell_is_a_function_of_its_parameters_alone():
    """The same twice; a >= b > 0 for every layer, as |Σd| <= Σ|d|."""
    first, second = (conv_gradients.cell(seed=1, kind="final", **TINY) for _ in range(2))
    pd.testing.assert_frame_equal(first["layers"], second["layers"], check_exact=True)
    assert (first["layers"].a >= first["layers"].b).all()
    assert (first["layers"].b > 0).all()
    assert (first["entries"].entry >= 1).all()


def test_kinds_differ_and_share_their_weights():
    """Without norm, a/b of the same weights on the same images is another number."""
    plain, normed = (conv_gradients.cell(seed=1, kind=kind, **TINY)["layers"] for kind in ("none", "final"))
    assert (plain.summands == normed.summands).all()
    assert not np.allclose(plain.a / plain.b, normed.a / normed.b)


def test_claims_hold_for_the_numbers_of_the_paper(records):
    """a/b = 2 without norm; 250, 110, 40 with it."""
    assert verdicts(told(records, as_claimed)) == {21: "supported", 22: "supported", 23: "supported"}


@pytest.mark.parametrize(
    ("ratios", "contradicted"),
    [
        (lambda kind, layer: 5.0 if kind == "none" else as_claimed(kind, layer), {21}),
        (lambda kind, layer: 5.0 if kind == "final" else as_claimed(kind, layer), {22, 23}),
        (lambda kind, layer: 40.0 + layer if kind == "final" else 2.0, {22}),
    ],
    ids=["no norm cancels", "norm does not cancel", "rises with depth"],
)
def test_claims_are_contradicted_by_other_numbers(records, ratios, contradicted):
    """Each claim falls with what it says, and no other does."""
    found = verdicts(told(records, ratios))
    assert {key for key, verdict in found.items() if verdict == "contradicted"} == contradicted


def test_one_network_or_much_noise_decides_nothing(records):
    """Too few networks, or an error larger than the distance from the bound."""
    assert set(verdicts(few(told(records, as_claimed))).values()) == {"inconclusive"}
    assert verdicts(told(records, as_claimed, spread=1.0))[21] == "inconclusive"


def test_the_page_shows_table_1_and_the_claims(records):
    """Every kind at every middle layer, each claim with its number."""
    html = render(conv_gradients.page(records))
    assert "appendix J" in html
    for key in (21, 22, 23):
        assert f"claim {key} of 31" in html


def test_numbers_are_printed_with_their_errors(tmp_path):
    """--json prints a, b and ln a/b by kind and layer; nothing is written."""
    done = CliRunner().invoke(main, ["conv-gradients", "--preset", "quick", "--json", "--out", str(tmp_path / "no")])
    assert done.exit_code == 0
    assert '"log_ratio_se"' in done.stdout
    assert not (tmp_path / "no").exists()


def test_vectors_are_refused(tmp_path):
    """Data that are no images: one line, exit code 2, nothing written."""
    done = CliRunner().invoke(main, ["conv-gradients", "--data", "gaussian", "--out", str(tmp_path / "no")])
    assert done.exit_code == 2
    assert "images of shape (channels, height, width)" in done.stderr
    assert not (tmp_path / "no").exists()
