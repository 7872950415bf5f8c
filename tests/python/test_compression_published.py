"""The published files of Deep Compression: the authors' SqueezeNet, small made files, damaged ones."""

import os
from pathlib import Path

import numpy as np
import pytest

import lowbit
from lowbit.compression import SQUEEZENET_1_0, LayerShape, code_weights, read_published, write_published

DATA = Path(os.environ.get("LOWBIT_DATA", Path(__file__).parents[3] / "shared/data"))
LAYERS = (LayerShape("conv", (3, 2, 5, 5)), LayerShape("fc", (4, 30), 4))


@pytest.fixture(scope="module")
def made():
    """Two layers, the bytes of their file, and the weights."""
    rng = np.random.default_rng(0)
    parts = []
    for layer in LAYERS:
        w = rng.normal(size=layer.shape).astype(np.float32) * (rng.random(layer.shape) < 0.1)
        coded = code_weights(w, layer.bits, form="sparse", gap_bits=4, layer=layer.name)
        parts.append((coded, rng.normal(size=layer.shape[0]).astype(np.float32)))
    return parts, write_published(parts)


def test_a_written_file_reads_back(made):
    parts, data = made
    found = read_published(data, LAYERS)
    assert list(found) == ["conv", "fc"]
    for (coded, bias), (name, (weights, again)) in zip(parts, found.items(), strict=True):
        assert weights.layer == name and np.array_equal(again, bias)
        assert np.array_equal(weights.weights(), coded.weights())


def test_every_truncation_is_refused(made):
    _, data = made
    for size in range(len(data)):
        with pytest.raises(lowbit.FormatError, match="offset"):
            read_published(data[:size], LAYERS)
    with pytest.raises(lowbit.FormatError, match=f"offset {len(data)}: 1 bytes after the last layer"):
        read_published(data + b"\0", LAYERS)


def test_damage_is_refused_or_read_within_bounds(made):
    _, data = made
    refused = 0
    for at in range(len(data)):
        broken = bytearray(data)
        broken[at] ^= 0xFF
        try:
            for weights, _ in read_published(bytes(broken), LAYERS).values():
                assert np.isfinite(weights.weights()).all()
        except lowbit.FormatError as error:
            assert "offset" in str(error)
            refused += 1
    assert refused > 8  # the counts at least


def test_errors_name_layer_and_offset(made):
    parts, data = made
    many = np.uint32([10**6, parts[1][0].codes.size]).tobytes() + data[8:]
    with pytest.raises(lowbit.FormatError, match=r"layer 'conv' at offset 8: 1000000 entries for 150 weights"):
        read_published(many, LAYERS)
    zero = bytearray(data)
    zero[8:12] = np.float32(0.5).tobytes()
    with pytest.raises(lowbit.FormatError, match=r"layer 'conv': code 0 .* \(the layer begins at offset 8\)"):
        read_published(bytes(zero), LAYERS)
    zero[8:12] = np.float32(np.nan).tobytes()
    with pytest.raises(lowbit.FormatError, match=r"layer 'conv' at offset 8: codebook entry 0 is not finite"):
        read_published(bytes(zero), LAYERS)
    with pytest.raises(ValueError, match=r"layer 'fc': a published file holds sparse layers"):
        write_published([(code_weights(np.ones((2, 2), np.float32), 4, layer="fc"), np.zeros(2, np.float32))])


def test_the_authors_squeezenet():
    path = DATA / "squeezenet1_0_deepcompression.net"
    if not path.is_file():
        pytest.skip(f"{path} is not here; set LOWBIT_DATA")
    layers = read_published(path)
    assert [layer.name for layer in SQUEEZENET_1_0] == list(layers)
    assert sum(coded.size for coded, _ in layers.values()) == 1_244_448
    assert sum(coded.kept for coded, _ in layers.values()) == 415_921
    assert write_published(list(layers.values())) == path.read_bytes()
