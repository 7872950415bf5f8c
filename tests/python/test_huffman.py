"""Huffman coding: round trips, sizes against the optimum, one stream for all machines, every level on bad bytes."""

import heapq
import json
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lowbit
from huffman_streams import gaussian, length_table, parsed, pivot_tree, reference_decode, resealed, skewed, stream

LEVELS = lowbit.isas()
LAYOUTS = ("pivot", "streams")
LENGTHS = [0, 1, 2, 7, 8, 9, 63, 64, 65, 255, 256, 257, 511, 512, 513, 1000, 4095, 4097, 65535, 65536, 65537, 140000]


def decodes(buf: bytes, isa: str) -> bytes | str:
    """What a level makes of a stream: the symbols, or the error."""
    try:
        return lowbit.huffman_decode(buf, isa=isa).tobytes()
    except lowbit.FormatError as error:
        return str(error)


def optimal_bits(symbols: np.ndarray) -> int:
    """Bits of an unlimited Huffman code, by the textbook."""
    tie = count()
    heap = [(int(n), next(tie)) for n in np.bincount(symbols.ravel(), minlength=256) if n]
    heapq.heapify(heap)
    if len(heap) == 1:
        return 0
    bits = 0
    while len(heap) > 1:
        both = heapq.heappop(heap)[0] + heapq.heappop(heap)[0]
        bits += both
        heapq.heappush(heap, (both, next(tie)))
    return bits


def test_levels_that_ran():
    assert LEVELS[-1] == "scalar"
    if "avx512" in LEVELS:
        assert LEVELS[-4:-2] == ["avx512", "avx512_vnni"]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("n", LENGTHS)
def test_round_trip_at_lengths(n: int, layout: str):
    symbols = skewed(n, 40, 0.8, n)
    buf = lowbit.huffman_encode(symbols, layout=layout)
    for isa in LEVELS:
        np.testing.assert_array_equal(lowbit.huffman_decode(buf, isa=isa, threads=2), symbols)
        assert lowbit.huffman_encode(symbols, layout=layout, isa=isa, threads=2) == buf


@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(0, 3000),
    alphabet=st.integers(1, 256),
    skew=st.floats(0.3, 1),
    layout=st.sampled_from(LAYOUTS),
    chunk=st.sampled_from([256, 512, 1024, 65536]),
)
@settings(max_examples=150, deadline=None)
def test_round_trip_of_any_alphabet(seed: int, n: int, alphabet: int, skew: float, layout: str, chunk: int):
    symbols = skewed(n, alphabet, skew, seed)
    buf = lowbit.huffman_encode(symbols, layout=layout, chunk=chunk, isa="scalar", threads=1)
    assert lowbit.huffman_encode(symbols, layout=layout, chunk=chunk) == buf
    for isa in LEVELS:
        np.testing.assert_array_equal(lowbit.huffman_decode(buf, isa=isa), symbols)


@given(st.lists(st.integers(0, 255), max_size=600), st.sampled_from(LAYOUTS))
@settings(max_examples=100, deadline=None)
def test_round_trip_of_any_bytes(values: list[int], layout: str):
    symbols = np.array(values, np.uint8)
    buf = lowbit.huffman_encode(symbols, layout=layout, chunk=256)
    for isa in LEVELS:
        np.testing.assert_array_equal(lowbit.huffman_decode(buf, isa=isa), symbols)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("pack", [1, 2, 4, 8])
@pytest.mark.parametrize("n", [1, 3, 127, 128, 129, 520, 4099])
def test_packing(n: int, pack: int, layout: str):
    symbols = skewed(n, min(2 ** (8 // pack), 16), 0.6, n)
    buf = lowbit.huffman_encode(symbols, pack=pack, layout=layout, chunk=256)
    stream = lowbit.HuffmanStream(buf)
    assert stream.pack == pack and stream.packed_bytes == -(-n // pack)
    fields = np.zeros(stream.packed_bytes * pack, np.uint32)
    fields[:n] = symbols
    want = (fields.reshape(-1, pack) << (8 // pack * np.arange(pack, dtype=np.uint32))).sum(1).astype(np.uint8)
    for isa in LEVELS:
        np.testing.assert_array_equal(stream.decode(isa=isa), symbols)
        np.testing.assert_array_equal(stream.decode_packed(isa=isa, threads=2), want)
        assert lowbit.huffman_encode(symbols, pack=pack, layout=layout, chunk=256, isa=isa) == buf


def test_packing_is_chosen_where_it_is_smaller():
    mostly_zero = skewed(50_000, 16, 0.1)
    chosen = lowbit.HuffmanStream(lowbit.huffman_encode(mostly_zero))
    assert chosen.pack == 2
    assert chosen.nbytes < len(lowbit.huffman_encode(mostly_zero, pack=1))
    assert lowbit.HuffmanStream(lowbit.huffman_encode(skewed(40, 16, 0.9))).pack == 1  # the table would cost more
    assert lowbit.HuffmanStream(lowbit.huffman_encode(np.arange(3000, dtype=np.uint8) % 17)).pack == 1


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 5), (7,), (2, 3, 4), (1,) * 32, (300, 301)])
def test_shapes_are_kept(shape: tuple[int, ...]):
    symbols = np.random.default_rng(0).integers(0, 7, shape).astype(np.uint8)
    decoded = lowbit.huffman_decode(lowbit.huffman_encode(symbols))
    assert decoded.shape == shape and decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, symbols)


def test_strided_input_and_out():
    symbols = np.arange(24, dtype=np.uint8).reshape(4, 6)
    np.testing.assert_array_equal(lowbit.huffman_decode(lowbit.huffman_encode(symbols.T)), symbols.T)
    out = np.empty((4, 6), np.uint8)
    assert lowbit.huffman_decode(memoryview(lowbit.huffman_encode(symbols)), out=out) is out
    np.testing.assert_array_equal(out, symbols)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_symbol_takes_no_bits_and_noise_is_stored(layout: str):
    stream = lowbit.HuffmanStream(lowbit.huffman_encode(np.full(200_000, 77, np.uint8), layout=layout, pack=1))
    assert stream.nbytes == stream.header_bytes and not stream.chunk_stored(0)
    assert (stream.decode() == 77).all()
    noise = np.random.default_rng(0).integers(0, 256, 100_000).astype(np.uint8)
    stream = lowbit.HuffmanStream(lowbit.huffman_encode(noise, layout=layout))
    assert stream.chunk_stored(0) and stream.chunk_stored(1) and not stream.code_lengths.any()
    assert stream.nbytes == stream.header_bytes + 100_000 and stream.header_bytes < 40
    np.testing.assert_array_equal(stream.decode(), noise)


def test_a_chunk_that_does_not_shrink_is_stored_among_others():
    noise = np.random.default_rng(0).integers(0, 256, 512).astype(np.uint8)
    symbols = np.concatenate([np.zeros(2048, np.uint8), noise, np.ones(300, np.uint8)])
    stream = lowbit.HuffmanStream(lowbit.huffman_encode(symbols, chunk=512))
    assert [stream.chunk_stored(i) for i in range(stream.chunks)] == [False] * 4 + [True, False]
    for isa in LEVELS:
        np.testing.assert_array_equal(stream.decode(isa=isa), symbols)


@pytest.mark.parametrize("symbols", [gaussian(300_000, 31), gaussian(300_000, 10.2), skewed(300_000, 32, 0.8)])
def test_size_against_the_optimum(symbols: np.ndarray):
    # The optimum here has no limit; a limit of 15 costs these nothing.
    assert len(lowbit.huffman_encode(symbols)) <= 1.003 * optimal_bits(symbols) / 8


def test_code_lengths_are_limited_and_complete():
    fibonacci = [1, 1]
    while len(fibonacci) < 20:
        fibonacci.append(fibonacci[-1] + fibonacci[-2])
    symbols = np.repeat(np.arange(20, dtype=np.uint8), fibonacci)
    for layout, limit in (("pivot", 15), ("streams", 12)):
        stream = lowbit.HuffmanStream(lowbit.huffman_encode(symbols, layout=layout))
        lengths = stream.code_lengths[stream.code_lengths > 0].astype(int)
        assert lengths.max() == limit and sum(2.0**-lengths) == 1
        for isa in LEVELS:
            np.testing.assert_array_equal(stream.decode(isa=isa), symbols)


def test_package_merge_equals_exhaustive_search():
    """Every complete set of lengths up to 15 for 6 symbols; counts from ones to Fibonacci's."""

    def complete(symbols: int, depth: int):
        if symbols == 1:
            yield (depth,)
        if symbols > 1 and depth < 15:
            for left in range(1, symbols):
                for a in complete(left, depth + 1):
                    for b in complete(symbols - left, depth + 1):
                        yield a + b

    shapes = {tuple(sorted(lengths, reverse=True)) for lengths in complete(6, 0)}
    rng = np.random.default_rng(0)
    for _ in range(30):
        counts = np.sort(rng.integers(1, 70, 6) ** rng.integers(1, 3))  # below what is searched for saved merges
        symbols = np.repeat(np.arange(100, 106, dtype=np.uint8), counts)
        lengths = lowbit.HuffmanStream(lowbit.huffman_encode(symbols)).code_lengths[100:106].astype(int)
        assert (lengths * counts).sum() == min((np.array(s) * counts).sum() for s in shapes)


def merges(stream: lowbit.HuffmanStream, symbols: np.ndarray) -> float:
    """Levels of merging that a symbol goes through, on average."""
    counts = np.bincount(symbols, minlength=256)

    def below(node) -> int:
        return sum(map(below, node)) if isinstance(node, tuple) else int(counts[node].sum())

    def levels(node) -> int:
        return below(node) + sum(map(levels, node)) if isinstance(node, tuple) else 0

    coded = {b: int(n) for b, n in enumerate(stream.code_lengths) if n}
    return levels(pivot_tree(coded)) / symbols.size


def test_lengths_that_save_merges():
    symbols = gaussian(200_000, 31)
    stream = lowbit.HuffmanStream(lowbit.huffman_encode(symbols))
    shortest = lowbit.HuffmanStream(lowbit.huffman_encode(symbols[:30_000]))  # too few to search for others
    lengths = stream.code_lengths[stream.code_lengths > 0].astype(int)
    assert sum(2.0**-lengths) == 1 and lengths.max() <= 15
    counts = np.bincount(symbols, minlength=256)
    assert (counts * stream.code_lengths).sum() <= 1.001 * optimal_bits(symbols)
    assert merges(stream, symbols) < merges(shortest, symbols[:30_000]) - 0.5


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("pack", [1, 2])
def test_chunks_one_by_one(layout: str, pack: int):
    symbols = skewed(5000, 16, 0.7)
    stream = lowbit.HuffmanStream(lowbit.huffman_encode(symbols, layout=layout, pack=pack, chunk=512))
    assert stream.chunks == -(-5000 // (512 * pack))
    assert sum(stream.chunk_symbols(i) for i in range(stream.chunks)) == 5000
    assert stream.header_bytes + sum(stream.chunk_coded_bytes(i) for i in range(stream.chunks)) == stream.nbytes
    for isa in LEVELS:
        parts = [stream.decode_chunk(i, isa=isa) for i in reversed(range(stream.chunks))]
        np.testing.assert_array_equal(np.concatenate(parts[::-1]), symbols)
        packed = [stream.decode_chunk_packed(i, isa=isa) for i in range(stream.chunks)]
        np.testing.assert_array_equal(np.concatenate(packed), stream.decode_packed())
    for chunk in (-1, stream.chunks):
        with pytest.raises(ValueError, match=f"chunk {chunk}, the stream has {stream.chunks}"):
            stream.decode_chunk(chunk)


def damaged_streams():
    for layout in LAYOUTS:
        yield lowbit.huffman_encode(skewed(900, 30, 0.8), layout=layout, chunk=256)
        yield lowbit.huffman_encode(skewed(700, 4, 0.4), layout=layout, pack=4, chunk=256)
        yield lowbit.huffman_encode(np.full(300, 9, np.uint8), layout=layout, chunk=256)


@pytest.mark.parametrize("good", list(damaged_streams()), ids=range(6))
def test_cut_at_every_byte(good: bytes):
    for n in range(len(good)):
        with pytest.raises(lowbit.FormatError, match="huffman stream"):
            lowbit.huffman_decode(good[:n])
    with pytest.raises(lowbit.FormatError, match="its chunks end at"):
        lowbit.huffman_decode(good + b"\0")


@pytest.mark.parametrize("good", list(damaged_streams()), ids=range(6))
def test_every_flipped_bit_is_found(good: bytes):
    for at in range(len(good)):
        for bit in range(8):
            bad = bytearray(good)
            bad[at] ^= 1 << bit
            with pytest.raises(lowbit.FormatError):
                lowbit.huffman_decode(bytes(bad), isa=LEVELS[(at + bit) % len(LEVELS)])


@pytest.mark.parametrize("good", list(damaged_streams()), ids=range(6))
def test_levels_agree_on_damage_behind_right_checksums(good: bytes):
    header = parsed(good)
    rng = np.random.default_rng(1)
    accepted = 0
    for _ in range(200):
        chunks = [bytearray(c) for c in header["chunks"]]
        table = bytearray(header["table"])
        for _ in range(rng.integers(1, 4)):
            target = [*chunks, table][rng.integers(len(chunks) + 1)]
            if target:
                target[rng.integers(len(target))] ^= 1 << rng.integers(8)
        if chunks and rng.integers(4) == 0:
            chunks[0] = chunks[0][: rng.integers(len(chunks[0]) + 1)]
        bad = resealed(header, [bytes(c) for c in chunks], bytes(table))
        results = {isa: decodes(bad, isa) for isa in LEVELS}
        assert len(set(results.values())) == 1, results
        accepted += isinstance(results["scalar"], bytes)
    assert 0 < accepted < 200


def raises_everywhere(buf: bytes, words: str) -> None:
    for isa in LEVELS:
        with pytest.raises(lowbit.FormatError, match=words):
            lowbit.huffman_decode(buf, isa=isa)


def test_errors_name_what_and_where():
    good = lowbit.huffman_encode(np.arange(300, dtype=np.uint8) % 4, pack=1)
    two_bits = length_table({0: 2, 1: 2, 2: 2, 3: 2})
    assert good == stream((300,), two_bits, [good[-75:]])
    payload = len(good) - 75
    for at, value, words in [
        (0, b"X", r"does not begin with LBHF \(at byte 1\)"),
        (4, b"\2", r"newer lowbit \(at byte 5\)"),
        (5, b"\xff", r"unknown flags 255 \(at byte 6\)"),
        (6, b"\x14", r"chunks of 2\^20 \(at byte 7\)"),
        (7, b"\x40", r"64 axes \(at byte 8\)"),
        (8, b"\x80\x00", "longer than it need be"),
        (8, b"\xff" * 9, "a number is too large"),
        (8, b"\xad", "the header's checksum is wrong"),
        (payload, b"\xff", rf"chunk 0: its checksum is wrong \(at byte {payload}\)"),
    ]:
        raises_everywhere(good[:at] + value + good[at + len(value) :], words)
    chunk = good[-75:]
    big = 2**48 + 1
    for buf, words in [
        (stream((big,), two_bits, [chunk]), "shape is too large"),
        (stream((2**40, 2**40), two_bits, [chunk]), "shape is too large"),
        (stream((2**40,), two_bits, [chunk]), "too short for its 16777216 chunks"),
        (stream((300,), bytes([4, 3, 0]), [chunk]), "code lengths from byte 4 to 3"),
        (stream((300,), length_table({0: 2, 1: 2, 2: 2, 3: 1}), [chunk]), r"over-subscribed \(at byte 10\)"),
        (stream((300,), length_table({0: 2, 1: 2, 2: 2, 3: 3}), [chunk]), r"incomplete \(at byte 10\)"),
        (stream((300,), length_table({7: 2}), [b""]), "incomplete"),
        (stream((300,), length_table({0: 0, 1: 1, 2: 1}), [chunk]), "must not be 0"),
        (stream((300,), length_table({0: 1, 1: 1, 2: 0}), [chunk]), "must not be 0"),
        (stream((300,), two_bits[:-1] + b"\xff", [chunk]), "behind the last code length"),
        (stream((300,), b"\0\3\0\0\0", [chunk]), "byte 0 is no difference"),
        (stream((300,), two_bits, [chunk * 4]), "chunk 0 of 300 bytes has 300 in the stream"),
        (stream((300,), two_bits, [chunk], stored=(0,)), "its chunks end at"),
        (stream((300,), b"", [chunk], flags=1), "there is no code table"),
        (stream((300,), length_table({5: 1}), [b"\0"]), "chunk 0: bytes where one symbol needs none"),
        (stream((300,), two_bits, [chunk[:-1]]), "chunk 0: cut off"),
        (stream((300,), two_bits, [chunk + b"\0"]), "chunk 0: bytes behind its last code"),
        (stream((300,), two_bits, [chunk[:13]], flags=8), "chunk 0: cut off"),
        (stream((300,), two_bits, [b"\xff" * 20], flags=8), "chunk 0: streams longer than the chunk"),
        (stream((300,), two_bits, [bytes(80)], flags=8), "chunk 0: a stream does not end with its last code"),
    ]:
        raises_everywhere(buf, words)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("seed", range(6))
def test_a_second_reader_written_from_the_document(seed: int, layout: str):
    rng = np.random.default_rng(seed)
    symbols = [skewed(1300, 200, 0.97, seed), gaussian(1200, 9), skewed(900, 16, 0.8), skewed(2000, 3, 0.5),
               skewed(600, 256, 1.0), np.full(500, 3, np.uint8)][seed].reshape(2, -1)  # fmt: skip
    buf = lowbit.huffman_encode(symbols, layout=layout, chunk=int(rng.choice([256, 512, 65536])))
    np.testing.assert_array_equal(reference_decode(buf), symbols)
    header = parsed(buf)
    assert resealed(header, header["chunks"]) == buf


def test_arguments():
    symbols = np.zeros(10, np.uint8)
    with pytest.raises(TypeError, match="symbols is int8, must be uint8"):
        lowbit.huffman_encode(np.zeros(3, np.int8))
    with pytest.raises(ValueError, match="layout 'tree' is not one of"):
        lowbit.huffman_encode(symbols, layout="tree")
    with pytest.raises(ValueError, match="pack is 3"):
        lowbit.huffman_encode(symbols, pack=3)
    with pytest.raises(ValueError, match="symbol 16 does not fit 4 bits"):
        lowbit.huffman_encode(np.array([16], np.uint8), pack=2)
    with pytest.raises(ValueError, match="chunk is 300"):
        lowbit.huffman_encode(symbols, chunk=300)
    buf = lowbit.huffman_encode(symbols)
    with pytest.raises(TypeError, match="out is int8"):
        lowbit.huffman_decode(buf, out=np.empty(10, np.int8))
    with pytest.raises(TypeError, match="out must be a NumPy array"):
        lowbit.huffman_decode(buf, out=[0] * 10)
    with pytest.raises(ValueError, match=r"out is \(9,\), the result is \(10,\)"):
        lowbit.huffman_decode(buf, out=np.empty(9, np.uint8))
    with pytest.raises(ValueError, match="C order"):
        lowbit.huffman_decode(lowbit.huffman_encode(np.zeros((2, 5), np.uint8)), out=np.empty((5, 2), np.uint8).T)
    with pytest.raises(TypeError, match="buf must be bytes"):
        lowbit.huffman_decode(7)
    with pytest.raises(ValueError, match="unknown level"):
        lowbit.huffman_decode(buf, isa="sse")
    read_only = np.empty(10, np.uint8)
    read_only.flags.writeable = False
    with pytest.raises(ValueError, match="writeable"):
        lowbit.huffman_decode(buf, out=read_only)


def test_nothing_is_written_outside_the_output():
    for layout in LAYOUTS:
        for n in (1, 63, 65, 700, 5000):
            symbols = skewed(n, 16, 0.7, n)
            for pack in (1, 2):
                buf = lowbit.huffman_encode(symbols, layout=layout, pack=pack, chunk=512)
                for isa in LEVELS:
                    memory = np.full(n + 128, 0xA5, np.uint8)
                    lowbit.huffman_decode(buf, out=memory[64 : 64 + n], isa=isa)
                    assert (memory[:64] == 0xA5).all() and (memory[64 + n :] == 0xA5).all()
                    np.testing.assert_array_equal(memory[64 : 64 + n], symbols)


GOLDEN = Path(__file__).parents[1] / "golden" / "huffman"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())


@pytest.mark.parametrize("name", EXPECTED["good"])
def test_golden_streams_give_what_they_gave(name: str):
    expected = EXPECTED["good"][name]
    buf = (GOLDEN / f"{name}.lbhf").read_bytes()
    symbols = np.frombuffer(bytes.fromhex(expected["symbols"]), np.uint8).reshape(expected["shape"])
    np.testing.assert_array_equal(reference_decode(buf), symbols)
    for isa in LEVELS:
        np.testing.assert_array_equal(lowbit.huffman_decode(buf, isa=isa), symbols)
        assert lowbit.huffman_encode(symbols, **expected["options"], isa=isa) == buf


@pytest.mark.parametrize(("name", "words"), EXPECTED["bad"].items())
def test_golden_bad_streams_are_refused(name: str, words: str):
    buf = (GOLDEN / f"{name}.lbhf").read_bytes()
    messages = {decodes(buf, isa) for isa in LEVELS}
    assert len(messages) == 1 and words in messages.pop()


def test_all_golden_streams_are_expected():
    assert {p.stem for p in GOLDEN.glob("*.lbhf")} == EXPECTED["good"].keys() | EXPECTED["bad"].keys()
    assert len(EXPECTED["good"]) >= 9 and len(EXPECTED["bad"]) >= 10
