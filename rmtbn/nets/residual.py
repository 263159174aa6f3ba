"""Blocks with a shortcut, s(x) + α f(x), and shortcuts between sizes."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class Residual(nn.Module):
    """A block s(x) + α f(x).

    Parameters
    ----------
    branch
        f, whose output has the shape of s(x).
    alpha
        Factor of the branch.
    learnable
        Whether α is a parameter (SkipInit: De & Smith 2020, arXiv:2002.10444) rather than a constant.
    shortcut
        s; the identity if left out.
    """

    def __init__(
        self, branch: nn.Module, *, alpha: float = 1.0, learnable: bool = False, shortcut: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.branch = branch
        self.shortcut = nn.Identity() if shortcut is None else shortcut
        self.alpha: Tensor
        if learnable:
            self.alpha = nn.Parameter(torch.tensor(float(alpha)))
        else:
            self.register_buffer("alpha", torch.tensor(float(alpha)))

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Add the branch."""
        return self.shortcut(x) + self.alpha * self.branch(x)


class PadShortcut(nn.Module):
    """The shortcut without weights of He et al. 2015 (arXiv:1512.03385, option A): each s-th pixel, zeros for channels.

    Parameters
    ----------
    channels
        Channels of the output, at least those of the input; the new ones come last.
    stride
        s.
    """

    def __init__(self, channels: int, *, stride: int) -> None:
        super().__init__()
        self.channels, self.stride = channels, stride

    def forward(self, x: Float[Tensor, "batch inputs h w"]) -> Float[Tensor, "batch outputs h2 w2"]:
        """Take pixels and append channels."""
        kept = x[..., :: self.stride, :: self.stride]
        return functional.pad(kept, (0, 0, 0, 0, 0, self.channels - x.shape[1]))

    def extra_repr(self) -> str:
        """Say the sizes."""
        return f"channels={self.channels}, stride={self.stride}"
