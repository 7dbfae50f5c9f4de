"""scripts/prices.py: from somebody's catalogue to our table."""

import importlib.util
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from penstock.pricing.table_file import read_table, read_written

ROOT = Path(__file__).resolve().parent.parent.parent

spec = importlib.util.spec_from_file_location("prices_script", ROOT / "scripts" / "prices.py")
script = importlib.util.module_from_spec(spec)
spec.loader.exec_module(script)

ENTRIES = """{
 "sample_spec": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 1},
 "gpt-9": {"litellm_provider": "openai", "mode": "chat", "source": "https://example.com/prices",
   "input_cost_per_token": 2.5e-06, "output_cost_per_token": 1.5e-05, "output_cost_per_reasoning_token": 1.5e-05,
   "cache_read_input_token_cost": 2.4999999999999996e-07, "input_cost_per_token_batches": 1.25e-06,
   "input_cost_per_token_above_272k_tokens": 5e-06, "input_cost_per_token_above_272k_tokens_flex": 2.5e-06,
   "search_context_cost_per_query": {"search_context_size_low": 0.01}},
 "gemini/gemini-9": {"litellm_provider": "gemini", "mode": "chat", "input_cost_per_token": 1e-06,
   "output_cost_per_token": 2e-06},
 "rerank-9": {"litellm_provider": "cohere", "mode": "rerank", "input_cost_per_query": 0.002,
   "input_cost_per_token": 0.0, "output_cost_per_token": 0.0},
 "omni-moderation-latest": {"litellm_provider": "openai", "mode": "moderation", "input_cost_per_token": 0.0},
 "perplexity/sonar": {"litellm_provider": "perplexity", "mode": "chat", "input_cost_per_token": 1e-06,
   "search_context_cost_per_query": {"search_context_size_low": 0.005}},
 "whisper-1": {"litellm_provider": "openai", "mode": "audio_transcription", "input_cost_per_second": 0.0001},
 "gpt-zero": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 0.0},
 "gpt-old": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 1e-06,
   "deprecation_date": "2026-11-21"},
 "ollama/x": {"litellm_provider": "ollama", "mode": "chat", "input_cost_per_token": 1e-06},
 "bedrock/eu-west-1/x": {"litellm_provider": "bedrock", "mode": "chat", "input_cost_per_token": 1e-06}
}"""


@pytest.fixture
def files(tmp_path):
    return tmp_path / "catalogue.json", tmp_path / "table.json"


def taken(files, text: str, day: str) -> str:
    catalogue, table = files
    catalogue.write_text(text)
    ran = CliRunner().invoke(
        script.main,
        [str(catalogue), "--release", "test", "--taken", day, "--table", str(table)],
        catch_exceptions=False,
    )
    assert ran.exit_code == 0, ran.output
    return ran.output


def test_what_is_taken_is_what_our_classes_can_say_and_nothing_else(files):
    said = taken(files, ENTRIES, "2026-11-21")
    rows = {f"{row.provider}/{row.model}": row for row in read_written(files[1].read_bytes()).rows}
    assert rows.keys() == {"openai/gpt-9", "gemini/gemini-9", "cohere/rerank-9", "openai/omni-moderation-latest"}
    assert rows["openai/omni-moderation-latest"].free
    row = rows["openai/gpt-9"]
    assert (row.input, row.cached_input, row.output, row.reasoning) == ("2.5", "0.25", "15", None)
    assert (row.batch.input, row.tiers[0].above, row.tiers[0].input) == ("1.25", 272_000, "5")
    assert (row.flex.input, row.flex.tiers[0].input) == (None, "2.5")
    assert rows["cohere/rerank-9"].request == "0.002"
    for reason in ("withdrawn", "zero", "do not know", "a fee per request", "do not say", "a region's own"):
        assert any(reason in line and line.split()[0] == "1" for line in said.splitlines()), (reason, said)
    assert "1  numbers rounded" in said


def test_the_same_catalogue_twice_changes_nothing(files):
    taken(files, ENTRIES, "2026-11-21")
    first = files[1].read_bytes()
    taken(files, ENTRIES, "2026-11-21")
    assert files[1].read_bytes() == first


def test_a_price_that_changed_is_a_new_row_and_the_old_one_stays(files):
    taken(files, ENTRIES, "2026-11-21")
    entries = json.loads(ENTRIES)
    entries["gemini/gemini-9"]["input_cost_per_token"] = 3e-06
    del entries["gpt-9"]
    taken(files, json.dumps(entries), "2026-12-01")
    table = read_table(files[1].read_bytes())
    rows = table.find("gemini", "gemini-9").rows
    assert [(str(row.valid_from), row.rates("standard", 1).input) for row in rows] == [
        ("None", 1_000_000),
        ("2026-12-01", 3_000_000),
    ]
    assert table.find("openai", "gpt-9") is not None, "what was used before still has its price"
    assert [str(one.taken) for one in table.catalogues] == ["2026-11-21", "2026-12-01"]
