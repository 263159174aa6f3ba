"""Studies: one file each, run as commands of the console script ``rmtbn``."""
