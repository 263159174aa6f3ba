"""Random-matrix analysis of deep networks: measured spectra, moments and gradients beside what theory predicts.

The modules are the interface: ``rmtbn.theory`` predicts, ``rmtbn.measure`` measures, ``rmtbn.compare`` lays the two
side by side.
"""

__version__ = "0.1.0"
