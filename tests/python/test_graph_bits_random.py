"""Random networks with signs in them, under every binary recipe, beside onnxruntime and the plan's reference."""

from typing import Any

import numpy as np
import onnx
import pytest

import lowbit
from onnx_nets import net, node, run_onnx, run_plan

SEEDS = 60


class RandomNet:
    """Nodes one after the other, each as the one before allows; now and then a sum with an earlier tensor."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.weights: dict[str, np.ndarray] = {}
        self.at, self.shape = "x", [int(n) for n in self.rng.integers([1, 5, 5], [5, 10, 10])]
        self.inputs = {"x": tuple(self.shape)}
        self.known = [("x", self.shape)]
        kinds = [
            "conv",
            "conv",
            "conv",
            "sign",
            "sign",
            "sign",
            "norm",
            "relu",
            "pool",
            "add",
            "clip",
            "pad",
            "flat",
            "mul",
            "prelu",
            "average",
        ]
        for kind in self.rng.choice(kinds, self.rng.integers(4, 13)):
            getattr(self, f"add_{kind}")()
            self.known.append((self.at, self.shape))
        if self.at == "x":
            self.put("Relu")

    def model(self) -> onnx.ModelProto:
        return net(self.nodes, self.inputs, self.weights, outputs=(self.at,))

    def put(
        self, op: str, *constants: Any, shape: list[int] | None = None, other: str | None = None, **attrs: Any
    ) -> None:
        names = []
        for value in constants:
            names.append(f"c{len(self.weights)}")
            self.weights[names[-1]] = (
                value if isinstance(value, np.ndarray) and value.dtype == np.int64 else np.float32(value)
            )
        inputs, self.at = [self.at, *([other] if other else []), *names], f"t{len(self.nodes)}"
        self.nodes.append(node(op, inputs, [self.at], **attrs))
        self.shape = shape or self.shape

    @property
    def is_image(self) -> bool:
        return len(self.shape) == 3

    def signs(self, *shape: int) -> np.ndarray:
        values = self.rng.normal(size=shape)
        if self.rng.random() < 0.3:
            return values
        scale = self.rng.uniform(0.1, 1, (shape[0], *[1] * (len(shape) - 1))) if self.rng.random() < 0.5 else 1.0
        return np.where(values >= 0, 1, -1) * scale

    def add_conv(self) -> None:
        c, n = self.shape[0], int(self.rng.integers(1, 20)) * 2
        if not self.is_image:
            return self.put("MatMul", self.signs(n, c).T, shape=[n])
        kernel, pad, stride = self.rng.integers(1, 4, 2), int(self.rng.integers(2)), int(self.rng.integers(1, 3))
        size = [(s + 2 * pad - int(k)) // stride + 1 for s, k in zip(self.shape[1:], kernel, strict=True)]
        if any(s + 2 * pad < k for s, k in zip(self.shape[1:], kernel, strict=True)):
            return None
        groups = 2 if c % 2 == 0 and self.rng.random() < 0.3 else 1
        weight = self.signs(n, c // groups, *(int(k) for k in kernel))
        bias = [self.rng.normal(size=n)] if self.rng.random() < 0.4 else []
        return self.put("Conv", weight, *bias, shape=[n, *size], pads=[pad] * 4, strides=[stride] * 2, group=groups)

    def add_sign(self) -> None:
        self.put("Add", [0.123])  # no sum is 0, where ONNX's Sign is 0 too
        self.put("Sign")

    def add_norm(self) -> None:
        c = self.shape[0]
        gamma = self.rng.normal(size=c) * (self.rng.random(c) > 0.1)
        normal, spread = self.rng.normal(size=(2, c)), self.rng.uniform(0.5, 2, c)
        self.put("BatchNormalization", gamma, normal[0], 3 * normal[1], spread)

    def add_relu(self) -> None:
        self.put("Relu")

    def add_clip(self) -> None:
        self.put("Clip", -1.0, 1.5)

    def add_mul(self) -> None:
        row = self.rng.normal(size=(self.shape[0], *[1] * (len(self.shape) - 1)))
        self.put("Mul", row if self.rng.random() < 0.5 else [-2.0])

    def add_prelu(self) -> None:
        self.put("PRelu", self.rng.uniform(-0.2, 0.5, (self.shape[0], *[1] * (len(self.shape) - 1))))

    def add_pool(self) -> None:
        pad = int(self.rng.integers(2))
        if self.is_image and min(self.shape[1:]) > 1:
            size = [(s + 2 * pad - 2) // 2 + 1 for s in self.shape[1:]]
            self.put("MaxPool", shape=[self.shape[0], *size], kernel_shape=[2, 2], strides=[2, 2], pads=[pad] * 4)

    def add_average(self) -> None:
        if self.is_image and min(self.shape[1:]) > 1:
            self.put("AveragePool", shape=[self.shape[0], *(s - 1 for s in self.shape[1:])], kernel_shape=[2, 2])

    def add_pad(self) -> None:
        if self.is_image:
            c, h, w = self.shape
            self.put(
                "Pad", np.array([0, 0, 1, 0, 0, 0, 1, 1]), self.rng.choice([-1.0, 0.0, 1.0]), shape=[c, h + 2, w + 1]
            )

    def add_flat(self) -> None:
        if self.is_image and self.rng.random() < 0.5:
            self.put("Flatten", shape=[int(np.prod(self.shape))])

    def add_add(self) -> None:
        same = [name for name, shape in self.known if shape == self.shape and name != self.at]
        if same:
            self.put("Add", other=str(self.rng.choice(same)))


@pytest.mark.parametrize("first", range(0, SEEDS, 20))
def test_random_networks(first: int):
    binary = 0
    for seed in range(first, first + 20):
        random = RandomNet(seed)
        proto = random.model()
        x = np.random.default_rng(seed).normal(size=(3, *random.inputs["x"])).astype(np.float32)
        (wanted,) = run_onnx(proto, {"x": x}).values()
        near = {"atol": 1e-4 * max(float(np.abs(wanted).max()), 1e-3), "rtol": 0.0, "err_msg": f"seed {seed}"}
        for recipe in ("xnor", "float32", "xnor-int8"):
            try:
                model = lowbit.convert(proto, recipe=recipe, calibration=[x] if recipe == "xnor-int8" else None)
            except ValueError as error:
                assert "no layer is binary" in str(error), (seed, recipe)
                continue
            binary += any(op["op"].startswith("xnor") for op in model.plan.ops)
            y = model.run(x)
            np.testing.assert_allclose(y, next(iter(run_plan(model.plan, {"x": x}).values())), **near)
            if recipe != "xnor-int8":
                np.testing.assert_allclose(y, wanted, **near)
    assert binary > 5
