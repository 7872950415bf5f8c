"""Trains the binary net that `lowbit demo` ships: python/lowbit/demo/fashion.xnor.lowbit.

    python get.py fashion_mnist --to build/data
    python examples/python/train_binary_demo.py build/data/fashion_mnist.npz

Four binary 3x3 convolutions with real shortcuts (Bi-Real Net, Liu et al. 2018), a real stem and a real classifier.
The last 500 training images are held out, as for the float net (train_demo.py). After every epoch the net is converted
and written, so that a run can be ended early. Five epochs on one thread of a busy machine took 23 minutes and gave
86.65 % on the 10,000 test images; it still rose.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import lowbit
from lowbit.torch import BiRealBlock, binary_steps
from train_demo import HELD_OUT, augment, normalise


def build() -> nn.Module:
    """28 x 28 grey to 10 logits: 276,480 binary weights, 13,258 real ones."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 5, stride=2, padding=2, bias=False),
        nn.BatchNorm2d(32),
        BiRealBlock(32, 64),
        BiRealBlock(64, 64),
        BiRealBlock(64, 128, stride=2),
        BiRealBlock(128, 128),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(128, 10),
    )


def accuracy(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    """Top-1 in eval mode, in percent."""
    net.eval()
    with torch.inference_mode():
        hits = sum((net(a).argmax(1) == b).sum().item() for a, b in zip(x.split(500), y.split(500), strict=True))
    net.train()
    return 100 * hits / len(x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--to", type=Path, default=Path(__file__).parents[2] / "python/lowbit/demo/fashion.xnor.lowbit")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    data = np.load(args.data)
    x, y = normalise(data["x_train"][:-HELD_OUT]), torch.from_numpy(data["y_train"][:-HELD_OUT]).long()
    x_test, y_test = normalise(data["x_test"]), torch.from_numpy(data["y_test"]).long()
    net = build()
    optimiser = torch.optim.Adam(net.parameters(), lr=2e-3)
    binary_steps(optimiser, net)
    steps = args.epochs * (len(x) // args.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=4e-3, total_steps=steps, pct_start=0.15)
    for epoch in range(args.epochs):
        started, losses = time.perf_counter(), []
        for rows in torch.randperm(len(x))[: len(x) // args.batch * args.batch].split(args.batch):
            with torch.autocast("cpu", torch.bfloat16):
                logits = net(augment(x[rows]))
            loss = F.cross_entropy(logits.float(), y[rows], label_smoothing=0.05)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
        score = accuracy(net, x_test, y_test)
        lowbit.convert(net, recipe="xnor", example=x_test[:1]).save(args.to)
        spent = time.perf_counter() - started
        done = f"epoch {epoch + 1}/{args.epochs}: loss {np.mean(losses):.4f}"
        print(f"{done}, test {score:.2f} %, {spent:.0f} s", flush=True)


if __name__ == "__main__":
    main()
