"""House rules (HACKING.md) as tests: includes, names, what an import loads, versions, stubs."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import lowbit
from lowbit import _core

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"
LEVELS = ("scalar", "avx2", "avx512_vnni", "avx512", "amx", "neon")
SOURCES = sorted([*CSRC.rglob("*.cpp"), *CSRC.rglob("*.h")])
VARIANTS = [p for p in CSRC.rglob("*.cpp") if re.search(rf"_({'|'.join(LEVELS)})$", p.stem)]


def includes(path: Path) -> list[str]:
    return re.findall(r'^#include\s+[<"]([^">]+)[">]', path.read_text(), re.M)


def test_there_are_sources_to_check():
    assert len(SOURCES) > 10 and len(VARIANTS) > 5


def test_only_bind_knows_pybind11():
    for path in SOURCES:
        if path.parent.name != "bind":
            assert not [i for i in includes(path) if "pybind11" in i or "Python.h" in i], path


def test_public_headers_include_only_public_headers_and_the_standard_library():
    for path in (CSRC / "include").rglob("*.h"):
        for name in includes(path):
            assert name.startswith("lowbit/") or ("/" not in name and not name.endswith(".h")), (path, name)


@pytest.mark.parametrize("path", VARIANTS, ids=lambda p: p.stem)
def test_variant_files_include_only_what_a_variant_may(path: Path):
    allowed = re.compile(
        r"(.*_kernel\.h|target\.h|immintrin\.h|arm_neon\.h|std(int|def|io|lib)\.h|c?(string|math|float|limits)(\.h)?|cstdint|cstddef"
        r"|(.*/)?requantize_(scalar|avx2|avx512)\.h|.*_(avx2|avx512|avx512_vnni|amx)\.h)$"
    )
    wrong = [i for i in includes(path) if not allowed.match(i)]
    assert not wrong, f"{path.relative_to(ROOT)} includes {wrong}"


@pytest.mark.parametrize("path", VARIANTS, ids=lambda p: p.stem)
def test_every_variant_is_in_a_table(path: Path):
    level = re.search(rf"_({'|'.join(LEVELS)})$", path.stem)[1]
    rows = "\n".join(p.read_text() for p in path.parent.glob("*.cpp") if p not in VARIANTS)
    assert re.search(rf"Isa::{level}\s*,\s*&?\w+", rows), f"no table in {path.parent.name}/ has a row for {path.name}"


def test_file_names_are_unique_and_say_something():
    stems: dict[str, Path] = {}
    for path in CSRC.rglob("*.cpp"):
        assert path.name not in stems, f"{path} and {stems[path.name]}"
        stems[path.name] = path
    for path in [*SOURCES, *(ROOT / "python").rglob("*.py")]:
        assert not re.match(r"(utils?|common|helpers?|misc|base|manager|impl)$", path.stem), path


def test_import_needs_numpy_only():
    code = "import sys, lowbit; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert "numpy" in loaded
    heavy = {
        "torch",
        "onnx",
        "onnx_ir",
        "onnxruntime",
        "matplotlib",
        "jinja2",
        "typer",
        "rich",
        "PIL",
        "pandas",
        "scipy",
    }
    assert not loaded & heavy


def test_rooms_of_torch_depend_one_way():
    torch = ROOT / "python/lowbit/torch"
    ranks = {"autograd": 0, "geometry": 0, "tensor_cache": 0, "binary": 1, "compression": 2, "few_bits": 2}
    ranks |= {"haq": 2, "int8_training": 2, "qat": 2}
    whole_nets = 3  # swap, lowering and the like, which know all rooms
    assert {p.name for p in torch.iterdir() if (p / "__init__.py").exists()} < set(ranks)
    for path in torch.rglob("*.py"):
        room = path.relative_to(torch).parts[0].removesuffix(".py")
        for other in set(re.findall(r"^ *from lowbit\.torch\.(\w+)", path.read_text(), re.M)) - {room}:
            rank = ranks.get(room, whole_nets)
            assert rank == whole_nets or ranks.get(other, whole_nets) < rank, f"{path.relative_to(ROOT)}: {other}"


def test_versions_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    cmake = re.search(r"project\(lowbit VERSION (\S+)", (ROOT / "CMakeLists.txt").read_text())[1]
    assert project == cmake == lowbit.__version__ == _core.__version__
    assert f"## {project}" in (ROOT / "CHANGELOG.md").read_text()


def test_stub_names_what_the_module_has():
    stub = ast.parse((ROOT / "python/lowbit/_core.pyi").read_text())
    named = {n.name for n in stub.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    named |= {n.target.id for n in stub.body if isinstance(n, ast.AnnAssign)}
    real = {n for n in dir(_core) if not n.startswith("__")} | {"__version__"}
    assert named == real, f"only in the stub: {named - real}; only in the module: {real - named}"


def test_all_lists_what_lowbit_exports():
    assert lowbit.__all__ == sorted(lowbit.__all__, key=str.lower) or set(lowbit.__all__) <= set(dir(lowbit))
    for name in lowbit.__all__:
        assert getattr(lowbit, name).__doc__, name
