"""Compiles the engine's kernels and the gateway's hot modules. Everything else is in pyproject.toml.

No compiler is required: without one the engine computes with NumPy and the gateway runs as the Python it is written in.
The kernels are plain shared libraries for ctypes, once for each kind of processor. The modules in `HOT` are compiled by
mypyc, unchanged, and lie beside their sources (docs/decisions/0012). An editable installation has them not compiled:
what runs there is what was edited. PENSTOCK_PURE=1 builds a wheel without them.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

SOURCE = "penstock/engine/kernels.cpp"
# Not -ffast-math: results would depend on the compiler's mood, and tests compare bits.
COMMON = ["-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-g0", "-Wno-psabi"]
OPENMP = ["-fopenmp"]
AVX2 = ["-mavx2", "-mfma"]
AVX512 = [*AVX2, *(f"-mavx512{part}" for part in ("f", "bw", "vl", "dq", "bf16", "vnni"))]

# What every request runs through, simulated ones too, and whoever inherits from its classes, as only compiled classes
# can. Never here: a module that defines a msgspec.Struct, because mypyc drops its options and the types of its fields.
HOT = [
    "penstock/balancing/balancer.py",
    "penstock/balancing/exact_index.py",
    "penstock/balancing/fair.py",
    "penstock/balancing/floors.py",
    "penstock/balancing/line.py",
    "penstock/balancing/pace.py",
    "penstock/balancing/policies.py",
    "penstock/balancing/predicted.py",
    "penstock/balancing/prefix_index.py",
    "penstock/balancing/queue.py",
    "penstock/balancing/queued.py",
    "penstock/balancing/rates.py",
    "penstock/balancing/sessions.py",
    "penstock/balancing/shares.py",
    "penstock/balancing/ticket.py",
    "penstock/balancing/unstarted.py",
    "penstock/batching/blocks.py",
    "penstock/batching/scheduler.py",
    "penstock/batching/sequence.py",
    "penstock/core/fleet.py",
    "penstock/core/ids.py",
    "penstock/core/microseconds.py",
    "penstock/core/money.py",
    "penstock/gateway/accounting.py",
    "penstock/gateway/alarm.py",
    "penstock/gateway/auth.py",
    "penstock/gateway/call.py",
    "penstock/gateway/keyring.py",
    "penstock/gateway/max_tokens.py",
    "penstock/gateway/parsing.py",
    "penstock/gateway/prefill.py",
    "penstock/gateway/pressure.py",
    "penstock/gateway/relay.py",
    "penstock/gateway/serve.py",
    "penstock/gateway/try_upstreams.py",
    "penstock/http/asgi_exchange.py",
    "penstock/http/client.py",
    "penstock/http/members.py",
    "penstock/http/names.py",
    "penstock/http/server.py",
    "penstock/http/uvicorn_http.py",
    "penstock/http/wheel.py",
    "penstock/limits/blocks.py",
    "penstock/limits/book.py",
    "penstock/limits/bucket.py",
    "penstock/limits/budget.py",
    "penstock/limits/estimate.py",
    "penstock/limits/headers.py",
    "penstock/limits/rules.py",
    "penstock/limits/words.py",
    "penstock/pricing/cost.py",
    "penstock/resilience/attempts.py",
    "penstock/resilience/breaker.py",
    "penstock/resilience/concurrency.py",
    "penstock/resilience/hedging.py",
    "penstock/resilience/outliers.py",
    "penstock/resilience/retry_budget.py",
    "penstock/resilience/sketch.py",
    "penstock/resilience/stalls.py",
    "penstock/resilience/watch.py",
    "penstock/routing/expressions.py",
    "penstock/routing/router.py",
    "penstock/sim/engine_model.py",
    "penstock/sim/engines.py",
    "penstock/sim/fleet.py",
    "penstock/sim/log.py",
    "penstock/sim/pooled.py",
    "penstock/sim/requests.py",
    "penstock/sim/run.py",
    "penstock/sim/world.py",
    "penstock/stores/bookkeeper.py",
    "penstock/stores/counters_fallback.py",
    "penstock/stores/counters_leased.py",
    "penstock/stores/counters_memory.py",
    "penstock/stores/counters_redis.py",
    "penstock/stores/counters_shared.py",
    "penstock/stores/counters_shared_reservations.py",
    "penstock/stores/counters_shared_slots.py",
    "penstock/stores/entry_checks.py",
    "penstock/stores/flight.py",
    "penstock/stores/receipts.py",
    "penstock/stores/redis.py",
    "penstock/stores/spool.py",
    "penstock/telemetry/access_log.py",
    "penstock/telemetry/fold.py",
    "penstock/telemetry/instruments.py",
    "penstock/telemetry/observe.py",
    "penstock/telemetry/otlp.py",
    "penstock/telemetry/sampling.py",
    "penstock/telemetry/taxonomy.py",
    "penstock/telemetry/unvouched.py",
    "penstock/upstreams/answer.py",
    "penstock/upstreams/http_upstream.py",
    "penstock/upstreams/openai.py",
    "penstock/wire/anthropic/answer_in.py",
    "penstock/wire/anthropic/answer_out.py",
    "penstock/wire/anthropic/blocks.py",
    "penstock/wire/anthropic/failures.py",
    "penstock/wire/anthropic/meter.py",
    "penstock/wire/anthropic/passing.py",
    "penstock/wire/anthropic/request_in.py",
    "penstock/wire/anthropic/request_out.py",
    "penstock/wire/anthropic/thinking_out.py",
    "penstock/wire/anthropic/turns_in.py",
    "penstock/wire/anthropic/turns_out.py",
    "penstock/wire/anthropic/usage.py",
    "penstock/wire/anthropic/values.py",
    "penstock/wire/attribution.py",
    "penstock/wire/bedrock_streams.py",
    "penstock/wire/continuing.py",
    "penstock/wire/dialects.py",
    "penstock/wire/errors.py",
    "penstock/wire/lineage.py",
    "penstock/wire/openai_chat.py",
    "penstock/wire/openai_hub/answer_in.py",
    "penstock/wire/openai_hub/answer_out.py",
    "penstock/wire/openai_hub/request_in.py",
    "penstock/wire/openai_hub/request_out.py",
    "penstock/wire/openai_values.py",
    "penstock/wire/prompts.py",
    "penstock/wire/readings.py",
    "penstock/wire/responses/answer_out.py",
    "penstock/wire/responses/meter.py",
    "penstock/wire/responses/parse.py",
    "penstock/wire/responses/request_in.py",
    "penstock/wire/special.py",
    "penstock/wire/sse.py",
    "penstock/wire/tool_names.py",
    "penstock/wire/trace_context.py",
    "penstock/wire/unary.py",
]
PURE = os.environ.get("PENSTOCK_PURE", "0") not in ("", "0")
OPTIMIZED = os.environ.get("PENSTOCK_OPTIMIZE", "3")  # 3 takes seven minutes of CPU, less a third of that


def builds() -> dict[str, list[str]]:
    """Compiler flags by the name of the build. `kernels.py` picks the best one that the processor can run."""
    if platform.machine() in ("x86_64", "AMD64"):
        return {"avx512": AVX512, "avx2": AVX2, "portable": []}
    return {"portable": []}


class Build(build_ext):
    """Shared libraries with plain names, which may fail to build; then the hot modules, which may fail all together."""

    compiled = False  # the hot modules are

    def run(self) -> None:
        super().run()
        if not (PURE or self.inplace or self.editable_mode):
            self.compile_hot_modules()

    def get_ext_filename(self, fullname: str) -> str:
        return f"{fullname.replace('.', '/')}.so"

    def build_extension(self, ext: Extension) -> None:
        try:
            super().build_extension(ext)
        except Exception:  # whatever a compiler may do wrong; without threads it may be able to
            if OPENMP[0] not in ext.extra_compile_args:
                raise
            ext.extra_compile_args = [flag for flag in ext.extra_compile_args if flag not in OPENMP]
            ext.extra_link_args = []
            super().build_extension(ext)

    def compile_hot_modules(self) -> None:
        kernels = self.distribution.ext_modules
        outputs: list[str] = []
        try:
            from mypyc.build import mypycify

            # one group: calls between its modules are calls in C
            made = mypycify(
                HOT,
                group_name="penstock",
                opt_level=OPTIMIZED,
                debug_level="0",
                multi_file=OPTIMIZED != "3",  # many small files are compiled sooner, and call each other dearer
                target_dir=f"{BUILT_IN}/mypyc",
            )
            self.distribution.ext_modules = made
            command: Any = build_ext(self.distribution)
            command.ensure_finalized()
            outputs = command.get_outputs()
            command.run()
            self.compiled = True
        # mypyc exits when it has complaints, and a compiler may do anything wrong
        except (Exception, SystemExit) as error:  # noqa: BLE001
            # some of them without the others could not be imported
            for path in outputs:
                Path(path).unlink(missing_ok=True)
            self.warn(f"the gateway is not compiled, and takes about a sixth more CPU for it: {error!r}")
        finally:
            self.distribution.ext_modules = kernels


class PlatformWheel(bdist_wheel):
    """For one platform. Kernels use none of Python's interface, so without compiled modules every Python will do."""

    def get_tag(self) -> tuple[str, str, str]:
        tag: tuple[str, str, str] = super().get_tag()
        return tag if self.get_finalized_command("build_ext").compiled else ("py3", "none", tag[2])


extensions = [
    Extension(
        f"penstock.engine._kernels_{name}",
        [SOURCE],
        language="c++",
        extra_compile_args=[*COMMON, *OPENMP, *flags],
        extra_link_args=OPENMP,
        optional=True,
    )
    for name, flags in builds().items()
    if sys.platform != "win32" and Path(SOURCE).exists()
]

# A folder that is kept would carry what was compiled once into every later wheel.
BUILT_IN = tempfile.mkdtemp(prefix="penstock-build-")
try:
    setup(
        ext_modules=extensions,
        cmdclass={"build_ext": Build, "bdist_wheel": PlatformWheel},
        options={"build": {"build_base": BUILT_IN}, "build_ext": {"parallel": os.cpu_count() or 1}},
    )
finally:
    shutil.rmtree(BUILT_IN, ignore_errors=True)
