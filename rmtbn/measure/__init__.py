"""Measurements of any torch module: Jacobian spectra, activation moments, gradients. Each restores the module as found."""
