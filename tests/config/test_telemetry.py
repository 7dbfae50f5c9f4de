"""The `telemetry` block: what may be written, what is told when it is wrong, and what it comes to."""

from __future__ import annotations

import pytest

from penstock.config.compile import compile_plane
from penstock.config.diff import diff
from penstock.config.load import ConfigError, load
from penstock.telemetry.options import Capture, Exporter, Sampling, TelemetryOptions

BEFORE = "models: { chat: { deployments: [x] } }\ndeployments: { x: { engine: http://h/v1, served: m } }\n"


def compiled(telemetry: str) -> TelemetryOptions:
    return compile_plane(load(BEFORE + telemetry, "penstock.yaml"), 1, {}).telemetry


def test_without_it_nothing_is_sent_and_no_text_is_kept() -> None:
    found = compiled("")
    assert found == TelemetryOptions()
    assert (found.exporters, found.capture.wanted, found.drawn) == ((), False, 0.0)


def test_everything_that_may_be_written_arrives() -> None:
    text = """telemetry:
  traces:
    there:
      endpoint: https://host/otlp/v1/traces
      headers: { X-API-Key: env:KEY, x-project: mine }
      dialect: langsmith
      naming: older
      timeout: 5s
    near: { endpoint: "http://localhost:4318" }
  sampling: { ratio: 0.5%, slow_ttft: 3s, slow_duration: 1m, honour_caller: false, most_per_second: 7 }
  content: { capture: true, max_bytes: 1KiB, hashes: true, hash_key: env:HASH }
  propagate: false
  log_keys: ecs
  service: gw
  environment: test
"""
    headers = (("x-api-key", "env:KEY"), ("x-project", "mine"))
    assert compiled(text) == TelemetryOptions(
        exporters=(
            Exporter("there", "https://host/otlp/v1/traces", headers, "langsmith", "older", 5.0),
            Exporter("near", "http://localhost:4318/v1/traces"),
        ),
        sampling=Sampling(0.005, 3.0, 60.0, False, 7.0),
        capture=Capture(True, 1024, True, "env:HASH"),
        propagate=False,
        log_keys="ecs",
        service="gw",
        environment="test",
    )


@pytest.mark.parametrize(
    ("telemetry", "told"),
    [
        ("traces: { a: { endpoint: localhost } }", "telemetry.traces.a.endpoint must be an address"),
        ("traces: { a: { endpoint: 'http://me:pw@h' } }", "must not hold a user name or password"),
        ("traces: { a: { endpoint: 'http://h', timeout: 2m } }", "at most 1m"),
        (
            "traces: { a: { endpoint: 'http://h', headers: { authorization: hunter22 } } }",
            "must not be the secret itself",
        ),
        ("traces: { a: { endpoint: 'http://h', headers: { host: x } } }", "is written by Penstock itself"),
        ("traces: { a: { endpoint: 'http://h', headers: { x-a: \"b\\r\\nc\" } } }", "telemetry.traces.a.headers.x-a"),
        ("traces: { a: { endpoint: 'http://h', dialect: datadog } }", "telemetry.traces.a.dialect"),
        ("sampling: { ratio: 101% }", "must be at most 100%"),
        ("sampling: { ratio: 0.01 }", "telemetry.sampling.ratio"),
        ("sampling: { slow_ttft: 0s }", "must be longer than 0s"),
        ("content: { max_bytes: 1B }", "must be from 256B to 1MiB"),
        ("content: { hash_key: env:X }", "has no meaning without hashes"),
    ],
)
def test_what_is_wrong_is_told_where_it_is_and_never_with_a_secret(telemetry: str, told: str) -> None:
    with pytest.raises(ConfigError) as raised:
        compiled(f"telemetry: {{ {telemetry} }}\n")
    assert told in str(raised.value)
    assert "hunter22" not in str(raised.value)


def test_a_change_is_told_before_it_takes_effect() -> None:
    plain = compile_plane(load(BEFORE, "penstock.yaml"), 1, {})
    other = compile_plane(load(BEFORE + "telemetry: { propagate: false }\n", "penstock.yaml"), 1, {})
    assert [line.partition(":")[0] for line in diff(plain, other)] == ["~ telemetry"]
