r"""Recipe int:W/A without training: accuracy and size of a network at a list of precisions, as a table.

    python examples/python/uniform_bits.py resnet20_cifar10.onnx cifar10.npz:x_test,y_test --size 32 \
        --calibrate cifar10.npz:x_train,y_train --rows 0:512 --std 0.229,0.224,0.225 --mean 0.485,0.456,0.406 \
        --recipes int:8/8,int:4/8,int:4/4 --also conv1=int:8/8

Every recipe is run as it is, and with the ``--also`` override where there is one. Accuracy is the engine's on all rows
that did not calibrate.
"""

import argparse
import time
from pathlib import Path

import numpy as np

import lowbit
from lowbit.data import parse_slice

RECIPES = "int:8/8,int:6/6,int:4/8,int:8/4,int:4/4,int:3/8,int:3/3,int:2/8,int:4/32,int:3/32"


def numbers(text: str) -> tuple[float, ...]:
    """Comma-separated numbers."""
    return tuple(float(v) for v in text.split(","))


def main() -> None:
    """Calibrate once, convert and run for every recipe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("net", type=Path)
    parser.add_argument("data", help="images with labels: .zip, folder, or .npz:x,y")
    parser.add_argument("--calibrate", help="images to calibrate with; without it, --rows of the data, left out then")
    parser.add_argument("--rows", default="0:100", help="which of them")
    parser.add_argument("--recipes", default=RECIPES)
    parser.add_argument("--also", action="append", default=[], help="pattern=recipe, a second run of every recipe")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--interpolation", default="bilinear")
    parser.add_argument("--scale", type=float, default=1 / 255)
    parser.add_argument("--mean", type=numbers, default=(0.0,))
    parser.add_argument("--std", type=numbers, default=(1.0,))
    parser.add_argument("--batch", type=int, default=50)
    args = parser.parse_args()
    expected = lowbit.Preprocessing(
        size=(args.size, args.size), crop=0.875, interpolation=args.interpolation, channels="RGB", scale=args.scale,
        mean=args.mean, std=args.std, layout="NCHW",
    )  # fmt: skip
    chosen = parse_slice(args.rows)
    first = lowbit.Dataset(args.calibrate or args.data, expected, rows=chosen)
    data = lowbit.Dataset(args.data, expected, skip=None if args.calibrate else chosen)
    table = lowbit.calibrate(str(args.net), list(first.batches(args.batch)))
    batches = list(data.batches(args.batch))

    def row(recipe: str, overrides: dict[str, str]) -> None:
        begin = time.perf_counter()
        model = lowbit.convert(str(args.net), recipe, table, overrides)
        converted = time.perf_counter() - begin
        answers = np.concatenate([model.run(x).argmax(1) for x in batches])
        top1 = 100 * float(np.mean(answers == data.labels))
        size = sum(layer.bytes for layer in model.layers())
        also = " ".join(f"{k}={v}" for k, v in overrides.items())
        print(f"| {recipe} | {also} | {top1:.2f} % | {size:,} | {converted:.1f} s |", flush=True)

    print(f"{len(data)} rows\n| recipe | but | top-1 | bytes of weights | conversion |")
    print("|---|---|---:|---:|---:|")
    row("float32", {})
    others = dict(setting.rpartition("=")[::2] for setting in args.also)
    for recipe in args.recipes.split(","):
        row(recipe, {})
        if others:
            row(recipe, others)


if __name__ == "__main__":
    main()
