"""How a gateway is told about the wall: one model for each cell, so that no breaker, cooldown or connection of one cell
is felt in another; beside it, where the row has one, a healthy deployment to fall back on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import msgspec

from penstock.core.keys import ENTROPY_BYTES, digest, mint
from penstock.testing.faults.scenarios import Cell
from penstock.testing.faults.upstream import Ports
from penstock.testing.faults.verdicts import BACKUP, Limits
from penstock.testing.faults.voices import SERVED

KEY = mint(bytes(ENTROPY_BYTES))  # well-formed and known to everybody
KEY_VARIABLE = "WALL_UPSTREAM_KEY"  # set it to `voices.SECRET`


class Entry(msgspec.Struct, frozen=True):
    """One deployment: callers ask for `model`, the upstream knows it as `served`."""

    model: str
    via: str  # openai, anthropic
    urls: tuple[str, ...]  # origins, without /v1
    served: str
    backup: str | None


def entries(cells: Iterable[Cell], ports: Ports) -> list[Entry]:
    cells = list(cells)
    backups = [
        Entry(f"{BACKUP}-{via}", via, (_url(ports.main),), f"{SERVED}backup", None)
        for via in dict.fromkeys(cell.via for cell in cells)
    ]
    places = {
        "main": (_url(ports.main),),
        "refused": (_url(ports.refused),),
        "pair": (_url(ports.refused), _url(ports.main)),
        "tls": (_url(ports.tls, "https"),),
        "dns": ("http://nowhere.invalid",),  # RFC 2606: never resolves
    }
    return backups + [
        Entry(
            cell.name,
            cell.via,
            places[cell.scenario.place],
            SERVED + cell.name,
            f"{BACKUP}-{cell.via}" if cell.scenario.backup else None,
        )
        for cell in cells
    ]


def _url(port: int, scheme: str = "http") -> str:
    return f"{scheme}://127.0.0.1:{port}"


def penstock(entries: Iterable[Entry], limits: Limits, *, port: int) -> str:
    """A penstock.yaml; JSON is YAML."""
    models: dict[str, Any] = {}
    deployments: dict[str, Any] = {}
    for entry in entries:
        deployments[entry.model] = {
            "engine": [f"{url}/v1" for url in entry.urls],
            "served": entry.served,
            "key": f"env:{KEY_VARIABLE}",
            "health": "off",
            "connect_timeout": "1s",
        }
        if entry.via == "anthropic":
            deployments[entry.model]["speaks"] = "anthropic"
        models[entry.model] = {
            "deployments": [entry.model, *([entry.backup] if entry.backup else [])],
            "timeouts": {
                "first_token": f"{limits.first_token:g}s",
                "idle": f"{limits.idle:g}s",
                "total": f"{limits.total:g}s",
            },
        }
    return _lines(
        {
            "models": models,
            "deployments": deployments,
            "keys": [{"id": "wall", "sha256": digest(KEY)}],
            "server": {"port": port, "access_log": "off"},
        }
    )


def litellm(entries: Iterable[Entry], limits: Limits) -> str:
    """A config.yaml for LiteLLM's proxy, with what its documentation has for these faults: retries, fallbacks, a
    stream timeout, cancelling what nobody waits for, chat completions for callers of /v1/messages.
    """
    models, fallbacks = [], []
    for entry in entries:
        for url in entry.urls:
            base = f"{url}/v1" if entry.via == "openai" else url
            models.append(
                {
                    "model_name": entry.model,
                    "litellm_params": {
                        "model": f"{entry.via}/{entry.served}",
                        "api_base": base,
                        "api_key": f"os.environ/{KEY_VARIABLE}",
                        "timeout": limits.total / 3,  # of one attempt; there are two, and the backup
                        "stream_timeout": limits.first_token,
                    },
                }
            )
        if entry.backup:
            fallbacks.append({entry.model: [entry.backup]})
    return _lines(
        {
            "model_list": models,
            "router_settings": {"num_retries": 1, "fallbacks": fallbacks},
            "litellm_settings": {
                "telemetry": False,
                "use_chat_completions_url_for_anthropic_messages": True,
            },
            "general_settings": {"master_key": KEY, "cancel_on_disconnect": True},
        }
    )


def anything(entries: Iterable[Entry]) -> str:
    """For any other gateway: JSON lines, one deployment each."""
    return "".join(json.dumps(msgspec.to_builtins(entry)) + "\n" for entry in entries)


def _lines(config: dict[str, Any]) -> str:
    """JSON with one line for each entry, so that a person can find one."""
    parts = []
    for name, value in config.items():
        if isinstance(value, dict):
            inner = ",\n".join(f"    {json.dumps(key)}: {json.dumps(item)}" for key, item in value.items())
            parts.append(f'  "{name}": {{\n{inner}\n  }}')
        else:
            inner = ",\n".join(f"    {json.dumps(item)}" for item in value)
            parts.append(f'  "{name}": [\n{inner}\n  ]')
    return "{\n" + ",\n".join(parts) + "\n}\n"
