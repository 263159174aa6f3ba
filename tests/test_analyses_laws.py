"""`rmtbn laws`: its cells, the laws given ranks, claims both ways, one law with its numbers, refusals."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from matplotlib.figure import Figure
from rmtbn.analyses import _laws_claims, _laws_page, _laws_records, _laws_single, laws
from rmtbn.analyses.__main__ import main
from rmtbn.analyses._laws_networks import STUDY, Kind, cell, layer_widths
from rmtbn.analyses._laws_records import Laws, has_zeros, pooled
from rmtbn.analyses._laws_registry import LAWS, asked
from rmtbn.analyses._options import Common

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.compare import compare, compare_given
from rmtbn.report.page import Claim, Table
from rmtbn.report.page import Figure as ReportFigure
from rmtbn.sweep.run import run
from rmtbn.sweep.store import FolderStore, MemoryStore
from rmtbn.theory.given_layers import law_given_ranks

RELU, LINEAR = Kind(activation="relu"), Kind(activation="linear")
HARD_TANH = Kind(activation="hard_tanh", sigma_b=0.05**0.5)


def common(preset="quick", **changes):
    fields = {"seed": 1, "device": "cpu", "dtype": "float64", "out": Path("reports"), "preset": preset,
              "engine": "inline", "workers": None, "as_json": True}  # fmt: skip
    return Common(**(fields | changes))


def drawn(kind, *, width, networks, depths=(1, 4), seed=1):
    shared = kind.parameters(width=width, depths=depths, device="cpu", dtype="float64")
    return cell(seed=seed, networks=networks, **shared)["spectra"]


def call(*arguments):
    return CliRunner().invoke(main, ["laws", *map(str, arguments)])


@pytest.fixture(scope="module")
def study():
    """Networks of width 8 and 16 of the kinds of the quick preset, tanh with orthogonal weights only."""
    cells = [one for one in laws.cells(common()) if _is_wanted(one.parameters)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_laws_records, "GIVEN", 4)  # networks that get a law of their own
        yield Laws(run(STUDY, cells, store=MemoryStore(), progress=False).table("spectra"))


def _is_wanted(parameters):
    kind = (parameters["activation"], parameters["weights"])
    return kind not in {("tanh", "gaussian"), ("tanh", "uniform"), ("relu", "orthogonal")}


def test_a_cell_is_a_function_of_its_parameters_alone():
    """The same twice; one row per network and depth."""
    first, second = (drawn(RELU, width=6, networks=3) for _ in range(2))
    pd.testing.assert_frame_equal(first, second, check_exact=True)
    assert first.depth.tolist() == [1, 4] * 3
    assert [len(row) for row in first.log_singular_values] == [6] * 6


def test_singular_values_of_a_cell_are_those_of_its_weights():
    """Σ ln σ = ln |det J|, exact for linear networks; here through one layer of a second route."""
    rows = drawn(LINEAR, width=5, networks=1, depths=(1, 2))
    generator = rng.torch_generator(1, "laws", "linear", "gaussian", "5", 0)
    module = _module(generator)
    jacobians = [module[0].weight, module[2].weight @ module[0].weight]
    for found, jacobian in zip(rows.log_singular_values, jacobians, strict=True):
        np.testing.assert_allclose(found, np.log(np.linalg.svd(jacobian.detach().numpy())[1]), rtol=1e-9)


def _module(generator):
    from rmtbn.analyses._laws_networks import drawn as draw

    return draw([5, 5, 5], activation="linear", weights="gaussian", sigma_w=1.0, sigma_b=0.0, generator=generator)


@pytest.mark.parametrize("weights", ["gaussian", "orthogonal", "uniform"])
def test_weights_have_the_variance_of_the_law(weights):
    """Mean square of the entries of a 40 × 80 and of an 80 × 40 layer: σ_w²/fan_in."""
    from rmtbn.analyses._laws_networks import drawn as draw

    module = draw([80, 40, 80], activation="relu", weights=weights, sigma_w=1.5, sigma_b=0.0,
                  generator=rng.torch_generator(1, "weights", weights))  # fmt: skip
    for layer, fan_in in ((module[0], 80), (module[2], 40)):
        square = layer.weight.detach().numpy() ** 2
        assert square.mean() * fan_in == pytest.approx(1.5**2, rel=1e-9 if weights == "orthogonal" else 0.1)
    if weights == "uniform":
        assert np.abs(module[0].weight.detach().numpy()).max() <= 1.5 * math.sqrt(3 / 80)


def test_layers_have_the_length_that_the_law_assumes():
    """The input of hard tanh is such that the first pre-activations are N(0, q*): share of |h| < 1 within 4 s.e."""
    shares = np.concatenate([row[:1] for row in drawn(HARD_TANH, width=200, networks=20, depths=(1,)).active])
    p = 1 - HARD_TANH.law(1).atoms[0][1]
    assert shares.mean() == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / 4000))


def test_widths_of_a_cell_are_one_for_all_layers_or_one_each():
    """n_0 ... n_L."""
    assert layer_widths("7", 3) == [7, 7, 7, 7]
    assert layer_widths("7,5,6", 2) == [7, 5, 6]


def test_every_preset_has_as_many_networks_of_each_kind_as_it_says():
    """networks_per_width · N of every kind and width, in cells of at most 16."""
    for preset, sizes in laws.GRID.items():
        cells = laws.cells(common(preset))
        counts = {}
        for one in cells:
            assert one.parameters["networks"] <= laws.CHUNK
            key = (one.parameters["activation"], one.parameters["weights"], one.parameters["widths"])
            counts[key] = counts.get(key, 0) + one.parameters["networks"]
        expected = {str(n): round(sizes["networks_per_width"] * n) for n in laws.WIDTHS[preset]}
        assert len(counts) == len(laws.kinds(preset)) * len(expected)
        assert all(count == expected[width] for (_, _, width), count in counts.items())


def test_zeros_of_relu_networks_are_those_of_their_narrowest_layer():
    """The number of zeros is N - min n_l, network by network, for Gaussian and orthogonal weights."""
    for weights in ("gaussian", "orthogonal"):
        for kind in (replace(RELU, weights=weights), replace(HARD_TANH, weights=weights)):
            for row in drawn(kind, width=24, networks=4, depths=(1, 3, 6)).itertuples():
                zeros = np.isneginf(row.log_singular_values).sum()
                assert zeros == 24 - round(24 * min(row.active))
                assert len(row.active) == row.depth


def test_networks_follow_the_law_of_their_own_ranks():
    """ReLU, L = 4, N = 48: N·KS < 2 given the ranks, > 2 to the free law, and p-values that say so of a wrong one."""
    rows = drawn(RELU, width=48, networks=10, depths=(4,))
    right, deeper = (
        compare_given(
            [law_given_ranks([*shares, *extra], weights="gaussian", sigma_w=2**0.5) for shares in rows.active],
            pooled(rows),
        )
        for extra in ([], [0.5])
    )
    assert 48 * right.ks < 2.0
    assert 48 * np.max(np.abs(_zeros(rows) - 0.5)) > 2.0
    assert deeper.ks > 0.03
    assert deeper.ks_pvalue < 0.01
    assert 0 < right.ks_se < right.ks


def _zeros(rows):
    return np.isneginf(pooled(rows).by_network).mean()


def test_slopes_are_those_of_the_distances(study):
    """ln KS against ln N through two points; none for isometries, whose distance is 0."""
    kind = next(k for k in study.kinds if (k.activation, k.weights) == ("linear", "gaussian"))
    first, second = (study.comparison(kind, width, 4).ks for width in study.widths)
    assert study.rate(kind, 4) == pytest.approx(math.log(second / first) / math.log(2))
    isometry = next(k for k in study.kinds if (k.activation, k.weights) == ("linear", "orthogonal"))
    assert math.isnan(study.rate(isometry, 4))


def test_page_and_numbers_hold_every_kind_and_depth(study):
    """Every kind of network at every depth has its law, its comparisons and its row."""
    found = _laws_page.numbers(study)
    assert set(found) == {_laws_page.name(kind) for kind in study.kinds}
    assert all([entry["depth"] for entry in entries] == [1, 4] for entries in found.values())
    assert "given_ranks" in found["ReLU, uniform"][0]
    page = _laws_page.page(study, manifest={"finished": "now"})
    claims = [block for section in page.sections for block in section.blocks if isinstance(block, Claim)]
    assert len(claims) == 6
    assert all(claim.source for claim in claims)


def made(study, change):
    """The study with 4 networks of width 128 made up: singular values at the quantiles of some law."""
    rows, values = study.rows[(study.rows.width == 16) & (study.rows.network < 4)], []
    for row in rows.itertuples():
        kind = Kind(activation=row.activation, weights=row.weights, sigma_b=row.sigma_b)
        noise = rng.generator(1, row.network, row.seed, row.activation, row.weights).normal() * 0.002
        values.append(change(kind, row.depth, (np.arange(128)[::-1] + 0.5) / 128 + noise))
    active = [[0.5 if a == "relu" else 1.0] * d for a, d in zip(rows.activation, rows.depth, strict=True)]
    return Laws(rows.assign(log_singular_values=values, widths="128", active=active))


def quantiles(kind, depth, p):
    return (kind.law(depth).log_ppf(np.clip(p, 0, 1)) / 2).tolist()


@pytest.mark.parametrize(("layers", "verdicts"), [(0, {"supported"}), (3, {"contradicted"})])
def test_claims_on_laws_can_come_out_either_way(study, layers, verdicts):
    """Networks at the quantiles of the law support it; at those of three layers more, contradict it."""
    found = made(study, lambda kind, depth, p: quantiles(kind, depth + layers, p))
    verdict = {claim.statement: claim.verdict for claim in _laws_claims.claims(found)}
    on_laws = {v for statement, v in verdict.items() if "follow" in statement}
    assert on_laws == verdicts


def test_claim_on_orthogonal_weights_can_be_contradicted(study):
    """Orthogonal networks with the spectrum of Gaussian ones contradict it."""
    found = made(study, lambda kind, depth, p: quantiles(replace(kind, weights="gaussian"), depth, p))
    (claim,) = [c for c in _laws_claims.claims(found) if "isometry" in c.statement]
    assert claim.verdict == "contradicted"


def test_claim_on_the_rate_needs_more_than_one_width(study):
    """One width: inconclusive."""
    found = made(study, quantiles)
    assert _laws_claims.claims(found)[-1].verdict == "inconclusive"


@pytest.mark.parametrize("name", LAWS)
def test_every_law_has_a_page_that_can_be_drawn(name):
    """Figure, tables of edges, moments and quantiles; a caption that names the options."""
    entry, options = asked(name, {})
    family = _laws_single.Family(name=name, entry=entry, options=options, laws=entry.laws(options), networks={})
    (section,) = _laws_single.page(family, manifest={}).sections
    (figure,) = [block for block in section.blocks if isinstance(block, ReportFigure)]
    figure.draw(Figure())
    assert len([block for block in section.blocks if isinstance(block, Table)]) == 3


@pytest.mark.parametrize("name", LAWS)
def test_every_law_has_numbers_that_agree_with_one_another(name):
    """Moments, edges, quantiles and atoms of one law: E λ within the support, quantiles ascending and within it."""
    entry, options = asked(name, {})
    for law in entry.laws(options).values():
        found = _laws_single.law_numbers(law)
        low, high = found["support"]
        assert low <= found["moments"][0] <= high
        quantiles = np.array(list(found["log_quantiles"].values()))
        assert (np.diff(quantiles[np.isfinite(quantiles)]) >= 0).all()
        assert np.exp(quantiles[-1]) <= high * (1 + 1e-9)
        assert found["moments"][1] >= found["moments"][0] ** 2


def test_one_law_prints_its_numbers():
    """FC_2: moments 1, 3, 12; edge 27/4; strict JSON."""
    result = call("--law", "fuss-catalan", "--depth", 2, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout, parse_constant=pytest.fail)["laws"]["L = 2"]
    assert found["moments"][:3] == pytest.approx([1, 3, 12])
    assert math.exp(found["log_edges"][1]) == pytest.approx(6.75)


STAND_INS = {
    "residual": ({"c": 0.8}, 0.05),
    "smooth-limit": ({"s": 0.3}, 0.08),
    "bernoulli-limit": ({"s": 0.4}, 0.08),
    "root-limit": ({"p": 0.7, "weights": "orthogonal"}, 0.2),
}


@pytest.mark.parametrize("name", STAND_INS)
def test_networks_laid_over_limits_have_their_parameter(name, tmp_path):
    """64 layers, N = 40: E λ and the variance of the limit; nearer to it than to the limit of another parameter."""
    given, most = STAND_INS[name]
    arguments = [text for option, value in given.items() for text in (f"--{option}", value)]
    found = json.loads(
        call("--law", name, *arguments, "--networks", 4, "--width", 40, "--out", tmp_path, "--json").stdout
    )
    ((_, networks),) = found["networks"].items()
    assert networks["networks"] == 4
    assert networks["ks"] < most
    for measured, error, predicted in networks["moments"]:
        assert measured == pytest.approx(predicted, abs=5 * error + 0.1 * predicted)
    changed = {option: value / 2 if isinstance(value, float) else value for option, value in given.items()}
    entry, options = asked(name, changed)
    kind = entry.kind(asked(name, given)[1], 40)
    shared = kind.parameters(width=40, depths=(64,), device="cpu", dtype="float64")
    spectrum = pooled(cell(seed=1, networks=2, **shared)["spectra"])
    if entry.is_root:
        spectrum = replace(spectrum, by_network=spectrum.by_network / 64)
    (wrong,) = entry.laws(options).values()
    assert compare(wrong, spectrum).ks > networks["ks"] + 0.05


def test_networks_of_a_limit_say_what_they_are(tmp_path):
    """The page names the stand-in, its depth and how far it is off; too wide a spread for tanh is refused."""
    call("--law", "smooth-limit", "--networks", 2, "--width", 8, "--out", tmp_path)
    text = (tmp_path / "laws-smooth-limit" / "index.html").read_text()
    assert "these networks have 64 tanh layers of orthogonal weights" in text
    assert "by the order of one over the root of their depth." in text
    call("--law", "residual", "--networks", 2, "--width", 8, "--out", tmp_path)
    text = (tmp_path / "laws-residual" / "index.html").read_text()
    assert "64 linear blocks I + aG, G of independent Gaussian entries of variance 1/N and a² = c/64" in text
    assert "by the order of one over their depth." in text
    refused = call("--law", "smooth-limit", "--s", 1e4, "--networks", 2, "--width", 8, "--out", tmp_path)
    assert refused.exit_code == 2
    assert "`s` must be smaller for networks of 64 layers of tanh" in refused.stderr


def test_networks_laid_over_one_law_are_compared_with_it(tmp_path):
    """Marchenko–Pastur of ratio 1/2 over 10 × 20 matrices: 10 values each, the page, a file per network."""
    arguments = ("--law", "marchenko-pastur", "--ratio", 0.5, "--width", 20, "--networks", 2, "--out", tmp_path)
    assert call(*arguments).exit_code == 0
    assert "Networks of finite width" in (tmp_path / "laws-marchenko-pastur" / "index.html").read_text()
    assert len(list(tmp_path.rglob("*.parquet"))) == 2
    found = json.loads(call(*arguments, "--json").stdout)["networks"]["c = 0.5"]
    assert (found["dimension"], found["networks"]) == (10, 2)
    assert found["moments"][1][2] == pytest.approx(1.5)
    assert found["ks"] < 0.25


def test_depth_is_read_off_the_widths():
    """Three widths are two layers."""
    _, options = asked("jacobian", {"widths": (20, 40, 10)})
    assert options["depth"] == (2,)


def test_an_interrupted_study_goes_on(tmp_path):
    """Cells that are stored are not computed again."""
    cells = laws.cells(common())[:3]
    store = FolderStore(tmp_path)
    run(STUDY, cells[:2], store=store, progress=False)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    run(STUDY, cells, store=store, progress=False)
    after = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(after) == 3
    assert before.items() <= after.items()


WRONG = {
    "option of a law without a law": (("--activation", "relu"), "activation", "--law"),
    "networks without a law": (("--networks", "3"), "networks", "--law"),
    "option that the law does not take": (("--law", "raney", "--depth", "3"), "depth", "--p"),
    "networks over a law without any": (("--law", "raney", "--networks", "3"), "networks"),
    "depth 0": (("--law", "jacobian", "--depth", "0"), "--depth", "'0'"),
    "depth that is no number": (("--law", "jacobian", "--depth", "1,x"), "--depth", "1,x"),
    "unknown law": (("--law", "wigner"), "wigner", "fuss-catalan"),
    "too few widths": (("--law", "jacobian", "--depth", "3", "--widths", "4,5"), "widths", "4 numbers"),
    "widths at several depths": (("--law", "jacobian", "--depth", "1,2", "--widths", "4,5"), "widths"),
    "width without networks": (("--law", "jacobian", "--width", "5"), "width", "--networks"),
    "σ_w of 0": (("--law", "jacobian", "--sigma-w", "0"), "sigma_w", "0"),
    "negative ratio": (("--law", "marchenko-pastur", "--ratio", "-1"), "ratio", "-1"),
    "p below 1": (("--law", "raney", "--p", "0.5"), "p", "0.5"),
    "uniform weights of a limit": (("--law", "root-limit", "--weights", "uniform"), "weights", "uniform"),
    "c of 0": (("--law", "residual", "--c", "0"), "c", "0"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_is_one_clear_line_and_writes_nothing(case, tmp_path, monkeypatch):
    """Exit code 2, one line that names what is wrong, no file."""
    monkeypatch.chdir(tmp_path)
    arguments, *named = WRONG[case]
    result = call(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert all(text in result.stderr for text in named), result.stderr
    assert not list(tmp_path.iterdir())


def test_unknown_options_of_a_law_are_refused():
    """Raney takes p and r."""
    with pytest.raises(InvalidArgumentError, match=r"ratio.*--p, --r.*got 2"):
        asked("raney", {"ratio": 2.0})


def test_only_activations_that_switch_off_lose_directions():
    """φ′ = 0 on an interval: ReLU and hard tanh."""
    names = ("linear", "relu", "leaky_relu", "tanh", "hard_tanh", "gelu")
    assert [name for name in names if has_zeros(Kind(activation=name))] == ["relu", "hard_tanh"]
