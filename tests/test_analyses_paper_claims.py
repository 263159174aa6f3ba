"""The rules by which claims of the paper are judged, and what their studies share."""

import math

import numpy as np
import pytest
import torch
from rmtbn.analyses import _image_networks, _paper_claims
from scipy import stats

from rmtbn.nets.numbering import paper_layers
from rmtbn.result import Scalar


def scalar(value, se, networks=4):
    return Scalar(value=value, se=se, symbol="x", label="x", networks=networks)


def test_there_are_31_claims():
    """Numbers 1 to 31, no statement twice."""
    assert list(_paper_claims.STATEMENTS) == list(range(1, 32))
    assert len({statement for statement, _ in _paper_claims.STATEMENTS.values()}) == 31


@pytest.mark.parametrize(
    ("distance", "verdict"), [(1.01, "supported"), (0.99, "inconclusive"), (-1.01, "contradicted")]
)
def test_a_bound_is_judged_by_the_interval_of_student(distance, verdict):
    """Supported once the bound is t(0.975) standard errors below the mean, n - 1 degrees of freedom."""
    reach = float(stats.t(3).ppf(0.975)) * 0.5
    assert _paper_claims.above(scalar(distance * reach, 0.5), 0.0) == verdict
    assert _paper_claims.below(scalar(-distance * reach, 0.5), 0.0) == verdict


def test_one_network_decides_nothing():
    """No error bar, no verdict."""
    assert _paper_claims.above(scalar(5.0, math.inf, networks=1), 0.0) == "inconclusive"
    assert _paper_claims.above(scalar(math.nan, 0.1), 0.0) == "inconclusive"


def test_all_statements_must_hold():
    """One contradicted contradicts, one undecided leaves it open."""
    assert _paper_claims.together("supported", "supported") == "supported"
    assert _paper_claims.together("supported", "inconclusive") == "inconclusive"
    assert _paper_claims.together("inconclusive", "contradicted") == "contradicted"
    assert _paper_claims.between(scalar(1.0, 0.01), 0.0, 2.0) == "supported"
    assert _paper_claims.between(scalar(3.0, 0.01), 0.0, 2.0) == "contradicted"


def test_geometric_means_are_written_with_first_order_errors():
    """exp(m) ± exp(m) s; a large s is a factor exp(s)."""
    assert _paper_claims.geometric(scalar(math.log(100.0), 0.01)) == "100.0 ± 1.0"
    assert _paper_claims.geometric(scalar(math.log(100.0), math.log(3.0))) == "100 ×/÷ 3.0"
    assert _paper_claims.geometric(scalar(math.log(100.0), math.inf, networks=1)) == "100"


def test_layers_have_the_numbers_of_the_paper():
    """18/54/90, 8/44/80 and 55 of ResNet-110, each in its stage of a shallower network."""
    assert _image_networks.middle_layers(110) == (18, 54, 90)
    assert _image_networks.early_layers(110) == (8, 44, 80)
    assert _image_networks.middle_layer(110) == 55
    for depth in (8, 14, 20, 56):
        n = (depth - 2) // 6
        for found in (_image_networks.middle_layers(depth), _image_networks.early_layers(depth)):
            assert [(layer - 2) // (2 * n) for layer in found] == [0, 1, 2]


def test_networks_of_all_kinds_have_the_same_weights():
    """A norm changes no draw; without it there are biases, and they are 0."""
    batch = _image_networks.images("digits", seed=1, examples=4, device="cpu", dtype="float64")
    nets = {kind: _image_networks.network(seed=1, kind=kind, depth=8, like=batch) for kind in _image_networks.KINDS}
    weights = {
        kind: [net.get_submodule(name).weight for name in paper_layers(net).values()] for kind, net in nets.items()
    }
    for kind in _image_networks.KINDS:
        assert all(torch.equal(a, b) for a, b in zip(weights["none"], weights[kind], strict=True))
    biases = [net.get_submodule(name).bias for net in (nets["none"],) for name in paper_layers(net).values()]
    assert all(bias is not None and not bias.any() for bias in biases)


def test_kinds_normalise_what_they_say():
    """No norm, 2 per block and the stem, one more at the end, that one alone."""
    batch = _image_networks.images("digits", seed=1, examples=4, device="cpu", dtype="float32")
    counts = {
        kind: sum(
            isinstance(part, torch.nn.BatchNorm2d)
            for part in _image_networks.network(seed=1, kind=kind, depth=8, like=batch).modules()
        )
        for kind in _image_networks.KINDS
    }
    assert counts == {"none": 0, "batch": 7, "final": 8, "only_final": 1}


def test_batches_are_draws_of_their_seed():
    """The same images for a seed, others for another."""
    one, same, other = (
        _image_networks.images("digits", seed=seed, examples=8, device="cpu", dtype="float64").inputs
        for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not np.array_equal(one.numpy(), other.numpy())
