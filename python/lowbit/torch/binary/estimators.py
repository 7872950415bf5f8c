"""Signs that can be trained through: what goes forward, and what gradient comes back.

Every sign here maps 0 and -0.0 to +1 (``torch.sign`` gives 0). What NaN becomes is not said; the packed kernels
refuse it.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lowbit.torch.autograd import straight_through, traced, wants_gradient


def hard_sign(x: Tensor) -> Tensor:
    """+1 where ``x >= 0``, else -1, in x's dtype; no gradient.

    Example:
        >>> import torch
        >>> from lowbit.torch import hard_sign
        >>> hard_sign(torch.tensor([-0.5, -0.0, 0.0, 3.0])).tolist()
        [-1.0, 1.0, 1.0, 1.0]
    """
    x = x.detach()
    if traced():  # a graph says it in one comparison, which lowering recognises
        return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)
    return x.sign().add_(0.5).sign_()  # torch.where takes eight times as long


def sign(x: Tensor) -> Tensor:
    """Sign with the hard-tanh straight-through gradient: ``1[|x| <= 1]``.

    Source: Binarized Neural Networks, section 1.3.

    Args:
        x: any shape, floating point.

    Returns:
        +-1 of x's shape and dtype.

    Example:
        >>> import torch
        >>> from lowbit.torch import sign
        >>> x = torch.tensor([-2.0, -1.0, 0.0, 0.5], requires_grad=True)
        >>> y = sign(x)
        >>> y.sum().backward()
        >>> y.tolist(), x.grad.tolist()
        ([-1.0, -1.0, 1.0, 1.0], [0.0, 1.0, 1.0, 1.0])
    """
    if not wants_gradient(x):
        return hard_sign(x)
    return straight_through(x, hard_sign(x), x.detach().abs() <= 1)


def hard_sigmoid(x: Tensor) -> Tensor:
    """``clip((x + 1) / 2, 0, 1)``: the probability of +1 in the stochastic signs (BinaryConnect, section 2.3).

    Example:
        >>> import torch
        >>> from lowbit.torch import hard_sigmoid
        >>> hard_sigmoid(torch.tensor([-3.0, 0.0, 0.5, 1.0])).tolist()
        [0.0, 0.5, 0.75, 1.0]
    """
    return ((x + 1) / 2).clamp(0, 1)


def stochastic_value(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """+1 with probability ``hard_sigmoid(x)``, else -1, drawn anew at every call; no gradient."""
    x = x.detach()
    drawn = torch.rand(x.shape, generator=generator, dtype=torch.float32, device=x.device)
    return (hard_sigmoid(x) - drawn).sign_().sub_(0.5).sign_().to(x.dtype)  # +1 where drawn < p


def stochastic_sign(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """+1 with probability ``clip((x + 1) / 2, 0, 1)``, with the gradient of :func:`sign`.

    Source: Binarized Neural Networks, section 1.1. A training device: at test time use :func:`sign`.

    Args:
        x: any shape, floating point.
        generator: source of the draws; torch's global one (``torch.manual_seed``) where None.

    Example:
        >>> import torch
        >>> from lowbit.torch import stochastic_sign
        >>> x = torch.tensor([-1.0, 0.5, 1.0, 2.0], requires_grad=True)
        >>> seeded = torch.Generator().manual_seed(0)
        >>> y = torch.stack([stochastic_sign(x, seeded) for _ in range(4000)])
        >>> [round(v, 1) for v in y.mean(0).tolist()]
        [-1.0, 0.5, 1.0, 1.0]
        >>> y[0].sum().backward()
        >>> x.grad.tolist()
        [1.0, 1.0, 1.0, 0.0]
    """
    value = stochastic_value(x, generator)
    return straight_through(x, value, x.detach().abs() <= 1) if wants_gradient(x) else value


def approx_sign(x: Tensor) -> Tensor:
    """Sign with the slope of a piecewise quadratic: ``2 - 2|x|`` inside (-1, 1), 0 outside.

    Source: Bi-Real Net (Liu et al. 2018), section 3.3.

    Example:
        >>> import torch
        >>> from lowbit.torch import approx_sign
        >>> x = torch.tensor([-2.0, -0.25, 0.0, 0.5], requires_grad=True)
        >>> y = approx_sign(x)
        >>> y.sum().backward()
        >>> y.tolist(), x.grad.tolist()
        ([-1.0, -1.0, 1.0, 1.0], [0.0, 1.5, 2.0, 1.0])
    """
    if not wants_gradient(x):
        return hard_sign(x)
    return straight_through(x, hard_sign(x), (2 - 2 * x.detach().abs()).clamp(min=0))


def sign_swish(x: Tensor, beta: float = 5.0) -> Tensor:
    """Sign with the slope of SignSwish, ``2 s(bx) (1 + bx (1 - s(bx))) - 1`` with ``s`` the logistic function.

    The slope is ``b (2 - bx tanh(bx/2)) / (1 + cosh(bx))``: a little negative beyond ``|bx| = 2.4``.
    Source: BNN+ (Darabi et al. 2018), section 3.1.

    Args:
        x: any shape, floating point.
        beta: steepness; larger is nearer to the sign.

    Example:
        >>> import torch
        >>> from lowbit.torch import sign_swish
        >>> x = torch.tensor([-2.0, 0.0, 0.2, 1.0], requires_grad=True)
        >>> y = sign_swish(x)
        >>> y.sum().backward()
        >>> y.tolist(), [round(g, 3) for g in x.grad.tolist()]
        ([-1.0, 1.0, 1.0, 1.0], [-0.004, 5.0, 3.024, -0.195])
    """
    if not wants_gradient(x):
        return hard_sign(x)
    z = (beta * x.detach()).clamp(-80, 80)
    # 1 / (1 + cosh z) = 2 s(z) s(-z), which neither overflows nor divides
    slope = 2 * beta * torch.sigmoid(z) * torch.sigmoid(-z) * (2 - z * torch.tanh(z / 2))
    return straight_through(x, hard_sign(x), slope)


def error_decay_sign(x: Tensor, t: float | Tensor) -> Tensor:
    """Sign with IR-Net's error-decay slope: ``k t (1 - tanh(t x)^2)`` with ``k = max(1/t, 1)``.

    Source: IR-Net (Qin et al. 2020), section 3.3; formula as recalled in the survey's terms.

    Args:
        x: any shape, floating point.
        t: sharpness, from 0.1 at the start of the training to 10 at its end (:func:`error_decay_sharpness`).

    Example:
        >>> import torch
        >>> from lowbit.torch import error_decay_sign
        >>> x = torch.tensor([-1.0, 0.0, 0.5], requires_grad=True)
        >>> error_decay_sign(x, 0.1).sum().backward()
        >>> [round(g, 3) for g in x.grad.tolist()]  # nearly the identity
        [0.99, 1.0, 0.998]
        >>> x.grad = None
        >>> error_decay_sign(x, 10.0).sum().backward()
        >>> [round(g, 3) for g in x.grad.tolist()]  # nearly the sign's own
        [0.0, 10.0, 0.002]
    """
    if not wants_gradient(x):
        return hard_sign(x)
    t = torch.as_tensor(t, dtype=x.dtype, device=x.device)
    slope = torch.clamp(1 / t, min=1) * t * (1 - torch.tanh(t * x.detach()) ** 2)
    return straight_through(x, hard_sign(x), slope)


def error_decay_sharpness(progress: float, first: float = 0.1, last: float = 10.0) -> float:
    """IR-Net's schedule of ``t``: geometric from ``first`` at progress 0 to ``last`` at progress 1.

    Raises:
        ValueError: progress outside [0, 1].

    Example:
        >>> from lowbit.torch import error_decay_sharpness
        >>> [round(error_decay_sharpness(p), 3) for p in (0, 0.5, 1)]
        [0.1, 1.0, 10.0]
    """
    if not 0 <= progress <= 1:
        raise ValueError(f"error_decay_sharpness: progress {progress} is outside [0, 1]")
    return first * math.exp(progress * math.log(last / first))


def ap2(x: Tensor) -> Tensor:
    """The nearest power of two on the logarithmic scale, ``sign(x) 2^round(log2|x|)``, 0 for 0; gradient 1.

    What the shift-based batch norm and AdaMax multiply by. Source: Binarized Neural Networks, section 1.4.

    Example:
        >>> import torch
        >>> from lowbit.torch import ap2
        >>> ap2(torch.tensor([-3.0, 0.0, 0.3, 1.4])).tolist()
        [-4.0, 0.0, 0.25, 1.0]
    """
    value = torch.copysign(torch.exp2(torch.round(torch.log2(x.detach().abs()))), x.detach())
    return straight_through(x, value) if wants_gradient(x) else value


ESTIMATORS: dict[str, Callable[[Tensor], Tensor]] = {
    "sign": sign,
    "stochastic": stochastic_sign,
    "approx_sign": approx_sign,
    "sign_swish": sign_swish,
}


def estimator(name: str | Callable[[Tensor], Tensor], where: str) -> Callable[[Tensor], Tensor]:
    """The estimator of that name, or the callable itself.

    Raises:
        ValueError: unknown name; the message starts with ``where``.
    """
    if callable(name):
        return name
    if name not in ESTIMATORS:
        raise ValueError(
            f"{where}: activation {name!r} is not one of {', '.join(map(repr, ESTIMATORS))} nor a callable"
        )
    return ESTIMATORS[name]
