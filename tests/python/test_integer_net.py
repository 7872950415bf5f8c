"""Integer-only networks: the engine gives a pure-integer NumPy network's codes on every level, 1 and 2 threads."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lowbit
from integer_reference import IntegerNet, gemmlowp, normalised, single
from lowbit import _core, container
from tiny_nets import Net

DATA = Path(os.environ.get("LOWBIT_DATA", Path(__file__).parents[3] / "shared/data"))
ROUNDINGS = ["gemmlowp", "single"]


def check(data, files, inputs, levels=None):
    """Every code of every tensor, and the outputs; the scalar level alone keeps all tensors where levels are given."""
    reference = IntegerNet(data, files)
    wanted = reference.run(inputs)
    model = _core.Model.from_bytes(container.to_bytes(files, data, {}))
    ran = []
    for isa in lowbit.isas():
        for threads in (1, 2):
            session = _core.Session(model, threads=threads, isa=isa, keep_tensors=True)
            got = session.run(inputs)
            for index, codes in reference.codes.items():
                np.testing.assert_array_equal(
                    session.tensor_codes(index), codes, err_msg=f"{data['tensors'][index]['name']} {isa} {threads}"
                )
            for name, value in wanted.items():
                np.testing.assert_array_equal(got[name], value, err_msg=f"{name} {isa} {threads}")
        ran.append(isa)
    assert ran == lowbit.isas() and ran[-1] == "scalar"
    return reference


# The arithmetic itself: published examples --------------------------------------------------------------------------


def test_the_two_roundings_differ_as_published():
    """TensorFlow issue 25087: 11.499 becomes 12 where it is rounded twice."""
    x = np.array([7984])
    assert gemmlowp(x, 1583594044, -9) == 12 and single(x, 1583594044, -9) == 11


def test_ties():
    """The high product rounds ties up (-0.5 to 0, -1.5 to -1), the shift away from zero (-12 / 8 to -2)."""
    assert gemmlowp(np.array([-1, -3, 1, 3]), 2**30, 0).tolist() == [0, -1, 1, 2]
    assert gemmlowp(np.array([-24, 24]), 2**30, -3).tolist() == [-2, 2]
    assert single(np.array([-24, 24]), 2**30, -3).tolist() == [-1, 2]


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_the_kernel_has_the_same_arithmetic(rounding):
    rng = np.random.default_rng(5)
    acc = rng.integers(-(2**31), 2**31, (400, 7)).astype(np.int32) >> rng.integers(0, 30, (400, 7)).astype(np.int32)
    scale = np.float32(2.0 ** rng.uniform(-20, 0.9, 7))
    from fractions import Fraction

    pairs = [normalised(Fraction(float(s))) for s in scale]
    how = {"gemmlowp": gemmlowp, "single": single}[rounding]
    wanted = np.stack([how(acc[:, j], *pairs[j]) for j in range(7)], axis=1)
    got = lowbit.requantize(acc, scale, 3, dtype="uint8", rounding=rounding)
    np.testing.assert_array_equal(got, np.clip(wanted + 3, 0, 255))


# Networks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_resnet20(rounding):
    onnx = pytest.importorskip("onnx", reason="importing networks needs lowbit[onnx]")
    from onnx_nets import make_plan, min_max

    path = DATA / "resnet20_cifar10.onnx"
    if not path.exists():
        pytest.skip(f"no {path}; set LOWBIT_DATA")
    net = onnx.load(path)
    feed = net.graph.input[0].name
    x = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)
    plan = make_plan(net, "int8-affine", min_max(net, {feed: x}), rounding=rounding, input_shapes={feed: x.shape})
    reference = check(plan.data, dict(plan.tensors), {feed: x})
    kinds = {op["op"] for op in plan.ops}
    assert {"conv2d", "average_pool", "gemm"} <= kinds and len(reference.codes) > 20
    assert all(op.get("attrs", {}).get("rounding") == rounding for op in plan.ops if op["op"] == "average_pool")


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_a_trained_network(rounding):
    torch = pytest.importorskip("torch", reason="lowbit.torch needs torch")
    pytest.importorskip("onnx", reason="importing networks needs lowbit[onnx]")
    from lowbit.torch import prepare_qat
    from torch_nets import ResNet

    torch.manual_seed(0)
    net = prepare_qat(ResNet([1, 1, 1, 1], False, width=8, classes=10))
    for _ in range(3):
        loss = net(torch.randn(4, 3, 48, 48)).square().mean()
        loss.backward()
        with torch.no_grad():
            for p in net.parameters():
                p.sub_(p.grad, alpha=1e-2)
        net.zero_grad()
    x = torch.randn(2, 3, 48, 48)
    model = lowbit.convert(net.eval(), "int8-affine", example=x, rounding=rounding)
    check(model.plan.data, dict(model.plan.tensors), {"input": x.numpy()})


class RandomNet(Net):
    """Layers one after the other on codes, each with scales of its own; at the end a product in float."""

    def __init__(self, seed, rounding):
        super().__init__(seed)
        self.rounding = {"rounding": rounding}
        shape = tuple(int(n) for n in self.rng.integers([3, 3, 1], [10, 10, 20]))
        self.at = self.op("quantize", [self.input("float32", shape)], self.codes(shape))
        self.old = [self.at]
        kinds = [
            "conv",
            "depthwise",
            "residual",
            "add",
            "mul",
            "average",
            "maximum",
            "concat",
            "lookup",
            "pad",
            "slice",
        ]
        for kind in self.rng.choice(kinds, self.rng.integers(3, 9)):
            getattr(self, kind)()
            self.old.append(self.at)
        shape = self.shape(self.at)
        flat = self.op("reshape", [self.at], self.like(self.at, int(np.prod(shape))))
        self.outputs(self.op("gemm", [flat], self.tensor("float32", (5,)), self.weights(5, int(np.prod(shape)))))

    def shape(self, t):
        return tuple(self.plan["tensors"][t]["shape"][1:])

    def codes(self, shape, like=None):
        dtype = "uint8" if self.rng.random() < 0.7 else "int8"
        lo = -128 if dtype == "int8" else 0
        zero = int(self.rng.choice([lo, lo + 128, int(self.rng.integers(lo, lo + 256))]))
        return self.tensor(dtype, shape, float(np.float32(2.0 ** self.rng.uniform(-7, -3))), zero)

    def clamps(self):
        return {"lo": 3, "hi": 90} if self.rng.random() < 0.3 else {}

    def conv(self, groups=1, residual=False):
        h, w, c = self.shape(self.at)
        k, s = (3, 1) if residual else (int(self.rng.integers(1, 4)), int(self.rng.integers(1, 3)))
        oc = c if groups > 1 or residual else int(self.rng.integers(1, 40))
        size = [(n + 2 * (k // 2) - k) // s + 1 for n in (h, w)]
        weights = self.weights(oc, k, k, c // groups, per_channel=bool(self.rng.integers(2)))
        inputs = [self.at, self.at] if residual else [self.at]
        self.at = self.op(
            "conv2d", inputs, self.codes((*size, oc)), weights,
            pads=[k // 2] * 4, strides=[s, s], groups=groups, **self.rounding, **self.clamps(),
        )  # fmt: skip

    def depthwise(self):
        self.conv(self.shape(self.at)[-1])

    def residual(self):
        self.conv(residual=True)

    def add(self):
        same = [t for t in self.old if self.shape(t) == self.shape(self.at)]
        other = int(self.rng.choice(same))
        self.at = self.op("add", [self.at, other], self.codes(self.shape(self.at)), **self.rounding, **self.clamps())

    def mul(self):
        same = [t for t in self.old if self.shape(t) == self.shape(self.at)]
        self.at = self.op(
            "mul", [self.at, int(self.rng.choice(same))], self.codes(self.shape(self.at)), **self.rounding
        )

    def average(self):
        h, w, c = self.shape(self.at)
        k, pad = [int(self.rng.integers(1, min(n, 3) + 1)) for n in (h, w)], bool(self.rng.integers(2))
        pads = [(k[0] - 1) * pad, (k[1] - 1) * pad] * 2
        size = (h + 2 * pads[0] - k[0] + 1, w + 2 * pads[1] - k[1] + 1, c)
        out = self.codes(size) if self.rng.integers(2) else self.like(self.at, *size)
        counted = bool(self.rng.integers(2))
        self.at = self.op(
            "average_pool",
            [self.at],
            out,
            kernel=k,
            strides=[1, 1],
            pads=pads,
            count_include_pad=counted,
            **self.rounding,
        )

    def maximum(self):
        h, w, c = self.shape(self.at)
        self.at = self.op(
            "max_pool",
            [self.at],
            self.like(self.at, h, w, c),
            kernel=[3, 3],
            strides=[1, 1],
            pads=[1] * 4,
            dilations=[1, 1],
        )

    def concat(self):
        h, w, c = self.shape(self.at)
        self.at = self.op("concat", [self.at, self.at], self.like(self.at, h, w, 2 * c), axis=3)

    def lookup(self):
        out = self.codes(self.shape(self.at))
        table = self.rng.integers(0, 256, 256).astype(np.uint8)
        self.at = self.op("lookup", [self.at], out, {"table": table.view(self.plan["tensors"][out]["dtype"])})

    def pad(self):
        h, w, c = self.shape(self.at)
        self.at = self.op(
            "pad", [self.at], self.like(self.at, h + 1, w, c + 2), before=[0, 1, 0, 0], after=[0, 0, 0, 2]
        )

    def slice(self):
        h, w, c = self.shape(self.at)
        self.at = self.op(
            "slice", [self.at], self.like(self.at, (h + 1) // 2, w, c), starts=[0, 0, 0, 0], steps=[1, 2, 1, 1]
        )


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), rounding=st.sampled_from(ROUNDINGS), batch=st.sampled_from([1, 3]))
def test_random_networks(seed, rounding, batch):
    net = RandomNet(seed, rounding)
    files = {"activation_scales": np.array(net.scales, np.float32), **net.files}
    check(net.plan, files, net.random_inputs(batch))


def test_unknown_roundings_are_refused():
    x, y = np.zeros((1, 2, 2, 1), np.uint8), np.zeros((1, 1, 1, 1), np.uint8)
    with pytest.raises(ValueError, match="rounding 'up' is not one of"):
        _core.average_pool_i8(x, 0.5, 0, y, 0.5, 0, (2, 2), rounding="up")
    with pytest.raises(ValueError, match="add_i8: rounding 'up'"):
        _core.add_i8(x, 0.5, 0, x, 0.5, 0, np.zeros_like(x), 0.5, 0, rounding="up")
    with pytest.raises(ValueError, match=r"mul_i8: a ratio of scales is .* below 2\^30"):
        _core.mul_i8(x[0], 2e20, 0, x[0, 0].T.copy(), 2e20, 0, np.zeros_like(x[0]), 1e-3, 0, rounding="single")
