"""A whole integer-only network in NumPy whole numbers: no float between the first quantize and the last product.

Written from the papers' formulas (Jacob et al. 2018, sections 2.2 to 2.4; gemmlowp's fixedpoint.h; TensorFlow Lite's
add) and docs/format.md, apart from plan_reference.py. Multipliers come from the scales once, before anything runs, in
exact fractions; then every array is checked to hold whole numbers. Only two places know floats: ``quantize`` on the way
in, and the last product, whose int32 sums become float32 on the way out.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

INT = np.int64
LIMITS = {"int8": (-128, 127), "uint8": (0, 255)}


def normalised(value: Fraction) -> tuple[int, int]:
    """(m0, shift): value = m0 * 2^(shift - 31), m0 of 31 bits, half to even; below 2^-33 nothing remains."""
    shift = 0
    while value >= 1:
        value, shift = value / 2, shift + 1
    while value < Fraction(1, 2):
        value, shift = value * 2, shift - 1
    m0 = round(value * 2**31)
    if m0 == 2**31:
        m0, shift = m0 // 2, shift + 1
    return (m0, shift) if shift >= -32 else (2**30, -32)


def exact(x: Any) -> Fraction:
    return Fraction(float(np.float32(x)))


def to_float32(value: Fraction) -> Fraction:
    """What the file's format stores: a float64 quotient, rounded to float32."""
    return exact(float(value))


def gemmlowp(x: np.ndarray, m0: int, shift: int) -> np.ndarray:
    """SaturatingRoundingDoublingHighMul, then RoundingDivideByPOT."""
    x = np.clip(x.astype(INT) << max(shift, 0), -(2**31), 2**31 - 1)
    ab = x * m0
    nudged = ab + np.where(ab >= 0, 2**30, 1 - 2**30)
    high = np.where(nudged >= 0, nudged >> 31, -(-nudged >> 31))  # C's division truncates
    n = max(-shift, 0)
    mask = (1 << n) - 1
    return (high >> n) + ((high & mask) > (mask >> 1) + (high < 0))


def single(x: np.ndarray, m0: int, shift: int) -> np.ndarray:
    """One rounding, half up, of the 64-bit product."""
    n = 31 - shift
    half = 1 << (n - 1)
    product = x.astype(INT) * m0
    if n < 62 and np.abs(product).max(initial=0) < 2**62 - half:
        return (product + half) >> n
    return ((product.astype(object) + half) >> n).astype(INT)  # Python's own whole numbers, where 64 bits are tight


ROUNDINGS = {"gemmlowp": gemmlowp, "single": single}


class IntegerNet:
    """``IntegerNet(plan).run({"input": x})``: codes of every tensor by index, and the network's outputs by name."""

    def __init__(self, data: dict[str, Any], files: dict[str, np.ndarray]):
        self.data, self.files = data, files
        self.scale = {
            i: exact(files["activation_scales"][t["scale"]]) for i, t in enumerate(data["tensors"]) if "scale" in t
        }
        self.zero = {i: t["zero_point"] for i, t in enumerate(data["tensors"]) if "scale" in t}
        self.prepared = [getattr(self, "make_" + op["op"])(op) for op in data["ops"]]  # all that needs fractions

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.codes: dict[int, np.ndarray] = {}
        self.floats = {i: inputs[self.data["tensors"][i]["name"]] for i in self.data["inputs"]}
        for op, run in zip(self.data["ops"], self.prepared, strict=True):
            (out,) = op["outputs"]
            result = run(*[self.floats[i] if i in self.floats else self.codes[i] for i in op["inputs"]])
            if self.data["tensors"][out]["dtype"] == "float32":
                assert out in self.data["outputs"] or all(
                    later["op"] == "reshape" for later in self.data["ops"] if out in later["inputs"]
                ), f"{op['name']}: floats inside the network"
                self.floats[out] = result
            else:
                lo, hi = LIMITS[self.data["tensors"][out]["dtype"]]
                assert result.dtype.kind == "i" and result.min(initial=lo) >= lo and result.max(initial=hi) <= hi
                self.codes[out] = result.astype(INT)
        return {self.data["tensors"][i]["name"]: self.floats[i] for i in self.data["outputs"]}

    # Preparation gives closures over whole numbers --------------------------------------------------------------------

    def is_real(self, i: int) -> bool:
        return self.data["tensors"][i]["dtype"] == "float32"

    def rounding(self, op: dict[str, Any]) -> Any:
        return ROUNDINGS[op.get("attrs", {})["rounding"]]  # an integer-only plan says one

    def limits(self, op: dict[str, Any]) -> tuple[int, int]:
        lo, hi = LIMITS[self.data["tensors"][op["outputs"][0]]["dtype"]]
        attrs = op.get("attrs", {})
        return max(lo, attrs.get("lo", lo)), min(hi, attrs.get("hi", hi))

    def params(self, op: dict[str, Any]) -> dict[str, np.ndarray]:
        return {role: self.files[name] for role, name in op.get("params", {}).items()}

    def make_quantize(self, op: dict[str, Any]) -> Any:
        scale, zero, (lo, hi) = (
            np.float32(float(self.scale[op["outputs"][0]])),
            self.zero[op["outputs"][0]],
            self.limits(op),
        )

        def run(x: np.ndarray) -> np.ndarray:  # the way in
            x = x.transpose(0, 2, 3, 1) if op.get("attrs", {}).get("nchw_to_nhwc") else x
            return np.clip(np.rint(x / scale).astype(INT) + zero, lo, hi)

        return run

    def make_dequantize(self, op: dict[str, Any]) -> Any:
        scale, zero = np.float32(float(self.scale[op["inputs"][0]])), self.zero[op["inputs"][0]]
        return lambda q: (q - zero).astype(np.float32) * scale  # the way out

    def product(self, op: dict[str, Any], multiply: Any) -> Any:
        x, out, params, attrs = op["inputs"][0], op["outputs"][0], self.params(op), op.get("attrs", {})
        weight = params["weight"].astype(INT) - attrs.get("weight_zero_point", 0)
        bias = params.get("bias", np.zeros(1)).astype(INT)
        scales = [self.scale[x] * exact(s) for s in params["weight_scale"]]
        z_x = self.zero[x]
        if self.is_real(out):
            assert len(op["inputs"]) == 1 and "float_bias" not in params
            m = np.array([float(to_float32(s)) for s in scales], np.float32)
            clamp = np.float32(attrs.get("min", -np.inf)), np.float32(attrs.get("max", np.inf))

            def finish(q: np.ndarray) -> np.ndarray:  # the way out
                acc = multiply(q - z_x, weight) + bias
                return np.clip(acc.astype(np.float32) * m, *clamp)

            return finish
        pairs = [normalised(to_float32(s / self.scale[out])) for s in scales] * (len(weight) if len(scales) == 1 else 1)
        rounded, z_y, (lo, hi) = self.rounding(op), self.zero[out], self.limits(op)
        if len(op["inputs"]) > 1:
            r = op["inputs"][1]
            z_r, ratio = self.zero[r], normalised(to_float32(self.scale[r] / self.scale[out]) / 2**16)

        def run(q: np.ndarray, residual: np.ndarray | None = None) -> np.ndarray:
            acc = multiply(q - z_x, weight) + bias
            assert acc.dtype == INT and np.abs(acc).max(initial=0) < 2**31
            v = np.stack([rounded(acc[..., j], *pairs[j]) for j in range(acc.shape[-1])], axis=-1)
            if residual is not None:
                v = v + rounded((residual - z_r) << 16, *ratio)
            return np.clip(v + z_y, lo, hi)

        return run

    def make_conv2d(self, op: dict[str, Any]) -> Any:
        return self.product(op, lambda x, w: convolve(x, w, op.get("attrs", {})))

    def make_gemm(self, op: dict[str, Any]) -> Any:
        return self.product(op, lambda x, w: x @ w.T)

    def make_add(self, op: dict[str, Any]) -> Any:
        (a, b), out, rounded, (lo, hi) = op["inputs"], op["outputs"][0], self.rounding(op), self.limits(op)
        s = 2 * max(self.scale[a], self.scale[b])
        of_a, of_b = (normalised(Fraction(float(self.scale[i] / s))) for i in (a, b))
        of_sum = normalised(Fraction(float(s / 2**20 / self.scale[out])))
        z_a, z_b, z_y = self.zero[a], self.zero[b], self.zero[out]

        def run(p: np.ndarray, q: np.ndarray) -> np.ndarray:
            total = rounded((p - z_a) << 20, *of_a) + rounded((q - z_b) << 20, *of_b)
            return np.clip(rounded(total, *of_sum) + z_y, lo, hi)

        return run

    def make_mul(self, op: dict[str, Any]) -> Any:
        (a, b), out, rounded, (lo, hi) = op["inputs"], op["outputs"][0], self.rounding(op), self.limits(op)
        ratio = normalised(Fraction(float(self.scale[a]) * float(self.scale[b]) / float(self.scale[out])))
        z_a, z_b, z_y = self.zero[a], self.zero[b], self.zero[out]
        return lambda p, q: np.clip(rounded((p - z_a) * (q - z_b), *ratio) + z_y, lo, hi)

    def make_average_pool(self, op: dict[str, Any]) -> Any:
        (x,), (out,), attrs, rounded = op["inputs"], op["outputs"], op["attrs"], self.rounding(op)
        m0, shift = normalised(Fraction(float(self.scale[x]) / float(self.scale[out])))
        same, z_x, z_y = self.scale[x] == self.scale[out], self.zero[x], self.zero[out]
        lo, hi = LIMITS[self.data["tensors"][out]["dtype"]]
        kernel = attrs["kernel"]

        def mean(part: np.ndarray, count: int) -> np.ndarray:
            k = max(k for k in range(64) if ((m0 << (k + 1)) + count) // (2 * count) < 2**31)
            headroom = max(23 - (count - 1).bit_length(), 0)
            pair = ((m0 << (k + 1)) + count) // (2 * count), shift - k - headroom
            return rounded(part << headroom, *(pair if pair[1] >= -32 else (2**30, -32)))

        def run(q: np.ndarray) -> np.ndarray:
            total = windows(q - z_x, kernel, attrs).sum(axis=(4, 5))
            ones = np.ones((1, *q.shape[1:3], 1), INT)
            if attrs.get("count_include_pad"):
                ones, at = np.ones_like(np.pad(ones, _padding(attrs))), {**attrs, "pads": [0, 0, 0, 0]}
            else:
                at = attrs
            count = np.maximum(windows(ones, kernel, at).sum(axis=(4, 5)), 1)[0, :, :, 0]
            v = np.empty_like(total)
            for i, j in np.ndindex(count.shape):
                n = int(count[i, j])
                part = total[:, i, j]
                v[:, i, j] = (2 * part + n) // (2 * n) if same else mean(part, n)
            return np.clip(v + z_y, lo, hi)

        return run

    def make_max_pool(self, op: dict[str, Any]) -> Any:
        attrs, lowest = op["attrs"], LIMITS[self.data["tensors"][op["inputs"][0]]["dtype"]][0]

        def run(q: np.ndarray) -> np.ndarray:
            q = np.pad(q, _padding(attrs), constant_values=lowest)
            return windows(q, attrs["kernel"], {**attrs, "pads": [0, 0, 0, 0]}).max(axis=(4, 5))

        return run

    def make_lookup(self, op: dict[str, Any]) -> Any:
        table, signed = self.params(op)["table"], self.data["tensors"][op["inputs"][0]]["dtype"] == "int8"
        assert table.dtype.kind in "iu", "a table of floats inside the network"
        table = table.astype(INT)

        def run(q: np.ndarray) -> np.ndarray:
            byte = q & 255 if signed else q
            return table[byte] if table.ndim == 1 else table[np.arange(table.shape[0]), byte]

        return run

    def make_concat(self, op: dict[str, Any]) -> Any:
        return lambda *parts: np.concatenate(parts, axis=op["attrs"]["axis"])

    def make_reshape(self, op: dict[str, Any]) -> Any:
        return lambda q: q.reshape(q.shape[0], *self.data["tensors"][op["outputs"][0]]["shape"][1:])

    def make_transpose(self, op: dict[str, Any]) -> Any:
        return lambda q: q.transpose(op["attrs"]["perm"])

    def make_slice(self, op: dict[str, Any]) -> Any:
        shape, attrs = self.data["tensors"][op["outputs"][0]]["shape"], op["attrs"]

        def run(q: np.ndarray) -> np.ndarray:
            for axis in range(1, q.ndim):
                q = q.take(attrs["starts"][axis] + attrs["steps"][axis] * np.arange(shape[axis]), axis=axis)
            return q

        return run

    def make_pad(self, op: dict[str, Any]) -> Any:
        attrs = op["attrs"]
        assert attrs.get("value", 0.0) == 0.0
        width = list(zip(attrs["before"], attrs["after"], strict=True))
        return lambda q: np.pad(q, width, constant_values=self.zero[op["outputs"][0]])


def _padding(attrs: dict[str, Any]) -> list[tuple[int, int]]:
    top, left, bottom, right = attrs.get("pads", [0, 0, 0, 0])
    return [(0, 0), (top, bottom), (left, right), (0, 0)]


def windows(x: np.ndarray, kernel: list[int], attrs: dict[str, Any]) -> np.ndarray:
    """(n, oh, ow, c, kh, kw) of x padded with 0."""
    (dh, dw), (sh, sw) = attrs.get("dilations", [1, 1]), attrs.get("strides", [1, 1])
    x = np.pad(x, _padding(attrs))
    view = sliding_window_view(x, ((kernel[0] - 1) * dh + 1, (kernel[1] - 1) * dw + 1), axis=(1, 2))
    return view[:, ::sh, ::sw, :, ::dh, ::dw]


def convolve(x: np.ndarray, w: np.ndarray, attrs: dict[str, Any]) -> np.ndarray:
    """int64 (n, h, w, c) by (oc, kh, kw, c / groups)."""
    oc, kh, kw, depth = w.shape
    groups = attrs.get("groups", 1)
    view = windows(x, [kh, kw], attrs)
    n, oh, ow = view.shape[:3]
    out = np.empty((n, oh, ow, oc), INT)
    step = oc // groups
    for g in range(groups):
        rows = view[:, :, :, g * depth : (g + 1) * depth].reshape(n * oh * ow, depth * kh * kw)
        weights = w[g * step : (g + 1) * step].transpose(3, 1, 2, 0).reshape(depth * kh * kw, step)
        out[..., g * step : (g + 1) * step] = (rows @ weights).reshape(n, oh, ow, step)
    return out
