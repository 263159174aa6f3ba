"""What theory says of a fully connected network that is described by its scheme, activation and norm."""

import math
from dataclasses import dataclass

import numpy as np

from rmtbn import inits
from rmtbn.activations import activation as find_activation
from rmtbn.result import DepthProfile, SpectralMeasure, tabulated
from rmtbn.theory import bn_mean_field, mean_field
from rmtbn.theory.jacobian import jacobian_law


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A fully connected network of constant width as theory sees it.

    Parameters
    ----------
    activation, norm
        Names.
    law
        Weight law of every layer.
    q0, c0
        Mean square of the input's entries, and correlation of two inputs.
    batch_size
        B of the batch statistics; used with the norm "batch" only.
    """

    activation: str
    norm: str
    law: inits.WeightLaw
    q0: float = 1.0
    c0: float = 0.0
    batch_size: int = 0

    def lengths(self, depth: int) -> DepthProfile:
        """Predict log q per layer, the log mean square of the pre-activations."""
        if self.norm == "batch":  # what came before the last normalisation is gone: every layer but the first is alike
            log_q = np.full(depth, math.log(self.law.sigma_w**2 * self._batch.q))
            log_q[0] = math.log(self.law.sigma_w**2 * self.q0)
        else:
            log_q = mean_field.log_lengths(
                self.q0, self.activation, depth=depth, sigma_w=self.law.sigma_w, sigma_b=self.law.sigma_b
            )
        return _profile(log_q, symbol="q", label="mean square of the pre-activations", is_log=True)

    def correlations(self, depth: int) -> DepthProfile:
        """Predict the correlation of two inputs' pre-activations per layer."""
        if self.norm == "batch":
            c = np.full(depth, self._batch.c)
            c[0] = self.c0
        else:
            c = mean_field.correlations(
                self.c0, self.activation, q0=self.q0, depth=depth, sigma_w=self.law.sigma_w, sigma_b=self.law.sigma_b
            )
        return _profile(c, symbol="c", label="correlation of two inputs", is_log=False)

    def gradient_growth(self, depth: int) -> DepthProfile:
        """Predict log ‖∂ℓ/∂h¹‖²(L) - log ‖∂ℓ/∂h¹‖²(1), the growth of the first layer's gradient with the depth L."""
        if self.norm == "batch":
            steps = np.full(depth, math.log(self._batch.explosion_rate))
        else:
            q = np.exp(self.lengths(depth).value)
            with np.errstate(divide="ignore"):
                steps = np.log(mean_field.chi1(q, self.activation, sigma_w=self.law.sigma_w))
        steps[0] = 0.0
        return _profile(np.cumsum(steps), symbol="‖g‖²", label="squared gradient norm at layer 1", is_log=True)

    def jacobian_law(self, depth: int) -> SpectralMeasure | None:
        """Predict the law of the squared singular values of the Jacobian of `depth` layers; None under a norm."""
        if self.norm != "none":
            return None
        record = find_activation(self.activation)
        scale_free = record.slopes is not None and set(record.kinks) <= {0.0}  # φ′ then knows no lengths
        weights = "orthogonal" if self.law.distribution == "orthogonal" else "gaussian"  # uniform entries: universality
        law = jacobian_law(
            self.activation,
            depth=depth,
            weights=weights,
            q0=None if scale_free else self.q0,
            sigma_w=self.law.sigma_w,
            sigma_b=self.law.sigma_b,
        )
        return law if record.slopes is not None else tabulated(law)  # of smooth φ a point costs milliseconds per layer

    @property
    def _batch(self) -> bn_mean_field.FixedPoint:
        return bn_mean_field.fixed_point(self.activation, batch_size=self.batch_size)


def _profile(values: np.ndarray, *, symbol: str, label: str, is_log: bool) -> DepthProfile:
    depth = np.arange(1.0, len(values) + 1)
    return DepthProfile(depth=depth, value=values, se=np.zeros(len(values)), symbol=symbol, label=label, is_log=is_log)
