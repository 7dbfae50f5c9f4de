"""The options of `penstock.yaml`: what may be written, and what each means. Other files decide what follows from it.

Durations and sizes stay text here (`config.units` reads them), so that a `Config` is what the file says.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from penstock.balancing.options import PolicyName
from penstock.config.balancing_options import BalancingOptions
from penstock.config.kv_options import KvEventsOptions, PrefillOptions
from penstock.config.limit_options import BudgetOptions, BudgetText, LimitOptions, OwnBudget, OwnLimits
from penstock.config.options import Count, Options, Text, says
from penstock.config.providers import PROVIDERS
from penstock.config.queue_options import QueueOptions
from penstock.config.resilience_options import (
    ConcurrencyOptions,
    DegradeOptions,
    HedgeAfter,
    OutlierOptions,
    ShedOptions,
)
from penstock.config.routing_options import PlaceName, RoutingOptions
from penstock.config.secrets import SecretReference
from penstock.config.slo_options import AlertsOptions, SloName, SloOptions
from penstock.config.spec import OnCut, OnDisconnect
from penstock.config.telemetry_options import Telemetry
from penstock.config.units import Duration, Instant, Size
from penstock.pricing.options import Money, PriceOptions

DeploymentName = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        extra={"expected": "a name of at most 64 letters, digits, dots, dashes and underscores"},
    ),
]
ModelName = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}$",
        extra={"expected": "a name of at most 128 letters, digits and . _ : / @ + -"},
    ),
]
KeyId = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$",
        extra={"expected": "a name of at most 64 letters, digits, dots, dashes and underscores"},
    ),
]
OrgName = Annotated[
    str,
    Meta(
        pattern=r"^([A-Za-z0-9][A-Za-z0-9._@-]{0,63})?$",
        extra={"expected": "a name of at most 64 letters, digits, dots, dashes and underscores"},
    ),
]
Digest = Annotated[
    str,
    Meta(
        pattern=r"^[0-9a-f]{64}$",
        extra={
            "secret": True,
            "wrong": "must be the digest of the whole key, 64 lower-case hex digits "
            "(`penstock key create --in-file` prints it)",
        },
    ),
]
Network = Annotated[
    str,
    Meta(
        pattern=r"^[0-9A-Fa-f:.]{2,45}(/[0-9]{1,3})?$",
        examples=["10.0.0.0/8", "2001:db8::/32", "192.0.2.7"],
        extra={"expected": "an address or a network such as 192.0.2.7, 10.0.0.0/8 or 2001:db8::/32"},
    ),
]
LimitName = Annotated[
    str,
    Meta(
        # those of limits that have no name of their own have a space in them
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        extra={"expected": "a name of at most 64 letters, digits, dots, dashes and underscores"},
    ),
]
Place = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=1024,
        extra={"secret": True, "wrong": "must be an address, or where it is: env:NAME or file:/path"},
    ),
]
UpstreamPath = Annotated[
    str,
    Meta(
        pattern=r"^(off|/[A-Za-z0-9._~/-]{0,255})$",
        extra={"expected": "a path such as /health, or off"},
    ),
]
Region = Annotated[
    str,
    Meta(
        # it becomes part of a host's name
        pattern=r"^[a-z][a-z0-9]{0,31}(-[a-z0-9]{1,31}){0,4}$",
        examples=["us-east-1", "europe-west4", "global"],
        extra={"expected": "a region such as us-east-1, europe-west4 or global"},
    ),
]
Project = Annotated[
    str,
    Meta(
        pattern=r"^[a-z0-9]([a-z0-9.:-]{0,61}[a-z0-9])?$",
        extra={"expected": "a project's id or number, such as my-project-123"},
    ),
]
ApiVersion = Annotated[
    str,
    Meta(
        pattern=r"^(preview|[0-9]{4}-[0-9]{2}-[0-9]{2}(-preview)?)$",
        extra={"expected": "a date such as 2024-10-21 or 2025-04-01-preview, or `preview`"},
    ),
]
FieldName = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z_][A-Za-z0-9_.]{0,127}$",
        extra={"expected": "the name of a field of a request, such as logit_bias"},
    ),
]
Flag = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$",
        extra={"expected": "a feature flag such as context-1m-2025-08-07"},
    ),
]
HostPattern = Annotated[
    str,
    Meta(
        pattern=r"^(\*\.)?[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*$",
        max_length=253,
        extra={"expected": "a host such as images.example.com, or *.example.com for all below it"},
    ),
]


class Timeouts(Options, frozen=True):
    """How long to wait for an answer."""

    first_token: Annotated[
        Duration, says("Of one attempt. Comments and empty events of the upstream do not count as a token.")
    ] = "30s"
    idle: Annotated[Duration, says("Between two tokens.")] = "30s"
    total: Annotated[Duration, says("Of the whole request, all attempts together.")] = "10m"


class MaxTokensOptions(Options, frozen=True):
    """How long answers may be. What a caller asked for is never changed: it is refused, or it is sent."""

    most: Annotated[Count | None, says("A request for more is refused.")] = None
    default: Annotated[
        Count | None,
        says("What is asked for where the caller says nothing, who is told so in a header. Without it, `most`."),
    ] = None


class Model(Options, frozen=True):
    """The public name that callers use."""

    deployments: Annotated[
        tuple[str, ...],
        Meta(min_length=1, max_length=64, extra={"expected": "at least one deployment"}),
        says("Best first: the next one is tried when one fails before its first token."),
    ]
    timeouts: Timeouts = msgspec.field(default_factory=Timeouts)
    max_attempts: Annotated[int, Meta(ge=1, le=10), says("Retries, failover and hedges all count.")] = 3
    hedge_after: Annotated[
        HedgeAfter | None,
        says(
            "Without a first token for so long, a second attempt starts beside the first; the slower one is cancelled. "
            "`auto`: when it is later than 19 of 20 are, for 2% of the requests at most."
        ),
    ] = None
    degrade: Annotated[
        Annotated[tuple[DegradeOptions, ...], Meta(max_length=16)],
        says("What is given up under overload, the mildest first. Without it, nothing."),
    ] = ()
    on_disconnect: Annotated[
        OnDisconnect,
        says(
            "What becomes of an answer whose caller left: `cancel` stops the upstream; `drain` reads on for a while, "
            "so that what the provider bills anyway is counted as it was."
        ),
    ] = "cancel"
    on_cut: Annotated[
        OnCut,
        says(
            "What becomes of a stream that breaks after its first token: an `error` event; `continue`, where a replica "
            "of the same engine can go on exactly; or `prefix`, where another deployment goes on from the text so far."
        ),
    ] = "error"
    max_tokens: Annotated[MaxTokensOptions | None, says("How many tokens a caller may ask for. Without it, any.")] = (
        None
    )
    routing: Annotated[RoutingOptions | None, says("Which requests go where. Without it, in the order above.")] = None


class Breaker(Options, frozen=True):
    """When a replica that keeps failing is left alone."""

    failures: Annotated[Count, says("In a row, before a replica is left alone.")] = 5
    open_for: Annotated[
        Duration, says("Before it is tried again; twice as long each time that this fails, up to a minute.")
    ] = "10s"


class Deployment(Options, frozen=True):
    """One model at one place. Exactly one of `engine`, `provider` and `model` says what kind of place."""

    engine: Annotated[
        Text | Annotated[tuple[Text, ...], Meta(min_length=1, max_length=4096)] | None,
        says("Addresses of engines that you run (vLLM, SGLang, llama.cpp, Ollama, TGI): one replica each, and alike."),
    ] = None
    provider: Annotated[
        Text | None, says("A company that answers: a known name, or the https address of an API like theirs.")
    ] = None
    model: Annotated[
        Text | None,
        says("Weights for the embedded engine, which Penstock starts: the name of a bundled model, or a directory."),
    ] = None

    served: Annotated[
        Text | None,
        says("The name by which the upstream knows the model. Without it, the name that the caller wrote is sent."),
    ] = None
    key: Annotated[
        SecretReference | None, says("Where the upstream's key is: env:NAME or file:/path. Never the key itself.")
    ] = None
    connect_timeout: Annotated[Duration, says("For a connection to be made. At most 5m.")] = "5s"
    breaker: Breaker = msgspec.field(default_factory=Breaker)
    outliers: Annotated[
        OutlierOptions | Literal["off"], says("When a replica is left out that does worse than its like; or `off`.")
    ] = msgspec.field(default_factory=OutlierOptions)
    concurrency: Annotated[
        ConcurrencyOptions | None,
        says("How many requests one replica gets at once is found out. Without it, as many as come."),
    ] = None
    lose: Annotated[
        Annotated[tuple[FieldName, ...], Meta(max_length=64)] | Literal["all"],
        says(
            "Fields of a request that may be left out when this upstream's dialect has no word for them, or `all`; the "
            "caller is told. Without it such a request is refused by the field's name."
        ),
    ] = ()
    context_window: Annotated[
        Annotated[int, Meta(ge=1, le=1_000_000_000)] | None,
        says("How many tokens it holds, prompt and answer together. A request for more goes elsewhere."),
    ] = None
    location: Annotated[
        PlaceName | None, says("Where it is, from large to small: eu, eu-west-1. Without it, its `region`.")
    ] = None
    price: Annotated[
        PriceOptions | Annotated[tuple[PriceOptions, ...], Meta(min_length=1, max_length=64)] | None,
        says("What it costs, in the place of what the table of prices says; a list where that changes with the day."),
    ] = None

    software: Annotated[
        Literal["vllm", "sglang", "tgi", "llama.cpp", "ollama", "tensorrt-llm", "penstock"] | None,
        says("Engines only: what runs there, and so what it can do. Without it, only what every such engine can."),
    ] = None
    speaks: Annotated[
        Literal["openai", "anthropic"] | None,
        says("Engines and providers by address: the dialect (default openai)."),
    ] = None
    health: Annotated[
        UpstreamPath | None,
        says(
            "Engines only: the path that answers 200 while the engine is well, or `off`. The default follows from "
            "`software`, else /health."
        ),
    ] = None
    metrics: Annotated[
        UpstreamPath | None,
        says(
            "Engines only: the path of its metrics (default /metrics), from which the balancer knows its queue and KV "
            "cache, or `off`. An engine that has none is balanced by what Penstock itself has sent."
        ),
    ] = None

    balancing: Annotated[
        BalancingOptions | PolicyName | None,
        says("How one of the replicas is chosen: the name of a policy, or a block with its options."),
    ] = None
    kv_events: Annotated[
        KvEventsOptions | None,
        says("Engines and the embedded engine: they tell what their prefix caches hold. Without it, Penstock guesses."),
    ] = None
    prefill: Annotated[
        PrefillOptions | None,
        says("vLLM only: long prompts are computed by the replicas of another deployment. Without it, where they are."),
    ] = None

    endpoint: Annotated[
        Text | None,
        says(
            "The address of the service: for azure https://NAME.openai.azure.com; for bedrock and vertex where it is "
            "not the public one."
        ),
    ] = None
    api_version: Annotated[
        ApiVersion | None, says("Azure only: a dated version of its API. Without it the v1 API, which has none.")
    ] = None
    region: Annotated[Region | None, says("Bedrock and vertex: where the model is.")] = None
    project: Annotated[Project | None, says("Vertex only: the project that pays.")] = None
    api: Annotated[
        Literal["converse", "invoke"] | None,
        says("Bedrock only: the operation to call, `converse` (default) or, for Claude, `invoke`."),
    ] = None
    beta: Annotated[
        Annotated[tuple[Flag, ...], Meta(max_length=64)] | Literal["all"] | None,
        says(
            "Claude only: the anthropic-beta flags that callers may use; others are left out. The default is `all`, "
            "and none for bedrock and vertex, which refuse a request for one that they do not know."
        ),
    ] = None

    replicas: Annotated[
        Annotated[int, Meta(ge=1, le=256)] | None, says("Embedded engine only: how many processes (default 1).")
    ] = None
    threads: Annotated[
        Annotated[int, Meta(ge=1, le=1024)] | None, says("Embedded engine only: CPU threads of each process.")
    ] = None
    dtype: Annotated[
        Literal["bf16", "int8", "float32"] | None,
        says("Embedded engine only: the numbers that the weights are kept in (default bf16)."),
    ] = None
    max_seqs: Annotated[Count | None, says("Embedded engine only: sequences computed at the same time.")] = None
    max_batched_tokens: Annotated[Count | None, says("Embedded engine only: tokens computed in one step.")] = None
    max_waiting: Annotated[Count | None, says("Embedded engine only: requests that may wait for their turn.")] = None


KINDS: Final = ("engine", "provider", "model")
OPTIONS_OF_ENGINE: Final = ("software", "health", "metrics")
OPTIONS_OF_REPLICA: Final = (
    "threads",
    "dtype",
    "max_seqs",
    "max_batched_tokens",
    "max_waiting",
)
"""What one process of the embedded engine is started with, under the same names as its own options."""
OPTIONS_OF_EMBEDDED: Final = ("replicas", *OPTIONS_OF_REPLICA)


class Access(Options, frozen=True, gc=False):
    """What an organisation, a team or a key may do. Each narrows what is around it; without an option, the same."""

    models: Annotated[tuple[str, ...] | None, says("The models that may be used. Without it, all.")] = None
    endpoints: Annotated[
        Annotated[tuple[str, ...], Meta(max_length=64)] | None,
        says("The endpoints that may be called: chat.completions, embeddings and so on. Without it, all."),
    ] = None
    scopes: Annotated[
        tuple[Literal["call", "read"], ...] | None,
        says("`call` is to call models, `read` to list them and to fetch stored responses. Without it, both."),
    ] = None
    networks: Annotated[
        Annotated[tuple[Network, ...], Meta(max_length=256)] | None,
        says("Where callers may be. Without it, anywhere."),
    ] = None
    not_before: Annotated[Instant | None, says("When it begins to be valid.")] = None
    expires: Annotated[Instant | None, says("When it ends to be valid.")] = None
    revoked: Annotated[Instant | None, says("Since when it is not valid any more, whatever else is said.")] = None
    priority: Annotated[
        Literal["critical", "high", "normal", "low"] | None,
        says("Who goes first where there is not enough for all. The nearest one that is given holds (else normal)."),
    ] = None
    limits: Annotated[OwnLimits | None, says("How much may be asked for, by all its keys together.")] = None
    budget: Annotated[
        BudgetText | OwnBudget | None, says("How much may be spent, by all its keys together: $50/month, or a mapping.")
    ] = None
    max_cost: Annotated[
        Money | None, says("What one request may cost at most; one that might cost more is refused.")
    ] = None


class Team(Access, frozen=True, gc=False):
    """Part of an organisation."""


class Organisation(Access, frozen=True, gc=False):
    """Whom keys belong to. Nothing of one is ever seen by another."""

    teams: Annotated[dict[str, Team], Meta(extra={"names": KeyId}), says("Its parts.")] = msgspec.field(
        default_factory=dict
    )


class PreviousKey(Options, frozen=True, gc=False):
    """The key that was replaced, which goes on working for a while."""

    until: Annotated[Instant, says("When it stops to work.")]
    sha256: Annotated[Digest | None, says("Of the whole key.")] = None
    hmac: Annotated[Digest | None, says("The HMAC of the whole key, instead of `sha256`.")] = None


class Key(Access, frozen=True, gc=False, kw_only=True):
    """Somebody who may call. The key itself is nowhere: only its digest, exactly one of `sha256` and `hmac`."""

    id: Annotated[KeyId, says("Stands in logs and metrics.")]
    sha256: Annotated[Digest | None, says("SHA-256 of the whole key. `penstock key create --in-file` prints it.")] = (
        None
    )
    hmac: Annotated[
        Digest | None, says("HMAC-SHA-256 of the whole key under `keys_pepper`, which is better than `sha256`.")
    ] = None
    previous: Annotated[PreviousKey | None, says("The key that this one replaces.")] = None
    org: Annotated[OrgName, says("The organisation that it belongs to.")] = ""
    team: Annotated[OrgName, says("The team of that organisation.")] = ""
    tenant: Annotated[OrgName, says("The old name of `org`.")] = ""


class KeysFile(Options, frozen=True):
    """Keys that are in a file of their own."""

    file: Annotated[
        Text, says("A YAML file with a list of keys, or NAME.jsonl with one on each line. Relative to this file.")
    ]


class Tls(Options, frozen=True):
    """The certificate that is shown to callers. Read at the start; relative to this file."""

    certificate: Annotated[Text, says("A PEM file: the certificate, then those between it and the root.")]
    key: Annotated[Text, says("A PEM file: its private key, without a password.")]


class Server(Options, frozen=True):
    """Where and how to listen."""

    host: Annotated[Text, says("The address to listen on. One that others can reach needs `keys`.")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535), says("0 lets the system choose.")] = 8080
    tls: Annotated[Tls | None, says("Speak https. Without it, http.")] = None
    max_body: Annotated[Size, says("Of one request; a larger one is answered 413. From 1KiB to 1GiB.")] = "32MiB"
    drain: Annotated[Duration, says("How long requests in flight may go on when the server is told to stop.")] = "30s"
    max_in_flight: Annotated[Count, says("Requests inside one worker; more are answered 503 at once.")] = 20_000
    trusted_proxies: Annotated[
        Annotated[tuple[Network, ...], Meta(max_length=256)],
        says("Proxies in front of Penstock: from them alone, X-Forwarded-For says where a caller is."),
    ] = ()
    access_log: Annotated[
        Text, says("`stderr`, `stdout`, `off`, or a file that is appended to. One JSON line per request.")
    ] = "stderr"


Role = Literal["owner", "admin", "viewer", "billing"]


class AdminKey(Options, frozen=True, gc=False):
    """Somebody who may use the admin API. The key itself is nowhere: only its digest, one of `sha256` and `hmac`."""

    id: Annotated[KeyId, says("Stands in the audit log.")]
    role: Annotated[Role, says("What it may do: owner, admin, viewer or billing.")]
    sha256: Annotated[Digest | None, says("SHA-256 of the whole key. `penstock key create --admin` prints it.")] = None
    hmac: Annotated[
        Digest | None, says("HMAC-SHA-256 of the whole key under `keys_pepper`, which is better than `sha256`.")
    ] = None
    org: Annotated[OrgName, says("The one organisation that it sees and looks after. Without it, all.")] = ""
    expires: Annotated[Instant | None, says("When it ends to be valid.")] = None


class Oidc(Options, frozen=True):
    """Bearer tokens of an OpenID provider, verified with the keys that it publishes."""

    issuer: Annotated[Text, says("Its address, as in the `iss` of its tokens. It says where its keys are.")]
    audience: Annotated[Text, says("Whom its tokens must be meant for, their `aud`.")]
    roles: Annotated[
        dict[str, Role],
        Meta(min_length=1, extra={"names": Text, "expected": "at least one value of the claim"}),
        says("The role that each value of the claim gives; of several the most powerful. Without any: refused."),
    ]
    claim: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9_:/-]{1,128}(\.[A-Za-z0-9_:/-]{1,128}){0,4}$",
            extra={"expected": "the name of a claim, with dots for one inside of another"},
        ),
        says("The claim that says the roles, a text or a list: `groups`, `realm_access.roles`."),
    ] = "roles"


class Admin(Options, frozen=True):
    """The admin API, at an address of its own. Without this section there is none."""

    host: Annotated[Text, says("The address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535), says("0 lets the system choose.")] = 8081
    tls: Annotated[Tls | None, says("Speak https. Without it, http.")] = None
    keys: Annotated[
        Annotated[tuple[AdminKey, ...], Meta(max_length=256)], says("Who may use it; other keys do not open it.")
    ] = ()
    oidc: Annotated[Oidc | None, says("Who else may: people whom an OpenID provider knows.")] = None


class Responses(Options, frozen=True):
    """Responses (`/v1/responses`) that are kept, so that callers can fetch and continue them."""

    file: Annotated[
        Text | None, says("Where: a SQLite file, relative to this file. Without it they are gone when Penstock stops.")
    ] = None

    retention: Annotated[Duration, says("How long each is kept. `0s` keeps none.")] = "30d"
    max: Annotated[int, Meta(ge=0, le=10_000_000), says("How many are kept; the oldest go first. 0 keeps none.")] = (
        10_000
    )


class Images(Options, frozen=True):
    """Images that callers name by URL. No engine is ever asked to fetch one."""

    fetch: Annotated[
        Literal["refuse", "allow"],
        says("`allow`: Penstock fetches them, from public addresses only, and sends the bytes on."),
    ] = "refuse"
    max_bytes: Annotated[Size, says("Of one image. From 1KiB to 1GiB.")] = "20MiB"
    timeout: Annotated[Duration, says("Of one image, all redirects together. At most 5m.")] = "10s"
    hosts: Annotated[
        Annotated[tuple[HostPattern, ...], Meta(max_length=256)],
        says("The hosts that may be fetched from, `*.example.com` for all below one. Without it, all public ones."),
    ] = ()


NO_DATABASE: Final = "off"


class Store(Options, frozen=True):
    """Where is kept what must outlive a process, or be shared by several hosts."""

    database: Annotated[
        Place | None,
        says(
            "The ledger, and what is made at run time: a SQLite file, relative to this file, or postgres://; env:NAME "
            "or file:/path where the address has a password; `off` keeps neither."
        ),
    ] = None
    counters: Annotated[
        Place | None,
        says("Redis or Valkey, where hosts count together: redis://, or env:NAME. Without it, each host counts alone."),
    ] = None
    spool: Annotated[Text | None, says("A directory for what the database has not got yet, relative to this file.")] = (
        None
    )
    traces: Annotated[
        Text | None,
        says("A SQLite file for single requests, relative to this file; beside the ledger without it. `off`: none."),
    ] = None
    traces_retention: Annotated[Duration, says("How long single requests can be looked at.")] = "14d"
    traces_rows: Annotated[Count, says("How many; the oldest go first.")] = 500_000
    traces_size: Annotated[Size, says("How much room they take, likewise.")] = "1GiB"


class Cost(Options, frozen=True):
    """What is written down of each request, beside what it cost."""

    tags: Annotated[Count, says("Features and tags that one organisation may use; later ones are `other`.")] = 10_000
    ledger_retention: Annotated[Duration, says("How long single requests are kept. At least 1d.")] = "400d"


class Config(Options, frozen=True):
    """The whole file."""

    models: Annotated[
        dict[str, Model],
        Meta(extra={"names": ModelName, "expected": "at least one model"}, min_length=1),
        says("What callers ask for."),
    ]
    deployments: Annotated[
        dict[str, Deployment],
        Meta(extra={"names": DeploymentName, "expected": "at least one deployment"}, min_length=1),
        says("Who can answer."),
    ]
    keys: Annotated[
        tuple[Key, ...] | KeysFile,
        says("Without keys, anybody on this machine may call, and the server listens on loopback only."),
    ] = ()
    keys_pepper: Annotated[
        SecretReference | None,
        says("Where the secret of the `hmac` digests is: env:NAME or file:/path. Another one revokes all such keys."),
    ] = None
    organisations: Annotated[
        dict[str, Organisation],
        Meta(extra={"names": KeyId}),
        says("Whom keys belong to, and what all keys of one may do. Without any, `org` is just a name."),
    ] = msgspec.field(default_factory=dict)
    limits: Annotated[
        dict[str, LimitOptions],
        Meta(extra={"names": LimitName}),
        says("How much may be asked for, by whom. All that apply to a request hold together."),
    ] = msgspec.field(default_factory=dict)
    budgets: Annotated[
        dict[str, BudgetOptions], Meta(extra={"names": LimitName}), says("How much may be spent, by whom.")
    ] = msgspec.field(default_factory=dict)
    queue: Annotated[QueueOptions, says("Where requests wait while no replica has room for them.")] = msgspec.field(
        default_factory=QueueOptions
    )
    timezone: Annotated[Text, says("In whose days, weeks and months budgets are: Europe/Berlin.")] = "UTC"
    store: Store = msgspec.field(default_factory=Store)
    cost: Cost = msgspec.field(default_factory=Cost)
    shed: Annotated[
        ShedOptions | Literal["off"], says("Who is refused before all are late, by priority; or `off`.")
    ] = msgspec.field(default_factory=ShedOptions)
    server: Server = msgspec.field(default_factory=Server)
    telemetry: Annotated[Telemetry, says("Traces, and what logs say.")] = msgspec.field(default_factory=Telemetry)
    admin: Annotated[Admin | None, says("Where keys, teams and costs are looked after over HTTP.")] = None
    responses: Responses = msgspec.field(default_factory=Responses)
    images: Images = msgspec.field(default_factory=Images)
    slos: Annotated[
        dict[str, SloOptions],
        Meta(extra={"names": SloName}),
        says("What is promised; how fast its error budget burns is watched, and said in alerts."),
    ] = msgspec.field(default_factory=dict)
    alerts: AlertsOptions = msgspec.field(default_factory=AlertsOptions)


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the file, for editors. It knows less than `load`, which also checks that names exist."""
    schema = msgspec.json.schema(Config)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "penstock.yaml"
    components = schema["$defs"]
    components["Deployment"]["oneOf"] = [{"required": [kind]} for kind in KINDS]
    for digested in ("Key", "PreviousKey", "AdminKey"):
        components[digested]["oneOf"] = [{"required": ["hmac"]}, {"required": ["sha256"]}]
    components["Deployment"]["properties"]["provider"]["examples"] = sorted(PROVIDERS)
    return schema
