"""Where the companies are, and how each is spoken to: one row per name that may follow `provider:`.

The environment variables are those of their own documentation. What a company lacks among the endpoints that are only
passed on, it says itself; what can be translated (messages, responses) is passed on only where it is documented.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import msgspec

from penstock.core.request import Endpoint

Dialect: TypeAlias = Literal["openai", "anthropic", "converse", "invoke", "gemini", "vertex-anthropic"]
"""What chat requests are translated into where the caller's own dialect is not native: OpenAI's chat completions,
Anthropic's messages, Bedrock's Converse, Anthropic's messages inside Bedrock's InvokeModel, Gemini's generateContent,
Anthropic's messages inside Vertex's rawPredict."""

Auth: TypeAlias = Literal["bearer", "x-api-key", "api-key", "sigv4", "goog-api-key", "google"]
"""Who may ask: four headers that carry the key, a signature (AWS), a token made from a service account (Google)."""

Quirk: TypeAlias = Literal[
    "max_completion_tokens",  # reasoning models refuse `max_tokens`: write the new name
    "max_tokens_only",  # does not know `max_completion_tokens`: refuses or, worse, ignores it
    "no_stream_options",  # refuses `stream_options`; tells usage all the same
    "more_sampling",  # understands `top_k` and `min_p`
    "continue_final_message",  # goes on from an assistant's message at the end when this field says so
    "prefix",  # likewise, when that message has `prefix: true`
    "prefill",  # likewise, without being told
    "resume_token_ids",  # goes on exactly from the tokens of an answer that broke off (our engine)
    "counts_messages",  # its /tokenize takes messages, so it can count the tokens of a chat
    "strict",  # refuses fields that it does not know
]

COMPATIBLE: Final = (
    Endpoint.CHAT,
    Endpoint.COMPLETION,
    Endpoint.EMBEDDING,
    Endpoint.MODERATION,
    Endpoint.RERANK,
    Endpoint.SPEECH,
    Endpoint.TRANSCRIPTION,
    Endpoint.TRANSLATION,
    Endpoint.IMAGE,
    Endpoint.IMAGE_EDIT,
    Endpoint.IMAGE_VARIATION,
    Endpoint.TOKENIZE,
    Endpoint.DETOKENIZE,
)
"""What is passed on to a server of which only the dialect is known: all that nothing could translate anyway."""

OF_ANTHROPIC: Final = (Endpoint.MESSAGES, Endpoint.COUNT_TOKENS)
_OF_OPENAI: Final = (*COMPATIBLE[:-2], Endpoint.RESPONSES, Endpoint.INPUT_TOKENS)


class Provider(msgspec.Struct, frozen=True, kw_only=True):
    """`origin` and `base_path` are "" where they follow from options. `needs` are the options that must be given,
    `takes` those that may be, beside the ones of every deployment."""

    origin: str = ""
    base_path: str = ""
    usual_key: str  # the environment variable their own documentation uses
    key_needed: bool = True  # else the platform's own credentials are looked for where it always does
    dialect: Dialect = "openai"
    auth: Auth = "bearer"
    native: tuple[Endpoint, ...] = COMPATIBLE[:-2]
    quirks: tuple[Quirk, ...] = ()
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()

    @property
    def options(self) -> tuple[str, ...]:
        return (*self.needs, *self.takes)


def _company(origin: str, base_path: str, usual_key: str, *quirks: Quirk) -> Provider:
    """One that speaks OpenAI's dialect and has nothing else to say."""
    return Provider(origin=origin, base_path=base_path, usual_key=usual_key, quirks=quirks)


PROVIDERS: Final = {
    # https://docs.claude.com/en/api/overview
    "anthropic": Provider(
        origin="https://api.anthropic.com",
        base_path="/v1",
        usual_key="ANTHROPIC_API_KEY",
        dialect="anthropic",
        auth="x-api-key",
        native=OF_ANTHROPIC,
        takes=("beta",),
    ),
    # https://learn.microsoft.com/azure/ai-foundry/openai/api-version-lifecycle: the v1 API has no version
    "azure": Provider(
        usual_key="AZURE_OPENAI_API_KEY",
        auth="api-key",
        native=tuple(one for one in _OF_OPENAI if one not in (Endpoint.MODERATION, Endpoint.RERANK)),
        quirks=("max_completion_tokens",),
        needs=("endpoint",),
        takes=("api_version",),
    ),
    # https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html; a key is a Bedrock API key
    "bedrock": Provider(
        usual_key="AWS_BEARER_TOKEN_BEDROCK",
        key_needed=False,
        dialect="converse",
        auth="sigv4",
        native=(),
        needs=("region",),
        takes=("endpoint", "api", "beta"),
    ),
    "cerebras": _company("https://api.cerebras.ai", "/v1", "CEREBRAS_API_KEY"),
    # https://docs.cohere.com/docs/compatibility-api
    "cohere": _company("https://api.cohere.ai", "/compatibility/v1", "COHERE_API_KEY"),
    "deepinfra": _company("https://api.deepinfra.com", "/v1/openai", "DEEPINFRA_API_KEY", "more_sampling"),
    "deepseek": _company("https://api.deepseek.com", "/v1", "DEEPSEEK_API_KEY", "max_tokens_only"),
    "fireworks": _company("https://api.fireworks.ai", "/inference/v1", "FIREWORKS_API_KEY", "more_sampling"),
    # https://ai.google.dev/api/generate-content
    "gemini": Provider(
        origin="https://generativelanguage.googleapis.com",
        base_path="/v1beta",
        usual_key="GEMINI_API_KEY",
        dialect="gemini",
        auth="goog-api-key",
        native=(),
    ),
    "groq": _company("https://api.groq.com", "/openai/v1", "GROQ_API_KEY"),
    "hyperbolic": _company("https://api.hyperbolic.xyz", "/v1", "HYPERBOLIC_API_KEY", "more_sampling"),
    # https://docs.mistral.ai/api: unknown fields are errors, and usage is in the last chunk of every stream
    "mistral": _company(
        "https://api.mistral.ai",
        "/v1",
        "MISTRAL_API_KEY",
        "strict",
        "no_stream_options",
        "max_tokens_only",
        "prefix",
    ),
    "nvidia": _company("https://integrate.api.nvidia.com", "/v1", "NVIDIA_API_KEY"),
    "openai": Provider(
        origin="https://api.openai.com",
        base_path="/v1",
        usual_key="OPENAI_API_KEY",
        native=_OF_OPENAI,
        quirks=("max_completion_tokens", "strict"),
    ),
    "openrouter": _company("https://openrouter.ai", "/api/v1", "OPENROUTER_API_KEY", "more_sampling"),
    # https://docs.perplexity.ai/api-reference/chat-completions-post: no version in its path
    "perplexity": _company("https://api.perplexity.ai", "", "PERPLEXITY_API_KEY", "max_tokens_only"),
    "sambanova": _company("https://api.sambanova.ai", "/v1", "SAMBANOVA_API_KEY"),
    "together": _company("https://api.together.xyz", "/v1", "TOGETHER_API_KEY", "more_sampling"),
    # https://cloud.google.com/vertex-ai/generative-ai/docs; a key is a service account's JSON
    "vertex": Provider(
        usual_key="GOOGLE_APPLICATION_CREDENTIALS",
        key_needed=False,
        dialect="gemini",
        auth="google",
        native=(),
        needs=("project", "region", "served"),
        takes=("endpoint", "beta"),
    ),
    "xai": _company("https://api.x.ai", "/v1", "XAI_API_KEY"),
}

OPTIONS_OF_PROVIDERS: Final = ("endpoint", "api_version", "region", "project", "api", "beta")
"""Those that belong to some providers only."""
