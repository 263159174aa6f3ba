"""Batch normalisation behind `rmtbn.theory.bn_mean_field`: sphere integrals, eigenvalues, the one-layer law."""
