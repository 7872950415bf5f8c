"""ResNet-20 on CIFAR-10 from scratch, in float32 and in 8 bits by the same recipe (Zhu et al. 2020).

In 8 bits every convolution but the first runs forward, input gradient and weight gradient on the int8 kernels; the last
layer stays float, as in the paper. SGD with momentum under a one-cycle schedule; both runs see the same weights and
images.

    python examples/python/int8_cifar10.py /path/to/cifar10.npz --precision int8 --threads 2
"""

import argparse
import json
import time

import torch
from torch import nn

from lowbit.torch import gradient_deviations, swap
from reproduction import Run, begin, training_arguments
from resnet20 import augment, cifar10, cross_entropy, resnet20


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    training_arguments(parser, epochs=5, batch=128)
    parser.add_argument("--precision", choices=["float32", "int8"], default="int8")
    parser.add_argument("--rate", type=float, default=0.3, help="highest learning rate")
    parser.add_argument("--steps", type=int, help="stop after so many steps: a pilot")
    return parser.parse_args()


def main() -> None:
    """Train, choose the epoch, test once; the deviations of the gradients go beside the results."""
    args = options()
    begin(args)
    net: nn.Module = resnet20()
    if args.precision == "int8":
        swap(net, {"conv1": "float32", "op:Conv2d": "int8_train"})
    begin(args)  # swapping drew seeds: both runs see the same images
    data = cifar10(args.data)
    if args.steps:
        data.x, data.y = data.x[: args.steps * args.batch], data.y[: args.steps * args.batch]
    steps = len(data.x) // args.batch
    optimizer = torch.optim.SGD(net.parameters(), lr=args.rate, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, args.rate, epochs=args.epochs, steps_per_epoch=steps, pct_start=0.25, cycle_momentum=False
    )
    name = f"int8-train-{args.precision}-{args.epochs}-{args.seed}"
    run = Run(net, optimizer, schedule, args.epochs, args.batch, args.to / f"{name}.pt")
    log = args.to / f"{name}.deviations.jsonl"
    log.parent.mkdir(parents=True, exist_ok=True)
    count, started = 0, time.perf_counter()

    def note(*_: object) -> None:
        nonlocal count
        if count % 50 == 0:
            seconds = round(time.perf_counter() - started, 1)
            row = {"step": run.epoch * steps + count % steps, "seconds": seconds, "layers": gradient_deviations(net)}
            with log.open("a") as file:
                file.write(json.dumps(row) + "\n")
        count += 1

    optimizer.register_step_post_hook(note)
    run.train(data.x, data.y, data.x_valid, data.y_valid, augment, cross_entropy, every="step", bfloat16=False)
    run.finish(f"ResNet-20 trained in {args.precision}", data.x_test, data.y_test, args.to / "results.jsonl")


if __name__ == "__main__":
    main()
