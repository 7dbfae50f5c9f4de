"""PlaneSpec: all a gateway worker must know, as plain data. It can be stored, compared, sent and replayed."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from penstock.balancing.disaggregate import PrefillRule
from penstock.balancing.options import DEFAULT as USUAL_BALANCING
from penstock.balancing.options import Balancing
from penstock.balancing.queue_options import DEFAULT as USUAL_QUEUE
from penstock.balancing.queue_options import QueueOptions
from penstock.config.providers import COMPATIBLE, Auth, Dialect, Quirk
from penstock.core.plan import Plan
from penstock.core.request import Endpoint, Priority
from penstock.limits.limit import Limit
from penstock.pricing.options import PriceOptions
from penstock.resilience.options import ConcurrencyRule, HedgeRule, Ladder, OutlierRule, ShedRule
from penstock.routing.spec import RoutingSpec
from penstock.telemetry.options import DEFAULT as USUAL_TELEMETRY
from penstock.telemetry.options import TelemetryOptions

OnDisconnect: TypeAlias = Literal["cancel", "drain"]
OnCut: TypeAlias = Literal["error", "continue", "prefix"]
Scope: TypeAlias = Literal["call", "read"]


class ReplicaSpec(msgspec.Struct, frozen=True):
    """`origin` is `http://host:port`, `https://host` or `unix:/path`; `base_path` comes before what the dialect asks
    for: `/chat/completions`, `/messages`, `/model/{id}/converse`, `/models/{id}:generateContent`."""

    name: str  # unique in the plane: "local/0"
    origin: str
    base_path: str = "/v1"
    health_path: str | None = "/health"  # None: not probed (provider APIs)
    metrics_path: str | None = None  # where the engine says how busy it is; None: it is not asked
    kv_events: str = ""  # embedded engine: where it publishes what its prefix cache holds
    kv_replay: str = ""
    weight: float = 1.0  # its share, under the policy `weighted`


class KvEventsRule(msgspec.Struct, frozen=True):
    """Where replicas publish what their prefix caches hold; "" where Penstock itself chooses, and knows it later."""

    endpoint: str = ""
    replay: str = ""
    ranks: int = 1  # engines behind each address


class DeploymentSpec(msgspec.Struct, frozen=True):
    name: str
    served: str | None  # the name the upstream knows the model by; None: whatever the caller wrote
    replicas: tuple[ReplicaSpec, ...]
    credential: str | None = None  # a reference, never the secret: "env:NAME" or "file:/path"
    connect_timeout: float = 5.0  # seconds
    breaker_failures: int = 5  # in a row, to open
    breaker_open_for: float = 10.0  # seconds before it is asked again
    dialect: Dialect = "openai"
    auth: Auth = "bearer"
    native: tuple[Endpoint, ...] = COMPATIBLE  # what it answers itself; what else it answers is translated
    quirks: tuple[Quirk, ...] = ()
    lose: tuple[str, ...] = ()  # fields of the caller's dialect that may be left out; ("*",): all
    beta: tuple[str, ...] = ()  # anthropic-beta flags that callers may send on; ("*",): all
    inline_media: bool = False  # pictures by URL must be put into the request: nobody there may or can fetch them
    region: str | None = None
    project: str | None = None
    api_version: str | None = None  # goes into the query
    provider: str = ""  # whose price list holds; "": nobody's
    price: tuple[PriceOptions, ...] = ()  # in the place of the table's
    self_hosted: bool = False  # what is sent there stays with whoever runs Penstock
    location: str = ""
    context_window: int | None = None  # tokens
    balancing: Balancing = USUAL_BALANCING
    outliers: OutlierRule | None = OutlierRule()  # None: no replica is left out for being worse than the others
    kv_events: KvEventsRule | None = None  # None: what they cached is guessed
    prefill: PrefillRule | None = None  # None: prompts are computed where they are answered
    concurrency: ConcurrencyRule | None = None  # None: a replica gets as many attempts as come


class MaxTokens(msgspec.Struct, frozen=True, gc=False):
    """How many tokens callers may ask for. What they asked for is never changed: more than `most` is refused, and
    `default` is for those who said nothing; they are told so in a header."""

    most: int | None = None
    default: int | None = None  # never more than `most`, and given wherever that is


class ModelSpec(msgspec.Struct, frozen=True):
    name: str
    plan: Plan
    on_disconnect: OnDisconnect = "cancel"
    on_cut: OnCut = "error"
    max_tokens: MaxTokens | None = None
    routing: RoutingSpec | None = None  # None: deployments in their order, and nothing to decide
    hedge: HedgeRule | None = None  # hedges follow from predictions; None: from `plan.hedge_after`, if at all
    degrade: Ladder = ()


class GrantSpec(msgspec.Struct, frozen=True, gc=False):
    """Whom keys belong to and what they may do, with what they have from their team and organisation. Keys that are
    alike share one. None is everything, () nothing; times are Unix seconds."""

    org: str = ""
    team: str = ""
    models: tuple[str, ...] | None = None
    endpoints: tuple[Endpoint, ...] | None = None
    scopes: tuple[Scope, ...] | None = None
    networks: tuple[str, ...] | None = None
    not_before: float | None = None
    expires: float | None = None
    revoked: float | None = None
    priority: Priority = Priority.NORMAL
    max_cost: int | None = None  # nano-dollars, of one request
    own: tuple[Limit, ...] = ()  # of each of these keys alone; `limits.lookup` gives them the key's name


class DigestSpec(msgspec.Struct, frozen=True, gc=False):
    """Of a key that has been replaced."""

    digest: str
    peppered: bool
    until: float  # Unix seconds


class KeySpec(msgspec.Struct, frozen=True, gc=False):
    id: str
    digest: str  # of the whole key, hex: SHA-256, or HMAC-SHA-256 under the pepper
    grant: int | None = None  # in `PlaneSpec.grants`; None: everything, and nobody's
    peppered: bool = False
    previous: DigestSpec | None = None


class Notify(msgspec.Struct, frozen=True):
    """When somebody is told about a budget, and where beside the log and the metrics."""

    shares: tuple[int, ...] = (80, 100)  # percent of it that are spent, rising
    webhook: str | None = None  # an address, or a reference to one that is a secret


class PlaneSpec(msgspec.Struct, frozen=True):
    version: int
    config_hash: str
    models: tuple[ModelSpec, ...]
    deployments: tuple[DeploymentSpec, ...]
    keys: tuple[KeySpec, ...]
    grants: tuple[GrantSpec, ...] = ()
    tenants: tuple[GrantSpec, ...] = ()  # of the file: what is around keys made at run time, by organisation and team
    keys_pepper: str | None = None  # a reference, never the secret
    limits: tuple[Limit, ...] = ()  # and budgets; without those of single keys, which are in their grants
    thresholds: dict[str, Notify] = {}  # by the name of the budget; others: `Notify()`
    timezone: str = "UTC"  # in whose days and months budgets are; `units.zone` reads it
    cost_tags: int = 10_000  # features and tags that one organisation may use
    ledger_retention: float = 400 * 86_400.0  # seconds that single requests are kept in the ledger
    trusted_proxies: tuple[str, ...] = ()  # networks
    insecure_dev: bool = False  # no keys asked for; the server then listens on loopback only
    max_in_flight: int = 20_000  # requests inside one worker; more are told 503 at once
    responses_retention: float = 30 * 86_400.0  # seconds that a stored response is kept
    responses_max: int = 10_000  # stored responses; the oldest go first
    images_fetch: bool = False  # whether images by URL are fetched for upstreams that would fetch them themselves
    images_max_bytes: int = 20 * 2**20
    images_timeout: float = 10.0  # seconds, of one image
    images_hosts: tuple[str, ...] = ()  # () : any public host
    retry_budget_ratio: float = 0.2  # retries and hedges per request, on average
    retry_budget_per_second: float = 10.0  # and this many always
    shed: ShedRule | None = ShedRule()  # None: nobody is refused for the sake of others
    probe_interval: float = 2.0  # seconds between health checks of a replica
    report_interval: float = 5.0  # seconds between looks at its metrics
    queue: QueueOptions = USUAL_QUEUE
    telemetry: TelemetryOptions = USUAL_TELEMETRY
