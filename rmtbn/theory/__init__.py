"""Predictions: spectral laws, mean-field maps, finite-width results. numpy, scipy, sympy and mpmath in float64, never torch."""
