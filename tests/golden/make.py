"""Makes the golden files beside it: good ones with inputs and outputs, bad ones with what their error says.

They are kept in the repository so that a later reader still opens what this version wrote and refuses what it refused.
Run it again only to add files, never to change one: ``python tests/golden/make.py`` leaves existing files alone.
"""

import functools
import json
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "python"))

import lowbit  # noqa: E402
from lowbit import _core  # noqa: E402
from onnx_nets import net as onnx_net  # noqa: E402
from onnx_nets import node  # noqa: E402
from tiny_nets import Net  # noqa: E402


def dense() -> Net:
    """quantize, gemm with residual, dequantize."""
    net = Net(1)
    x = net.input("float32", (6,))
    q = net.op("quantize", [x], net.tensor("int8", (6,), 0.1, 3))
    h = net.op("gemm", [q], net.tensor("int8", (6,), 0.1, 3), net.weights(6, 6), lo=-127)
    y = net.op(
        "gemm", [h, q], net.tensor("int8", (6,), 0.15, -4), net.weights(6, 6, dtype="uint8"), weight_zero_point=128
    )
    return net.outputs(net.op("dequantize", [y], net.tensor("float32", (6,))))


def convolutional() -> Net:
    """Stem, depthwise, fire module, pools, look-up, float output; all three roundings."""
    net = Net(2)
    x = net.input("uint8", (6, 6, 3))
    q = net.tensor("int8", (6, 6, 3), 0.02, -3)
    net.op("lookup", [x], q, {"table": np.arange(-128, 128, dtype=np.int8)})
    a = net.tensor("int8", (6, 6, 4), 0.1, 0)
    net.op("conv2d", [q], a, net.weights(4, 3, 3, 3), pads=[1, 1, 1, 1], lo=0, rounding="gemmlowp")
    b = net.op("conv2d", [a], net.like(a), net.weights(4, 3, 3, 1), pads=[1, 1, 1, 1], groups=4, rounding="single")
    c = net.op("concat", [a, b], net.like(a, 6, 6, 8), axis=3)
    p = net.op("max_pool", [c], net.like(a, 3, 3, 8), kernel=[2, 2], strides=[2, 2])
    m = net.op("average_pool", [p], net.tensor("int8", (1, 1, 8), 0.05, 1), kernel=[3, 3])
    f = net.op("reshape", [m], net.like(m, 8))
    return net.outputs(net.op("gemm", [f], net.tensor("float32", (5,)), net.weights(5, 8)), p)


def binary() -> Net:
    """Bits: thresholds whole and real, both outputs of a product, a residual, pools, rows that are no whole words."""
    net = Net(3)

    def packed(n: int) -> np.ndarray:
        return np.packbits(net.rng.integers(0, 2, n, dtype=np.uint8), bitorder="little")

    def floats(*shape: int) -> np.ndarray:
        return net.rng.normal(size=shape).astype(np.float32)

    flip = net.rng.integers(0, 2, 33, dtype=np.uint8)
    whole = net.rng.integers(-9, 9, 33, dtype=np.int32)
    x = net.input("float32", (5, 4, 6))
    b = net.op("binarize", [x], net.tensor("bits", (5, 4, 6)), {"threshold": floats(6)})
    attrs = {"kernel": [3, 3], "pads": [1, 1, 1, 1], "pad_value": 1}
    bits = net.tensor("bits", (5, 4, 33))
    c = net.op("xnor_conv2d", [b], bits, {"weight": packed(33 * 9 * 6), "threshold": whole, "flip": flip}, **attrs)
    d = net.op("xnor_conv2d", [c], net.tensor("float32", (5, 4, 33)), {"weight": packed(33 * 33)}, kernel=[1, 1])
    y = [net.tensor("float32", (5, 4, 33)), net.like(bits)]
    params = {"weight": packed(33 * 9 * 33), "scale": floats(33), "bias": floats(33), "threshold": floats(33)}
    net.op("xnor_conv2d", [c, d], y[0], params, **{**attrs, "pad_value": 0})
    net.plan["ops"][-1]["outputs"] = y
    p = net.op("max_pool", [y[1]], net.like(bits, 2, 2, 33), {"flip": flip}, kernel=[2, 2], strides=[2, 2])
    f = net.op("reshape", [p], net.like(bits, 2 * 2 * 33))
    z = net.op("xnor_gemm", [f], net.tensor("float32", (4,)), {"weight": packed(4 * 132), "scale": floats(1)})
    return net.outputs(z)


def few_bits() -> Net:
    """Packed weights of 2 to 7 bits: convolution, groups, depthwise, product."""
    net = Net(4)
    x = net.input("float32", (5, 5, 6))
    q = net.op("quantize", [x], net.tensor("int8", (5, 5, 6), 0.4, 0), lo=-7, hi=7)
    codes = net.tensor("uint8", (5, 5, 6), 0.3, 0)
    a = net.op("conv2d", [q], codes, net.packed(4, 6, 3, 3, 6), bits=4, kernel=[3, 3], pads=[1, 1, 1, 1], hi=15)
    attrs = {"kernel": [3, 3], "pads": [1, 1, 1, 1], "hi": 7}
    b = net.op("conv2d", [a, a], net.like(codes), net.packed(3, 6, 3, 3, 1), bits=3, groups=6, **attrs)
    c = net.op("conv2d", [b], net.like(codes), net.packed(7, 6, 1, 1, 3), bits=7, groups=2)
    f = net.op("reshape", [c], net.like(codes, 150))
    return net.outputs(net.op("gemm", [f], net.tensor("float32", (5,)), net.packed(2, 5, 150), bits=2), c)


def sixteenths(net: Net, *shape: int) -> np.ndarray:
    """Numbers whose sums of products are exact in float32, whatever their order."""
    return (net.rng.integers(-24, 25, shape) / 16).astype(np.float32)


def planes() -> Net:
    """Levels of 2, 3 and 1 bits: products on planes and in float32, both outputs of one, a residual, a Linear."""
    net = Net(7)

    def steps(bits: int) -> dict[str, np.ndarray]:
        order = net.rng.permutation(2**bits).astype(np.uint8)
        return {"threshold": np.sort(sixteenths(net, 2**bits - 1)), "codes": order}

    def product(w_bits: int, x_bits: int, n: int, k: int) -> dict[str, np.ndarray]:
        signs = net.rng.integers(0, 2, (w_bits, n * k), dtype=np.uint8)
        return {
            "weight": np.packbits(signs, axis=1, bitorder="little"),
            "weight_basis": sixteenths(net, w_bits, n),
            "input_basis": sixteenths(net, x_bits),
            "bias": sixteenths(net, n),
        }

    x = net.input("float32", (4, 3, 32))
    q = net.op("quantize_levels", [x], net.tensor("planes", (4, 3, 32), bits=2), steps(2))
    attrs = {"kernel": [3, 3], "pads": [1, 1, 1, 1]}
    y = [net.tensor("float32", (4, 3, 20)), net.tensor("planes", (4, 3, 20), bits=3)]
    net.op("conv2d_bitserial", [q], y[0], product(2, 2, 20, 288) | steps(3), **attrs)
    net.plan["ops"][-1]["outputs"] = y
    a = net.tensor("planes", (4, 3, 20), bits=1)
    net.op("conv2d_bitserial", [y[1], y[0]], a, product(4, 3, 20, 180) | steps(1), **attrs, min=-1.0, max=2.0)
    basis = sixteenths(net, 1)
    f = net.op("dequantize_levels", [a], net.tensor("float32", (4, 3, 20)), {"basis": basis})
    f = net.op("reshape", [f], net.tensor("float32", (240,)))
    g = net.op("quantize_levels", [f], net.tensor("planes", (240,), bits=1), {**steps(1), "threshold": basis / 2})
    return net.outputs(net.op("gemm_bitserial", [g], net.tensor("float32", (5,)), product(3, 1, 5, 240)), y[0])


def codebooks() -> Net:
    """Codebooks per output channel and per group of columns: on codes (int8) and on float32."""
    net = Net(8)

    def weight(bits: int, count: int) -> np.ndarray:
        codes = net.rng.integers(0, 1 << bits, count, dtype=np.uint8)
        stream = (codes[:, None] >> np.arange(bits, dtype=np.uint8) & 1).astype(np.uint8)
        return np.packbits(stream, bitorder="little")

    x = net.input("float32", (5, 4, 6))
    q = net.op("quantize", [x], net.tensor("int8", (5, 4, 6), 0.125, -3))
    params = {
        "weight": weight(3, 10 * 9 * 6),
        "codebook": net.rng.integers(-127, 128, (10, 8), dtype=np.int8),
        "weight_scale": net.rng.uniform(0.001, 0.002, 10).astype(np.float32),
    }
    codes = net.tensor("uint8", (5, 4, 10), 0.125, 0)
    a = net.op("conv2d_codebook", [q], codes, params, kernel=[3, 3], pads=[1, 1, 1, 1], bits=3)
    f = net.op("dequantize", [a], net.tensor("float32", (5, 4, 10)))
    params = {"weight": weight(4, 8 * 9 * 10), "codebook": sixteenths(net, 8, 16), "bias": sixteenths(net, 8)}
    b = net.tensor("float32", (3, 2, 8))
    net.op("conv2d_codebook", [f], b, params, kernel=[3, 3], bits=4, min=0.0)
    g = net.op("reshape", [b], net.tensor("float32", (48,)))
    params = {"weight": weight(2, 5 * 48), "codebook": sixteenths(net, 3, 4), "bias": sixteenths(net, 5)}
    return net.outputs(net.op("gemm_codebook", [g], net.tensor("float32", (5,)), params, bits=2, group_size=20), b)


Arrays = dict[str, np.ndarray]


def compressed() -> tuple[bytes, Arrays, Arrays]:
    """A convolution and two products, pruned, shared and Huffman-coded; the last product's form is sparse."""
    rng = np.random.default_rng(5)

    def floats(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        node("Relu", ["c"], ["r"]),
        node("GlobalAveragePool", ["r"], ["p"]),
        node("Flatten", ["p"], ["f"]),
        node("Gemm", ["f", "w2"], ["g"], name="fc1"),
        node("Gemm", ["g", "w3", "b3"], ["y"], name="fc2"),
    ]
    weights = {"w1": floats(8, 3, 3, 3), "b1": floats(8), "w2": floats(8, 32), "w3": floats(32, 4), "b3": floats(4)}
    file = onnx_net(nodes, {"x": (3, 5, 5)}, weights)
    model = lowbit.compress(file, sparsity={"conv|fc1": 0.3, "fc2": 0.9}, bits={"op:Conv": 5, "op:Gemm": 3})
    x = {"x": floats(2, 3, 5, 5)}
    return model.to_bytes(), x, {"y": model.run(x["x"], isa="scalar")}  # the scalar variants define what is right


def uniform() -> tuple[bytes, Arrays, Arrays]:
    """A net converted to int:4/3, its last layer's weights alone in 3 bits."""
    rng = np.random.default_rng(6)

    def floats(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c"], name="conv1", pads=[1, 1, 1, 1]),
        node("Relu", ["c"], ["r"]),
        node("Conv", ["r", "w2"], ["d"], name="conv2", pads=[1, 1, 1, 1]),
        node("Add", ["d", "r"], ["a"]),
        node("Relu", ["a"], ["s"]),
        node("GlobalAveragePool", ["s"], ["p"]),
        node("Flatten", ["p"], ["f"]),
        node("Gemm", ["f", "w3", "b3"], ["y"], name="fc"),
    ]
    weights = {"w1": floats(8, 3, 3, 3), "b1": floats(8), "w2": floats(8, 8, 3, 3), "w3": floats(8, 4), "b3": floats(4)}
    file = onnx_net(nodes, {"x": (3, 5, 5)}, weights)
    x = floats(2, 3, 5, 5)
    model = lowbit.convert(file, "int:4/3", [x], {"fc": "int:3/32"})
    return model.to_bytes(), {"x": x}, {"y": model.run(x, isa="scalar")}


def built(build: Callable[[], Net]) -> tuple[bytes, Arrays, Arrays]:
    """The file, an input and what it gives."""
    net = build()
    inputs = net.random_inputs(2)
    return net.bytes(), inputs, net.reference(inputs)[0]


def split(raw: bytes) -> tuple[dict[str, Any], bytes]:
    n = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8 : 8 + n]), raw[8 + n :]


def sealed(header: dict[str, Any], data: bytes) -> bytes:
    header["__metadata__"]["header_crc32"] = "00000000"
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % 64)
    at = text.index(b'"header_crc32": "') + 17
    text = text[:at] + f"{zlib.crc32(text):08x}".encode() + text[at + 8 :]
    return len(text).to_bytes(8, "little") + text + data


def with_header(raw: bytes, change: Callable[[dict[str, Any]], Any]) -> bytes:
    header, data = split(raw)
    change(header)
    return sealed(header, data)


def with_plan(raw: bytes, change: Callable[[dict[str, Any]], Any]) -> bytes:
    def edit(header: dict[str, Any]) -> None:
        plan = json.loads(header["__metadata__"]["plan"])
        change(plan)
        header["__metadata__"]["plan"] = json.dumps(plan)

    return with_header(raw, edit)


def bad_files(good: bytes) -> dict[str, tuple[bytes, str]]:
    """Name -> bytes, and words of the error."""
    flipped = bytearray(good)
    flipped[-8] ^= 4
    twice = good[8 : 8 + int.from_bytes(good[:8], "little")].rstrip()
    twice = twice.replace(b'"dtype": "I32"', b'"dtype": "I32", "dtype": "I32"')
    twice += b" " * (-(8 + len(twice)) % 64)
    return {
        "empty": (b"", "not a file"),
        "cut_header": (good[:100], "cut off"),
        "cut_data": (good[:-1], "data_offsets"),
        "longer": (good + bytes(64), "bytes after the last tensor"),
        "flipped_weight": (bytes(flipped), "the checksum is"),
        "flipped_header": (good.replace(b"quantize_0", b"quantize_1", 1), "the header's checksum"),
        "newer_version": (with_header(good, lambda h: h["__metadata__"].update(version="2")), "newer lowbit"),
        "not_lowbit": (with_header(good, lambda h: h["__metadata__"].update(format="pt")), "format"),
        "duplicate_key": (len(twice).to_bytes(8, "little") + twice + split(good)[1], "duplicate key"),
        "huge_header": ((2**60).to_bytes(8, "little") + good[8:], "header of"),
        "hole": (with_header(good, lambda h: h.pop("__pad_1")), "after a hole"),
        "overlap": (
            with_header(good, lambda h: h["gemm_1.bias"].update(data_offsets=[128, 152])),
            "inside the one before",
        ),
        "unknown_op": (with_plan(good, lambda p: p["ops"][1].update(op="gemv")), "unknown operator"),
        "wrong_shape": (with_plan(good, lambda p: p["tensors"][2].update(shape=[-1, 7])), "gemm_1"),
        "reads_ahead": (with_plan(good, lambda p: p["ops"][1].update(inputs=[4])), "before it is written"),
        "unknown_attribute": (with_plan(good, lambda p: p["ops"][1]["attrs"].update(low=1)), "low"),
        "bad_zero_point": (with_plan(good, lambda p: p["tensors"][1].update(zero_point=200)), "200"),
    }


def write(path: Path, data: bytes) -> bool:
    if path.exists():
        return False
    path.write_bytes(data)
    return True


def main() -> None:
    made = {
        build.__name__: functools.partial(built, build)
        for build in (dense, convolutional, binary, few_bits, planes, codebooks)
    }
    for name, make in (made | {"compressed": compressed, "uniform": uniform}).items():
        path = HERE / "good" / f"{name}.lowbit"
        if path.exists():
            continue
        data, inputs, outputs = make()
        path.write_bytes(data)
        cases = {
            kind: {
                key: {"dtype": str(a.dtype), "shape": a.shape, "hex": a.tobytes().hex()} for key, a in arrays.items()
            }
            for kind, arrays in (("inputs", inputs), ("outputs", outputs))
        }
        path.with_suffix(".json").write_text(json.dumps(cases, indent=1) + "\n")
    expected_path = HERE / "bad" / "errors.json"
    expected = json.loads(expected_path.read_text()) if expected_path.exists() else {}
    for name, (data, words) in bad_files((HERE / "good" / "dense.lowbit").read_bytes()).items():
        if write(HERE / "bad" / f"{name}.lowbit", data):
            expected[name] = words
            try:
                _core.Model.from_bytes(data)
                raise SystemExit(f"{name} opens")
            except ValueError as error:
                if words not in str(error):
                    raise SystemExit(f"{name}: {error}, not {words!r}") from None
    expected_path.write_text(json.dumps(expected, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
