"""Invoices: any text is either read exactly or refused by its line, and a comparison leaves no dollar out."""

from datetime import date, timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.pricing.invoice import (
    Booked,
    Format,
    InvoiceError,
    Line,
    Tolerance,
    compare,
    read_invoice,
    same_models,
)

FORMAT = Format("", "Day", "Amount", "Model")
FIRST = date(2027, 1, 1)


@given(st.text(max_size=200), st.none() | st.just(FORMAT))
def test_any_text_is_read_or_refused(text, format):
    try:
        lines = read_invoice(text.splitlines(keepends=True), format)
    except InvoiceError:
        return
    assert lines


@given(st.lists(st.text(alphabet='0123456789-,.$"eEnaif\x00 T:\n', max_size=20), min_size=2, max_size=3))
def test_any_line_is_read_or_refused(cells):
    try:
        lines = read_invoice(["Day,Amount,Model\n", ",".join(cells)], FORMAT)
    except InvoiceError:
        return
    assert len(lines) == 1


def test_amounts_are_added_up_exactly_whatever_a_float_made_of_them():
    rows = ["day,amount,model\n", *("2027-01-01,0.1000000000000000055511151231257827,m\n" for _ in range(10))]
    assert read_invoice(rows, FORMAT) == [Line(FIRST, "m", 10**9)]
    rows = ['2027-01-01,"$1,250.50",m\n', "2027-01-01,1e-9,m\n", "2027-01-01,-0.25,m\n"]
    assert read_invoice(["day,amount,model\n", *rows], FORMAT) == [Line(FIRST, "m", 1_250_250_000_001)]


@pytest.mark.parametrize(
    ("theirs", "ours", "same"),
    [
        ("gpt-4o", ["gpt-4o", "gpt-4o-mini"], "gpt-4o"),
        ("gpt-4o-2024-08-06", ["gpt-4o", "gpt-4o-mini"], "gpt-4o"),
        ("gpt-4o-2024-08-06", ["gpt-4o", "gpt-4o-2024-08-06"], "gpt-4o-2024-08-06"),
        ("Claude Haiku 4.5", ["claude-haiku-4-5-20251001"], "claude-haiku-4-5-20251001"),
        ("gpt-4o-mini", ["gpt-4o"], None),
        ("gpt-4o-2024-08-06", ["gpt-4o-2024-05-13", "gpt-4o-2024-11-20"], None),  # either would be a guess
    ],
)
def test_models_are_the_same_by_name_and_never_by_a_guess(theirs, ours, same):
    assert same_models([theirs], ours, {}).get(theirs) == same


models = st.sampled_from(["a", "b", "c-2027-01-01", ""])
days = st.integers(0, 3).map(lambda n: FIRST + timedelta(days=n))
amounts = st.integers(-(10**9), 10**12)


@given(
    st.lists(st.builds(Line, days, models, amounts), min_size=1, max_size=8),
    st.lists(st.builds(Booked, days, models, amounts, st.integers(1, 5)), max_size=8),
)
def test_the_lines_of_a_comparison_add_up_to_both_sums(invoice, books):
    found = compare(invoice, books, Tolerance(), {}, 0, {})
    assert sum(line.invoiced for line in found.lines) == found.invoiced == sum(line.nanos for line in invoice)
    assert sum(line.booked for line in found.lines) == found.booked == sum(one.nanos for one in books)
    assert sum(line.requests for line in found.lines) == sum(one.requests for one in books)
    assert found.within is False or all(line.within for line in found.lines)


def test_a_cent_is_no_difference_and_a_share_is_of_what_was_invoiced():
    assert Tolerance().allows(10**9, 10**9 + 10**7) and not Tolerance().allows(10**9, 10**9 + 10**7 + 1)
    assert Tolerance(Fraction(1, 10)).allows(10**10, 9 * 10**9) and not Tolerance(Fraction(1, 10)).allows(
        9 * 10**9, 10**10
    )
