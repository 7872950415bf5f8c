"""ResNet-20 trained on in the bits that a search has found: recipe file -> a few epochs -> `.lowbit` file -> engine.

    python examples/python/mixed_finetune.py cifar10.npz resnet20_cifar10.pth build/reproductions/haq/haq-size-0.3.json

Weights and inputs of every layer are rounded as `convert` will round them, with scales of the float weights. The
gradient passes straight through, the float net teaches. Layers are `int8` or `int:W/A`. Resumable after each epoch.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import nn

import lowbit
from lowbit.mixed_precision import load_recipe
from lowbit.torch.haq import FineTuning
from reproduction import Run, begin, training_arguments
from resnet20 import Cifar10, augment, cifar10, distillation, resnet20


def on_grids(net: nn.Module, plain: nn.Module) -> nn.Module:
    """The plain net with the parameters of the trained one, its weights rounded."""
    rounded = dict(plain.state_dict())
    for name in rounded:
        module, _, tensor = name.rpartition(".")
        rounded[name] = getattr(net.get_submodule(module), tensor)
    plain.load_state_dict(rounded)
    return plain.eval()


def on_engine(net: nn.Module, recipe: dict, data: Cifar10, file: Path) -> dict[str, float]:
    """The net as a file; its size, and its test error when the engine runs it."""
    calibration = [part.contiguous().numpy() for part in data.x_valid[:512].split(64)]
    lowbit.convert(net, **recipe, calibration=calibration, example=data.x_test[:1].contiguous()).save(file)
    model = lowbit.load(file)
    answers = np.concatenate([model.run(x.contiguous().numpy()).argmax(1) for x in data.x_test.split(500)])
    wrong = int((answers != data.y_test.numpy()).sum())
    return {"engine_error": round(100 * wrong / len(answers), 2), "bytes": file.stat().st_size}


def main() -> None:
    """One training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    training_arguments(parser, epochs=3, batch=128)
    parser.add_argument("weights", type=Path, help="resnet20_cifar10.pth")
    parser.add_argument("recipe", type=Path, help="recipe file of `lowbit search` or haq_cifar10.py")
    parser.add_argument("--images", type=int, help="fewer training images, for a trial")
    parser.add_argument("--rate", type=float, default=0.005)
    args = parser.parse_args()

    begin(args)
    data, recipe = cifar10(args.data), load_recipe(args.recipe)
    if args.images:
        data.x, data.y = data.x[: args.images], data.y[: args.images]
    some = data.x[:512].contiguous(), data.y[:512]
    assignment = {pattern.replace("\\", ""): choice for pattern, choice in recipe["overrides"].items()}
    net = FineTuning(resnet20(args.weights), some, some, steps=0).quantized(assignment)
    optimizer = torch.optim.SGD(net.parameters(), args.rate, momentum=0.9, nesterov=True, weight_decay=5e-5)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.epochs * (len(data.x) // args.batch))
    name = f"cifar10-{args.recipe.stem}-tuned-{args.seed}"
    run = Run(net, optimizer, schedule, args.epochs, args.batch, args.to / f"{name}.pt")
    loss = distillation(resnet20(args.weights))
    run.train(data.x, data.y, data.x_valid, data.y_valid, augment, loss, every="step")
    net.load_state_dict(run.best)
    engine = on_engine(on_grids(net, resnet20()), recipe, data, args.to / f"{name}.lowbit")
    run.finish(name, data.x_test, data.y_test, args.to / "results.jsonl", rate=args.rate, **engine)


if __name__ == "__main__":
    main()
