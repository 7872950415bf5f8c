"""Layers of few-bit planes (planes in and out) beside the same layer in int8 (codes in and out) and in float32.

python bench/bitserial.py [--bits 1/1,1/2,2/2,3/3,4/4] [--layers 56x64,28x128,14x256,linear1024] [--isa avx512,amx]
    [--threads 1] [--batch 1]

A layer is a 3x3 convolution, side x channels, or a Linear of so many inputs and outputs.

One process; every contender is a plan of its own, sessions take turns, a layer's time is the least its operation took;
in brackets times int8 and times float32.
"""

import argparse
import math

import numpy as np

import lowbit
from lowbit import _core, lq
from lowbit.container import to_bytes
from lowbit.graph.plan import PlanBuilder

WARM, ROUNDS = 3, 25


def product(layer: str) -> tuple[tuple[int, ...], tuple[int, ...], str, dict]:
    """Of "28x128" (side x channels, 3x3) or "linear512": shapes of an item and the weight, operation, attributes."""
    if layer.startswith("linear"):
        n = int(layer.removeprefix("linear"))
        return (n,), (n, n), "gemm", {}
    side, c = map(int, layer.split("x"))
    return (side, side, c), (c, 3, 3, c), "conv2d", {"pads": [1] * 4}


def planes_layer(layer: str, w_bits: int, x_bits: int) -> tuple[PlanBuilder, int, int]:
    """float32 -> planes -> the layer -> float32."""
    item, weight, op, attrs = product(layer)
    rng, plan = np.random.default_rng(0), PlanBuilder()
    x = plan.tensor("x", "float32", (-1, *item))
    planes = [plan.tensor(name, "planes", (-1, *item)) for name in ("q", "r")]
    for t in planes:
        plan.tensors[t]["bits"] = x_bits
    basis = lq.initial_basis(x_bits, signed=False)
    sums, codes = lq.levels(basis, signed=False)
    steps = {"threshold": lq.thresholds(sums), "codes": codes}
    plan.op("quantize_levels", [x], planes[0], params=steps)
    k, n = math.prod(weight[1:]), weight[0]
    params = {
        "weight": rng.integers(0, 256, (w_bits, n * k // 8), dtype=np.uint8),
        "weight_basis": np.repeat(lq.initial_basis(w_bits, signed=True)[:, None] / k**0.5, n, 1),
        "input_basis": basis,
        "bias": rng.normal(size=n).astype(np.float32),
        **steps,
    }
    kernel = {"kernel": [3, 3]} if op == "conv2d" else {}
    plan.op(f"{op}_bitserial", planes[:1], planes[1], {**kernel, **attrs}, params, name="layer")
    y = plan.tensor("y", "float32", (-1, *item))
    plan.op("dequantize_levels", planes[1:], y, params={"basis": basis})
    return plan, x, y


def int8_layer(layer: str) -> tuple[PlanBuilder, int, int]:
    """float32 -> uint8 -> the layer -> float32."""
    item, weight, op, attrs = product(layer)
    rng, plan = np.random.default_rng(0), PlanBuilder()
    x = plan.tensor("x", "float32", (-1, *item))
    q, r = (plan.tensor(name, "uint8", (-1, *item), scale=0.02) for name in ("q", "r"))
    plan.op("quantize", [x], q)
    params = {
        "weight": rng.integers(-127, 128, weight, dtype=np.int8),
        "weight_scale": np.full(weight[0], 1e-4, np.float32),
        "bias": rng.integers(-99, 99, weight[0], dtype=np.int32),
    }
    plan.op(op, [q], r, attrs, params, name="layer")
    y = plan.tensor("y", "float32", (-1, *item))
    plan.op("dequantize", [r], y)
    return plan, x, y


def float_layer(layer: str) -> tuple[PlanBuilder, int, int]:
    """The layer in float32, a ReLU in it."""
    item, weight, op, attrs = product(layer)
    rng, plan = np.random.default_rng(0), PlanBuilder()
    x, y = (plan.tensor(name, "float32", (-1, *item)) for name in "xy")
    params = {
        name: rng.normal(size=size).astype(np.float32) for name, size in (("weight", weight), ("bias", weight[0]))
    }
    plan.op(f"{op}_f32", [x], y, {**attrs, "min": 0.0}, params, name="layer")
    return plan, x, y


def layer_times(contenders: dict[str, tuple[PlanBuilder, int, int]], isas: list[str], threads: int, batch: int) -> dict:
    """Least milliseconds of the layer by contender and level."""
    sessions = {}
    for name, (plan, x, y) in contenders.items():
        done = plan.finish([x], [y])
        model = _core.Model.from_bytes(to_bytes(done.tensors, done.data, {}))
        index = [op["name"] for op in done.ops].index("layer")
        for isa in isas:
            sessions[name, isa] = (_core.Session(model, threads=threads, isa=isa, profile=True), index)
    shape = next(iter(contenders.values()))[0].tensors[0]["shape"]
    image = {"x": np.random.default_rng(1).normal(size=(batch, *shape[1:])).astype(np.float32)}
    best: dict[tuple[str, str], float] = {}
    for turn in range(WARM + ROUNDS):
        for key, (session, index) in sessions.items():
            session.run(image)
            if turn >= WARM:
                best[key] = min(best.get(key, np.inf), session.op_ms()[index])
    return best


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bits", default="1/1,1/2,2/2,3/3,4/4")
    parser.add_argument("--layers", default="56x64,28x128,14x256,linear1024")
    parser.add_argument("--isa", default=",".join(i for i in lowbit.isas() if i in ("avx2", "avx512", "amx")))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1)
    args = parser.parse_args()
    isas = args.isa.split(",")
    for layer in args.layers.split(","):
        contenders = {"int8": int8_layer(layer), "float32": float_layer(layer)}
        for pair in args.bits.split(","):
            w, a = map(int, pair.split("/"))
            contenders[pair] = planes_layer(layer, w, a)
        times = layer_times(contenders, isas, args.threads, args.batch)
        for isa in isas:
            row = ", ".join(
                f"{name} {times[name, isa] * 1e3:.0f} us"
                + ("" if "/" not in name else f" ({times['int8', isa] / times[name, isa]:.2f} x")
                + ("" if "/" not in name else f", {times['float32', isa] / times[name, isa]:.2f} x)")
                for name in contenders
            )
            print(f"{layer}, batch {args.batch}, {isa}, {args.threads} thread(s): {row}", flush=True)


if __name__ == "__main__":
    main()
