"""A training step in 8 bits (lowbit.torch.Int8TrainConv2d) beside PyTorch's in float32: single layers, a whole net.

A step of a layer is forward, input gradient and weight gradient; channels_last for both, which is the faster layout for
float32 too. A step of the net (ResNet-18's 3x3 stages over 64 x 64 images) also has batch norm, ReLU, loss and SGD. The
contenders take turns; minima over the rounds. The clip's refit (every 100 steps) is timed apart.

    python bench/int8_training.py layers --threads 2
    python bench/int8_training.py net --threads 2 --rounds 3
"""

import argparse
import copy
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import lowbit
from lowbit.torch import Int8TrainConv2d, swap

# batch, input channels, output channels, side, kernel, stride
LAYERS = [
    (32, 512, 512, 14, 3, 1),
    (32, 256, 256, 14, 3, 1),
    (32, 256, 256, 28, 3, 1),
    (32, 128, 128, 28, 3, 1),
    (32, 64, 64, 56, 3, 1),
    (32, 256, 512, 28, 3, 2),
    (32, 512, 512, 14, 1, 1),
    (128, 64, 64, 8, 3, 1),
    (128, 32, 32, 16, 3, 1),
    (128, 16, 16, 32, 3, 1),
    (8, 16, 16, 8, 3, 1),
]


class Stage(nn.Module):
    """Two residual blocks of 3x3 convolutions, the first of which may subsample."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.first = self.block(inputs, outputs, stride)
        self.second = self.block(outputs, outputs, 1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs else nn.Identity()

    @staticmethod
    def block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
        """Convolution, norm, ReLU, convolution, norm."""
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) to (n, outputs, h / stride, w / stride)."""
        x = F.relu(self.first(x) + self.shortcut(x))
        return F.relu(self.second(x) + x)


def resnet18() -> nn.Sequential:
    """For images of 64 x 64: a 3x3 stem at full size instead of ResNet-18's own."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, 2, 1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        Stage(64, 64, 1),
        Stage(64, 128, 2),
        Stage(128, 256, 2),
        Stage(256, 512, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(512, 100),
    )


def turns(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Milliseconds: the least of each contender's `rounds` turns, after one that does not count."""
    best = dict.fromkeys(calls, float("inf"))
    for turn in range(rounds + 1):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            if turn > 0:
                best[name] = min(best[name], time.perf_counter() - started)
    return {name: 1000 * seconds for name, seconds in best.items()}


def layer_step(layer: nn.Module, x: Tensor, g: Tensor) -> Callable[[], None]:
    """Forward and both gradients, the weight changed so that nothing made of it is kept."""

    def step() -> None:
        layer(x).backward(g)
        x.grad = layer.weight.grad = None
        with torch.no_grad():
            layer.weight[0, 0, 0, 0].mul_(1)

    return step


def layers(rounds: int) -> None:
    """One line per layer."""
    print("| layer | float32 ms | int8 ms | ratio | refit ms |\n|---|---|---|---|---|")
    for batch, c, oc, side, kernel, stride in LAYERS:
        full = nn.Conv2d(c, oc, kernel, stride, kernel // 2, bias=False).to(memory_format=torch.channels_last)
        low = Int8TrainConv2d.from_float(full)
        x = torch.randn(batch, c, side, side).to(memory_format=torch.channels_last).requires_grad_()
        g = torch.randn_like(full(x))
        heavy = batch * c * oc * side * side * kernel * kernel > 1 << 32
        best = turns({"float": layer_step(full, x, g), "int8": layer_step(low, x, g)}, rounds if heavy else 5 * rounds)
        pixels = g.permute(0, 2, 3, 1).numpy()
        fit = turns({"fit": lambda a=pixels, k=low: k._fit(a, 4.0)}, rounds)["fit"]
        channels = f"{c} channels" if c == oc else f"{c} to {oc} channels"
        window = f"{kernel}x{kernel}" + (f" by {stride}" if stride > 1 else "")
        numbers = [best["float"], best["int8"], best["float"] / best["int8"], fit]
        row = [f"{channels}, {window}, {side} x {side}, batch {batch}", *(f"{v:.1f}" for v in numbers)]
        print(f"| {' | '.join(row)} |", flush=True)


def net_step(net: nn.Module, x: Tensor, y: Tensor) -> Callable[[], None]:
    """A step of SGD with momentum."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()

    return step


def whole_net(rounds: int) -> None:
    """ResNet-18, batch 32: every convolution but the first in 8 bits."""
    full = resnet18().to(memory_format=torch.channels_last)
    low = swap(copy.deepcopy(full), {"0": "float32", "op:Conv2d": "int8_train"})
    x = torch.randn(32, 3, 64, 64).to(memory_format=torch.channels_last)
    y = torch.randint(0, 100, (32,))
    best = turns({"float32": net_step(full, x, y), "int8": net_step(low, x, y)}, rounds)
    print(" ".join(f"{name} {ms:.0f} ms" for name, ms in best.items()), f"ratio {best['float32'] / best['int8']:.2f}")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["layers", "net"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=4)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"{lowbit.cpu_name()}, level {lowbit.best_isa()}, {args.threads} threads, torch {torch.__version__}")
    layers(args.rounds) if args.what == "layers" else whole_net(args.rounds)


if __name__ == "__main__":
    main()
