"""The Jacobian as one matrix, against reverse mode."""

import pytest
import torch
from torch import Tensor, nn
from torch.func import jacrev

from rmtbn import rng
from rmtbn.measure import assembly
from rmtbn.measure.assembly import Assembled

BUDGET = 2**20


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=rng.torch_generator(2, "assembly", *shape), dtype=torch.float64)


def linear(n: int, m: int, *, bias: bool = True) -> nn.Linear:
    layer = nn.Linear(n, m, bias=bias, dtype=torch.float64)
    layer.weight.data = draw(m, n)
    if bias:
        layer.bias.data = draw(m)
    return layer.requires_grad_(False)


NETWORKS = {
    "relu": [linear(9, 12), nn.ReLU(), linear(12, 8), nn.ReLU(), linear(8, 10)],
    "ends in relu": [linear(9, 12, bias=False), nn.ReLU(), linear(12, 8), nn.ReLU()],
    "begins with relu": [nn.ReLU(), linear(9, 7), nn.Tanh(), nn.ReLU(), linear(7, 7)],
    "tanh": [linear(9, 5), nn.Tanh(), linear(5, 5), linear(5, 6), nn.GELU()],
    "norm between": [linear(9, 12), nn.ReLU(), nn.LayerNorm(12, dtype=torch.float64), linear(12, 6), nn.Sigmoid()],
    "unknown between": [linear(9, 8), nn.ReLU(), nn.Softplus(), linear(8, 8), nn.Hardtanh(), nn.Identity()],
    "one layer": [linear(9, 4)],
    "begins with identity": [nn.Identity(), nn.Tanh(), linear(9, 4)],
    "tokens": [nn.Unflatten(1, (3, 3)), linear(3, 4), nn.ReLU(), nn.Flatten()],
    "images": [
        nn.Unflatten(1, (1, 3, 3)),
        nn.Conv2d(1, 4, 2, dtype=torch.float64).requires_grad_(False),
        nn.ReLU(),
        nn.Flatten(),
    ],
}


def oracle(layers: list[nn.Module], x: Tensor, *, coupled: bool) -> Tensor:
    whole = nn.Sequential(*layers)
    if coupled:
        return jacrev(lambda v: whole(v.reshape(x.shape)).flatten())(x.flatten())[None]
    return torch.stack([jacrev(lambda v: whole(v[None])[0].flatten())(one) for one in x])


def whole_matrix(found: Assembled) -> Tensor:
    """With the rows that were left out, which are 0."""
    matrix = found.matrix()
    rows = torch.zeros(len(matrix), found.point.numel() // len(matrix), matrix.shape[-1], dtype=torch.float64)
    rows[:, slice(None) if found.live is None else found.live] = matrix
    return rows


@pytest.mark.parametrize("known", [0, 1, 2, 99])
@pytest.mark.parametrize(("examples", "coupled"), [(1, False), (1, True), (3, False), (3, True)])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_matrix_is_that_of_reverse_mode(name, examples, coupled, known):
    """One example and several, together and each by itself, with points known beforehand or found on the way."""
    layers, x = NETWORKS[name], draw(examples, 9)
    points = [nn.Sequential(*layers[: i + 1])(x) for i in range(len(layers))][:known]
    with torch.no_grad():
        found = assembly.pushed(assembly.begun(x, coupled=coupled), layers, points, budget=BUDGET)
    torch.testing.assert_close(whole_matrix(found), oracle(layers, x, coupled=coupled), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(found.point, nn.Sequential(*layers)(x), rtol=1e-13, atol=0)
    ranks = torch.linalg.matrix_rank(oracle(layers, x, coupled=coupled))
    assert bool((ranks <= found.bound).all())


@pytest.mark.parametrize("cut", [1, 2, 3, 4])
def test_a_network_may_be_pushed_in_parts(cut):
    """Wherever it is cut, also between a layer and its activation."""
    layers, x = NETWORKS["relu"], draw(1, 9)
    with torch.no_grad():
        first = assembly.pushed(assembly.begun(x, coupled=False), layers[:cut], [], budget=BUDGET)
        before = whole_matrix(first).clone()
        both = assembly.pushed(first, layers[cut:], [], budget=BUDGET)
    torch.testing.assert_close(whole_matrix(both), oracle(layers, x, coupled=False), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(before, oracle(layers[:cut], x, coupled=False), rtol=1e-12, atol=1e-13)


def test_dead_units_are_left_out():
    """Behind a ReLU the tangents hold the live units only, and the rank is bounded by their number."""
    layers, x = NETWORKS["ends in relu"], draw(1, 9)
    with torch.no_grad():
        found = assembly.pushed(assembly.begun(x, coupled=False), layers, [], budget=BUDGET)
    live = [int((nn.Sequential(*layers[:i])(x) > 0).sum()) for i in (2, 4)]
    assert 0 < min(live) < 8
    assert found.matrix().shape == (1, live[1], 9)
    assert int(found.bound) == min(live)


def test_a_layer_whose_units_are_all_dead_leaves_zeros():
    """Nothing is left out where nothing would be left, and the rank is 0."""
    dead = linear(9, 4)
    dead.bias.data.fill_(-1e3)
    with torch.no_grad():
        found = assembly.pushed(assembly.begun(draw(1, 9), coupled=False), [dead, nn.ReLU()], [], budget=BUDGET)
    assert found.matrix().shape == (1, 4, 9)
    assert not bool(found.matrix().any())
    assert int(found.bound) == 0


def test_weights_are_left_alone():
    """The first matrix is a copy: what is scaled in place is not the network's."""
    layer = linear(9, 6)
    before = layer.weight.clone()
    with torch.no_grad():
        start = assembly.begun(draw(1, 9), coupled=False)
        found = assembly.pushed(start, [layer, nn.Identity(), nn.Tanh(), nn.Tanh()], [], budget=BUDGET)
    assert torch.equal(layer.weight, before)
    assert not torch.equal(found.matrix()[0], before)


def test_units_whose_slope_underflows_are_left_out_and_the_others_keep_theirs():
    """tanh' = 1/cosh² is 0 in float64 beyond |x| = 400: those rows go, and the rest is scaled."""
    layer = linear(9, 6)
    layer.bias.data[[1, 4]] = torch.tensor([1e3, -1e3], dtype=torch.float64)
    x = draw(1, 9)
    with torch.no_grad():
        found = assembly.pushed(assembly.begun(x, coupled=False), [layer, nn.Tanh()], [], budget=BUDGET)
    assert found.live.tolist() == [0, 2, 3, 5]
    expected = oracle([layer, nn.Tanh()], x, coupled=False)
    torch.testing.assert_close(whole_matrix(found), expected, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("behind", [[], [nn.Tanh()], [nn.Softplus()]])
def test_the_rank_is_bounded_by_the_narrowest_layer(behind):
    """9 -> 4 -> 12: 4, whether an activation stands behind the narrow layer or not."""
    layers = [linear(9, 4), *behind, linear(4, 12), nn.Tanh()]
    with torch.no_grad():
        found = assembly.pushed(assembly.begun(draw(1, 9), coupled=False), layers, [], budget=BUDGET)
    assert found.bound.tolist() == [4]


def test_a_linear_layer_of_tokens_is_no_matrix():
    """One example of 3 tokens, first layer linear: J is 12 x 9, block diagonal."""
    layers, x = [linear(3, 4), nn.ReLU()], draw(1, 3, 3)
    with torch.no_grad():
        found = assembly.pushed(assembly.begun(x, coupled=True), layers, [], budget=BUDGET)
    torch.testing.assert_close(whole_matrix(found), oracle(layers, x, coupled=True), rtol=1e-12, atol=1e-13)
