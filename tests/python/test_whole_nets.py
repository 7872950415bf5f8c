"""Real networks on the engine: every level and thread count gives the NumPy reference's bits."""

import os
from pathlib import Path

import numpy as np
import pytest

import lowbit
from lowbit import _core, container
from onnx_nets import make_plan, min_max
from plan_reference import Reference

onnx = pytest.importorskip("onnx", reason="importing networks needs lowbit[onnx]")
DATA = Path(os.environ.get("LOWBIT_DATA", Path(__file__).parents[3] / "shared/data"))
NETS = [  # the small ones cover fixed-point rescaling; the reference takes seconds on the large ones
    ("mlperftiny_resnet8_cifar10.onnx", "int8", (3, 32, 32)),
    ("mlperftiny_resnet8_cifar10.onnx", "int8-affine", (3, 32, 32)),
    ("resnet20_cifar10.onnx", "int8", (3, 32, 32)),
    ("resnet20_cifar10.onnx", "int8-affine", (3, 32, 32)),
    ("squeezenet1_1.onnx", "int8", (3, 67, 67)),
    ("squeezenet1_1.onnx", "int8-affine", (3, 67, 67)),
    ("mobilenet_v2_100.onnx", "int8", (3, 224, 224)),
    ("efficientnet_lite0.onnx", "int8", (3, 224, 224)),
]


@pytest.mark.parametrize(("name", "recipe", "shape"), NETS)
def test_engine_equals_the_reference_bit_for_bit(name, recipe, shape):
    path = DATA / name
    if not path.exists():
        pytest.skip(f"no {path}; set LOWBIT_DATA")
    net = onnx.load(path)
    feed = net.graph.input[0].name
    x = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    plan = make_plan(net, recipe, min_max(net, {feed: x}), input_shapes={feed: x.shape})
    want = Reference(plan).run({feed: x})
    model = _core.Model.from_bytes(container.to_bytes(plan.tensors, plan.data, {}))
    ran = []
    for isa in lowbit.isas():
        for threads in (1, 2):
            got = _core.Session(model, threads=threads, isa=isa).run({feed: x})
            assert got.keys() == want.keys()
            for key, value in want.items():
                np.testing.assert_array_equal(got[key], value, err_msg=f"{name} {recipe} {isa} {threads} {key}")
        ran.append(isa)
    assert ran == lowbit.isas() and ran[-1] == "scalar"
