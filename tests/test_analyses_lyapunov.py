"""`rmtbn lyapunov`: its cells, its predictions, its claims both ways, its page."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from rmtbn.analyses import _lyapunov_claims, _lyapunov_page, lyapunov
from rmtbn.analyses.__main__ import main
from rmtbn.analyses._lyapunov_records import Exponents, numbers
from rmtbn.analyses._lyapunov_theory import Kind, input_square, linear_like, name, predict, wide_spectrum, wide_top
from rmtbn.analyses._options import Common

from rmtbn import rng
from rmtbn.report.page import Claim
from rmtbn.sweep.grid import Cell
from rmtbn.sweep.run import run
from rmtbn.sweep.store import MemoryStore
from rmtbn.theory import bn_mean_field, mean_field
from rmtbn.theory.finite_width import log_singular_value_means, lyapunov_exponents, lyapunov_variances

LINEAR, ISOMETRY, RELU, _, ORDERED, CRITICAL, *_ = lyapunov.KINDS
NORMED = Kind(activation="tanh", norm="batch", init="gaussian", sigma_w2=1.0, sigma_b2=0.0)
PLACE = {"device": "cpu", "dtype": "float64"}


def measure(kinds, *, widths=(8,), depth=8, batch=4):
    """Measure kinds of network."""
    cells = [
        Cell(parameters={**kind.parameters(), "width": width, "depth": depth, **PLACE,
                         "batch": batch if kind.norm == "batch" else 1}, seed=1)
        for kind in kinds for width in widths
    ]  # fmt: skip
    return Exponents(run(lyapunov.STUDY, cells, store=MemoryStore(), progress=False))


@pytest.fixture(scope="module")
def measured():
    """A kind of every sort."""
    return measure((LINEAR, ISOMETRY, RELU, CRITICAL, NORMED))


def from_theory(kinds, *, widths=(16, 32), depth=256, networks=20, shift=0.0, spread=1.0, batch=8):
    """Records in which ln σ_k are what theory says, with its own fluctuations, plus a shift of the exponents."""
    draws, rows = rng.generator(1, "exponents"), []
    for kind in kinds:
        for width in widths:
            spectrum = predict(kind, width=width, depth=depth, batch=batch).spectrum
            known = np.isfinite(spectrum)
            variances = lyapunov_variances(width) if spectrum.size == width else 1 / width
            noise = draws.standard_normal((networks, spectrum.size)) * np.sqrt(variances)
            for layers in (depth // 2, depth):
                logs = layers * (spectrum + shift) + math.sqrt(layers) * noise * 0.3 * spread
                if kind == LINEAR:
                    logs = log_singular_value_means(width, depth=layers) + layers * shift + math.sqrt(layers) * noise
                logs = np.where(known, logs, -np.inf)
                rows += [{**kind.parameters(), "width": width, "batch": batch, "seed": 1, "network": i, "layer": layers,
                          "log_singular_values": values} for i, values in enumerate(logs)]  # fmt: skip
    found = Exponents.__new__(Exponents)
    found.rows, found.kinds, found._values = pd.DataFrame(rows), tuple(kinds), {}
    return found


def verdicts(exponents):
    return [claim.verdict for claim in _lyapunov_claims.claims(exponents)]


def test_a_cell_is_a_function_of_its_parameters_alone():
    """The same twice; one row per network and layer, at L, L/2, … down to 4 or more."""
    arguments = {**CRITICAL.parameters(), **PLACE, "width": 5, "depth": 10, "batch": 1}
    first, second = (lyapunov.cell(seed=1, **arguments)["spectra"] for _ in range(2))
    pd.testing.assert_frame_equal(first, second, check_exact=True)
    assert sorted(set(first.layer)) == [5, 10]
    assert len(first) == 2 * lyapunov.CHUNK
    assert (first.relative_error < 1e-6).all()


def test_every_preset_has_cells_of_every_kind():
    """Kinds × widths × seeds, with the depth and the seeds of their norm."""
    for preset, sizes in lyapunov.GRID.items():
        options = Common(
            seed=3, **PLACE, out=Path("reports"), preset=preset, engine="inline", workers=None, as_json=True
        )
        cells = lyapunov.cells(options, lyapunov.KINDS)
        per_norm = {"none": sizes["seeds"], "batch": sizes["batch_seeds"]}
        kinds = sum(per_norm[kind.norm] for kind in lyapunov.KINDS)
        assert len(cells) == kinds * len(lyapunov.WIDTHS[preset])
        assert {cell.parameters["batch"] for cell in cells if cell.parameters["norm"] == "none"} == {1}
        assert min(cell.seed for cell in cells) == 3


def test_networks_start_at_their_fixed_length():
    """q* of tanh is that of the mean field; every length does for homogeneous activations; others are refused."""
    assert CRITICAL.q == mean_field.fixed_point("tanh", **CRITICAL.sigmas()).q
    assert LINEAR.q == RELU.q == NORMED.q == 1.0
    assert CRITICAL.check() is None
    q = CRITICAL.sigma_w2 * input_square(CRITICAL) + CRITICAL.sigma_b2  # of the first pre-activations
    assert q == pytest.approx(CRITICAL.q)


@pytest.mark.parametrize(("activation", "norm"), [("linear", "none"), ("tanh", "batch")])
def test_biases_do_not_matter_where_lengths_do_not(activation, norm):
    """The Jacobian of a linear network knows no biases, and a normalised layer has none: any σ_b is right."""
    kind = Kind(activation=activation, norm=norm, init="gaussian", sigma_w2=1.0, sigma_b2=4.0)
    kind.check()
    assert input_square(kind) == 1.0
    assert kind.is_exact == (norm == "none")
    assert np.isfinite(predict(kind, width=8, depth=16, batch=8).top)


def test_exponents_are_growth_between_half_the_depth_and_the_depth(measured):
    """(ln σ_k(L) - ln σ_k(L/2))/(L/2); an isometry has none; zeros are -∞."""
    last, half = (measured.log_sigma(LINEAR, width=8, depth=d) for d in (8, 4))
    np.testing.assert_allclose(measured.exponents(LINEAR, width=8), (last - half) / 4)
    assert np.abs(measured.exponents(ISOMETRY, width=8)).max() < 1e-13
    relu = measured.exponents(RELU, width=8)
    assert np.isneginf(relu).any()
    assert not np.isnan(relu).any()
    assert measured.exponents(NORMED, width=8).shape == (lyapunov.CHUNK, 4 * 8)


def test_profiles_hold_what_every_network_kept(measured):
    """The k-th exponent is left out where a network has lost it."""
    values = measured.exponents(RELU, width=8)
    values = values[np.isfinite(values[:, 0])]
    found = measured.profile(RELU, width=8)
    assert found.value.size == np.isfinite(values).all(axis=0).sum()
    assert found.networks == len(values)


def test_mean_exponent_is_that_of_the_determinant(measured):
    """Mean of λ_k = growth of ln|det J| per unit and layer; -∞ where singular values are 0."""
    last, half = (measured.log_sigma(CRITICAL, width=8, depth=d).sum(axis=1) for d in (8, 4))
    assert measured.mean(CRITICAL, width=8).value == pytest.approx(((last - half) / 4 / 8).mean())
    assert measured.mean(RELU, width=8).value == -math.inf


def test_predictions_of_linear_networks_are_newmans():
    """Exponents plus ln σ_w, exactly; orthogonal weights have none but that."""
    kind = Kind(activation="linear", norm="none", init="gaussian", sigma_w2=4.0, sigma_b2=0.0)
    found = predict(kind, width=9, depth=64, batch=1)
    np.testing.assert_allclose(found.spectrum, lyapunov_exponents(9) + math.log(2))
    assert (found.top, found.top_source) == (found.spectrum[0], "exact")
    assert found.mean == pytest.approx(found.spectrum.mean())
    assert np.all(predict(ISOMETRY, width=9, depth=64, batch=1).spectrum == 0)


def test_predictions_of_other_networks_come_from_the_mean_field():
    """Top ½ ln χ₁ and, for Gaussian weights, its first order in 1/N; BN ½ ln λ_G and its law's growth."""
    chi = float(mean_field.chi1(ORDERED.q, "tanh", sigma_w=ORDERED.sigmas()["sigma_w"]))
    assert wide_top(ORDERED) == pytest.approx(0.5 * math.log(chi))
    tops = [predict(ORDERED, width=width, depth=64, batch=1).top for width in (50, 100, 200)]
    gaps = [wide_top(ORDERED) - top for top in tops]
    assert gaps[0] / gaps[1] == pytest.approx(2, abs=0.02)
    assert gaps[1] / gaps[2] == pytest.approx(2, abs=0.02)
    rate = bn_mean_field.fixed_point("tanh", batch_size=8).explosion_rate
    normed = predict(NORMED, width=50, depth=64, batch=8)
    assert (normed.top, normed.mean) == (0.5 * math.log(rate), None)
    assert np.isneginf(normed.spectrum).sum() == 2 * 50  # of 8 · 50: mean and scale of every unit
    assert normed.spectrum[0] == pytest.approx(normed.top, abs=0.02)
    assert predict(RELU, width=8, depth=64, batch=1).mean is None


def test_linear_networks_of_the_same_gradient_growth_have_the_same_top():
    """The alternative of two claims: χ₁ = σ_w²."""
    assert wide_top(linear_like(ORDERED)) == pytest.approx(wide_top(ORDERED))
    assert wide_spectrum(linear_like(ORDERED), width=40)[20] > wide_spectrum(ORDERED, width=40)[20]


def test_real_networks_have_the_exponents_of_theory():
    """Linear and ReLU networks of width 8, 32 layers: the top and a middle exponent within 5 exact standard errors."""
    found = measure((LINEAR, RELU), widths=(8,), depth=32)
    for kind, ks in ((LINEAR, (1, 4, 8)), (RELU, (1,))):
        exponents, law = found.exponents(kind, width=8), predict(kind, width=8, depth=32, batch=1).spectrum
        exponents = exponents[np.isfinite(exponents[:, 0])]
        for k in ks:
            se = (
                max(exponents[:, k - 1].std(ddof=1), math.sqrt(lyapunov_variances(8)[k - 1] / 16))
                / len(exponents) ** 0.5
            )
            assert abs(exponents[:, k - 1].mean() - law[k - 1]) < 5 * se


@pytest.mark.parametrize("kinds", [(LINEAR,), (RELU,), (ORDERED, CRITICAL), (NORMED,)])
def test_claims_can_come_out_either_way(kinds):
    """Records made from theory support every claim; the same with exponents off by 0.3 contradict each."""
    assert set(verdicts(from_theory(kinds))) == {"supported"}
    assert set(verdicts(from_theory(kinds, shift=0.3))) == {"contradicted"}


def test_claims_without_power_are_inconclusive():
    """Networks that differ wildly exclude neither the exact exponents nor those of infinite width."""
    assert verdicts(from_theory((RELU,), spread=300.0)) == ["inconclusive"]
    assert verdicts(from_theory((NORMED,), spread=300.0))[1] == "inconclusive"


def test_newmans_claim_tells_the_overlap_of_frames():
    """Exponents × depth alone, without ½[ψ((N-k+1)/2) - ψ(k/2)], are contradicted."""
    found = from_theory((LINEAR,), networks=200)
    for width in (16, 32):
        overlap = log_singular_value_means(width, depth=1) - lyapunov_exponents(width)
        at = (found.rows.width == width).to_numpy()
        found.rows.loc[at, "log_singular_values"] = found.rows[at].log_singular_values.map(lambda v, o=overlap: v - o)
    assert verdicts(found) == ["contradicted"]


def test_page_says_what_theory_says_and_where_there_is_none(measured):
    """Sections, a row of the table for every kind and width, and the reasons for what is missing."""
    page = _lyapunov_page.page(measured, manifest={"finished": "now"})
    assert "With batch normalisation the largest singular value grows" in page.summary
    titles = [section.title for section in page.sections]
    assert titles == ["What is measured", "Spectra of exponents", "Batch normalisation against none", "Convergence",
                      "Claims", "Numbers"]  # fmt: skip
    (table,) = page.sections[-1].blocks
    assert len(table.rows) == 5
    assert {row[-1] for row in table.rows} == {"exact", "N → ∞"}
    assert any(isinstance(block, Claim) for block in page.sections[4].blocks)
    assert "theory has nothing to say" in " ".join(block for block in page.sections[0].blocks if isinstance(block, str))


def test_figures_can_be_drawn(measured):
    """Every figure draws on an empty canvas; a page of one kind with batch normalisation too."""
    from matplotlib.figure import Figure as Canvas

    alone = Exponents.__new__(Exponents)
    alone.rows, alone.kinds, alone._values = measured.rows, (NORMED,), {}
    for page in (_lyapunov_page.page(found, manifest={}) for found in (measured, alone)):
        figures = [b for section in page.sections for b in section.blocks if hasattr(b, "draw")]
        assert figures
        for figure in figures:
            canvas = Canvas(figsize=figure.size)
            figure.draw(canvas)
            assert canvas.axes


def test_numbers_have_a_prediction_where_there_is_one(measured):
    """Exponents, errors, predictions by kind and width, strict JSON but for infinities."""
    found = numbers(measured)
    assert set(found) == {name(kind) for kind in measured.kinds}
    assert len(found[name(NORMED)]["8"]["predicted"]) == 32
    assert found[name(NORMED)]["8"]["dimension"] == 32
    assert len(found[name(LINEAR)]["8"]["predicted"]) == 8
    assert found[name(CRITICAL)]["8"]["mean"]["predicted"] is not None


def test_command_prints_one_kind(monkeypatch):
    """--activation measures that kind alone."""
    monkeypatch.setattr(lyapunov, "GRID", {"quick": {**lyapunov.GRID["quick"], "depth": 8}})
    arguments = ["lyapunov", "--activation", "leaky_relu", "--sigma-w", "1.4", "--preset", "quick", "--json"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    ((kind, widths),) = json.loads(result.stdout).items()
    assert "leaky ReLU" in kind
    assert list(widths) == ["8", "16"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--activation", "tanh", "--sigma-w", "0.5"), "settle"),
        (("--activation", "relu", "--sigma-b", "1", "--sigma-w", "2"), "settle"),
        (("--sigma-w", "0"), "sigma"),
        (("--activation", "swish"), "swish"),
    ],
)
def test_a_mistake_is_one_clear_line(arguments, said):
    """Exit code 2; networks whose lengths vanish or diverge are refused."""
    result = CliRunner().invoke(main, ["lyapunov", *arguments, "--preset", "quick", "--json"])
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
