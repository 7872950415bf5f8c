"""What a plan means, in plain NumPy: docs/format.md, requantize.h and pointwise.h written out. Slow, and bit for bit
on codes.

Float layers (conv2d_f32, gemm_f32, unary, softmax, ...) are computed in float64 and rounded once: the engine agrees
within
float32's rounding, not in every bit.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

import lowbit

F = np.float32
RANGE = {"int8": (-128, 127), "uint8": (0, 255)}


def sat(f, zero, lo, hi):
    """zero + rne(min(max(f, lo - zero), hi - zero)) on float32."""
    f = np.fmin(np.fmax(f, F(lo - zero)), F(hi - zero))
    return (np.rint(f).astype(np.int64) + zero).astype(np.int64)


def doubling_high_mul(a, b):
    ab = a.astype(np.int64) * np.int64(b)
    nudge = np.where(ab >= 0, 1 << 30, 1 - (1 << 30))
    total = ab + nudge
    q = np.where(total >= 0, total >> 31, -((-total) >> 31))
    return np.where((a == -(2**31)) & (b == -(2**31)), 2**31 - 1, q)


def rounding_shift(x, n):
    mask = (1 << n) - 1
    remainder = x & mask
    threshold = (mask >> 1) + (x < 0)
    return (x >> n) + (remainder > threshold)


def fixed_point(scale):
    """(m0, shift) with scale = m0 * 2^(shift - 31)."""
    m, e = math.frexp(float(scale))
    m0 = int(np.rint(m * 2.0**31))
    if m0 == 2**31:
        m0, e = m0 // 2, e + 1
    return m0, e


def scale_fixed(v, scale, rounding):
    return scale_pair(v, *fixed_point(scale), rounding)


def scale_pair(v, m0, shift, rounding):
    if rounding == "gemmlowp":
        left = np.clip(v.astype(np.int64) << min(max(shift, 0), 31), -(2**31), 2**31 - 1)
        right = max(-shift, 0)
        high = doubling_high_mul(left, m0)
        return rounding_shift(high, right) if right < 32 else np.zeros_like(high)
    if shift < -31:
        return np.zeros_like(v)
    return (v.astype(object) * m0 + (1 << (30 - shift)) >> (31 - shift)).astype(np.int64)


def decoded(params, attrs, shape):
    """Weights that are codes into a codebook."""

    def symbols(role, width, huffman, count):
        if attrs.get(huffman):
            return lowbit.huffman_decode(params[role].tobytes()).reshape(-1)
        bits = np.unpackbits(params[role], bitorder="little")[: count * width].reshape(count, width)
        return bits @ (1 << np.arange(width))

    size, book, gap_bits = int(np.prod(shape)), params["codebook"], attrs.get("gap_bits", 0)
    count = attrs["entries"] if gap_bits else size
    codes = symbols("weight", attrs["bits"], "huffman", count)
    if gap_bits:
        entries, codes = codes, np.zeros(size, np.int64)
        codes[np.cumsum(symbols("gaps", gap_bits, "gaps_huffman", count).astype(np.int64) + 1) - 1] = entries
    j, p = np.divmod(np.arange(size), size // shape[0])
    scale = params.get("scale", np.ones(1))
    if book.ndim == 1:
        return book[codes].reshape(shape) * scale.reshape(-1, *[1] * (len(shape) - 1)).astype(book.dtype)
    return book[p // attrs["group_size"] if "group_size" in attrs else j, codes].reshape(shape)


def scale_exactly(v, ratio, rounding):
    """The same with a multiplier of float64, its m0 of 31 bits."""
    m, shift = math.frexp(ratio)
    m0 = int(np.rint(m * 2.0**31))
    if m0 == 2**31:
        m0, shift = m0 // 2, shift + 1
    return scale_pair(v, m0, shift, rounding)


def mean_fixed(total, count, ratio, rounding):
    """total * ratio / count, the division on the multiplier's whole numbers."""
    m, shift = math.frexp(ratio)
    m0, k = int(np.rint(m * 2.0**31)), 0
    while (2 * (m0 << k + 1) + count) // (2 * count) < 2**31:
        k += 1
    headroom = max(23 - math.ceil(math.log2(count)), 0)
    return scale_pair(total << headroom, (2 * (m0 << k) + count) // (2 * count), shift - k - headroom, rounding)


class Reference:
    """Runs a plan: ``Reference(plan).run({"input": x})`` gives every plan tensor by index, and the outputs by name."""

    def __init__(self, plan: Any):
        self.data, self.files = plan.data, plan.tensors
        self.scales = plan.tensors["activation_scales"]

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.values: dict[int, np.ndarray] = {}
        self.dynamic: dict[int, tuple[np.float32, int]] = {}
        for i in self.data["inputs"]:
            entry = self.data["tensors"][i]
            x = np.asarray(inputs[entry["name"]])
            assert x.dtype == entry["dtype"] and list(x.shape[1:]) == entry["shape"][1:], (x.dtype, x.shape, entry)
            self.values[i] = x
        for op in self.data["ops"]:
            params = {role: self.files[key] for role, key in op.get("params", {}).items()}
            out = op["outputs"][0]
            results = getattr(self, "op_" + op["op"])(op, op.get("attrs", {}), params, op["inputs"], out)
            results = results if isinstance(results, list) else [results]
            for index, result in zip(op["outputs"], results, strict=True):
                self.keep(op, index, result)
        return {self.data["tensors"][i]["name"]: self.values[i] for i in self.data["outputs"]}

    def keep(self, op, index, result):
        entry = self.data["tensors"][index]
        batch = self.values[self.data["inputs"][0]].shape[0]
        assert list(result.shape) == [batch, *entry["shape"][1:]], (op, result.shape, entry)
        if entry["dtype"] in RANGE:
            lo, hi = RANGE[entry["dtype"]]
            assert result.min(initial=hi) >= lo and result.max(initial=lo) <= hi, op["name"]
        if entry["dtype"] == "bits":
            assert (np.abs(result) == 1).all(), op["name"]
        if entry["dtype"] == "planes":
            assert result.max(initial=0) < 1 << entry["bits"], op["name"]
        self.values[index] = result.astype({"bits": "int8", "planes": "uint8"}.get(entry["dtype"], entry["dtype"]))

    def entry(self, i):
        return self.data["tensors"][i]

    def codes(self, i):
        """(values as int64 minus zero point, scale float32, zero point)."""
        e = self.entry(i)
        if e.get("dynamic"):
            s, z = self.dynamic[i]
        else:
            s, z = F(self.scales[e["scale"]]), e["zero_point"]
        return self.values[i].astype(np.int64) - z, s, z

    def out_params(self, out, attrs):
        e = self.entry(out)
        lo, hi = RANGE[e["dtype"]]
        return F(self.scales[e["scale"]]), e["zero_point"], max(lo, attrs.get("lo", lo)), min(hi, attrs.get("hi", hi))

    # Conversions ------------------------------------------------------------------------------------------------------

    def op_quantize(self, op, attrs, params, ins, out):
        x = self.values[ins[0]]
        if attrs.get("nchw_to_nhwc"):
            x = x.transpose(0, 2, 3, 1)
        s, z, lo, hi = self.out_params(out, attrs)
        return sat(x / s, z, lo, hi)

    def op_dequantize(self, op, attrs, params, ins, out):
        if self.entry(ins[0])["dtype"] == "bits":
            return self.values[ins[0]].astype(F)
        d, s, _ = self.codes(ins[0])
        return d.astype(F) * s

    def op_quantize_dynamic(self, op, attrs, params, ins, out):
        x = self.values[ins[0]]
        if attrs.get("nchw_to_nhwc"):
            x = x.transpose(0, 2, 3, 1)
        lo, hi = F(min(x.min(initial=0), 0)), F(max(x.max(initial=0), 0))
        s = (hi - lo) / F(255)
        s = F(1) if s == 0 else s
        z = int(np.rint(min(max(-lo / s, F(0)), F(255))))
        self.dynamic[out] = (s, z)
        return sat(x / s, z, 0, 255)

    def op_lookup(self, op, attrs, params, ins, out):
        byte = self.values[ins[0]].view(np.uint8)
        table = params["table"]
        return table[byte] if table.ndim == 1 else table[np.arange(table.shape[0]), byte]

    # Products ---------------------------------------------------------------------------------------------------------

    def finish(self, acc, op, attrs, params, ins, out, s_x):
        """The epilogue of requantize.h on exact sums (..., n)."""
        s_w = params["weight_scale"].astype(np.float64)
        e = self.entry(out)
        if "bias" in params:
            acc = acc + params["bias"].astype(np.int64)
        acc = acc.astype(np.int32).astype(np.int64)
        if e["dtype"] == "float32":
            m = (float(s_x) * s_w).astype(F)
            f = acc.astype(F) * m
            if "float_bias" in params:
                f = f + params["float_bias"]
            if len(ins) > 1:
                f = f + self.values[ins[1]]
            return np.fmin(np.fmax(f, F(attrs.get("min", -np.inf))), F(attrs.get("max", np.inf)))
        s_y, z_y, lo, hi = self.out_params(out, attrs)
        m = (float(s_x) * s_w / float(s_y)).astype(F)
        rounding = attrs.get("rounding", "nearest_even")
        if rounding == "nearest_even":
            f = acc.astype(F) * m
            if len(ins) > 1:
                d, s_r, _ = self.codes(ins[1])
                f = f + d.astype(F) * F(float(s_r) / float(s_y))
            return sat(f, z_y, lo, hi)
        n = acc.shape[-1]
        v = np.stack([scale_fixed(acc[..., j], m[j if m.size > 1 else 0], rounding) for j in range(n)], axis=-1)
        if len(ins) > 1:
            d, s_r, _ = self.codes(ins[1])
            v = v + scale_fixed(d << 16, F(float(s_r) / float(s_y)) * F(2.0**-16), rounding)
        return np.clip(v + z_y, lo, hi)

    def windows(self, x, kernel, attrs):
        """(n, oh, ow, c, kh, kw) views of x padded with 0."""
        t, left, b, r = attrs.get("pads", [0, 0, 0, 0])
        dh, dw = attrs.get("dilations", [1, 1])
        sh, sw = attrs.get("strides", [1, 1])
        x = np.pad(x, ((0, 0), (t, b), (left, r), (0, 0)))
        view = sliding_window_view(x, ((kernel[0] - 1) * dh + 1, (kernel[1] - 1) * dw + 1), axis=(1, 2))
        return view[:, ::sh, ::sw, :, ::dh, ::dw]

    def convolve(self, x, w, attrs):
        """Exact for integers: every product and sum stays below 2^53."""
        oc, kh, kw, icg = w.shape
        groups = attrs.get("groups", 1)
        view = self.windows(x.astype(np.float64), (kh, kw), attrs)
        n, oh, ow = view.shape[:3]
        w = w.astype(np.float64)
        if groups == oc == x.shape[-1]:
            return np.einsum("nyxcij,cij->nyxc", view, w[..., 0], optimize=True)
        out = np.empty((n, oh, ow, oc))
        step = oc // groups
        for g in range(groups):
            part = view[:, :, :, g * icg : (g + 1) * icg].reshape(n * oh * ow, -1)
            weights = w[g * step : (g + 1) * step].transpose(3, 1, 2, 0).reshape(-1, step)
            out[..., g * step : (g + 1) * step] = (part @ weights).reshape(n, oh, ow, step)
        return out

    def op_conv2d(self, op, attrs, params, ins, out):
        d, s_x, _ = self.codes(ins[0])
        shape = (self.entry(out)["shape"][-1], *attrs.get("kernel", (1, 1)), d.shape[-1] // attrs.get("groups", 1))
        w = self.integer_weights(params, attrs, shape)
        return self.finish(self.convolve(d, w, attrs).astype(np.int64), op, attrs, params, ins, out, s_x)

    def op_gemm(self, op, attrs, params, ins, out):
        d, s_x, _ = self.codes(ins[0])
        w = self.integer_weights(params, attrs, (self.entry(out)["shape"][-1], d.shape[-1]))
        acc = (d.astype(np.float64) @ w.T.astype(np.float64)).astype(np.int64)
        return self.finish(acc, op, attrs, params, ins, out, s_x)

    def integer_weights(self, params, attrs, shape):
        """int64, the zero point taken off."""
        if "bits" not in attrs:
            return params["weight"].astype(np.int64) - attrs.get("weight_zero_point", 0)
        bits = attrs["bits"]
        count = int(np.prod(shape))
        assert params["weight"].dtype == np.uint8 and params["weight"].shape == ((count * bits + 7) // 8,)
        stored = np.unpackbits(params["weight"], bitorder="little")
        assert not stored[count * bits :].any()
        codes = stored[: count * bits].reshape(count, bits) @ (1 << np.arange(bits))
        return codes.reshape(shape) - (1 << (bits - 1))

    def finish_f32(self, y, attrs, params, ins):
        y = y + params.get("bias", np.zeros(1)).astype(np.float64)
        if len(ins) > 1:
            y = y + self.values[ins[1]]
        return np.clip(y, attrs.get("min", -np.inf), attrs.get("max", np.inf)).astype(F)

    def op_conv2d_f32(self, op, attrs, params, ins, out):
        return self.finish_f32(self.convolve(self.values[ins[0]], params["weight"], attrs), attrs, params, ins)

    def op_gemm_f32(self, op, attrs, params, ins, out):
        y = self.values[ins[0]].astype(np.float64) @ params["weight"].T.astype(np.float64)
        return self.finish_f32(y, attrs, params, ins)

    def op_conv2d_codebook(self, op, attrs, params, ins, out):
        c, oc = (self.entry(i)["shape"][-1] for i in (ins[0], out))
        shape = (oc, *attrs.get("kernel", [1, 1]), c // attrs.get("groups", 1))
        return self.run_decoded(shape, self.op_conv2d, self.op_conv2d_f32, op, attrs, params, ins, out)

    def op_gemm_codebook(self, op, attrs, params, ins, out):
        shape = (self.entry(out)["shape"][-1], self.entry(ins[0])["shape"][-1])
        return self.run_decoded(shape, self.op_gemm, self.op_gemm_f32, op, attrs, params, ins, out)

    def run_decoded(self, shape, run_int8, run_float, op, attrs, params, ins, out):
        run = run_int8 if params["codebook"].dtype == np.int8 else run_float
        params = params | {"weight": decoded(params, attrs, shape)}
        return run(op, {key: value for key, value in attrs.items() if key != "bits"}, params, ins, out)

    # Bits: int8 arrays of +-1 here ------------------------------------------------------------------------------------

    def flipped(self, holds, params):
        flip = params.get("flip", np.zeros(1, np.uint8)).astype(bool)
        return np.where(holds ^ flip, 1, -1)

    def op_binarize(self, op, attrs, params, ins, out):
        x, entry = self.values[ins[0]], self.entry(ins[0])
        t = params.get("threshold", np.array([entry.get("zero_point", 0)], F))
        return self.flipped(x.astype(F) >= t, params)

    def finish_bits(self, d, op, attrs, params, ins):
        """The epilogue of xnor.h on exact sums (..., n)."""
        kinds = [self.entry(i)["dtype"] for i in op["outputs"]]
        t = params.get("threshold", np.zeros(1, F))
        if t.dtype == np.int32:
            assert kinds == ["bits"]
            return self.flipped(d >= t, params)
        others = [self.values[i] for i in ins[1:]]
        v = d.astype(F)
        if "scale" in params:
            v = v * params["scale"]
        if attrs.get("input_scale"):
            v = v * others.pop()
        if "bias" in params:
            v = v + params["bias"]
        if others:
            v = v + others.pop()
        v = np.fmin(np.fmax(v, F(attrs.get("min", -np.inf))), F(attrs.get("max", np.inf)))
        return [self.flipped(v >= t, params) if kind == "bits" else v for kind in kinds]

    def unpacked(self, weight, shape):
        bits = np.unpackbits(weight, bitorder="little")
        n = int(np.prod(shape))
        assert not bits[n:].any() and weight.size == (n + 7) // 8
        return np.where(bits[:n], 1, -1).reshape(shape)

    def op_xnor_conv2d(self, op, attrs, params, ins, out):
        x, oc = self.values[ins[0]].astype(np.float64), self.entry(out)["shape"][-1]
        kh, kw = attrs["kernel"]
        w = self.unpacked(params["weight"], (oc, kh, kw, x.shape[-1] // attrs.get("groups", 1)))
        t, left, b, r = attrs.get("pads", [0, 0, 0, 0])
        x = np.pad(x, ((0, 0), (t, b), (left, r), (0, 0)), constant_values=attrs.get("pad_value", 0))
        d = self.convolve(x, w, {**attrs, "pads": [0, 0, 0, 0]}).astype(np.int64)
        return self.finish_bits(d, op, attrs, params, ins)

    def op_xnor_gemm(self, op, attrs, params, ins, out):
        x = self.values[ins[0]].astype(np.float64)
        w = self.unpacked(params["weight"], (self.entry(out)["shape"][-1], x.shape[-1]))
        return self.finish_bits((x @ w.T.astype(np.float64)).astype(np.int64), op, attrs, params, ins)

    # Planes: uint8 codes here -----------------------------------------------------------------------------------------

    def coded(self, v, params):
        above = (v[..., None] > params["threshold"]).sum(-1)  # a NaN is above none
        return params["codes"][above]

    def op_quantize_levels(self, op, attrs, params, ins, out):
        return self.coded(self.values[ins[0]], params)

    def op_dequantize_levels(self, op, attrs, params, ins, out):
        y = None
        for q, b in enumerate(params["basis"]):
            term = (self.values[ins[0]] >> q & 1).astype(F) * b
            y = term if y is None else y + term
        return y

    def finish_planes(self, dots, op, attrs, params, ins):
        """The epilogue of xnor.h: dots(q, p) is the exact product of plane q of the input and p of the weights."""
        v = None
        for q, a in enumerate(params["input_basis"]):
            for p, b in enumerate(params["weight_basis"]):
                term = dots(q, p).astype(F) * (a * b)
                v = term if v is None else v + term
        if "bias" in params:
            v = v + params["bias"]
        if len(ins) > 1:
            v = v + self.values[ins[1]]
        v = np.fmin(np.fmax(v, F(attrs.get("min", -np.inf))), F(attrs.get("max", np.inf)))
        return [self.coded(v, params) if self.entry(i)["dtype"] == "planes" else v for i in op["outputs"]]

    def op_conv2d_bitserial(self, op, attrs, params, ins, out):
        x, oc = self.values[ins[0]], self.entry(out)["shape"][-1]
        kh, kw = attrs["kernel"]
        shape = (oc, kh, kw, x.shape[-1] // attrs.get("groups", 1))
        weights = [self.unpacked(w, shape) for w in params["weight"]]
        return self.finish_planes(
            lambda q, p: self.convolve(x >> q & 1, weights[p], attrs).astype(np.int64), op, attrs, params, ins
        )

    def op_gemm_bitserial(self, op, attrs, params, ins, out):
        x = self.values[ins[0]]
        weights = [self.unpacked(w, (self.entry(out)["shape"][-1], x.shape[-1])) for w in params["weight"]]
        return self.finish_planes(
            lambda q, p: ((x >> q & 1).astype(np.float64) @ weights[p].T).astype(np.int64), op, attrs, params, ins
        )

    # Arithmetic on codes ----------------------------------------------------------------------------------------------

    def op_add(self, op, attrs, params, ins, out):
        (a, sa, _), (b, sb, _) = self.codes(ins[0]), self.codes(ins[1])
        s, z, lo, hi = self.out_params(out, attrs)
        rounding = attrs.get("rounding", "nearest_even")
        if rounding != "nearest_even":
            twice = 2 * max(float(sa), float(sb))
            v = scale_exactly(a << 20, sa / twice, rounding) + scale_exactly(b << 20, sb / twice, rounding)
            return np.clip(z + scale_exactly(v, twice / 2**20 / float(s), rounding), lo, hi)
        return sat(a.astype(F) * (sa / s) + b.astype(F) * (sb / s), z, lo, hi)

    def op_mul(self, op, attrs, params, ins, out):
        (a, sa, _), (b, sb, _) = self.codes(ins[0]), self.codes(ins[1])
        s, z, lo, hi = self.out_params(out, attrs)
        rounding = attrs.get("rounding", "nearest_even")
        if rounding != "nearest_even":
            return np.clip(z + scale_exactly(a * b, float(sa) * float(sb) / float(s), rounding), lo, hi)
        return sat((a * b).astype(F) * ((sa * sb) / s), z, lo, hi)

    def op_max_pool(self, op, attrs, params, ins, out):
        x = self.values[ins[0]]
        low = -np.inf if x.dtype == F else RANGE[str(x.dtype)][0]
        t, left, b, r = attrs.get("pads", [0, 0, 0, 0])
        x = np.pad(x.astype(np.float64), ((0, 0), (t, b), (left, r), (0, 0)), constant_values=low)
        y = self.windows(x, attrs["kernel"], {**attrs, "pads": [0, 0, 0, 0]}).max(axis=(4, 5))
        return np.where(params["flip"], -y, y) if "flip" in params else y

    def op_average_pool(self, op, attrs, params, ins, out):
        kernel = attrs["kernel"]
        floats = self.entry(ins[0])["dtype"] == "float32"
        x = self.values[ins[0]] if floats else self.codes(ins[0])[0]
        ones = np.ones((1, *x.shape[1:3], 1))
        count = self.windows(ones, kernel, attrs).sum(axis=(4, 5))
        if attrs.get("count_include_pad"):
            count = np.full_like(count, kernel[0] * kernel[1])
        count = np.maximum(count, 1)
        if floats:  # float32 steps in the window's row-major order
            view = self.windows(x, kernel, attrs)
            y = np.zeros(view.shape[:4], F)
            for i, j in np.ndindex(*kernel):
                y += view[..., i, j]
            return y / count.astype(F)
        total = self.windows(x.astype(np.float64), kernel, attrs).sum(axis=(4, 5))
        _, s_x, _ = self.codes(ins[0])
        s, z, lo, hi = self.out_params(out, {})
        rounding = attrs.get("rounding", "nearest_even")
        if rounding != "nearest_even":
            total, count = total.astype(np.int64), np.broadcast_to(count.astype(np.int64), total.shape)
            if s_x == s:
                return np.clip(z + (2 * total + count) // (2 * count), lo, hi)
            v = np.empty_like(total)
            for n in np.unique(count):
                v[count == n] = mean_fixed(total[count == n], int(n), float(s_x) / float(s), rounding)
            return np.clip(z + v, lo, hi)
        return sat(total.astype(np.int64).astype(F) * (s_x / s) / count.astype(F), z, lo, hi)

    def op_resize(self, op, attrs, params, ins, out):
        x = self.values[ins[0]]
        if attrs["mode"] == "nearest":
            return x[:, params["rows"]][:, :, params["cols"]]
        floats = x.dtype == F
        v = x if floats else self.codes(ins[0])[0].astype(F)
        fx, fy = params["col_weight"][None, None, :, None], params["row_weight"][None, :, None, None]

        def row(name):
            part = v[:, params[name]]
            a, b = part[:, :, params["cols0"]], part[:, :, params["cols1"]]
            return a + (b - a) * fx

        top, bottom = row("rows0"), row("rows1")
        y = top + (bottom - top) * fy
        if floats:
            return y
        s, z, lo, hi = self.out_params(out, {})
        return sat(y * (self.codes(ins[0])[1] / s), z, lo, hi)

    # Float ------------------------------------------------------------------------------------------------------------

    def op_unary(self, op, attrs, params, ins, out):
        x = self.values[ins[0]].astype(np.float64)
        a, b = attrs.get("alpha", 0.0), attrs.get("beta", 0.0)
        with np.errstate(over="ignore"):
            functions = {
                "relu": lambda: np.maximum(x, 0),
                "clip": lambda: np.clip(x, a, b),
                "sigmoid": lambda: 1 / (1 + np.exp(-x)),
                "hard_sigmoid": lambda: np.clip(a * x + b, 0, 1),
                "hard_swish": lambda: x * np.clip(x / 6 + 0.5, 0, 1),
                "swish": lambda: x / (1 + np.exp(-x)),
                "leaky_relu": lambda: np.where(x > 0, x, a * x),
                "tanh": lambda: np.tanh(x),
                "exp": lambda: np.exp(x),
            }
            return functions[attrs["kind"]]().astype(F)

    def op_prelu(self, op, attrs, params, ins, out):
        x = self.values[ins[0]]
        return np.where(x > 0, x, x * params["slope"])

    def op_binary(self, op, attrs, params, ins, out):
        a = self.values[ins[0]]
        b = params["b"] if "b" in params else self.values[ins[1]]
        y = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide}[attrs["kind"]](a, b)
        return np.clip(y, F(attrs.get("min", -np.inf)), F(attrs.get("max", np.inf)))

    def op_softmax(self, op, attrs, params, ins, out):
        x = self.values[ins[0]].astype(np.float64)
        e = np.exp(x - x.max(axis=-1, keepdims=True))
        return (e / e.sum(axis=-1, keepdims=True)).astype(F)

    # Moving data ------------------------------------------------------------------------------------------------------

    def op_concat(self, op, attrs, params, ins, out):
        return np.concatenate([self.values[i] for i in ins], axis=attrs["axis"])

    def op_transpose(self, op, attrs, params, ins, out):
        return self.values[ins[0]].transpose(attrs["perm"])

    def op_reshape(self, op, attrs, params, ins, out):
        x = self.values[ins[0]]
        return x.reshape(x.shape[0], *self.entry(out)["shape"][1:])

    def op_slice(self, op, attrs, params, ins, out):
        x, shape = self.values[ins[0]], self.entry(out)["shape"]
        for axis in range(1, x.ndim):
            at = attrs["starts"][axis] + attrs["steps"][axis] * np.arange(shape[axis])
            x = x.take(at, axis=axis)
        return x

    def op_pad(self, op, attrs, params, ins, out):
        x, value = self.values[ins[0]], attrs.get("value", 0.0)
        if x.dtype != F:
            s, z, lo, hi = self.out_params(out, {})
            value = int(sat(F(value) / s, z, lo, hi))
        return np.pad(x, list(zip(attrs["before"], attrs["after"], strict=True)), constant_values=value)
