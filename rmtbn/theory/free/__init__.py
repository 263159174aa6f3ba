"""The engine of free probability: factors, the spectral curve of their product, its branch, edges and bulk."""
