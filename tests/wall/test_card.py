"""The card says what the marks say, and its page names every row."""

from pathlib import Path

import msgspec

from penstock.config.load import load
from penstock.testing.faults import card as cards
from penstock.testing.faults import configs
from penstock.testing.faults.card import Card
from penstock.testing.faults.run import Mark
from penstock.testing.faults.scenarios import DIALECTS, cells
from penstock.testing.faults.upstream import Ports
from penstock.testing.faults.verdicts import Limits
from tests.wall.direct import the_wall

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "faults.md"
MARKS = [
    Mark("healthy", "openai-stream", "openai", None),
    Mark("healthy", "openai-plain", "openai", "HTTP 500"),
    Mark("paced", "openai-stream", "openai", None),
]


def test_the_terminal_shows_what_is_wrong_and_how_much_is_right():
    text = cards.text(Card("X 1", MARKS), the_wall())
    (line,) = [line for line in text.splitlines() if line.startswith("  an ordinary answer...")]
    assert line.split()[-4:] == ["ok", "NO", "-", "-"]
    assert "  healthy (openai-plain via openai): HTTP 500" in text
    assert text.endswith("2 of 3 cells are right.\n")


def test_a_table_sets_gateways_side_by_side():
    table = cards.markdown([Card("X", MARKS), Card("Y", [])], the_wall())
    assert "| an ordinary answer | the whole answer | 1 of 2: HTTP 500 | - |" in table
    assert "| a token every 50 ms | the first token long before the last | ok | - |" in table


def test_a_card_that_was_written_can_be_read_again():
    card = Card("X 1", MARKS)
    assert msgspec.json.decode(cards.as_json(card), type=Card) == card


def test_the_page_has_every_row_of_the_wall_as_it_is():
    page = PAGE.read_text(encoding="utf-8")
    missing = [
        scenario.title
        for scenarios in the_wall().values()
        for scenario in scenarios
        if scenario.only is None and f"| {scenario.title} | {scenario.right.says} |" not in page
    ]
    assert missing == [], "write them: python -m penstock.testing.faults --write docs/faults.md --beside ..."


def test_the_configuration_for_penstock_is_good():
    picked = cells(the_wall(), DIALECTS, DIALECTS, "Penstock")
    entries = configs.entries(picked, Ports.after(9410))
    loaded = load(configs.penstock(entries, Limits(), port=0), "penstock.yaml")
    assert len(loaded.models) == len(picked) + len(DIALECTS)
