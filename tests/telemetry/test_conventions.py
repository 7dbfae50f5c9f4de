"""What we call things is what those who read it have published; their lists are in published_names.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest

from penstock.config.providers import PROVIDERS as OURS
from penstock.telemetry.conventions import DIALECTS, PROVIDERS, TABLE, Convention
from penstock.telemetry.options import Dialect, Naming
from penstock.telemetry.spans import Role, Trace, Value, trace_of
from tests.telemetry.outcomes import FULL, REFUSED

PUBLISHED: dict[str, Any] = json.loads(Path(__file__).with_name("published_names.json").read_text())
CONTENT: dict[str, Value] = {"input": "[]", "output": "[]", "prompt_hash": "a", "output_hash": "b", "flags": ("x",)}
TRACE = trace_of(FULL, kept="degraded", more=CONTENT)


def of_attempt(naming: Naming = "latest", dialect: Dialect = "otel", trace: Trace = TRACE) -> dict[str, Value]:
    span = [span for span in trace.spans if span.role is Role.ATTEMPT][-1]
    return dict(Convention(naming, dialect).attributes(span))


def names(naming: Naming, dialect: Dialect) -> set[str]:
    convention = Convention(naming, dialect)
    refused = trace_of(REFUSED)
    return {name for span in (*TRACE.spans, *refused.spans) for name, _ in convention.attributes(span)}


def known(name: str, published: str) -> bool:
    """A list is written with places in it: `retrieval.documents.0.document.id`."""
    if name in PUBLISHED[published]["names"]:
        return True
    parts = name.split(".")
    place = next((i for i, part in enumerate(parts) if part.isdigit()), None)
    if place is None:
        return False
    listed, member = ".".join(parts[:place]), ".".join(parts[place + 1 :])
    return known(listed, published) and known(member, published)


@pytest.mark.parametrize("naming", get_args(Naming.__value__ if hasattr(Naming, "__value__") else Naming))
def test_every_name_that_is_not_ours_is_one_that_the_conventions_have(naming: Naming) -> None:
    published = "gen_ai" if naming == "latest" else "gen_ai_1_36"
    foreign = {name for name in names(naming, "otel") if not name.startswith("penstock.")}
    assert foreign <= set(PUBLISHED[published]["names"])
    assert set(PUBLISHED[published]["required"]) <= set(of_attempt(naming))


@pytest.mark.parametrize("dialect", ["langfuse", "langsmith", "openinference"])
def test_every_name_that_a_dialect_adds_is_one_that_its_backend_reads(dialect: Dialect) -> None:
    added = names("latest", dialect) - names("latest", "otel")
    assert added
    assert {name for name in added if not known(name, dialect)} == set()


@pytest.mark.parametrize("dialect", ["langsmith", "openinference"])
def test_every_kind_of_span_is_one_that_its_backend_knows(dialect: Dialect) -> None:
    kinds = {value for role in Role for _, value in DIALECTS[dialect].of_role[role]}
    assert kinds <= set(PUBLISHED[dialect]["kinds"])


def test_each_attribute_of_a_span_has_its_row_and_each_row_its_attribute() -> None:
    used = {ours for trace in (TRACE, trace_of(REFUSED)) for span in trace.spans for ours in span.attributes}
    assert used == {row.ours for row in TABLE}
    assert len(TABLE) == len({row.ours for row in TABLE})


def test_no_two_attributes_of_a_span_have_the_same_name() -> None:
    for dialect in DIALECTS:
        for naming in ("latest", "older"):
            convention = Convention(naming, dialect)  # type: ignore[arg-type]  # they are those two
            for span in TRACE.spans:
                found = [name for name, _ in convention.attributes(span)]
                assert len(found) == len(set(found)), dialect


def test_names_are_switched_in_one_place() -> None:
    latest, older = of_attempt("latest"), of_attempt("older")
    assert latest["gen_ai.provider.name"] == older["gen_ai.system"]
    assert "gen_ai.system" not in latest
    assert "gen_ai.provider.name" not in older


def test_langfuse_gets_classes_of_tokens_that_add_up_and_our_cost() -> None:
    found = of_attempt(dialect="langfuse")
    usage = json.loads(str(found["langfuse.observation.usage_details"]))
    total = usage.pop("total")
    assert sum(usage.values()) == total == 271
    assert json.loads(str(found["langfuse.observation.cost_details"])) == {"total": 0.0012345}
    assert found["langfuse.observation.completion_start_time"] == "2027-01-15T08:00:00.450Z"
    assert found["langfuse.observation.type"] == "generation"


def test_langsmith_gets_usage_as_one_object() -> None:
    assert json.loads(str(of_attempt(dialect="langsmith")["langsmith.usage_metadata"])) == {
        "input_tokens": 210,
        "output_tokens": 61,
        "total_tokens": 271,
        "total_cost": 0.0012345,
        "input_token_details": {"cache_read": 128, "cache_creation": 16},
        "output_token_details": {"reasoning": 20},
    }


def test_phoenix_gets_the_names_of_openinference_and_the_documents_one_by_one() -> None:
    found = of_attempt(dialect="openinference")
    assert (found["llm.token_count.prompt"], found["llm.token_count.completion"]) == (210, 61)
    assert (found["llm.cost.total"], found["openinference.span.kind"]) == (0.0012345, "LLM")
    root = dict(Convention("latest", "openinference").attributes(TRACE.spans[0]))
    assert root["retrieval.documents.0.document.id"] == "doc-1"
    assert root["retrieval.documents.1.document.id"] == "doc-2"


def test_every_provider_with_a_well_known_name_is_called_by_it() -> None:
    assert set(PROVIDERS) <= set(OURS)
    assert set(PROVIDERS.values()) <= set(PUBLISHED["gen_ai"]["providers"])
