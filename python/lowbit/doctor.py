"""``lowbit doctor``: what this machine and this installation offer, and whether every level gives the scalar answer.

Needs NumPy only, so that it runs where the rest does not.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import lowbit

# package -> (extra that brings it, what it is for)
OPTIONAL = {
    "onnx": ("onnx", "reads and writes ONNX files"),
    "onnx-ir": ("onnx", "imports graphs"),
    "onnxruntime": ("onnx", "calibration runs, float beside ours"),
    "pillow": ("images", "image files"),
    "typer": ("cli", "the lowbit command"),
    "rich": ("cli", "tables and progress bars"),
    "matplotlib": ("report", "plots"),
    "jinja2": ("report", "the HTML report"),
    "torch": ("torch", "exporting networks"),
}
Array = NDArray[Any]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cgroup_cores() -> float | None:
    """Cores that a container's CPU quota allows, None where there is no quota."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _gemm(rng: np.random.Generator) -> tuple[Callable[[str, int], Array], Array]:
    a = rng.integers(0, 256, (19, 67), np.uint8)
    b = rng.integers(-128, 128, (67, 35), np.int8)
    expected = (a.astype(np.int32) - 7) @ b.astype(np.int32)
    return lambda isa, threads: lowbit.gemm_i8(a, b, a_zero_point=7, isa=isa, threads=threads), expected


def _convolution(rng: np.random.Generator) -> tuple[Callable[[str, int], Array], Array]:
    x = rng.integers(0, 256, (2, 9, 11, 5), np.uint8)
    w = rng.integers(-128, 128, (18, 3, 3, 5), np.int8)
    padded = np.pad(x.astype(np.int32) - 128, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
    expected = np.einsum("nyxcij,oijc->nyxo", windows, w.astype(np.int32))
    return (
        lambda isa, threads: lowbit.conv2d_i8(x, w, padding=1, x_zero_point=128, isa=isa, threads=threads),
        expected.astype(np.int32),
    )


def _depthwise(rng: np.random.Generator) -> tuple[Callable[[str, int], Array], Array]:
    x = rng.integers(0, 256, (1, 13, 10, 37), np.uint8)
    w = rng.integers(-128, 128, (37, 3, 3, 1), np.int8)
    padded = np.pad(x.astype(np.int32) - 3, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))[:, ::2, ::2]
    expected = np.einsum("nyxcij,cij->nyxc", windows, w[..., 0].astype(np.int32)).astype(np.int32)
    return (
        lambda isa, threads: lowbit.conv2d_i8(
            x, w, stride=2, padding=1, groups=37, x_zero_point=3, isa=isa, threads=threads
        ),
        expected,
    )


def _requantise(rng: np.random.Generator) -> tuple[Callable[[str, int], Array], Array]:
    acc = rng.integers(-(2**20), 2**20, (11, 53), np.int32)
    scale = rng.uniform(1e-5, 1e-3, 53).astype(np.float32)
    expected = np.clip(np.rint(acc.astype(np.float32) * scale), -128, 127).astype(np.int8)
    return lambda isa, threads: lowbit.requantize(acc, scale, isa=isa, threads=threads), expected


SELF_TESTS: dict[str, Callable[[np.random.Generator], tuple[Callable[[str, int], Array], Array]]] = {
    "8-bit matrix product": _gemm,
    "8-bit convolution": _convolution,
    "8-bit depthwise convolution": _depthwise,
    "requantisation": _requantise,
}


def self_test() -> list[dict[str, Any]]:
    """Runs a few kernels on every level with 1 and 2 threads against NumPy written from the definition.

    Returns:
        One entry per kernel: ``kernel``, ``levels`` (name -> True, False or the error's text), ``ok``.

    Example:
        >>> all(entry["ok"] for entry in self_test())
        True
    """
    results = []
    for name, make in SELF_TESTS.items():
        call, expected = make(np.random.default_rng(0))
        levels: dict[str, bool | str] = {}
        for isa in lowbit.isas():
            try:
                levels[isa] = all(np.array_equal(call(isa, threads), expected) for threads in (1, 2))
            except Exception as error:  # a broken level is the answer asked for
                levels[isa] = f"{type(error).__name__}: {error}"
        results.append({"kernel": name, "levels": levels, "ok": all(v is True for v in levels.values())})
    return results


def examine() -> dict[str, Any]:
    """Everything that ``lowbit doctor`` prints, as plain values; ``ok`` is False where a self-test failed."""
    started = time.perf_counter()
    tests = self_test()
    return {
        "lowbit": lowbit.__version__,
        "folder": str(Path(lowbit.__file__).parent),
        "cmake_dir": _cmake_dir(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}, {' '.join(platform.libc_ver())}",
        "cpu": lowbit.cpu_name(),
        "levels": lowbit.isas(),
        "best_level": lowbit.best_isa(),
        "threads": {
            "default": lowbit.num_threads(),
            "cores": os.cpu_count(),
            "affinity": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
            "cgroup": _cgroup_cores(),
        },
        "environment": {
            k: os.environ[k] for k in ("LOWBIT_ISA", "LOWBIT_NUM_THREADS", "OMP_NUM_THREADS") if k in os.environ
        },
        "packages": {name: _version(name) for name in OPTIONAL},
        "self_test": tests,
        "self_test_ms": round(1000 * (time.perf_counter() - started), 1),
        "ok": all(t["ok"] for t in tests),
    }


def _cmake_dir() -> str | None:
    try:
        return lowbit.get_cmake_dir()
    except FileNotFoundError:
        return None


def text(found: dict[str, Any]) -> str:
    """The result of `examine` for people."""
    threads = found["threads"]
    limits = [f"{threads['cores']} in the machine"]
    if threads["affinity"]:
        limits.append(f"{threads['affinity']} allowed to this process")
    if threads["cgroup"]:
        limits.append(f"{threads['cgroup']:g} by the container's quota")
    rows = [
        ("lowbit", f"{found['lowbit']} in {found['folder']}"),
        ("CMake package", found["cmake_dir"] or "not part of this installation"),
        ("Python", f"{found['python']}, NumPy {found['numpy']}"),
        ("system", found["system"]),
        ("CPU", found["cpu"]),
        ("levels", f"{', '.join(found['levels'])} (default {found['best_level']})"),
        ("threads", f"{threads['default']} by default; cores: {', '.join(limits)}"),
    ]
    rows += [(name, value) for name, value in found["environment"].items()]
    lines = [f"{name:<14}{value}" for name, value in rows]

    lines += ["", "optional packages"]
    for name, version in found["packages"].items():
        extra, purpose = OPTIONAL[name]
        lines.append(
            f"  {name:<12}{version or '-':<12}{purpose}" + ("" if version else f': pip install "lowbit[{extra}]"')
        )

    lines += ["", f"self-test: each level against NumPy, 1 and 2 threads ({found['self_test_ms']:.0f} ms)"]
    for test in found["self_test"]:
        marks = "  ".join(f"{isa} {'ok' if state is True else 'WRONG'}" for isa, state in test["levels"].items())
        lines.append(f"  {test['kernel']:<29}{marks}")
        lines += [f"    {isa}: {state}" for isa, state in test["levels"].items() if isinstance(state, str)]
    lines += ["", "all well" if found["ok"] else "SELF-TEST FAILED: please report this output"]
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """``python -m lowbit doctor [--json]``; returns the exit status, 1 where a self-test failed."""
    unknown = [a for a in arguments if a != "--json"]
    if unknown:
        print(f"lowbit: error: doctor: unknown argument {unknown[0]!r} (known: --json)", file=sys.stderr)
        return 2
    found = examine()
    if "--json" in arguments:
        import json

        print(json.dumps(found, indent=2))
    else:
        print(text(found))
    return 0 if found["ok"] else 1
