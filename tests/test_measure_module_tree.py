"""The walk through a network against torch's own, and its layers against the forward pass."""

import pytest
import torch
from torch import nn

from rmtbn.measure.module_tree import layers, parts


def nested() -> nn.Sequential:
    """Containers in containers, one layer twice, one empty container, one place that holds nothing."""
    shared = nn.Linear(4, 4)
    inner = nn.Sequential(nn.Tanh(), nn.Sequential(shared, nn.ReLU()), nn.Sequential())
    attention = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0)
    found = nn.Sequential(shared, inner, attention, nn.ModuleList([nn.Linear(1, 1)]))
    found.register_module("nothing", None)
    return found


def test_parts_are_those_of_torch_each_once():
    """Set equality with `module.modules()`, which names them on the way."""
    module = nested()
    found = parts(module)
    assert found[0] is module
    assert sorted(map(id, found)) == sorted(map(id, module.modules()))


def test_parts_of_a_loop_of_modules_end():
    """A child that holds its parent, as some libraries build them."""
    child, parent = nn.Module(), nn.Module()
    parent.add_module("child", child)
    child.add_module("parent", parent)
    assert parts(parent) == [parent, child]


def test_layers_are_named_by_their_place_and_a_layer_used_twice_is_there_twice():
    module = nested()
    names = ["0", "1.0", "1.1.0", "1.1.1", "1.2", "2", "3"]
    assert [name for name, _ in layers(module)] == names
    assert layers(module)[0][1] is layers(module)[2][1]
    assert all(module.get_submodule(name) is layer for name, layer in layers(module))


def test_layers_one_after_the_other_are_the_network():
    """f = f_L ∘ … ∘ f_1."""
    shared = nn.Linear(4, 4)
    module = nn.Sequential(shared, nn.Sequential(nn.Tanh(), nn.Sequential(shared, nn.Sequential())), nn.Linear(4, 2))
    h = x = torch.randn(3, 4)
    for _, layer in layers(module):
        h = layer(h)
    assert torch.equal(h, module(x))


@pytest.mark.parametrize("change", ["hook", "pre-hook", "forward"])
def test_a_container_that_does_more_than_its_layers_is_one_layer(change: str):
    inner = nn.Sequential(nn.Linear(2, 2), nn.Tanh())
    if change == "hook":
        inner.register_forward_hook(lambda *_: None)
    elif change == "pre-hook":
        inner.register_forward_pre_hook(lambda *_: None)
    else:
        inner.forward = lambda x: 2 * x
    assert [name for name, _ in layers(nn.Sequential(inner, nn.ReLU()))] == ["0", "1"]
    assert layers(inner) == [("", inner)]


def test_a_module_that_is_no_container_is_one_layer():
    module = nn.TransformerEncoderLayer(4, 2, 8)
    assert layers(module) == [("", module)]
    assert layers(nn.Sequential()) != []
