"""Calibration tables: JSON, merging, other methods from the same counts, TensorRT's cache."""

import json
import math
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lowbit
from lowbit import CalibrationTable, FormatError
from lowbit.calibration import METHODS, make_observer

METHOD_NAMES = [m for m in METHODS if m != "fixed"]


def table(method="entropy", seed=0, n=500, shards=None, model="abc", names=("input", "conv1", "layer1.0/relu")):
    rng = np.random.default_rng(seed)
    tensors = {}
    for k, name in enumerate(names):
        tensors[name] = make_observer(method)
        tensors[name].observe(((k + 1) * rng.standard_normal(n)).astype(np.float32))
    return CalibrationTable(tensors, method=method, model=model, samples=10, shards=shards)


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_round_trip(method, tmp_path):
    t = table(method, shards=[(1, 4)])
    t.save(tmp_path / "t.json")
    again = CalibrationTable.load(tmp_path / "t.json")
    assert again.digest == t.digest
    assert list(again) == list(t) and len(again) == 3 and "conv1" in again and "x" not in again
    assert (again.method, again.model, again.samples, again.shard) == (method, "abc", 10, (1, 4))
    for name in t:
        assert again.qparams(name) == t.qparams(name)
        assert again.range(name) == t.range(name) and again.threshold(name) == t.threshold(name)
    assert [p.name for p in tmp_path.iterdir()] == ["t.json"]


def test_save_replaces_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "t.json"
    table().save(path)
    before = path.read_text()
    monkeypatch.setattr("os.replace", lambda *a: (_ for _ in ()).throw(OSError("disk")))
    with pytest.raises(OSError, match="disk"):
        table(seed=1).save(path)
    assert path.read_text() == before and [p.name for p in tmp_path.iterdir()] == ["t.json"]


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_merged_shards_are_the_whole(method):
    names = ("a", "b")
    arrays = [np.random.default_rng(k).standard_normal(300).astype(np.float32) * (k + 1) for k in range(6)]
    whole = {n: make_observer(method) for n in names}
    parts = [{n: make_observer(method) for n in names} for _ in range(3)]
    for k, x in enumerate(arrays):
        for n in names:
            whole[n].observe(x)
            parts[k % 3][n].observe(x)
    tables = [CalibrationTable(p, method=method, samples=2, shards=[(k, 3)]) for k, p in enumerate(parts)]
    first = tables[2].merge(tables[0])
    assert first is tables[2] and first.shards == [(0, 3), (2, 3)] and first.shard is None
    first.merge(tables[1])
    assert first.shards == [] and first.digest == CalibrationTable(whole, method=method, samples=6).digest


def test_merge_refuses_what_does_not_fit():
    for other, what in [
        (table(model="xyz"), "model"),
        (table("mse"), "method"),
        (table(names=("input", "conv1", "conv2")), "conv2"),
        (table(shards=[(0, 4)]), "shard"),
    ]:
        t = table()
        before = t.digest
        with pytest.raises(ValueError, match=what):
            t.merge(other)
        assert t.digest == before
    with pytest.raises(ValueError, match="shard \\(0, 4\\) is in both"):
        table(shards=[(0, 4)]).merge(table(shards=[(0, 4)]))
    with pytest.raises(ValueError, match="shards of 3 and of 4"):
        table(shards=[(0, 4)]).merge(table(shards=[(0, 3)]))
    t, other = table(), table()
    other.tensors["conv1"] = make_observer("entropy", bins=64)
    other.tensors["conv1"].observe(np.float32([1]))
    before = t.digest
    with pytest.raises(ValueError, match=r"'conv1'.*bins"):
        t.merge(other)
    assert t.digest == before


def test_another_method_from_the_same_counts():
    t = table("entropy", n=5000)
    for method in METHOD_NAMES:
        other, want = t.with_method(method), table(method, n=5000)
        assert {n: other.qparams(n) for n in other} == {n: want.qparams(n) for n in want}
    assert t.with_method("percentile", percentile=90).threshold("conv1") < t.with_method("percentile").threshold(
        "conv1"
    )
    with pytest.raises(ValueError, match=r"'input' has no histogram"):
        table("minmax").with_method("entropy")
    with pytest.raises(ValueError, match="'best'"):
        t.with_method("best")


def test_errors_name_the_tensor():
    t = CalibrationTable({"conv1": make_observer("entropy")})
    with pytest.raises(ValueError, match=r"'conv1': .*no value was observed"):
        t.qparams("conv1")
    with pytest.raises(KeyError, match="conv2"):
        t.qparams("conv2")


def test_broken_files(tmp_path):
    path = tmp_path / "t.json"
    good = json.loads(table(names=("a",))._json())
    texts = [
        "",
        "{",
        "[]",
        "3",
        '"lowbit.calibration"',
        "null",
        "\ud800".encode("utf-8", "surrogatepass"),
        "[" * 100_000,
    ]
    for key in ("format", "version", "method", "model", "samples", "shards", "tensors"):
        texts.append(json.dumps({k: v for k, v in good.items() if k != key}))
        for value in (
            None,
            2,
            -1,
            [],
            [3],
            [[1]],
            [[2, 1]],
            [["a", 1]],
            {"a": 1},
            {"a": {}},
            {"a": {"method": "mse"}},
            "mse",
        ):
            if (key, value) not in (("samples", 2), ("shards", []), ("model", "mse")):
                texts.append(json.dumps({**good, key: value}))
    texts += [json.dumps(good)[:k] for k in range(0, len(json.dumps(good)), 37)]
    for text in texts:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(FormatError, match=r"t\.json"):
            CalibrationTable.load(path)
    with pytest.raises(FileNotFoundError):
        CalibrationTable.load(tmp_path / "none.json")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_flipped_bytes_never_crash(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("flip") / "t.json"
    raw = bytearray(table(names=("a",), n=50)._json().encode())
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw)
    try:
        t = CalibrationTable.load(path)
    except FormatError:
        return
    for name in t:
        t.qparams(name)


# TensorRT ----------------------------------------------------------------------------------------------------------


def test_tensorrt_text(tmp_path):
    t = CalibrationTable({"data": make_observer("minmax"), "a: b": make_observer("minmax")}, method="minmax")
    t["data"].observe(np.float32([-1, 127 * 0.0078125]))
    t["a: b"].observe(np.float32([0]))
    t.save_tensorrt(tmp_path / "c", version="7103")
    want = f"TRT-7103-EntropyCalibration2\ndata: {struct.pack('>f', np.float32(1 / 127)).hex()}\na: b: 3f800000\n"
    assert (tmp_path / "c").read_text() == want
    with pytest.raises(ValueError, match="version"):
        t.save_tensorrt(tmp_path / "c", version="8.6")
    t.tensors["x\ny"] = t["data"]
    with pytest.raises(ValueError, match="line"):
        t.save_tensorrt(tmp_path / "c")
    assert (tmp_path / "c").read_text() == want


def test_tensorrt_round_trip(tmp_path):
    t = table()
    t.save_tensorrt(tmp_path / "c")
    again = CalibrationTable.load_tensorrt(tmp_path / "c")
    assert again.method == "fixed" and list(again) == list(t)
    assert {n: again.qparams(n) for n in again} == {n: t.qparams(n) for n in t}
    again.save_tensorrt(tmp_path / "d")
    assert (tmp_path / "c").read_bytes() == (tmp_path / "d").read_bytes()
    again.save(tmp_path / "t.json")
    assert CalibrationTable.load(tmp_path / "t.json").digest == again.digest


@settings(max_examples=200, deadline=None)
@given(st.floats(0, 2.0**120, width=32))
def test_tensorrt_keeps_every_scale(scale):
    from lowbit.calibration.tensorrt import cache_text, parse_cache

    assert parse_cache(cache_text({"x": scale}).encode()) == {"x": scale}
    t = CalibrationTable({"x": lowbit.calibration.FixedObserver(scale * 127.0)}, method="fixed")
    if scale:
        assert t.qparams("x").scale == scale


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (b"", 1),
        (b"x: 3c010a14\n", 1),
        (b"TRT-x-EntropyCalibration2\n", 1),
        (b"TRT-8601-EntropyCalibration2\nx: 3c010a1\n", 2),
        (b"TRT-8601-EntropyCalibration2\nx: 3c010a14\ny 3c010a14", 3),
        (b"TRT-8601-EntropyCalibration2\nx: 3c010a14\n\ny: 3c010a1g", 4),
        (b"TRT-8601-EntropyCalibration2\nx: 7fc00000\n", 2),
        (b"TRT-8601-EntropyCalibration2\nx: 7f800000\n", 2),
        (b"TRT-8601-EntropyCalibration2\nx: bc010a14\n", 2),
        (b"TRT-8601-EntropyCalibration2\nx: 7f7fffff\n", 2),
        (b"TRT-8601-EntropyCalibration2\nx: 3c010a14\nx: 3c010a14\n", 3),
        (b"TRT-8601-EntropyCalibration2\nx: 3c010a14\n\xff\xfe: 3c010a14\n", 3),
        (b"TRT-8601-EntropyCalibration2\n: 3c010a14\n", 2),
    ],
)
def test_tensorrt_bad_lines(tmp_path, text, line):
    path = tmp_path / "net.cache"
    path.write_bytes(text)
    with pytest.raises(FormatError, match=f"net.cache: line {line}: "):
        CalibrationTable.load_tensorrt(path)


def test_tensorrt_reads_what_others_write(tmp_path):
    path = tmp_path / "net.cache"
    path.write_bytes(
        b"TRT-7000-EntropyCalibration2\r\ndata: 3c010a14\r\n(Unnamed Layer* 0) [Convolution]_output: 3d3e91f3\r\n"
    )
    t = CalibrationTable.load_tensorrt(path)
    assert list(t) == ["data", "(Unnamed Layer* 0) [Convolution]_output"]
    assert math.isclose(t.threshold("data"), 127 * struct.unpack(">f", bytes.fromhex("3c010a14"))[0])
