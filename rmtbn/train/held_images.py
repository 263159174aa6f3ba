"""Images held where the network is: pixels of 256 levels as bytes with a table of their values, others as they are."""

import hashlib
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

LEVELS = 256
_CHUNK = 1000  # images looked at together


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeldImages:
    """Inputs of a data set on a device.

    Parameters
    ----------
    codes
        Shape (images, ...): bytes, or the inputs themselves.
    levels
        Value of each byte, in the dtype of the network; None where `codes` are the inputs.
    targets
        Class of each image.
    """

    codes: Shaped[Tensor, "images ..."]
    levels: Float[Tensor, " levels"] | None
    targets: Int64[Tensor, " images"]

    def inputs(self, chosen: Int64[Tensor, " batch"] | slice) -> Float[Tensor, "batch ..."]:
        """Return some inputs: exactly what they were before they became bytes, rounded to the dtype."""
        codes = self.codes[chosen]
        return codes if self.levels is None else self.levels[codes.int()]

    def digest(self) -> str:
        """Return 16 hexadecimal digits of the SHA-256 of all images and their classes."""
        found = hashlib.sha256()
        for part in (self.codes, self.levels, self.targets):
            if part is not None:
                found.update(part.contiguous().view(torch.uint8).cpu().numpy().data)
        return found.hexdigest()[:16]


def held(
    inputs: Float[Tensor, "images ..."],
    targets: Int64[Tensor, " images"],
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> HeldImages:
    """Put inputs on a device, as bytes if they have at most 256 different values.

    Parameters
    ----------
    inputs, targets
        Images and their classes; an image file's pixels, shifted and scaled, have at most 256 values.
    device, dtype
        Of the network.
    """
    levels = _levels(inputs)
    if levels is None:
        return HeldImages(codes=inputs.to(device=device, dtype=dtype), levels=None, targets=targets.to(device))
    codes = torch.cat(
        [torch.searchsorted(levels, part.contiguous()).to(torch.uint8) for part in torch.split(inputs, _CHUNK)]
    )
    return HeldImages(codes=codes.to(device), levels=levels.to(device=device, dtype=dtype), targets=targets.to(device))


def _levels(inputs: Tensor) -> Tensor | None:
    """Return the different values in rising order, or None if they are more than 256 (or not ordered, as NaN)."""
    levels = inputs.new_empty(0)
    for part in torch.split(inputs, _CHUNK):
        place = torch.searchsorted(levels, part.contiguous()).clamp(max=max(len(levels) - 1, 0))
        new = part[levels[place] != part] if len(levels) else part
        levels = torch.unique(torch.cat([levels, new.flatten()]))
        if len(levels) > LEVELS or levels.isnan().any():
            return None
    return levels
