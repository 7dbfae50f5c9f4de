"""Money as integers: what people write, what we show, and the one rounding."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.money import dollars, read_nanos, read_picos, round_to_nanos, show, show_picos

amounts = st.integers(0, 10**18 - 1)  # below a thousand million dollars


@pytest.mark.parametrize(
    ("text", "nanos"),
    [
        ("$50", 50_000_000_000),
        ("0.15", 150_000_000),
        ("50 USD", 50_000_000_000),
        ("USD 50", 50_000_000_000),
        ("1,250.50", 1_250_500_000_000),
        ("$0.000000001", 1),
        ("0", 0),
    ],
)
def test_dollars_are_read_as_people_write_them(text, nanos):
    assert read_nanos(text) == nanos


@pytest.mark.parametrize(
    "text",
    [
        "",
        "$",
        "fifty",
        "-5",
        "+5",
        "1e3",
        "0,15",
        "1,25",
        "1_000",
        "50 EUR",
        "$ 50",
        " 50",
        "50\n",
        ".5",
        "5.",
        "nan",
        "٥٠",
    ],
)
def test_what_is_not_an_amount_of_dollars_is_refused(text):
    with pytest.raises(ValueError, match="not an amount of dollars"):
        read_nanos(text)


def test_an_amount_that_would_have_to_be_rounded_is_refused():
    assert read_picos("0.0000000015") == 1_500
    with pytest.raises(ValueError, match="finer than"):
        read_nanos("0.0000000015")


@given(amounts)
def test_what_is_shown_is_read_back_as_the_same(nanos):
    assert read_nanos(show(nanos)) == nanos
    assert read_picos(show_picos(nanos)) == nanos
    assert show(-nanos) == (f"-{show(nanos)}" if nanos else show(nanos))


@given(st.integers(-(10**40), 10**40))
def test_dollars_are_exact_however_many_there_are(nanos):
    assert int(dollars(nanos).scaleb(9, context=exact(60))) == nanos


def test_dollars_show_cents_and_as_many_digits_as_there_are():
    assert dollars(1_250_000_000) == Decimal("1.25")
    assert show(12_000_000_000) == "$12.00"
    assert show(15) == "$0.000000015"
    assert show(-250_000_000) == "-$0.25"


@given(amounts)
def test_a_half_goes_up_and_no_rounding_is_off_by_more(picos):
    nanos = round_to_nanos(picos)
    assert -500 < nanos * 1_000 - picos <= 500


def exact(digits):
    from decimal import Context

    return Context(prec=digits)
