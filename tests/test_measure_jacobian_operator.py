"""The Jacobian as an operator: the matrix of autograd, exact adjoints, ranks that follow from the layers."""

import copy

import pytest
import torch
from torch import nn

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.linalg import trace
from rmtbn.measure import batch_statistics, jacobian
from rmtbn.measure.jacobian_operator import jacobian_operator, layered, rank_bounds


def draw(*shape, seed=1):
    return torch.randn(shape, generator=rng.torch_generator(seed, "jacobian operator", *shape), dtype=torch.float64)


NETWORKS = {
    "mlp": nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 7)),
    "batch norm": nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 4)),
    "one block": nn.Sequential(nn.Sequential(nn.Linear(6, 6), nn.SiLU()), nn.LayerNorm(6)),
}


@pytest.mark.parametrize("mode", ["batch", "running"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_operator_is_the_jacobian_of_autograd(name, mode):
    """J and Jᵀ of x -> module(x) against `torch.autograd.functional.jacobian`; adjoint; module untouched."""
    module, x = copy.deepcopy(NETWORKS[name]).double(), draw(3, 6)
    before = copy.deepcopy(module.state_dict())
    twin = copy.deepcopy(module).train(mode == "batch")
    with jacobian_operator(module, x, batch_stats=mode if name == "batch norm" else None) as operator:
        matrix = operator.apply(torch.eye(18, dtype=x.dtype)).mT
        u, v = draw(2, operator.outputs), draw(4, operator.inputs)
        forward, back = u @ operator.apply(v).mT, operator.apply_transpose(u) @ v.mT
    expected = torch.autograd.functional.jacobian(twin, x).reshape(matrix.shape)
    torch.testing.assert_close(matrix, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(forward, back, rtol=1e-12, atol=1e-12)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


ONE_EXAMPLE = {
    "mlp": NETWORKS["mlp"],
    "relu": nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 8), nn.ReLU(), nn.Linear(8, 9), nn.ReLU()),
    "begins with relu": nn.Sequential(nn.ReLU(), nn.Linear(6, 9), nn.ReLU(), nn.Tanh(), nn.Linear(9, 5)),
    "norm behind relu": nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.LayerNorm(9), nn.Linear(9, 9), nn.GELU()),
    "one layer": nn.Sequential(nn.Linear(6, 4)),
    "one block": NETWORKS["one block"],
}


@pytest.mark.parametrize("name", ONE_EXAMPLE)
def test_the_operator_of_one_example_leaves_dead_units_out(name):
    """J and Jᵀ from the weights of live units: those of autograd, and the weights as they were."""
    module, x = copy.deepcopy(ONE_EXAMPLE[name]).double(), draw(1, 6)
    for parameter in module.parameters():
        parameter.data += 0.3 * draw(*parameter.shape)
    before = copy.deepcopy(module.state_dict())
    with jacobian_operator(module, x) as operator:
        matrix = operator.apply(torch.eye(operator.inputs, dtype=x.dtype)).mT
        transposed = operator.apply_transpose(torch.eye(operator.outputs, dtype=x.dtype))
    expected = torch.autograd.functional.jacobian(module, x).reshape(operator.outputs, 6)
    torch.testing.assert_close(matrix, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(transposed, expected, rtol=1e-10, atol=1e-12)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    if name == "relu":
        hidden = [module[: i + 1](x) for i in (1, 3, 5)]
        assert all(0 < int(h.count_nonzero()) < h.numel() for h in hidden)


def test_moments_without_the_jacobian_are_those_of_its_spectrum():
    """Mean of λ^k over the outputs of the batch: XTrace on the operator against all singular values, 4 errors."""
    module, x = copy.deepcopy(NETWORKS["batch norm"]).double(), draw(8, 6)
    exact = jacobian.spectrum(module, x)
    with jacobian_operator(module, x) as operator:
        for k in (1, 2, 3):
            found = trace.moment(operator, k, products=24, generator=rng.torch_generator(1, "moments"))
            assert abs(found.value - exact.moment(k)) < 4 * found.standard_error
            assert found.standard_error < 0.1 * exact.moment(k)


def rank(layers, x, *, coupled):
    with batch_statistics.fixed(nn.Sequential(*layers), "batch"):
        return rank_bounds(layers, x, coupled=coupled).tolist()


def test_ranks_count_what_is_lost_for_certain():
    """Narrow layers, dead units, flat ends of hard tanh, the mean that batch statistics take: the least counts."""
    x = draw(4, 6)
    live = [int((one > 0).sum()) for one in x]
    assert rank([nn.ReLU()], x, coupled=False) == live
    assert rank([nn.ReLU()], x, coupled=True) == [sum(live)]
    assert rank([nn.Hardtanh()], x, coupled=False) == [int((one.abs() < 1).sum()) for one in x]
    assert rank([nn.Linear(6, 2).double(), nn.Linear(2, 9).double()], x, coupled=False) == [2] * 4
    assert rank([nn.BatchNorm1d(6).double()], x, coupled=True) == [24 - 6]
    assert rank([nn.Tanh(), nn.Softmax(dim=1)], x, coupled=False) == [6] * 4
    assert rank([nn.ReLU(), nn.Linear(6, 6).double()], x, coupled=False) == live


def test_bounds_on_the_rank_are_bounds():
    """Never below the rank of the assembled Jacobian, in deep networks with and without batch statistics."""
    for norm in (False, True):
        layers = [
            layer for i in range(4) for layer in (nn.Linear(8, 8), *([nn.BatchNorm1d(8)] if norm else []), nn.ReLU())
        ]
        module, x = nn.Sequential(*layers).double(), draw(6, 8, seed=3)
        with jacobian_operator(module, x) as operator:
            matrix = operator.apply(torch.eye(48, dtype=x.dtype)).mT
            bound = rank_bounds(list(module), x, coupled=True)
        true = int(torch.linalg.matrix_rank(matrix))
        assert true <= int(bound[0]) < 48
        assert int(bound[0]) - true <= 8


def test_impossible_requests_are_refused():
    """What `spectrum` refuses is refused here; no layers are no operator."""
    with (
        pytest.raises(InvalidArgumentError, match="`x` must be finite"),
        jacobian_operator(nn.ReLU(), draw(2, 2) / 0.0),
    ):
        pass
    with pytest.raises(InvalidArgumentError, match="`operators` must be one or more"):
        layered([], draw(2, 2))
    with pytest.raises(InvalidArgumentError, match="`memory_budget` must be an integer >= 1; got 0"):
        layered([nn.ReLU()], draw(2, 2), memory_budget=0)
