"""The walk through a network against torch's own, its layers against the forward pass, and likeness of networks."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from rmtbn._checks import InvalidArgumentError
from rmtbn._modules import call, check_alike, layers, parts


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


def pair(first: nn.Module, second: nn.Module) -> list[nn.Module]:
    return [nn.Sequential(nn.Linear(4, 4), one, nn.Linear(4, 4)) for one in (first, second)]


class Gain(nn.Module):
    """Settings that are compared by what they hold."""

    def __init__(self, gain: object, *, table: object = None) -> None:
        super().__init__()
        self._gain, self.table = gain, table

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._gain(x) if callable(self._gain) else self._gain * x


class Bare:
    def __init__(self, slope: float) -> None:
        self.slope = slope


def power(p: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: x**p


UNLIKE = {
    "class": (nn.Tanh(), nn.ReLU(), r"Tanh\(\) and ReLU\(\) at 1"),
    "slope": (nn.LeakyReLU(0.1), nn.LeakyReLU(0.5), r"negative_slope=0\.1\) and LeakyReLU\(negative_slope=0\.5"),
    "private number": (Gain(2.0), Gain(3.0), r"Gain\(\) and Gain\(\) at 1, which differ in _gain"),
    "function": (Gain(torch.tanh), Gain(torch.sin), "Gain"),
    "closure": (Gain(power(2.0)), Gain(power(3.0)), "Gain"),
    "partial": (Gain(partial(torch.clamp, min=0)), Gain(partial(torch.clamp, min=1)), "Gain"),
    "tensor that is no buffer": (Gain(2.0, table=torch.zeros(3)), Gain(2.0, table=torch.ones(3)), "Gain"),
    "array in a list": (Gain(2.0, table=[np.zeros(3)]), Gain(2.0, table=[np.ones(3)]), "Gain"),
    "object": (Gain(2.0, table={"a": Bare(1.0)}), Gain(2.0, table={"a": Bare(2.0)}), "Gain"),
    "width": (nn.Linear(4, 4), nn.Linear(4, 5), "out_features=4.*out_features=5"),
    "bias": (nn.Linear(4, 4), nn.Linear(4, 4, bias=False), "bias=True.*bias=False"),
    "dtype": (nn.Linear(4, 4), nn.Linear(4, 4).double(), "Linear"),
    "children": (nn.ModuleList([nn.Tanh()]), nn.ModuleList([nn.Tanh(), nn.Tanh()]), "at 1"),
    "inner part": (
        nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0),
        nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, layer_norm_eps=0.1),
        r"LayerNorm.*at 1\.norm1",
    ),
}


@pytest.mark.parametrize("case", UNLIKE)
def test_what_differs_is_named(case: str):
    """One call for all would run the settings of the first; both ways round."""
    first, second, message = UNLIKE[case]
    for one, other in ((first, second), (second, first)):
        modules = pair(one, other)
        with pytest.raises(InvalidArgumentError, match="`modules` must be networks of one architecture"):
            check_alike("", modules)
    with pytest.raises(InvalidArgumentError, match=message):
        check_alike("", pair(first, second))


@pytest.mark.parametrize(
    "make",
    [
        nn.Tanh,
        lambda: Gain(2.0, table=torch.ones(3)),
        lambda: Gain(lambda x: 2 * x, table=[np.ones(3), {"a": Bare(1.0)}]),
        lambda: Gain(partial(torch.clamp, min=0)),
        lambda: Gain(power(2.0)),
        lambda: nn.BatchNorm1d(4),
        lambda: nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0),
        lambda: nn.utils.parametrizations.orthogonal(nn.Linear(4, 4)),
        nn.Sequential,
    ],
)
def test_what_was_made_alike_is_alike(make: Callable[[], nn.Module]):
    """Weights and statistics may differ, and nothing else does."""
    modules = pair(make(), make())
    for module in modules:
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point():
                tensor.data.add_(torch.rand_like(tensor))
    check_alike("", modules)


def test_working_in_place_is_no_difference():
    check_alike("", pair(nn.ReLU(inplace=True), nn.ReLU()))


def test_modes_and_hooks_are_named():
    modules = pair(nn.Tanh(), nn.Tanh())
    modules[1][2].eval()
    with pytest.raises(InvalidArgumentError, match=r"same mode, train or eval; got 'train and eval at net\.2'"):
        check_alike("net", modules)
    modules[1][2].train()
    check_alike("net", modules)
    handle = modules[0][1].register_forward_pre_hook(lambda *_: None)
    for one, other in (modules, modules[::-1]):
        with pytest.raises(InvalidArgumentError, match=r"the same hooks and patched forwards.*'net\.1'"):
            check_alike("net", [one, other])
    check_alike("net", modules[:1])
    handle.remove()
    modules[1][1].forward = torch.sin
    with pytest.raises(InvalidArgumentError, match=r"the same hooks and patched forwards.*'net\.1'"):
        check_alike("net", modules)


def scaled(factor: float) -> Callable[..., torch.Tensor]:
    return lambda _module, _inputs, output: factor * output


def test_hooks_that_do_the_same_are_alike():
    """Functions by their code and what they close over; before and after the forward are not the same."""
    modules = pair(nn.Tanh(), nn.Tanh())
    for module, factor in zip(modules, (2.0, 2.0), strict=True):
        module[1].register_forward_hook(scaled(factor))
    check_alike("", modules)
    modules[1][1].register_forward_hook(scaled(3.0))
    modules[0][1].register_forward_hook(scaled(4.0))
    with pytest.raises(InvalidArgumentError, match="the same hooks"):
        check_alike("", modules)
    modules = pair(nn.Tanh(), nn.Tanh())
    modules[0][1].register_forward_hook(print)
    modules[1][1].register_forward_pre_hook(print)
    with pytest.raises(InvalidArgumentError, match="the same hooks"):
        check_alike("", modules)


def test_bound_methods_of_the_modules_themselves_are_alike():
    first, second = Gain(1.0), Gain(1.0)
    first._gain, second._gain = first.double, second.double
    check_alike("", [first, second])
    second._gain = second.float
    with pytest.raises(InvalidArgumentError, match="one architecture"):
        check_alike("", [first, second])
    second._gain = Gain(3.0).double
    with pytest.raises(InvalidArgumentError, match="one architecture"):
        check_alike("", [first, second])


def test_a_container_that_holds_itself_is_compared():
    """Objects that refer to one another come to an end."""
    first, second = Gain(1.0), Gain(1.0)
    for one, value in ((first, 1.0), (second, 1.0)):
        one.table = Bare(value)
        one.table.owner = one.table
    check_alike("", [first, second])
    second.table.slope = 2.0
    with pytest.raises(InvalidArgumentError, match="one architecture"):
        check_alike("", [first, second])


class Block(nn.Module):
    """One module that holds others by name."""

    def __init__(self, **held: object) -> None:
        super().__init__()
        for name, value in held.items():
            if name == "buffer":
                self.register_buffer(name, value)
            elif name.startswith("nothing"):
                self.register_module(name.removeprefix("nothing_"), value)
            else:
                setattr(self, name, value)


def line() -> nn.Linear:
    return nn.Linear(2, 2)


def tied() -> list[nn.Linear]:
    first, second = line(), line()
    second.weight = first.weight
    return [first, second]


def weight() -> nn.Parameter:
    return nn.Parameter(torch.ones(2))


ONE, OTHER, HELD = line(), line(), weight()
WIRED_APART = {
    "order": (Block(a=line(), b=line()), Block(b=line(), a=line())),
    "place": (Block(a=line(), nothing_b=None), Block(nothing_a=None, b=line())),
    "shared layer": (Block(a=ONE, b=OTHER, c=ONE), Block(a=ONE, b=OTHER, c=OTHER)),
    "tied layers": (Block(a=nn.ModuleList(tied())), Block(a=nn.ModuleList([line(), line()]))),
    "tied tensors": (Block(a=HELD, b=HELD), Block(a=weight(), b=weight())),
    "setting of one only": (Block(a=line()), Block(a=line(), gain=2.0)),
}


@pytest.mark.parametrize("case", WIRED_APART)
def test_the_same_parts_wired_in_another_way_are_another_architecture(case: str):
    first, second = WIRED_APART[case]
    for one, other in ((first, second), (second, first)):
        with pytest.raises(InvalidArgumentError, match="`modules` must be networks of one architecture"):
            check_alike("", [one, other])


def test_a_buffer_is_no_parameter():
    """They are stacked apart."""
    first, second = Block(buffer=torch.ones(2)), nn.Module()
    second.buffer = weight()
    second.__class__ = Block
    with pytest.raises(InvalidArgumentError, match="one architecture"):
        check_alike("", [first, second])


def test_lazy_layers_must_know_their_shapes():
    with pytest.raises(InvalidArgumentError, match=r"lazy layers know their shapes.*'LazyLinear'"):
        check_alike("", [nn.LazyLinear(2), nn.LazyLinear(2)])
    made = [nn.LazyLinear(2), nn.LazyLinear(2)]
    for layer in made:
        layer(torch.zeros(1, 3))
    check_alike("", made)


def test_weights_in_another_order_are_the_same():
    """As after a parametrisation has been removed."""
    first, second = line(), line()
    second.weight = second._parameters.pop("weight")
    assert [*first._parameters] != [*second._parameters]
    check_alike("", [first, second])


def test_settings_may_refer_to_parts_of_the_network():
    """One call gives these the tensors of each network in turn; tensors themselves, and other modules, it does not."""

    def referring() -> Block:
        block = Block(a=line(), b=line())
        block.bound, block.inner, block.listed = block.a.forward, (block.b,), [block]
        block.closure = lambda x: 2.0 * block.a(x)
        return block

    check_alike("", [referring(), referring()])
    crossed = referring()
    crossed.inner = (crossed.a,)
    with pytest.raises(InvalidArgumentError, match="differ in inner"):
        check_alike("", [referring(), crossed])
    outside = [referring(), referring()]
    for block in outside:
        block.inner = (line(),)
    with pytest.raises(InvalidArgumentError, match="differ in inner"):
        check_alike("", outside)
    for block in outside:
        block.inner = (block.a.weight,)
    with pytest.raises(InvalidArgumentError, match="differ in inner"):
        check_alike("", outside)


def test_ways_to_compile_are_no_difference():
    first, second = line(), line()
    second.compile(backend="eager")
    check_alike("", [first, second])


def shared_layer() -> nn.Sequential:
    one = line()
    return nn.Sequential(one, nn.Tanh(), nn.BatchNorm1d(2).eval(), one)


def tied_weights() -> nn.Sequential:
    first, second = tied()
    return nn.Sequential(first, nn.Tanh(), second, nn.utils.parametrizations.orthogonal(line()))


@pytest.mark.parametrize("make", [shared_layer, tied_weights, line])
def test_a_call_with_other_tensors_is_that_of_a_network_that_holds_them(make: Callable[[], nn.Module]):
    """And the network that was called holds its own again, also a layer that is there twice."""
    module, other = make(), make()
    tensors = {**dict(other.named_parameters()), **dict(other.named_buffers())}
    before = [(name, id(held), held.clone()) for name, held in module.state_dict(keep_vars=True).items()]
    x = torch.randn(3, 2)
    torch.testing.assert_close(call(module, tensors, x), other(x))
    assert not torch.allclose(module(x), other(x))
    for (name, held), (name_before, place, value) in zip(
        module.state_dict(keep_vars=True).items(), before, strict=True
    ):
        assert (name, id(held)) == (name_before, place)
        assert torch.equal(held, value)
