"""The kernels of training in 8 bits on NumPy arrays: stochastic rounding, and a convolution's two gradients.

Source: "Towards Unified INT8 Training for Convolutional Neural Network" (Zhu et al. 2020), section 3. The layers are in
``lowbit.torch``: `Int8TrainLinear`, `Int8TrainConv2d`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lowbit import _core
from lowbit._core import PackedGradientI8
from lowbit.arguments import Array, FloatArray, Padding, Size, optional_view, pair, sides, view

__all__ = [
    "PackedGradientI8",
    "clip_deviations",
    "input_gradient_i8",
    "pack_gradient_i8",
    "quantize_stochastic",
    "weight_gradient_i8",
]


def quantize_stochastic(
    x: npt.ArrayLike,
    scale: float,
    *,
    seed: int = 0,
    stream: int = 0,
    isa: str | None = None,
    threads: int | None = None,
    out: Array | None = None,
) -> tuple[npt.NDArray[np.uint8], float, float]:
    """Float32 to symmetric 8-bit codes by stochastic rounding: the mean of a code is the clipped ``x / scale``.

    Element i is rounded up with the probability of its fraction, by word ``i % 64 // 16`` of Philox4x32-10 (Salmon et
    al. 2011) at counter ``(i // 64 * 16 + i % 16, stream)`` and key ``seed``: the same codes on every level and thread
    count.

    Args:
        x: float32, any shape, C-contiguous.
        scale: of a code; values beyond 127 scales saturate. In [2**-126, 2**126].
        seed: 64-bit key of the generator.
        stream: 64-bit number of this call (a step's number): another one gives other random numbers.
        isa: level to run.
        threads: thread count.
        out: receives the codes.

    Returns:
        The codes, uint8 around 128 (1 to 255), of x's shape; their deviation ``1 - cos(x, codes - 128)``, the
        direction-sensitive distance of the paper's section 3.3 (0 where x is zero); the greatest ``|x|``.

    Raises:
        TypeError: x is not float32.
        ValueError: a NaN or an infinity; a scale out of range; x not contiguous.

    Example:
        >>> import numpy as np, lowbit
        >>> x = np.full(10000, 0.25, np.float32)
        >>> codes, deviation, peak = lowbit.quantize_stochastic(x, 1.0, seed=1)
        >>> np.unique(codes).tolist(), round(float(codes.mean()) - 128, 1), peak
        ([128, 129], 0.2, 0.25)
    """
    return _core.quantize_stochastic(view(x), scale, seed, stream, optional_view(out), isa, threads)


def clip_deviations(
    x: npt.ArrayLike, clips: npt.ArrayLike, *, isa: str | None = None, threads: int | None = None
) -> npt.NDArray[np.float64]:
    """How far each clip turns x: ``1 - cos(x, q)``, q being x clipped to ``[-clip, clip]`` and rounded to nearest.

    Args:
        x: float32, any shape, C-contiguous.
        clips: positive numbers; a code is ``clip / 127``.
        isa: level to run.
        threads: thread count.

    Returns:
        One float64 in [0, 2] per clip; the same bits on every level and thread count.

    Raises:
        TypeError: x is not float32.
        ValueError: a NaN or an infinity in x; a clip that is not positive or out of float32's range.

    Example:
        >>> import numpy as np, lowbit
        >>> x = np.r_[np.ones(1000), 100].astype(np.float32)  # one outlier
        >>> [round(float(d), 3) for d in lowbit.clip_deviations(x, [400, 100, 50, 1])]
        [0.047, 0.002, 0.056, 0.669]
    """
    scales = np.asarray(clips, np.float32) / np.float32(127)
    return _core.clip_deviations(view(x), scales, isa, threads)


def pack_gradient_i8(
    w: npt.ArrayLike,
    stride: Size = 1,
    dilation: Size = 1,
    groups: int = 1,
    *,
    isa: str | None = None,
    threads: int | None = None,
) -> PackedGradientI8:
    """Convolution weights in the order `input_gradient_i8` reads them: turned by 180 degrees, channels exchanged.

    Args:
        w: (oc, kh, kw, c / groups) int8, as `conv2d_i8` takes them.
        stride: of the forward convolution: one number, or (vertical, horizontal).
        dilation: likewise.
        groups: divides ``c`` and ``oc``.
        isa: level to run.
        threads: thread count.

    Raises:
        TypeError: w is not int8.

    Example:
        >>> import numpy as np, lowbit
        >>> w = lowbit.pack_gradient_i8(np.ones((4, 3, 3, 2), np.int8))
        >>> lowbit.input_gradient_i8(np.ones((1, 5, 5, 4), np.int8), w, (5, 5), 1).shape
        (1, 5, 5, 2)
    """
    name = "pack_gradient_i8"
    return _core.pack_gradient_i8(
        view(w), pair(f"{name}: stride", stride), pair(f"{name}: dilation", dilation), groups, isa, threads
    )


def input_gradient_i8(
    g: npt.ArrayLike,
    w: PackedGradientI8,
    size: Size,
    padding: Padding = 0,
    *,
    scale: float = 1.0,
    isa: str | None = None,
    threads: int | None = None,
    out: Array | None = None,
) -> FloatArray:
    """Gradient of ``conv2d_i8(x, w)`` to x, from the gradient g to its result: exact int32 sums, times ``scale``.

    Args:
        g: (n, oh, ow, oc) int8, or uint8 around 128.
        w: packed, with the forward convolution's stride, dilation and groups.
        size: (h, w) of x.
        padding: of the forward convolution; at most dilation * (kernel - 1).
        scale: of the result.
        isa: level to run.
        threads: thread count.
        out: receives the result.

    Returns:
        (n, h, w, c) float32; the same bits on every level and thread count.

    Raises:
        TypeError: a wrong dtype.
        ValueError: shapes that disagree, padding beyond the kernel's reach.

    Example:
        >>> import numpy as np, lowbit
        >>> w = lowbit.pack_gradient_i8(np.ones((1, 3, 3, 1), np.int8))
        >>> lowbit.input_gradient_i8(np.full((1, 3, 3, 1), 2, np.int8), w, 3, padding=1, scale=0.5)[0, :, :, 0]
        array([[4., 6., 4.],
               [6., 9., 6.],
               [4., 6., 4.]], dtype=float32)
    """
    name = "input_gradient_i8"
    return _core.input_gradient_i8(
        view(g), w, pair(f"{name}: size", size), sides(name, padding), scale, optional_view(out), isa, threads
    )


def weight_gradient_i8(
    x: npt.ArrayLike,
    g: npt.ArrayLike,
    kernel: Size,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    scale: float = 1.0,
    isa: str | None = None,
    threads: int | None = None,
    out: Array | None = None,
) -> FloatArray:
    """Gradient of ``conv2d_i8(x, w)`` to w, from its input and the gradient g to its result.

    A product of matrices over all output pixels: exact int32 sums, times ``scale``. Sums over more than 8192 places
    (output pixels and the padding between them) are cut in pieces, whose scaled sums are added in float32.

    Args:
        x: (n, h, w, c) int8, or uint8 around 128.
        g: (n, oh, ow, oc), likewise.
        kernel: (kh, kw).
        stride: one number, or (vertical, horizontal).
        padding: one number, (vertical, horizontal), or (top, left, bottom, right); padded pixels are 0.
        dilation: one number, or (vertical, horizontal).
        groups: divides ``c`` and ``oc``.
        scale: of the result.
        isa: level to run.
        threads: thread count.
        out: receives the result.

    Returns:
        (oc, kh, kw, c / groups) float32; the same bits on every level and thread count.

    Raises:
        TypeError: a wrong dtype.
        ValueError: shapes that disagree.

    Example:
        >>> import numpy as np, lowbit
        >>> x, g = np.arange(9, dtype=np.int8).reshape(1, 3, 3, 1), np.ones((1, 2, 2, 1), np.int8)
        >>> lowbit.weight_gradient_i8(x, g, 2)[0, :, :, 0]
        array([[ 8., 12.],
               [20., 24.]], dtype=float32)
    """
    name = "weight_gradient_i8"
    return _core.weight_gradient_i8(
        view(x), view(g), pair(f"{name}: kernel", kernel), pair(f"{name}: stride", stride), sides(name, padding),
        pair(f"{name}: dilation", dilation), groups, scale, optional_view(out), isa, threads,
    )  # fmt: skip
