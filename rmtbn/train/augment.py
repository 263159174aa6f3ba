"""Random shifts and flips of a whole batch at once, on its device (the augmentation of He et al. 2015, section 4.2)."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from rmtbn import _checks

PADDING = 4  # pixels on each side


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Views:
    """Which part of each padded image is seen, and whether in a mirror.

    Parameters
    ----------
    rows, columns
        Place of the upper left corner in the padded image, 0 … 2 · padding, shape (images,).
    flips
        Whether left and right change places, shape (images,).
    """

    rows: Int64[Tensor, " images"]
    columns: Int64[Tensor, " images"]
    flips: Bool[Tensor, " images"]

    @classmethod
    def drawn(cls, images: int, *, generator: torch.Generator) -> "Views":
        """Draw views, each as likely as any other."""
        rows, columns = torch.randint(2 * PADDING + 1, (2, images), generator=generator)
        flips = torch.randint(2, (images,), generator=generator).bool()
        return cls(rows=rows, columns=columns, flips=flips)

    def __getitem__(self, chosen: slice) -> "Views":
        """Return the views of some images."""
        return Views(rows=self.rows[chosen], columns=self.columns[chosen], flips=self.flips[chosen])

    def to(self, device: torch.device) -> "Views":
        """Return the same views on a device."""
        return Views(rows=self.rows.to(device), columns=self.columns.to(device), flips=self.flips.to(device))


def seen(
    x: Float[Tensor, "images channels height width"], views: Views
) -> Float[Tensor, "images channels height width"]:
    """Return each image, padded by `PADDING` zeros on each side, as its view shows it.

    Parameters
    ----------
    x
        Images.
    views
        One for each, on the device of the images.

    Raises
    ------
    InvalidArgumentError
        If their numbers differ.
    """
    if len(views.rows) != len(x):
        raise _checks.fail("views", f"as many as images, {len(x)}", len(views.rows))
    images, channels, height, width = x.shape
    padded = torch.nn.functional.pad(x, (PADDING,) * 4)
    rows = views.rows[:, None] + torch.arange(height, device=x.device)
    places = torch.arange(width, device=x.device).expand(images, width)
    columns = views.columns[:, None] + torch.where(views.flips[:, None], width - 1 - places, places)
    picked = padded.gather(2, rows[:, None, :, None].expand(-1, channels, -1, padded.shape[3]))
    return picked.gather(3, columns[:, None, None, :].expand(-1, channels, height, -1))
