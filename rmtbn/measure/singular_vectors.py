"""Which directions at the input survive to the output, and where they come out: singular vectors of the Jacobian."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from rmtbn import _checks, _modules
from rmtbn.linalg import product as products
from rmtbn.linalg import singular_vectors as linalg
from rmtbn.linalg.push_forward import push_forward
from rmtbn.measure import batch_statistics, network
from rmtbn.measure.stacked_tangents import stacked_steps
from rmtbn.measure.tangents import in_double

_MEMORY = 2**30


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Directions:
    """Leading singular triples of the Jacobian J of x -> module(x), for each group of examples.

    Without batch statistics the examples do not couple and each is a group, G = B with one example each; with them
    there is one group, G = 1, of all B.

    Parameters
    ----------
    log_singular_values
        Natural logarithms, descending, shape (G, k), float64.
    inputs
        Directions of length 1 at the input that grow by σ_k, each of the shape of the inputs: images where inputs are
        images; shape (G, k, B/G, ...features).
    outputs
        Directions of length 1 at the output that they become, shape (G, k, B/G, ...outputs).
    error
        Estimated angle to the true direction, in radians, shape (G, k); 1 where values are too close to tell.
    batch_stats
        "batch", "running", or None without batch normalisation.
    """

    log_singular_values: Float[Tensor, "groups k"]
    inputs: Float[Tensor, "groups k examples ..."]
    outputs: Float[Tensor, "groups k examples ..."]
    error: Float[Tensor, "groups k"]
    batch_stats: str | None


def surviving_directions(
    module: nn.Module,
    x: Float[Tensor, "examples ..."],
    *,
    count: int = 8,
    batch_stats: str | None = None,
    memory_budget: int = _MEMORY,
) -> Directions:
    """Find the directions at the input that the network keeps most of, right at any depth.

    Parameters
    ----------
    module
        The network, left as found.
    x
        Inputs (B, ...features) at which the Jacobian is taken.
    count
        How many directions k, at most the rank of each group's Jacobian.
    batch_stats
        "batch", "running", or None for the module's own mode.
    memory_budget
        Bytes that tangents may take in flight in layers without a rule of their own.

    Returns
    -------
    Directions
        On the CPU.

    Raises
    ------
    InvalidArgumentError
        As `rmtbn.measure.jacobian.spectrum`, and if `count` is not from 1 to the rank.
    """
    budget = _checks.integer("memory_budget", memory_budget, at_least=1)
    network.check_input(module, x)
    statistics = batch_statistics.resolve(module, batch_stats)
    with network.layer_by_layer(module, statistics):
        network.check_output(module, x)
        coupled = statistics == "batch" or network.couples(module, x)
        groups = 1 if coupled else len(x)
        layers = [layer for _, layer in _modules.layers(module)]
        single = in_double(layers, x)
        inner = x.double() if single else x
        start = products.identity(
            x.numel() // groups, batch=(groups,), dtype=inner.dtype, device=x.device, single=single
        )
        steps = stacked_steps([[layer] for layer in layers], coupled=coupled, memory_budget=budget)
        product, point = push_forward(start, inner[None].clone(), steps)
    found = linalg.singular_vectors(product, count)
    return Directions(
        log_singular_values=found.log_values,
        inputs=found.right.mT.reshape(groups, count, -1, *x.shape[1:]).to(x.dtype),
        outputs=found.left.mT.reshape(groups, count, -1, *point.shape[2:]).to(x.dtype),
        error=found.error,
        batch_stats=statistics,
    )
