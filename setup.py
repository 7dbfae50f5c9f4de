"""Compiles the engine's kernels, once for each kind of processor. Everything else is in pyproject.toml.

No build is required: where there is no compiler, the engine computes with NumPy instead and says so. The results are
plain shared libraries for ctypes, so one wheel serves every Python version.
"""

from __future__ import annotations

import platform
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

SOURCE = "penstock/engine/kernels.cpp"
# Not -ffast-math: results would depend on the compiler's mood, and tests compare bits.
COMMON = ["-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-g0", "-Wno-psabi"]
OPENMP = ["-fopenmp"]
AVX2 = ["-mavx2", "-mfma"]
AVX512 = [*AVX2, *(f"-mavx512{part}" for part in ("f", "bw", "vl", "dq", "bf16", "vnni"))]


def builds() -> dict[str, list[str]]:
    """Compiler flags by the name of the build. `kernels.py` picks the best one that the processor can run."""
    if platform.machine() in ("x86_64", "AMD64"):
        return {"avx512": AVX512, "avx2": AVX2, "portable": []}
    return {"portable": []}


class BuildKernels(build_ext):
    """Shared libraries with plain names, which may fail to build."""

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


class PlatformWheel(bdist_wheel):
    """For one platform, but for every Python: the libraries use none of Python's interface."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


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

setup(ext_modules=extensions, cmdclass={"build_ext": BuildKernels, "bdist_wheel": PlatformWheel})
