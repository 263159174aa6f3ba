"""`rmtbn product`: factors against random matrices, products against their law, trained weights, and every mistake."""

import itertools
import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from rmtbn.analyses import _product_cells, _product_page, product
from rmtbn.analyses.__main__ import main
from rmtbn.analyses._options import Common
from rmtbn.analyses._product_records import Products, _layer, product_law
from safetensors.torch import save_file

from rmtbn.compare import compare
from rmtbn.report.page import Claim, Table
from rmtbn.sweep.grid import Cell, key
from rmtbn.sweep.run import run
from rmtbn.sweep.store import MemoryStore
from rmtbn.theory.finite_width import log_det_law
from rmtbn.theory.fuss_catalan import FussCatalan
from rmtbn.theory.jacobian import jacobian_law

PLACE = {"device": "cpu", "dtype": "float64"}


def drawn(widths, *, law="gaussian", sigma_w=1.0, products=4, against=None):
    """Draw products and hold them against a law."""
    parameters = {"widths": widths, "law": law, "sigma_w": sigma_w, **PLACE}
    cells = [Cell(parameters=parameters, seed=seed) for seed in range(1, products + 1)]
    records = run(_product_cells.DRAWN, cells, store=MemoryStore(), progress=False)
    return Products(records, law=against or law, sigma_w=sigma_w)


def call(*arguments):
    return CliRunner().invoke(main, ["product", *(str(argument) for argument in arguments)])


def printed(*arguments):
    """Numbers that the command prints."""
    result = call(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout, parse_constant=pytest.fail)


def gaussian(outputs, inputs, *, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(outputs, inputs, generator=generator, dtype=torch.float64) / inputs**0.5


def network(*, spike=0.0, sizes=(96, 128, 128, 64), seed=1):
    """A state_dict of Gaussian layers with σ_w = √2; `spike` times u vᵀ, |u| = |v| = 1, is added to the second."""
    state = {}
    for i, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        state[f"{2 * i}.weight"] = 2**0.5 * gaussian(outputs, inputs, seed=10 * seed + i)
        state[f"{2 * i}.bias"] = torch.zeros(outputs, dtype=torch.float64)
    u, v = gaussian(sizes[2], 1, seed=7), gaussian(sizes[1], 1, seed=8)
    state["2.weight"] += spike * (u / u.norm()) @ (v / v.norm()).T
    return state


def saved(path, state):
    torch.save(state, path)
    return path


def test_a_cell_measures_the_factors_that_it_multiplies():
    """σ of each factor and of the product, against numpy's SVD; σ_w multiplies each factor."""
    tables = _product_cells.drawn(seed=3, widths="5,7,4", law="gaussian", sigma_w=1.5, **PLACE)
    again = _product_cells.drawn(seed=3, widths="5,7,4", law="gaussian", sigma_w=1.0, **PLACE)
    assert list(tables["layers"].outputs) == [7, 4]
    first, second = (np.array(values) for values in tables["layers"].log_singular_values)
    np.testing.assert_allclose(first - again["layers"].log_singular_values[0], math.log(1.5), rtol=1e-12)
    assert (len(first), len(second)) == (5, 4)
    total = np.array(tables["product"].log_singular_values[0])
    assert len(total) == 4
    assert total.max() <= first.max() + second.max()


@pytest.mark.parametrize("law", ["gaussian", "uniform", "orthogonal"])
def test_drawn_factors_have_the_law_and_the_scale_asked_for(law):
    """Mean of λ = σ_w²; entries within their bounds for the uniform law; Haar matrices have one singular value."""
    found = drawn("64,64", law=law, sigma_w=1.7, products=6)
    (layer,) = found.layers
    assert layer.sigma_w2 == pytest.approx(1.7**2, rel=0.05)
    assert layer.kind == ("orthogonal" if law == "orthogonal" else "random")
    assert found.comparison.verdict != "rejected"


def test_products_of_a_file_are_those_of_its_matrices(tmp_path):
    """W_3 W_2 W_1 multiplied out, its SVD by numpy: every ln σ to 1e-9; the file of safetensors gives the same."""
    state = network()
    matrices = [state[f"{i}.weight"].numpy() for i in (0, 2, 4)]
    expected = np.log(np.linalg.svd(matrices[2] @ matrices[1] @ matrices[0], compute_uv=False))
    save_file(state, tmp_path / "net.safetensors")
    for path in (saved(tmp_path / "net.pt", state), tmp_path / "net.safetensors"):
        found = printed("--file", path)
        np.testing.assert_allclose(found["log_singular_values"][0], expected, atol=1e-9)
        assert found["widths"] == [96, 128, 128, 64]
        assert [layer["name"] for layer in found["layers"]] == ["0.weight", "2.weight", "4.weight"]


def test_numbers_of_a_layer_are_those_of_its_matrix(tmp_path):
    """σ_max, σ_min, ‖W‖, κ and the fitted σ_w² = ‖W‖²/outputs, by numpy."""
    matrix = network()["2.weight"].numpy()
    (layer,) = printed("--file", saved(tmp_path / "net.pt", network()), "--tensors", "2.*")["layers"]
    sigma = np.linalg.svd(matrix, compute_uv=False)
    assert layer["sigma_max"] == pytest.approx(sigma[0])
    assert layer["sigma_min"] == pytest.approx(sigma[-1])
    assert layer["frobenius"] == pytest.approx(np.linalg.norm(matrix))
    assert layer["log_condition"] == pytest.approx(math.log(np.linalg.cond(matrix)))
    assert layer["sigma_w2"] == pytest.approx((matrix**2).sum() / 128)


def test_jax_weights_are_transposed(tmp_path):
    """A file of (inputs, outputs) matrices read with --transpose is the same network."""
    state = network()
    flipped = {name: tensor.T.contiguous() for name, tensor in state.items() if tensor.ndim == 2}
    first = printed("--file", saved(tmp_path / "net.pt", state))
    second = printed("--file", saved(tmp_path / "jax.pt", flipped), "--transpose")
    np.testing.assert_allclose(first["log_singular_values"], second["log_singular_values"], rtol=1e-10)


def test_random_weights_look_random_and_learnt_ones_do_not(tmp_path):
    """A spike of 3 standard bulk radii on one layer: one value beyond the edge there, and nowhere else."""
    plain = printed("--file", saved(tmp_path / "init.pt", network()))
    spiked = printed("--file", saved(tmp_path / "trained.pt", network(spike=6.0)))
    assert [layer["kind"] for layer in plain["layers"]] == ["random"] * 3
    assert [layer["kind"] for layer in spiked["layers"]] == ["random", "neither", "random"]
    assert [layer["outliers"] for layer in spiked["layers"]] == [0, 1, 0]
    # Benaych-Georges & Nadakuditi 2012: a spike θ > 1 on a square matrix of variance 1/N is at σ = θ + 1/θ
    theta = 6 / 2**0.5
    assert spiked["layers"][1]["sigma_max"] == pytest.approx(2**0.5 * (theta + 1 / theta), rel=0.03)


def layer_of(matrix):
    """The analysis of one matrix."""
    values = torch.linalg.svdvals(matrix).log().tolist()
    sizes = {"size": "m × n", "outputs": matrix.shape[0], "inputs": matrix.shape[1], "positions": 1}
    return _layer(pd.DataFrame({"name": "w", **sizes, "log_singular_values": [values]}))


@pytest.mark.parametrize("shape", [(8, 8), (16, 64), (64, 16), (128, 128), (10, 400)])
@pytest.mark.parametrize("uniform", [False, True])
def test_random_matrices_of_every_shape_pass_as_random(shape, uniform):
    """KS and edge stay within the limits for Gaussian and uniform entries: 12 matrices of each shape."""
    generator = torch.Generator().manual_seed(1)
    draw = torch.rand if uniform else torch.randn
    for _ in range(12):
        layer = layer_of(draw(*shape, generator=generator, dtype=torch.float64) - 0.5 * uniform)
        assert layer.kind == "random", (layer.ks, layer.ks_limit, layer.excess)


def test_other_bulks_are_not_taken_for_random():
    """Equally spread singular values, and those of a product of two Gaussian matrices: KS beyond the limit."""
    assert layer_of(torch.diag(torch.linspace(0.02, 2.0, 128, dtype=torch.float64))).kind == "neither"
    assert layer_of(gaussian(128, 128, seed=1) @ gaussian(128, 128, seed=2)).kind == "neither"


def test_zeros_of_a_matrix_of_low_rank_are_zeros():
    """Rank 3: ln σ_min = -∞, which JSON writes as null, and the matrix is not random."""
    tables = _product_cells._measured({"w": gaussian(20, 3, seed=1) @ gaussian(3, 20, seed=2)}, image=0, whole=False,
                                      **PLACE)  # fmt: skip
    values = np.array(tables["layers"].log_singular_values[0])
    assert np.isneginf(values[3:]).all()
    assert np.isfinite(values[:3]).all()


def test_square_gaussian_products_follow_fuss_catalan():
    """KS below 4/N, moments of the law 1 and C(3·2, 2)/5 = 3 for two factors; the law of three factors is rejected."""
    found = drawn("96,96,96", products=8)
    assert found.comparison.ks < 4 / 96
    assert found.comparison.verdict in {"agrees", "agrees to order 1/N"}
    assert [m.predicted for m in found.comparison.moments] == pytest.approx([1, 3])
    assert compare(FussCatalan(depth=4), found.spectrum, width=96).verdict == "rejected"


def test_rectangular_products_follow_their_free_law():
    """m_2 = 1 + Σ n_L/n_{l-1}, zeros 1 - min n/n_L, against the square law, which is rejected."""
    found = drawn("120,60,90,120", products=8)
    assert found.comparison.zeros.measured == found.comparison.zeros.predicted == 0.5
    assert found.comparison.moments[1].predicted == pytest.approx(1 + 120 / 120 + 120 / 60 + 120 / 90)
    assert found.comparison.ks < 4 / 60
    assert compare(FussCatalan(depth=3), found.spectrum, width=60).verdict == "rejected"


def test_orthogonal_products_are_orthogonal():
    """Square Haar factors: every ln σ is Σ ln σ_w; the Gaussian law is rejected."""
    found = drawn("24,24,24,24", law="orthogonal", sigma_w=1.3)
    np.testing.assert_allclose(found.spectrum.by_network, 3 * math.log(1.3), atol=1e-12)
    assert found.comparison.verdict == "agrees"
    assert drawn("24,24,24,24", law="orthogonal", against="gaussian").comparison.verdict == "rejected"


def test_law_of_one_factor_is_marchenko_pastur_by_both_routes():
    """The closed form against the free chain of one factor: F to 1e-9."""
    first = product_law((40, 25), weights="gaussian", log_sigma=0.3)
    second = jacobian_law("linear", depth=1, sigma_w=math.exp(0.3), widths=(40, 25))
    x = np.linspace(-4, 2, 50)
    np.testing.assert_allclose(first.cdf_log(x), second.cdf_log(x), atol=1e-9)


def test_log_determinant_of_gaussian_products_is_exact_at_their_width():
    """Within 4 exact standard errors of L Σ λ_k + L N ln σ_w; off by L N ln σ_w without the scale."""
    found = drawn("16,16,16,16", sigma_w=1.4, products=12)
    measured, exact = found.log_det
    law = log_det_law(16, depth=3)
    assert exact.value == pytest.approx(law.mean + 3 * 16 * math.log(1.4))
    assert exact.se == pytest.approx(math.sqrt(law.variance / 12))
    assert abs(measured.value - exact.value) < 4 * exact.se
    assert drawn("16,12,16").log_det is None
    assert drawn("16,16", law="uniform").log_det is None


def test_every_value_of_a_deep_product_is_right():
    """200 factors: the sum of ln σ is Σ ln|det| of the factors to 1e-8 of itself, where a dense SVD has no digit."""
    tables = _product_cells.drawn(seed=1, widths=",".join(["12"] * 201), law="gaussian", sigma_w=1.0, **PLACE)
    total = sum(sum(values) for values in tables["layers"].log_singular_values)
    values = tables["product"].log_singular_values[0]
    assert sum(values) == pytest.approx(total, rel=1e-8)
    assert values[0] - values[-1] > 80


def test_several_files_are_the_unit_of_the_error(tmp_path):
    """Three networks of one architecture: a standard error and a p-value; one network: neither."""
    files = [saved(tmp_path / f"{seed}.pt", network(seed=seed)) for seed in (1, 2, 3)]
    several = printed(*(part for file in files for part in ("--file", file)))
    single = printed("--file", files[0])
    assert (several["networks"], single["networks"]) == (3, 1)
    assert several["comparison"]["ks_pvalue"] is not None
    assert single["comparison"]["ks_se"] is None
    assert single["comparison"]["verdict"] == "undecided"


def test_a_changed_file_is_measured_again(tmp_path):
    """Results are stored by the content of the file: the same path with other weights is another cell."""
    options = Common(seed=1, **PLACE, out=tmp_path, preset="quick", engine="inline", workers=None, as_json=True)
    path, keys = tmp_path / "net.pt", set()
    for spike in (0.0, 6.0, 6.0):
        saved(path, network(spike=spike))
        (cell,) = product.read_cells(options, (str(path),), tensors=(), order="natural", transpose=False, image=0,
                                     whole=True)  # fmt: skip
        keys.add(key(_product_cells.READ.name, _product_cells.READ.version, cell))
    assert len(keys) == 2


def test_kernels_of_convolutions_are_measured_on_images_of_a_given_size(tmp_path):
    """Σ λ = n² ‖K‖² over all frequencies; Gaussian kernels look random, delta-orthogonal ones orthogonal; JAX's too."""
    generator = torch.Generator().manual_seed(1)
    kernel = torch.randn(24, 16, 3, 3, generator=generator, dtype=torch.float64) / 12
    frame = torch.linalg.qr(torch.randn(16, 16, generator=generator, dtype=torch.float64))[0]
    isometry = torch.zeros(16, 16, 3, 3, dtype=torch.float64)
    isometry[:, :, 1, 1] = frame
    path = saved(tmp_path / "conv.pt", {"a": kernel, "b": isometry})
    first, second = printed("--file", path, "--image", "8", "--layers")["layers"]
    lam = np.exp(2 * np.array(first["log_singular_values"][0][: 16 * 64]))
    assert lam.sum() == pytest.approx(64 * float(kernel.square().sum()))
    assert (first["kind"], second["kind"]) == ("random", "orthogonal")
    assert first["shape"] == [24, 16, 3, 3]
    assert first["sigma_w2"] == pytest.approx(float(kernel.square().sum()) / 24)
    flipped = saved(tmp_path / "jax.pt", {"a": kernel.permute(2, 3, 1, 0).contiguous()})
    (again,) = printed("--file", flipped, "--image", "8", "--layers", "--transpose")["layers"]
    assert again["sigma_max"] == pytest.approx(first["sigma_max"])


def claims(products):
    found = _product_page.page(products, manifest={})
    return [block for section in found.sections for block in section.blocks if isinstance(block, Claim)]


def test_claims_can_come_out_either_way():
    """Gaussian factors against their own law, and orthogonal ones against it; too few values, or one product."""
    assert [c.verdict for c in claims(drawn("32,32,32"))] == ["supported", "supported"]
    wrong = drawn("32,32,32", law="orthogonal", against="gaussian")
    assert [c.verdict for c in claims(wrong)] == ["contradicted", "contradicted"]
    assert [c.verdict for c in claims(drawn("32,4", products=1))] == ["inconclusive", "inconclusive"]


def test_page_and_table_of_one_file_say_that_there_is_no_error_bar(tmp_path):
    """The title names the file; no ± ∞ anywhere."""
    path = saved(tmp_path / "net.pt", network())
    result = call("--file", path, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    html = (tmp_path / "product" / "index.html").read_text()
    assert "Singular values of the weights in net.pt" in html
    assert "no error bar" in html
    assert "± ∞" not in html + result.stdout
    assert "2.weight" in result.stdout


def test_long_products_list_forty_factors_evenly():
    """First and last are there; the page says how many are left out."""
    found = drawn(",".join(["4"] * 61), products=2)
    listed = _product_page.shown(found)
    assert (len(listed), listed[0].name, listed[-1].name) == (40, "factor 1", "factor 60")
    blocks = [block for section in _product_page.page(found, manifest={}).sections for block in section.blocks]
    assert any("40 of 60" in block.caption for block in blocks if isinstance(block, Table))


def test_matrices_alone_need_not_chain(tmp_path):
    """--layers: a table without a product."""
    state = {"a": gaussian(8, 4, seed=1), "b": gaussian(5, 3, seed=2)}
    path = saved(tmp_path / "parts.pt", state)
    assert printed("--file", path, "--layers")["log_singular_values"] is None


WRONG = {
    "missing file": (("--file", "none.pt"), "none.pt"),
    "unknown kind": (("--file", "net.txt"), "net.txt", ".safetensors"),
    "no matrices": (("--file", "bias.pt"), "weight matrices"),
    "not finite": (("--file", "nan.pt"), "NaN or infinity in a"),
    "all zero": (("--file", "zero.pt"), "a is 0"),
    "no chain": (("--file", "apart.pt"), "a with 3 outputs before b with 4 inputs"),
    "kernel": (("--file", "conv.pt"), "--image", "conv of shape (4, 3, 2, 2)"),
    "kernel in a product": (("--file", "conv.pt", "--image", "8"), "product", "conv of shape (4, 3, 2, 2)"),
    "no such name": (("--file", "apart.pt", "--tensors", "fc*"), "fc*", "'a', 'b'"),
    "other sizes": (("--file", "one.pt", "--file", "two.pt"), "same sizes"),
    "twice the same": (("--file", "one.pt", "--file", "one.pt"), "different files"),
    "depth beside a file": (("--file", "one.pt", "--depth", "3"), "depth", "file"),
    "names without a file": (("--tensors", "fc*"), "tensors", "--file"),
    "layers without a file": (("--layers",), "layers", "--file"),
    "widths that are no list": (("--widths", "64"), "widths", "64"),
    "width of 0": (("--widths", "64,0"), "widths", "64,0"),
    "σ_w of 0": (("--sigma-w", "0"), "sigma_w", "0"),
    "depth of 0": (("--depth", "0"), "--depth", "0"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_is_one_clear_line_and_writes_nothing(case, tmp_path, monkeypatch):
    """Exit code 2, one line that names what is wrong, no file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.txt").write_text("weights")
    saved(tmp_path / "bias.pt", {"a": torch.ones(3)})
    saved(tmp_path / "nan.pt", {"a": torch.full((2, 2), math.nan)})
    saved(tmp_path / "zero.pt", {"a": torch.zeros(2, 2)})
    saved(tmp_path / "apart.pt", {"a": torch.ones(3, 2), "b": torch.ones(2, 4)})
    saved(tmp_path / "conv.pt", {"conv": torch.ones(4, 3, 2, 2)})
    saved(tmp_path / "one.pt", {"a": torch.eye(3)})
    saved(tmp_path / "two.pt", {"a": torch.eye(4)})
    arguments, *named = WRONG[case]
    result = call(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stderr.count("\n") == 1
    for text in named:
        assert text in result.stderr
    assert not (tmp_path / "reports").exists()
