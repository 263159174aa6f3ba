"""Full precision of float32 on GPUs: cuDNN rounds the factors of a convolution to TF32's 11 bits unless told not to."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def full_float32() -> Iterator[None]:
    """Let convolutions in float32 keep their 24 bits, as matrix products do by default.

    TF32 stays where it was asked for by `torch.backends.cuda.matmul.allow_tf32` (or
    `torch.set_float32_matmul_precision`), which are off by default; the errors that results state do not count it.
    """
    cudnn = torch.backends.cudnn
    asked = torch.backends.cuda.matmul.allow_tf32 and cudnn.allow_tf32
    with cudnn.flags(
        enabled=cudnn.enabled, benchmark=cudnn.benchmark, deterministic=cudnn.deterministic, allow_tf32=asked
    ):
        yield
