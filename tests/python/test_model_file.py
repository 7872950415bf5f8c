"""The .lowbit file: what the writer writes, what both readers accept, and that whatever else is a FormatError."""

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lowbit
from lowbit import _core, container

FormatError = lowbit.FormatError


def tiny_parts() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """A net of quantize, gemm and dequantize: (b, 3) -> (b, 2)."""
    tensors = {
        "activation_scales": np.array([0.5, 0.25], np.float32),
        "fc.weight": np.array([[1, -2, 3], [4, 5, -6]], np.int8),
        "fc.weight_scale": np.array([0.5], np.float32),
        "fc.bias": np.array([10, -10], np.int32),
    }
    plan = {
        "version": 1,
        "tensors": [
            {"name": "x", "dtype": "float32", "shape": [-1, 3]},
            {"name": "xq", "dtype": "int8", "shape": [-1, 3], "scale": 0, "zero_point": 3, "source": "x"},
            {"name": "yq", "dtype": "int8", "shape": [-1, 2], "scale": 1, "zero_point": -4},
            {"name": "y", "dtype": "float32", "shape": [-1, 2]},
        ],
        "inputs": [0],
        "outputs": [3],
        "ops": [
            {"op": "quantize", "name": "in", "inputs": [0], "outputs": [1]},
            {
                "op": "gemm",
                "name": "fc",
                "inputs": [1],
                "outputs": [2],
                "attrs": {"lo": -127},
                "params": {"weight": "fc.weight", "weight_scale": "fc.weight_scale", "bias": "fc.bias"},
            },
            {"op": "dequantize", "name": "out", "inputs": [2], "outputs": [3]},
        ],
    }
    return tensors, plan


def tiny_bytes() -> bytes:
    return container.to_bytes(*tiny_parts(), {"lowbit": "test"})


def resign(header: dict[str, Any], data: bytes) -> bytes:
    """A file of this header, its checksum made right."""
    header["__metadata__"]["header_crc32"] = "00000000"
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % 64)
    crc = f"{zlib.crc32(text):08x}".encode()
    text = text.replace(b'"header_crc32": "00000000"', b'"header_crc32": "' + crc + b'"')
    return len(text).to_bytes(8, "little") + text + data


def split(raw: bytes) -> tuple[dict[str, Any], bytes]:
    n = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8 : 8 + n]), raw[8 + n :]


def test_both_readers_give_back_what_was_written(tmp_path: Path):
    tensors, plan = tiny_parts()
    container.write_container(tmp_path / "net.lowbit", tensors, plan, {"a": [1, None]})
    back, back_plan, manifest = container.read_container(tmp_path / "net.lowbit")
    assert back_plan == plan and manifest == {"a": [1, None]}
    assert list(back) == list(tensors)
    for name in tensors:
        assert back[name].dtype == tensors[name].dtype
        np.testing.assert_array_equal(back[name], tensors[name])
    model = _core.Model.open(str(tmp_path / "net.lowbit"))
    assert json.loads(model.plan()) == plan and json.loads(model.manifest()) == manifest
    assert model.inputs() == [("x", "float32", (-1, 3))] and model.outputs() == [("y", "float32", (-1, 2))]
    assert [t[0] for t in model.tensors()] == ["x", "xq", "yq", "y"]
    assert [p.name for p in tmp_path.iterdir()] == ["net.lowbit"]


def test_it_is_a_valid_safetensors_file():
    from safetensors.numpy import load

    tensors, _ = tiny_parts()
    loaded = load(tiny_bytes())
    for name, value in tensors.items():
        np.testing.assert_array_equal(loaded[name], value)
    header, _ = split(tiny_bytes())
    assert all(e["data_offsets"][0] % 64 == 0 for n, e in header.items() if not n.startswith("__"))


def test_writing_is_deterministic_and_replaces_whole_files(tmp_path: Path):
    path = tmp_path / "net.lowbit"
    path.write_bytes(b"old")
    with pytest.raises(TypeError, match="float64"):
        container.write_container(path, {"w": np.zeros(2)}, {}, {})
    with pytest.raises(ValueError, match="reserved"):
        container.write_container(path, {"__pad_0": np.zeros(2, np.int8)}, {}, {})
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1
    container.write_container(path, *tiny_parts(), {"lowbit": "test"})
    assert path.read_bytes() == tiny_bytes()
    with pytest.raises(FileNotFoundError):
        container.write_container(tmp_path / "no" / "net.lowbit", *tiny_parts(), {})


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=8).filter(lambda s: not s.startswith("__")),
        st.tuples(st.sampled_from(["f4", "i4", "i1", "u1"]), st.lists(st.integers(0, 5), max_size=3)),
        max_size=5,
    )
)
@settings(max_examples=60, deadline=None)
def test_any_tensors_round_trip(spec: dict[str, tuple[str, list[int]]]):
    tensors = {k: np.ones(shape, dtype) for k, (dtype, shape) in spec.items()}
    back, _, _ = container.read_container(container.to_bytes(tensors, {}, {}))
    assert {k: (v.dtype, v.shape) for k, v in back.items()} == {k: (v.dtype, v.shape) for k, v in tensors.items()}


def both_refuse(raw: bytes) -> str:
    with pytest.raises(FormatError):
        container.read_container(raw)
    with pytest.raises(FormatError) as error:
        _core.Model.from_bytes(raw)
    return str(error.value)


def test_every_truncation_is_refused():
    raw = tiny_bytes()
    for size in range(len(raw)):
        both_refuse(raw[:size])
    both_refuse(raw + b"\0")


def test_every_bit_flip_is_refused():
    raw = bytearray(tiny_bytes())
    header, data = split(bytes(raw))
    begin = len(raw) - len(data)
    padding = {i for n, e in header.items() if n.startswith("__pad") for i in range(*e["data_offsets"])}
    for i in range(len(raw)):
        if i - begin in padding:
            continue
        raw[i] ^= 1 << (i % 8)
        both_refuse(bytes(raw))
        raw[i] ^= 1 << (i % 8)


def change_entry(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda h: h["fc.weight"].update(changes)


def change_meta(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda h: h["__metadata__"].update({key: value})


def swap_offsets(h: dict[str, Any]) -> None:
    h["fc.weight"]["data_offsets"], h["fc.bias"]["data_offsets"] = (
        h["fc.bias"]["data_offsets"],
        h["fc.weight"]["data_offsets"],
    )


HEADERS: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (change_meta("format", "other"), "format"),
    (change_meta("version", "2"), "version 2"),
    (change_meta("extra", "x"), "extra"),
    (change_meta("plan", 3), "plan"),
    (change_meta("manifest", "{"), "manifest"),
    (change_meta("crc32", "{}"), "missing"),
    (lambda h: h.pop("__metadata__"), "__metadata__"),
    (lambda h: h["__metadata__"].pop("plan"), "plan"),
    (change_entry(dtype="F64"), "F64"),
    (change_entry(dtype="F32"), "fc.weight"),
    (change_entry(shape=[2, 4]), "fc.weight"),
    (change_entry(shape=[2, -3]), "fc.weight"),
    (change_entry(shape=[2.0, 3]), "fc.weight"),
    (change_entry(shape=[2**62, 2**62, 0]), "fc.weight"),
    (change_entry(data_offsets=[64]), "fc.weight"),
    (change_entry(data_offsets=[64, 71]), "fc.weight"),
    (change_entry(data_offsets=[0, 6]), "inside"),
    (change_entry(more=1), "more"),
    (swap_offsets, "do not hold"),
    (lambda h: h.pop("fc.bias"), ""),
    (lambda h: h.pop("__pad_0"), "hole"),
]


@pytest.mark.parametrize("change, message", HEADERS, ids=range(len(HEADERS)))
def test_wrong_headers_are_refused(change: Callable[[dict[str, Any]], Any], message: str):
    header, data = split(tiny_bytes())
    change(header)
    if "__metadata__" in header:
        raw = resign(header, data)
    else:
        text = json.dumps(header).encode()
        text += b" " * (-(8 + len(text)) % 64)
        raw = len(text).to_bytes(8, "little") + text + data
    assert message in both_refuse(raw)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{",
        b"null",
        b'{"__metadata__":{}}',
        b"[" * 500,
        b'{"a":1,"a":1}',
        b"\xff\xfe",
        b'{"__metadata__":{"format":"lowbit","format":"lowbit"}}',
    ],
)
def test_headers_that_are_not_one(text: bytes):
    text += b" " * (-(8 + len(text)) % 64)
    both_refuse(len(text).to_bytes(8, "little") + text)
    both_refuse((2**63).to_bytes(8, "little") + text)


def plan_fault(change: Callable[[dict[str, Any], dict[str, np.ndarray]], Any]) -> str:
    tensors, plan = tiny_parts()
    change(plan, tensors)
    with pytest.raises(FormatError) as error:
        _core.Model.from_bytes(container.to_bytes(tensors, plan, {}))
    return str(error.value)


def set_at(*path: Any) -> Callable[[dict[str, Any], Any], None]:
    """set_at("ops", 1, "name", value): the plan with this member set."""

    def change(plan: dict[str, Any], _: Any) -> None:
        *where, key, value = path
        target: Any = plan
        for step in where:
            target = target[step]
        target[key] = value

    return change


def set_tensor(name: str, value: np.ndarray) -> Callable[[Any, dict[str, np.ndarray]], None]:
    return lambda _, tensors: tensors.update({name: value})


PLANS: list[tuple[Callable[[dict[str, Any], dict[str, np.ndarray]], Any], str]] = [
    (set_at("version", 2), "version 2"),
    (set_at("version", True), "version"),
    (set_at("more", 1), "more"),
    (set_at("tensors", {}), "lists"),
    (set_at("inputs", []), "at least one"),
    (set_at("inputs", [4]), "4"),
    (set_at("inputs", [0, 0]), "twice"),
    (set_at("inputs", [0, 1]), "written twice"),
    (set_at("outputs", [3, 3]), "named 'y'"),
    (set_at("tensors", 1, "dtype", "int4"), "int4"),
    (set_at("tensors", 1, "shape", [1, 3]), "-1"),
    (set_at("tensors", 1, "shape", [-1, 0]), ">= 1"),
    (set_at("tensors", 1, "shape", [-1, 2**31, 2**31]), "too large"),
    (set_at("tensors", 1, "shape", [-1] + [1] * 8), "dimensions"),
    (set_at("tensors", 1, "scale", 2), "'scale' is 2"),
    (set_at("tensors", 1, "scale", 2**64 - 1), "scale"),
    (set_at("tensors", 1, "zero_point", 128), "128"),
    (set_at("tensors", 1, "zero_point", 0.5), "zero_point"),
    (set_at("tensors", 1, "layout", "NCHW"), "NCHW"),
    (set_at("tensors", 1, "dynamic", True), "dynamic"),
    (set_at("tensors", 0, "scale", 0), "scale"),
    (set_at("tensors", 0, "typo", 0), "typo"),
    (lambda p, _: p["tensors"][1].pop("scale"), "scale"),
    (lambda p, _: p["tensors"].append({"name": "z", "dtype": "float32", "shape": [-1]}), "never written"),
    (set_at("ops", 1, "op", "gemv"), "unknown operator"),
    (set_at("ops", 1, "name", "in"), "named 'in'"),
    (set_at("ops", 1, "inputs", [3]), "before it is written"),
    (set_at("ops", 1, "inputs", []), "inputs"),
    (set_at("ops", 1, "outputs", [1]), "written twice"),
    (set_at("ops", 1, "outputs", []), "before it is written"),
    (set_at("ops", 1, "attrs", []), "attrs"),
    (set_at("ops", 1, "attrs", "low", 1), "low"),
    (set_at("ops", 1, "attrs", "lo", -129), "-129"),
    (set_at("ops", 1, "attrs", {"lo": 5, "hi": 4}), "above"),
    (set_at("ops", 1, "attrs", "rounding", "up"), "rounding"),
    (set_at("ops", 1, "attrs", "weight_zero_point", 128), "128"),
    (set_at("ops", 1, "params", "weight", "nothing"), "nothing"),
    (set_at("ops", 1, "params", "slope", "fc.bias"), "slope"),
    (set_at("ops", 1, "params", "bias", "fc.weight"), "int8"),
    (lambda p, _: p["ops"][1]["params"].pop("weight"), "weight"),
    (lambda p, _: p["ops"].pop(), "never written"),
    (set_tensor("activation_scales", np.array([0.5, np.nan], np.float32)), "finite"),
    (set_tensor("activation_scales", np.array([0.5, 0.0], np.float32)), "> 0"),
    (set_tensor("activation_scales", np.array([1e38, 1e-30], np.float32)), "multiplier"),
    (set_tensor("fc.weight", np.zeros((2, 4), np.int8)), "(2, 4)"),
    (set_tensor("fc.weight", np.zeros((3, 2), np.int8)), "(3, 2)"),
    (set_tensor("fc.weight", np.zeros((2, 3), np.float32)), "float32"),
    (set_tensor("fc.weight_scale", np.array([np.inf], np.float32)), "finite"),
    (set_tensor("fc.weight_scale", np.array([-1], np.float32)), "> 0"),
    (set_tensor("fc.weight_scale", np.ones(3, np.float32)), "(3,)"),
    (set_tensor("fc.bias", np.zeros(3, np.int32)), "(3,)"),
]


@pytest.mark.parametrize("change, message", PLANS, ids=range(len(PLANS)))
def test_wrong_plans_are_refused(change: Callable[[dict[str, Any], dict[str, np.ndarray]], Any], message: str):
    assert message in plan_fault(change)


def test_sums_that_can_exceed_int32_are_refused():
    def change(depth: int) -> bytes:
        tensors, plan = tiny_parts()
        tensors["fc.weight"] = np.zeros((2, depth), np.int8)
        for t in plan["tensors"][:2]:
            t["shape"] = [-1, depth]
        plan["tensors"][1]["zero_point"] = -128
        return container.to_bytes(tensors, plan, {})

    limit = (2**31 - 1) // (255 * 128)
    _core.Model.from_bytes(change(limit))
    with pytest.raises(FormatError, match="int32"):
        _core.Model.from_bytes(change(limit + 1))


def test_missing_files_and_folders(tmp_path: Path):
    with pytest.raises(RuntimeError, match="No such file"):
        _core.Model.open(str(tmp_path / "none.lowbit"))
    with pytest.raises(RuntimeError, match="cannot read"):
        _core.Model.open(str(tmp_path))
    (tmp_path / "empty.lowbit").write_bytes(b"")
    with pytest.raises(FormatError, match=r"empty\.lowbit"):
        _core.Model.open(str(tmp_path / "empty.lowbit"))


GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize("name", sorted(p.stem for p in (GOLDEN / "good").glob("*.lowbit")))
def test_golden_files_give_what_they_gave(name: str):
    cases = json.loads((GOLDEN / "good" / f"{name}.json").read_text())

    def arrays(kind: str) -> dict[str, np.ndarray]:
        return {
            key: np.frombuffer(bytes.fromhex(a["hex"]), a["dtype"]).reshape(a["shape"])
            for key, a in cases[kind].items()
        }

    model = _core.Model.open(str(GOLDEN / "good" / f"{name}.lowbit"))
    container.read_container(GOLDEN / "good" / f"{name}.lowbit")
    for isa in _core.isas():
        outputs = _core.Session(model, isa=isa).run(arrays("inputs"))
        assert outputs.keys() == arrays("outputs").keys()
        for key, expected in arrays("outputs").items():
            np.testing.assert_array_equal(outputs[key], expected, isa)


@pytest.mark.parametrize("name, words", json.loads((GOLDEN / "bad" / "errors.json").read_text()).items())
def test_golden_bad_files_are_refused(name: str, words: str):
    path = GOLDEN / "bad" / f"{name}.lowbit"
    with pytest.raises(FormatError) as error:
        _core.Model.open(str(path))
    assert words in str(error.value) and str(path) in str(error.value)


def test_there_are_golden_files():
    assert len(list((GOLDEN / "good").glob("*.lowbit"))) >= 2
    assert {p.stem for p in (GOLDEN / "bad").glob("*.lowbit")} == set(
        json.loads((GOLDEN / "bad" / "errors.json").read_text())
    )
