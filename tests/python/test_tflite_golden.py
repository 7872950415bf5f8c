"""Our kernels give TensorFlow Lite's codes (tests/golden/make_tflite.py says how the files were made).

TensorFlow Lite itself mixes the two fixed-point roundings: in LiteRT 2.3.0's reference kernels convolutions, MUL and
ADD round twice ("gemmlowp"), FULLY_CONNECTED once ("single").
"""

from pathlib import Path

import numpy as np
import pytest

import lowbit
from lowbit import _core

GOLDEN = Path(__file__).parents[1] / "golden/tflite"
OTHER = {"gemmlowp": "single", "single": "gemmlowp"}
PRODUCTS = {
    "conv_2d": "gemmlowp",
    "conv_2d_relu6": "gemmlowp",
    "depthwise_conv_2d": "gemmlowp",
    "fully_connected": "single",
}


def product(name, rounding, isa, threads):
    d = np.load(GOLDEN / f"{name}.npz")
    x, w, zero = d["x"], d["w"], int(d["y_zero_point"])
    scale = (d["x_scale"].astype(np.float64) * d["w_scale"] / float(d["y_scale"])).astype(np.float32)
    clamp = (zero, zero + round(6 / float(d["y_scale"]))) if d["relu6"] else None
    options = {
        "scale": scale if scale.size > 1 else float(scale[0]), "bias": d["bias"], "zero_point": zero,
        "out_dtype": "int8", "rounding": rounding, "clamp": clamp, "isa": isa, "threads": threads,
    }  # fmt: skip
    if name == "fully_connected":
        return lowbit.gemm_i8(x, np.ascontiguousarray(w.T), int(d["x_zero_point"]), 0, **options), d["y"]
    depthwise = name.startswith("depthwise")
    w = np.ascontiguousarray(w.transpose(3, 1, 2, 0)) if depthwise else w
    options |= {"x_zero_point": int(d["x_zero_point"]), "groups": x.shape[-1] if depthwise else 1}
    return lowbit.conv2d_i8(x, w, 2, (1, 0, 1, 1), **options), d["y"]


@pytest.mark.parametrize("name", PRODUCTS)
def test_products(name):
    ran = []
    for isa in lowbit.isas():
        for threads in (1, 2):
            got, wanted = product(name, PRODUCTS[name], isa, threads)
            np.testing.assert_array_equal(got, wanted, err_msg=f"{isa} {threads}")
        ran.append(isa)
    assert ran == lowbit.isas()
    other, wanted = product(name, OTHER[PRODUCTS[name]], None, 1)
    assert 0 < (other != wanted).sum() < 0.01 * wanted.size  # the vectors tell the roundings apart
    assert np.abs(other.astype(int) - wanted).max() == 1


@pytest.mark.parametrize("name", ["add_int8", "add_uint8", "mul_int8"])
def test_sums_and_products_of_codes(name):
    d = np.load(GOLDEN / f"{name}.npz")
    (sa, sb, sy), (za, zb, zy) = d["scales"].tolist(), d["zero_points"].tolist()
    a, b = d["a"], d["b"]
    if name.startswith("mul"):
        a, b = a.reshape(a.shape[0], 1, -1), b.reshape(b.shape[0], -1)
    call = _core.add_i8 if name.startswith("add") else _core.mul_i8
    for isa in lowbit.isas():
        for threads in (1, 2):
            y = np.empty_like(a)
            call(a, sa, za, b, sb, zb, y, sy, zy, rounding="gemmlowp", isa=isa, threads=threads)
            np.testing.assert_array_equal(y.reshape(d["y"].shape), d["y"], err_msg=f"{isa} {threads}")


def test_average_pool():
    for name in ("average_pool_2d_uint8", "average_pool_2d_int8"):
        d = np.load(GOLDEN / f"{name}.npz")
        scale, zero = float(d["scale"]), int(d["zero_point"])
        for isa in lowbit.isas():
            y = np.empty_like(d["y"])
            _core.average_pool_i8(
                d["x"], scale, zero, y, scale, zero, (3, 3), (2, 2), (1, 0, 1, 1), rounding="gemmlowp", isa=isa
            )
            if name.endswith("uint8"):
                np.testing.assert_array_equal(y, d["y"], err_msg=isa)
                continue
            # TensorFlow Lite's int8 kernel rounds ties away from code 0, ours up: they differ at ties below 0 alone.
            apart = y != d["y"]
            assert (y.astype(int) - d["y"])[apart].tolist() == [1] * apart.sum() and (d["y"][apart] < 0).all()
            assert 0 < apart.sum() < 0.05 * y.size
