"""Deep Compression's LeNets on MNIST: float -> pruned -> weights shared -> codebooks fine-tuned -> Huffman.

    python examples/python/deep_compression_lenet.py lenet-300-100 ../shared/data/mnist.npz
    python examples/python/deep_compression_lenet.py lenet-5 ../shared/data/mnist.npz

Han, Mao, Dally 2015 (arXiv 1510.00149), table 1: 1.58 % at 40 x and 0.74 % at 39 x. The last 5,000 training images are
the validation split that all settings were chosen on; no epoch is chosen: each stage ends where its schedule ends. The
test set is only for the end: the float net, and the net that the engine runs from the file (--no-test leaves it alone).
A run that is started again goes on from its last epoch. docs/results.md has the results, and where the test set was
used a second time.
"""

import argparse
import copy
import json
import platform
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import lowbit
from lowbit.compression import gradual_density, layer_sizes, size_table
from lowbit.torch import Pruner, swap

VALIDATION = 5000


@dataclass
class Settings:
    """How a net is built, trained and compressed."""

    layers: Callable[[], dict[str, nn.Module]]
    epochs: dict[str, int]  # by stage
    rates: dict[str, float]
    density: dict[str, float]  # by layer
    bits: dict[str, int]
    shift: dict[str, int]  # training images are moved by up to this many pixels; by stage
    decay: float = 5e-4
    batch: int = 128


def lenet_300_100() -> dict[str, nn.Module]:
    """784-300-100-10: 266,610 parameters."""
    layers = {"flatten": nn.Flatten(), "ip1": nn.Linear(784, 300), "relu1": nn.ReLU(), "ip2": nn.Linear(300, 100)}
    return layers | {"relu2": nn.ReLU(), "ip3": nn.Linear(100, 10)}


def lenet_5() -> dict[str, nn.Module]:
    """Caffe's: 20 and 50 filters of 5 x 5 without activation, 500 hidden; 431,080 parameters."""
    layers = {"conv1": nn.Conv2d(1, 20, 5), "pool1": nn.MaxPool2d(2), "conv2": nn.Conv2d(20, 50, 5)}
    layers |= {"pool2": nn.MaxPool2d(2), "flatten": nn.Flatten(), "ip1": nn.Linear(800, 500)}
    return layers | {"relu": nn.ReLU(), "ip2": nn.Linear(500, 10)}


PUBLISHED = {  # tables 2 and 3: kept %, bits of a code and of a gap, size in % of float32, before -> after Huffman
    "lenet-300-100": {
        "ip1": ("8", "6 -> 4.4", "5 -> 3.7", "3.1 -> 2.32"),
        "ip2": ("9", "6 -> 4.4", "5 -> 4.3", "3.8 -> 3.04"),
        "ip3": ("26", "6 -> 4.3", "5 -> 3.2", "15.7 -> 12.70"),
        "total": ("8", "6 -> 5.1", "5 -> 3.7", "3.1 -> 2.49, 40 x"),
    },
    "lenet-5": {
        "conv1": ("66", "8 -> 7.2", "5 -> 1.5", "78.5 -> 67.45"),
        "conv2": ("12", "8 -> 7.2", "5 -> 3.9", "6.0 -> 5.28"),
        "ip1": ("8", "5 -> 4.5", "5 -> 4.5", "2.7 -> 2.45"),
        "ip2": ("19", "5 -> 5.2", "5 -> 3.7", "6.9 -> 6.13"),
        "total": ("8", "5.3 -> 4.1", "5 -> 4.4", "3.05 -> 2.55, 39 x"),
    },
}
NETS = {
    "lenet-300-100": Settings(
        lenet_300_100,
        epochs={"float": 15, "prune": 45, "codebook": 10},
        rates={"float": 0.1, "prune": 0.05, "codebook": 1e-3},
        density={"ip1": 0.07, "ip2": 0.1, "ip3": 0.3},
        bits={"ip1": 4, "ip2": 4, "ip3": 4},
        shift={"float": 1, "prune": 1, "codebook": 1},
    ),
    "lenet-5": Settings(
        lenet_5,
        epochs={"float": 8, "prune": 26, "codebook": 5},
        rates={"float": 0.05, "prune": 0.03, "codebook": 1e-3},
        density={"conv1": 0.66, "conv2": 0.15, "ip1": 0.07, "ip2": 0.19},
        bits={"conv1": 5, "conv2": 5, "ip1": 4, "ip2": 4},
        shift={"float": 1, "prune": 2, "codebook": 2},
    ),
}


@dataclass
class Split:
    """Images (n, 28, 28) uint8 and labels."""

    x: Tensor
    y: Tensor

    def error(self, net: Callable[[Tensor], Tensor]) -> float:
        """Share of wrong answers, in percent."""
        wrong = 0
        with torch.inference_mode():
            for x, y in zip(self.x.split(500), self.y.split(500), strict=True):
                wrong += int((net(x[:, None].float() / 255).argmax(1) != y).sum())
        return 100 * wrong / len(self.y)

    def moved(self, rows: Tensor, shift: int) -> Tensor:
        """Images as a net takes them, each moved by its own random number of pixels, (n, 1, 28, 28) in 0..1."""
        padded = F.pad(self.x[rows], (shift,) * 4)
        dy, dx = (torch.randint(0, 2 * shift + 1, (2, len(rows), 1)) + torch.arange(28)).unbind()
        each = torch.arange(len(rows))[:, None, None]
        return padded[each, dy[:, :, None], dx[:, None, :]][:, None].float() / 255


class Stage:
    """One stage's training, kept in a checkpoint after every epoch."""

    def __init__(self, name: str, net: nn.Module, settings: Settings, seed: int, folder: Path):
        self.name, self.net, self.settings = name, net, settings
        self.epochs, rate = settings.epochs[name], settings.rates[name]
        self.file = folder / f"{name}.pt"
        self.steps = (60000 - VALIDATION) // settings.batch
        if name == "codebook":  # a centroid's gradient sums over all its weights: steps of its own size
            self.optimizer: torch.optim.Optimizer = torch.optim.Adam(net.parameters(), lr=rate)
        else:
            weights = [p for p in net.parameters() if p.ndim > 1]
            biases = [p for p in net.parameters() if p.ndim <= 1]
            groups = [{"params": weights, "weight_decay": settings.decay}, {"params": biases, "weight_decay": 0.0}]
            self.optimizer = torch.optim.SGD(groups, lr=rate, momentum=0.9, nesterov=True)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, max_lr=rate, total_steps=self.epochs * self.steps, pct_start=0.1
        )
        self.pruner = Pruner(net) if name == "prune" else None
        if self.pruner:
            self.pruner.attach(self.optimizer)
        self.epoch, self.seconds = 0, 0.0
        torch.manual_seed(seed)
        if self.file.exists():
            self._load()

    def _load(self) -> None:
        state = torch.load(self.file, weights_only=True)
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        if self.pruner:
            self.pruner.load_state_dict(state["masks"])
        self.epoch, self.seconds = state["epoch"], state["seconds"]
        torch.set_rng_state(state["rng"])

    def _save(self) -> None:
        state = {"net": self.net.state_dict(), "optimizer": self.optimizer.state_dict(), "epoch": self.epoch}
        state |= {"schedule": self.schedule.state_dict(), "seconds": self.seconds, "rng": torch.get_rng_state()}
        state["masks"] = self.pruner.state_dict() if self.pruner else {}
        torch.save(state, self.file.with_suffix(".new"))
        self.file.with_suffix(".new").replace(self.file)

    def run(self, train: Split, valid: Split) -> None:
        """The epochs that are left: cross-entropy, bfloat16 products with float32 weights."""
        while self.epoch < self.epochs:
            started, total = time.perf_counter(), 0.0
            self.net.train()
            order = torch.randperm(len(train.y))[: self.steps * self.settings.batch]
            for step, rows in enumerate(order.split(self.settings.batch)):
                if self.pruner and step % 50 == 0:  # the first half of the stage prunes, the second only retrains
                    progress = 2 * (self.epoch * self.steps + step) / (self.epochs * self.steps)
                    densities = self.settings.density.items()
                    self.pruner.prune({name: gradual_density(progress, d) for name, d in densities})
                x = train.moved(rows, self.settings.shift[self.name]).to(memory_format=torch.channels_last)
                with torch.autocast("cpu", torch.bfloat16):
                    logits = self.net(x)
                loss = F.cross_entropy(logits.float(), train.y[rows])
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                self.schedule.step()
                total += loss.item()
            self.epoch += 1
            self.seconds += time.perf_counter() - started
            self._save()
            print(
                f"{self.name} {self.epoch}/{self.epochs}: loss {total / self.steps:.4f}, validation error "
                f"{valid.error(self.net.eval()):.2f} %, {self.seconds:.0f} s",
                flush=True,
            )
        self.net.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("net", choices=list(NETS))
    parser.add_argument("data", type=Path, help="npz with x_train, y_train, x_test, y_test")
    parser.add_argument("--to", type=Path, default=Path("build/deep_compression"), help="checkpoints and the file")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-test", action="store_true", help="leave the test set alone")
    args = parser.parse_args()
    settings, folder = NETS[args.net], args.to / args.net
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)

    data = np.load(args.data)
    x, y = torch.from_numpy(data["x_train"]), torch.from_numpy(data["y_train"]).long()
    train, valid = Split(x[:-VALIDATION], y[:-VALIDATION]), Split(x[-VALIDATION:], y[-VALIDATION:])
    test = Split(torch.from_numpy(data["x_test"]), torch.from_numpy(data["y_test"]).long())
    torch.manual_seed(args.seed)
    net = nn.Sequential()
    for name, layer in settings.layers().items():
        net.add_module(name, layer)
    net = net.to(memory_format=torch.channels_last)

    stages = []
    for number, name in enumerate(("float", "prune", "codebook")):
        if name == "codebook":
            print(f"pruned: validation error {valid.error(net):.2f} %", flush=True)
            net = swap(net, {layer: f"codebook:{bits}" for layer, bits in settings.bits.items()})
            print(f"shared: validation error {valid.error(net):.2f} %", flush=True)
        stages.append(Stage(name, net, settings, 100 * args.seed + number, folder))
        stages[-1].run(train, valid)
        if name == "float":
            reference = copy.deepcopy(net)

    file = folder / f"{args.net}.lowbit"
    lowbit.compress(net, bits=settings.bits, example=torch.zeros(1, 1, 28, 28)).save(file)
    model = lowbit.load(file)

    def engine(x: Tensor) -> Tensor:
        return torch.from_numpy(model.run(x.contiguous().numpy()))

    sizes = layer_sizes(model.plan)
    print(size_table(sizes, PUBLISHED[args.net]))
    small, large = sum(s.bytes for s in sizes), sum(s.float_bytes for s in sizes)
    row = {
        "net": args.net,
        "validation_error": [valid.error(reference), valid.error(engine)],
        "test_error": None if args.no_test else [test.error(reference), test.error(engine)],
        "float_bytes": large,
        "bytes": small,
        "times_smaller": round(large / small, 2),
        "file_bytes": file.stat().st_size,
        "minutes": round(sum(stage.seconds for stage in stages) / 60, 1),
        "command": shlex.join(["python", *sys.argv]),
        "machine": f"{lowbit.cpu_name()}, {args.threads} thread(s), torch {torch.__version__}, "
        f"Python {platform.python_version()}",
    }
    print(json.dumps(row, indent=1))
    (folder / "result.json").write_text(json.dumps(row, indent=1) + "\n")


if __name__ == "__main__":
    main()
