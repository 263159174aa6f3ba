"""Inputs: real images and Gaussian vectors, standardised tensors out."""
