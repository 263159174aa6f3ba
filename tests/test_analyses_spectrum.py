"""`rmtbn spectrum`: what is measured, what is predicted beside it, and the page."""

import json
import math

import numpy as np
import pytest
from click.testing import CliRunner
from matplotlib.figure import Figure
from rmtbn.analyses import _spectrum_page, spectrum
from rmtbn.analyses.__main__ import main
from scipy import special

from rmtbn.compare import compare
from rmtbn.plot.theme import style
from rmtbn.report.render import render
from rmtbn.sweep.run import run
from rmtbn.sweep.store import MemoryStore
from rmtbn.theory.finite_width import lyapunov_exponents

KIND = {
    "depth": 8,
    "width": 16,
    "activation": "relu",
    "init": "he_normal",
    "norm": "none",
    "data": "gaussian",
    "batch_size": 1,
    "device": "cpu",
    "dtype": "float64",
}


def measured(networks=3, **changes):
    """Measure networks of one kind: `KIND` with changes."""
    cells = spectrum.grid({name: (value,) for name, value in (KIND | changes).items()}, seeds=range(1, networks + 1))
    records = run(spectrum.STUDY, cells, store=MemoryStore(), progress=False)
    return _spectrum_page.Measured(records)


def printed(*arguments):
    """Numbers that the command prints."""
    result = CliRunner().invoke(main, ["spectrum", *arguments, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def ginibre():
    """Forty products of 24 Gaussian matrices of width 8: depth three times the width."""
    arguments = ["--depth", "24", "--width", "8", "--networks", "40", "--activation", "linear"]
    return printed(*arguments, "--init", "gaussian", "--sigma-w", "1")


@pytest.mark.parametrize(("name", "k"), [("largest", 1), ("smallest", 8)])
def test_extremes_of_gaussian_products_are_predicted_at_their_width(ginibre, name, k):
    """E ln σ_k = L λ_k + [ψ((N-k+1)/2) - ψ(k/2)]/2 within 4 exact standard errors √(L ψ′((N-k+1)/2)/4M)."""
    depth, width, networks = 24, 8, 40
    shape = (width - k + 1) / 2
    exponent = (math.log(2) + special.digamma(shape) - math.log(width)) / 2
    overlap = (special.digamma(shape) - special.digamma(k / 2)) / 2
    se = math.sqrt(depth * special.polygamma(1, shape) / 4 / networks)
    found = ginibre["log_sigma"][name]
    assert found["newman"] == pytest.approx(depth * exponent, rel=1e-12)
    assert found["predicted"] == pytest.approx(depth * exponent + overlap, rel=1e-12)
    assert found["predicted_se"] == pytest.approx(se, rel=1e-12)
    assert found["mean"] == pytest.approx(np.asarray(ginibre["log_singular_values"])[:, k - 1].mean(), rel=1e-12)
    assert abs(found["mean"] - found["predicted"]) < 4 * se
    assert 0.7 < found["se"] / se < 1.4


def test_exponents_times_depth_alone_miss_the_largest_singular_value(ginibre):
    """At N = 8 the overlap of frames is 1.6, eight standard errors of forty networks."""
    found = ginibre["log_sigma"]["largest"]
    assert found["mean"] - found["newman"] > 4 * found["predicted_se"]


def test_exponents_take_the_scale_of_the_weights():
    """σ_w multiplies every σ by σ_w per layer, exactly: the same networks, shifted by L ln σ_w."""
    plain, scaled = (
        _spectrum_page.numbers(measured(activation="linear", init="gaussian", sigma_w=sigma_w))
        for sigma_w in (1.0, 1.7)
    )
    shift = 8 * math.log(1.7)
    for name in ("largest", "smallest"):
        for number in ("mean", "predicted", "newman"):
            difference = scaled["log_sigma"][name][number] - plain["log_sigma"][name][number]
            assert difference == pytest.approx(shift, abs=1e-6)


def test_float64_networks_are_float64_throughout():
    """Haar weights keep lengths: every ln σ of a linear network is L ln σ_w to 1e-13, far below float32's 1e-7."""
    found = measured(activation="linear", init="orthogonal", sigma_w=1.5)
    assert np.max(np.abs(found.spectrum.by_network - 8 * math.log(1.5))) < 1e-13
    assert found.comparison.ks == 0
    assert found.comparison.verdict == "agrees"


@pytest.mark.parametrize(
    "changes", [{}, {"activation": "linear", "init": "orthogonal"}, {"activation": "linear", "init": "torch_default"}]
)
def test_extremes_are_predicted_for_gaussian_products_only(changes):
    """Exponents of other products are not known: JSON has null, the table a dash."""
    found = measured(**changes)
    extremes = _spectrum_page.numbers(found)["log_sigma"]
    for name in ("largest", "smallest"):
        assert extremes[name]["predicted"] is extremes[name]["newman"] is extremes[name]["predicted_se"] is None
    assert [row[2] for row in _spectrum_page.rows(found)[:2]] == ["—", "—"]


def test_zeros_of_relu_are_counted_and_left_out_of_the_extremes():
    """Exact zeros are ln σ = -∞; the smallest value is that of what is left, in every network."""
    found = measured(networks=4)
    values = found.spectrum.by_network
    zeros = np.isneginf(values)
    assert 0.3 < zeros.mean() < 0.9
    assert found.extreme("smallest").measured.value == pytest.approx(
        np.mean([row[np.isfinite(row)][-1] for row in values])
    )
    assert _spectrum_page.numbers(found)["zeros"] == zeros.mean()


def test_law_lies_on_wide_networks():
    """Products of two Gaussian matrices, N = 128: KS distance below 3/N, moments 1 and 3 (Fuss-Catalan)."""
    found = measured(networks=6, width=128, depth=2, activation="linear", init="lecun_normal")
    assert found.comparison.ks < 3 / 128
    assert found.comparison.verdict in ("agrees", "agrees to order 1/N")
    numbers = _spectrum_page.numbers(found)["law"]
    assert numbers["moments"] == pytest.approx([1.0, 3.0])
    assert numbers["log_edge"] == pytest.approx(math.log(27 / 4))
    assert numbers["zeros"] == 0


def test_law_of_another_weight_scale_is_rejected():
    """The same networks against the law for σ_w² = 2: λ is off by 2 per layer, and the verdict says so."""
    right = measured(networks=6, width=64, depth=2, activation="linear", init="lecun_normal")
    wrong = measured(networks=6, width=64, depth=2, activation="linear", init="he_normal")
    assert right.comparison.verdict != "rejected"
    assert compare(wrong.law, right.spectrum).verdict == "rejected"


def test_batch_normalisation_couples_the_examples_and_has_no_law():
    """The Jacobian of a batch of B examples is (B N) × (B N), and its law null: a page without a prediction."""
    found = measured(norm="batch", batch_size=4, width=6, depth=2, activation="linear", init="lecun_normal")
    assert found.spectrum.dimension == 4 * 6
    assert found.law is None
    numbers = _spectrum_page.numbers(found)
    assert numbers["law"] is None
    page = _spectrum_page.page(found, data="Gaussian", manifest={})
    assert "measured only" in page.summary


def test_networks_are_the_unit_and_seeds_number_them():
    """Network i of a run from seed s is network i - 1 of a run from seed s + 1; one network has no standard error."""
    arguments = ["--preset", "quick", "--activation", "relu", "--init", "he_normal"]
    first, second = printed(*arguments), printed(*arguments, "--seed", "2", "--networks", "1")
    assert first["networks"] == 2
    assert first["log_singular_values"][1] == second["log_singular_values"][0]
    assert second["log_sigma"]["largest"]["se"] is None
    assert second["law"]["ks_pvalue"] is None
    assert second["law"]["verdict"] == "undecided"


def test_sizes_that_are_given_overrule_those_of_the_preset():
    """--preset quick has depth 8 and width 32; what is given wins, the rest stays."""
    found = printed("--preset", "quick", "--depth", "2", "--activation", "relu", "--init", "he_normal")["parameters"]
    assert (found["depth"], found["width"], found["batch_size"]) == (2, spectrum.GRID["quick"]["width"], 1)


def test_page_says_what_was_measured_and_predicted():
    """Title, summary with the verdict, a figure whose caption has σ_w, every row of the table, the manifest."""
    found = measured()
    page = _spectrum_page.page(found, data="Gaussian vectors", manifest={"seeds": "1 to 3"})
    assert page.title == "Singular values of a ReLU network, he_normal, depth 8, width 16"
    assert found.comparison.verdict in page.summary
    (section,) = page.sections
    text, figure, table, route = section.blocks
    assert "every value is right" in route
    assert "L/N, here 0.50" in text
    assert "σ_w = 1.414, σ_b = 0." in figure.caption
    assert "Gaussian vectors" in figure.caption
    assert [row[0] for row in table.rows[:2]] == ["largest ln σ", "smallest ln σ"]
    assert {"share of zeros", "mean of λ", "mean of λ²", "Kolmogorov–Smirnov distance"} <= {
        row[0] for row in table.rows
    }
    html = render(page)
    assert "1 to 3" in html
    assert _spectrum_page.text(found).count("\n") == len(table.rows) + 1


def test_figure_has_the_law_over_the_histogram():
    """One filled histogram, one line for the law's bulk, labelled."""
    canvas = Figure()
    with style("light"):
        _spectrum_page.density(measured(), canvas)
    (ax,) = canvas.axes
    assert {text.get_text() for text in ax.get_legend().get_texts()} == {"measured", "theory"}


DEEP = {"depth": 60, "width": 24, "activation": "linear", "init": "lecun_normal"}


def test_what_a_route_cannot_tell_is_censored_everywhere():
    """Dense SVD at depth 60: share and floor in the numbers, the table, the text and the page; no smallest value."""
    found, exact = measured(method="dense", **DEEP), measured(**DEEP)
    numbers = _spectrum_page.numbers(found)
    share = np.mean(exact.spectrum.by_network <= found.spectrum.log_floor[:, None])
    assert numbers["route"] == "dense"
    assert numbers["censored"] == pytest.approx(share, abs=0.02)
    assert 0.2 < numbers["censored"] < 0.9
    assert sum(numbers["censored_by_network"]) == round(numbers["censored"] * 72)
    assert len(numbers["log_floor"]) == 3
    assert numbers["log_sigma"]["smallest"]["mean"] is None
    assert numbers["log_sigma"]["largest"]["mean"] == pytest.approx(exact.extreme("largest").measured.value, abs=1e-6)
    rows = {row[0]: row[1] for row in _spectrum_page.rows(found)}
    assert rows["smallest ln σ"].startswith("< ")
    assert rows["0.01 quantile of ln σ"].startswith("< ")
    assert float(rows["share of censored values"]) == pytest.approx(share, abs=0.02)
    for text in (_spectrum_page.text(found), render(_spectrum_page.page(found, data="Gaussian", manifest={}))):
        assert "censored" in text
        assert "as asked" in text
    assert "share of censored values" not in _spectrum_page.text(exact)
    assert _spectrum_page.numbers(exact)["log_floor"] is None
    assert found.comparison.ks < 0.2
    canvas = Figure()
    _spectrum_page.density(found, canvas)
    assert any("censored: " in text.get_text() for text in canvas.axes[0].texts)


@pytest.mark.parametrize("method", ["slq", "lanczos"])
def test_matrix_free_routes_give_what_is_above_the_floor(method):
    """λ above 1e-4 of the largest as by products, the rest censored; probes carry their error."""
    arguments = [
        *("--depth", "20", "--width", "48", "--activation", "relu", "--init", "he_normal", "--networks", "1"),
    ]
    found = printed(*arguments, "--method", method, "--floor", "1e-4")
    exact = printed(*arguments)
    floor = exact["log_singular_values"][0][0] + math.log(1e-4) / 2
    values, expected = (
        np.array([-np.inf if v is None else v for v in one["log_singular_values"][0]]) for one in (found, exact)
    )
    assert found["route"] == method
    assert found["censored"] > 0.2
    assert np.mean(np.abs(np.maximum(values, floor) - np.maximum(expected, floor))) < (0.1 if method == "slq" else 1e-5)
    assert (found["cdf_error"] > 0) == (method == "slq")


def test_the_jacobian_of_batch_normalisation_is_stated():
    """Batch statistics couple the batch (a share 1/B of zeros); running ones do not; JSON and page say which."""
    kind = {"norm": "batch", "batch_size": 4, "width": 6, "depth": 2, "activation": "linear", "init": "lecun_normal"}
    batch, running = measured(**kind), measured(**kind, batch_stats="running")
    assert batch.spectrum.zero_fraction == pytest.approx(1 / 4)
    assert running.spectrum.zero_fraction == 0.0
    assert batch.spectrum.dimension == running.spectrum.dimension == 24
    for found, name in ((batch, "batch"), (running, "running")):
        assert _spectrum_page.numbers(found)["batch_stats"] == name
        assert f"{name} statistics" in _spectrum_page.text(found)
    assert running.law is None
    assert "running" in render(_spectrum_page.page(running, data="Gaussian", manifest={}))


def test_running_statistics_are_those_of_the_batch():
    """Depth 1, linear: B copies of σ(diag(γ/√(v + ε)) W), v the unbiased variance over the batch of W x."""
    kind = {"norm": "batch", "batch_size": 5, "width": 6, "depth": 1, "activation": "linear", "init": "lecun_normal"}
    values = measured(1, **kind, batch_stats="running").spectrum.by_network[0].reshape(6, 5)
    np.testing.assert_allclose(values, values[:, :1].repeat(5, axis=1), atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--memory", "10kB"], "`memory` must be more than 65,536 bytes, which the weights take; got '10,000'"),
        (["--memory", "70kB"], "`memory_budget` must be at least"),
        (["--memory", "plenty"], "`memory` must be a number of bytes such as 500MB or 4GB; got 'plenty'"),
        (["--memory", "0GB"], "`memory` must be a number of bytes"),
        (["--floor", "2"], "`floor` must be a finite number > 0.0 and < 1.0; got 2.0"),
        (["--method", "qr"], "'qr' is not one of"),
        (["--batch-stats", "running"], "`batch_stats` must be given with the norm 'batch' only; got 'running'"),
        (["--width", "1000000"], "`memory` must be more than"),
    ],
)
def test_impossible_requests_are_refused_in_one_line(arguments, message, tmp_path):
    """Exit code 2, one line with the figures, nothing written."""
    result = CliRunner().invoke(main, ["spectrum", "--preset", "quick", "--out", str(tmp_path / "out"), *arguments])
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["2GB", "2 GB", "2e9", "2000MB", "2000000000"])
def test_sizes_of_memory_are_read_with_their_units(text):
    """All the same number of bytes."""
    assert spectrum._bytes(text) == 2_000_000_000


@pytest.mark.slow
def test_smallest_singular_value_is_right_at_depth_1000():
    """ln σ of 1,000 Gaussian factors of width 128: finite, both ends within 4 exact standard errors of theory."""
    arguments = ["--depth", "1000", "--width", "128", "--activation", "linear", "--init", "gaussian", "--sigma-w", "1"]
    found = printed(*arguments)
    values = np.asarray(found["log_singular_values"])
    assert np.isfinite(values).all()
    assert found["relative_error"] < 1e-6
    for extreme in found["log_sigma"].values():
        assert abs(extreme["mean"] - extreme["predicted"]) < 4 * extreme["predicted_se"]
    sums, exact = values.sum(axis=1), 1000 * lyapunov_exponents(128).sum()  # ln|det J|, exact at every depth
    assert abs(sums.mean() - exact) < 5 * sums.std(ddof=1) / 2
