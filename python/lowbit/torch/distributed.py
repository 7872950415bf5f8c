"""Training on several processes: what their modules measured, put together."""

import torch
from torch import distributed, nn

_EXTREMES = {"low": distributed.ReduceOp.MIN, "high": distributed.ReduceOp.MAX, "input_clip": distributed.ReduceOp.MAX}


@torch.no_grad()
def all_reduce_statistics(model: nn.Module) -> None:
    """Gives every process the statistics of all: under DistributedDataParallel, after backward, before the step.

    DistributedDataParallel averages gradients, but of buffers it keeps those of process 0, which has seen its own
    share of each batch only. Here ranges (``EmaRange``) and the clips of ``Int8TrainLinear`` and ``Int8TrainConv2d``
    inputs become the extremes of all shares: exactly what one process would have had with the whole batch. Every other
    floating-point buffer, such as the bases of ``LQActivation`` and batch normalisation's moving statistics, becomes
    the mean. So does the deviation that ``deviation_steps`` scales the step by: without this call the weights of the
    processes would drift apart. Counters are the same everywhere and stay. Without a process group nothing happens.

    Example:
        >>> import torch
        >>> from lowbit.torch import all_reduce_statistics
        >>> all_reduce_statistics(torch.nn.BatchNorm1d(2))
    """
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return
    for name, buffer in model.named_buffers():
        if not buffer.is_floating_point():
            continue
        extreme = _EXTREMES.get(name.rpartition(".")[2])
        distributed.all_reduce(buffer, extreme or distributed.ReduceOp.SUM)
        if extreme is None:
            buffer.div_(distributed.get_world_size())
