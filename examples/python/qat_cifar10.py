"""Quantization-aware training of ResNet-20 on CIFAR-10, and its integer-only inference (Jacob et al. 2018).

The published float weights (91.73 %) are trained on with fake-quantized weights and activations, batch normalisation
folded; after the first half of the steps the folded statistics are frozen. The net then becomes an `int8-affine` model
whose run is integer arithmetic from the first quantize to the last product, and all 10,000 test images are answered by
that model. Resumable after each epoch.

    python ../shared/data/get.py cifar10        # once
    python examples/python/qat_cifar10.py CIFAR10.npz RESNET20.pth                                  # 8 bits
    python examples/python/qat_cifar10.py CIFAR10.npz RESNET20.pth --bits 4 4 --rate 0.01 --distil  # few
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import lowbit
from lowbit.torch import prepare_qat
from reproduction import Run, begin, training_arguments
from resnet20 import Cifar10, augment, cifar10, cross_entropy, distillation, resnet20


def engine_error(model: lowbit.Model, x: Tensor, y: Tensor, threads: int) -> tuple[float, np.ndarray]:
    """Share of wrong answers of the integer engine, and all its answers."""
    parts = [model.run(part.contiguous().numpy(), threads=threads) for part in x.split(500)]
    answers = np.concatenate(parts).argmax(1)
    return 100 * float((answers != y.numpy()).mean()), answers


def network(args: argparse.Namespace, steps: int) -> nn.Module:
    """ResNet-20 with its float weights, ready to train; the first and last layers keep 8 bits."""
    weight_bits, activation_bits = args.bits
    ends = {"conv1|linear": {"weight_bits": 8}, "pool": {"activation_bits": 8}} if args.bits != [8, 8] else {}
    net = prepare_qat(
        resnet20(args.weights),
        weight_bits=weight_bits,
        activation_bits=activation_bits,
        overrides=ends,
        freeze_delay=steps // 2,
    )
    return net.to(memory_format=torch.channels_last)


def optimise(net: nn.Module, args: argparse.Namespace, data: Cifar10) -> Run:
    """SGD with momentum, the rate falling to 0 along half a cosine."""
    steps = args.epochs * (len(data.x) // args.batch)
    optimizer = torch.optim.SGD(net.parameters(), lr=args.rate, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    run = Run(net, optimizer, schedule, args.epochs, args.batch, args.to / f"{args.name}.pt")
    loss = distillation(resnet20(args.weights)) if args.distil else cross_entropy
    run.train(data.x, data.y, data.x_valid, data.y_valid, augment, loss, every="step", bfloat16=args.bfloat16)
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    training_arguments(parser, epochs=2, batch=128)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--bits", type=int, nargs=2, default=[8, 8], metavar=("W", "A"))
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--distil", action="store_true", help="learn from the float net's answers too")
    parser.add_argument("--bfloat16", action="store_true", help="products in bfloat16 while training")
    parser.add_argument("--images", type=int, help="fewer training images, for a trial")
    args = parser.parse_args()
    args.name = f"cifar10-qat-{args.bits[0]}-{args.bits[1]}-{args.seed}"

    begin(args)
    data = cifar10(args.data)
    if args.images:
        data.x, data.y = data.x[: args.images], data.y[: args.images]
    net = network(args, args.epochs * (len(data.x) // args.batch))
    run = optimise(net, args, data)

    net.load_state_dict(run.best)
    net.eval()
    model = lowbit.convert(net, "int8-affine", example=data.x_test[:1])
    path = args.to / f"{args.name}.lowbit"
    model.save(path)
    error, answers = engine_error(lowbit.load(path), data.x_test, data.y_test, args.threads)
    with torch.inference_mode():
        trained = torch.cat([net(part).argmax(1) for part in data.x_test.split(500)]).numpy()
    run.finish(
        args.name,
        data.x_test,
        data.y_test,
        args.to / "results.jsonl",
        engine_error=round(error, 2),
        same_answer=round(100 * float((answers == trained).mean()), 2),
        file_bytes=path.stat().st_size,
    )


if __name__ == "__main__":
    main()
