"""CRC-32 of files: every level against zlib."""

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lowbit
from lowbit import _core

SIZES = [*range(35), 63, 64, 65, 127, 128, 129, 143, 191, 192, 255, 256, 257, 511, 512, 513, 767, 768, 1023, 70001]


def test_every_level_is_zlib_s():
    data = np.random.default_rng(0).integers(0, 256, 1 << 17, dtype=np.uint8).tobytes()
    ran = []
    for isa in lowbit.isas():
        for start in (0, 1, 3):
            for size in SIZES:
                part = data[start : start + size]
                assert _core.crc32(part, isa=isa) == zlib.crc32(part), (isa, start, size)
                assert _core.crc32(part, 0xDEADBEEF, isa) == zlib.crc32(part, 0xDEADBEEF), (isa, start, size)
        ran.append(isa)
    assert ran == lowbit.isas() and "scalar" in ran


def test_the_check_value():
    for isa in lowbit.isas():
        assert _core.crc32(b"123456789", isa=isa) == 0xCBF43926


@given(st.integers(0, 3000), st.integers(0, 3000), st.integers(0, 2**32 - 1))
def test_parts_continue(first, second, seed):
    data = np.random.default_rng(seed).integers(0, 256, first + second, dtype=np.uint8).tobytes()
    for isa in lowbit.isas():
        assert _core.crc32(data[first:], _core.crc32(data[:first], isa=isa), isa) == zlib.crc32(data)


def test_a_flipped_bit_shows():
    data = bytearray(2048)
    whole = _core.crc32(bytes(data))
    for at in (0, 17, 300, 2047):
        data[at] ^= 16
        assert _core.crc32(bytes(data)) != whole
        data[at] ^= 16


def test_wrong_arguments():
    with pytest.raises(ValueError, match="not contiguous"):
        _core.crc32(np.zeros((4, 4), np.uint8)[:, ::2])
    with pytest.raises(ValueError, match="unknown level"):
        _core.crc32(b"", isa="avx3")
