"""The memory planner: random nets of branches, concatenations, aliases, in-place operators, against the reference."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lowbit import _core
from tiny_nets import Net

Q = (0.1, 3)
WIDTHS = [1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255]


@pytest.mark.parametrize("n", WIDTHS)
def test_in_place_operators_at_every_width(n: int):
    net = Net(n)
    x = net.input("float32", (n,))
    t = net.op("quantize", [x], net.tensor("int8", (n,), *Q))
    table = {"table": net.rng.integers(-128, 128, 256).astype(np.int8)}
    for _ in range(2):
        t = net.op("lookup", [t], net.tensor("int8", (n,), *Q), table)
        t = net.op("add", [t, t], net.tensor("int8", (n,), 0.2, -1))
        t = net.op("mul", [t, t], net.tensor("int8", (n,), *Q))
    f = net.op("dequantize", [t], net.tensor("float32", (n,)))
    f = net.op("unary", [f], net.tensor("float32", (n,)), kind="leaky_relu", alpha=0.25)
    f = net.op("binary", [f, x], net.tensor("float32", (n,)), kind="mul")
    net.outputs(f)
    model = _core.Model.from_bytes(net.bytes())
    inputs = net.random_inputs(2)
    expected, _ = net.reference(inputs)
    for isa in _core.isas():
        session = _core.Session(model, threads=2, isa=isa)
        for _ in range(2):
            for name, value in session.run(inputs).items():
                np.testing.assert_array_equal(value, expected[name], err_msg=isa)
        assert session.memory_bytes(2) < _core.Session(model, keep_tensors=True).memory_bytes(2)


class Grower:
    """Grows a net at random. Every tensor is (h, w, c) int8 codes of one scale, so that any may be concatenated."""

    def __init__(self, seed: int):
        self.net = Net(seed)
        self.shapes: dict[int, tuple[int, int, int]] = {}
        for _ in range(1 + seed % 2):
            shape = (4, 6, int(self.net.rng.integers(1, 9)))
            self.shapes[self.net.input("int8", shape, *Q)] = shape

    def pick(self, same: tuple[int | None, ...] = (None, None, None)) -> int | None:
        fits = [t for t, s in self.shapes.items() if all(a is None or a == b for a, b in zip(same, s, strict=True))]
        return int(self.net.rng.choice(fits)) if fits else None

    def add(self, kind: str, inputs: list[int], shape: tuple[int, int, int], params=None, **attrs) -> None:
        t = self.net.tensor("int8", shape, *Q)
        self.net.plan["tensors"][t]["scale"] = 0
        self.shapes[self.net.op(kind, inputs, t, params, **attrs)] = shape

    def grow(self) -> None:
        rng = self.net.rng
        x = self.pick()
        assert x is not None
        h, w, c = self.shapes[x]
        kind = rng.choice(["pointwise", "conv", "depthwise", "residual", "pool", "average", "lookup", "add", "concat",
                           "concat", "concat", "reshape", "transpose", "slice", "pad"])  # fmt: skip
        oc = int(rng.integers(1, 40))
        around = {"pads": [1, 1, 1, 1]}
        if kind == "pointwise":
            self.add("conv2d", [x], (h, w, oc), self.net.weights(oc, 1, 1, c))
        elif kind == "conv":
            self.add("conv2d", [x], (h, w, oc), self.net.weights(oc, 3, 3, c), **around)
        elif kind == "depthwise":
            self.add("conv2d", [x], (h, w, c), self.net.weights(c, 3, 3, 1), groups=c, **around)
        elif kind == "residual":
            r = self.pick((h, w, None))
            assert r is not None
            n = self.shapes[r][2]
            self.add("conv2d", [x, r], (h, w, n), self.net.weights(n, 1, 1, c))
        elif kind == "pool":
            self.add("max_pool", [x], (h, w, c), kernel=[3, 3], **around)
        elif kind == "average":
            self.add("average_pool", [x], (h, w, c), kernel=[3, 3], **around)
        elif kind == "lookup":
            self.add("lookup", [x], (h, w, c), {"table": rng.integers(-128, 128, 256).astype(np.int8)})
        elif kind == "add":
            self.add("add", [x, self.pick((h, w, c)) or x], (h, w, c))
        elif kind == "concat":
            axis = int(rng.choice([1, 2, 3, 3, 3]))
            same = tuple(None if a == axis - 1 else s for a, s in enumerate((h, w, c)))
            parts = [p for p in (x, self.pick(same), self.pick(same)) if p is not None][: int(rng.integers(1, 4))]
            whole = [h, w, c]
            whole[axis - 1] = sum(self.shapes[p][axis - 1] for p in parts)
            if max(whole) <= 120:
                self.add("concat", parts, (whole[0], whole[1], whole[2]), axis=axis)
        elif kind == "reshape":
            self.add("reshape", [x], (1, h * w, c) if h > 1 else (w, 1, c))
        elif kind == "transpose":
            self.add("transpose", [x], (w, h, c), perm=[0, 2, 1, 3])
        elif kind == "slice":
            self.add("slice", [x], (h, w, (c + 1) // 2), starts=[0, 0, 0, 0], steps=[1, 1, 1, 2])
        else:
            self.add("pad", [x], (h, w + 1, c), before=[0, 0, 0, 0], after=[0, 0, 1, 0], value=0.7)


@given(st.integers(0, 2**32 - 1), st.integers(1, 14), st.integers(1, 3), st.integers(1, 3))
@settings(max_examples=120, deadline=None)
def test_random_nets(seed: int, ops: int, outputs: int, batch: int):
    grower = Grower(seed)
    net = grower.net
    for _ in range(ops):
        grower.grow()
    names = sorted(grower.shapes)
    net.outputs(*dict.fromkeys([names[-1], *map(int, net.rng.choice(names, outputs))]))
    inputs = net.random_inputs(batch)
    expected, values = net.reference(inputs)
    model = _core.Model.from_bytes(net.bytes())
    session = _core.Session(model, threads=1 + seed % 2)
    for _ in range(2):
        for name, value in session.run(inputs).items():
            np.testing.assert_array_equal(value, expected[name], err_msg=str(net.plan["ops"]))
    kept = _core.Session(model, keep_tensors=True)
    kept.run(inputs)
    for index, value in values.items():
        np.testing.assert_array_equal(kept.tensor_codes(index), value, err_msg=f"tensor {index}")
