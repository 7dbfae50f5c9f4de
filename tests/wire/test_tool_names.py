"""Tool names out, and home again."""

import re

from hypothesis import given
from hypothesis import strategies as st

from penstock.wire.canonical import Ask, Message, Tool, ToolCall
from penstock.wire.tool_names import ToolNames

LEGAL = re.compile(r"[a-zA-Z0-9_-]{1,64}")
names = st.lists(st.text(max_size=90) | st.from_regex(r"[a-z]{60}[a-z./]{0,10}", fullmatch=True), max_size=8)


@given(names, st.integers(24, 128))
def test_every_name_goes_out_legal_and_unlike_any_other_and_comes_home(names, limit):
    map = ToolNames(names, limit=limit)
    out = {name: map.outward(name) for name in names}
    assert len(set(out.values())) == len(out)
    for name, seen in out.items():
        assert re.fullmatch(r"[a-zA-Z0-9_-]+", seen) and len(seen) <= limit
        assert map.home(seen) == name


@given(names)
def test_two_who_know_the_same_names_agree_in_any_order_of_asking(names):
    one, other = ToolNames(names), ToolNames(names)
    assert [one.outward(name) for name in names] == [other.outward(name) for name in reversed(names)][::-1]


def test_a_legal_name_stays_even_where_a_mapped_one_would_want_it():
    taken = ToolNames().outward("files/read")
    map = ToolNames(["files/read", taken])
    assert map.outward(taken) == taken
    assert map.outward("files/read") != taken
    assert map.home(map.outward("files/read")) == "files/read"


def test_a_name_that_comes_up_later_does_not_take_one_that_is_in_use():
    map = ToolNames(["files/read"])
    late = map.outward("files/read")
    assert map.outward(late) != late
    assert map.home(map.outward(late)) == late


def test_names_that_differ_only_in_what_is_cut_off_stay_apart():
    map = ToolNames(["a" * 70 + "1", "a" * 70 + "2"])
    assert map.outward("a" * 70 + "1") != map.outward("a" * 70 + "2")
    assert LEGAL.fullmatch(map.outward("a" * 70 + "1"))


def test_a_name_that_was_never_sent_comes_home_as_it_is():
    assert ToolNames(["a"]).home("made_up") == "made_up"


def test_an_upstream_that_wants_a_letter_first_gets_one():
    map = ToolNames(["7zip", "-x", ""], pattern=r"[a-zA-Z_][a-zA-Z0-9_.:-]*")
    assert all(re.match("[a-zA-Z_]", map.outward(name)) for name in ("7zip", "-x", ""))
    assert map.outward("7zip") != "7zip"


def test_the_names_of_a_request_are_those_of_its_tools_and_of_its_past_calls():
    call = ToolCall(id="1", name="past/call", arguments="{}")
    map = ToolNames.of(Ask(model="m", messages=(Message("assistant", (call,)),), tools=(Tool(name="a.b"),)))
    seen = ToolNames(["a.b", "past/call"])
    assert map.home(seen.outward("past/call")) == "past/call"
    assert map.home(seen.outward("a.b")) == "a.b"
