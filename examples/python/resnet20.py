"""ResNet-20 on CIFAR-10, as the reproductions of training use it: the net, its published weights, the data.

The net is that of He et al. 2016 (section 4.2) with shortcuts that subsample and pad with zeros; weights of
akamaster/pytorch_resnet_cifar10 (91.73 % on the 10,000 test images). They were trained on all 50,000 training images,
so the 5,000 that are held out here are new to training that begins from scratch only; they still choose the epoch.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

HELD_OUT = 5000
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Block(nn.Module):
    """``relu(bn2(conv2(relu(bn1(conv1(x))))) + shortcut(x))``."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu2 = nn.ReLU()
        self.stride, self.extra = stride, outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) to (n, outputs, h / stride, w / stride)."""
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        if self.extra:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.extra // 2, self.extra // 2))
        return self.relu2(y + x)


class ResNet20(nn.Module):
    """(n, 3, 32, 32) to (n, 10) logits; parameters named as in the published weights."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu1 = nn.ReLU()
        self.layer1 = nn.Sequential(Block(16, 16, 1), Block(16, 16, 1), Block(16, 16, 1))
        self.layer2 = nn.Sequential(Block(16, 32, 2), Block(32, 32, 1), Block(32, 32, 1))
        self.layer3 = nn.Sequential(Block(32, 64, 2), Block(64, 64, 1), Block(64, 64, 1))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(64, 10)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.relu1(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(self.pool(x).flatten(1))


def resnet20(weights: Path | None = None) -> ResNet20:
    """The net in torch's channels_last layout; with the published weights where their file is given."""
    net = ResNet20()
    if weights is not None:
        net.load_state_dict(torch.load(weights, weights_only=True))
    return net.to(memory_format=torch.channels_last)


def augment(x: Tensor) -> Tensor:
    """Every image shifted by up to 4 pixels, half of them mirrored: (n, 3, 32, 32), channels_last."""
    n = len(x)
    padded = F.pad(x, (4, 4, 4, 4)).permute(0, 2, 3, 1)
    dy, dx = torch.randint(0, 9, (2, n, 1))
    columns = torch.where(torch.rand(n, 1) < 0.5, torch.arange(32), torch.arange(31, -1, -1))
    rows = torch.arange(32) + dy
    shifted = padded[torch.arange(n)[:, None, None], rows[:, :, None], (columns + dx)[:, None, :]]
    return shifted.permute(0, 3, 1, 2)


def images(data: np.ndarray) -> Tensor:
    """(n, 32, 32, 3) uint8 to (n, 3, 32, 32) float32, channels_last, normalised as for the published weights."""
    x = torch.from_numpy(data).float().div_(255)
    return x.sub_(torch.tensor(MEAN)).div_(torch.tensor(STD)).permute(0, 3, 1, 2)


def cross_entropy(logits: Tensor, y: Tensor, _: Tensor) -> Tensor:
    """The plain loss."""
    return F.cross_entropy(logits, y)


def distillation(teacher: nn.Module, temperature: float = 4.0):
    """A loss: the teacher's soft answers on the same images, at a temperature (Hinton et al. 2015), and the labels."""
    teacher.eval()

    def loss(logits: Tensor, y: Tensor, x: Tensor) -> Tensor:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            wanted = teacher(x).float()
        wanted = F.softmax(wanted.clone() / temperature, 1)
        soft = F.cross_entropy(logits / temperature, wanted)  # its gradient falls with the temperature
        return (temperature * soft + F.cross_entropy(logits, y)) / 2

    return loss


@dataclass
class Cifar10:
    """Images and labels; ``train`` and ``valid`` are the training images without and with those held out."""

    x: Tensor
    y: Tensor
    x_valid: Tensor
    y_valid: Tensor
    x_test: Tensor
    y_test: Tensor


def cifar10(path: Path) -> Cifar10:
    """Of the file that ``get.py cifar10`` writes."""
    data = np.load(path)
    x, y = images(data["x_train"]), torch.from_numpy(data["y_train"]).long().flatten()
    x_test, y_test = images(data["x_test"]), torch.from_numpy(data["y_test"]).long().flatten()
    return Cifar10(x[:-HELD_OUT], y[:-HELD_OUT], x[-HELD_OUT:], y[-HELD_OUT:], x_test, y_test)
