"""Batch norm by shifts, and batch norm statistics of the weights that a net is tested with."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from lowbit.torch.binary.estimators import ap2


class ShiftBatchNorm(nn.Module):
    """Batch norm whose multiplications are by powers of two; an option, where shifts are cheaper than products.

    With c = x - mean(x): ``v = mean(c ap2(c))``, ``r = (v + eps)^-1/2``, ``y = c ap2(r) ap2(weight) + bias``. The
    running statistic is the mean of 1/std, r (not of the variance), and ap2 of it is used in eval mode. ap2 has
    gradient 1.
    Source: Binarized Neural Networks, section 1.4, as its Torch7 code does it. "No loss" is hard to reproduce: other
    people's nets lost 3 points on CIFAR-10.

    Args:
        channels: size of axis 1.
        eps: added to the variance.
        momentum: weight of the newest batch in the running statistics.

    Raises:
        ValueError: in training, one value per channel: there is no deviation.

    Example:
        >>> import torch
        >>> from lowbit.torch import ShiftBatchNorm
        >>> norm = ShiftBatchNorm(1)
        >>> norm(torch.tensor([[-4.0], [4.0], [-4.0], [4.0]])).flatten().tolist()  # r = 1/4
        [-1.0, 1.0, -1.0, 1.0]
    """

    running_mean: Tensor
    running_inverse: Tensor

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.125):
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_inverse", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """``(n, channels, ...)`` to the same."""
        shape = (-1, *[1] * (x.ndim - 2))
        if not self.training:
            mean, inverse = self.running_mean, self.running_inverse
            return (x - mean.view(shape)) * (ap2(inverse) * ap2(self.weight)).view(shape) + self.bias.view(shape)
        if x.numel() == x.shape[1]:
            raise ValueError(f"ShiftBatchNorm: one value per channel in training, x {tuple(x.shape)}")
        over = [0, *range(2, x.ndim)]
        mean = x.mean(over)
        centred = x - mean.view(shape)
        inverse = ((centred * ap2(centred)).mean(over) + self.eps).rsqrt()
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_inverse.lerp_(inverse, self.momentum)
        return centred * (ap2(inverse) * ap2(self.weight)).view(shape) + self.bias.view(shape)

    def extra_repr(self) -> str:
        """Shown by ``print(module)``."""
        return f"{self.weight.numel()}, eps={self.eps}, momentum={self.momentum}"


@torch.no_grad()
def refresh_batch_norm(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Batch norm's statistics anew, over these batches, with everything else in eval mode.

    The running statistics of training belong to the weights of training: of the drawn weights where they are
    stochastic, and of weights that still flipped. Those of the weights used at test time differ; a net with
    stochastic BinaryConnect needs this before it is evaluated from its binary weights. Gives the mean of the batches'
    statistics.

    Args:
        model: changed in place: its ``nn.BatchNorm*d`` running statistics. Left in eval mode.
        batches: inputs; a few thousand samples of the training data.

    Example:
        >>> import torch
        >>> from lowbit.torch import refresh_batch_norm
        >>> norm = torch.nn.BatchNorm1d(1)
        >>> refresh_batch_norm(norm, [torch.tensor([[1.0], [3.0]]), torch.tensor([[5.0], [7.0]])])
        >>> norm.running_mean.item(), norm.running_var.item()
        (4.0, 2.0)
    """
    model.eval()
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    momenta = [m.momentum for m in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # plain mean over the batches
        norm.train()
    try:
        for batch in batches:
            model(batch)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()
