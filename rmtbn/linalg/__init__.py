"""Linear algebra for spectra at depth: long products held so that no singular value is lost."""
