"""The wall: one row for each way in which an upstream, or a caller, misbehaves, and what is right then.

Where gateways may differ in taste, every honest answer is right. What no caller may ever see is an answer that was cut
and is told as whole, or anything of the upstream's own: its key, its address, its name for the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from penstock.core.clock import Clock
from penstock.testing.faults import scripts as faults
from penstock.testing.faults import verdicts as right
from penstock.testing.faults.upstream import Reply, Script, Seen
from penstock.testing.faults.verdicts import Verdict, refusal
from penstock.testing.faults.voices import Tokens, Voice

DIALECTS: Final = ("openai", "anthropic")
BOTH: Final = ("stream", "plain")
STREAM: Final = ("stream",)
PLAIN: Final = ("plain",)


class Scenario(msgspec.Struct, frozen=True):
    """`modes`: whether the upstream is asked for a stream or for a plain answer; the row has cells for these only.

    `place`: which of the upstream's addresses (`pair`: two replicas, the first of them dead). `ask` changes fields of
    `caller.Ask`.
    """

    name: str
    title: str
    script: Script
    right: Verdict
    modes: tuple[str, ...] = BOTH
    backup: bool = False  # a healthy second deployment exists
    place: str = "main"
    dialects: tuple[str, ...] = DIALECTS  # of the caller
    vias: tuple[str, ...] = DIALECTS  # of the upstream
    ask: dict[str, Any] = {}
    times: int = 1
    leaves: bool = False  # look at the upstream again once it had time to notice
    only: str | None = None  # a promise of this gateway alone


class Cell(msgspec.Struct, frozen=True):
    """One row as one kind of caller sees it. `name` is that of its model at the gateway."""

    scenario: Scenario
    dialect: str
    stream: bool
    via: str

    @property
    def name(self) -> str:
        return f"{self.scenario.name}.{self.via}.{self.caller}"

    @property
    def caller(self) -> str:
        return f"{self.dialect}-{'stream' if self.stream else 'plain'}"

    @property
    def script(self) -> Script:
        """A gateway may ask in the other mode than its caller did; then the fault does not exist."""
        script, stream = self.scenario.script, self.stream

        async def play(reply: Reply, voice: Voice, seen: Seen) -> None:
            await (script if seen.stream == stream else faults.healthy)(reply, voice, seen)

        return play


Wall = Mapping[str, Sequence[Scenario]]
"""Rows under their headings."""


def cells(wall: Wall, vias: Sequence[str], dialects: Sequence[str], gateway: str) -> list[Cell]:
    """Those of the wall that `gateway` is scored for."""
    return [
        Cell(scenario, dialect, mode == "stream", via)
        for scenarios in wall.values()
        for scenario in scenarios
        if scenario.only in (None, gateway)
        for via in scenario.vias
        if via in vias
        for dialect in scenario.dialects
        if dialect in dialects
        for mode in scenario.modes
    ]


def build(clock: Clock, thief: Callable[[], int]) -> Wall:
    """All rows. `thief` says the port that redirects point to."""
    return {
        "A healthy upstream": _healthy(),
        "Breaks after 8 of 20 tokens": _after_the_first_token(),
        "Fails before its first token; another deployment is well": _before_the_first_token(thief),
        "Fails before its first token; there is no other deployment": _no_other_deployment(),
        "Says too much about itself": _candid(),
        "Odd, and whole": _odd_and_whole(),
        "Refuses the request": _refused(clock),
        "Callers": _callers(),
    }


def _healthy() -> list[Scenario]:
    whole = right.is_whole
    cached, zero = Tokens(prompt=11, completion=20, cached=4), Tokens(prompt=0, completion=0)
    parameters = {"type": "object", "properties": {}, "additionalProperties": True}
    tools = [
        {"type": "function", "function": {"name": call.name, "parameters": parameters}}
        for call in (faults.WEATHER, faults.TIME, faults.PING)
    ]
    with_tools = {"fields": {"tools": tools}}
    return [
        Scenario("healthy", "an ordinary answer", faults.healthy, right.WHOLE),
        Scenario("paced", "a token every 50 ms", faults.paced, right.AS_IT_IS_MADE, STREAM),
        Scenario(
            "usage-unasked", "usage, to a caller who did not ask for it", faults.healthy, right.UNASKED_USAGE, STREAM,
            dialects=("openai",), ask={"fields": {"stream_options": None}},
        ),
        Scenario(
            "message-start", "an ordinary answer, to a caller who counts as it comes", faults.healthy,
            right.FIRST_EVENT_COUNTS, STREAM, dialects=("anthropic",),
        ),
        Scenario(
            "cached-tokens", "4 of 11 prompt tokens from a cache", faults.answers(cost=cached),
            Verdict("these counts, in its own dialect's way", lambda case: whole(case, cost=cached)),
        ),
        Scenario(
            "zero-usage", "usage that says 0 and 0", faults.answers(cost=zero),
            Verdict("0 and 0, no estimate", lambda case: whole(case, cost=zero)),
        ),
        Scenario(
            "tools", "two tool calls, interleaved, in pieces",
            faults.answers(reason="tool_calls", calls=(faults.WEATHER, faults.TIME)),
            Verdict("both, whole", right.calls(faults.WEATHER, faults.TIME)), ask=with_tools,
        ),
        Scenario(
            "tool-without-arguments", "a tool call with the empty string for arguments",
            faults.answers(reason="tool_calls", calls=(faults.PING,)),
            Verdict("a call without arguments", right.calls(faults.PING)), ask=with_tools,
        ),
        Scenario(
            "stop-length", "stops at the token limit", faults.answers(reason="length"),
            Verdict("that reason", lambda case: whole(case, reason="length")),
        ),
        Scenario(
            "stop-refused", "stops because of the provider's filter", faults.answers(reason="content_filter"),
            Verdict("that reason", lambda case: whole(case, reason="content_filter")),
        ),
        Scenario(
            "headers", "an ordinary answer, from an address that is nobody's business", faults.healthy,
            right.HEADERS_ARE_OURS,
        ),
    ]  # fmt: skip


def _after_the_first_token() -> list[Scenario]:
    cut = right.CUT_HONESTLY
    rows: list[tuple[str, str, Script, Verdict]] = [
        ("eof-mid-stream", "ends, without its terminal event", faults.eof_mid_stream, cut),
        ("eof-at-once", "likewise, in one packet with its tokens", faults.eof_at_once, cut),
        ("eof-mid-event", "ends inside an event", faults.eof_mid_event, cut),
        ("fin-mid-chunk", "closes inside a chunk", faults.fin_mid_chunk, cut),
        ("reset-mid-stream", "resets the connection", faults.reset_mid_stream, cut),
        ("stall-mid-stream", "goes silent", faults.stall_mid_stream, cut),
        ("pings-mid-stream", "sends comments and pings for ever", faults.pings_mid_stream, cut),
        ("bad-framing", "breaks the chunked framing", faults.bad_framing, cut),
        ("error-event-later", "sends an error event", faults.error_event_later, cut),
        ("malformed-event", "an event that is no JSON, then the rest", faults.malformed_event, right.CUT_OR_WHOLE),
    ]
    return [Scenario(*row, modes=STREAM) for row in rows]


def _before_the_first_token(thief: Callable[[], int]) -> list[Scenario]:
    recovered, either = right.RECOVERED, right.RECOVERED_OR_WHOLE
    rows: list[tuple[str, str, Script, Verdict, tuple[str, ...]]] = [
        ("reset-before-head", "resets the connection", faults.reset_before_head, recovered, BOTH),
        ("eof-before-head", "closes without an answer", faults.eof_before_head, recovered, BOTH),
        ("eof-inside-head", "closes inside the headers", faults.eof_inside_head, recovered, BOTH),
        ("no-head", "never answers", faults.no_head, recovered, STREAM),
        ("no-head-plain", "never answers", faults.no_head, right.RECOVERED_OR_TOLD, PLAIN),
        ("endless-head", "sends headers for ever", faults.endless_head, recovered, STREAM),
        ("stall-after-head", "goes silent after the headers", faults.stall_after_head, recovered, STREAM),
        ("stall-plain", "goes silent after the headers", faults.stall_after_head, right.RECOVERED_OR_TOLD, PLAIN),
        ("stall-after-role", "goes silent after its role", faults.stall_after_role, recovered, STREAM),
        ("pings-only", "sends comments and pings for ever", faults.pings_only, recovered, STREAM),
        ("eof-after-role", "ends after its role", faults.eof_after_role, recovered, STREAM),
        ("error-event-first", "200, then an error event", faults.error_event_first, recovered, STREAM),
        ("error-in-200", "200 with an error object", faults.error_in_200, recovered, BOTH),
        ("cut-json", "200 with JSON that is cut", faults.cut_json, recovered, PLAIN),
        ("short-body", "less than its content-length said", faults.short_body, recovered, PLAIN),
        ("html", "200 with a web page", faults.html, recovered, BOTH),
        ("plain-for-stream", "a plain answer instead of a stream", faults.plain_for_stream, either, STREAM),
        ("gzip", "gzip, unasked", faults.gzipped, either, BOTH),
        ("huge-head", "a header of 512 KiB", faults.huge_head, either, BOTH),
        ("redirect-302", "302 to another host", faults.redirects(302, thief), right.NOT_STOLEN, BOTH),
        ("redirect-307", "307 to another host", faults.redirects(307, thief), right.NOT_STOLEN, BOTH),
        ("status-500", "500", faults.SERVER_ERROR, recovered, BOTH),
        ("status-503", "503", faults.UNAVAILABLE, recovered, BOTH),
        ("status-529", "529", faults.OVERLOADED, recovered, BOTH),
        ("status-429", "429 with Retry-After: 3", faults.RATE_LIMITED_FOR_3_S, recovered, BOTH),
        ("status-401", "401", faults.UNAUTHORIZED, recovered, BOTH),
        ("status-403", "403", faults.FORBIDDEN, recovered, BOTH),
        ("status-404", "404", faults.NOT_FOUND, recovered, BOTH),
        ("status-402", "402: our account is empty", faults.PAYMENT_REQUIRED, recovered, BOTH),
        ("status-quota", "429 `insufficient_quota`: likewise", faults.QUOTA, recovered, BOTH),
    ]
    connecting = [("refused", "refuses the connection"), ("tls", "fails the TLS handshake"), ("dns", "has no address")]
    return [
        *(Scenario(*row, backup=True) for row in rows),
        *(
            Scenario(f"connect-{place}", title, faults.healthy, recovered, backup=True, place=place)
            for place, title in connecting
        ),
        Scenario(
            "one-dead-of-two", "one of two replicas refuses connections, 40 requests", faults.healthy,
            Verdict("40 answers", right.all_of_them), place="pair", times=40,
        ),
        Scenario(
            "stale", "closes an idle connection just as it is used again, 6 requests", faults.stale,
            Verdict("6 answers", right.all_of_them), times=6,
        ),
    ]  # fmt: skip


def _no_other_deployment() -> list[Scenario]:
    rate_limit, overloaded = ("rate_limit_error",), ("overloaded_error",)
    accusing = ("invalid_api_key", "authentication_error", "permission_error", "permission_denied")
    not_their_key = Verdict("a 5xx that does not accuse the caller's key", refusal(500, 502, 503, never=accusing))
    not_their_money = Verdict(
        "an error that does not accuse the caller's account",
        refusal(429, 500, 502, 503, never=("insufficient_quota", "billing_error")),
    )
    limited = Verdict("a 429", refusal(429, anthropic=rate_limit))
    limited_for = Verdict("a 429 with Retry-After", refusal(429, anthropic=rate_limit, retry_after=(1, 5)))
    busy_for = Verdict("a 5xx with Retry-After", refusal(500, 502, 503, 529, retry_after=(1, 5)))
    busy_529 = Verdict("a 503 or 529, for Anthropic's `overloaded_error`", refusal(503, 529, anthropic=overloaded))
    no_such = Verdict("a 404 or 5xx", refusal(404, 500, 502, 503))
    rows: list[tuple[str, str, Script, Verdict, tuple[str, ...]]] = [
        ("alone-reset", "resets the connection", faults.reset_before_head, right.TOLD, BOTH),
        ("alone-no-head", "never answers", faults.no_head, right.TOLD_TIMEOUT, BOTH),
        ("alone-pings", "sends comments and pings for ever", faults.pings_only, right.TOLD_TIMEOUT, STREAM),
        ("alone-error-event", "200, then an error event", faults.error_event_first, right.TOLD, STREAM),
        ("alone-error-in-200", "200 with an error object", faults.error_in_200, right.TOLD, BOTH),
        ("alone-html", "200 with a web page", faults.html, right.TOLD, BOTH),
        ("alone-500", "500", faults.SERVER_ERROR, right.TOLD, BOTH),
        ("alone-503", "503", faults.UNAVAILABLE, right.TOLD, BOTH),
        ("alone-503-after", "503 with Retry-After: 3", faults.UNAVAILABLE_FOR_3_S, busy_for, BOTH),
        ("alone-529", "529", faults.OVERLOADED, busy_529, BOTH),
        ("alone-401", "401", faults.UNAUTHORIZED, not_their_key, BOTH),
        ("alone-403", "403", faults.FORBIDDEN, not_their_key, BOTH),
        ("alone-404", "404", faults.NOT_FOUND, no_such, BOTH),
        ("alone-429", "429", faults.RATE_LIMITED, limited, BOTH),
        ("alone-429-after", "429 with Retry-After: 3", faults.RATE_LIMITED_FOR_3_S, limited_for, BOTH),
        ("alone-402", "402: our account is empty", faults.PAYMENT_REQUIRED, not_their_money, BOTH),
        ("alone-quota", "429 `insufficient_quota`: likewise", faults.QUOTA, not_their_money, BOTH),
    ]
    return [Scenario(*row) for row in rows]


def _candid() -> list[Scenario]:
    """An honest error, without the upstream's key, host, paths or name for the model."""
    told = Verdict("an error without these words", refusal(401, 403, 404, 500, 502, 503, 504, 529))
    cut = Verdict("an error event without these words", right.CUT_HONESTLY.check)
    return [
        Scenario("candid-500", "500 with its key, host and path", faults.CANDID_500, told),
        Scenario("candid-401", "401 that quotes its key", faults.CANDID_401, told),
        Scenario("candid-404", "404 that names its model", faults.CANDID_404, told),
        Scenario("candid-page", "502 and a page with its key, host and path", faults.candid_page, told),
        Scenario("candid-event", "after 8 tokens, an error event with its key, host and path",
                 faults.candid_event, cut, STREAM),
    ]  # fmt: skip


def _odd_and_whole() -> list[Scenario]:
    big, many, whole = "".join(faults.BIG), "".join(faults.MANY), right.WHOLE
    big_whole = Verdict("the whole answer", lambda case: right.is_whole(case, text=big))
    many_whole = Verdict("the whole answer", lambda case: right.is_whole(case, text=many))
    glued = faults.rewritten
    rows: list[tuple[str, str, Script, Verdict, tuple[str, ...]]] = [
        ("done-twice", "the terminal event twice", faults.done_twice, whole, STREAM),
        ("usage-late", "usage 0.3 s after the finish reason", faults.usage_late, whole, STREAM),
        ("byte-by-byte", "every byte by itself", faults.byte_by_byte, whole, STREAM),
        ("glued", "all events in one packet", glued(lambda s: s), whole, STREAM),
        ("crlf", "lines that end in CRLF", glued(lambda s: s.replace(b"\n", b"\r\n")), whole, STREAM),
        ("bom", "a byte order mark first", glued(lambda s: b"\xef\xbb\xbf" + s), whole, STREAM),
        ("multi-line", "`data` over two lines", glued(faults.with_line_breaks_inside), whole, STREAM),
        ("no-space", "no space after `data:`", glued(lambda s: s.replace(b"data: ", b"data:")), whole, STREAM),
        ("no-blank-line", "no blank line after the last event", glued(lambda s: s[:-1]), whole, STREAM),
        ("comments-between", "comments between all events", faults.comments_between, whole, STREAM),
        ("slow-head", "headers that take 0.8 s", faults.slow_head, whole, BOTH),
        ("interim-heads", "100 and 103 before its answer", faults.interim_heads, whole, BOTH),
        ("huge-event", "a token of 3 MiB", faults.answers(faults.BIG), big_whole, BOTH),
    ]
    return [
        *(Scenario(*row) for row in rows),
        Scenario("no-done", "a finish reason and no [DONE]", faults.no_done, whole, STREAM, vias=("openai",)),
        Scenario(
            "no-message-stop", "a stop reason and no `message_stop`", faults.no_done, right.ALL_SAID, STREAM,
            vias=("anthropic",),
        ),
        Scenario(
            "no-usage", "no usage anywhere", faults.answers(cost=None), right.WHOLE_UNCOUNTED, vias=("openai",)
        ),
        Scenario("usage-always", "usage in every chunk", faults.usage_always, whole, STREAM, vias=("openai",)),
        Scenario(
            "slow-caller", "2 MB at once, to a caller who begins to read 1.5 s later", faults.answers(faults.MANY),
            many_whole, STREAM, ask={"read_after": 1.5},
        ),
    ]  # fmt: skip


def _refused(clock: Clock) -> list[Scenario]:
    invalid = ("invalid_request_error",)
    too_long = Verdict(
        "400 `context_length_exceeded`; the upstream is asked once",
        refusal(400, 413, openai=("context_length_exceeded",), anthropic=invalid, asked_once=True),
    )
    policy = Verdict(
        "400 `content_policy_violation`; the upstream is asked once",
        refusal(400, openai=("content_policy_violation", "content_filter"), anthropic=invalid, asked_once=True),
    )
    invalid_422 = Verdict("a 400 or 422; the upstream is asked once", refusal(400, 422, asked_once=True))
    limited = Verdict("a 429 with Retry-After", refusal(429, anthropic=("rate_limit_error",), retry_after=(1, 5)))
    openai_only = ("openai",)
    return [
        Scenario("context-length", "400: longer than the model can read", faults.context_length, too_long),
        Scenario(
            "context-length-vllm", "400: the same in vLLM's words", faults.context_length_vllm, too_long,
            vias=openai_only,
        ),
        Scenario("content-policy", "400: content policy", faults.CONTENT_POLICY, policy, vias=openai_only),
        Scenario("validation-list", "422 with FastAPI's list", faults.validation_list, invalid_422, vias=openai_only),
        Scenario(
            "retry-after-date", "429 with Retry-After as a date in 3 s", faults.rate_limited_until(clock, 3.5), limited
        ),
    ]  # fmt: skip


def _callers() -> list[Scenario]:
    invalid, openai_only = ("invalid_request_error",), ("openai",)  # the last rows reach no upstream
    not_found = Verdict(
        "404 `model_not_found`",
        refusal(404, openai=("model_not_found",), anthropic=("not_found_error",), within=1.0),
    )
    no_key = Verdict("401", refusal(401, anthropic=("authentication_error",), within=1.0))
    bad = Verdict("400", refusal(400, 422, anthropic=invalid, within=1.0))
    deadline: dict[str, Any] = {"deadline": right.DEADLINE}
    healthy = faults.healthy
    return [
        Scenario(
            "leaves", "leaves at the first token", faults.endless, right.LEFT, STREAM, ask={"leave_after_text": True},
            leaves=True,
        ),
        Scenario(
            "leaves-before", "leaves while the upstream thinks", faults.thinks_long, right.LEFT,
            ask={"leave_after": 0.7}, leaves=True,
        ),
        Scenario(
            "deadline", "will wait 1 s; the upstream thinks for 5", faults.thinks_long, right.IN_TIME, ask=deadline,
            leaves=True,
        ),
        Scenario(
            "deadline-passed-on", "the same", faults.thinks_long, right.TOLD_LESS, ask=deadline, leaves=True,
            vias=openai_only, only="Penstock",
        ),
        Scenario(
            "unknown-model", "asks for a model that does not exist", healthy, not_found, vias=openai_only,
            ask={"model": "no-such-model"},
        ),
        Scenario(
            "no-key", "sends no key", healthy, no_key, vias=openai_only, ask={"key": ""}
        ),
        Scenario(  # others may need a database to know who is nobody
            "bad-key", "sends a key that nobody knows", healthy, no_key, vias=openai_only, ask={"key": "sk-nobody"},
            only="Penstock",
        ),
        Scenario(
            "no-messages", "sends no messages", healthy, bad, vias=openai_only, ask={"fields": {"messages": None}}
        ),
        Scenario(
            "no-json", "sends a body that is not JSON", healthy, bad, PLAIN, vias=openai_only,
            ask={"body": b'{"model": oops'},
        ),
        Scenario(
            "no-max-tokens", "does not say max_tokens, which this dialect requires", healthy, bad, vias=openai_only,
            dialects=("anthropic",), ask={"fields": {"max_tokens": None}},
        ),
    ]  # fmt: skip
