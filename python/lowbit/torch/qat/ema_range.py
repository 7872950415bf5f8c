"""Ranges that training follows: of weights as they are now, of activations as a moving average."""

import torch
from torch import Tensor, nn


def extent(x: Tensor, axis: int | None = None) -> tuple[Tensor, Tensor]:
    """Smallest and largest value, zero included, of a tensor or of each slice along ``axis``.

    Example:
        >>> import torch
        >>> from lowbit.torch.qat.ema_range import extent
        >>> [v.tolist() for v in extent(torch.tensor([[1.0, 4.0], [-2.0, -1.0]]), axis=0)]
        [[0.0, -2.0], [4.0, 0.0]]
    """
    x = x.detach()
    if axis is None:
        low, high = torch.aminmax(x)
    else:
        low, high = torch.aminmax(x.movedim(axis, 0).flatten(1), dim=1)
    return low.float().clamp(max=0), high.float().clamp(min=0)  # a NaN stays one


class EmaRange(nn.Module):
    """Moving averages of a tensor's smallest and largest value, without the bias of where they began.

    ``average = decay * average + (1 - decay) * value`` from 0, and the range is ``average / (1 - decay ** steps)``:
    the first batch gives the whole range, the next ones their mean, later ones a window of ``1 / (1 - decay)``
    batches. A plain average that began at (-6, 6) would keep that for a thousand steps. Zero is always inside.

    Args:
        decay: of the averages, in [0, 1).

    Attributes:
        low, high: the averages, 0-d. Buffers, so that checkpoints keep them.
        steps: batches seen.

    Source: Jacob et al. 2018 (arXiv 1712.05877), section 3.1; TensorFlow's ``assign_moving_average`` with
    ``zero_debias``.

    Example:
        >>> import torch
        >>> from lowbit.torch import EmaRange
        >>> observer = EmaRange()
        >>> observer.observe(torch.tensor([-1.0, 3.0]))
        >>> observer.observe(torch.tensor([-2.0, 5.0]))
        >>> [round(v.item(), 2) for v in observer.range()]
        [-1.5, 4.0]
    """

    low: Tensor
    high: Tensor
    steps: Tensor

    def __init__(self, decay: float = 0.999):
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(f"EmaRange: decay {decay} is not in [0, 1)")
        self.decay = decay
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        """One batch more.

        Raises:
            ValueError: NaN or infinity in ``x``, or no value at all; the averages stay as they were.
        """
        if x.numel() == 0:
            raise ValueError("an empty tensor has no range")
        low, high = extent(x)
        if not torch.isfinite(high - low):
            raise ValueError(f"the batch holds NaN or infinity (its range is {low.item()} to {high.item()})")
        self.low.lerp_(low, 1 - self.decay)
        self.high.lerp_(high, 1 - self.decay)
        self.steps += 1

    def range(self) -> tuple[Tensor, Tensor]:
        """Low and high, 0-d.

        Raises:
            ValueError: no batch was seen.
        """
        steps = int(self.steps)
        if steps == 0:
            raise ValueError("no batch was seen: run training steps (or a few batches in train mode) first")
        seen = 1 - self.decay**steps
        return self.low / seen, self.high / seen

    def extra_repr(self) -> str:
        """Shown by ``print(module)``."""
        return f"decay={self.decay}"
