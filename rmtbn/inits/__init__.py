"""Initialisation schemes: a registry of weight laws that can be drawn from and asked about.

A law is a distribution with Var W_ij = σ_w²/fan_in and Var b_i = σ_b², so that theory and network use the same numbers.
Schemes that are more than a law for each layer have their own modules: `rmtbn.inits.looks_linear` (mirrored weights),
`rmtbn.inits.lsuv` (scaled to the data) and `rmtbn.nets.fixup` (scaled by the number of blocks).
"""

from rmtbn.inits.laws import CONVOLUTION_INITS, INITS, Scheme, WeightLaw, weight_law
from rmtbn.inits.network import initialise

__all__ = ["CONVOLUTION_INITS", "INITS", "Scheme", "WeightLaw", "initialise", "weight_law"]
