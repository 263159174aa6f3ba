"""`rmtbn schemes`: its cells, its rule of failure, its predictions, its claims and its page."""

import copy
import math
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from matplotlib.figure import Figure as Canvas
from rmtbn.analyses import _schemes_claims, _schemes_figures, _schemes_page, schemes
from rmtbn.analyses.__main__ import main
from rmtbn.analyses._failure import Failure, failures
from rmtbn.analyses._options import Common
from rmtbn.analyses._predictions import Network
from rmtbn.analyses._schemes_records import PANELS, Schemes, numbers

from rmtbn import inits
from rmtbn.data.digits import digits
from rmtbn.plot.theme import style
from rmtbn.report.page import Claim, Figure, Table
from rmtbn.result import Scalar
from rmtbn.sweep.run import run
from rmtbn.sweep.store import FolderStore, MemoryStore
from rmtbn.theory import bn_mean_field, mean_field
from rmtbn.theory.fuss_catalan import FussCatalan

TINY = {
    "scheme": "he_normal",
    "norm": "none",
    "activation": "relu",
    "data": "digits",
    "max_depth": 4,
    "width": 10,
    "examples": 6,
    "bn_width": 5,
    "bn_batch": 4,
    "device": "cpu",
    "dtype": "float64",
}


@pytest.fixture(scope="module")
def options():
    """The options of `rmtbn schemes --preset quick --json`."""
    names = {"seed": 1, "device": "cpu", "dtype": "float64", "out": Path("reports"), "preset": "quick"}
    return Common(**names, engine="inline", workers=None, as_json=True)


@pytest.fixture(scope="module")
def records(options, tmp_path_factory):
    """The quick preset, all of it; two workers of one test run share its cells, each from its own end."""
    cells, worker = schemes.cells(options, data="digits"), os.environ.get("PYTEST_XDIST_WORKER")
    if worker is None:
        return run(schemes.STUDY, cells, store=MemoryStore(), progress=False)
    store = FolderStore(tmp_path_factory.getbasetemp().parent / "schemes")
    for cell in cells if worker == "gw0" else reversed(cells):
        run(schemes.STUDY, [cell], store=store, progress=False)
    return run(schemes.STUDY, cells, store=store, progress=False)


@pytest.fixture(scope="module")
def measured(records):
    """The records as the page asks for them."""
    return Schemes(records, gaussian_sigma_w=schemes.GAUSSIAN_SIGMA_W)


def same(first, second):
    """Whether two results of a cell have the same tables to the last bit."""
    assert first.keys() == second.keys()
    for name in first:
        pd.testing.assert_frame_equal(first[name], second[name], check_exact=True)
    return True


# The cell


def test_a_cell_is_a_function_of_its_parameters_alone():
    """Same numbers again, whatever was computed in between and wherever torch's global generator stands."""
    torch.manual_seed(5)
    first = schemes.cell(seed=1, **TINY)
    torch.manual_seed(6)
    schemes.cell(seed=2, **TINY | {"scheme": "orthogonal", "norm": "batch"})
    assert same(schemes.cell(seed=1, **TINY), first)


def test_another_seed_scheme_activation_or_norm_is_another_draw():
    """Every label of a cell names its own generator: no two of these first layers are the same matrix."""
    changes = ({}, {"scheme": "glorot_normal"}, {"activation": "tanh"}, {"norm": "batch"})
    spectra = [schemes.cell(seed=1, **TINY | change)["spectra"].log_singular_values[0] for change in changes]
    spectra.append(schemes.cell(seed=2, **TINY)["spectra"].log_singular_values[0])
    assert len({values[0] for values in spectra}) == len(spectra)


def test_a_cell_of_the_grid_is_the_cell_alone(records):
    """What 72 cells in a row computed for one of them is what it computes alone, to the last bit."""
    record = records.records[37]
    alone = schemes.cell(seed=record.cell.seed, **record.cell.parameters)
    for name, table in record.tables.items():
        assert table.to_pydict() == {column: alone[name][column].tolist() for column in table.column_names}


@pytest.mark.parametrize("norm", schemes.NORMS)
def test_a_deeper_study_starts_with_the_same_layers(norm):
    """Networks of growing depth are the first blocks of one: adding layers leaves all before them as they are."""
    shallow, deep = (schemes.cell(seed=1, **TINY | {"norm": norm, "max_depth": depth}) for depth in (2, 4))
    assert list(deep["spectra"].depth) == [1, 2, 4]
    for at in (0, 1):
        assert list(shallow["spectra"].log_singular_values[at]) == list(deep["spectra"].log_singular_values[at])
    assert shallow["layers"].log_q.tolist() == deep["layers"].log_q.tolist()[:2]


def test_gradient_of_the_deepest_network_is_that_of_its_layers():
    """The gradient at layer 1 in networks of growing depth ends where the deepest network's own profile starts."""
    found = schemes.cell(seed=1, **TINY)
    assert found["depths"].log_gradient.iloc[-1] == pytest.approx(found["layers"].log_gradient.iloc[0], rel=1e-12)


def test_float32_is_the_same_network():
    """dtype float32 rounds the float64 draws: logs agree to 1e-4."""
    double, single = (schemes.cell(seed=1, **TINY | {"dtype": dtype}) for dtype in ("float64", "float32"))
    assert np.allclose(double["layers"], single["layers"], rtol=0, atol=1e-4)
    assert not np.array_equal(double["layers"], single["layers"])


def test_grid_is_every_scheme_norm_and_activation_at_every_seed(options):
    """2 activations × 2 norms × 9 schemes × 2 seeds, no cell twice; the paper's preset has more seeds."""
    cells = schemes.cells(options, data="digits")
    assert len({str(cell) for cell in cells}) == len(cells) == 2 * 2 * len(inits.INITS) * 2
    assert {cell.seed for cell in cells} == {1, 2}


# The rule of failure

HEALTHY = {"log_gradient": 0.0, "log_q": 0.0, "log_condition": 0.0, "correlation": 0.5}
THRESHOLDS = {
    "gradient vanishes": ("log_gradient", -2 * math.log(1e3)),  # the squared norm: the norm leaves at 1e-3
    "gradient explodes": ("log_gradient", 2 * math.log(1e3)),
    "signal vanishes": ("log_q", -math.log(1e3)),
    "signal explodes": ("log_q", math.log(1e3)),
    "ill-conditioned": ("log_condition", math.log(1e6)),
    "inputs become alike": ("correlation", 0.99),
}


def profile(**columns):
    """Depths 1, 2, 4, 8 of a healthy network, with other values in some columns."""
    rows = {name: [value] * 4 for name, value in HEALTHY.items()} | columns
    return pd.DataFrame({"depth": [1, 2, 4, 8], **rows})


def test_a_healthy_network_does_not_fail():
    """No criterion, no failure; not even where a value is missing."""
    assert failures(profile()) == []
    assert failures(profile(correlation=[0.5, math.nan, math.nan, math.nan])) == []


@pytest.mark.parametrize("how", THRESHOLDS)
def test_each_criterion_fails_just_beyond_its_threshold_and_not_before(how):
    """[1e-3, 1e3] of the value at depth 1, κ = 1e6, c = 0.99: 1e-6 beyond at depth 4 fails there, 1e-6 short never."""
    column, threshold = THRESHOLDS[how]
    start = 0.25 if column in ("log_gradient", "log_q") else HEALTHY[column]
    limit = threshold + (start if column in ("log_gradient", "log_q") else 0.0)
    beyond, short = limit + math.copysign(1e-6, threshold), limit - math.copysign(1e-6, threshold)
    (found,) = failures(profile(**{column: [start, start, beyond, beyond]}))
    assert (found.depth, found.how) == (4, how)
    assert failures(profile(**{column: [start, start, short, short]})) == []


def test_failures_come_in_the_order_of_their_depths():
    """The first failure is the failure of the scheme; each is dated by the first depth at which it holds."""
    found = failures(profile(log_condition=[0, 0, 99, 99], correlation=[0.5, 1, 1, 1], log_q=[0, 0, 0, 99]))
    assert [(f.depth, f.criterion) for f in found] == [(2, "correlation"), (4, "conditioning"), (8, "signal")]


def test_what_underflows_or_overflows_has_failed():
    """ln 0 = -∞ vanishes, ∞ explodes."""
    assert [f.how for f in failures(profile(log_gradient=[0, 0, -math.inf, -math.inf]))] == ["gradient vanishes"]
    assert [f.how for f in failures(profile(log_q=[0, 0, 0, math.inf]))] == ["signal explodes"]


@pytest.mark.parametrize(
    ("key", "how"),
    [
        (("relu", "none", "torch_default"), "gradient vanishes"),  # σ_w² = 1/3: χ₁ = 1/6
        (("relu", "none", "glorot_normal"), "signal vanishes"),  # half per layer: below 1e-3 from the 11th on
        (("relu", "none", "gaussian"), "signal explodes"),  # twice per layer
        (("tanh", "none", "critical"), "ill-conditioned"),
    ],
)
def test_schemes_that_fail_by_depth_16_are_found_failing(measured, key, how):
    """On real networks, sixteen layers are enough for these."""
    assert how in {failure.how for failure in measured.failures(key)}


def test_orthogonal_tanh_networks_of_depth_16_do_not_fail(measured):
    """The one scheme of which nothing fails by depth 16 in tanh networks."""
    assert measured.failures(("tanh", "none", "orthogonal")) == []


# Predictions


KINDS = [
    ("relu", "none", "he_normal"),
    ("relu", "none", "torch_default"),
    ("tanh", "none", "gaussian"),
    ("relu", "batch", "he_normal"),
]


@pytest.mark.parametrize("kind", KINDS, ids="-".join)
def test_predictions_lie_on_wide_networks_at_every_layer(kind):
    """ln q, c and the growth of ln ‖g‖² at N = 256: a factor 2 or a layer more would be 2 to 5 times as far."""
    activation, norm, scheme = kind
    size = {"max_depth": 4, "width": 256, "examples": 64, "bn_width": 4, "bn_batch": 4}
    names = {"activation": activation, "norm": norm, "scheme": scheme}
    tables = [schemes.cell(seed=seed, **TINY | size | names) for seed in (1, 2, 3, 4)]
    inputs, layers, depths = (sum(t[name] for t in tables) / 4 for name in ("inputs", "layers", "depths"))
    law = inits.weight_law(scheme, activation, fan_in=256, sigma_w=2.0 if scheme == "gaussian" else None)
    described = {"q0": float(inputs.q0[0]), "c0": float(inputs.c0[0]), "batch_size": 64}
    network = Network(activation=activation, norm=norm, law=law, **described)
    assert np.max(np.abs(layers.log_q - network.lengths(4).value)) < 0.25
    assert np.max(np.abs(layers.correlation - network.correlations(4).value)) < 0.05
    growth = network.gradient_growth(4).value[[0, 1, 3]]
    assert np.max(np.abs(depths.log_gradient - depths.log_gradient[0] - growth)) < 0.2


def test_lengths_start_at_the_first_layer():
    """ln q_1 = ln(σ_w² q_0) with no map in it; ReLU halves from the second layer on."""
    law = inits.weight_law("lecun_normal", "relu", fan_in=64)
    network = Network(activation="relu", norm="none", law=law, q0=3.0)
    assert network.lengths(3).value == pytest.approx(np.log([3.0, 1.5, 0.75]))


def test_gradient_growth_starts_at_zero_and_multiplies_by_chi():
    """ln‖g‖²(L) - ln‖g‖²(1) = Σ_{l=2..L} ln χ₁(q_l); under batch normalisation (L - 1) ln λ_G."""
    law = inits.weight_law("gaussian", "tanh", fan_in=64, sigma_w=2.0)
    network = Network(activation="tanh", norm="none", law=law, q0=1.0)
    q = [4.0]
    for _ in range(2):
        q.append(float(mean_field.length_map(q[-1], "tanh", sigma_w=2.0)))
    steps = [float(np.log(mean_field.chi1(np.asarray(x), "tanh", sigma_w=2.0))) for x in q[1:]]
    assert network.gradient_growth(3).value == pytest.approx([0.0, steps[0], sum(steps)])
    normed = Network(activation="relu", norm="batch", law=law, batch_size=32)
    rate = math.log(bn_mean_field.fixed_point("relu", batch_size=32).explosion_rate)
    assert normed.gradient_growth(4).value == pytest.approx(rate * np.arange(4))


def test_laws_are_those_of_the_scheme():
    """σ_w, σ_b and the kind of weights reach the law: linear networks are Fuss-Catalan, orthogonal ones a point."""
    law = Network(activation="linear", norm="none", law=inits.weight_law("lecun_normal", "linear", fan_in=9))
    lam = np.array([0.1, 1.0, 3.0])
    assert np.allclose(law.jacobian_law(3).cdf(lam), FussCatalan(depth=3).cdf(lam), rtol=0, atol=1e-9)
    weights = inits.weight_law("orthogonal", "linear", fan_in=9, sigma_w=1.5)
    point = Network(activation="linear", norm="none", law=weights).jacobian_law(2)
    assert np.allclose(point.atoms, [(1.5**4, 1.0)], rtol=1e-12)
    assert Network(activation="relu", norm="batch", law=weights, batch_size=8).jacobian_law(2) is None


def test_law_is_taken_at_the_image_where_the_jacobian_is_measured(measured, monkeypatch):
    """q_0 of the law is the mean square of those images, not of the whole batch."""
    asked = []
    monkeypatch.setattr(Network, "jacobian_law", lambda network, _: asked.append(network.q0) or FussCatalan(depth=1))
    copy.copy(measured).law("tanh", "glorot_uniform", 2)
    used = measured.of(measured.inputs, ("tanh", "none", "glorot_uniform")).jacobian_q0
    assert asked == [used.mean()] != [measured.inputs.q0.mean()]


# Claims


def replaced(measured, table, key, column, values):
    """The records with a quantity of one kind of network replaced: one row of values (per depth) per network."""
    altered, frame = copy.copy(measured), getattr(measured, table)
    mine = measured.of(frame, key)
    pattern = mine[mine.seed == 1]
    rows = [pattern.assign(seed=seed, **{column: row}) for seed, row in enumerate(values, start=1)]
    setattr(altered, table, pd.concat([frame.drop(mine.index), *rows], ignore_index=True))
    return altered


def with_rate(measured, claim, rate, *, spread=1e-3, networks=5):
    """The records with the growth per layer that a claim is about set to rate ± spread."""
    table, axis = ("depths", "depth") if claim.column == "log_gradient" else ("layers", "layer")
    layers = np.unique(getattr(measured, table)[axis])
    rates = rate + spread * np.linspace(-1, 1, networks)
    return replaced(measured, table, claim.key, claim.column, [each * layers for each in rates])


def verdicts(measured):
    """The verdict on each claim of the page by its statement."""
    return {claim.statement: claim.verdict for claim in _schemes_claims.claims(measured)}


@pytest.mark.parametrize("claim", _schemes_claims.RATE_CLAIMS, ids=lambda claim: "-".join((*claim.key, claim.column)))
def test_verdict_on_a_rate_follows_the_numbers(claim, measured):
    """Supported at the predicted rate, contradicted at the alternative, inconclusive where errors cover both."""
    predicted, alternative = claim.predicted(measured), claim.alternative(measured)
    assert abs(predicted - alternative) > 0.2
    cases = (
        ("supported", with_rate(measured, claim, predicted)),
        ("contradicted", with_rate(measured, claim, alternative)),
        ("inconclusive", with_rate(measured, claim, predicted, spread=2.0)),
        ("inconclusive", with_rate(measured, claim, predicted, networks=1)),
    )
    for expected, altered in cases:
        assert _schemes_claims._judged(claim, altered).verdict == expected


def test_other_claims_keep_their_verdict_when_one_is_altered(measured):
    """A claim looks at its own numbers alone."""
    claim = _schemes_claims.RATE_CLAIMS[1]
    before, after = verdicts(measured), verdicts(with_rate(measured, claim, 9.0))
    assert after.pop(claim.statement) == "contradicted"
    before.pop(claim.statement)
    assert after == before


@pytest.mark.parametrize(
    ("normed", "plain", "expected"),
    [("predicted", 0.95, "supported"), (0.9, 0.95, "contradicted"), ("predicted", "predicted", "inconclusive")],
)
def test_verdict_on_correlations_follows_the_numbers(normed, plain, expected, measured):
    """With batch normalisation c must be what is predicted, and differ from c without it."""
    c = bn_mean_field.fixed_point("relu", batch_size=measured.examples).c
    layers = np.ones(measured.deepest)
    altered = measured
    for norm, value in (("batch", normed), ("none", plain)):
        level = c if value == "predicted" else value
        rows = [(level + shift) * layers for shift in (-1e-3, 0, 1e-3)]
        altered = replaced(altered, "layers", ("relu", norm, "he_normal"), "correlation", rows)
    (found,) = [v for statement, v in verdicts(altered).items() if "keeps inputs apart" in statement]
    assert found == expected


@pytest.mark.parametrize(
    ("orthogonal", "gaussian", "spread", "expected"),
    [(3.0, 30.0, 1.0, "supported"), (30.0, 3.0, 1.0, "contradicted"), (3.0, 30.0, 40.0, "inconclusive")],
)
def test_verdict_on_conditioning_follows_the_numbers(orthogonal, gaussian, spread, expected, measured):
    """ln κ of orthogonal weights must be below that of Gaussian weights beyond the errors of both."""
    altered = measured
    for scheme, level in (("orthogonal", orthogonal), ("critical", gaussian)):
        rows = [np.full(5, level + shift) for shift in (-spread, 0, spread)]
        altered = replaced(altered, "depths", ("tanh", "none", scheme), "log_condition", rows)
    (found,) = [v for statement, v in verdicts(altered).items() if "Orthogonal weights" in statement]
    assert found == expected


def test_rule_of_verdicts_is_what_the_page_says():
    """|x - predicted| <= t_{0.995}(M - 1) se + allowance: at M = 5, t = 4.604."""
    five = {"se": 0.1, "symbol": "", "label": "", "networks": 5}
    rule = {"predicted": 0.0, "alternative": 9.0, "allowance": 0.05}
    assert _schemes_claims.judge(Scalar(value=0.510, **five), **rule) == "supported"
    assert _schemes_claims.judge(Scalar(value=0.511, **five), **rule) == "contradicted"
    assert _schemes_claims.judge(Scalar(value=0.3, **five), **rule | {"alternative": 0.5}) == "inconclusive"
    assert _schemes_claims.judge(Scalar(value=math.nan, **five), **rule) == "inconclusive"


def test_no_claim_is_contradicted_on_real_networks(measured):
    """What the papers say of these schemes holds on the digits as far as two networks can tell."""
    assert "contradicted" not in verdicts(measured).values()


# The page


RELU = (("relu", "he_normal"), ("relu", "orthogonal"))


@pytest.fixture(scope="module")
def page(measured, records):
    """The page of the quick preset, without the laws of tanh networks, which take a minute under the type checker."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_schemes_page, "DENSITIES", RELU)
        return _schemes_page.page(measured, data=digits().name, manifest=records.manifest())


def blocks(page, kind):
    """All blocks of one kind."""
    return [block for section in page.sections for block in section.blocks if isinstance(block, kind)]


def test_page_has_its_sections_figures_claims_and_manifest(page):
    """What the design asks of a page: figures, tables, claims, parameters, seeds, versions, wall time."""
    titles = [section.title for section in page.sections]
    assert titles[:3] == ["Depth of failure", "Gradients, signals and correlations", "Singular values of the Jacobian"]
    assert len(blocks(page, Figure)) == 6
    assert len(blocks(page, Claim)) == len(_schemes_claims.RATE_CLAIMS) + 2
    assert sum(page.verdicts.values()) == len(blocks(page, Claim))
    assert {"seeds", "width", "torch", "dtype", "device"} <= set(page.manifest)


def test_table_of_failures_has_every_scheme_and_its_first_failure(page, measured):
    """One row per scheme, one column per activation and norm: the depth and all that fails at it."""
    table = blocks(page, Table)[0]
    assert [row[0] for row in table.rows] == list(inits.INITS)
    assert len(table.columns) == 1 + len(PANELS)
    for row in table.rows:
        for panel, text in zip(PANELS, row[1:], strict=True):
            cell, found = text.replace(_schemes_page.NO_BREAK, "-"), measured.failures((*panel, row[0]))
            if not found:
                assert cell == "—"
            else:
                assert cell.startswith(f"{found[0].depth}: {found[0].how}")
                assert all((f.how in cell) == (f.depth == found[0].depth) for f in found)


def test_tables_of_criteria_date_every_failure(page, measured):
    """Four tables at the end: each failure of each scheme is there with its depth, and nothing else."""
    tables = blocks(page, Table)[-5:-1]
    for panel, table in zip(PANELS, tables, strict=True):
        for row in table.rows:
            found = {f.criterion: f.depth for f in reversed(measured.failures((*panel, row[0])))}
            for criterion, cell in zip(_schemes_page.CRITERIA, row[1:], strict=True):
                assert cell.split()[-1] == str(found.get(criterion, "—"))


def test_criteria_are_written_with_their_direction():
    """Gradients and signals vanish or explode; condition numbers and correlations only pass."""
    found = [
        Failure(criterion="signal", depth=2, how="signal explodes"),
        Failure(criterion="conditioning", depth=4, how="ill-conditioned"),
        Failure(criterion="signal", depth=8, how="signal vanishes"),
    ]
    assert list(_schemes_page._by_criterion(found)) == ["—", "explodes at 2", "fails at 4", "—"]


def test_every_figure_and_table_says_where_its_numbers_come_from(page):
    """Captions name the sample: networks and data; figures have a text alternative."""
    for figure in blocks(page, Figure):
        assert "2 networks" in figure.caption
        assert "digits" in figure.caption
        assert len(figure.alt) > 40


def test_summary_counts_what_fails(page, measured):
    """The summary's numbers are those of the table."""
    for panel in PANELS:
        first = [f[0].depth for s in inits.INITS if (f := measured.failures((*panel, s)))]
        assert f"{len(first)} of {len(inits.INITS)} fail, the first at depth {min(first)}" in page.summary


@pytest.mark.parametrize("index", range(5))
def test_figures_draw_without_a_warning(index, page):
    """Heat maps and profiles: four panels each, theory in the legend where there is one, axes named at the rim."""
    figure = blocks(page, Figure)[index]
    canvas = Canvas(figsize=figure.size, layout="constrained")
    with style("dark"):
        figure.draw(canvas)
        canvas.draw_without_rendering()
    panels = [ax for ax in canvas.axes if ax.get_title(loc="left")]
    assert len(panels) == 4
    if index:
        assert [ax.get_xlabel() for ax in panels] == ["", "", "depth", "depth"]
        assert [bool(ax.get_ylabel()) for ax in panels] == [True, False, True, False]
        named = {text.get_text() for text in canvas.legends[0].get_texts()}
        assert named - {"theory", "fails"} == set(_schemes_figures.SHOWN)
        assert ("theory" in named) == (index < 4)


def test_densities_are_drawn_with_their_laws(measured, monkeypatch):
    """A row per network, a column per depth, a histogram and a law in each."""
    monkeypatch.setattr(_schemes_figures, "DENSITIES", RELU)
    canvas = Canvas(figsize=(11, 6), layout="constrained")
    with style("light"):
        _schemes_figures.densities(measured, canvas)
    assert [ax.get_title(loc="left") for ax in canvas.axes][:2] == [
        "ReLU, he_normal, depth 1",
        "ReLU, he_normal, depth 4",
    ]
    assert {text.get_text() for text in canvas.legends[0].get_texts()} == {"measured", "theory"}
    assert all(ax.lines or ax.patches for ax in canvas.axes)


@pytest.mark.parametrize(("depth", "share"), [(1, 0.5), (2, 0.5282), (8, 0.5710), (64, 0.6167), (1024, 0.6610)])
def test_share_of_zeros_of_finite_relu_networks_is_that_of_the_narrowest_layer(depth, share):
    """N = 100: 1 - E min_l Bin_l(N, 1/2)/N, against the project's notes and a simulation of the binomials."""
    assert _schemes_page.relu_zeros(100, depth=depth) == pytest.approx(share, abs=1e-4)
    draws = np.random.default_rng(1).binomial(100, 0.5, size=(2000, depth)).min(axis=1) / 100
    assert abs(1 - draws.mean() - share) < 4 * draws.std() / math.sqrt(2000)


@pytest.mark.parametrize(("activation", "scheme"), _schemes_page.DENSITIES)
def test_laws_lie_on_the_spectra_of_single_layers(activation, scheme, measured):
    """Depth 1, where L/N is 1/64: no kind of network on the page is at odds with its law."""
    assert measured.comparison(activation, scheme, 1).verdict in ("agrees", "agrees to order 1/N", "undecided")


@pytest.mark.slow
def test_quick_page_is_written_whole(tmp_path):
    """`rmtbn schemes --preset quick`: one file that holds six figures in two styles, eight claims and the manifest."""
    result = CliRunner().invoke(main, ["schemes", "--preset", "quick", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    html = Path(result.stdout.strip()).read_text()
    assert html.count("<figure") == 6
    assert html.count('class="claim ') == 8
    assert "http://" not in html.replace("http://www.w3.org", "")


def test_schemes_are_listed_with_their_variances(page):
    """σ_w² and σ_b² of both activations, and the source of each scheme."""
    rows = {row[0]: row for row in blocks(page, Table)[-1].rows}
    assert rows["he_normal"][2:4] == ("2.000", "2.000")
    assert rows["critical"][2:6] == ("2.000", "1.761", "0", "0.0500")
    assert "1611.01232" in rows["critical"][-1]


def test_numbers_for_scripts_have_every_network(measured):
    """--json: activation → norm → scheme → failures and what decides them, per depth."""
    found = numbers(measured)
    one = found["tanh"]["batch"]["he_normal"]
    assert one["by_depth"]["depth"] == [1, 2, 4, 8, 16]
    assert {len(values) for values in one["by_depth"].values()} == {5}
    assert all(set(found[a][n]) == set(inits.INITS) for a, n in PANELS)
