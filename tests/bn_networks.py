"""Batch-normalised torch networks for tests: ε far below the variances, and inputs of a given spread over the batch."""

import math

import torch
from cases import inputs, network
from torch import nn

from rmtbn.measure.batch_jacobian import spectrum

EPS = 1e-12


def bn_network(activation, *, depth, width, seed, scheme="gaussian", eps=EPS):
    """A BN network in train mode with W_ij of variance 1/N (or Haar)."""
    sigmas = {"sigma_w": 1.0, "sigma_b": 0.0} if scheme == "gaussian" else {}
    options = {"depth": depth, "width": width, "seed": seed, **sigmas}
    module = network(activation=activation, norm="batch", scheme=scheme, **options)
    for layer in module:
        if isinstance(layer, nn.BatchNorm1d):
            layer.eps = eps
            layer.track_running_stats, layer.num_batches_tracked = False, None
            layer.running_mean = layer.running_var = None
    return module


def exact_inputs(batch_size, width, *, spread, seed):
    """Inputs whose Gram matrix is N · spread · (I - 11ᵀ/B) exactly: rows from an orthonormal set, centred."""
    rows, _ = torch.linalg.qr(inputs(width, batch_size, seed=seed))
    rows = rows.T * math.sqrt(width * spread)
    return rows - rows.mean(dim=0)


def log_singular_values(activation, *, batch_size, width, depth, scheme, seed, spread):
    """Log singular values of d(G x^L)/dx⁰ on 1^⊥, descending; what ε = 1e-12 lets pass counts as the zero it is."""
    module = bn_network(activation, depth=depth, width=width, seed=seed, scheme=scheme)
    x = exact_inputs(batch_size, width, spread=spread, seed=seed)
    return spectrum(module, x).without_leak.by_network[0]
