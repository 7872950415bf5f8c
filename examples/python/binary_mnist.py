"""Binary nets on MNIST beside their float twins: BinaryConnect, Binarized Neural Networks, XNOR-Net's LeNet-5.

    python examples/python/binary_mnist.py bnn ../shared/data/mnist.npz

Nets: bnn, connect (deterministic), connect-stochastic, mlp (the float twin of these three), xnor-lenet, lenet (its
twin). All train alike: Adam with an exponentially falling rate, squared hinge, random small rotations, scalings and
shifts of the training images; 55,000 images train, 5,000 choose the epoch, 10,000 test it. Binary nets are tested
from binary weights. A run that is started again goes on from its checkpoint. docs/results.md has the results.
"""

import argparse
import copy
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lowbit.torch import (
    BinaryConnectLinear,
    BinaryLinear,
    XnorConv2d,
    XnorLinear,
    refresh_batch_norm,
    squared_hinge,
)
from reproduction import begin, binary_run, error_percent, training_arguments

HELD_OUT = 5000
RATES = {"mlp": (1e-3, 1e-5), "lenet": (1e-3, 1e-5), "xnor-lenet": (2e-3, 1e-5)}  # learning rate, first and last epoch
BINARY_RATES = (2e-3, 2e-6)


def mlp(kind: str, width: int) -> nn.Sequential:
    """Three hidden layers: product, batch norm, activation; the BNN's sign is part of the next layer."""
    sizes = [784, width, width, width, 10]
    layers: list[nn.Module] = [nn.Flatten()]
    for i, (inputs, outputs) in enumerate(pairwise(sizes)):
        if kind == "mlp":
            product: nn.Module = nn.Linear(inputs, outputs, bias=False)
        elif kind == "bnn" and i > 0:
            product = BinaryLinear(inputs, outputs, bias=False)
        else:  # the first layer's input is real in every net
            product = BinaryConnectLinear(inputs, outputs, bias=False, stochastic=kind == "connect-stochastic")
        layers += [product, nn.BatchNorm1d(outputs, eps=1e-4)]
        if kind != "bnn" and i < 3:
            layers.append(nn.ReLU())
    return nn.Sequential(*layers)


def lenet(binary: bool) -> nn.Sequential:
    """LeNet-5 as XNOR-Net's ports have it: 20 and 50 filters of 5 x 5, 500 hidden; the first and last layers real.

    Binary blocks in the paper's order: batch norm, sign, convolution, pooling.
    """
    if binary:
        convolution = [nn.BatchNorm2d(20, eps=1e-4), XnorConv2d(20, 50, 5), nn.MaxPool2d(2), nn.ReLU()]
        hidden = [nn.BatchNorm1d(800, eps=1e-4), XnorLinear(800, 500), nn.ReLU()]
    else:
        convolution = [nn.BatchNorm2d(20, eps=1e-4), nn.Conv2d(20, 50, 5, bias=False), nn.MaxPool2d(2), nn.ReLU()]
        hidden = [nn.BatchNorm1d(800, eps=1e-4), nn.Linear(800, 500, bias=False), nn.ReLU()]
    first = [nn.Conv2d(1, 20, 5, bias=False), nn.BatchNorm2d(20, eps=1e-4), nn.MaxPool2d(2), nn.ReLU()]
    last = [nn.BatchNorm1d(500, eps=1e-4), nn.Linear(500, 10)]
    net = nn.Sequential(*first, *convolution, nn.Flatten(), *hidden, *last)
    return net.to(memory_format=torch.channels_last)


def augment(x: Tensor) -> Tensor:
    """Each image rotated by up to 10 degrees, scaled and sheared by up to 10 %, shifted by up to 2 pixels."""
    n = len(x)
    angle, shear = (torch.rand(2, n) * 2 - 1) * torch.tensor([[10 * torch.pi / 180], [0.1]])
    scale = 1 + (torch.rand(2, n) * 2 - 1) * 0.1
    shift = (torch.rand(2, n) * 2 - 1) * (2 * 2 / 28)
    cos, sin = angle.cos(), angle.sin()
    rows = [cos * scale[0], -sin * scale[1] + shear, shift[0], sin * scale[0], cos * scale[1], shift[1]]
    grid = F.affine_grid(torch.stack(rows, 1).view(n, 2, 3), list(x.shape), align_corners=False)
    return F.grid_sample(x + 1, grid, align_corners=False) - 1  # the background is -1


def images(data: np.ndarray) -> Tensor:
    """(n, 28, 28) uint8 to (n, 1, 28, 28) in [-1, 1]."""
    return torch.from_numpy(data).float()[:, None] / 127.5 - 1


def hinge(logits: Tensor, y: Tensor, _: Tensor) -> Tensor:
    return squared_hinge(logits, y)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("net", choices=["bnn", "connect", "connect-stochastic", "mlp", "xnor-lenet", "lenet"])
    training_arguments(parser, epochs=100, batch=256)
    parser.add_argument("--width", type=int, default=1024, help="of the MLP's hidden layers")
    args = parser.parse_args()

    begin(args)
    data = np.load(args.data)
    x, y = images(data["x_train"]), torch.from_numpy(data["y_train"]).long()
    net = lenet(args.net == "xnor-lenet") if "lenet" in args.net else mlp(args.net, args.width)
    name = f"{args.net}-{args.seed}" if "lenet" in args.net else f"{args.net}-{args.width}-{args.seed}"
    run = binary_run(net, args.epochs, args.batch, RATES.get(args.net, BINARY_RATES), args.to / f"{name}.pt")
    run.train(x[:-HELD_OUT], y[:-HELD_OUT], x[-HELD_OUT:], y[-HELD_OUT:], augment, hinge, fresh_norms=True)

    x_test, y_test = images(data["x_test"]), torch.from_numpy(data["y_test"]).long()
    details = {}
    if args.net == "connect-stochastic":  # the paper's own choice at test time, of the same epoch
        real = copy.deepcopy(net)
        real.load_state_dict(run.best)
        for layer in real.modules():
            if isinstance(layer, BinaryConnectLinear):
                layer.test_weights = "real"
        refresh_batch_norm(real, x[:5000].split(500))
        details["test_error_real_weights"] = round(error_percent(real, x_test, y_test), 2)
    run.finish(name, x_test, y_test, args.to / "results.jsonl", **details)


if __name__ == "__main__":
    main()
