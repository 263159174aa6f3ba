"""TF32 is off in measurements unless asked for, and the settings are what they were afterwards."""

import pytest
import torch
from torch import Tensor, nn

from rmtbn.measure import jacobian
from rmtbn.measure.precision import full_float32


@pytest.mark.parametrize("asked", [False, True])
def test_convolutions_keep_their_precision_unless_asked(asked):
    """cuDNN's TF32 is on by default, and on inside only if that of matrix products is on too."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark
    assert before[0]
    torch.backends.cuda.matmul.allow_tf32 = asked
    try:
        with full_float32():
            assert torch.backends.cudnn.allow_tf32 == asked
            assert torch.backends.cudnn.enabled == before[1]
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark) == before


def test_measurements_run_in_it():
    """A layer sees the setting while its Jacobian is measured."""
    seen = []

    class Sees(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(torch.backends.cudnn.allow_tf32)
            return 2.0 * x

    jacobian.spectrum(nn.Sequential(Sees()), torch.ones(1, 3))
    assert seen
    assert not any(seen)
    assert torch.backends.cudnn.allow_tf32
