"""The claims of Bjorck et al. 2018 (arXiv:1806.02375) by number, and the rules by which measurements judge them."""

import math
from collections.abc import Mapping
from types import MappingProxyType

from scipy import stats

from rmtbn.report.number import number, with_error
from rmtbn.report.page import Claim
from rmtbn.result import Scalar

SMALL = 0.5  # error of a logarithm up to which the first order serves
LEVEL = 0.975  # one-sided, Student's t over networks
RULE = (
    "A statement that a number is above (or below) a bound is supported if the whole 95 % confidence interval of its "
    "mean (Student's t over networks) is on that side of the bound, contradicted if it is all on the other, and "
    "inconclusive else, as it is with one network. Ratios and sizes are averaged as logarithms. Of several statements "
    "all must be supported, and one contradicted contradicts."
)

# Number -> what is said, and where in the paper.
STATEMENTS: Mapping[int, tuple[str, str]] = MappingProxyType(
    {
        1: ("Without normalisation a network trains only at rates up to about 1e-4; with it, at 0.1.", "section 3.1"),
        2: ("At the same small rate, networks with and without normalisation are about equally accurate.", "fig. 1"),
        3: ("With normalisation, accuracy rises with the learning rate.", "fig. 1"),
        4: ("With normalisation, the gap between training and test accuracy shrinks with the rate.", "fig. 1"),
        5: ("Small rates need many more epochs.", "section 3"),
        6: ("Layer, group and instance normalisation permit large rates too.", "section 3"),
        7: ("The noise of a step of SGD is at most α² C/|B|.", "section 3.1, eq. (2)"),
        8: ("The noise depends on rate and batch only through α²/|B|.", "section 3.1"),
        9: ("At initialisation, gradients are larger without normalisation.", "fig. 2"),
        10: ("At initialisation, gradients have heavier tails without normalisation.", "fig. 2"),
        11: ("Along the gradient, the loss falls for a far wider range of steps with normalisation.", "fig. 3"),
        12: ("Too large a rate makes the loss diverge within the first mini-batches.", "section 3.2"),
        13: ("While it diverges, means and variances of channels grow by orders of magnitude with depth.", "fig. 4"),
        14: ("At initialisation, channel moments grow exponentially with depth without normalisation, not with it.",
             "fig. 5"),
        15: ("The growth of channel moments without normalisation does not depend on the data.", "section 3.3"),
        16: ("Outputs of the network without normalisation reach 100.", "section 3.3"),
        17: ("One normalisation after the last block permits larger rates and brings most of the gain.", "section 3.3"),
        18: ("At initialisation, the network puts every image in one class without normalisation, not with it.",
             "fig. 6"),
        19: ("Gradients at the outputs are alike for different images without normalisation, and not with it.",
             "fig. 6"),
        20: ("Without normalisation, one class carries a large part of the gradient summed over the batch.", "fig. 6"),
        21: ("Without normalisation, the summands of the gradient of a kernel share their sign: a/b ≤ 3.", "table 1"),
        22: ("With normalisation, a/b is of the order of 100 and falls with depth.", "table 1"),
        23: ("Entry by entry, too, summands cancel far more with normalisation.", "appendix J"),
        24: ("Without normalisation, the gradient by pairs of channels is nearly of rank one; with it, less.",
             "fig. 7"),
        25: ("Channels with a large mean have a large gradient in the kernels that they feed.", "appendix G"),
        26: ("Shallower networks without normalisation stand larger rates.", "appendix H"),
        27: ("Squared singular values of products of Gaussian matrices follow the density of Theorem 1.",
             "Theorem 1, fig. 8"),
        28: ("The largest is at the edge (M+1)^(M+1)/M^M, and the density at 0 has the exponent -M/(M+1).",
             "Theorem 1"),
        29: ("The condition number of a product of M matrices grows exponentially with M.", "appendix K"),
        30: ("A larger condition number means slower descent and a smaller usable rate.", "section 4"),
        31: ("Schemes that keep the variance on average do not control its fluctuations, which grow with depth.",
             "section 4"),
    }
)  # fmt: skip


def claim(key: int, *, predicted: str, measured: str, verdict: str, evidence: str) -> Claim:
    """Return the claim of a number with its measurement."""
    statement, where = STATEMENTS[key]
    return Claim(
        statement=statement,
        source=f"Bjorck et al. 2018, arXiv:1806.02375, {where} (claim {key} of {len(STATEMENTS)})",
        predicted=predicted,
        measured=measured,
        verdict=verdict,
        evidence=evidence,
    )


def above(measured: Scalar, bound: float) -> str:
    """Judge by `RULE` that the mean of `measured` is above `bound`."""
    if measured.networks < 2 or not math.isfinite(measured.value):
        return "inconclusive"
    reach = float(stats.t(measured.networks - 1).ppf(LEVEL)) * measured.se
    if measured.value - reach > bound:
        return "supported"
    return "contradicted" if measured.value + reach < bound else "inconclusive"


def below(measured: Scalar, bound: float) -> str:
    """Judge by `RULE` that the mean of `measured` is below `bound`."""
    return _opposite(above(measured, bound))


def between(measured: Scalar, low: float, high: float) -> str:
    """Judge by `RULE` that the mean of `measured` is between two bounds."""
    return together(above(measured, low), below(measured, high))


def together(*verdicts: str) -> str:
    """Judge that several statements all hold."""
    if "contradicted" in verdicts:
        return "contradicted"
    return "inconclusive" if "inconclusive" in verdicts else "supported"


def geometric(logarithm: Scalar) -> str:
    """Write a mean of logarithms as the number that it is the logarithm of, with its error.

    Small errors are written ± (first order), larger ones as the factor ×/÷ that they are.
    """
    value = math.exp(logarithm.value)
    if logarithm.networks < 2:
        return number(value)
    if logarithm.se <= SMALL:
        return with_error(value, value * logarithm.se)
    return f"{number(value, digits=2)} ×/÷ {number(math.exp(logarithm.se), digits=2)}"


def _opposite(verdict: str) -> str:
    return {"supported": "contradicted", "contradicted": "supported"}.get(verdict, verdict)
