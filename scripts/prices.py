"""Turns LiteLLM's catalogue of prices into our table: `scripts/prices.py CATALOGUE --release NAME --taken DATE`.

Facts are taken, nothing else: what a model costs per token of each class, for the providers that we know. An entry is
refused whole when it charges for something that our classes cannot say (seconds, characters, pixels), when all it says
is zero (which there means "free" as often as "nobody knows"), or when its provider has withdrawn it. What is refused is
counted by reason. The same catalogue and table always make the same bytes.

A price that changed becomes a new row that holds from DATE on; the old one stays, for what was used before. Prices that
the catalogue no longer has stay too. The catalogue is in every wheel of litellm on PyPI:
`unzip -p litellm-*.whl litellm/model_prices_and_context_window_backup.json`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from datetime import date, datetime
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from penstock.core.money import PICOS_PER_DOLLAR
from penstock.pricing.prices import Catalogue
from penstock.pricing.rates import ITEMS, PARENT, PICOS_PER_TOKEN, Class
from penstock.pricing.table_file import BUNDLED, WrittenRow, read_table, read_written, write_table

PROVIDERS: Final = {
    "anthropic": "anthropic",
    "azure": "azure",
    "azure_ai": "azure",
    "bedrock": "bedrock",
    "bedrock_converse": "bedrock",
    "cerebras": "cerebras",
    "cohere": "cohere",
    "cohere_chat": "cohere",
    "deepinfra": "deepinfra",
    "deepseek": "deepseek",
    "fireworks_ai": "fireworks",
    "fireworks_ai-embedding-models": "fireworks",
    "gemini": "gemini",
    "groq": "groq",
    "hyperbolic": "hyperbolic",
    "mistral": "mistral",
    "openai": "openai",
    "perplexity": "perplexity",
    "sambanova": "sambanova",
    "text-completion-openai": "openai",
    "together_ai": "together",
    "xai": "xai",
}
"""LiteLLM's names of providers, and ours; all of theirs that begin with "vertex_ai" are "vertex". Where two of theirs
are one of ours and do not agree on a price, the alphabetically first is believed: `azure_ai` repeats some `azure`."""

MODES: Final = (
    "chat",
    "completion",
    "embedding",
    "responses",
    "rerank",
    "moderation",
    "image_generation",
    "image_edit",
    "audio_speech",
    "audio_transcription",
)
CLASS_OF: Final[dict[str, Class]] = {
    "input_cost_per_token": "input",
    "cache_read_input_token_cost": "cached_input",
    "cache_creation_input_token_cost": "cache_write",
    "cache_creation_input_token_cost_above_1hr": "cache_write_1h",
    "input_cost_per_audio_token": "audio_input",
    "input_cost_per_image_token": "image_input",
    "output_cost_per_token": "output",
    "output_cost_per_reasoning_token": "reasoning",
    "output_cost_per_audio_token": "audio_output",
    "output_cost_per_image_token": "image_output",
    "input_cost_per_query": "request",
    "input_cost_per_request": "request",
}
SERVICE_OF: Final = {"batches": "batch", "flex": "flex", "priority": "priority"}
FIELD: Final = re.compile(
    rf"(?P<field>{'|'.join(sorted(CLASS_OF, key=len, reverse=True))})"
    rf"(_above_(?P<thousands>[0-9]+)k_tokens)?(_(?P<service>{'|'.join(SERVICE_OF)}))?"
)
COST: Final = re.compile(r"cost|pric")
LEFT_OUT: Final = re.compile(
    # fees for the tools that a model uses: they are not part of any token
    r"search_context_cost_per_query|google_maps_grounding_cost_per_query|web_search_cost.*|file_search_cost.*"
    r"|code_interpreter_cost.*|computer_use_.*"
    r"|off_peak_pricing"  # the other prices are those of the dearer hours
    r"|input_cost_per_token_cache_hit"  # DeepSeek's old name of cache_read_input_token_cost
    r"|cache_(read|creation)_input_(audio|image)_token_cost.*"  # nobody counts what was cached by its kind
    r"|.*_above_12hr.*"  # nobody counts these apart
    r"|.*_(balanced|ultrafast|decisions)"  # services that we have no name for: not priced
)
SAME_AS: Final[dict[str, tuple[Class, ...]]] = {
    "input_cost_per_second": ("audio_input",),
    "input_cost_per_audio_per_second": ("audio_input",),
    "output_cost_per_second": ("audio_output",),
    "input_cost_per_image": ("image_input", "image_output"),
    "output_cost_per_image": ("image_output",),
}
"""The same said in another measure, where one of these has a price per token. A price per picture alone depends on its
size and quality, so it is not one number."""
FEE_PER_REQUEST: Final = re.compile(r"search-preview|search-api")
"""Models that search the web for every request, for a fee that depends on how much: Perplexity's all do."""

FREE: Final = {
    # https://developers.openai.com/api/docs/pricing
    ("openai", "omni-moderation-latest"),
    ("openai", "omni-moderation-2024-09-26"),
}


class Refused(Exception):
    """Why an entry is not in our table."""


def taken_from(
    entries: dict[str, dict[str, Any]], taken: date, report: Counter[str]
) -> dict[tuple[str, str], WrittenRow]:
    rows: dict[tuple[str, str], tuple[str, WrittenRow]] = {}
    doubtful: set[tuple[str, str]] = set()
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].get("litellm_provider", ""), item[0])):
        theirs = entry.get("litellm_provider", "")
        try:
            row = row_of(name, entry, taken, report)
        except Refused as why:
            report[f"refused: {why}"] += 1
            continue
        key = row.provider, row.model
        if key not in rows:
            rows[key] = theirs, row
        elif not same(rows[key][1], row) and (theirs == rows[key][0] or theirs not in PROVIDERS):
            doubtful.add(key)
    report["refused: two prices for one model"] += len(doubtful)
    return {key: row for key, (_, row) in rows.items() if key not in doubtful}


def row_of(name: str, entry: dict[str, Any], taken: date, report: Counter[str]) -> WrittenRow:
    """Raises `Refused`."""
    theirs = entry.get("litellm_provider", "")
    provider = "vertex" if theirs.startswith("vertex_ai") else PROVIDERS.get(theirs)
    if provider is None:
        raise Refused("a provider that we do not know")
    if entry.get("mode") not in MODES:
        raise Refused("a kind of model that we do not serve")
    if datetime.fromisoformat(entry.get("deprecation_date", "9999-12-31")).date() <= taken:
        raise Refused("withdrawn by its provider")
    if name.startswith("bedrock/"):
        raise Refused("Bedrock: a region's own price, which the name of the model does not say")
    model = name.split("/", 1)[1] if name.split("/", 1)[0] in {*PROVIDERS, "vertex_ai"} and "/" in name else name
    source = entry.get("source", "")
    source = source if isinstance(source, str) and source.startswith("https://") else ""
    if (provider, model) in FREE:
        return WrittenRow(provider=provider, model=model, free=True, source=source)
    return msgspec.convert(
        {"provider": provider, "model": model, "source": source, **numbers_of(provider, model, entry, report)},
        WrittenRow,
    )


def numbers_of(provider: str, model: str, entry: dict[str, Any], report: Counter[str]) -> dict[str, Any]:
    """The fields of a `WrittenRow` that are prices. Raises `Refused`."""
    found: dict[tuple[str, int], dict[Class, Decimal]] = {}
    foreign = []
    for field, value in entry.items():
        if not COST.search(field):
            continue
        known = FIELD.fullmatch(field)
        if field == "search_context_cost_per_query" and (provider == "perplexity" or FEE_PER_REQUEST.search(model)):
            raise Refused("a fee per request that is not one number")
        if LEFT_OUT.fullmatch(field) or not value:
            continue
        if known is None or not isinstance(value, Decimal | int):
            foreign.append(field)
            continue
        where = SERVICE_OF.get(known["service"], ""), 1000 * int(known["thousands"] or 0)
        found.setdefault(where, {})[CLASS_OF[known["field"]]] = Decimal(value)
    base = found.get(("", 0), {})
    if "request" in base:  # then a zero is said on purpose: what is sold is the request
        base = {"input": Decimal(0), "output": Decimal(0), **base}
    if "output" in base and entry["mode"] in ("chat", "responses"):
        foreign = [field for field in foreign if field != "output_cost_per_image"]  # none are made there
    if any(not base.keys() & set(SAME_AS.get(field, ())) for field in foreign):
        raise Refused("charges for what our classes do not say")
    if not base:
        raise Refused("all that it says is zero")
    named_elsewhere = {name for where, numbers in found.items() if where != ("", 0) for name in numbers}
    for name, parent in PARENT.items():
        if name not in named_elsewhere and name in base and base[name] == base.get(parent):
            del base[name]  # not a price of its own
    row: dict[str, Any] = written(base, report)
    for (service, above), numbers in sorted(found.items()):
        if (service, above) == ("", 0):
            continue
        into = row.setdefault(service, {}) if service else row
        if above:
            into.setdefault("tiers", []).append({"above": above, **written(numbers, report)})
        else:
            into.update(written(numbers, report))
    return row


def written(numbers: dict[Class, Decimal], report: Counter[str]) -> dict[str, str]:
    said = {}
    for name, number in numbers.items():
        exact = number * PICOS_PER_DOLLAR
        picos = int(exact.quantize(Decimal(1), ROUND_HALF_UP))
        report["numbers"] += 1
        report["numbers rounded to whole pico-dollars (they were binary fractions)"] += picos != exact
        scale = PICOS_PER_DOLLAR if name in ITEMS else PICOS_PER_TOKEN
        said[name] = f"{Decimal(picos) / scale:f}"
    return said


def same(one: WrittenRow, other: WrittenRow) -> bool:
    """Whether they say the same price, whoever says it and from whichever day on."""
    blank = {"valid_from": None, "source": ""}
    return msgspec.structs.replace(one, **blank) == msgspec.structs.replace(other, **blank)


def merged(
    before: tuple[WrittenRow, ...], rows: dict[tuple[str, str], WrittenRow], taken: date, report: Counter[str]
) -> tuple[WrittenRow, ...]:
    """What was there before stays, except for rows from this same day on: those are taken anew."""
    kept = [row for row in before if row.valid_from is None or row.valid_from < taken]
    latest = {(row.provider, row.model): row for row in sorted(kept, key=lambda row: row.valid_from or date.min)}
    for key, row in rows.items():
        if key not in latest:
            kept.append(row)
            report["models that are new"] += 1
        elif not same(latest[key], row):
            kept.append(msgspec.structs.replace(row, valid_from=taken))
            report["prices that changed"] += 1
    report["models of the table that the catalogue does not have"] += len(latest.keys() - rows.keys())
    return tuple(kept)


@click.command(help=__doc__)
@click.argument("catalogue", type=click.Path(path_type=Path, exists=True))
@click.option("--release", required=True, help="Which release it was taken from, such as `litellm 1.109.1`.")
@click.option("--taken", required=True, type=click.DateTime(["%Y-%m-%d"]), help="The day on which it was the newest.")
@click.option("--table", type=click.Path(path_type=Path), default=BUNDLED, help="The table to bring up to date.")
def main(catalogue: Path, release: str, taken: datetime, table: Path) -> None:
    text = catalogue.read_bytes()
    report: Counter[str] = Counter()
    entries = {name: entry for name, entry in json.loads(text, parse_float=Decimal).items() if name != "sample_spec"}
    rows = taken_from(entries, taken.date(), report)
    origin = Catalogue(
        name="LiteLLM model_prices_and_context_window.json",
        release=release,
        taken=taken.date(),
        sha256=hashlib.sha256(text).hexdigest(),
        url="https://github.com/BerriAI/litellm/blob/main/model_prices_and_context_window.json",
        licence="MIT",
        copyright="Copyright (c) 2023 Berri AI",
    )
    before = read_written(table.read_bytes()) if table.exists() else None
    catalogues = [one for one in (before.catalogues if before else ()) if one.taken < origin.taken]
    new = write_table((*catalogues, origin), merged(before.rows if before else (), rows, origin.taken, report))
    read_table(new)  # what cannot be read is not written
    table.write_bytes(new)
    for what, count in sorted(report.items()):
        click.echo(f"{count:6,}  {what}")


if __name__ == "__main__":
    main()
