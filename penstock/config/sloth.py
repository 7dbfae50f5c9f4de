"""Service levels as Sloth writes them (sloth.dev, `prometheus/v1`, or its Kubernetes resource), in our words.

Their queries are kept as they are: they may be about anything, so Prometheus alone evaluates them. Alerts follow from
the objective here as there, so what Sloth says about them is not needed.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import yaml

from penstock.config.slo_options import QueriesOptions, SloOptions

VERSION: Final = "prometheus/v1"
KIND: Final = "PrometheusServiceLevel"


class SlothError(ValueError):
    """Why it is not what Sloth writes."""


class _Events(msgspec.Struct):
    error_query: str
    total_query: str


class _Raw(msgspec.Struct):
    error_ratio_query: str


class _Sli(msgspec.Struct):
    events: _Events | None = None
    raw: _Raw | None = None


class _Slo(msgspec.Struct):
    name: str
    objective: float  # percent
    sli: _Sli


class _Spec(msgspec.Struct):
    service: str
    slos: list[_Slo]


def read(text: str) -> dict[str, SloOptions]:
    """By `service-name`. Raises `SlothError`."""
    try:
        document: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SlothError(f"is not YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(document, dict):
        raise SlothError("is not a mapping")
    if document.get("kind") == KIND:
        document = _snake(document.get("spec"))
    elif document.get("version") != VERSION:
        raise SlothError(f"says neither `version: {VERSION}` nor `kind: {KIND}`")
    try:
        spec = msgspec.convert(document, _Spec)
    except msgspec.ValidationError as error:
        raise SlothError(str(error)) from None
    return {f"{spec.service}-{slo.name}"[:64]: _options(slo) for slo in spec.slos}


def _options(slo: _Slo) -> SloOptions:
    if not 0 < slo.objective < 100:
        raise SlothError(f"slos.{slo.name}.objective must be more than 0 and less than 100, in percent")
    sli = slo.sli
    if sli.events is not None:
        queries = QueriesOptions(errors=_range(sli.events.error_query), total=_range(sli.events.total_query))
    elif sli.raw is not None:
        queries = QueriesOptions(errors=_range(sli.raw.error_ratio_query))
    else:
        raise SlothError(f"slos.{slo.name}.sli has neither `events` nor `raw`: plugins of Sloth are not run here")
    return SloOptions(objective=f"{slo.objective:g}%", queries=queries)


def _range(query: str) -> str:
    """On one line, with one way to write the range."""
    return " ".join(query.replace("{{ .window }}", "{{.window}}").split())


def _snake(value: Any) -> Any:
    """Kubernetes writes `errorQuery` for `error_query`."""
    if isinstance(value, dict):
        return {
            "".join(f"_{c.lower()}" if c.isupper() else c for c in str(name)): _snake(v) for name, v in value.items()
        }
    return [_snake(one) for one in value] if isinstance(value, list) else value


def block(slos: dict[str, SloOptions]) -> str:
    """The `slos:` of a penstock.yaml."""
    said = {
        name: {"objective": slo.objective, "queries": _queries(slo.queries)}
        for name, slo in slos.items()
        if slo.queries is not None
    }
    return yaml.safe_dump({"slos": said}, sort_keys=False, width=1000)


def _queries(queries: QueriesOptions) -> dict[str, str]:
    return {"errors": queries.errors, "total": queries.total} if queries.total else {"errors": queries.errors}
