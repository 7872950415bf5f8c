"""Training under DistributedDataParallel: two gloo processes keep the same weights and statistics."""

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


def binary(stochastic: bool = False) -> nn.Module:
    return nn.Sequential(
        lt.BinaryConnectLinear(6, 8, stochastic=stochastic),
        lt.XnorLinear(8, 8, scale="lab", input_scale=True),
        lt.XnorLinear(8, 8, scale="libra"),
        nn.Hardtanh(),
        lt.BinaryLinear(8, 2),
    ).double()


def qat() -> nn.Module:
    return lt.prepare_qat(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2)), decay=0.5)


def qat_normalised() -> nn.Module:
    parts = (nn.Conv2d(1, 4, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(24, 2))
    return lt.prepare_qat(nn.Sequential(nn.Unflatten(1, (1, 1, 6)), *parts), decay=0.5)


def lq() -> nn.Module:
    return nn.Sequential(lt.LQLinear(6, 8, w_bits=2, a_bits=2), nn.ReLU(), lt.LQLinear(8, 2, w_bits=2, a_bits=2))


def int8_train() -> nn.Module:
    return nn.Sequential(lt.Int8TrainLinear(6, 8, seed=1), nn.ReLU(), lt.Int8TrainLinear(8, 2, seed=2))


# what -> (net, whether two processes have what one has)
KINDS = {
    "binary": (binary, True),
    "stochastic": (lambda: binary(True), False),
    "qat": (qat, False),  # within a step each process rounds with its own share's ranges
    "qat_normalised": (qat_normalised, False),  # each process normalises by its own share, as torch's layer does
    "lq": (lq, False),  # bases are fitted to each share, then averaged
    "int8_train": (int8_train, False),  # gradients are rounded with each process's own random numbers
    "int8_train_adam": (int8_train, False),
}


def train(rank: int, world: int, kind: str) -> dict[str, torch.Tensor]:
    """Three steps on this rank's share of the same batches. SGD: Adam turns rounding into whole steps."""
    torch.manual_seed(0)
    net = KINDS[kind][0]()
    model: nn.Module = DistributedDataParallel(net) if world > 1 else net
    adam = kind in ("stochastic", "int8_train_adam")
    optimizer = (torch.optim.Adam if adam else torch.optim.SGD)(model.parameters(), lr=0.01)
    if kind in ("binary", "stochastic"):
        lt.binary_steps(optimizer, model)
    if kind == "int8_train_adam":
        lt.deviation_steps(optimizer, model)
    dtype = next(net.parameters()).dtype
    x, y = torch.randn(3, 8, 6, dtype=dtype), torch.randint(0, 2, (3, 8))
    torch.manual_seed(100 + rank)  # the draws may differ between the processes; the weights may not
    for step in range(3):
        optimizer.zero_grad()
        share = slice(rank * 8 // world, (rank + 1) * 8 // world)
        lt.squared_hinge(model(x[step, share]), y[step, share]).backward()
        lt.all_reduce_statistics(net)
        optimizer.step()
    return net.state_dict()


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ddp")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(folder)],
            env=os.environ | address | {"WORLD_SIZE": "2", "RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors
    finally:  # one that fails may leave the other waiting
        for process in processes:
            process.kill()
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_keep_the_same_weights_and_statistics(two_processes, kind):
    first, second = (torch.load(two_processes / f"{rank}-{kind}.pt", weights_only=True) for rank in range(2))
    assert first.keys() == second.keys() and len(first) >= 8
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    if KINDS[kind][1]:
        for name, expected in train(0, 1, kind).items():
            torch.testing.assert_close(first[name], expected)


def test_ranges_are_those_of_the_whole_batch(two_processes):
    state = torch.load(two_processes / "0-qat.pt", weights_only=True)
    torch.manual_seed(0)
    qat()
    x = torch.randn(3, 8, 6)
    low = high = torch.zeros(())
    for batch in x:
        low, high = low.lerp(batch.min(), 0.5), high.lerp(batch.max(), 0.5)
    (name,) = [n.removesuffix(".low") for n in state if n.endswith(".low") and n.startswith("input")]
    torch.testing.assert_close(state[f"{name}.low"], low)
    torch.testing.assert_close(state[f"{name}.high"], high)
    assert x[0, :4].min() != x[0].min() or x[0, :4].max() != x[0].max()  # one share alone has another range


if __name__ == "__main__":
    torch.distributed.init_process_group("gloo")
    number = torch.distributed.get_rank()
    for each in KINDS:
        torch.save(train(number, 2, each), Path(sys.argv[1]) / f"{number}-{each}.pt")
    torch.distributed.destroy_process_group()
    os._exit(0)  # gloo's threads do not always survive the interpreter's end ("terminate called", seen once)
