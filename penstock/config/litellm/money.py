"""Limits, budgets and prices of LiteLLM. Its keys and teams are in its database; what its file says of all of them, and
of what models cost, has a counterpart.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

from penstock.config.litellm.source import Report, Settings, Value

_EVERY: Final = {
    "1d": "day",
    "24h": "day",
    "7d": "week",
    "1w": "week",
    "30d": "month",
    "31d": "month",
    "1mo": "month",
    "1M": "month",
}
_METERS: Final = {
    "rpm_limit": ("requests", "{}/m", "requests"),
    "tpm_limit": ("tokens", "{}/m", "tokens"),
    "max_parallel_requests": ("concurrent_requests", "{}", "slots"),
}
_CALENDAR: Final = "in the calendar, and not from when it was made"
# docs.litellm.ai/docs/proxy/custom_pricing: dollars per token
_RATES: Final = {
    "input_cost_per_token": "input",
    "output_cost_per_token": "output",
    "cache_read_input_token_cost": "cached_input",
    "cache_creation_input_token_cost": "cache_write",
    "cache_creation_input_token_cost_above_1hr": "cache_write_1h",
    "input_cost_per_audio_token": "audio_input",
    "output_cost_per_audio_token": "audio_output",
    "output_cost_per_reasoning_token": "reasoning",
}
_MOST: Final = 10**9


class Allowances:
    """Collects `limits` and `budgets` of the new file."""

    def __init__(self, report: Report) -> None:
        self.limits: dict[str, Any] = {}
        self.budgets: dict[str, Any] = {}
        self._report = report

    def read(self, house: Settings) -> None:
        """From `litellm_settings`."""
        self._budget("all", house, "max_budget", "budget_duration", "all")
        self._budget("end-users", house, "max_end_user_budget", "max_end_user_budget_duration", "user")
        for section, per in (("default_key_generate_params", "key"), ("default_team_params", "team")):
            if (value := house.take(section)) is None:
                continue
            settings = Settings.of(value, self._report)
            for name, (meter, rate, called) in _METERS.items():
                if (limit := settings.take(name)) is not None and (number := self._whole(limit)) is not None:
                    written = rate.format(number)
                    self.limits[f"{per}s-{called}"] = {
                        meter: number if meter == "concurrent_requests" else written,
                        "per": per,
                    }
                    self._report.approximated(limit, f"limits.{per}s-{called}: {written}, of each {per}, always")
            self._budget(f"{per}s", settings, "max_budget", "budget_duration", per)
            self._report.rest(settings, {})

    def _budget(self, name: str, settings: Settings, option: str, duration: str, per: str) -> None:
        amount, how_long = settings.take(option), settings.take(duration)
        if amount is None:
            if how_long is not None:
                self._report.unsupported(how_long, f"has no meaning without `{option}`")
            return
        every = "total" if how_long is None else _EVERY.get(how_long.text or "")
        dollars = _exact(amount)
        if every is None:
            assert how_long is not None, "without a duration it is in total"
            self._report.unsupported(amount, "nothing was written: see its duration")
            self._report.unsupported(how_long, "budgets are for a day, a week, a month or in total")
        elif dollars is None or not 0 < dollars < 1_000_000 or -int(dollars.as_tuple().exponent) > 9:
            self._report.unsupported(amount, "is not an amount above $0 and below $1,000,000; nothing was written")
            if how_long is not None:
                self._report.unsupported(how_long, "nothing was written: see its amount")
        else:
            self.budgets[name] = {"amount": f"${dollars:f}", "every": every, "per": per}
            self._report.approximated(
                amount, f"budgets.{name}: ${dollars:f}; reserved before, and not found exceeded after"
            )
            if how_long is not None:
                self._report.approximated(how_long, f"budgets.{name}.every: {every}, {_CALENDAR}")

    def _whole(self, value: Value) -> int | None:
        number = _exact(value)
        if number is None or number != number.to_integral_value() or not 0 < number <= 1_000_000_000:
            self._report.unsupported(value, "is not a whole number above 0; nothing was written for it")
            return None
        return int(number)


def price(report: Report, params: Settings, info: Settings) -> dict[str, Any] | None:
    """The `price` of one deployment, which LiteLLM writes in either place. None where it says nothing of it."""
    found: dict[str, Any] = {}
    told: list[tuple[Value, str]] = []
    free = True
    for settings in (params, info):
        for name, rate in _RATES.items():
            if (value := settings.take(name)) is None:
                continue
            each = _exact(value)
            millions = None if each is None else each * 1_000_000
            if millions is None or millions >= _MOST or -int(millions.normalize().as_tuple().exponent) > 6:
                report.unsupported(
                    value, "is not a price per token that is counted exactly; nothing was written for it"
                )
                continue
            found[rate] = f"${millions.normalize():f}/M"
            free = free and not millions
            told.append((value, f"price.{rate}: {found[rate]}"))
    if not found:
        return None
    for value, sentence in told:
        report.mapped(value, "price.free: true" if free else sentence)
    return {"free": True} if free else found


def _exact(value: Value) -> Decimal | None:
    """A number that is not negative, as it is written: `2e-07` is two ten-millionths and not nearly so."""
    return None if value.number is None else Decimal((value.text or "").strip())
