"""Figures: one file per kind; each draws what it is given on the axes it is given. Computes, saves and shows nothing."""
