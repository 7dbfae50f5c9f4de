"""One file, no network, and whatever text is put into it stays text."""

import base64
import hashlib
import html.parser
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.cli.report_page import MOST_POINTS, Bar, Bars, Chart, Fact, Series, Table, cdf, page

EVIL = """</script><script>alert(1)</script><img src=x onerror=alert(1)>'"&{{ 7 * 7 }}"""


class Reader(html.parser.HTMLParser):
    """What a browser would make of a page: its elements, and the text of each script and style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.shown = ""
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._open = tag
        if tag in ("script", "style"):
            self.texts.setdefault(tag, []).append("")

    def handle_data(self, data):
        if self._open in ("script", "style"):
            self.texts[self._open][-1] += data
        else:
            self.shown += data

    def handle_endtag(self, tag):
        self._open = ""


def made(text: str) -> str:
    return page(
        text,
        [text],
        [Fact(text, text, text)],
        [
            Table(text, (text, text), [(text, text)], text),
            Bars(text, [Bar(text, 1.0, text), Bar(text, 2.0, text)], text),
            Chart(text, text, text, [Series(text, [1.0], [2.0])], note=text),
        ],
    )


PLAIN = Reader(made("x"))


@given(st.one_of(st.just(EVIL), st.text(alphabet="<>&\"'/!-[]scriptyle {}%\u2028", max_size=60)))
def test_text_never_becomes_an_element(text):
    plain, tried = PLAIN, Reader(made(text or "x"))
    assert [tag for tag, _ in tried.elements] == [tag for tag, _ in plain.elements]
    assert [sorted(attributes) for _, attributes in tried.elements] == [sorted(a) for _, a in plain.elements]
    assert tried.texts["script"][-1] == plain.texts["script"][-1]


def test_text_is_shown_as_it_was_written():
    shown = Reader(made(EVIL)).shown
    assert shown.count(EVIL) >= 9
    chart = next(t for t in Reader(made(EVIL)).texts["script"] if t.startswith("{"))
    assert json.loads(chart)["series"][0]["name"] == EVIL


def test_nothing_is_asked_of_any_network():
    read = Reader(made("x"))
    assert not [a for _, a in read.elements if {"src", "href", "srcset", "action"} & a.keys()]
    assert not re.search(r"@import|url\(", "".join(read.texts["style"]))
    policy = next(a["content"] for tag, a in read.elements if a.get("http-equiv"))
    assert policy.startswith("default-src 'none'; ")


def test_the_policy_runs_the_script_and_the_style_of_the_page_and_nothing_else():
    read = Reader(made("x"))
    policy = next(a["content"] for tag, a in read.elements if a.get("http-equiv"))
    for kind, text in (("script", read.texts["script"][-1]), ("style", read.texts["style"][0])):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    assert not [a for _, a in read.elements if "style" in a or any(name.startswith("on") for name in a)]


def test_a_page_with_thirty_crowded_charts_is_small():
    crowded = Series("n", [i / 7 for i in range(100_000)], [i % 13 for i in range(100_000)])
    assert len(page("t", [], [], [Chart("c", "x", "y", [crowded])])) < 120_000
    data = Chart("c", "x", "y", [crowded]).data["series"][0]
    assert len(data["x"]) <= MOST_POINTS + 1
    assert (data["x"][0], data["x"][-1]) == (0.0, pytest.approx(99_999 / 7, rel=1e-5))


def test_what_cannot_be_drawn_is_left_out():
    series = Series("s", [0.0, 1.0, 2.0, float("inf")], [1.0, float("nan"), None, 3.0])
    drawn = Chart("c", "x", "y", [series], log_x=True).data["series"][0]
    assert drawn == {"name": "s", "x": [1.0, 2.0], "y": [None, None]}
    (none, whole) = Bars("b", [Bar("a", float("nan"), "-"), Bar("b", 5.0, "5")]).bars
    assert (none["percent"], whole["percent"]) == ("0.00", "100.00")


@given(st.lists(st.floats(0.001, 1e6), min_size=1, max_size=2_000))
def test_a_cdf_rises_to_all_of_it_and_says_at_each_point_how_many_are_at_most_there(values):
    series = cdf("s", values)
    assert list(series.x) == sorted(series.x) and series.y[-1] == pytest.approx(100)
    for x, y in zip(series.x, series.y, strict=True):
        at_most, below = sum(v <= x for v in values), sum(v < x for v in values)
        assert 100 * below / len(values) <= y <= 100 * at_most / len(values) + 1e-9
