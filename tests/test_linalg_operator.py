"""Operators: exact adjoints, dense oracles, and shapes that do not fit together."""

import pytest
import torch
from torch import Tensor

from rmtbn import rng
from rmtbn._checks import InvalidArgumentError
from rmtbn.linalg import operator as operators


def draw(*shape, seed=1, dtype=torch.float64):
    return torch.randn(shape, generator=rng.torch_generator(seed, "operator", *shape), dtype=dtype)


MIXING = draw(4, 4, seed=3)


def curved(x: Tensor) -> Tensor:
    """A map from (3, 4) to (3, 2, 2) that is neither linear nor elementwise."""
    return torch.tanh(x.cumsum(dim=0) @ MIXING).reshape(3, 2, 2) + x.square().sum()


OPERATORS = {
    "matrix": operators.from_matrix(draw(7, 5)),
    "chain": operators.composition([operators.from_matrix(draw(*shape)) for shape in ((6, 5), (3, 6), (8, 3))]),
    "differential": operators.differential(curved, draw(3, 4)),
    "in chunks": operators.differential(curved, draw(3, 4), chunk_size=2),
}


def dense(operator: operators.Operator) -> Tensor:
    return operator.apply(torch.eye(operator.inputs, dtype=operator.dtype)).mT


@pytest.mark.parametrize("name", OPERATORS)
def test_transposes_are_adjoint(name):
    """<u, J v> = <Jᵀ u, v> for blocks of vectors, to rounding."""
    operator = OPERATORS[name]
    v, u = draw(5, operator.inputs), draw(3, operator.outputs, seed=2)
    forward, back = u @ operator.apply(v).mT, operator.apply_transpose(u) @ v.mT
    assert torch.allclose(forward, back, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(forward, 2 * back)
    assert torch.equal(operator.transposed.apply(u), operator.apply_transpose(u))
    assert (operator.transposed.inputs, operator.transposed.outputs) == (operator.outputs, operator.inputs)


def test_operators_are_the_matrices_they_stand_for():
    """J of a matrix, of a product from right to left, and of a function by reverse-mode autograd."""
    factors = [draw(*shape) for shape in ((6, 5), (3, 6), (8, 3))]
    torch.testing.assert_close(dense(OPERATORS["matrix"]), draw(7, 5))
    torch.testing.assert_close(dense(OPERATORS["chain"]), factors[2] @ factors[1] @ factors[0])
    expected = torch.autograd.functional.jacobian(curved, draw(3, 4)).reshape(12, 12)
    torch.testing.assert_close(dense(OPERATORS["differential"]), expected)
    torch.testing.assert_close(dense(OPERATORS["in chunks"]), expected)


@pytest.mark.parametrize("shapes", [[], [(6, 5), (3, 5)]])
def test_operators_that_do_not_fit_are_refused(shapes):
    """A composition needs one factor at least, and each to take what the one before it gives."""
    with pytest.raises(InvalidArgumentError, match="`operators` must be one or more"):
        operators.composition([operators.from_matrix(draw(*shape)) for shape in shapes])
