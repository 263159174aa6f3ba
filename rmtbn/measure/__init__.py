"""Measurements of any torch module: Jacobian spectra, activation moments, gradients. Each leaves it as it was."""
