"""What the console's pages ask for, and the table of it: rows as the admin API's, under another prefix."""

from __future__ import annotations

import asyncio
import csv
import io
from decimal import Decimal
from typing import Any, Final

import msgspec

from penstock import __version__
from penstock.config.differences import differences
from penstock.config.load import load
from penstock.config.problems import ConfigError
from penstock.config.units import instant
from penstock.console import acts, questions
from penstock.console.acts import MAX_CONFIG, Answer, Asked, Body, CostsView, Flowing, House
from penstock.console.bodies import ConfigText
from penstock.console.desk import Desk, InFlight
from penstock.console.lines import detail, line
from penstock.console.masked import Masked
from penstock.console.open_requests import FILTERS, MOST_OPEN
from penstock.console.refusals import Denied
from penstock.console.reports import OpenRequest
from penstock.console.roles import ROLES, Act
from penstock.console.routes import Of, Route
from penstock.console.signals import WINDOWS
from penstock.console.through import Through
from penstock.control.tenants import Fault, Invalid
from penstock.core.money import dollars
from penstock.http.server import Exchange
from penstock.routing.decision import Explanation
from penstock.stores.costs import Answer as Sums
from penstock.stores.costs import Question
from penstock.stores.ledger import Total
from penstock.stores.outcomes import Kept, Outcomes

PREFIX: Final = "/console/api"
MOST_ROWS: Final = 40_000  # of the ledger, read while somebody waits: 0.1 to 0.15 s of CPU
SLOW_TTFT: Final = 3.0  # seconds; what the pages call slow, where nothing else is said
CHAT: Final = "/v1/chat/completions"
EXPLAIN: Final = "/v1/route/explain"
_JSON: Final = dict[str, Any]


class PlaygroundBody(msgspec.Struct, frozen=True):
    """The body of a chat request, as callers of the gateway send it."""


class ExplainBody(msgspec.Struct, frozen=True):
    """`body` is what would be sent to that endpoint."""

    body: dict[str, Any]
    endpoint: str = "chat.completions"


def features(house: House) -> tuple[str, ...]:
    found = ["costs", "config"] if house.shown is not None else ["costs"]
    if house.desk is not None:
        found += ["overview", "live", "fleet"]
        if house.desk.outcomes is not None:
            found.append("requests")
        if house.desk.in_flight is not None:
            found.append("open")
    if house.gateway is not None:
        found += ["explain", "playground"]
    if house.watch is not None:
        found.append("slo")
    return tuple(found)


async def me(house: House, asked: Asked) -> Answer:
    one = asked.principal
    return Answer(
        {
            "name": one.name,
            "role": one.role,
            "org": one.org,
            "may": sorted(ROLES[one.role]),
            "version": __version__,
            "features": features(house),
            "slow_ttft": SLOW_TTFT,
        }
    )


async def overview(house: House, asked: Asked) -> Answer:
    desk = _desk(house)
    window = questions.window(asked.query, WINDOWS, 3_600)
    model = asked.query.get("model", "")
    found = desk.signals.overview(window, model, house.clock.wall())
    watch = house.watch
    found["live"] = desk.live()
    found["slos"] = [] if watch is None else watch.slos()
    found["alerts"] = [] if watch is None else watch.alerts()
    return Answer(found)


async def requests(house: House, asked: Asked) -> Answer:
    kept = _outcomes(house)
    try:
        page = await kept.page(questions.requests(asked.query))
    except ValueError as error:
        raise Invalid(Fault("before", str(error))) from None
    return Answer({"items": list(map(line, page.items)), "next": page.next, "kept_since": await kept.kept_since()})


async def request(house: House, asked: Asked) -> Answer:
    kept = _outcomes(house)
    found: Kept | None = await kept.find(asked.path["id"])
    if found is None or (asked.principal.org and found.outcome.tenant != asked.principal.org):
        raise Denied(404, "not_found", "this request is not kept, or no longer")
    desk = _desk(house)
    return Answer(detail(found, desk.served, await kept.around(found.outcome), desk.bill(found.outcome)))


async def live(house: House, asked: Asked) -> Answer:
    desk, wants = _desk(house), questions.wanted(asked.query)

    async def run(exchange: Exchange) -> None:
        try:
            await desk.feed.listen(exchange, wants, asked.still)
        except Denied as error:
            exchange.respond(error.status, error.body())

    return Answer(Flowing(run))


async def open_now(house: House, asked: Asked) -> Answer:
    """`n` are there, of which `items` are the oldest; `silent` workers did not say."""
    only = {name: value for name, value in asked.query.items() if value}
    said = await _in_flight(house).look(only, MOST_OPEN)
    seen = [one for one in said if one is not None]
    items = sorted((one for part in seen for one in part.requests), key=lambda one: one.at)[:MOST_OPEN]
    n = sum(part.n for part in seen)
    return Answer({"at": house.clock.wall(), "items": items, "n": n, "silent": len(said) - len(seen)})


async def cancel(house: House, asked: Asked) -> Answer:
    in_flight, org = _in_flight(house), asked.principal.org
    only = {"id": asked.path["id"]} | ({"org": org} if org else {})
    found = [one for part in await in_flight.look(only, 1) if part is not None for one in part.requests]
    if not found:
        raise Denied(404, "not_found", "this request is not in flight, or no longer")
    one = found[0]
    detail = {"model": one.model, "org": one.org, "key_id": one.key_id, "replica": one.replica, "stage": one.stage}
    await house.audit.append(int(house.clock.wall() * 1e6), asked.by, "request.cancel", one.id, detail)
    if not await in_flight.cancel(one.id):
        raise Denied(409, "too_late", "it has ended by itself")
    return Answer(one)


async def fleet(house: House, asked: Asked) -> Answer:
    return Answer(_desk(house).fleet_told())


async def models(house: House, asked: Asked) -> Answer:
    """Those that may be asked here; of an organisation, those that it may use."""
    org = asked.query.get("org", "")
    allowed = (await house.tenancy.tenant(org)).models if org else None
    there = _desk(house).fleet.models()
    return Answer({"items": [one for one in there if allowed is None or one.name in allowed]})


async def explain(house: House, asked: Asked) -> Answer:
    wanted = asked.into(ExplainBody)
    if not wanted.endpoint.replace(".", "").replace("_", "").isalnum() or not wanted.endpoint.isascii():
        raise Invalid(Fault("endpoint", "is the name of an endpoint, such as chat.completions"))
    body = msgspec.json.encode(wanted.body)
    path = f"{EXPLAIN}?endpoint={wanted.endpoint}"
    status, said = await _through(house).ask(path, body, asked.gateway_key)
    if status != 200:
        return Answer({**_NOWHERE, "refused": _refusal(status, said)})
    return Answer(_explained(msgspec.json.decode(said, type=Explanation)))


async def costs(house: House, asked: Asked) -> Answer:
    question = questions.costs(asked.query, house.clock.wall(), asked.principal.org)
    newest = question if asked.query.get("whole") else await house.costs.newest(question, MOST_ROWS)
    since = newest.since_micros
    shortened = None if since == question.since_micros else instant(since / 1e6)
    return Answer(_costs_view(newest, await house.costs.sums(newest), shortened))


async def costs_csv(house: House, asked: Asked) -> Answer:
    question = questions.costs(asked.query, house.clock.wall(), asked.principal.org)
    found = await house.costs.sums(question)
    sums = [name for name in Total.__struct_fields__ if name not in ("group", "cost_nanos")]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow([*map(_name, question.by), *sums, "cost_dollars"])

    def row(group: list[str], total: Total) -> list[str]:
        cost: Decimal = dollars(total.cost_nanos)
        return [*group, *(str(getattr(total, name)) for name in sums), f"{cost:f}"]

    for one in found.groups:
        writer.writerow(row([_cell(value) for value in one.group], one))
    if found.n_others:
        writer.writerow(row(["(others)", *[""] * (len(question.by) - 1)], found.others))
    writer.writerow(row((["(total)", *[""] * (len(question.by) - 1)]) if question.by else [], found.total))
    lines = b'content-disposition: attachment; filename="penstock-costs.csv"\r\n'
    return Answer(Body(out.getvalue().encode(), b"text/csv; charset=utf-8", lines))


async def config(house: House, asked: Asked) -> Answer:
    if house.shown is None:
        raise Denied(404, "not_there", "this server shows no configuration")
    shown = house.shown.shown()
    changes = [{"version": version, "at": at, "lines": lines} for version, at, lines in shown.changes]
    return Answer(msgspec.structs.asdict(shown) | {"changes": changes})


async def check_config(house: House, asked: Asked) -> Answer:
    text = asked.into(ConfigText).text
    if len(text) > MAX_CONFIG:
        raise Invalid(Fault("text", f"has more than {MAX_CONFIG:,} characters"))
    masked = Masked("") if house.shown is None else house.shown.masked
    try:
        wanted = await asyncio.to_thread(load, masked.complete(text), "penstock.yaml")
    except ConfigError as error:
        some = error.problems[: acts.MOST_PROBLEMS]
        problems = [
            msgspec.structs.replace(one, path=masked.hide(one.path), message=masked.hide(one.message)) for one in some
        ]
        return Answer({"good": False, "problems": problems, "diff": []})
    return Answer({"good": True, "problems": [], "diff": [*map(masked.hide, differences(house.config(), wanted))]})


async def playground(house: House, asked: Asked) -> Answer:
    through, body = _through(house), msgspec.json.encode(asked.body)

    async def run(exchange: Exchange) -> None:
        try:
            through.relay(exchange, CHAT, body, asked.gateway_key)
        except Denied as error:
            exchange.respond(error.status, error.body())

    return Answer(Flowing(run))


_NOWHERE: Final[dict[str, Any]] = {
    "model": "", "prompt_tokens": None, "plan": [], "why": [], "chosen": None, "candidates": [], "deployments": [],
    "rules": [], "facts": {},
}  # fmt: skip


def _explained(found: Explanation) -> dict[str, Any]:
    decision = found.decision
    prompt = found.facts.get("prompt_tokens")
    candidates = [
        {
            "replica": one.replica,
            "deployment": one.deployment,
            "verdict": "chosen" if one.chosen else one.why,
            "cost": one.cost,
            "wait": one.wait,
            "uncached": one.uncached,
        }
        for one in found.replicas
    ]
    refusal = decision.refusal
    return {
        "model": decision.model,
        "prompt_tokens": prompt,
        "plan": decision.deployments,
        "why": decision.why,
        "chosen": next((one.replica for one in found.replicas if one.chosen), None),
        "candidates": candidates,
        "deployments": found.candidates,
        "rules": found.rules,
        "facts": found.facts,
        "refused": None if refusal is None else {"code": refusal.code, "message": refusal.message},
    }


def _refusal(status: int, said: bytes) -> dict[str, str]:
    try:
        error = msgspec.json.decode(said, type=dict[str, dict[str, Any]])["error"]
        return {"code": str(error.get("code") or status), "message": str(error["message"])}
    except (msgspec.MsgspecError, KeyError):
        return {"code": str(status), "message": "the gateway did not explain it"}


def _desk(house: House) -> Desk:
    if house.desk is None:
        raise Denied(404, "not_there", "this server does not watch its gateway")
    return house.desk


def _outcomes(house: House) -> Outcomes:
    kept = _desk(house).outcomes
    if kept is None:
        raise Denied(404, "not_there", "single requests are not kept here: see `store.traces`")
    return kept


def _in_flight(house: House) -> InFlight:
    in_flight = _desk(house).in_flight
    if in_flight is None:
        raise Denied(404, "not_there", "this server does not see what is in flight")
    return in_flight


def _through(house: House) -> Through:
    if house.gateway is None:
        raise Denied(404, "not_there", "this server knows no way to its gateway")
    return house.gateway


def _costs_view(question: Question, found: Sums, since: str | None) -> CostsView:
    by = tuple(map(_name, question.by))

    def view(total: Total) -> Any:
        sums = msgspec.structs.asdict(total)
        return acts.CostView(dict(zip(by, sums.pop("group"), strict=False)), **sums)

    missing = tuple((instant(since / 1e6), instant(until / 1e6)) for since, until in found.missing)
    items = tuple(map(view, found.groups))
    return CostsView(items, found.n_others, view(found.others), view(found.total), missing, since)


def _name(by: Any) -> str:
    return str(by) if not hasattr(by, "name") or isinstance(by, str) else f"{questions.TAG}{by.name}"


def _cell(value: str | int | None) -> str:
    """Spreadsheets take some beginnings for formulas (OWASP, "CSV Injection")."""
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


VIEWS: Final[tuple[Route, ...]] = (
    Route(
        method="GET", path="/me", act=Act.LOOK, of=Of.ANYBODY, summary="Who is logged in; null: nobody.", run=me,
        answer=_JSON, greets=True,
    ),
    Route(
        method="GET", path="/overview", act=Act.LOOK, of=Of.HOUSE, summary="Golden signals.", run=overview,
        answer=_JSON, query={"window": "", "model": ""},
    ),
    Route(
        method="GET", path="/requests", act=Act.SEE_REQUESTS, of=Of.QUERY, summary="Kept requests.", run=requests,
        answer=_JSON, query=questions.REQUESTS | questions.PAGE,
    ),
    Route(
        method="GET", path="/requests/{id}", act=Act.SEE_REQUESTS, of=Of.ANYBODY, summary="One.", run=request,
        answer=_JSON,
    ),
    Route(
        method="GET", path="/live", act=Act.SEE_REQUESTS, of=Of.QUERY, summary="As they end.", run=live,
        answer=_JSON, query=questions.REQUESTS, flows=True,
    ),
    Route(
        method="GET", path="/open", act=Act.SEE_REQUESTS, of=Of.QUERY, summary="What is in flight now.", run=open_now,
        answer=_JSON, query=FILTERS,
    ),
    Route(
        method="POST", path="/requests/{id}/cancel", act=Act.CANCEL_REQUESTS, of=Of.ANYBODY, summary="End one.",
        run=cancel, answer=OpenRequest,
    ),
    Route(
        method="GET", path="/fleet", act=Act.SEE_REQUESTS, of=Of.HOUSE, summary="Models and replicas.", run=fleet,
        answer=_JSON,
    ),
    Route(
        method="GET", path="/models", act=Act.SEE_REQUESTS, of=Of.QUERY, summary="What may be asked.", run=models,
        answer=_JSON, query={"org": "Those that it may use."},
    ),
    Route(
        method="POST", path="/explain", act=Act.SEE_REQUESTS, of=Of.ANYBODY, summary="Where it would go.", run=explain,
        body=ExplainBody, answer=_JSON,
    ),
    Route(
        method="GET", path="/costs", act=Act.SEE_COSTS, of=Of.QUERY, summary="A pivot.", run=costs,
        answer=CostsView, query=questions.COSTS,
    ),
    Route(
        method="GET", path="/costs.csv", act=Act.SEE_COSTS, of=Of.QUERY, summary="Likewise.", run=costs_csv,
        answer=_JSON, query=questions.COSTS, flows=True,
    ),
    Route(
        method="GET", path="/config", act=Act.SEE_CONFIG, of=Of.HOUSE, summary="What is served.", run=config,
        answer=_JSON,
    ),
    Route(
        method="POST", path="/config/check", act=Act.CHECK_CONFIG, of=Of.HOUSE, summary="A dry run.", run=check_config,
        body=ConfigText, answer=_JSON,
    ),
    Route(
        method="POST", path="/playground", act=Act.LOOK, of=Of.ANYBODY, summary="Through the gateway.", run=playground,
        body=PlaygroundBody, answer=_JSON, flows=True,
    ),
)  # fmt: skip
