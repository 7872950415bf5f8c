"""A small binary ResNet on CIFAR-10 beside its float twin.

    python get.py cifar10 --to build/data
    python examples/python/binary_cifar10.py binary build/data/cifar10.npz
    python examples/python/binary_cifar10.py float build/data/cifar10.npz

Five residual blocks of one 3 x 3 convolution each, 32 to 128 channels. The binary net is the float one with every
block's convolution swapped for XNOR-Net's with Bi-Real Net's gradient; first convolution, 1 x 1 shortcuts and
classifier stay real. Both train alike: Adam with an exponentially falling rate, cross-entropy, shifts by up to 4
pixels and mirror images; 45,000 images train, 5,000 choose the epoch, 10,000 test it. A run that is started again
goes on from its checkpoint.
"""

import argparse

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lowbit.torch import swap
from reproduction import begin, binary_run, training_arguments

HELD_OUT = 5000
BLOCKS = [(32, 32, 1), (32, 64, 2), (64, 64, 1), (64, 128, 2), (128, 128, 1)]


class Block(nn.Module):
    """``BN(conv(activation(x))) + shortcut(x)``; the sum stays real, as in Bi-Real Net."""

    def __init__(self, inputs: int, outputs: int, stride: int, activation: nn.Module):
        super().__init__()
        self.activation = activation
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity()
        if inputs != outputs:
            real = nn.Conv2d(inputs, outputs, 1, bias=False)
            self.shortcut = nn.Sequential(nn.AvgPool2d(stride), real, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) to (n, outputs, h / stride, w / stride)."""
        return self.norm(self.conv(self.activation(x))) + self.shortcut(x)


def resnet(binary: bool) -> nn.Module:
    """The float net, or the same with binary convolutions."""
    activation = nn.Identity if binary else nn.ReLU  # a binary convolution has its sign inside
    stem = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32))
    blocks = nn.Sequential(*[Block(*sizes, activation()) for sizes in BLOCKS])
    head = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))
    net = nn.Sequential(stem, blocks, head)
    if binary:
        swap(net, {r"1\.\d+\.conv": {"layer": "xnor", "activation": "approx_sign", "centre": False}})
    return net.to(memory_format=torch.channels_last)


def augment(x: Tensor) -> Tensor:
    """The whole batch shifted by up to 4 pixels, half of its images mirrored."""
    dy, dx = torch.randint(0, 9, (2,)).tolist()
    x = F.pad(x, (4, 4, 4, 4))[:, :, dy : dy + 32, dx : dx + 32]
    return torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, x.flip(3), x).to(memory_format=torch.channels_last)


def images(data: np.ndarray) -> Tensor:
    """(n, 32, 32, 3) uint8 to (n, 3, 32, 32) of about unit variance."""
    return (torch.from_numpy(data).permute(0, 3, 1, 2).float() / 255 - 0.47) / 0.25


def cross_entropy(logits: Tensor, y: Tensor, _: Tensor) -> Tensor:
    return F.cross_entropy(logits, y)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("net", choices=["binary", "float"])
    training_arguments(parser, epochs=30, batch=128)
    args = parser.parse_args()

    begin(args)
    data = np.load(args.data)
    x, y = images(data["x_train"]), torch.from_numpy(data["y_train"]).long().flatten()
    name = f"cifar10-{args.net}-{args.seed}"
    run = binary_run(resnet(args.net == "binary"), args.epochs, args.batch, (2e-3, 2e-5), args.to / f"{name}.pt")
    train, valid = slice(-HELD_OUT), slice(-HELD_OUT, None)
    run.train(x[train], y[train], x[valid], y[valid], augment, cross_entropy, fresh_norms=True)
    y_test = torch.from_numpy(data["y_test"]).long().flatten()
    run.finish(name, images(data["x_test"]), y_test, args.to / "results.jsonl")


if __name__ == "__main__":
    main()
