"""Predictions: spectral laws, mean-field maps, finite-width results. In float64, without torch."""
