"""Compressed checkpoints as safetensors files."""

import json

import numpy as np
import pytest

import lowbit
from lowbit.compression import CodedWeights, compress_tensors, load_compressed, save_compressed
from lowbit.compression.checkpoint import read_safetensors, write_safetensors


def state():
    rng = np.random.default_rng(0)
    return {
        "conv.weight": rng.normal(size=(8, 3, 3, 3)).astype(np.float32),
        "fc.weight": rng.normal(size=(40, 50)).astype(np.float32),
        "fc.bias": rng.normal(size=40).astype(np.float32),
        "steps": np.array(7, np.int64),
    }


@pytest.mark.parametrize("sparsity", [0.0, 0.9])
@pytest.mark.parametrize("huffman", [False, True])
def test_round_trip(tmp_path, sparsity, huffman):
    path = tmp_path / "net.safetensors"
    small = compress_tensors(state(), bits=4, sparsity=sparsity, huffman=huffman)
    save_compressed(path, small, huffman)
    again = load_compressed(path)
    assert set(again) == set(state()) and again["steps"] == 7
    assert np.array_equal(again["fc.bias"], state()["fc.bias"])
    for name in ("conv.weight", "fc.weight"):
        assert isinstance(again[name], CodedWeights)
        assert np.array_equal(again[name].weights(), small[name].weights())
        assert again[name].weights().shape == state()[name].shape
    assert np.count_nonzero(again["fc.weight"].weights()) == (200 if sparsity else 2000)
    assert path.stat().st_size < 2500 + (800 if sparsity else 1500)


def test_the_package_reads_what_is_written_and_the_other_way(tmp_path):
    package = pytest.importorskip("safetensors.numpy", reason="needs safetensors")
    path = tmp_path / "net.safetensors"
    package.save_file(state(), path)
    tensors, _ = read_safetensors(path)
    assert all(np.array_equal(tensors[n], a) and tensors[n].dtype == a.dtype for n, a in state().items())
    assert all(np.array_equal(load_compressed(path)[n], a) for n, a in state().items())
    save_compressed(path, compress_tensors(tensors, bits=3))
    found = package.load_file(path)
    assert set(found) >= {"fc.weight.codebook", "fc.weight.codes", "fc.bias"}


def test_bfloat16_becomes_float32(tmp_path):
    path = tmp_path / "b.safetensors"
    header = json.dumps({"w": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + np.uint16([0x3F80, 0xC000]).tobytes())
    assert read_safetensors(path)[0]["w"].tolist() == [1.0, -2.0]


def test_every_truncation_and_flip_is_refused_or_read_in_bounds(tmp_path):
    path = tmp_path / "net.safetensors"
    save_compressed(path, compress_tensors({"fc.weight": state()["fc.weight"][:8, :20]}, bits=2, sparsity=0.7))
    data = path.read_bytes()
    for size in range(0, len(data), 7):
        path.write_bytes(data[:size])
        with pytest.raises(lowbit.FormatError):
            load_compressed(path)
    for at in range(0, len(data), 3):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :])
        try:
            for value in load_compressed(path).values():
                if isinstance(value, CodedWeights):
                    value.weights()
        except lowbit.FormatError:
            pass


def test_wrong_arguments(tmp_path):
    with pytest.raises(ValueError, match="sparsity is 1"):
        compress_tensors(state(), sparsity=1.0)
    broken = state()
    broken["fc.weight"][0, 3] = np.nan
    with pytest.raises(ValueError, match=r"layer 'fc.weight': weight 3 is nan"):
        compress_tensors(broken)
    with pytest.raises(TypeError, match="complex"):
        write_safetensors(tmp_path / "no.safetensors", {"z": np.zeros(2, np.complex64)}, {})
    assert not (tmp_path / "no.safetensors").exists()
