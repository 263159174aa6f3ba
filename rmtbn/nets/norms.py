"""Normalisation by name, for features alone, x of shape (B, N), and for features over space, (B, C, H, W).

With γ = 1, β = 0 and (mean, variance) taken over a set of entries, a norm returns γ (x - mean)/√(variance + ε) + β.
"batch": over the examples (and space), one set per feature. "uncentred": so, but by the mean square and without
subtracting the mean. "layer": over all features of one example. "group": over some features of one example.
"instance": over the space of one feature of one example. "weight" divides no signal: it holds the weights as length
times direction. What each does to spectra and gradients at initialisation is measured in `rmtbn.measure`.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import TypeAlias

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.parametrizations import weight_norm

from rmtbn import _checks

# (number of features, dimensions of space) -> layer
Factory: TypeAlias = Callable[[int, int], nn.Module]

MOST_GROUPS = 32  # of Wu & He 2018 (arXiv:1803.08494), table 3
# NOTE: they divide 64 and more channels; fewer are divided so that at least this many share a group.
FEWEST_IN_GROUP = 4


class UncentredBatchNorm(_BatchNorm):
    """Divide each feature by its root mean square over the batch, x γ/√(mean x² + ε) + β; the mean is not subtracted.

    The norm of Daneshmand et al. 2020 (arXiv:2003.01652) and 2021 (arXiv:2106.03970) and of Meterez et al. 2023
    (arXiv:2310.02012), who have no γ and β (`affine=False`). In eval mode the running mean square is used, in
    `running_var`, and `running_mean` stays 0. Parameters are those of `torch.nn.BatchNorm1d`; any dimensions will do.
    """

    def forward(self, x: Float[Tensor, "batch features ..."]) -> Float[Tensor, "batch features ..."]:
        """Normalise by the statistics of the batch in train mode, by the running ones in eval mode."""
        column = (-1,) + (1,) * (x.ndim - 2)
        square = self.running_var
        if self.training or square is None:
            square = x.square().mean(dim=[dim for dim in range(x.ndim) if dim != 1])
            self._track(square.detach())
        result = x * (square + self.eps).rsqrt().view(column)
        return result * self.weight.view(column) + self.bias.view(column) if self.affine else result

    def _track(self, square: Tensor) -> None:
        """Move the running mean square, as torch's batch normalisation moves its running variance."""
        if not self.track_running_stats or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_var.lerp_(square.to(self.running_var.dtype), share)


def norm_layer(name: str, features: int, *, spatial: int = 0) -> nn.Module | None:
    """Make the layer of a norm.

    Parameters
    ----------
    name
        A name in `NORMS`.
    features
        Features N, or channels C, >= 1.
    spatial
        Dimensions of space: 0 for inputs (B, N), 2 for images (B, C, H, W).

    Returns
    -------
    nn.Module or None
        With trainable γ and β; None for "none" and for "weight", which is no layer (see `normalised_weight`). Over
        space, "layer", "group" and "instance" raise `InvalidArgumentError` for images of one pixel that leave them one
        number to normalise.

    Raises
    ------
    InvalidArgumentError
        For an unknown name, `spatial` other than 0 or 2, the norm "instance" without space, where every set of entries
        is one number, and the norms "layer" and "group" of one feature without space, for the same reason.

    Examples
    --------
    >>> norm_layer("group", 16, spatial=2).num_groups
    4
    """
    make = NORMS[_checks.one_of("norm", name, NORMS)]
    features = _checks.integer("features", features, at_least=1)
    if _checks.integer("spatial", spatial) not in {0, 2}:
        raise _checks.fail("spatial", "0 or 2", spatial)
    if spatial == 0 and name == "instance":
        raise _checks.fail("norm", "one for inputs without space, in which an instance is a single number", name)
    if spatial == 0 and features == 1 and name in {"layer", "group"}:
        raise _checks.fail("features", f">= 2 for the norm {name!r} of inputs without space", features)
    layer = None if make is None else make(features, spatial)
    if spatial and layer is not None and name in {"layer", "group", "instance"}:
        layer.register_forward_pre_hook(partial(_check_set, name))
    return layer


def _check_set(name: str, layer: nn.Module, args: tuple[Tensor, ...]) -> None:
    """Refuse sets of a single number, of which torch makes an error for one norm and zeros for another."""
    channels = layer.num_channels // layer.num_groups if isinstance(layer, nn.GroupNorm) else 1
    if channels * math.prod(args[0].shape[-2:]) == 1:
        rule = f"of two or more numbers in each set of the norm {name!r}, which images of one pixel are not"
        raise _checks.fail("x", rule, tuple(args[0].shape))


def normalised_weight(name: str, layer: nn.Module) -> nn.Module:
    """Hold the weights of a layer as g v/‖v‖, one length g for each output, if the norm is "weight"; else let it be.

    At initialisation g = ‖v‖: the function, its Jacobian and its signals are those without norm; steps of training are
    not (Salimans & Kingma 2016, arXiv:1602.07868). Drawing the weights anew sets g and v.

    Parameters
    ----------
    name
        A name in `NORMS`.
    layer
        A linear or convolutional layer; changed in place.

    Returns
    -------
    nn.Module
        The same layer.
    """
    return weight_norm(layer) if _checks.one_of("norm", name, NORMS) == "weight" else layer


def removes_mean(name: str) -> bool:
    """Tell whether the norm removes a bias that every example has alike, so that a layer before it needs none."""
    return _checks.one_of("norm", name, NORMS) in {"batch", "instance"}


def _batch(features: int, spatial: int) -> nn.Module:
    return nn.BatchNorm2d(features) if spatial else nn.BatchNorm1d(features)


def _uncentred(features: int, spatial: int) -> nn.Module:  # noqa: ARG001
    return UncentredBatchNorm(features)


def _layer(features: int, spatial: int) -> nn.Module:
    """Over space too there is one γ and β per channel, as Wu & He 2018 (arXiv:1803.08494, section 3.1) define it."""
    return nn.GroupNorm(1, features) if spatial else nn.LayerNorm(features)


def _group(features: int, spatial: int) -> nn.Module:  # noqa: ARG001
    most = min(MOST_GROUPS, max(1, features // FEWEST_IN_GROUP))
    return nn.GroupNorm(next(groups for groups in range(most, 0, -1) if features % groups == 0), features)


def _instance(features: int, spatial: int) -> nn.Module:  # noqa: ARG001
    return nn.InstanceNorm2d(features, affine=True)


NORMS: Mapping[str, Factory | None] = MappingProxyType(
    {
        "none": None,
        "batch": _batch,
        "uncentred": _uncentred,
        "layer": _layer,
        "group": _group,
        "instance": _instance,
        "weight": None,
    }
)
