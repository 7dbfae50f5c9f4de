"""Personal data in text: numbers that everybody prints as examples, and what only looks like them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.routing.sensitivity import find_pii, iban, luhn
from penstock.routing.spec import EVERY_PII


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("Write to jane.doe+news@mail.example.co.uk please", ("email",)),
        ("Call +1 (415) 555-2671 or 415-555-2671", ("phone",)),
        ("Ruf mich an: 030 1234567", ("phone",)),
        ("Tel. +49 30 901820", ("phone",)),
        ("My card is 4111 1111 1111 1111.", ("card",)),
        ("378282246310005", ("card",)),
        ("IBAN DE89 3704 0044 0532 0130 00 at the bank", ("iban",)),
        ("gb82west12345698765432", ("iban",)),
        ("SSN: 078-05-1120", ("ssn",)),
    ],
)
def test_it_is_found_and_called_by_its_kind(text, kinds):
    assert find_pii(text, EVERY_PII) == kinds


@pytest.mark.parametrize(
    "text",
    [
        "Version 1.2.3-4 of 2026-11-20 has 12,345,678 downloads.",
        "4111 1111 1111 1112",  # the last digit is wrong
        "Order 000-12-3456 and 666-12-3456 and 123-00-4567",  # never given out as social security numbers
        "def f(x): return x @ y  # a@b",
        "Call me at 10:30 on 12/24.",
        "0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0",
        "192.168.10.250 and 10.0.0.1:8080",
        "What is 415 + 555 - 2671?",
    ],
)
def test_what_only_looks_like_it_is_not_found(text):
    assert find_pii(text, EVERY_PII) == ()


def test_an_account_number_with_a_wrong_checksum_is_none():
    assert find_pii("DE89 3704 0044 0532 0130 01", ("iban",)) == ()


def test_only_the_kinds_that_are_asked_for_are_looked_for():
    assert find_pii("a@example.com 078-05-1120", ("ssn",)) == ("ssn",)


@given(st.lists(st.integers(0, 9), min_size=12, max_size=18), st.integers(1, 9), st.text("xyz \n", max_size=20))
def test_every_number_with_its_check_digit_is_a_card_and_with_another_it_is_none(digits, wrong, around):
    digits[0] = 4
    check = next(c for c in range(10) if luhn([*digits, c]))
    number = "".join(map(str, [*digits, check]))
    assert find_pii(f"{around} {number} {around}", ("card",)) == ("card",)
    number = "".join(map(str, [*digits, (check + wrong) % 10]))
    assert find_pii(f"{around} {number} {around}", ("card",)) == ()


@given(st.text("ABCDEFGH0123456789", min_size=11, max_size=28), st.sampled_from(["DE", "FR", "NO", "MT"]))
def test_every_iban_with_its_checksum_is_found_in_a_sentence(rest, country):
    check = next(f"{n:02}" for n in range(2, 99) if iban(f"{country}{n:02}{rest}"))
    assert find_pii(f"Pay {country}{check}{rest}, thanks", ("iban",)) == ("iban",)


@pytest.mark.parametrize("piece", ["a@", "1 ", "4 ", "a.", "DE12", "+1 ", "0", "a@a.", "(0", "1-"])
def test_a_long_text_of_what_almost_matches_is_no_attack(piece):
    """Linear: a hundred thousand characters end long before the test's own limit, where quadratic would not."""
    assert find_pii(piece * (100_000 // len(piece)), ("email", "phone", "iban", "ssn")) in ((), ("iban",), ("phone",))
