"""The claims of `rmtbn schemes`: what papers say of these schemes, each judged by its numbers."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats

from rmtbn.report.number import number, with_error
from rmtbn.report.page import Claim
from rmtbn.result import Scalar
from rmtbn.theory import bn_mean_field, mean_field

from ._schemes_records import Key, Schemes

FINITE_SIZE = 4.0  # allowance 4/N per layer: E ln of a squared norm differs from ln E by at most 5/(2N) per ReLU layer
RULE = (
    "A number is supported if the prediction is within its 99 % confidence interval (Student's t over networks), "
    "widened by 4/N for finite width, and the alternative is not; contradicted if the prediction is not; inconclusive "
    "if both are, or if there is one network only."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RateClaim:
    """A claim on the growth per layer of a logarithm, for one kind of network.

    Parameters
    ----------
    statement, source
        What is said, and where.
    key
        Activation, norm and scheme.
    column
        The logarithm: "log_q" or "log_gradient".
    predicted, alternative
        The rate that is claimed, and the one that the claim denies.
    """

    statement: str
    source: str
    key: Key
    column: str
    predicted: Callable[[Schemes], float]
    alternative: Callable[[Schemes], float]


def claims(schemes: Schemes) -> tuple[Claim, ...]:
    """Judge every claim."""
    rates = tuple(_judged(claim, schemes) for claim in RATE_CLAIMS)
    return (*rates, _correlation_claim(schemes), _conditioning_claim(schemes))


def _constant(_schemes: Schemes) -> float:
    return 0.0


def _halving(_schemes: Schemes) -> float:
    return -math.log(2)


def _explosion(schemes: Schemes) -> float:
    return math.log(bn_mean_field.fixed_point("relu", batch_size=schemes.examples).explosion_rate)


def _chaos(schemes: Schemes) -> float:
    return math.log(mean_field.fixed_point("tanh", sigma_w=schemes.gaussian_sigma_w).chi1)


RATE_CLAIMS = (
    RateClaim(
        statement="He initialisation keeps the mean square of ReLU pre-activations at every depth.",
        source="He et al. 2015, arXiv:1502.01852, eq. (10)",
        key=("relu", "none", "he_normal"),
        column="log_q",
        predicted=_constant,
        alternative=_halving,
    ),
    RateClaim(
        statement="Glorot initialisation halves the mean square per ReLU layer.",
        source="He et al. 2015, arXiv:1502.01852, section 2.2",
        key=("relu", "none", "glorot_normal"),
        column="log_q",
        predicted=_halving,
        alternative=_constant,
    ),
    RateClaim(
        statement="He initialisation keeps the squared gradient norm of ReLU networks at every depth.",
        source="He et al. 2015, arXiv:1502.01852, eq. (14)",
        key=("relu", "none", "he_normal"),
        column="log_gradient",
        predicted=_constant,
        alternative=_explosion,
    ),
    RateClaim(
        statement="Batch normalisation makes gradients explode: the squared norm grows by λ_G(B) per ReLU layer, which "
        "tends to π/(π − 1) ≈ 1.467 for large batches.",
        source="Yang et al. 2019, arXiv:1902.08129, section 3",
        key=("relu", "batch", "he_normal"),
        column="log_gradient",
        predicted=_explosion,
        alternative=_constant,
    ),
    RateClaim(
        statement="Gradients of tanh networks explode in the chaotic phase, by χ₁ > 1 per layer.",
        source="Schoenholz et al. 2017, arXiv:1611.01232, eq. (6)",
        key=("tanh", "none", "gaussian"),
        column="log_gradient",
        predicted=_chaos,
        alternative=_constant,
    ),
    RateClaim(
        statement="On the critical line the squared gradient norm of tanh networks is kept.",
        source="Schoenholz et al. 2017, arXiv:1611.01232, section 3",
        key=("tanh", "none", "critical"),
        column="log_gradient",
        predicted=_constant,
        alternative=_chaos,
    ),
)


def judge(measured: Scalar, *, predicted: float, alternative: float, allowance: float) -> str:
    """Apply `RULE`."""
    if measured.networks < 2 or not math.isfinite(measured.value):
        return "inconclusive"
    tolerance = float(stats.t(measured.networks - 1).ppf(0.995)) * measured.se + allowance
    near, excluded = (abs(measured.value - value) <= tolerance for value in (predicted, alternative))
    if near:
        return "inconclusive" if excluded else "supported"
    return "contradicted"


def _judged(claim: RateClaim, schemes: Schemes) -> Claim:
    rate, start, end = _rate(schemes, claim.key, claim.column)
    predicted, alternative = claim.predicted(schemes), claim.alternative(schemes)
    allowance = FINITE_SIZE / schemes.width
    return Claim(
        statement=claim.statement,
        source=claim.source,
        predicted=f"ln growth {_plain(predicted)} per layer (factor {number(math.exp(predicted), digits=4)})",
        measured=f"{with_error(rate.value, rate.se)} per layer (factor {number(math.exp(rate.value), digits=4)})",
        verdict=judge(rate, predicted=predicted, alternative=alternative, allowance=allowance),
        evidence=f"Growth from depth {start} to {end}, {rate.networks} networks of width {schemes.width}; the "
        f"alternative is ln growth {_plain(alternative)}.",
    )


def _plain(value: float) -> str:
    return number(value) if value else "0"


def _rate(schemes: Schemes, key: Key, column: str) -> tuple[Scalar, int, int]:
    """Growth of a logarithm per layer between depth 4 (or 1) and the deepest, one value per network."""
    end = schemes.deepest
    start = 4 if end > 4 else 1
    values = schemes.by_network(key, column)
    slopes = (values[end] - values[start]) / (end - start)
    return Scalar.over_networks(slopes.to_numpy(), symbol="ln rate", label=column), start, end


def _correlation_claim(schemes: Schemes) -> Claim:
    end = schemes.deepest
    predicted = bn_mean_field.fixed_point("relu", batch_size=schemes.examples).c
    normed = schemes.by_network(("relu", "batch", "he_normal"), "correlation")
    last = normed[[layer for layer in normed if layer > end // 2]].mean(axis=1)
    collapsed = float(schemes.by_network(("relu", "none", "he_normal"), "correlation")[end].mean())
    measured = Scalar.over_networks(last.to_numpy(), symbol="c", label="correlation")
    return Claim(
        statement="Batch normalisation keeps inputs apart: their correlation in a ReLU network tends to J₁(−1/(B−1)), "
        "where without it it tends to 1.",
        source="Yang et al. 2019, arXiv:1902.08129, section 3; Poole et al. 2016, arXiv:1606.05340",
        predicted=number(predicted),
        measured=f"{with_error(measured.value, measured.se)} (without: {number(collapsed)} at depth {end})",
        verdict=judge(measured, predicted=predicted, alternative=collapsed, allowance=FINITE_SIZE / schemes.width),
        evidence=f"Mean over layers {end // 2 + 1} to {end} and pairs of {schemes.examples} examples, "
        f"{measured.networks} networks; the alternative is the correlation without batch normalisation.",
    )


def _conditioning_claim(schemes: Schemes) -> Claim:
    end = schemes.deepest

    def condition(scheme: str) -> Scalar:
        values = schemes.by_network(("tanh", "none", scheme), "log_condition")[end]
        return Scalar.over_networks(values.to_numpy(), symbol="ln κ", label=scheme)

    orthogonal, gaussian = condition("orthogonal"), condition("critical")
    gap, se = gaussian.value - orthogonal.value, float(np.hypot(gaussian.se, orthogonal.se))
    margin = float(stats.t(max(orthogonal.networks - 1, 1)).ppf(0.995)) * se
    decided = "supported" if gap > 0 else "contradicted"
    return Claim(
        statement="Orthogonal weights keep deep tanh Jacobians far better conditioned than Gaussian weights.",
        source="Pennington et al. 2017, arXiv:1711.04735, section 3",
        predicted="ln κ smaller for orthogonal weights",
        measured=f"ln κ = {with_error(orthogonal.value, orthogonal.se)} orthogonal, "
        f"{with_error(gaussian.value, gaussian.se)} Gaussian",
        verdict=decided if abs(gap) > margin else "inconclusive",
        evidence=f"Depth {end}, {orthogonal.networks} networks of width {schemes.width}; decided if the two differ "
        "at the 99 % level.",
    )
