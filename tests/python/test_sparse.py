"""Products with pruned weights: every level against scalar, scalar against NumPy and the dense codebook product."""

import numpy as np
import pytest

import lowbit
from lowbit.compression import CodedWeights, code_weights

SIZES = [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 65]


def weights(n, k, density, bits=4, seed=0):
    rng = np.random.default_rng(seed)
    w = rng.normal(size=(n, k)).astype(np.float32) * (rng.random((n, k)) < density)
    w[n // 2 :: 3] = 0  # channels without a weight
    return code_weights(w, bits, form="sparse")


def activations(m, k, seed=1):
    return np.random.default_rng(seed).normal(size=(m, k)).astype(np.float32)


def fma_chain(x, w):
    """One chain of fused multiply-adds in ascending p, in float64, where a product is exact."""
    out = np.zeros((x.shape[0], w.shape[0]), np.float32)
    for p in range(x.shape[1]):
        out = (x[:, p, None].astype(np.float64) * w[None, :, p].astype(np.float64) + out).astype(np.float32)
    return out


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("m", [0, 1, 2, 3, 5, 16, 17, 35])
def test_levels_equal_scalar(n, m):
    coded, x = weights(n, 70, 0.3), activations(m, 70)
    packed, bias = lowbit.pack_sparse(coded), activations(1, n)[0]
    expected = lowbit.sparse_gemm(x, packed, bias=bias, clamp=(-1, 2), isa="scalar", threads=1)
    ran = []
    for isa in lowbit.isas():
        for threads in (1, 3):
            assert np.array_equal(
                lowbit.sparse_gemm(x, packed, bias=bias, clamp=(-1, 2), isa=isa, threads=threads), expected
            )
        ran.append(isa)
    assert ran == lowbit.isas() and "scalar" in ran


@pytest.mark.parametrize("bits", [1, 4, 5, 6, 8])
@pytest.mark.parametrize("m", [1, 20])
def test_the_numbers_of_the_dense_product(bits, m):
    coded, x = weights(50, 300, 0.2, bits), activations(m, 300)
    dense = lowbit.codebook_gemm(x, lowbit.pack_indices(coded.indices(), bits), coded.codebook)
    assert np.array_equal(lowbit.sparse_gemm(x, coded), dense)
    np.testing.assert_allclose(dense, x.astype(np.float64) @ coded.weights().T.astype(np.float64), rtol=1e-4, atol=1e-4)


def test_scalar_is_the_chain():
    coded, x = weights(20, 40, 0.5), activations(4, 40)
    found = lowbit.sparse_gemm(x, coded, isa="scalar")
    np.testing.assert_allclose(found, fma_chain(x, coded.weights()), rtol=1e-6, atol=1e-6)


def test_no_weights_at_all():
    coded = code_weights(np.zeros((5, 6), np.float32), 4, form="sparse")
    assert lowbit.pack_sparse(coded).entries == 0
    for m in (1, 16):
        y = lowbit.sparse_gemm(activations(m, 6), coded, bias=np.arange(5, dtype=np.float32))
        assert np.array_equal(y, np.tile(np.arange(5, dtype=np.float32), (m, 1)))


def test_fillers_and_wide_layers():
    w = np.zeros((3, 5000), np.float32)
    w[0, 4999], w[2, 0], w[2, 4321] = 1.5, -2, 0.25
    coded, x = code_weights(w, 2, form="sparse", gap_bits=3), activations(1, 5000)
    assert coded.fillers > 100 and lowbit.pack_sparse(coded).entries == 3
    expected = [[1.5 * x[0, 4999], 0, np.float32(0.25 * x[0, 4321]) - 2 * x[0, 0]]]
    np.testing.assert_allclose(lowbit.sparse_gemm(x, coded), expected, rtol=1e-6)


def test_values_that_are_not_finite_spread_as_they_do_in_every_level():
    coded = weights(40, 64, 0.4)
    x = activations(18, 64)
    x[0, 3], x[1, 5], x[17, 60] = np.inf, np.nan, -np.inf
    expected = lowbit.sparse_gemm(x, coded, isa="scalar")
    for isa in lowbit.isas():
        np.testing.assert_array_equal(lowbit.sparse_gemm(x, coded, isa=isa), expected)
    assert np.isnan(expected[1]).sum() == np.count_nonzero(coded.weights()[:, 5])


def test_caller_s_buffer_and_wrong_arguments():
    coded, x = weights(9, 20, 0.5), activations(2, 20)
    packed, out = lowbit.pack_sparse(coded), np.zeros((2, 9), np.float32)
    assert lowbit.sparse_gemm(x, packed, out=out) is out and out.any()
    with pytest.raises(ValueError, match="x has k = 19, w has k = 20"):
        lowbit.sparse_gemm(x[:, :19], packed)
    with pytest.raises(TypeError, match="float32"):
        lowbit.sparse_gemm(x.astype(np.float64), packed)
    with pytest.raises(ValueError, match=r"bias is \(3"):
        lowbit.sparse_gemm(x, packed, bias=np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="clamp"):
        lowbit.sparse_gemm(x, packed, clamp=(1, -1))
    with pytest.raises(ValueError, match=r"codebook\[0\] is"):
        lowbit.pack_sparse(CodedWeights((1, 2), 1, np.float32([1, 2]), np.uint8([0, 1])))
    with pytest.raises(ValueError, match="entry 1 lies at 2, beyond 2 weights"):
        lowbit._core.pack_sparse(np.uint8([0, 1]), np.uint8([1, 1]), 1, 2, np.float32([0, 1]))
    with pytest.raises(ValueError, match="entry 0 has code 2 in a codebook of 2"):
        lowbit._core.pack_sparse(np.uint8([0]), np.uint8([2]), 1, 2, np.float32([0, 1]))
    with pytest.raises(ValueError, match="k may be up to 65536"):
        lowbit._core.pack_sparse(np.uint8([]), np.uint8([]), 1, 65537, np.float32([0]))
