"""Whole nets at batch 1, every level; and the peers."""

import pytest

import nets
import ours
import peers


@pytest.fixture(params=nets.NETS)
def net(request):
    file = nets.NETS[request.param].file
    if file and not (nets.DATA / file).exists():
        pytest.skip(f"{nets.DATA / file} is missing; LOWBIT_DATA names its folder")
    return request.param


def test_lowbit(net, isa, threads, timed):
    timed(ours.net(net, threads, isa), nets.NETS[net].macs)


@pytest.mark.parametrize("label", ["onnxruntime int8", "openvino int8", "onnxruntime fp32", "openvino fp32"])
def test_peer(net, label, threads, timed):
    low, full = peers.net(net, threads)
    calls = {**low, **full}
    if label not in calls:
        pytest.skip(f"{label} is not installed")
    timed(calls[label], nets.NETS[net].macs)
