"""Running statistics that one training run would have had with other momenta of batch normalisation.

In train mode the statistics are written and never read, so that weights and gradients do not depend on the momentum:
one run serves all of them.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rmtbn import _checks
from rmtbn.train.channel_moments import ChannelMoments, centred, tracking_norms, write

Statistics = dict[str, tuple[Tensor, Tensor]]


class MomentumCopies:
    """Running mean and unbiased variance of each layer, as they would be with several momenta.

    Parameters
    ----------
    module
        A network with torch's own batch normalisation.
    momenta
        Weights of the new value, in (0, 1]; the averages start as those of the network are.

    Raises
    ------
    InvalidArgumentError
        For a momentum out of range, a network without running statistics, or a norm of another class.
    """

    def __init__(self, module: nn.Module, momenta: Sequence[float]) -> None:
        self.norms = centred(tracking_norms(module))
        if not self.norms:
            raise _checks.fail("module", "a network with running statistics", type(module).__name__)
        self.statistics: dict[float, Statistics] = {
            _checks.real("momenta", momentum, above=0.0, at_most=1.0): {
                name: (_double(norm.running_mean), _double(norm.running_var)) for name, norm in self.norms.items()
            }
            for momentum in momenta
        }

    @contextmanager
    def following(self) -> Iterator[None]:
        """Move the copies at every forward pass in train mode until the block ends."""
        handles = [norm.register_forward_pre_hook(self._moving(name)) for name, norm in self.norms.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def put(self, momentum: float) -> None:
        """Write the statistics of one of the momenta into the network; its own momentum stays."""
        if momentum not in self.statistics:
            raise _checks.fail("momentum", f"one of {', '.join(map(str, self.statistics))}", momentum)
        for name, (mean, variance) in self.statistics[momentum].items():
            write(self.norms[name], mean=mean, variance=variance, share=1.0)

    def _moving(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def move(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if isinstance(norm, _BatchNorm) and norm.training:
                batch = ChannelMoments.of(inputs[0])
                for share, kept in self.statistics.items():
                    mean, variance = kept[name]
                    kept[name] = (mean.lerp(batch.mean, share), variance.lerp(batch.unbiased_variance, share))

        return move


def _double(running: Tensor | None) -> Tensor:
    assert running is not None  # `tracking_norms` has those that keep them
    return running.detach().double().clone()
