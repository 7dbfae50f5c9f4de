"""Stop strings are found wherever the text was cut, and nothing of them is ever shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.engine.stop_strings import StopStrings

few_letters = st.text("ab", max_size=20)


def test_text_that_may_become_a_stop_string_is_held_back_and_shown_when_it_does_not():
    stops = StopStrings(["END"])
    assert stops.feed("the E") == "the "
    assert stops.feed("N") == ""
    assert stops.feed("V") == "ENV"
    assert stops.feed("oy EN") == "oy "
    assert stops.finish() == "EN"


def test_a_stop_string_over_several_pieces_ends_the_text_before_it():
    stops = StopStrings(["\n\n", "END"])
    assert stops.feed("yes\n") == "yes"
    assert stops.feed("\nno") == ""
    assert stops.found == "\n\n"
    assert stops.feed("more") == ""
    assert stops.finish() == ""


def test_the_earliest_stop_string_wins_and_of_two_the_longer():
    stops = StopStrings(["c", "bc", "b"])
    assert stops.feed("abcd") == "a"
    assert stops.found == "bc"


def test_an_empty_stop_string_is_refused():
    with pytest.raises(ValueError, match="empty"):
        StopStrings([""])


@given(st.lists(few_letters, max_size=8), st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3))
def test_however_text_is_cut_what_is_shown_is_the_text_before_the_first_stop(pieces, stops):
    machine = StopStrings(stops)
    text = "".join(pieces)
    ends = [text.find(stop) + len(stop) for stop in stops if stop in text]
    shown = ""
    for piece in pieces:
        shown += machine.feed(piece)
        assert text.startswith(shown)
        assert not any(stop in shown for stop in stops)
    shown += machine.finish()
    if not ends:
        assert shown == text
    else:
        assert machine.found is not None
        assert text.startswith(shown + machine.found)
        assert not any(stop in shown for stop in stops)
