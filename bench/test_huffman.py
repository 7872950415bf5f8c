import numpy as np
import pytest

import lowbit
from huffman import SOURCES


@pytest.mark.parametrize("name", SOURCES)
def test_decode(timed, isa, threads, name):
    stream = lowbit.HuffmanStream(lowbit.huffman_encode(SOURCES[name](1 << 20), pack=1))
    out = np.empty(stream.shape, np.uint8)
    timed(lambda: stream.decode(out=out, isa=isa, threads=threads))


@pytest.mark.parametrize("name", SOURCES)
def test_encode(timed, threads, name):
    symbols = SOURCES[name](1 << 20)
    timed(lambda: lowbit.huffman_encode(symbols, threads=threads))
