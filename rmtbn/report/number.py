"""Numbers as readers expect them: errors to two digits, values to the digits their errors allow, powers of ten."""

import math

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_PLAIN = (-4, 5)  # powers of ten written out: 0.00012 to 12345


def number(value: float, *, digits: int = 3) -> str:
    """Write a number to `digits` significant digits; very large and small ones as powers of ten.

    Examples
    --------
    >>> number(0.012345), number(-123456789.0, digits=2), number(float("inf"))
    ('0.0123', '−1.2 × 10⁸', '∞')
    """
    if not math.isfinite(value):
        return _special(value)
    exponent = _exponent(value, digits=digits)
    if value == 0 or _PLAIN[0] <= exponent < _PLAIN[1]:
        return _fixed(value, decimals=max(digits - 1 - exponent, 0))
    return f"{_scaled(value, exponent=exponent, decimals=digits - 1)} × 10{_power(exponent)}"


def with_error(value: float, error: float) -> str:
    """Write value ± error, the error to two significant digits and the value to the same decimal.

    An error of zero (exact) or NaN (unknown) leaves the value alone; an infinite one (a single network) is written ∞.

    Examples
    --------
    >>> with_error(1.46712, 0.0123), with_error(52341.7, 996.0), with_error(3.2e-7, 1.14e-8)
    ('1.467 ± 0.012', '52300 ± 1000', '(3.20 ± 0.11) × 10⁻⁷')
    """
    if error == 0 or math.isnan(error) or not math.isfinite(value):
        return number(value, digits=4)
    if math.isinf(error):
        return f"{number(value)} ± ∞"
    top = max(_exponent(value, digits=4), _exponent(error, digits=2))
    place = _exponent(error, digits=2) - 1  # decimal place of the last digit that is kept
    value, error = round(value, -place), round(error, -place)
    if _PLAIN[0] <= top < _PLAIN[1]:
        return f"{_fixed(value, decimals=max(-place, 0))} ± {_fixed(error, decimals=max(-place, 0))}"
    decimals = top - place
    mantissa = f"{_scaled(value, exponent=top, decimals=decimals)} ± {_scaled(error, exponent=top, decimals=decimals)}"
    return f"({mantissa}) × 10{_power(top)}"


def _exponent(value: float, *, digits: int) -> int:
    """Power of ten of the first digit, after rounding to `digits`: 9.996 to three digits starts with 10."""
    return int(f"{value:.{digits - 1}e}".partition("e")[2])


def _scaled(value: float, *, exponent: int, decimals: int) -> str:
    """Write value / 10^exponent, by its decimal digits: the power itself may leave the floating range."""
    mantissa, _, own = f"{value:.17e}".partition("e")
    return _fixed(float(f"{mantissa}e{int(own) - exponent}"), decimals=max(decimals, 0))


def _fixed(value: float, *, decimals: int) -> str:
    return f"{value:.{decimals}f}".replace("-", "−")


def _power(exponent: int) -> str:
    return str(exponent).translate(_SUPERSCRIPTS)


def _special(value: float) -> str:
    if math.isnan(value):
        return "—"
    return "∞" if value > 0 else "−∞"
