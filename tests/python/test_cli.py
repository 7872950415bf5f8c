"""The command line as a user meets it: every command, --json, exit statuses, one-line errors, no partial files."""

import json
import subprocess
import sys

import numpy as np
import pytest

import lowbit
from lowbit import cli, doctor
from lowbit.demo import files

FOLDER = files("lowbit.demo")
DATA = f"{FOLDER / 'fashion.npz'}"


def run(*arguments, capsys) -> tuple[int, str, str]:
    status = cli.main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return status, out, err


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with the demo's net, its TOML beside it, a table and a .lowbit file, all made by the command line."""
    folder = tmp_path_factory.mktemp("cli")
    for name in ("fashion.onnx", "fashion.toml"):
        (folder / name).write_bytes((FOLDER / name).read_bytes())
    net, images = str(folder / "fashion.onnx"), f"{DATA}:x_calibration,y_calibration"
    assert cli.main(["calibrate", net, images, "-o", str(folder / "all.json"), "--rows", "64"]) == 0
    assert cli.main(["convert", net, "-o", str(folder / "net.lowbit"), "--calib", str(folder / "all.json")]) == 0
    return folder


def test_calibrate_in_shards_and_merge(work, capsys):
    parts = [work / f"part{i}.json" for i in range(3)]
    for i, part in enumerate(parts):
        arguments = ["calibrate", work / "fashion.onnx", f"{DATA}:x_calibration", "-o", part]
        status, out, _ = run(*arguments, "--rows", "64", "--shard", f"{i}/3", "--json", capsys=capsys)
        assert status == 0 and json.loads(out)["method"] == "mse"
    status, out, _ = run("merge", *parts, "-o", work / "merged.json", "--tensorrt", work / "net.cache", capsys=capsys)
    assert status == 0 and "64 samples" in out
    whole, merged = (lowbit.CalibrationTable.load(work / n) for n in ("all.json", "merged.json"))
    assert [merged.threshold(n) for n in merged] == [whole.threshold(n) for n in whole]
    assert (work / "net.cache").read_text().startswith("TRT-")
    status, _, err = run("merge", parts[0], parts[0], "-o", work / "twice.json", capsys=capsys)
    assert status == 1 and "shard (0, 3) is in both" in err and not (work / "twice.json").exists()


def test_convert_with_overrides_and_data(work, capsys):
    arguments = ["convert", work / "fashion.onnx", "-o", work / "mixed.lowbit", "--calib", f"{DATA}:x_calibration"]
    status, out, _ = run(*arguments, "--rows", "32", "--set", "op:Gemm=float32", "--json", capsys=capsys)
    result = json.loads(out)
    assert status == 0 and len(result["float_layers"]) == 1
    assert result["manifest"]["preprocessing"]["size"] == [28, 28]


def test_info_of_both_forms(work, capsys):
    status, out, _ = run("info", work / "net.lowbit", capsys=capsys)
    assert status == 0 and "recipe: int8" in out and "preprocessing: size 28 28" in out and "weight" in out
    status, out, _ = run("info", work / "fashion.onnx", "--json", capsys=capsys)
    assert status == 0 and sum(layer["macs"] for layer in json.loads(out)["layers"]) > 1e6
    status, out, _ = run("info", work / "net.lowbit", "--json", capsys=capsys)
    result = json.loads(out)
    assert sum(result["sections"].values()) == result["bytes"] == (work / "net.lowbit").stat().st_size


def test_compare_with_html_and_json(work, capsys):
    arguments = ["compare", work / "fashion.onnx", work / "net.lowbit", "--data", f"{DATA}:x_test,y_test"]
    arguments += ["--rows", "40", "--sqnr-images", "4", "--seconds", "0.02", "--threads", "1"]
    status, out, _ = run(*arguments, "--html", work / "r.html", "--calib", work / "all.json", capsys=capsys)
    assert status == 0 and "top-1, 40 images" in out and (work / "r.html").stat().st_size > 10_000
    status, out, _ = run(*arguments, "--json", capsys=capsys)
    assert status == 0 and json.loads(out)["images"] == 40 and json.loads(out)["model"] == "net.lowbit"


def test_bench(work, capsys):
    arguments = ["bench", work / "net.lowbit", "--against", work / "fashion.onnx", "--seconds", "0.02"]
    status, out, _ = run(*arguments, "--threads", "1,2", "--per-layer", "--batch", "2", "--json", capsys=capsys)
    result = json.loads(out)
    assert status == 0 and [r["threads"] for r in result["results"]] == [1, 2]
    assert all(r["lowbit_min_ms"] > 0 and r["float_min_ms"] > 0 for r in result["results"])
    assert len(result["layers"]) == 2 and all(op["ms"] >= 0 for op in result["layers"][0]["ops"])
    status, out, _ = run(*arguments, "--per-layer", capsys=capsys)
    assert status == 0 and "GMAC/s" in out


def test_export(work, capsys):
    import onnxruntime

    status, _, _ = run("export", work / "net.lowbit", "-o", work / "qdq.onnx", capsys=capsys)
    assert status == 0
    session = onnxruntime.InferenceSession(str(work / "qdq.onnx"))
    assert session.run(None, {session.get_inputs()[0].name: np.zeros((1, 1, 28, 28), np.float32)})[0].shape == (1, 10)


def test_doctor(capsys):
    status, out, _ = run("doctor", capsys=capsys)
    assert status == 0 and "all well" in out and lowbit.cpu_name() in out
    for entry in doctor.self_test():
        assert list(entry["levels"]) == lowbit.isas()


def test_doctor_reports_a_wrong_kernel(monkeypatch, capsys):
    real = lowbit.gemm_i8
    monkeypatch.setattr(lowbit, "gemm_i8", lambda *a, isa, **k: real(*a, isa=isa, **k) + (isa == "avx2"))
    found = doctor.self_test()[0]
    assert not found["ok"] and found["levels"]["scalar"] is True
    if "avx2" in lowbit.isas():
        assert found["levels"]["avx2"] is False
    monkeypatch.setattr(lowbit, "gemm_i8", lambda *a, **k: 1 / 0)
    assert doctor.main([]) == 1
    out = capsys.readouterr().out
    assert "SELF-TEST FAILED" in out and "ZeroDivisionError" in out


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["convert", "none.onnx", "-o", "x.lowbit", "--recipe", "int8-dynamic"], 1, "none.onnx"),
        (["convert", "{net}", "-o", "x.lowbit"], 1, "needs calibration"),
        (["convert", "{net}", "-o", "x.lowbit", "--recipe", "int9"], 1, "int9"),
        (["convert", "{net}", "-o", "x.lowbit", "--calib", "{table}", "--set", "nothing=float32"], 1, "nothing"),
        (["convert", "{net}", "-o", "x.lowbit", "--calib", "{table}", "--set", "nothing"], 2, "pattern=recipe"),
        (["convert", "{net}", "-o", "x.lowbit", "--calib", "{table}", "--max-drop", "1"], 2, "--max-drop needs --data"),
        (["convert", "{net}"], 2, "output"),
        (["convert", "{net}", "-o", "none/x.lowbit", "--calib", "{table}"], 1, "none"),
        (["calibrate", "{net}", "nowhere", "-o", "x.json"], 1, "nowhere: no such file"),
        (["calibrate", "{net}", "{data}", "-o", "x.json"], 1, "no array 'x'"),
        (["calibrate", "{net}", "{data}:x_test", "-o", "x.json", "--rows", "9:3"], 1, "no rows left"),
        (["calibrate", "{net}", "{data}:x_test", "-o", "x.json", "--rows", "4", "--method", "magic"], 1, "magic"),
        (["calibrate", "{net}", "{data}:x_test", "-o", "x.json", "--shard", "4/4"], 1, "shard '4/4'"),
        (["calibrate", "{net}", "{data}:x_test", "-o", "x.json", "--mean", "a"], 2, "--mean 'a'"),
        (["calibrate", "{net}", "{data}:x_test", "-o", "x.json", "--size", "14"], 1, "crop, interpolation missing"),
        (["merge", "{net}", "-o", "x.json"], 1, "fashion.onnx"),
        (["info", "none.lowbit"], 1, "none.lowbit"),
        (["info", "{net}x"], 1, "no such file"),
        (["compare", "{net}", "{table}", "--data", "{data}:x_test"], 1, ""),
        (["bench", "{model}", "--threads", "1,x"], 2, "--threads '1,x'"),
        (["bench", "{model}", "--threads", "0"], 2, "--threads '0'"),
        (["nonsense"], 2, "nonsense"),
        (["info"], 2, "NET"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(work, tmp_path, monkeypatch, capsys, arguments, status, message):
    monkeypatch.chdir(tmp_path)
    known = {"net": work / "fashion.onnx", "table": work / "all.json", "data": DATA, "model": work / "net.lowbit"}
    got, out, err = run(*(a.format(**known) for a in arguments), capsys=capsys)
    assert got == status, err
    assert err.startswith("lowbit: error: ") and err.count("\n") == 1 and message in err and out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_failing_write_leaves_the_old_file(work, tmp_path, monkeypatch, capsys):
    target = tmp_path / "net.lowbit"
    target.write_bytes(b"old")
    monkeypatch.setattr("os.replace", lambda *a: (_ for _ in ()).throw(OSError(28, "No space left on device", "x")))
    status, _, err = run("convert", work / "fashion.onnx", "-o", target, "--calib", work / "all.json", capsys=capsys)
    assert status == 1 and "No space left" in err
    assert [p.name for p in tmp_path.iterdir()] == ["net.lowbit"] and target.read_bytes() == b"old"


HIDE = """
import importlib.abc, sys
class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"typer", "rich", "onnx", "onnxruntime", "onnx_ir", "PIL", "matplotlib", "jinja2"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hidden())
import runpy
sys.argv = ["lowbit", *sys.argv[1:]]
runpy.run_module("lowbit", run_name="__main__")
"""


def bare(*arguments) -> subprocess.CompletedProcess[str]:
    """``python -m lowbit`` where only NumPy is installed."""
    return subprocess.run([sys.executable, "-c", HIDE, *arguments], capture_output=True, text=True, check=False)


def test_with_numpy_only():
    found = bare("doctor", "--json")
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["ok"] is True
    assert bare("--cmakedir").stdout.strip() == lowbit.get_cmake_dir()
    assert bare("--includedir").stdout.strip() == lowbit.get_include()
    assert bare("--version").stdout.strip() == lowbit.__version__
    missing = bare("demo")
    assert missing.returncode == 1 and missing.stderr.count("\n") == 1
    assert missing.stderr.startswith("lowbit: error: ") and 'pip install "lowbit[cli]"' in missing.stderr
    assert bare("doctor", "--nonsense").returncode == 2


def test_as_a_program():
    done = subprocess.run([sys.executable, "-m", "lowbit", "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    for command in ("demo", "doctor", "calibrate", "merge", "convert", "info", "compare", "bench", "export"):
        assert command in done.stdout
