"""Figures: one file per kind; each draws what it is given on given axes. It computes, saves, shows nothing."""
