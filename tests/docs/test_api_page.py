"""docs/api.md and docs/providers.md say what the tables in the code say."""

import re
import tomllib
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from penstock.config.load import load
from penstock.config.places import place_of
from penstock.config.presets import SOFTWARE
from penstock.config.providers import PROVIDERS, Dialect
from penstock.core.errors import Untranslatable
from penstock.core.outcome import UsageSource
from penstock.core.request import Endpoint
from penstock.gateway.operations import OPERATIONS
from penstock.resilience.failures import CONSEQUENCES
from penstock.wire import anthropic, converse, gemini, openai_hub
from penstock.wire.canonical import HINTS, Losses
from penstock.wire.dialects import CALLERS

ROOT = Path(__file__).resolve().parent.parent.parent
API = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
PROVIDERS_PAGE = (ROOT / "docs" / "providers.md").read_text(encoding="utf-8")


def table(page: str, *header: str) -> list[list[str]]:
    """The rows of the table with this header, cell by cell."""
    lines = page.splitlines()
    at = lines.index(f"| {' | '.join(header)} |")
    rows = []
    for line in lines[at + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return rows


def test_every_path_that_reaches_a_model_is_on_the_page_with_its_prefix():
    told = set()
    for row in table(API, "path", "what it is", "prefix"):
        method, path = row[0].strip("`").split()
        assert method == "POST"
        told.add(path)
        told |= {prefix + path for prefix in re.findall("`([^`]+)`", row[2])}
    assert told == {path.decode() for path in OPERATIONS}


def test_what_follows_from_each_failure_is_what_the_page_says():
    rows = table(API, "kind", "tried again", "breaker", "status", "code", "what it was")
    told = {row[0].strip("`"): (row[1], row[2], int(row[3]), row[4].strip("`")) for row in rows}
    yes = {True: "yes", False: "no"}
    assert told == {
        str(kind): (yes[means.retry], yes[means.trips], means.status, means.code)
        for kind, means in CONSEQUENCES.items()
    }


def test_every_hint_is_on_the_page():
    listed = API.partition("There are these:")[2].partition(".\n")[0]
    assert set(re.findall("`([^`]+)`", listed)) == HINTS


def test_every_source_of_usage_is_on_the_page():
    assert [row[0].strip("`") for row in table(API, "`usage_source`", "means")] == [str(one) for one in UsageSource]


# --- across dialects -------------------------------------------------------------------------------------------------

UPSTREAMS = {
    "to chat completions": lambda ask, losses: openai_hub.write_request(
        ask, served="gpt-5-mini", losses=losses, reasoning_models=True
    ),
    "to vLLM": lambda ask, losses: openai_hub.write_request(ask, served="m", losses=losses, extensions=True),
    "to Claude": lambda ask, losses: anthropic.write_request(ask, served="claude-sonnet-4-5", losses=losses),
    "to Claude on Bedrock": lambda ask, losses: converse.write_request(
        ask, served="us.anthropic.claude-sonnet-4-5-20250929-v1:0", losses=losses
    ),
    "to Gemini": lambda ask, losses: gemini.write_request(ask, served="gemini-2.5-flash", losses=losses),
}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
FUNCTION = {"type": "function", "function": {"name": "look", "parameters": SCHEMA}}
TOOL = {"name": "look", "input_schema": SCHEMA}
CACHE = {"type": "ephemeral"}
PREFILL = {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}
PICTURE = "data:image/png;base64,aaaa"


def user(*parts):
    return {"messages": [{"role": "user", "content": list(parts)}]}


def source(kind, **source):
    return user({"type": kind, "source": source})


BASES = {
    Endpoint.CHAT: {"model": "m", "max_tokens": 4000, "messages": [{"role": "user", "content": "hello"}]},
    Endpoint.MESSAGES: {"model": "m", "max_tokens": 4000, "messages": [{"role": "user", "content": "hello"}]},
    Endpoint.RESPONSES: {"model": "m", "max_output_tokens": 4000, "input": "hello"},
}
SAID = {
    Endpoint.CHAT: {
        "`temperature` above 1": [{"temperature": 1.5}],
        "`top_k`": [{"top_k": 5}],
        "`min_p`": [{"min_p": 0.1}],
        "`seed`": [{"seed": 1}],
        "`n` above 1": [{"n": 2}],
        "`presence_penalty`, `frequency_penalty`": [{"presence_penalty": 1}, {"frequency_penalty": 1}],
        "`logit_bias`": [{"logit_bias": {"5": 1}}],
        "`logprobs`, `top_logprobs`": [{"logprobs": True}, {"logprobs": True, "top_logprobs": 2}],
        "`response_format` of `json_object`": [{"response_format": {"type": "json_object"}}],
        "`reasoning_effort`, `thinking`": [
            {"reasoning_effort": "low"},
            {"thinking": {"type": "enabled", "budget_tokens": 2000}},
        ],
        "`parallel_tool_calls: false`": [{"tools": [FUNCTION], "parallel_tool_calls": False}],
        "`tools` of another type than `function`": [{"tools": [{"type": "custom", "custom": {"name": "x"}}]}],
        "`verbosity`": [{"verbosity": "low"}],
        "`service_tier: flex`": [{"service_tier": "flex"}],
        "`user`": [{"user": "u-1"}],
        "`metadata`": [{"metadata": {"a": "b"}}],
        "`prompt_cache_key`": [{"prompt_cache_key": "k"}],
        "`cache_control` on a message or part": [
            user({"type": "text", "text": "x", "cache_control": CACHE}),
            {"messages": [{"role": "user", "content": "x", "cache_control": CACHE}]},
        ],
        "`image_url.detail`": [user({"type": "image_url", "image_url": {"url": PICTURE, "detail": "low"}})],
        "`file` with a `file_id`": [user({"type": "file", "file": {"file_id": "file-1"}})],
        "`input_audio`": [user({"type": "input_audio", "input_audio": {"data": "aaaa", "format": "wav"}})],
        "`name` of a message": [{"messages": [{"role": "user", "name": "ada", "content": "x"}]}],
        "a last message of the assistant's (prefill)": [PREFILL],
        "`store: true`, `prediction`, `web_search_options`, `modalities` with audio": [
            {"store": True},
            {"prediction": {"type": "content", "content": "x"}},
            {"web_search_options": {}},
            {"modalities": ["text", "audio"]},
        ],
    },
    Endpoint.MESSAGES: {
        "`top_k`": [{"top_k": 5}],
        "more than 4 `stop_sequences`": [{"stop_sequences": list("abcde")}],
        "`thinking`, `output_config.effort`": [
            {"thinking": {"type": "enabled", "budget_tokens": 2000}},
            {"thinking": {"type": "adaptive"}},
            {"thinking": {"type": "disabled"}},
            {"output_config": {"effort": "low"}},
        ],
        "`output_config.format`": [{"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}],
        "`disable_parallel_tool_use`": [
            {"tools": [TOOL], "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}}
        ],
        "`strict` of a tool": [{"tools": [TOOL | {"strict": True}]}],
        "tools that Anthropic runs, `container`, `mcp_servers`, `context_management`": [
            {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
            {"container": "c"},
            {"mcp_servers": [{}]},
            {"context_management": {}},
        ],
        "`citations`, search results": [
            user(
                {
                    "type": "document",
                    "citations": {"enabled": True},
                    "source": {"type": "text", "media_type": "text/plain", "data": "x"},
                }
            ),
            user({"type": "search_result", "source": "s", "title": "t", "content": [{"type": "text", "text": "x"}]}),
        ],
        "a document by URL": [source("document", type="url", url="https://example.com/a.pdf")],
        "`metadata.user_id`": [{"metadata": {"user_id": "u-1"}}],
        "`cache_control` on a block": [user({"type": "text", "text": "x", "cache_control": CACHE})],
        "`cache_control` of the whole request": [{"cache_control": CACHE}],
        "`eager_input_streaming` of a tool": [{"tools": [TOOL | {"eager_input_streaming": True}]}],
        "a last message of the assistant's (prefill)": [PREFILL],
    },
    Endpoint.RESPONSES: {
        "`instructions`, `text.format`, function tools": [
            {"instructions": "x"},
            {"text": {"format": {"type": "json_schema", "name": "a", "schema": SCHEMA}}},
            {"tools": [{"type": "function", "name": "look", "parameters": SCHEMA}]},
        ],
        "`reasoning.effort`, `reasoning.summary`": [{"reasoning": {"effort": "low", "summary": "auto"}}],
        "`text.verbosity`": [{"text": {"verbosity": "low"}}],
        "`include` of `reasoning.encrypted_content`": [{"include": ["reasoning.encrypted_content"]}],
        "`include` of `message.output_text.logprobs`": [{"include": ["message.output_text.logprobs"]}],
        "tools that OpenAI runs, `max_tool_calls`, `truncation: auto`, `prompt`, `conversation`": [
            {"tools": [{"type": "web_search"}]},
            {"max_tool_calls": 3},
            {"truncation": "auto"},
            {"prompt": {"id": "p"}},
            {"conversation": "c"},
        ],
        "an image by `file_id`": [
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "file-1"}]}]},
        ],
        "`prompt_cache_key`": [{"prompt_cache_key": "k"}],
    },
}
HEADERS = {
    Endpoint.CHAT: ("of a chat completion", "to Claude", "to Claude on Bedrock", "to Gemini"),
    Endpoint.MESSAGES: ("of a message", "to chat completions", "to vLLM", "to Gemini"),
    Endpoint.RESPONSES: ("of a response", "to chat completions", "to Claude", "to Gemini"),
}


def becomes(endpoint, more, upstream):
    caller = CALLERS[endpoint]
    losses = Losses((), caller.names)
    body = msgspec.json.encode(BASES[endpoint] | more)
    try:
        ask = caller.read_request(msgspec.json.decode(body, type=dict[str, msgspec.Raw]))
        UPSTREAMS[upstream](ask, losses)
    except Untranslatable:
        return "refused"
    return "told" if losses.lost else "yes"


@pytest.mark.parametrize("endpoint", list(HEADERS), ids=str)
def test_what_becomes_of_a_field_across_dialects_is_what_the_page_says(endpoint):
    header = HEADERS[endpoint]
    rows = table(API, *header)
    assert {row[0] for row in rows} == SAID[endpoint].keys()
    for row in rows:
        for upstream, told in zip(header[1:], row[1:], strict=True):
            for more in SAID[endpoint][row[0]]:
                assert becomes(endpoint, more, upstream) == told, (row[0], upstream, more)


# --- providers -------------------------------------------------------------------------------------------------------


def examples():
    for text in re.findall(r"(?ms)^```yaml\n(.*?)^```$", PROVIDERS_PAGE):
        yield from load(text, "docs/providers.md").deployments.values()


def test_the_page_of_providers_has_an_example_of_every_way_to_ask():
    deployments = list(examples())
    assert {place_of(one).dialect for one in deployments} == set(get_args(Dialect))
    own = {name for name, provider in PROVIDERS.items() if provider.dialect != "openai" or provider.needs}
    assert own <= {one.provider for one in deployments}
    assert {one.software for one in deployments} >= SOFTWARE.keys()


def test_every_provider_is_on_the_page_of_providers():
    shown = {one.provider for one in examples()}
    assert [name for name in PROVIDERS if name not in shown and f"`{name}`" not in PROVIDERS_PAGE] == []


def test_the_table_of_software_says_what_each_has_itself():
    served = {
        "`/v1/messages`": Endpoint.MESSAGES,
        "`/v1/responses`": Endpoint.RESPONSES,
        "embeddings": Endpoint.EMBEDDING,
        "rerank": Endpoint.RERANK,
        "transcriptions": Endpoint.TRANSCRIPTION,
        "`/tokenize`": Endpoint.TOKENIZE,
    }
    rows = table(PROVIDERS_PAGE, "`software`", *served, "health")
    told = {row[0].strip("`"): (*(cell == "yes" for cell in row[1:-1]), row[-1].strip("`")) for row in rows}
    assert told == {
        name: (*(endpoint in software.native for endpoint in served.values()), software.health)
        for name, software in SOFTWARE.items()
    }


# --- the first page --------------------------------------------------------------------------------------------------


def test_the_first_page_counts_the_dependencies_right():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    number = ("five", "six", "seven", "eight", "nine", "ten")[len(project["dependencies"]) - 5]
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"with {number} runtime dependencies" in readme
