"""Sweeps: cells and their keys, a store with one file per cell, engines, resumable runs. Knows no physics."""
