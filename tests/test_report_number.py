"""Numbers as texts."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmtbn.report.number import number, with_error


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0.0, 3, "0.00"),
        (1.0, 3, "1.00"),
        (math.pi, 3, "3.14"),
        (-math.pi, 5, "−3.1416"),
        (9.996, 3, "10.0"),
        (12345.6, 3, "12346"),
        (99999.6, 5, "1.0000 × 10⁵"),
        (0.00012345, 3, "0.000123"),
        (0.000012345, 3, "1.23 × 10⁻⁵"),
        (6.02214e23, 3, "6.02 × 10²³"),
        (5e-324, 2, "4.9 × 10⁻³²⁴"),
        (1.7976931348623157e308, 3, "1.80 × 10³⁰⁸"),
        (math.inf, 3, "∞"),
        (-math.inf, 3, "−∞"),
        (math.nan, 3, "—"),
    ],
)
def test_number_is_written_to_its_significant_digits(value, digits, text):
    assert number(value, digits=digits) == text


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (1.46712, 0.0123, "1.467 ± 0.012"),
        (1.46712, 0.0996, "1.47 ± 0.10"),
        (-0.5, 0.25, "−0.50 ± 0.25"),
        (0.0, 0.1, "0.00 ± 0.10"),
        (52341.7, 996.0, "52300 ± 1000"),
        (52341.7, 123.0, "52340 ± 120"),
        (3.2e-7, 1.14e-8, "(3.20 ± 0.11) × 10⁻⁷"),
        (1.2345e7, 1e5, "(1.234 ± 0.010) × 10⁷"),
        (1e-9, 0.5, "0.00 ± 0.50"),
        (1.5, 0.0, "1.500"),
        (1.5, math.nan, "1.500"),
        (1.5, math.inf, "1.50 ± ∞"),
        (math.nan, 0.1, "—"),
        (-math.inf, 0.1, "−∞"),
    ],
)
def test_error_is_rounded_to_two_digits_and_the_value_with_it(value, error, text):
    assert with_error(value, error) == text


@given(value=st.floats(-1e12, 1e12), error=st.floats(1e-12, 1e12))
def test_what_is_written_is_what_was_measured(value, error):
    """|read(value) − value| and |read(error) − error| ≤ half a unit of the error's second digit."""
    text = with_error(value, error).replace("−", "-")
    found = re.fullmatch(r"\(?(-?[\d.]+) ± ([\d.]+)\)?( × 10([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+))?", text)
    power = 10.0 ** int((found[4] or "0").translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")))
    unit = 10.0 ** (int(f"{error:.1e}".partition("e")[2]) - 1)
    assert abs(float(found[1]) * power - value) <= 0.5 * unit * (1 + 1e-6) + 1e-15 * abs(value)
    assert abs(float(found[2]) * power - error) <= 0.5 * unit * (1 + 1e-6)
