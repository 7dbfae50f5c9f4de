"""Pages that speak of code say what the code says."""

import importlib.util
import re
from pathlib import Path

from penstock.config.schema import json_schema

ROOT = Path(__file__).resolve().parent.parent.parent


def test_the_page_of_the_command_line_is_what_help_says():
    spec = importlib.util.spec_from_file_location("write_docs", ROOT / "scripts" / "write_docs.py")
    write_docs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(write_docs)
    for path, page in write_docs.PAGES.items():
        assert path.read_text(encoding="utf-8") == page(), f"{path.name} is out of date; `make docs` writes it anew"


def options_of(schema: dict, definition: dict, path: str) -> set[str]:
    """Dotted names of all options, with `*` for a name that the writer of the file chooses."""
    while "$ref" in definition:
        definition = schema["$defs"][definition["$ref"].rpartition("/")[2]]
    found = set()
    for name, inner in definition.get("properties", {}).items():
        here = f"{path}.{name}" if path else name
        found |= options_of(schema, inner, here) or {here}
    if isinstance(definition.get("additionalProperties"), dict):
        found |= options_of(schema, definition["additionalProperties"], f"{path}.*")
    variants = definition.get("anyOf", [])
    for inner in variants:
        if inner.get("items") not in variants:  # else one may stand for a list with one in it, which is told once
            found |= options_of(schema, inner, path)
    if isinstance(definition.get("items"), dict):
        found |= options_of(schema, definition["items"], f"{path}[]")
    return found


def test_every_option_is_on_the_page_of_the_configuration_and_no_other():
    schema = json_schema()
    known = options_of(schema, schema, "")
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    told = set(re.findall(r"(?m)^\| `([^`]+)` \|", page))
    assert told == known


def test_every_room_is_on_the_page_of_the_architecture():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rooms = {path.parent.name for path in (ROOT / "penstock").glob("*/__init__.py")}
    assert rooms <= set(re.findall(r"(?m)^\| `([a-z]+)` \|", page))


def test_every_decision_is_in_the_list_of_decisions():
    index = (ROOT / "docs" / "decisions" / "README.md").read_text(encoding="utf-8")
    for page in sorted((ROOT / "docs" / "decisions").glob("0*.md")):
        assert f"({page.name})" in index, page.name


def test_every_column_of_focus_is_on_the_page_of_costs_with_its_meaning():
    from penstock.pricing.focus import FOCUS, NOT_APPLICABLE

    page = (ROOT / "docs" / "costs.md").read_text(encoding="utf-8").partition("<!-- FOCUS:")[2]
    rows = dict(re.findall(r"(?m)^\| `([^`]+)` \| (.+) \|$", page))
    assert rows == {column.name: column.meaning for column in FOCUS} | NOT_APPLICABLE
