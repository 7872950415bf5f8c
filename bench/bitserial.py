"""3x3 layers of few-bit planes (conv2d_bitserial, planes in and out) beside the same layer in int8 (codes in and out).

python bench/bitserial.py [--bits 1/1,1/2,2/2,3/3,4/4] [--layers 56x64,28x128,14x256] [--isa avx512,amx] [--threads 1]

One process; every contender is a plan of its own, sessions take turns, a layer's time is the least its operation took.
"""

import argparse

import numpy as np

import lowbit
from lowbit import _core, lq
from lowbit.container import to_bytes
from lowbit.graph.plan import PlanBuilder

WARM, ROUNDS = 3, 25


def planes_layer(side: int, c: int, w_bits: int, x_bits: int) -> tuple[PlanBuilder, int, int]:
    """float32 -> planes -> the layer -> float32."""
    rng, plan = np.random.default_rng(0), PlanBuilder()
    x = plan.tensor("x", "float32", (-1, side, side, c))
    planes = [plan.tensor(name, "planes", (-1, side, side, c)) for name in ("q", "r")]
    for t in planes:
        plan.tensors[t]["bits"] = x_bits
    basis = lq.initial_basis(x_bits, signed=False)
    sums, codes = lq.levels(basis, signed=False)
    steps = {"threshold": lq.thresholds(sums), "codes": codes}
    plan.op("quantize_levels", [x], planes[0], params=steps)
    params = {
        "weight": rng.integers(0, 256, (w_bits, c * c * 9 // 8), dtype=np.uint8),
        "weight_basis": np.repeat(lq.initial_basis(w_bits, signed=True)[:, None] / (3 * c**0.5), c, 1),
        "input_basis": basis,
        "bias": rng.normal(size=c).astype(np.float32),
        **steps,
    }
    plan.op("conv2d_bitserial", planes[:1], planes[1], {"kernel": [3, 3], "pads": [1] * 4}, params, name="layer")
    y = plan.tensor("y", "float32", (-1, side, side, c))
    plan.op("dequantize_levels", planes[1:], y, params={"basis": basis})
    return plan, x, y


def int8_layer(side: int, c: int) -> tuple[PlanBuilder, int, int]:
    """float32 -> uint8 -> the layer -> float32."""
    rng, plan = np.random.default_rng(0), PlanBuilder()
    x = plan.tensor("x", "float32", (-1, side, side, c))
    q, r = (plan.tensor(name, "uint8", (-1, side, side, c), scale=0.02) for name in ("q", "r"))
    plan.op("quantize", [x], q)
    params = {
        "weight": rng.integers(-127, 128, (c, 3, 3, c), dtype=np.int8),
        "weight_scale": np.full(c, 1e-4, np.float32),
        "bias": rng.integers(-99, 99, c, dtype=np.int32),
    }
    plan.op("conv2d", [q], r, {"pads": [1] * 4}, params, name="layer")
    y = plan.tensor("y", "float32", (-1, side, side, c))
    plan.op("dequantize", [r], y)
    return plan, x, y


def layer_times(contenders: dict[str, tuple[PlanBuilder, int, int]], isas: list[str], threads: int) -> dict:
    """Least milliseconds of the layer by contender and level."""
    sessions = {}
    for name, (plan, x, y) in contenders.items():
        done = plan.finish([x], [y])
        model = _core.Model.from_bytes(to_bytes(done.tensors, done.data, {}))
        index = [op["name"] for op in done.ops].index("layer")
        for isa in isas:
            sessions[name, isa] = (_core.Session(model, threads=threads, isa=isa, profile=True), index)
    shape = next(iter(contenders.values()))[0].tensors[0]["shape"]
    image = {"x": np.random.default_rng(1).normal(size=(1, *shape[1:])).astype(np.float32)}
    best: dict[tuple[str, str], float] = {}
    for turn in range(WARM + ROUNDS):
        for key, (session, index) in sessions.items():
            session.run(image)
            if turn >= WARM:
                best[key] = min(best.get(key, np.inf), session.op_ms()[index])
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bits", default="1/1,1/2,2/2,3/3,4/4")
    parser.add_argument("--layers", default="56x64,28x128,14x256")
    parser.add_argument("--isa", default=",".join(i for i in lowbit.isas() if i in ("avx2", "avx512", "amx")))
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    isas = args.isa.split(",")
    for layer in args.layers.split(","):
        side, c = map(int, layer.split("x"))
        contenders = {"int8": int8_layer(side, c)}
        for pair in args.bits.split(","):
            w, a = map(int, pair.split("/"))
            contenders[pair] = planes_layer(side, c, w, a)
        times = layer_times(contenders, isas, args.threads)
        for isa in isas:
            whole = times["int8", isa]
            row = ", ".join(
                f"{name} {times[name, isa] * 1e3:.0f} us ({whole / times[name, isa]:.2f} x)" for name in contenders
            )
            print(f"{c} channels at {side} x {side}, {isa}, {args.threads} thread(s): {row}", flush=True)


if __name__ == "__main__":
    main()
