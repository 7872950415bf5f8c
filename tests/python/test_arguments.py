"""Arrays of other libraries: viewed through DLPack or __array__, never copied, and never converted."""

import numpy as np
import pytest

import lowbit
from lowbit.arguments import view


class Foreign:
    """An array of a library that NumPy does not know."""

    def __init__(self, array):
        self.array = array


class WithDlpack(Foreign):
    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


class WithArray(Foreign):
    def __array__(self, dtype=None, copy=None):
        return self.array


def torch_tensor(array):
    return pytest.importorskip("torch", reason="tensors need torch").from_numpy(array)


def codes(*shape, dtype=np.int8):
    return (np.arange(np.prod(shape)).reshape(shape) % 7).astype(dtype)


# Each takes its arrays in order and gives a result.
OPS = {
    "gemm_f32": (lowbit.gemm_f32, [codes(5, 6, dtype=np.float32), codes(6, 4, dtype=np.float32)]),
    "conv2d_f32": (lowbit.conv2d_f32, [codes(1, 5, 5, 2, dtype=np.float32), codes(4, 3, 3, 2, dtype=np.float32)]),
    "residual_f32": (
        lambda a, b, bias, residual: lowbit.gemm_f32(a, b, bias=bias, residual=residual),
        [codes(*shape, dtype=np.float32) for shape in ((5, 6), (6, 4), (4,), (5, 4))],
    ),
    "gemm_i8": (lowbit.gemm_i8, [codes(5, 6, dtype=np.uint8), codes(6, 4)]),
    "conv2d_i8": (lowbit.conv2d_i8, [codes(1, 5, 5, 2, dtype=np.uint8), codes(4, 3, 3, 2)]),
    "depthwise_conv2d_i8": (lowbit.depthwise_conv2d_i8, [codes(1, 5, 5, 2, dtype=np.uint8), codes(3, 3, 2)]),
    "requantize": (
        lambda acc, residual: lowbit.requantize(acc, 0.5, residual=residual),
        [codes(5, 4, dtype=np.int32), codes(5, 4)],
    ),
}


@pytest.mark.parametrize("wrap", [WithDlpack, WithArray, torch_tensor])
@pytest.mark.parametrize("name", OPS)
def test_foreign_arrays_are_taken(name, wrap):
    op, arrays = OPS[name]
    np.testing.assert_array_equal(op(*map(wrap, arrays)), op(*arrays))


@pytest.mark.parametrize("wrap", [np.asarray, WithDlpack, WithArray, torch_tensor])
def test_a_view_shares_memory(wrap):
    array = codes(5, 6)
    assert view(wrap(array)).ctypes.data == array.ctypes.data
    assert np.shares_memory(view(wrap(array[:, 1:4])), array)


@pytest.mark.parametrize("wrap", [np.asarray, WithDlpack, WithArray])
@pytest.mark.parametrize("name", OPS)
def test_a_wrong_dtype_is_an_error_and_not_a_copy(name, wrap):
    op, arrays = OPS[name]
    for i in range(len(arrays)):
        for dtype in (np.float64, np.int16, np.int64, bool):
            wrong = [wrap(a.astype(dtype)) if i == j else a for j, a in enumerate(arrays)]
            with pytest.raises(TypeError, match=np.dtype(dtype).name):
                op(*wrong)


@pytest.mark.parametrize("name", ["gemm_f32", "conv2d_f32", "requantize"])
def test_another_byte_order_is_a_wrong_dtype(name):
    op, arrays = OPS[name]
    swapped = arrays[0].astype(arrays[0].dtype.newbyteorder(">"))
    with pytest.raises(TypeError, match=r">[fi]4, must be"):
        op(swapped, *arrays[1:])


def test_tensors_that_numpy_cannot_view():
    torch = pytest.importorskip("torch", reason="tensors need torch")
    b = np.ones((3, 2), np.float32)
    with pytest.raises(TypeError, match="gradient"):
        lowbit.gemm_f32(torch.ones(2, 3, requires_grad=True), b)
    with pytest.raises(TypeError, match="not an array that NumPy can view"):
        lowbit.gemm_f32(torch.ones(2, 3, dtype=torch.bfloat16), b)
