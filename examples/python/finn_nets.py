"""Runs the binary networks that Xilinx published with FINN: LFC on MNIST, CNV on CIFAR-10.

    python examples/python/finn_nets.py lfc finn_lfcW1A1_mnist.npz mnist.npz [--save lfc.lowbit]
    python examples/python/finn_nets.py cnv finn_cnvW1A1_cifar10.npz cifar10.npz

The weights (+-1) and thresholds are those of Xilinx/BNN-PYNQ (BSD-3), unfolded into arrays. They are written here as an
ONNX network of Sign, Conv and MatMul nodes, as any exporter of binary networks would give, and converted with recipe
"xnor": thresholds go into the comparisons, activations stay packed between the layers. CNV's first layer takes 8-bit
pixels and stays in float; its sums are exact there.

Published: 98.4 % and 80.1 % (Umuroglu et al. 2017, table 3); these files give 98.34 % and 79.37 %.
"""

import argparse
from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

import lowbit


class Graph:
    """Nodes one after the other, on tensor ``self.at``."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.at = "x"

    def constant(self, value: Any) -> str:
        """A constant's name."""
        name = f"c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
        return name

    def add(self, op: str, *constants: Any, name: str = "", **attrs: Any) -> None:
        """One more node, on the last one's output."""
        inputs = [self.at, *(self.constant(c) for c in constants)]
        self.at = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [self.at], name=name, **attrs))

    def fire(self, least: np.ndarray) -> None:
        """+1 where the whole number before is above ``least``, else -1; half way between, so that Sign meets no 0."""
        self.add("Sub", least + 0.5)
        self.add("Sign")

    def model(self, shape: list[Any], outputs: int) -> ModelProto:
        """The network from x to the last node."""
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *shape])
        y = helper.make_tensor_value_info(self.at, TensorProto.FLOAT, ["N", outputs])
        graph = helper.make_graph(self.nodes, "finn", [x], [y], self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def lfc(net: Mapping[str, np.ndarray]) -> ModelProto:
    """(n, 1, 28, 28) pixels 0..255 -> 10 scores."""
    g = Graph()
    g.add("Flatten")
    g.add("Sub", 127.5)
    g.add("Sign")
    for i in range(4):
        w, t = net[f"w{i}"], net[f"t{i}"].ravel()
        least = 2 * t - w.shape[1]
        if i == 0:  # 784 pixels stand in 832 places, the others are -1
            least = least + w[:, 784:].sum(axis=1)
            w = w[:, :784]
        if i == 3:  # 10 of 64 rows are classes
            g.add("MatMul", w[:10].T, name="fc3")
            g.add("Sub", least[:10])
        else:
            g.add("MatMul", w.T, name=f"fc{i}")
            g.fire(least)
    return g.model([1, 28, 28], 10)


def cnv(net: Mapping[str, np.ndarray]) -> ModelProto:
    """(n, 3, 32, 32) from ``cnv_input`` -> 10 scores."""
    g = Graph()
    for i in range(9):
        w = net[f"w{i}"]
        if i < 6:
            g.add("Conv", w, name=f"conv{i}")
        elif i < 8:
            g.add("MatMul", w.T, name=f"fc{i}")
        else:
            g.add("MatMul", w[:10].T, name="fc8")
            break
        t = net[f"t{i}"].ravel()
        least = (t / 256 - 0.5 + 1 / 512) if i == 0 else 2 * t - w[0].size  # layer 0 sums multiples of 1/128
        g.fire(least.reshape(-1, 1, 1) if i < 6 else least)
        if i in (1, 3):
            g.add("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
        if i == 5:
            g.add("Flatten")
    return g.model([3, 32, 32], 10)


def cnv_input(images: np.ndarray) -> np.ndarray:
    """(n, 32, 32, 3) RGB bytes -> what CNV takes: 8-bit fixed point in -1..1, NCHW."""
    x = np.clip(np.floor((images.astype(np.float32) / 255 * 2 - 1) * 128), -128, 127) / 128
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2), dtype=np.float32)


def lfc_input(images: np.ndarray) -> np.ndarray:
    """(n, 28, 28) bytes -> what LFC takes."""
    return images[:, None].astype(np.float32)


def main() -> None:
    """Convert, run, count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("net", choices=["lfc", "cnv"])
    parser.add_argument("weights")
    parser.add_argument("data", help="npz with x_test and y_test")
    parser.add_argument("--save", help="where to write the .lowbit file")
    args = parser.parse_args()
    build, prepare = (lfc, lfc_input) if args.net == "lfc" else (cnv, cnv_input)
    model = lowbit.convert(build(np.load(args.weights)), recipe="xnor")
    print(model.summary())
    data = np.load(args.data)
    images, labels = data["x_test"], data["y_test"].ravel()
    right = 0
    for i in range(0, len(images), 100):
        scores = model.run(prepare(images[i : i + 100]))
        right += int((scores.argmax(axis=1) == labels[i : i + 100]).sum())
    print(f"{100 * right / len(images):.2f} % of {len(images)} images, {len(model.to_bytes())} bytes")
    if args.save:
        model.save(args.save)


if __name__ == "__main__":
    main()
