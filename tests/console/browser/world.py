"""A made-up fleet under made-up traffic, told as the console's API tells it: the same numbers with every run.

It is there for what a real server does not show on demand: a burning budget, an ejected replica, a failed retry. That
the real one says the same things in the same shape is for the tests against it.
"""

from __future__ import annotations

import math
from random import Random
from typing import Any

NOW = 1_800_014_400.0  # 2027-01-15 12:00:00 UTC
MODELS = ("chat", "chat-large", "embed", "code")
ORGS = {"acme": ("search", "support"), "globex": ("research",), "initech": ("billing", "web")}
FEATURES = ("answers", "summaries", "autocomplete", "")
PRICES = {"chat": (150, 600), "chat-large": (2_500, 10_000), "embed": (20, 0), "code": (900, 2_700)}  # nanos per token
BAD = (
    ("first_token_timeout", 504, "transient", "provider"),
    ("upstream_overloaded", 503, "transient", "provider"),
    ("rate_limited", 429, "transient", "caller"),
    ("context_length_exceeded", 400, "systematic", "caller"),
)
STEPS = {900: 15, 3_600: 60, 21_600: 300, 86_400: 1_200, 604_800: 7_200}


def hex_of(rng: Random, n: int) -> str:
    return f"{rng.getrandbits(4 * n):0{n}x}"


def percentiles(rng: Random, p50: float) -> dict[str, float]:
    return {"p50": p50, "p95": p50 * rng.uniform(3, 4), "p99": p50 * rng.uniform(6, 9)}


class World:
    def __init__(self, seed: int = 7, n: int = 400) -> None:
        self.rng = Random(seed)
        self.outcomes = [self._outcome(NOW - 1 - 5.3 * k) for k in range(n)]  # newest first
        self.by_id = {one["request_id"]: one for one in self.outcomes}

    def later(self, at: float) -> dict[str, Any]:
        """One more request, which ended just now."""
        one = self._outcome(at)
        self.by_id[one["request_id"]] = one
        return one

    # requests

    def _outcome(self, at: float) -> dict[str, Any]:
        rng = self.rng
        model = rng.choices(MODELS, (6, 2, 1, 2))[0]
        org = rng.choices(tuple(ORGS), (5, 3, 1))[0]
        team = rng.choice(ORGS[org])
        bad = rng.choices((None, *BAD), (96, 1, 1, 3, 1))[0]
        admitted = rng.uniform(0.0003, 0.0011)
        queued = rng.expovariate(4) if rng.random() < 0.12 else 0.0
        start = admitted + queued
        ttft = 0.05 + rng.lognormvariate(-2.1, 0.7)
        prompt, completion = int(rng.lognormvariate(6.4, 1)), int(rng.lognormvariate(4.8, 0.8)) + 2
        rate = rng.uniform(40, 110)
        attempts: list[dict[str, Any]] = []
        local = model != "chat-large"
        if bad is None and rng.random() < 0.06:
            ended = start + rng.uniform(0.3, 1.2)
            attempts.append(self._attempt(0, f"{model}/2", rng.choice(("overloaded", "connect")), start, None, ended))
            start = ended + 0.05
        first: float | None = start + ttft
        duration = start + ttft + completion / rate
        replica = f"{model}/{rng.randrange(3)}" if local else "hosted/0"
        if bad is None:
            attempts.append(self._attempt(len(attempts), replica, "ok", start, first, duration))
        elif bad[1] >= 500:
            first, completion = None, 0
            duration = start + 3.0
            attempts.append(self._attempt(0, replica, "overloaded", start, None, duration))
        else:
            first, completion, duration, queued, replica = None, 0, admitted, 0.0, ""
            prompt = prompt if bad[1] == 400 else 0
        cached = int(prompt * rng.choice((0, 0, 0.4, 0.8))) if attempts else 0
        ask, answer = PRICES[model]
        cost = (prompt - cached) * ask + cached * ask // 10 + completion * answer if bad is None else 0
        deployment = (model if local else "hosted") if attempts else ""
        why = (
            f"rule `default` sends `{model}` to {deployment}",
            f"{replica} costs 0.21 s of engine time, 0.09 s less than the next",
        )
        return {
            "received_at": at - duration, "request_id": f"req_{hex_of(rng, 24)}", "endpoint": "chat.completions",
            "tenant": org, "key_id": f"{org}-{team}", "model": model, "stream": bad is None or rng.random() < 0.8,
            "status": 200 if bad is None else bad[1], "error": None if bad is None else bad[0], "attempts": attempts,
            "usage": {
                "prompt_tokens": prompt if attempts else 0, "completion_tokens": completion, "cached_tokens": cached,
                "cache_write_tokens": 0, "cache_write_1h_tokens": 0, "reasoning_tokens": 0,
            },
            "usage_source": "provider" if bad is None else "none",
            "finish_reason": None if bad else rng.choices(("stop", "length"), (9, 1))[0],
            "first_token_after": first, "duration": duration, "plane_version": 12, "deployment": deployment,
            "team": team, "user_hash": hex_of(rng, 16), "feature": rng.choice(FEATURES),
            "session": f"s-{rng.randrange(40)}",
            "tags": ["tier=gold"] if org == "acme" else [], "cost_nanos": cost, "priority": "normal",
            "admitted_after": admitted, "queued_for": queued,
            "predicted_ttft": ttft * rng.uniform(0.7, 1.3) if attempts else 0.0,
            "matched_tokens": cached, "why": list(why) if attempts else [], "arm": "", "degraded": [],
            "trace_id": hex_of(rng, 32), "parent_id": "", "sampled": False, "prompt_version": "support@14",
            "context": [],
            "last_token_after": first and max(first, duration - (0.8 if completion % 3 == 0 else 0.001)),
        }  # fmt: skip

    def _attempt(
        self, number: int, replica: str, ended: str, start: float, first: float | None, end: float
    ) -> dict[str, Any]:
        return {
            "number": number,
            "replica": replica,
            "ended": ended,
            "started_after": start,
            "first_token_after": first,
            "ended_after": end,
        }

    def line(self, one: dict[str, Any]) -> dict[str, Any]:
        usage, bad = one["usage"], self.failure(one)
        same = (
            "endpoint", "model", "deployment", "team", "key_id", "feature", "session", "priority", "stream", "status",
            "error", "duration", "cost_nanos", "finish_reason", "arm", "degraded",
        )  # fmt: skip
        return {name: one[name] for name in same} | {
            "id": one["request_id"],
            "at": one["received_at"],
            "replica": one["attempts"][-1]["replica"] if one["attempts"] else "",
            "org": one["tenant"],
            "lasting": bad and bad["lasting"],
            "blame": bad and bad["blame"],
            "ttft": one["first_token_after"],
            "queued": one["queued_for"],
            "prompt_tokens": usage["prompt_tokens"],
            "completion_tokens": usage["completion_tokens"],
            "cached_tokens": usage["cached_tokens"],
            "n_attempts": len(one["attempts"]),
            "cache": "",
        }

    def failure(self, one: dict[str, Any]) -> dict[str, str] | None:
        found = next((bad for bad in BAD if bad[0] == one["error"]), None)
        return found and {
            "lasting": found[2],
            "blame": found[3],
            "message": f"The request ended with {found[0]}.",
        }

    def requests(self, query: dict[str, str]) -> dict[str, Any]:
        lines = [line for line in map(self.line, self.outcomes) if self.matches(line, query)]
        start = int(query.get("before", 0))
        most = int(query.get("most", 50))
        more = str(start + most) if len(lines) > start + most else None
        return {"items": lines[start : start + most], "next": more, "kept_since": NOW - 7 * 86_400}

    def matches(self, line: dict[str, Any], query: dict[str, str]) -> bool:
        plain = ("model", "org", "team", "key_id", "deployment", "replica", "feature", "session", "error")
        if any(query.get(name, line[name]) != line[name] for name in plain):
            return False
        if not float(query.get("since", 0)) <= line["at"] <= float(query.get("until", math.inf)):
            return False
        if "slower" in query and (line["ttft"] or line["duration"]) < float(query["slower"]):
            return False
        match query.get("status", ""):
            case "":
                return True
            case "ok":
                return line["error"] is None
            case "failed":
                return line["error"] is not None
            case wanted:
                return str(line["status"]).startswith(wanted.rstrip("x"))

    def request(self, id: str) -> dict[str, Any] | None:
        one = self.by_id.get(id)
        if one is None:
            return None
        usage = one["usage"]
        ask, answer = PRICES[one["model"]]
        fresh = usage["prompt_tokens"] - usage["cached_tokens"]
        classes = (
            ("input", fresh, ask),
            ("cached_input", usage["cached_tokens"], ask / 10),
            ("output", usage["completion_tokens"], answer),
        )
        cost = [
            {"what": what, "amount": n, "nanos_per_million": int(each * 1e6), "nanos": int(n * each)}
            for what, n, each in classes
            if n
        ]
        same = [other["request_id"] for other in reversed(self.outcomes) if other["session"] == one["session"]]
        place = same.index(id) if id in same else -1
        return {
            "line": self.line(one), "outcome": one, "failure": self.failure(one), "cost": cost,
            "guards": [], "cache": None, "content": None,
            "feedback": [{"at": NOW, "kind": "thumbs", "value": 1, "comment": "right at once"}] if place % 2 else [],
            "around": {
                "previous": same[place - 1] if place > 0 else None,
                "next": same[place + 1] if 0 <= place < len(same) - 1 else None,
            },
        }  # fmt: skip

    # the overview

    def overview(self, window: int, model: str) -> dict[str, Any]:
        rng = Random(window)
        step = STEPS[window]
        n = window // step
        at = [NOW - (NOW % step) - step * (n - 1 - k) for k in range(n)]
        wave = [9 + 4 * math.sin(2 * math.pi * (t % 86_400) / 86_400 - 1.2) + rng.gauss(0, 0.6) for t in at]
        bump = [
            1 + 3.2 * math.exp(-(((k - 0.86 * n) / (0.035 * n)) ** 2)) for k in range(n)
        ]  # something went wrong here
        requests = [max(0, round(w * step)) for w in wave]
        errors = [round(r * (0.0012 + 0.011 * (b - 1))) for r, b in zip(requests, bump, strict=True)]
        p50 = [0.21 * b**0.6 * rng.uniform(0.93, 1.07) for b in bump]
        p95 = [0.62 * b * rng.uniform(0.93, 1.1) for b in bump]
        p99 = [1.1 * b * rng.uniform(0.9, 1.2) for b in bump]
        prompt = [round(r * 640 * rng.uniform(0.95, 1.05)) for r in requests]
        completion = [round(r * 165 * rng.uniform(0.95, 1.05)) for r in requests]
        cost = [p * 310 + c * 1_300 for p, c in zip(prompt, completion, strict=True)]
        total = {
            "requests": sum(requests), "errors": sum(errors), "limited": 214, "cancelled": 88, "refusals": 37,
            "capped": 905,
            "ttft": percentiles(rng, 0.214), "tpot": percentiles(rng, 0.0112), "e2e": percentiles(rng, 1.9),
            "queue": {"p50": 0.0, "p95": 0.02, "p99": 0.41}, "overhead": {"p50": 0.00031, "p95": 0.0006, "p99": 0.0011},
            "prompt_tokens": sum(prompt), "completion_tokens": sum(completion),
            "cached_tokens": int(sum(prompt) * 0.43),
            "cost_nanos": sum(cost), "unpriced": 0, "retries": 301, "hedges": 12, "failovers": 44, "cache_hits": 0,
        }  # fmt: skip
        before = total | {
            "requests": int(total["requests"] * 0.94),
            "errors": int(total["errors"] * 0.4),
            "cost_nanos": int(total["cost_nanos"] * 0.9),
            "ttft": {"p50": 0.2, "p95": 0.55, "p99": 0.97},
            "tpot": total["tpot"],
        }
        shares = {"chat": 0.58, "chat-large": 0.17, "code": 0.19, "embed": 0.06}
        return {
            "now": NOW, "window": window, "step": step, "total": total, "before": before,
            "live": {
                "in_flight": 31, "queued": 2, "requests_per_second": 11.4, "tokens_per_second": 2311.0,
                "replicas_ready": 8, "replicas": 10, "workers": 2,
            },
            "series": {
                "at": at, "requests": requests, "errors": errors, "ttft_p50": p50, "ttft_p95": p95, "ttft_p99": p99,
                "e2e_p50": [1.9 * b**0.4 for b in bump], "e2e_p95": [5.2 * b**0.7 for b in bump],
                "e2e_p99": [9.1 * b**0.7 for b in bump],
                "tpot_p50": [0.011 * rng.uniform(0.95, 1.05) for _ in at],
                "tpot_p95": [0.019 * b**0.5 * rng.uniform(0.95, 1.05) for b in bump],
                "queue_p95": [0.02 * b for b in bump], "prompt_tokens": prompt, "completion_tokens": completion,
                "cost_nanos": cost, "in_flight": [round(w * 2.6 * b**0.5) for w, b in zip(wave, bump, strict=True)],
            },
            "models": [
                {
                    "model": name, "requests": int(total["requests"] * part),
                    "errors": int(total["errors"] * part * (2 if name == "chat-large" else 0.8)),
                    "ttft_p50": 0.2 + part / 10, "ttft_p95": 0.9 - part / 2, "tokens_per_second": 2311 * part,
                    "cost_nanos": int(total["cost_nanos"] * {"chat": 0.21, "chat-large": 0.61, "code": 0.17,
                     "embed": 0.01}[name]),
                }
                for name, part in shares.items() if model in ("", name)
            ],
            "failures": [
                {"code": code, "lasting": lasting, "blame": blame, "count": count}
                for (code, _, lasting, blame), count in zip(BAD, (61, 48, 214, 19), strict=True)
            ],
            "slos": [
                self._slo("availability", "99.9 % of requests do not fail", 0.999, 0.62, (0.4, 1.2, 0.8), "ok"),
                self._slo("ttft", "99 % of first tokens within 1 s", 0.99, 0.21, (9.3, 6.4, 2.1), "ticket"),
                self._slo("e2e", "95 % of answers within 20 s", 0.95, 0.94, (0.1, 0.2, 0.2), "ok"),
            ],
            "alerts": [
                {"name": "First tokens are late", "severity": "page",
                 "says": "TTFT p99 is 3.4 s, above 3 s for 2 min", "since": NOW - 312,
                 "until": None, "model": "chat", "link": "/console/requests?slower=3"},
                {"name": "Answers end at their cap", "severity": "ticket",
                 "says": "12 % of requests end at their token cap (more than 10 %)",
                 "since": NOW - 5 * 3600, "until": NOW - 4.4 * 3600, "model": "", "link": ""},
            ],
        }  # fmt: skip

    def _slo(
        self, name: str, says: str, objective: float, left: float, burn: tuple[float, float, float], state: str
    ) -> dict[str, Any]:
        n = 812_334
        return {
            "name": name, "says": says, "objective": objective, "period": 2_592_000,
            "good": n, "bad": int(n * (1 - objective) * (1 - left)), "budget_left": left,
            "burn": dict(zip(("300", "3600", "21600"), burn, strict=True)), "state": state,
        }  # fmt: skip

    # the fleet

    def fleet(self) -> dict[str, Any]:
        rng = Random(3)
        deployments = []
        for name, engine, n in (
            ("chat", "vllm", 3),
            ("code", "sglang", 3),
            ("embed", "penstock", 3),
            ("hosted", "openai", 1),
        ):
            replicas = [self._replica(rng, name, k, known=engine != "openai") for k in range(n)]
            deployments.append(
                {
                    "name": name,
                    "engine": engine,
                    "policy": "least_cost",
                    "upstream_model": f"acme/{name}-8b",
                    "replicas": replicas,
                }
            )
        deployments[0]["replicas"][2] |= {"ejected_until": NOW + 24, "ejected_why": "slow", "inflight": 0, "running": 1}
        deployments[1]["replicas"][1] |= {
            "ready": False,
            "failed_in_a_row": 4,
            "inflight": 0,
            "running": 0,
            "kv_used": 0.0,
        }
        deployments[1]["replicas"][2] |= {"kv_used": 0.95, "waiting": 6, "ramp": 1.8}
        waiting = [
            {"priority": "high", "waiting": 0, "oldest": 0.0, "drain": 0.0, "running": 3, "floor": 1, "tenants": []},
            {"priority": "normal", "waiting": 7, "oldest": 1.4, "drain": 2.2, "running": 18, "floor": 4,
             "tenants": [{"tenant": "acme", "waiting": 5, "oldest": 1.4, "served": 1.0},
              {"tenant": "globex", "waiting": 2, "oldest": 0.3, "served": 1.0}]},
        ]  # fmt: skip
        return {
            "at": NOW,
            "models": [
                {"name": name,
                 "deployments": ["hosted"] if name == "chat-large" else [name, *(["hosted"] if name == "chat" else [])],
                 "operations": ["embeddings"] if name == "embed" else ["chat.completions", "responses"],
                 "aliases": ["gpt-4o-mini"] if name == "chat" else []}
                for name in MODELS
            ],
            "queues": [{"models": ["chat"], "deployments": ["chat"], "engaged": True,
             "view": {"waiting": 7, "running": 21, "slots": 24, "classes": waiting}}],
            "deployments": deployments,
            "events": [
                {"at": NOW - 36, "replica": "chat/2", "what": "ejected",
                 "why": "its first tokens took 4.1 times as long as those of its like"},
                {"at": NOW - 204, "replica": "code/1", "what": "not_ready", "why": "2 health checks failed in a row"},
                {"at": NOW - 4_000, "replica": "chat/0", "what": "breaker_closed", "why": "3 whole answers"},
            ],
        }  # fmt: skip

    def _replica(self, rng: Random, deployment: str, number: int, *, known: bool) -> dict[str, Any]:
        running = rng.randrange(2, 9)
        return {
            "name": f"{deployment}/{number}", "origin": f"http://10.0.0.{number + 4}:8000", "ready": True,
            "phase": "closed",
            "cool_until": 0, "rate_limited": False, "ejected_until": 0, "ejected_why": None, "ramp": 1.0, "weight": 1.0,
            "inflight": running, "inflight_tokens": running * 900, "pending_tokens": rng.randrange(0, 3_000),
            "waiting": 0,
            "running": running if known else 0, "max_running": 8 if known else 0,
            "kv_used": rng.uniform(0.3, 0.8) if known else 0.0,
            "kv_tokens": 65_536 if known else 0, "prefix_hit": rng.uniform(0.4, 0.7) if known else None,
            "preemptions": 0 if known else None,
            "gpu_memory": rng.uniform(0.7, 0.9) if known else None, "prefill_rate": rng.uniform(7_000, 12_000),
            "step_base": 0.006,
            "itl_slope": 0.00035, "checked_at": NOW - 1, "failed_in_a_row": 0,
            "reported_at": NOW - 2 if known else None,
            "last_5m": {"requests": rng.randrange(200, 900), "errors": rng.randrange(0, 3),
             "ttft_p50": rng.uniform(0.1, 0.3), "ttft_p95": rng.uniform(0.5, 0.9)},
        }  # fmt: skip

    def explain(self, body: dict[str, Any]) -> dict[str, Any]:
        rng = Random(5)
        verdicts = ("chosen", "costlier", "ejected", "later")
        names = ("chat/0", "chat/1", "chat/2", "hosted/0")
        candidates = []
        for k, (replica, verdict) in enumerate(zip(names, verdicts, strict=True)):
            own, others, batch, memory = (rng.uniform(0.01, 0.09) * (k + 1) for _ in range(4))
            candidates.append(
                {
                    "replica": replica, "deployment": replica.partition("/")[0], "verdict": verdict,
                    "cost": own + others + batch + memory,
                    "own": own, "others": others, "batch": batch, "memory": memory, "ramp": 1.0,
                    "uncached": 300 if k == 0 else 812, "wait": own,
                }
            )  # fmt: skip
        return {
            "model": body.get("model", ""), "prompt_tokens": 812, "plan": ["chat", "hosted"],
            "why": ["rule `short` matches: fewer than 2,000 prompt tokens", "`chat` before `hosted`: it is cheaper"],
            "chosen": "chat/0", "candidates": candidates, "refused": None, "facts": {"prompt_tokens": 812},
            "rules": [
                {"rule": "short", "when": "prompt_tokens < 2000", "held": True},
                {"rule": "night", "when": "hour >= 22", "held": None},
            ],
            "deployments": [
                {"deployment": "chat", "rank": 1, "why": "rule `short`", "ready": True, "self_hosted": True,
                 "location": "eu", "window": 8_192, "cost": 275_000, "first_token": 0.19},
                {"deployment": "code", "rank": None, "why": "is for `code` alone", "ready": True, "self_hosted": True,
                 "location": "eu", "window": 8_192, "cost": None, "first_token": None},
            ],
        }  # fmt: skip

    # money

    def ledger(self) -> list[dict[str, Any]]:
        """Thirty days of rows, each the sum of an hour of one key and model."""
        rng = Random(11)
        rows = []
        for day in range(30):
            at = NOW - NOW % 86_400 - 86_400 * (29 - day)
            for org, teams in ORGS.items():
                for team in teams:
                    for model in MODELS:
                        ask, answer = PRICES[model]
                        for hour in (9, 11, 15):
                            n = int(rng.uniform(20, 120) * (1.6 if org == "acme" else 1) * (1 + day / 40))
                            prompt, completion = n * 640, n * 165
                            rows.append(
                                {
                                    "org": org, "team": team, "key_id": f"{org}-{team}", "model": model,
                                    "feature": rng.choice(FEATURES),
                                    "deployment": "hosted" if model == "chat-large" else model,
                                    "endpoint": "chat.completions",
                                    "user_hash": "", "session": "", "hour": int(at + 3600 * hour),
                                    "requests": n, "errors": n // 50, "unpriced": 0, "estimated": 0,
                                    "input_tokens": prompt, "cached_tokens": prompt // 3,
                                    "cache_write_tokens": 0, "cache_write_1h_tokens": 0, "output_tokens": completion,
                                    "reasoning_tokens": 0,
                                    "cost_nanos": prompt * ask + completion * answer, "duration_micros": n * 1_900_000,
                                }
                            )  # fmt: skip
        return rows
