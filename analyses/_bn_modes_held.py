"""Running means at weights that are held: the noise of the batches alone, over epochs of shuffled batches."""

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from rmtbn import rng
from rmtbn.train.batchnorm import using
from rmtbn.train.channel_moments import ChannelMoments, gathered, tracking_norms

from ._bn_modes_records import MOMENTA, SEGMENT_EPOCHS, SEGMENTS
from ._bn_modes_setting import Setting

Array = NDArray[np.float64]


def held(setting: Setting, *, seed: int) -> pd.DataFrame:
    """Follow the running means of each layer for `SEGMENTS` times `SEGMENT_EPOCHS` epochs, each time from the truth.

    Returns
    -------
    DataFrame
        By momentum and layer: `spread`, the mean square of (batch mean - mean)/σ over channels and batches, and
        `held_square`, that of (running mean - mean)/σ over channels and the ends of the segments.
    """
    rows = []
    for layer, errors in enumerate(_errors(setting, seed=seed)):
        steps = errors.reshape(SEGMENTS, -1, errors.shape[1]).swapaxes(0, 1)
        for momentum in MOMENTA:
            average = np.zeros_like(steps[0])
            for step in steps:
                average = (1 - momentum) * average + momentum * step
            rows.append((momentum, layer, float(np.mean(errors**2)), float(np.mean(average**2))))
    return pd.DataFrame(rows, columns=["momentum", "layer", "spread", "held_square"])


@torch.no_grad()
def _errors(setting: Setting, *, seed: int) -> list[Array]:
    """Return (batch mean - mean)/σ for each layer, shape (batches, channels), of all epochs in order."""
    norms, found = tracking_norms(setting.trained), []
    count, size = len(setting.seen.targets), setting.recipe.batch_size
    with using(setting.trained, "batch"):
        for epoch in range(SEGMENTS * SEGMENT_EPOCHS):
            order = torch.randperm(count, generator=rng.torch_generator(seed, "held weights", epoch))
            for chosen in order[: count - count % size].split(size):  # type: ignore[no-untyped-call]
                with gathered(norms) as batch:
                    setting.trained(setting.seen.inputs[chosen.to(setting.seen.inputs.device)])
                found.append(dict(batch))
    return [_standardised([batch[name] for batch in found]) for name in norms]


def _standardised(batches: list[ChannelMoments]) -> Array:
    whole = batches[0]
    for batch in batches[1:]:
        whole = whole.joined(batch)
    means = torch.stack([batch.mean for batch in batches])
    return ((means - whole.mean) / whole.unbiased_variance.sqrt()).cpu().numpy()
