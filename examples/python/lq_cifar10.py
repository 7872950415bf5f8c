"""LQ-Nets (Zhang et al. 2018) on ResNet-20 and CIFAR-10, from the published float weights.

    python get.py cifar10 --to build/data
    python examples/python/lq_cifar10.py 2/2 build/data/cifar10.npz ../shared/data/resnet20_cifar10.pth

All 3 x 3 convolutions but the first get weights and inputs in W and A bits; the first and the classifier stay float, as
in the paper. What differs from it: a few epochs from a trained net instead of hundreds from scratch, and the float net
teaches (knowledge distillation). SGD with Nesterov momentum, one cosine. 45,000 images train, 5,000 choose the epoch,
the 10,000 test images are used once. A run that is started again goes on from its last epoch. At the end the best net
becomes a `.lowbit` file, which the engine runs on the same test images.
"""

import argparse
from pathlib import Path

import torch
from torch import nn

import lowbit
from lowbit.torch import swap
from reproduction import Run, begin, training_arguments
from resnet20 import Cifar10, augment, cifar10, distillation, resnet20


def on_engine(net: nn.Module, data: Cifar10, file: Path) -> dict[str, float]:
    """The net as a file; its size, and its test error when the engine runs it."""
    lowbit.convert(net.eval(), example=data.x_test[:1].contiguous(), recipe="lq").save(file)
    model = lowbit.load(file)
    pairs = zip(data.x_test.split(500), data.y_test.split(500), strict=True)
    wrong = sum(int((model.run(x.contiguous().numpy()).argmax(1) != y.numpy()).sum()) for x, y in pairs)
    return {"engine_error": round(100 * wrong / len(data.y_test), 2), "bytes": file.stat().st_size}


def main() -> None:
    """One training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bits", help="W/A, each 1 to 4; A may be 32")
    training_arguments(parser, epochs=5, batch=128)
    parser.add_argument("weights", type=Path, help="resnet20_cifar10.pth")
    parser.add_argument("--rate", type=float, default=0.02)
    parser.add_argument(
        "--start", type=Path, help="checkpoint of an ended run of the same bits: go on from its best weights"
    )
    parser.add_argument("--decay", type=float, default=5e-5)
    args = parser.parse_args()

    begin(args)
    data = cifar10(args.data)
    net = swap(resnet20(args.weights), {r"layer\d.*": f"lq:{args.bits}"}).to(memory_format=torch.channels_last)
    if args.start:
        net.load_state_dict(torch.load(args.start, weights_only=True)["best"])
    optimizer = torch.optim.SGD(net.parameters(), args.rate, momentum=0.9, nesterov=True, weight_decay=args.decay)
    steps = args.epochs * (len(data.x) // args.batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    name = f"cifar10-resnet20-lq{args.bits.replace('/', '-')}-{args.seed}{'-continued' * bool(args.start)}"
    run = Run(net, optimizer, schedule, args.epochs, args.batch, args.to / f"{name}.pt")
    loss = distillation(resnet20(args.weights))
    run.train(data.x, data.y, data.x_valid, data.y_valid, augment, loss, every="step", fresh_norms=True)
    net.load_state_dict(run.best)
    engine = on_engine(net, data, args.to / f"{name}.lowbit")
    run.finish(name, data.x_test, data.y_test, args.to / "results.jsonl", rate=args.rate, **engine)


if __name__ == "__main__":
    main()
