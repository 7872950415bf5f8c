"""Trains the float net that `lowbit demo` ships and cuts its data: python/lowbit/demo/fashion.onnx and fashion.npz.

    python get.py fashion_mnist --to build/data              # any npz with x_train, y_train, x_test, y_test will do
    python examples/python/train_demo.py build/data/fashion_mnist.npz

A small CNN with plain, depthwise and pointwise convolutions and two residual additions. Six epochs took 19 minutes on
one thread of a busy machine. The last 500 training images are held out of the training and shipped for calibration; the
first 2000 test images are shipped for evaluation. Fashion-MNIST is under the MIT licence (Zalando SE, 2017).
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

MEAN, STD = 0.2860, 0.3530  # of the 60,000 training images, in units of full scale
HELD_OUT, SHIPPED_TEST = 500, 2000


def unit(in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution, batch norm, no activation."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
    )


class InvertedResidual(nn.Module):
    """Pointwise up, depthwise, pointwise down, plus the input: the MobileNetV2 block."""

    def __init__(self, channels: int, expand: int):
        super().__init__()
        self.up = unit(channels, expand, 1)
        self.depthwise = unit(expand, expand, 3, groups=expand)
        self.down = unit(expand, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, channels, h, w) to the same."""
        return x + self.down(F.relu6(self.depthwise(F.relu6(self.up(x)))))


class FashionNet(nn.Module):
    """28 x 28 grey to 10 logits; 8 million multiplications, 0.12 million parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = unit(1, 32, 3)
        self.depthwise1 = unit(32, 32, 3, stride=2, groups=32)
        self.pointwise1 = unit(32, 64, 1)
        self.block1 = InvertedResidual(64, 128)
        self.depthwise2 = unit(64, 64, 3, stride=2, groups=64)
        self.pointwise2 = unit(64, 96, 1)
        self.residual = unit(96, 96, 3)
        self.classifier = nn.Linear(96, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, 1, 28, 28) normalised to (n, 10) logits."""
        x = F.relu(self.stem(x))
        x = F.relu(self.pointwise1(F.relu6(self.depthwise1(x))))
        x = self.block1(x)
        x = F.relu(self.pointwise2(F.relu6(self.depthwise2(x))))
        x = F.relu(x + self.residual(x))
        return self.classifier(x.mean((2, 3)))


def augment(x: torch.Tensor) -> torch.Tensor:
    """A shift of up to 2 pixels, the same for a whole batch, and a mirror image for half of it."""
    dy, dx = torch.randint(0, 5, (2,)).tolist()
    x = F.pad(x, (2, 2, 2, 2))[:, :, dy : dy + 28, dx : dx + 28]
    flip = torch.rand(len(x), 1, 1, 1) < 0.5
    return torch.where(flip, x.flip(3), x)


def normalise(images: np.ndarray) -> torch.Tensor:
    """(n, 28, 28) uint8 to (n, 1, 28, 28) float32."""
    return ((torch.from_numpy(images).float() / 255 - MEAN) / STD)[:, None]


def train(x: torch.Tensor, y: torch.Tensor, epochs: int, batch: int) -> FashionNet:
    """One-cycle SGD with label smoothing, in bfloat16 with float32 master weights."""
    net = FashionNet().to(memory_format=torch.channels_last)
    x = x.to(memory_format=torch.channels_last)
    decayed = [p for p in net.parameters() if p.ndim > 1]
    plain = [p for p in net.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 5e-4}, {"params": plain, "weight_decay": 0.0}]
    optimiser = torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True)
    steps = epochs * (len(x) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=0.2, total_steps=steps, pct_start=0.2)
    for epoch in range(epochs):
        started, losses = time.perf_counter(), []
        for rows in torch.randperm(len(x))[: len(x) // batch * batch].split(batch):
            with torch.autocast("cpu", torch.bfloat16):  # ten times faster than float32 where the CPU has AMX
                logits = net(augment(x[rows]))
            loss = F.cross_entropy(logits.float(), y[rows], label_smoothing=0.05)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
        print(
            f"epoch {epoch + 1}/{epochs}: loss {np.mean(losses):.4f}, {time.perf_counter() - started:.0f} s", flush=True
        )
    return net.eval()


def accuracy(net: FashionNet, x: torch.Tensor, y: torch.Tensor) -> float:
    """Top-1, in percent."""
    with torch.inference_mode():
        hits = [(net(a).argmax(1) == b).float().sum().item() for a, b in zip(x.split(500), y.split(500), strict=True)]
    return 100 * sum(hits) / len(x)


def export(net: FashionNet, path: Path) -> None:
    """ONNX with batch norm folded and any batch size."""
    batch = torch.export.Dim("batch", min=1, max=4096)
    program = torch.onnx.export(
        net.to(memory_format=torch.contiguous_format),
        (torch.zeros(2, 1, 28, 28),),
        dynamo=True,
        opset_version=18,
        dynamic_shapes={"x": {0: batch}},
        input_names=["image"],
        output_names=["logits"],
        verbose=False,
    )
    program.save(str(path), external_data=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--to", type=Path, default=Path(__file__).parents[2] / "python/lowbit/demo")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--threads", type=int, help="fewer than the cores where other programs keep them busy")
    parser.add_argument("--batch", type=int, default=128)
    args = parser.parse_args()

    torch.manual_seed(0)
    if args.threads:
        torch.set_num_threads(args.threads)
    data = np.load(args.data)
    x_train, y_train, x_test, y_test = (data[k] for k in ("x_train", "y_train", "x_test", "y_test"))
    net = train(normalise(x_train[:-HELD_OUT]), torch.from_numpy(y_train[:-HELD_OUT]).long(), args.epochs, args.batch)
    full = accuracy(net, normalise(x_test), torch.from_numpy(y_test))
    shipped = accuracy(net, normalise(x_test[:SHIPPED_TEST]), torch.from_numpy(y_test[:SHIPPED_TEST]))
    print(f"top-1: {full:.2f} % on all {len(x_test)} test images, {shipped:.2f} % on the {SHIPPED_TEST} shipped")

    args.to.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        args.to / "fashion.npz",
        x_calibration=x_train[-HELD_OUT:],
        y_calibration=y_train[-HELD_OUT:],
        x_test=x_test[:SHIPPED_TEST],
        y_test=y_test[:SHIPPED_TEST],
    )
    export(net, args.to / "fashion.onnx")


if __name__ == "__main__":
    main()
