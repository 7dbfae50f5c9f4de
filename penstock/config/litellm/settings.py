"""What LiteLLM says of all models at once: `router_settings`, `litellm_settings`, `general_settings`."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from penstock.config.litellm import sentences
from penstock.config.litellm.money import Allowances
from penstock.config.litellm.source import Report, Settings, Value

MAX_ATTEMPTS: Final = 10
_NEVER_OPEN: Final = 1_000_000  # failures in a row

STREAM_TIMEOUT: Final = (
    "timeouts.first_token and timeouts.idle: {}, until a token comes; comments and empty events do not count"
)
DROP: Final = (
    "lose: all; only fields that the upstream's dialect has no word for are left out, and the caller is told; in the "
    "same dialect every field is sent on"
)


class Defaults(msgspec.Struct):
    """What holds for every model that does not say otherwise."""

    timeout: float | None = None
    stream_timeout: float | None = None
    retries: int | None = None
    breaker: dict[str, Any] = msgspec.field(default_factory=dict)
    lose_all: bool = False
    fallbacks: dict[str, list[Value]] = msgspec.field(default_factory=dict)  # "*": of every model
    aliases: dict[str, Value] = msgspec.field(default_factory=dict)
    server: dict[str, Any] = msgspec.field(default_factory=dict)
    limits: dict[str, Any] = msgspec.field(default_factory=dict)
    budgets: dict[str, Any] = msgspec.field(default_factory=dict)


class House:
    """Reads the three sections into `defaults`, and tells what became of each setting."""

    def __init__(self, report: Report) -> None:
        self.defaults = Defaults()
        self._report = report

    def read(self, top: Settings) -> None:
        router, house, general = (
            Settings.of(top.take(name), self._report)
            for name in ("router_settings", "litellm_settings", "general_settings")
        )
        self._routing(router, house)
        self._litellm_settings(house)
        self._general_settings(general)
        self._report.rest(router, sentences.ROUTER_SETTINGS)
        self._report.rest(house, sentences.LITELLM_SETTINGS)

    def _routing(self, router: Settings, house: Settings) -> None:
        report, defaults = self._report, self.defaults
        for settings, name in ((house, "request_timeout"), (router, "timeout")):
            if (value := settings.take(name)) is not None and (number := self.positive(value)) is not None:
                defaults.timeout = number
                report.approximated(
                    value, f"timeouts.total: {span(number)}, of the whole request with all its attempts"
                )
        for settings in (house, router):
            if (value := settings.take("stream_timeout")) is not None and (number := self.positive(value)) is not None:
                defaults.stream_timeout = number
                report.approximated(value, STREAM_TIMEOUT.format(span(number)))
            if (value := settings.take("num_retries")) is not None:
                defaults.retries = self.retries(value)
            if (value := settings.take("allowed_fails")) is not None and (number := self._number(value)) is not None:
                failures = min(_NEVER_OPEN, int(number) + 1)
                defaults.breaker["failures"] = failures
                report.approximated(value, f"breaker.failures: {failures:,}, in a row and not in a minute")
            if (value := settings.take("cooldown_time")) is not None and (number := self.positive(value)) is not None:
                defaults.breaker["open_for"] = span(number)
                report.approximated(
                    value, f"breaker.open_for: {span(number)}, then one request tries whether it is well"
                )
            if (value := settings.take("disable_cooldowns")) is not None:
                if value.true:
                    defaults.breaker["failures"] = _NEVER_OPEN
                report.approximated(value, f"breaker.failures: {_NEVER_OPEN:,}" if value.true else "breakers are on")
            if (value := settings.take("fallbacks")) is not None:
                self._fallbacks(value)
            if (value := settings.take("default_fallbacks")) is not None:
                defaults.fallbacks.setdefault("*", []).extend(value.items())
                report.approximated(value, "their deployments stand behind those of every model")
            if (value := settings.take("model_group_alias")) is not None:
                defaults.aliases |= value.entries()
                report.mapped(value, "each alias is a model of its own, with the same deployments")
        if (value := router.take("routing_strategy")) is not None:
            unknown: sentences.Told = ("unsupported", "is not a strategy that this command knows")
            outcome, sentence = sentences.STRATEGIES.get(value.text or "", unknown)
            report.add(outcome, value, sentence)

    def _fallbacks(self, section: Value) -> None:
        self._report.approximated(
            section, "the deployments of fallbacks stand behind the model's own; `max_attempts` counts them all"
        )
        for item in section.items():
            for name, value in item.entries().items():
                self.defaults.fallbacks.setdefault(name, []).extend(value.items())

    def _litellm_settings(self, settings: Settings) -> None:
        report = self._report
        allowances = Allowances(report)
        allowances.read(settings)
        self.defaults.limits, self.defaults.budgets = allowances.limits, allowances.budgets
        if (value := settings.take("drop_params")) is not None:
            self.defaults.lose_all = value.true
            if value.true:
                report.approximated(value, DROP)
            else:
                report.mapped(value, "the same is the default: what cannot be said is refused by its name")
        for name in ("callbacks", "success_callback", "failure_callback", "service_callbacks"):
            if (value := settings.take(name)) is None:
                continue
            called = [item.text or "" for item in value.items()]
            others = [name[:64] for name in called if name != "prometheus"]
            if "prometheus" in called:
                report.approximated(
                    value, "GET /metrics is always on; its metrics have names of their own (docs/metrics.md)"
                )
            if others or not called:
                report.unsupported(value, f"{', '.join(others) or 'this'}: {sentences.LOGS}")

    def _general_settings(self, settings: Settings) -> None:
        report, server = self._report, self.defaults.server
        if (value := settings.take("master_key")) is not None:
            report.unsupported(
                value,
                "no key is copied, and no key is above the others: `penstock key create` makes one. A key in use stays "
                "good when `sha256` of it stands there: see docs/migrate-litellm.md",
            )
        value = settings.take("global_max_parallel_requests")
        if value is not None and (number := self.positive(value)) is not None:
            server["max_in_flight"] = min(1_000_000, max(1, int(number)))
            report.approximated(value, f"server.max_in_flight: {server['max_in_flight']}, of each worker")
        value = settings.take("max_request_size_mb")
        if value is not None and (number := self.positive(value)) is not None:
            server["max_body"] = f"{min(1024, max(1, int(number)))}MiB"
            report.mapped(value, f"server.max_body: {server['max_body']}")
        report.rest(settings, sentences.GENERAL_SETTINGS)

    def _number(self, value: Value) -> float | None:
        if value.number is None:
            self._report.unsupported(value, "is not a number; nothing was written for it")
        return value.number

    def positive(self, value: Value) -> float | None:
        number = value.number
        if number is None or number <= 0:
            self._report.unsupported(value, "is not a number above 0; nothing was written for it")
            return None
        return number

    def retries(self, value: Value) -> int | None:
        number = self._number(value)
        if number is None:
            return None
        attempts = min(MAX_ATTEMPTS, int(number) + 1)
        tell = self._report.mapped if attempts == int(number) + 1 else self._report.approximated
        tell(value, f"max_attempts: {attempts}, and one more for each deployment of a fallback; {MAX_ATTEMPTS} in all")
        return attempts - 1


def span(seconds: float) -> str:
    if seconds < 1:
        return f"{max(1, round(seconds * 1000))}ms"
    whole = round(seconds)
    if whole != seconds:
        return f"{seconds:.3f}".rstrip("0").rstrip(".") + "s"
    return f"{whole // 60}m" if whole % 60 == 0 else f"{whole}s"
