"""The OpenAPI 3.1 document of the admin API, made from its table."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from penstock import __version__
from penstock.console.refusals import ErrorBody
from penstock.console.roles import ROLES
from penstock.console.routes import PREFIX, Route

_REF: Final = "#/components/schemas/{name}"
_PARAMETER: Final = re.compile(r"\{([a-z]+)\}")
_TEXT: Final = {"type": "string", "minLength": 1}


def document(routes: Iterable[Route]) -> bytes:
    routes = tuple(routes)
    types = [ErrorBody, *(one for route in routes for one in (route.body, route.answer) if one is not None)]
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF)
    schema_of = dict(zip(map(repr, types), schemas, strict=True))
    error = {"description": "Why not.", "content": {"application/json": {"schema": schema_of[repr(ErrorBody)]}}}
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        answer = schema_of[repr(route.answer)]
        if route.pages:
            answer = {
                "type": "object",
                "properties": {"items": {"type": "array", "items": answer}, "next": {"type": "string"}},
                "required": ["items"],
            }
        allowed = ", ".join(role for role, acts in ROLES.items() if route.act in acts)
        described: dict[str, Any] = {
            "operationId": route.run.__name__ + ("_of_team" if "{team}" in route.path else ""),
            "summary": route.summary,
            "description": f"For {allowed}." + (" Billing may change budgets with it." if route.with_budgets else ""),
            "parameters": [*_parameters(route)],
            "responses": {
                str(route.status): {"description": "Done.", "content": {"application/json": {"schema": answer}}},
                "default": error,
            },
        }
        if route.body is not None:
            body = {"application/json": {"schema": schema_of[repr(route.body)]}}
            described["requestBody"] = {"required": True, "content": body}
        paths.setdefault(PREFIX + route.path, {})[route.method.lower()] = described
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {"title": "Penstock admin API", "version": __version__},
            "security": [{"bearer": []}],
            "paths": paths,
            "components": {
                "schemas": components,
                "securitySchemes": {
                    "bearer": {"type": "http", "scheme": "bearer", "description": "An admin key, or an OIDC token."}
                },
            },
        }
    )


def _parameters(route: Route) -> Iterable[dict[str, Any]]:
    for name in _PARAMETER.findall(route.path):
        yield {"name": name, "in": "path", "required": True, "schema": _TEXT}
    for name, meaning in route.query.items():
        yield {"name": name, "in": "query", "description": meaning, "schema": _TEXT}
    if route.method == "POST":
        yield {
            "name": "idempotency-key", "in": "header", "schema": _TEXT,
            "description": "The same request with the same key within 10 minutes gets the same answer.",
        }  # fmt: skip
    if route.method == "PATCH" or route.path.endswith(("/revoke", "/rotate")):
        yield {
            "name": "if-match", "in": "header", "schema": _TEXT,
            "description": "The `etag` of what you looked at: 412 when it was changed since.",
        }  # fmt: skip
