"""Opening a compressed network beside reading its float weights from the page cache: `python bench/loading.py`."""

import pathlib
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import lowbit
from lowbit import _core

LAYERS, WIDTH = 5, 1024  # 20 MB of float32


def network(rng: np.random.Generator) -> onnx.ModelProto:
    """A chain of products."""
    weights = [
        numpy_helper.from_array((0.02 * rng.normal(size=(WIDTH, WIDTH))).astype(np.float32), f"w{i}")
        for i in range(LAYERS)
    ]
    names = ["x", *(f"t{i}" for i in range(LAYERS - 1)), "y"]
    nodes = [helper.make_node("Gemm", [names[i], f"w{i}"], [names[i + 1]]) for i in range(LAYERS)]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", WIDTH]) for n in "xy")
    graph = helper.make_graph(nodes, "chain", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def best_ms(call: Callable[[], Any], times: int = 20) -> float:
    readings = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        readings.append(time.perf_counter() - start)
    return 1e3 * min(readings)


def main() -> None:
    net = network(np.random.default_rng(0))
    with tempfile.TemporaryDirectory() as folder:
        floats, file = pathlib.Path(folder) / "floats.bin", pathlib.Path(folder) / "net.lowbit"
        np.concatenate([numpy_helper.to_array(w).ravel() for w in net.graph.initializer]).tofile(floats)
        print(
            f"read {floats.stat().st_size} bytes of float32: {best_ms(lambda: np.fromfile(floats, np.float32)):.2f} ms"
        )
        for recipe in ("float32", "codebook:4", "codebook:4/huffman", "codebook:8/huffman"):
            lowbit.convert(net, recipe=recipe).save(file)
            opened = best_ms(lambda: _core.Model.open(str(file)))
            loaded = best_ms(lambda: lowbit.load(file))
            print(f"{recipe:20} {file.stat().st_size:9} bytes: engine {opened:6.2f} ms, lowbit.load {loaded:6.2f} ms")


if __name__ == "__main__":
    main()
