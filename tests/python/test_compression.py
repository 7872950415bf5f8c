"""Pruning, weight sharing, relative indices, coded weights: against their definitions and the paper's numbers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import lowbit
from lowbit.compression import (
    CodedWeights,
    code_weights,
    codebook_gradient,
    finetune_codebook,
    gradual_density,
    layer_size,
    magnitude_mask,
    relative_decode,
    relative_encode,
    share_weights,
)
from lowbit.compression.coded import code_stream, decode_stream


def normal(shape, density=1.0, seed=0):
    rng = np.random.default_rng(seed)
    w = rng.normal(0, 0.1, shape).astype(np.float32)
    return np.where(rng.random(shape) < density, w, np.float32(0))


# Pruning --------------------------------------------------------------------------------------------------------------


def test_the_largest_weights_stay():
    w = normal((40, 50))
    mask = magnitude_mask(w, density=0.1)
    assert mask.sum() == 200
    assert np.abs(w[mask]).min() >= np.abs(w[~mask]).max()


def test_ties_keep_the_asked_number():
    mask = magnitude_mask(np.ones(10, np.float32), density=0.3)
    assert mask.tolist() == [True] * 3 + [False] * 7


def test_deviations_is_a_multiple_of_the_survivors_spread():
    w = normal(5000)
    first = magnitude_mask(w, deviations=1.0)
    assert np.array_equal(first, np.abs(w) >= w.std())
    again = magnitude_mask(w, deviations=1.0, mask=first)
    assert np.array_equal(again, first & (np.abs(w) >= w[first].std()))


def test_what_is_dropped_stays_dropped():
    w = normal(1000)
    mask = magnitude_mask(w, density=0.2)
    w[~mask] = 10.0
    assert not (magnitude_mask(w, density=0.5, mask=mask) & ~mask).any()


@pytest.mark.parametrize("density", [0.0, -0.1, 1.1, float("nan")])
def test_densities_out_of_range_name_the_layer(density):
    with pytest.raises(ValueError, match=r"layer 'fc': density is"):
        magnitude_mask(normal(10), density=density, layer="fc")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_name_layer_and_offset(value):
    w = normal((4, 5))
    w[2, 3] = value
    for call in (lambda: magnitude_mask(w, density=0.5, layer="fc"), lambda: share_weights(w, 4, layer="fc")):
        with pytest.raises(ValueError, match=r"layer 'fc': weight 13 is"):
            call()


def test_other_wrong_arguments():
    w = normal(10)
    with pytest.raises(ValueError, match="one of them"):
        magnitude_mask(w)
    with pytest.raises(ValueError, match=r"mask is \(3,\)"):
        magnitude_mask(w, density=0.5, mask=np.ones(3, bool))
    with pytest.raises(TypeError, match="float64"):
        magnitude_mask(w.astype(np.float64), density=0.5)
    with pytest.raises(ValueError, match="empty"):
        magnitude_mask(w[:0], density=0.5)


def test_all_zero_layers_keep_nothing():
    assert not magnitude_mask(np.zeros(10, np.float32), density=0.5).any()
    assert not magnitude_mask(np.zeros(10, np.float32), deviations=0.5).any()


def test_gradual_schedule():
    path = [gradual_density(t, 0.1, 0.9) for t in np.linspace(-0.5, 1.5, 21)]
    assert path[0] == 0.9 and path[-1] == pytest.approx(0.1)
    assert (np.diff(path) <= 0).all()


# Sharing --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_survivors_take_the_nearest_entry(bits):
    w = normal((60, 50), 0.3)
    codebook, codes = share_weights(w, bits, mask=w != 0)
    assert codebook.size == 2**bits and codebook[0] == 0 and codes.shape == w.shape
    assert np.array_equal(codes == 0, w == 0)
    alive = w[w != 0].astype(np.float64)
    nearest = np.abs(alive[:, None] - codebook[1:].astype(np.float64)).min(axis=1)
    np.testing.assert_allclose(np.abs(alive - codebook[codes[w != 0]]), nearest, atol=1e-7)


def test_few_distinct_weights_are_kept_exactly():
    values = np.float32([-0.5, 0.25, 3.0])
    w = values[np.random.default_rng(0).integers(0, 3, (30, 10))]
    codebook, codes = share_weights(w, 4)
    assert np.array_equal(codebook, values) and np.array_equal(codebook[codes], w)


def test_all_zero_layer_is_one_entry():
    w = np.zeros((3, 4), np.float32)
    codebook, codes = share_weights(w, 4, mask=w != 0)
    assert codebook.tolist() == [0.0] and not codes.any()
    coded = code_weights(w, 4)
    assert np.array_equal(coded.weights(), w)


def test_rare_values_far_behind_do_not_hide():
    """The first weights are all alike: the distinct values must be counted to the end."""
    w = np.zeros(5000, np.float32)
    w[:4000] = 1.0
    w[4000:] = normal(1000)
    codebook, codes = share_weights(w, 2)
    assert codebook.size == 4
    assert np.abs(codebook[codes] - w).max() < 0.5


def test_optimal_is_not_worse():
    w = normal(3000)
    error = {}
    for init in ("linear", "density", "forgy", "optimal"):
        codebook, codes = share_weights(w, 3, init=init)
        error[init] = float(((codebook[codes] - w).astype(np.float64) ** 2).sum())
    assert error["optimal"] <= min(error.values()) * (1 + 1e-6)


@pytest.mark.parametrize("bits", [0, 9])
def test_bits_out_of_range(bits):
    with pytest.raises(ValueError, match=r"layer 'fc': bits is"):
        share_weights(normal(10), bits, layer="fc")


# Fine-tuning ----------------------------------------------------------------------------------------------------------


def test_a_centroid_s_gradient_is_a_sum():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 5, (20, 30)).astype(np.uint8)
    gradient = rng.normal(size=codes.shape).astype(np.float32)
    expected = [gradient[codes == k].sum(dtype=np.float64) for k in range(6)]
    np.testing.assert_allclose(codebook_gradient(gradient, codes, 6), expected, rtol=1e-6, atol=1e-7)
    assert codebook_gradient(gradient, codes, 6, pinned=True)[0] == 0


def test_fine_tuning_reaches_the_least_squares_codebook():
    """For the loss sum (w - target)^2 / 2 the best entry is the mean of its targets."""
    rng = np.random.default_rng(0)
    codes, target = rng.integers(0, 4, 400).astype(np.uint8), rng.normal(size=400).astype(np.float32)
    start = np.zeros(4, np.float32)
    book = finetune_codebook(start, codes, lambda w: w - target, rate=5e-3, steps=300, momentum=0.5, pinned=True)
    expected = [target[codes == k].mean() for k in range(4)]
    np.testing.assert_allclose(book[1:], expected[1:], atol=1e-5)
    assert book[0] == 0 and not start.any()


def test_gradients_that_do_not_fit():
    with pytest.raises(ValueError, match=r"the codes are \(3,\)"):
        codebook_gradient(np.ones(4), np.zeros(3, np.uint8), 2)
    with pytest.raises(ValueError, match="code 7 in a codebook of 4"):
        codebook_gradient(np.ones(1), np.uint8([7]), 4)
    with pytest.raises(ValueError, match="step 0 is not finite"):
        finetune_codebook(np.zeros(1, np.float32), np.zeros(1, np.uint8), lambda w: w + np.nan, rate=1, steps=1)


# Relative indices -----------------------------------------------------------------------------------------------------


def test_the_paper_s_figure_2():
    """Span 8: the gap of 12 from position 4 to 15 takes a filler (Deep Compression, figure 2)."""
    codes = np.zeros(16, np.uint8)
    codes[[1, 4, 15]] = [34, 9, 17]
    gaps, kept = relative_encode(codes, 3)
    assert (gaps + 1).tolist() == [2, 3, 8, 3] and kept.tolist() == [34, 9, 0, 17]


@settings(deadline=None, max_examples=60)
@given(hnp.arrays(np.uint8, st.integers(0, 400), elements=st.sampled_from([0] * 30 + [1, 5, 255])), st.integers(1, 8))
def test_relative_round_trip(codes, gap_bits):
    gaps, kept = relative_encode(codes, gap_bits)
    assert gaps.shape == kept.shape and (gaps < 2**gap_bits).all()
    assert (gaps[kept == 0] == 2**gap_bits - 1).all()
    assert np.array_equal(relative_decode(gaps, kept, codes.size), codes)
    if kept.size:
        assert kept[-1] != 0


def test_entries_beyond_the_layer_are_named():
    with pytest.raises(lowbit.FormatError, match=r"layer 'fc': entry 1 of 3 lies at 9, beyond 8 weights"):
        relative_decode(np.uint8([4, 4, 0]), np.uint8([1, 1, 1]), 8, "fc")
    with pytest.raises(lowbit.FormatError, match="gaps for"):
        relative_decode(np.uint8([4]), np.uint8([1, 1]), 8)
    with pytest.raises(ValueError, match="gap_bits is 9"):
        relative_encode(np.zeros(3, np.uint8), 9)


# Coded weights --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("density", [0.02, 0.3, 1.0])
@pytest.mark.parametrize("form", ["auto", "dense", "sparse"])
@pytest.mark.parametrize("huffman", [False, True])
def test_streams_give_the_weights_back(density, form, huffman):
    w = normal((32, 5, 5, 4), density)
    coded = code_weights(w, 5, form=form, huffman=huffman, layer="conv")
    assert coded.shape == w.shape and np.array_equal(coded.weights() == 0, w == 0)
    assert np.array_equal(coded.weights(), coded.codebook[coded.indices()])
    streams = coded.streams(huffman)
    codes = decode_stream(streams["codes"].data, coded.bits, coded.codes.size, streams["codes"].huffman)
    assert np.array_equal(codes, coded.codes)
    if coded.sparse:
        gaps = decode_stream(streams["gaps"].data, coded.gap_bits, codes.size, streams["gaps"].huffman)
        assert np.array_equal(relative_decode(gaps, codes, coded.size).reshape(w.shape), coded.indices())
    found = layer_size(coded, huffman, bias=128)
    assert found.bytes == coded.nbytes(huffman) + 128
    assert found.kept == np.count_nonzero(w)
    assert found.fillers == (found.entries - found.kept if coded.sparse else 0)


def test_auto_is_the_smallest_form():
    for density in (0.05, 0.9):
        w = normal((100, 80), density)
        auto = code_weights(w, 4).nbytes()
        assert auto == min(code_weights(w, 4, form=form).nbytes() for form in ("dense", "sparse"))


def test_huffman_is_used_where_it_is_smaller():
    skewed = np.minimum(np.random.default_rng(0).geometric(0.7, 4000) - 1, 15).astype(np.uint8)
    assert code_stream(skewed, 4, True).huffman and not code_stream(skewed[:4], 4, True).huffman
    assert code_stream(skewed, 4, False).data.size == 2000


def test_size_of_the_paper_s_layer():
    """ip1 of LeNet-300-100: 8 % of 235,200 weights, 6-bit codes, 5-bit gaps: 3.0 % of float before Huffman."""
    w = normal((300, 784), 0.08)
    coded = code_weights(w, 6, gap_bits=5, form="sparse")
    assert coded.nbytes(huffman=False) / (4 * w.size) == pytest.approx(0.030, abs=0.0015)


def test_the_survey_s_example():
    """A 4 x 4 matrix over four values: (16 * 2 + 4 * 32) / (16 * 32)."""
    book = np.float32([-1, 0, 1.5, 2])
    w = book[np.arange(16).reshape(4, 4) % 4]
    assert code_weights(w, 2, form="dense", huffman=False).nbytes(huffman=False) / w.nbytes == 0.3125


def test_damage_names_the_layer():
    with pytest.raises(lowbit.FormatError, match=r"layer 'fc': code 3 at 1 in a codebook of 2"):
        CodedWeights((2,), 2, np.float32([0, 1]), np.uint8([0, 3]), layer="fc")
    with pytest.raises(lowbit.FormatError, match=r"layer 'fc': 1 codes for 2 weights"):
        CodedWeights((2,), 2, np.float32([0, 1]), np.uint8([0]), layer="fc")
    with pytest.raises(lowbit.FormatError, match=r"code 0 of a sparse layer"):
        CodedWeights((2,), 2, np.float32([1, 2]), np.uint8([0]), np.uint8([0]), 2, "fc")
    with pytest.raises(lowbit.FormatError, match=r"layer 'fc': 2 bytes for 3 symbols of 4 bits|layer 'fc': 1 bytes"):
        decode_stream(np.uint8([1]), 4, 3, False, "fc")
    stream = code_stream(np.zeros(5000, np.uint8), 4, True)
    assert stream.huffman
    with pytest.raises(lowbit.FormatError, match=r"layer 'fc'"):
        decode_stream(stream.data[:-1], 4, 5000, True, "fc")
    with pytest.raises(lowbit.FormatError, match=r"layer 'fc': a Huffman stream of 5000 symbols, not 4999"):
        decode_stream(stream.data, 4, 4999, True, "fc")
