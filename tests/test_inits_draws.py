"""Delta-orthogonal convolutions: isometries with any padding, of the variance they state."""

import numpy as np
import pytest
import torch
from cases import inputs
from torch import nn

from rmtbn import rng
from rmtbn.inits import CONVOLUTION_INITS, INITS, initialise, weight_law
from rmtbn.nets.cnn import plain_cnn

PADDINGS = ("zeros", "circular", "reflect", "replicate")


@pytest.fixture(autouse=True)
def without_gradients():
    """Numbers are read off outputs."""
    with torch.no_grad():
        yield


def delta(layer, *, seed=1, **options):
    return initialise(layer, "delta_orthogonal", generator=rng.torch_generator(seed, "delta"), **options)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("channels", "kernel"), [((3, 8), 3), ((8, 8), 3), ((8, 8), 5), ((4, 6), (1, 3))])
def test_convolutions_preserve_the_norm_with_any_padding(padding, dtype, channels, kernel):
    """‖K * x‖ = ‖x‖ and angles too, to 1e-6: the padding meets taps that are 0."""
    layer = nn.Conv2d(*channels, kernel, padding="same", padding_mode=padding, dtype=dtype)
    x = inputs(2, channels[0], 7, 6, dtype=dtype)
    image = delta(layer)(x)
    torch.testing.assert_close(image.flatten(1).norm(dim=1), x.flatten(1).norm(dim=1), rtol=1e-6, atol=0)
    torch.testing.assert_close((image[0] * image[1]).sum(), (x[0] * x[1]).sum(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("padding", PADDINGS)
def test_an_orthogonal_kernel_alone_does_not(padding):
    """The scheme "orthogonal" makes the kernel's rows orthonormal, not the convolution an isometry."""
    layer = nn.Conv2d(8, 8, 3, padding="same", padding_mode=padding, dtype=torch.float64)
    initialise(layer, "orthogonal", generator=rng.torch_generator(1), activation="linear")
    x = inputs(2, 8, 7, 6)
    ratio = layer(x).flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1)
    assert (ratio - 1).abs().min() > 1e-3


@pytest.mark.parametrize("activation", ["linear", "tanh", "relu"])
def test_deep_networks_stay_isometric_before_their_activations(activation):
    """Each of 50 convolutions keeps the norm of what it is given, whatever φ: the gain is 1 unless asked."""
    net = delta(plain_cnn(depth=50, channels=6, in_channels=2, activation=activation).double())
    x = inputs(1, 2, 5, 5)
    for name, layer in net.named_children():
        image = layer(x)
        if name.startswith("conv"):
            assert float(image.norm() / x.norm()) == pytest.approx(1.0, abs=1e-12)
        x = image
    if activation == "linear":
        assert float(x.norm() / inputs(1, 2, 5, 5).norm()) == pytest.approx(1.0, abs=1e-12)


def test_stages_that_narrow_project():
    """Fewer outputs than inputs: HHᵀ = I, so what is kept is kept at full length."""
    layer = delta(nn.Conv2d(8, 3, 3, dtype=torch.float64))
    frame = layer.weight[:, :, 1, 1]
    torch.testing.assert_close(frame @ frame.T, torch.eye(3, dtype=torch.float64))


def test_groups_are_isometries_one_by_one():
    """Channels of different groups do not mix, so each group has a frame of its own."""
    layer = delta(nn.Conv2d(4, 8, 3, padding=1, groups=2, bias=False, dtype=torch.float64))
    x = inputs(1, 4, 5, 5)
    for group in range(2):
        image = layer(x)[:, 4 * group : 4 * group + 4]
        assert float(image.norm() / x[:, 2 * group : 2 * group + 2].norm()) == pytest.approx(1.0, abs=1e-12)
    first, second = layer.weight[:4, :, 1, 1], layer.weight[4:, :, 1, 1]
    assert not torch.allclose(first, second)


@pytest.mark.parametrize(("channels", "gain"), [((3, 8), None), ((8, 3), 1.5), ((6, 6), 2**0.5)])
def test_kernels_have_the_mean_square_of_their_law(channels, gain):
    """Σ K² = σ_w² · outputs, as for every law, and the gain asked is the factor of the norm."""
    layer = delta(nn.Conv2d(*channels, 3, padding=1, dtype=torch.float64), sigma_w=gain, sigma_b=0.3)
    law = weight_law("delta_orthogonal", "linear", fan_in=channels[0] * 9, fan_out=channels[1] * 9, sigma_w=gain)
    assert law.central_tap
    assert law.distribution == "orthogonal"
    assert float(layer.weight.square().sum()) == pytest.approx(law.sigma_w**2 * channels[1])
    values = torch.linalg.svdvals(layer.weight[:, :, 1, 1])
    np.testing.assert_allclose(values, 1.0 if gain is None else gain, rtol=1e-12)
    assert layer.weight.count_nonzero() == channels[0] * channels[1]
    assert (layer.bias != 0).all()


def test_frames_are_haar_distributed():
    """E tr H = 0 and E (tr H)² = 1 on O(N) (Diaconis & Shahshahani 1994)."""
    trace = np.array(
        [
            float(delta(nn.Conv2d(4, 4, 3, dtype=torch.float64), seed=seed).weight[:, :, 1, 1].trace())
            for seed in range(1000)
        ]
    )
    assert trace.mean() == pytest.approx(0.0, abs=4 / len(trace) ** 0.5)
    assert (trace**2).mean() == pytest.approx(1.0, abs=4 * (trace**2).std() / len(trace) ** 0.5)


def test_schemes_of_convolutions_are_other_than_the_general_ones():
    """One name, one scheme; without space it is "orthogonal" at gain 1, but for its scale where layers widen."""
    assert not set(INITS) & set(CONVOLUTION_INITS)
    layer = delta(nn.Linear(5, 9, bias=False, dtype=torch.float64))
    gram = layer.weight.T @ layer.weight
    torch.testing.assert_close(gram, torch.eye(5, dtype=torch.float64))


def test_transposed_convolutions_keep_the_norm_too():
    """Their kernel has inputs first; stride 1 and padding 1 keep the size."""
    layer = delta(nn.ConvTranspose2d(3, 5, 3, padding=1, bias=False, dtype=torch.float64))
    x = inputs(1, 3, 6, 6)
    assert float(layer(x).norm() / x.norm()) == pytest.approx(1.0, abs=1e-12)
