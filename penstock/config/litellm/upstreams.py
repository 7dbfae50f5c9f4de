"""From `litellm_params` to the options of a deployment: which kind of place it is, where, under which name and key.

LiteLLM's names of providers and the variables it reads are those of https://docs.litellm.ai/docs/providers.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from penstock.config.litellm.source import Report, Settings, Value

Options = dict[str, Any]


class Left(Exception):
    """This deployment cannot be written; the message says why, and what could be done."""


class Secrets:
    """Keys by reference. One that stands in the file itself is given the name of a variable, and is not copied; never
    one of `taken`, the variables that the file names: what is in them is something else.
    """

    def __init__(self, report: Report, taken: Collection[str] = ()) -> None:
        self._report, self._taken = report, taken
        self._names: dict[str, str] = {}  # of the secrets that were met, so that one has one name
        self.variables: list[str] = []  # that the new file reads, in order

    def reference(self, value: Value, usual: str) -> str:
        """`env:NAME` for the secret that stands at `value`."""
        variable = value.variable
        if variable is not None:
            self._report.mapped(value, f"key: env:{variable}")
            return self.named(variable)
        text = value.text or ""
        if text not in self._names:
            taken = {*self._names.values(), *self.variables, *self._taken}
            candidates = [usual, *(f"{usual}_{i}" for i in range(2, len(taken) + 3))]
            self._names[text] = next(name for name in candidates if name not in taken)
        name = self._names[text]
        self._report.approximated(
            value,
            f"the secret itself stands here; it was not copied. Put it into the environment as {name} "
            f"(key: env:{name}), and take it out of this file",
        )
        return self.named(name)

    def named(self, variable: str) -> str:
        if variable not in self.variables:
            self.variables.append(variable)
        return f"env:{variable}"


class Company(msgspec.Struct, frozen=True):
    provider: str  # Penstock's name of it, or the address of its API
    variable: str  # where LiteLLM looks for the key when none is written


COMPANIES: Final[Mapping[str, Company]] = {
    "openai": Company("openai", "OPENAI_API_KEY"),
    "text-completion-openai": Company("openai", "OPENAI_API_KEY"),
    "anthropic": Company("anthropic", "ANTHROPIC_API_KEY"),
    "gemini": Company("gemini", "GEMINI_API_KEY"),
    "cerebras": Company("cerebras", "CEREBRAS_API_KEY"),
    "cohere": Company("cohere", "COHERE_API_KEY"),
    "cohere_chat": Company("cohere", "COHERE_API_KEY"),
    "deepinfra": Company("deepinfra", "DEEPINFRA_API_KEY"),
    "deepseek": Company("deepseek", "DEEPSEEK_API_KEY"),
    "fireworks_ai": Company("fireworks", "FIREWORKS_AI_API_KEY"),
    "groq": Company("groq", "GROQ_API_KEY"),
    "hyperbolic": Company("hyperbolic", "HYPERBOLIC_API_KEY"),
    "mistral": Company("mistral", "MISTRAL_API_KEY"),
    "nvidia_nim": Company("nvidia", "NVIDIA_NIM_API_KEY"),
    "openrouter": Company("openrouter", "OPENROUTER_API_KEY"),
    "perplexity": Company("perplexity", "PERPLEXITYAI_API_KEY"),
    "sambanova": Company("sambanova", "SAMBANOVA_API_KEY"),
    "together_ai": Company("together", "TOGETHERAI_API_KEY"),
    "xai": Company("xai", "XAI_API_KEY"),
    # companies that Penstock has no name for
    "dashscope": Company("https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "DASHSCOPE_API_KEY"),
    "moonshot": Company("https://api.moonshot.ai/v1", "MOONSHOT_API_KEY"),
    "zai": Company("https://api.z.ai/api/paas/v4", "ZAI_API_KEY"),
}
SOFTWARE: Final[Mapping[str, str | None]] = {
    "hosted_vllm": "vllm",
    "ollama": "ollama",
    "ollama_chat": "ollama",
    "huggingface": "tgi",
    "custom_openai": None,
    "docker_model_runner": None,
    "infinity": None,
    "litellm_proxy": None,
    "llamafile": None,
    "lm_studio": None,
    "openai_like": None,
    "xinference": None,
}
"""Servers that people run themselves; None: Penstock knows no more than their dialect."""
_CLOUDS: Final = ("azure", "azure_ai", "azure_text", "bedrock", "bedrock_converse", "vertex_ai", "vertex_ai_beta")
_FAMILIES: Final = (
    (re.compile(r"^(gpt-|o[134](-|$)|chatgpt-|text-embedding-|text-davinci|dall-e|whisper-|tts-|omni-|ft:)"), "openai"),
    (re.compile(r"^claude-"), "anthropic"),
    (re.compile(r"^command"), "cohere"),
    (re.compile(r"^gemini-"), "vertex_ai"),
)
"""Whom LiteLLM takes a name without a provider for."""
_NO_KEY: Final = frozenset(
    {"", "-", "any", "anything", "dummy", "dummy-key", "empty", "fake", "fake-key", "na", "n/a", "no-key", "none",
     "not-needed", "null", "ollama", "placeholder", "sk-1234", "sk-fake", "sk-no-key-required", "x", "xxx"}
)  # fmt: skip
_AWS_REGION: Final = re.compile(r"^(us|eu|ap|ca|sa|me|af|il|mx|cn|us-gov)-[a-z]+-[0-9]$")
_AZURE_VERSION: Final = re.compile(r"^(preview|[0-9]{4}-[0-9]{2}-[0-9]{2}(-preview)?)$")


def split_model(text: str, custom: str | None = None) -> tuple[str, str]:
    """LiteLLM's provider and the rest of a model's name; "" when nothing says whose it is."""
    company, slash, rest = text.partition("/")
    if custom is not None:
        return custom, rest if slash and company == custom else text
    if slash and (company in COMPANIES or company in SOFTWARE or company in _CLOUDS):
        return company, rest
    if not slash:
        return next((family for pattern, family in _FAMILIES if pattern.match(text)), ""), text
    return company, rest


class Upstreams:
    """`environ` gives addresses, regions and projects that the file takes from the environment; never a secret."""

    def __init__(self, report: Report, secrets: Secrets, environ: Mapping[str, str]) -> None:
        self._report, self._secrets, self._environ = report, secrets, environ

    def options(self, model: Value, model_text: str, params: Settings) -> Options:
        """Those of a deployment. Raises `Left`."""
        custom = params.take("custom_llm_provider")
        if custom is not None:
            self._report.mapped(custom, "says which kind of place it is")
        company, served = split_model(model_text, None if custom is None else custom.text)
        base = params.take("api_base") or params.take("base_url")
        address = None if base is None else self._address(base)
        if company in ("azure", "azure_ai", "azure_text"):
            return self._azure(params, served, base, address)
        if company in ("bedrock", "bedrock_converse"):
            return self._bedrock(params, served, base, address)
        if company in ("vertex_ai", "vertex_ai_beta"):
            return self._vertex(params, served, base, address)
        if company in SOFTWARE:
            return self._server(params, company, served, base, address)
        if base is not None and address is not None:
            return self._by_address(params, company, served, base, address)
        if company in COMPANIES:
            return self._company(params, company, served)
        whose = f"`{company}` is not a provider" if company else "nothing says whose model it is: it is not one"
        raise Left(f"{whose} that Penstock knows; write `provider: https://...` when its API is like OpenAI's")

    # --- one kind of place after another ---

    def _company(self, params: Settings, company: str, served: str) -> Options:
        known = COMPANIES[company]
        if company == "fireworks_ai" and "/" not in served:
            served = f"accounts/fireworks/models/{served}"  # LiteLLM adds the same
        return {"provider": known.provider, "served": _bare(served), "key": self._key(params, known.variable)}

    def _by_address(self, params: Settings, company: str, served: str, base: Value, address: str) -> Options:
        speaks: Options = {"speaks": "anthropic"} if company == "anthropic" else {}
        # a variable of its own: what is in the company's usual one must not be sent to another host
        key = self._optional_key(params, _variable_of(address))
        if address.startswith("https://") and key is not None:
            self._report.mapped(base, "provider, by its address")
            return {"provider": address, "served": _bare(served), "key": key} | speaks
        self._report.approximated(
            base,
            "engine; it is not probed, because not every server has /health: write `health: /path` if this one has",
        )
        options = {"engine": address, "served": _bare(served), "health": "off"} | speaks
        return options if key is None else options | {"key": key}

    def _server(self, params: Settings, company: str, served: str, base: Value | None, address: str | None) -> Options:
        software = SOFTWARE[company]
        if base is None or address is None:
            if software != "ollama":
                raise Left(f"`{company}` needs its address: write `engine: http://...`")
            address = "http://localhost:11434"  # LiteLLM's own default
        options: Options = {"engine": address, "served": _bare(served)}
        if software is not None:
            options["software"] = software
            if base is not None:
                self._report.mapped(base, f"engine, with software: {software}")
        else:
            options["health"] = "off"
            if base is not None:
                self._report.approximated(
                    base, "engine; it is not probed, because not every such server has /health: write `health: /path`"
                )
        key = self._optional_key(params, _variable_of(address))
        return options if key is None else options | {"key": key}

    def _azure(self, params: Settings, served: str, base: Value | None, address: str | None) -> Options:
        if base is None:
            address = self._environ.get("AZURE_API_BASE") or _placeholder("AZURE_API_BASE")
        assert address is not None, "an address that is written is read or refused"
        parts = urlsplit(address)
        options: Options = {"provider": "azure", "endpoint": f"{parts.scheme}://{parts.netloc}"}
        if base is not None:
            if parts.path.strip("/") or parts.query:
                self._report.approximated(base, "endpoint, without its path: Penstock knows the paths of Azure")
            elif not _is_placeholder(address):
                self._report.mapped(base, "endpoint")
        for prefix in ("responses/", "o_series/", "gpt5_series/"):
            served = served.removeprefix(prefix)
        options["served"] = served
        version = params.take("api_version")
        if version is not None:
            text = self._plain(version)
            if _AZURE_VERSION.match(text):
                options["api_version"] = text
                self._report.mapped(version, f"api_version: {text}")
            else:
                self._report.approximated(version, "left out: the v1 API of Azure is used, which has no version")
        options["key"] = self._key(params, "AZURE_API_KEY")
        return options

    def _bedrock(self, params: Settings, served: str, base: Value | None, address: str | None) -> Options:
        options: Options = {"provider": "bedrock"}
        route, slash, rest = served.partition("/")
        if slash and route in ("converse", "invoke"):
            served = rest
            if route == "invoke" and "anthropic." in served:
                options["api"] = "invoke"
        elif slash and route in ("agent", "agentcore", "async_invoke", "converse_like"):
            raise Left(f"bedrock/{route} is not a model that answers chats")
        region = params.take("aws_region_name")
        first, slash, rest = served.partition("/")
        if region is not None:
            options["region"] = self._plain(region)
            self._report.mapped(region, "region")
        elif slash and _AWS_REGION.match(first):
            options["region"], served = first, rest
        elif (arn := served.split(":"))[0] == "arn" and len(arn) > 3 and _AWS_REGION.match(arn[3]):
            options["region"] = arn[3]
        else:
            options["region"] = self._environ.get("AWS_REGION_NAME") or self._environ.get("AWS_REGION") or "us-west-2"
        options["served"] = served
        endpoint = params.take("aws_bedrock_runtime_endpoint")
        if endpoint is not None:
            options["endpoint"] = self._address(endpoint)
            self._report.mapped(endpoint, "endpoint")
        elif base is not None and address is not None:
            options["endpoint"] = address
            self._report.mapped(base, "endpoint")
        key = params.take("api_key")
        if key is not None:
            options["key"] = self._secrets.reference(key, "AWS_BEARER_TOKEN_BEDROCK")
        for name, usual in _AWS_KEYS.items():
            value = params.take(name)
            if value is None:
                continue
            if value.variable == usual:
                self._report.mapped(value, f"needed no longer: AWS's own variables are read, {usual} among them")
            else:
                self._report.approximated(
                    value,
                    f"not copied: set {usual} in the environment, or give Penstock a role; one account serves all "
                    "deployments without a `key`",
                )
        return options

    def _vertex(self, params: Settings, served: str, base: Value | None, address: str | None) -> Options:
        options: Options = {"provider": "vertex"}
        for ours, names, variable in (
            ("project", ("vertex_project", "vertex_ai_project"), "VERTEXAI_PROJECT"),
            ("region", ("vertex_location", "vertex_ai_location"), "VERTEXAI_LOCATION"),
        ):
            value = next((value for name in names if (value := params.take(name)) is not None), None)
            if value is not None:
                options[ours] = self._plain(value)
                self._report.mapped(value, f"{ours}: {options[ours]}")
            elif ours == "region":
                options[ours] = self._environ.get(variable) or "us-central1"  # LiteLLM's own default
            elif self._environ.get(variable):
                options[ours] = self._environ[variable]
            else:
                raise Left(f"it names no project: write `vertex_project` here, or set {variable} and run this again")
        options["served"] = served.removeprefix("gemini/")
        if base is not None and address is not None:
            parts = urlsplit(address)
            options["endpoint"] = f"{parts.scheme}://{parts.netloc}"
            self._report.mapped(base, "endpoint")
        credentials = params.take("vertex_credentials") or params.take("vertex_ai_credentials")
        if credentials is not None:
            options["key"] = self._google_key(credentials)
        return options

    def _google_key(self, value: Value) -> str:
        text = value.text or ""
        if text.startswith(("/", "./", "~")) or re.fullmatch(r"[\w.-]+(/[\w.-]+)*\.json", text):
            self._report.mapped(value, f"key: file:{text}")
            return f"file:{text}"
        if value.variable is not None:
            self._report.approximated(
                value, f"key: env:{value.variable}, which must hold the JSON itself; for a path write `file:/path`"
            )
            return self._secrets.named(value.variable)
        return self._secrets.reference(value, "VERTEX_SERVICE_ACCOUNT")

    # --- values ---

    def _key(self, params: Settings, usual: str) -> str:
        value = params.take("api_key")
        return self._secrets.named(usual) if value is None else self._secrets.reference(value, usual)

    def _optional_key(self, params: Settings, usual: str) -> str | None:
        value = params.take("api_key")
        if value is None:
            return None
        if value.variable is None and (value.text or "").lower() in _NO_KEY:
            self._report.mapped(value, "needed no longer: it is no key, and an engine may go without")
            return None
        return self._secrets.reference(value, usual)

    def _address(self, value: Value) -> str:
        """With a name that cannot exist in the place of one that only the environment knows. Raises `Left`."""
        text = (value.text or "").strip()
        if value.variable is not None:
            text = self._environ.get(value.variable, "")
            if not text:
                self._report.unsupported(
                    value,
                    f"addresses stand in the file: write the one of {value.variable} in the place of the name that "
                    "ends with .invalid, or set it and run this again",
                )
                return _placeholder(value.variable)
        if not text.startswith(("http://", "https://")):
            raise Left(f"`{value.path.rpartition('.')[2]}` is not an address")
        # what it is followed by is Penstock's to add
        return re.sub(r"/(chat/completions|completions|embeddings|v1/messages|messages)/?$", "", text.rstrip("/"))

    def _plain(self, value: Value) -> str:
        """A value that is no secret. Raises `Left`."""
        text = value.text or ""
        if value.variable is not None:
            text = self._environ.get(value.variable, "")
            if not text:
                raise Left(
                    f"it takes `{value.path.rpartition('.')[2]}` from {value.variable}: set it, and run this again"
                )
        return text


_AWS_KEYS: Final = {"aws_access_key_id": "AWS_ACCESS_KEY_ID", "aws_secret_access_key": "AWS_SECRET_ACCESS_KEY"}


def _variable_of(address: str) -> str:
    host = urlsplit(address).hostname or "upstream"
    return re.sub(r"[^A-Z0-9]+", "_", f"KEY_OF_{host.upper()}").strip("_")[:100]


def _bare(served: str) -> str:
    """Without what tells LiteLLM which endpoint to ask: with Penstock the caller says so."""
    return served.removeprefix("responses/")


def _placeholder(variable: str) -> str:
    """RFC 6761: nothing is ever found under `.invalid`."""
    return f"https://{variable.lower().replace('_', '-')}.invalid"


def _is_placeholder(address: str) -> bool:
    return address.endswith(".invalid")
