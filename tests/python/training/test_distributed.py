"""Binary training under DistributedDataParallel: two gloo processes keep the same weights, those of one process."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="lowbit.torch needs torch")

from torch import nn  # noqa: E402
from torch.nn.parallel import DistributedDataParallel  # noqa: E402

import lowbit.torch as lt  # noqa: E402


def train(rank: int, world: int, stochastic: bool) -> dict[str, torch.Tensor]:
    """Three steps on this rank's share of the same batches. SGD in float64: Adam turns rounding into whole steps."""
    torch.manual_seed(0)
    net = nn.Sequential(
        lt.BinaryConnectLinear(6, 8, stochastic=stochastic),
        lt.XnorLinear(8, 8, scale="lab", input_scale=True),
        lt.XnorLinear(8, 8, scale="libra"),
        nn.Hardtanh(),
        lt.BinaryLinear(8, 2),
    ).double()
    model: nn.Module = DistributedDataParallel(net) if world > 1 else net
    optimizer = (torch.optim.Adam if stochastic else torch.optim.SGD)(model.parameters(), lr=0.01)
    lt.binary_steps(optimizer, model)
    x, y = torch.randn(3, 8, 6, dtype=torch.float64), torch.randint(0, 2, (3, 8))
    torch.manual_seed(100 + rank)  # the draws may differ between the processes; the weights may not
    for step in range(3):
        optimizer.zero_grad()
        share = slice(rank * 8 // world, (rank + 1) * 8 // world)
        lt.squared_hinge(model(x[step, share]), y[step, share]).backward()
        optimizer.step()
    return net.state_dict()


def test_two_processes_keep_the_same_weights(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(tmp_path)],
            env=os.environ | address | {"WORLD_SIZE": "2", "RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    for stochastic in (False, True):
        first, second = (torch.load(tmp_path / f"{rank}-{stochastic}.pt", weights_only=True) for rank in range(2))
        assert len(first) == 8 and all(torch.equal(first[name], second[name]) for name in first)
        if not stochastic:
            for name, expected in train(0, 1, False).items():
                torch.testing.assert_close(first[name], expected)


if __name__ == "__main__":
    torch.distributed.init_process_group("gloo")
    number = torch.distributed.get_rank()
    for drawn in (False, True):
        torch.save(train(number, 2, drawn), Path(sys.argv[1]) / f"{number}-{drawn}.pt")
    torch.distributed.destroy_process_group()
