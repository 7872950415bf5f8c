"""The 3x3 layers of a ResNet, int8 and our own float32, every level; and the peers."""

import pytest

import compare
import ours
import peers

LAYERS = [pytest.param(layer, id=f"{layer[1]}ch@{layer[0]}") for layer in compare.CONVS]


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("kernel", [ours.conv, ours.conv_f32], ids=["int8", "float32"])
def test_lowbit(layer, kernel, isa, threads, rng, timed):
    side, c = layer
    timed(kernel(side, c, c, 3, threads, isa, rng), side * side * c * c * 9)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("label", ["oneDNN qconv", "onnxruntime QLinearConv", "torch fp32 NHWC"])
def test_peer(layer, label, threads, rng, timed):
    side, c = layer
    low, full = peers.conv(side, c, c, 3, threads, rng)
    calls = {**low, **full}
    if label not in calls:
        pytest.skip(f"{label} is not installed")
    timed(calls[label], side * side * c * c * 9)
