"""The optimiser of a recipe, and which parameters its weight decay leaves out."""

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim import SGD

from rmtbn import _checks
from rmtbn.train.recipe import Recipe

_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def undecayed(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return by name the parameters that `decay_norms=False` leaves out.

    They are those of layers of normalisation, and of layers all of whose own parameters are vectors or numbers.
    """
    found: dict[str, nn.Parameter] = {}
    for prefix, part in module.named_modules():
        own = dict(part.named_parameters(prefix=prefix, recurse=False))
        if isinstance(part, _NORMS) or all(parameter.ndim <= 1 for parameter in own.values()):
            found |= own
    return found


def sgd(module: nn.Module, recipe: Recipe) -> SGD:
    """Make the optimiser of a recipe for the parameters of a network that require a gradient.

    Raises
    ------
    InvalidArgumentError
        If none does.
    """
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if not trained:
        raise _checks.fail("module", "a network with parameters that require a gradient", type(module).__name__)
    bare = {} if recipe.decay_norms else undecayed(module)
    groups = [
        {"params": [p for name, p in trained.items() if name not in bare], "weight_decay": recipe.weight_decay},
        {"params": [p for name, p in trained.items() if name in bare], "weight_decay": 0.0},
    ]
    return SGD([group for group in groups if group["params"]], lr=recipe.rate, momentum=recipe.momentum)
