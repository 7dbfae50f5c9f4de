"""The ledger in the columns of FOCUS 1.2, the FinOps Open Cost and Usage Specification, one charge per row.

https://focus.finops.org/focus-specification/v1-2/ names the columns, says which are mandatory (1.2 is the first with
token-based services) and that columns of one's own begin with `x_` and come last. What a ledger cannot know is
left empty, by name: `NOT_APPLICABLE`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final, Literal, TypeAlias

import msgspec

from penstock.core.money import dollars

VERSION: Final = "1.2"

Value: TypeAlias = str | int | Decimal | datetime | None
Kind: TypeAlias = Literal["text", "money", "number", "time"]


class Charge(msgspec.Struct, frozen=True):
    """What one hour of one attribution used. `nanos` is None when no request of it had a price."""

    hour: datetime  # its beginning, UTC
    org: str
    team: str
    key_id: str
    feature: str
    model: str
    deployment: str
    endpoint: str
    cache: str
    requests: int
    errors: int
    unpriced: int
    estimated: int
    input_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    cache_write_1h_tokens: int
    output_tokens: int
    reasoning_tokens: int
    nanos: int | None
    provider: str  # who sells the model; "": a machine of our own
    account: str  # what the whole installation is called

    @property
    def tokens(self) -> int:
        prompt = self.input_tokens + self.cached_tokens + self.cache_write_tokens + self.cache_write_1h_tokens
        return prompt + self.output_tokens + self.reasoning_tokens


class Column(msgspec.Struct, frozen=True):
    name: str
    kind: Kind
    value: Callable[[Charge], Value]
    meaning: str


def _month(hour: datetime) -> datetime:
    return datetime(hour.year, hour.month, 1, tzinfo=UTC)


def _next_month(hour: datetime) -> datetime:
    return datetime(hour.year + hour.month // 12, hour.month % 12 + 1, 1, tzinfo=UTC)


def _cost(charge: Charge) -> Decimal | None:
    return None if charge.nanos is None else dollars(charge.nanos)


def _quantity(charge: Charge) -> int:
    return charge.tokens or charge.requests


def _unit(charge: Charge) -> str:
    return "Tokens" if charge.tokens else "Requests"


def _seller(charge: Charge) -> str:
    return charge.provider or "Self-hosted"


def _said(charge: Charge) -> str:
    return f"{charge.requests} requests to {charge.model} by {charge.endpoint or 'no endpoint'}"


def _tags(charge: Charge) -> str:
    """Keys have the prefix that marks them as a provider's and not a user's."""
    found = {"penstock/key": charge.key_id, "penstock/feature": charge.feature}
    return msgspec.json.encode({name: value for name, value in found.items() if value}).decode()


_COST = "what the ledger says; empty, against the specification, where no request had a price: never 0"

FOCUS: Final = (
    Column("BilledCost", "money", _cost, _COST),
    Column("BillingAccountId", "text", lambda one: one.account, "`--account`"),
    Column("BillingAccountName", "text", lambda one: one.account, "`--account`"),
    Column("BillingCurrency", "text", lambda one: "USD", "USD"),
    Column("BillingPeriodEnd", "time", lambda one: _next_month(one.hour), "the end of the calendar month, UTC"),
    Column("BillingPeriodStart", "time", lambda one: _month(one.hour), "its beginning"),
    Column("ChargeCategory", "text", lambda one: "Usage", "Usage"),
    Column("ChargeClass", "text", lambda one: None, "empty: a correction is in its own hour and not marked"),
    Column("ChargeDescription", "text", _said, "how many requests to which model"),
    Column("ChargeFrequency", "text", lambda one: "Usage-Based", "Usage-Based"),
    Column("ChargePeriodEnd", "time", lambda one: one.hour + timedelta(hours=1), "the end of the hour"),
    Column("ChargePeriodStart", "time", lambda one: one.hour, "its beginning, UTC"),
    Column("ConsumedQuantity", "number", _quantity, "tokens of all classes; without any, requests"),
    Column("ConsumedUnit", "text", _unit, "Tokens or Requests"),
    Column("ContractedCost", "money", _cost, "as BilledCost"),
    Column("EffectiveCost", "money", _cost, "as BilledCost"),
    Column("InvoiceIssuerName", "text", _seller, "the provider of the deployment, or Self-hosted"),
    Column("ListCost", "money", _cost, "as BilledCost: the price list that was used"),
    Column("PricingCategory", "text", lambda one: "Standard", "Standard"),
    Column("PricingQuantity", "number", _quantity, "as ConsumedQuantity"),
    Column("PricingUnit", "text", _unit, "as ConsumedUnit"),
    Column("ProviderName", "text", _seller, "the provider of the deployment, or Self-hosted"),
    Column("PublisherName", "text", _seller, "likewise"),
    Column("ResourceId", "text", lambda one: one.deployment or None, "the deployment"),
    Column("ResourceName", "text", lambda one: one.deployment or None, "the deployment"),
    Column("ResourceType", "text", lambda one: "Deployment" if one.deployment else None, "Deployment"),
    Column("ServiceCategory", "text", lambda one: "AI and Machine Learning", "AI and Machine Learning"),
    Column("ServiceName", "text", lambda one: one.model, "the model, as callers name it"),
    Column("ServiceSubcategory", "text", lambda one: "Generative AI", "Generative AI"),
    Column("SkuId", "text", lambda one: one.model or None, "the model"),
    Column("SkuMeter", "text", lambda one: one.endpoint or None, "the endpoint"),
    Column("SubAccountId", "text", lambda one: "/".join(filter(None, (one.org, one.team))) or None, "org/team"),
    Column("SubAccountName", "text", lambda one: one.team or one.org or None, "the team; without one, the org"),
    Column("SubAccountType", "text", lambda one: "Team" if one.team else "Organization" if one.org else None, "which"),
    Column("Tags", "text", _tags, "`penstock/key` and `penstock/feature`, as JSON"),
    Column("x_Organization", "text", lambda one: one.org, "the org"),
    Column("x_Team", "text", lambda one: one.team, "the team"),
    Column("x_Cache", "text", lambda one: one.cache, "which of Penstock's caches answered; empty: none"),
    Column("x_Requests", "number", lambda one: one.requests, "requests"),
    Column("x_Errors", "number", lambda one: one.errors, "those that did not end well"),
    Column("x_UnpricedRequests", "number", lambda one: one.unpriced, "those that are in no cost"),
    Column("x_EstimatedRequests", "number", lambda one: one.estimated, "those whose tokens were estimated"),
    Column("x_InputTokens", "number", lambda one: one.input_tokens, "tokens by class: each is in one of them"),
    Column("x_CachedTokens", "number", lambda one: one.cached_tokens, "read from the provider's cache"),
    Column("x_CacheWriteTokens", "number", lambda one: one.cache_write_tokens, "written to it"),
    Column("x_CacheWrite1hTokens", "number", lambda one: one.cache_write_1h_tokens, "written to it for an hour"),
    Column("x_OutputTokens", "number", lambda one: one.output_tokens, "of the answer"),
    Column("x_ReasoningTokens", "number", lambda one: one.reasoning_tokens, "thought and not shown"),
)

NOT_APPLICABLE: Final = {
    "AvailabilityZone": "nobody says where a provider's model runs",
    "BillingAccountType": "there is one kind",
    "CapacityReservationId": "no capacity is reserved",
    "CapacityReservationStatus": "likewise",
    "CommitmentDiscountCategory": "no commitment is kept in the ledger",
    "CommitmentDiscountId": "likewise",
    "CommitmentDiscountName": "likewise",
    "CommitmentDiscountQuantity": "likewise",
    "CommitmentDiscountStatus": "likewise",
    "CommitmentDiscountType": "likewise",
    "CommitmentDiscountUnit": "likewise",
    "ContractedUnitPrice": "a row has several classes of tokens, each with its price",
    "InvoiceId": "the ledger has no invoices; `penstock cost reconcile` compares it with one",
    "ListUnitPrice": "as ContractedUnitPrice",
    "PricingCurrency": "prices are in the billing currency",
    "PricingCurrencyContractedUnitPrice": "likewise",
    "PricingCurrencyEffectiveCost": "likewise",
    "PricingCurrencyListUnitPrice": "likewise",
    "RegionId": "as AvailabilityZone",
    "RegionName": "likewise",
    "SkuPriceDetails": "as ContractedUnitPrice",
    "SkuPriceId": "likewise",
}
"""Columns of FOCUS 1.2 that are not mandatory and not written, and why."""


def row(charge: Charge) -> tuple[Value, ...]:
    """The values of `FOCUS`, in its order."""
    return tuple(column.value(charge) for column in FOCUS)
