"""`rmtbn bn-jacobian`: its cells, its numbers against theory, its claims both ways, its page, its command."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from matplotlib.figure import Figure as Canvas
from rmtbn.analyses import _bn_jacobian_claims, _bn_jacobian_page, bn_jacobian
from rmtbn.analyses.__main__ import main
from rmtbn.analyses._bn_jacobian_records import BatchSpectra, Kind, law_of
from rmtbn.analyses._options import Common

from rmtbn import rng
from rmtbn.report.page import Claim, Figure
from rmtbn.report.render import render
from rmtbn.theory.bn_mean_field import block_share, zero_share

PLACE = {"device": "cpu", "dtype": "float64"}
LINEAR = Kind(activation="linear", weights="gaussian", batch=6, width=24)
KINDS = [Kind(activation="linear", weights=w, batch=6, width=12) for w in ("gaussian", "orthogonal")]


def measured(kinds, *, depths, networks):
    """The table of a run."""
    rows = []
    for kind in kinds:
        for depth in depths:
            table = bn_jacobian.cell(seed=1, **kind.parameters(), depth=depth, networks=networks, **PLACE)["spectra"]
            rows.append(table.assign(**kind.parameters(), depth=depth, seed=1))
    return BatchSpectra(pd.concat(rows, ignore_index=True))


@pytest.fixture(scope="module")
def small():
    """Linear networks with both laws of the weights at two depths."""
    return measured(KINDS, depths=(1, 3), networks=4)


def from_theory(found, *, deeper=0, share=None, networks=6):
    """Records whose values are drawn from the law (of more layers), with the blocks' share of theory, or another."""
    rows = []
    for kind in found.kinds:
        for depth in found.depths:
            law = law_of(kind.activation, kind.weights, kind.batch, depth + deeper)
            predicted = block_share(kind.activation, batch_size=kind.batch, depth=depth) if share is None else share
            size = (kind.batch - 1) * kind.width
            zeros = zero_share(kind.activation, batch_size=kind.batch) * kind.batch * kind.width - kind.width
            for network in range(networks):
                draws = rng.generator(network, "stratified", kind.activation, kind.weights, kind.batch, depth)
                p = (np.arange(size) + draws.uniform(0.3, 0.7, size)) / size
                row = {"log_singular_values": list(law.log_ppf(p) / 2), "relative_error": 1e-9, "network": network}
                row["method"] = "product"
                noise = 1 + 1e-3 * draws.standard_normal(2)
                row |= {"zeros": zeros * noise[1], "leaked": 0, "block_norm": predicted * noise[0], "whole_norm": 1.0}
                rows.append(row | kind.parameters() | {"depth": depth, "seed": 1})
    return BatchSpectra(pd.DataFrame(rows))


def test_a_cell_is_a_function_of_its_parameters_alone():
    """The same twice, another with another seed; one row per network."""
    arguments = {**LINEAR.parameters(), **PLACE, "depth": 2, "networks": 2}
    first, again = (bn_jacobian.cell(seed=1, **arguments)["spectra"] for _ in range(2))
    pd.testing.assert_frame_equal(first, again)
    other = bn_jacobian.cell(seed=2, **arguments)["spectra"]
    assert list(first.network) == [0, 1]
    assert first.log_singular_values[0] != other.log_singular_values[0]
    assert first.log_singular_values[0] != first.log_singular_values[1]


def test_measured_networks_agree_with_theory():
    """Linear, B = 6, N = 24: 2/B zeros exactly, the blocks' share within 4 s.e. and 1/N, KS < 0.06 but for L + 1."""
    found = measured([LINEAR], depths=(1, 2), networks=8)
    assert found.zeros(LINEAR, 2, leaked=True).value == pytest.approx(zero_share("linear", batch_size=6))
    assert found.zeros(LINEAR, 2, leaked=False).value == pytest.approx(zero_share("linear", batch_size=6, eps=1e-5))
    for depth in (1, 2):
        share = found.block_share(LINEAR, depth)
        assert share.value == pytest.approx(block_share("linear", batch_size=6, depth=depth), abs=4 * share.se + 1 / 24)
    assert found.comparison(LINEAR, 2).ks < 0.06 < found.deeper(LINEAR, 2).ks


@pytest.mark.parametrize("sizes", [("linear", "gaussian", 8, 4), ("relu", "orthogonal", 6, 1)])
def test_laid_laws_are_the_laws(sizes):
    """F at 300 places in and beyond the table, and F of the quantiles, within 1e-6; the density itself."""
    found = law_of(*sizes)
    law, (low, high) = found.law, found.table.x[[0, -1]]
    x = np.linspace(high - 1.01 * (high - low), high + 0.5, 300)
    np.testing.assert_allclose(found.cdf_log(x), law.cdf_log(x), atol=1e-6)
    p = np.linspace(law.atoms[0][1] + 1e-7, 1 - 1e-7, 99)
    np.testing.assert_allclose(law.cdf_log(found.log_ppf(p)), p, atol=1e-6)
    assert np.isneginf(found.log_ppf(0.0))
    np.testing.assert_array_equal(found.log_pdf_log(x), law.log_pdf_log(x))


def test_shallow_networks_are_resolved_without_products():
    """One layer: the assembled matrix, its leaks told by their number; six of ReLU: products, for small values."""
    arguments = {"seed": 1, "networks": 1, **PLACE}
    shallow = bn_jacobian.cell(**LINEAR.parameters(), depth=1, **arguments)["spectra"].iloc[0]
    relu = Kind(activation="relu", weights="gaussian", batch=6, width=24)
    deep = bn_jacobian.cell(**relu.parameters(), depth=6, **arguments)["spectra"].iloc[0]
    assert (shallow.method, deep.method) == ("dense", "product")
    assert (shallow.zeros, shallow.leaked) == (0, 24)
    assert np.isneginf(shallow.log_singular_values[-24:]).all()
    assert np.isfinite(shallow.log_singular_values[:-24]).all()


def test_inputs_are_at_the_fixed_point():
    """X Xᵀ = N s G exactly for N >= B; for N < B of that mean."""
    draws = rng.torch_generator(1, "inputs")
    x = bn_jacobian._inputs(5, 9, spread=0.4, generator=draws)
    np.testing.assert_allclose((x @ x.T).numpy(), 9 * 0.4 * (np.eye(5) - 0.2), atol=1e-12)
    wide = bn_jacobian._inputs(40, 30, spread=0.4, generator=draws)
    assert float(wide.square().mean()) == pytest.approx(0.4 * (1 - 1 / 40), rel=0.1)


def test_claims_can_come_out_either_way(small):
    """Supported by values drawn from the law, contradicted by those of two layers more and blocks that hold all."""
    right, wrong = from_theory(small), from_theory(small, deeper=2, share=1.0)
    verdicts = [{claim.verdict for claim in _bn_jacobian_claims.claims(found)} for found in (right, wrong)]
    assert verdicts[0] == {"supported"}
    laws = [claim for claim in _bn_jacobian_claims.claims(wrong) if "follow" in claim.statement]
    assert {claim.verdict for claim in laws} == {"contradicted"}
    blocks = [claim for claim in _bn_jacobian_claims.claims(wrong) if "one example" in claim.statement]
    assert {claim.verdict for claim in blocks} == {"contradicted"}


def test_page_holds_every_part(small):
    """Four figures or more that draw, two tables, claims, and an HTML page."""
    page = _bn_jacobian_page.page(small, manifest={"finished": "2026-01-01"})
    blocks = [block for section in page.sections for block in section.blocks]
    figures = [block for block in blocks if isinstance(block, Figure)]
    assert len(figures) >= 4
    for figure in figures:
        figure.draw(Canvas(figsize=figure.size, layout="constrained"))
    assert sum(isinstance(block, Claim) for block in blocks) == 4
    assert "per-sample" in render(page)


def test_presets_grow():
    """Each preset has more cells than the one before; one activation, one batch are a part of them."""
    options = {"seed": 1, "device": "cpu", "dtype": "float64", "out": Path("reports"), "as_json": True}
    common = {"engine": "inline", "workers": None}
    sizes = []
    for preset in ("quick", "default", "paper"):
        given = Common(preset=preset, **options, **common)
        every = bn_jacobian.cells(given)
        part = bn_jacobian.cells(given, activation="gelu", batch_size=5)
        assert {cell.parameters["activation"] for cell in part} == {"gelu"}
        assert {cell.parameters["batch"] for cell in part} == {5}
        sizes.append((len(every), sum(cell.parameters["networks"] for cell in every)))
    assert sizes == sorted(sizes)


@pytest.mark.slow
def test_command_prints_numbers(monkeypatch):
    """`--json`: one entry per network and depth, verdicts, nothing else on stdout; a bad batch is refused."""
    for name in ("PROFILED", "DEEPEST"):
        monkeypatch.setattr(bn_jacobian, name, {"quick": ((4, 8),)})
    arguments = ["bn-jacobian", "--preset", "quick", "--activation", "tanh", "--batch-size", "4", "--json"]
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    numbers = json.loads(done.stdout)
    assert done.exit_code == 0
    assert {(one["weights"], one["depth"]) for one in numbers["networks"]} == {
        (weights, depth) for weights in ("gaussian", "orthogonal") for depth in (1, 4)
    }
    assert {claim["verdict"] for claim in numbers["claims"]} <= {"supported", "contradicted", "inconclusive"}
    refused = CliRunner().invoke(main, ["bn-jacobian", "--batch-size", "3"])
    assert refused.exit_code == 2
