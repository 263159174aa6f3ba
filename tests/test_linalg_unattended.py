"""On a device the host must not wait for, the depth loop does not wait: no operation in it reads a number back."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from rmtbn import rng
from rmtbn.inits import initialise
from rmtbn.linalg import product as products
from rmtbn.linalg import product_values
from rmtbn.linalg.push_forward import Step, push_forward
from rmtbn.measure.stacked_tangents import stacked_steps
from rmtbn.nets.mlp import mlp

# Operations for which the host waits for the device: they return numbers, or tensors whose shape depends on numbers.
WAITS = {"_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "_unique2", "unique_dim", "_to_cpu"}


class Waits(TorchDispatchMode):
    """Counts such operations, and copies between devices."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket.__name__ in WAITS
        return func(*args, **(kwargs or {}))


def network_steps(depth: int, activation: str) -> list[Step]:
    module = mlp(depth=depth, width=12, activation=activation).double().requires_grad_(False)
    initialise(module, "he_normal", generator=rng.torch_generator(1, "unattended"))
    return stacked_steps([[layer] for layer in module], coupled=False, memory_budget=2**20)


def waits(steps: list[Step], *, attended: bool) -> int:
    point = torch.randn(1, 1, 12, generator=rng.torch_generator(1, "point"), dtype=torch.float64)
    with torch.no_grad(), Waits() as mode:
        push_forward(products.identity(12, batch=(1,)), point, steps, attended=attended)
    return mode.count


@pytest.mark.parametrize("activation", ["tanh", "relu", "linear"])
def test_no_layer_makes_the_host_wait(activation):
    """From depth 24 to 72 the host waits at most 10 times more, for 48 more layers: it looks at rounds of layers.

    Attended, as on the CPU, it waits at every layer, so that the count can tell.
    """
    few, many = (waits(network_steps(depth, activation), attended=False) for depth in (24, 72))
    assert many - few <= 10
    assert few <= 30
    looked = [waits(network_steps(depth, activation), attended=True) for depth in (24, 72)]
    assert looked[1] - looked[0] > 48


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_looking_changes_nothing(activation):
    """The values are the same to the stated errors, zeros included."""
    results = []
    for attended in (True, False):
        point = torch.randn(1, 1, 12, generator=rng.torch_generator(1, "point"), dtype=torch.float64)
        with torch.no_grad():
            product, _ = push_forward(
                products.identity(12, batch=(1,)), point, network_steps(30, activation), attended=attended
            )
        results.append(product_values.log_singular_values(product))
    first, second = (result.values for result in results)
    assert torch.equal(first.isneginf(), second.isneginf())
    bound = sum(float(result.relative_error) for result in results)
    assert bound < 1e-7
    assert float((first.exp() - second.exp()).abs().max() / first.exp().max()) <= bound
    finite = first.isfinite()
    assert float((first[finite] - second[finite]).abs().max()) <= bound


def test_projections_are_looked_at():
    """Where columns must be put last the round is taken back and looked at: W P loses one direction per P."""
    generator = rng.torch_generator(2, "unattended")
    factors = [torch.randn(10, 10, generator=generator, dtype=torch.float64) / math.sqrt(10) for _ in range(9)]
    centre = torch.eye(10, dtype=torch.float64) - 0.1
    factors = [*factors[:4], centre, *factors[4:], centre]

    def step(factor: Tensor) -> Step:
        return [lambda point, u: (point, factor @ u)]

    for attended in (True, False):
        chain = [step(factor) for factor in factors]
        product, _ = push_forward(products.identity(10), torch.zeros(1), chain, attended=attended)
        values = product_values.log_singular_values(product).values
        assert int(values.isneginf().sum()) == 1


def test_what_is_not_finite_is_refused():
    """Also where nobody looks on the way."""
    steps = [[lambda point, u: (point, u * torch.nan)]]
    for attended in (True, False):
        with pytest.raises(ValueError, match="`steps` must be maps with finite differentials"):
            push_forward(products.identity(3), torch.zeros(1), steps * 3, attended=attended)


def test_modules_of_any_kind_pass():
    """Layers without a rule of their own (softplus, layer norm) do not wait either."""
    layers = [layer for _ in range(30) for layer in (nn.Linear(12, 12), nn.Softplus(), nn.LayerNorm(12))]
    counts = []
    for depth in (10, 30):
        module = nn.Sequential(*layers[: 3 * depth]).double().requires_grad_(False)
        counts.append(
            waits(stacked_steps([[layer] for layer in module], coupled=False, memory_budget=2**20), attended=False)
        )
    assert counts[1] - counts[0] <= 40
