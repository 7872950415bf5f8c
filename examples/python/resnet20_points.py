r"""ResNet-20 in every precision, side by side: accuracy on CIFAR-10, bytes of the file, milliseconds on every level.

    python examples/python/resnet20_points.py cifar10.npz ../shared/data/resnet20_cifar10.onnx \
        'LQ 2/2=build/reproductions/cifar10-resnet20-lq2-2-1.lowbit' --recipes float32,int8,int:4/4 --plot points.png

Recipes are post-training, calibrated with 512 held-out training images; files are those that the other scripts of this
folder trained and converted, by name or by their own. Batch 1, one thread, all networks of a level take turns.
"""

import argparse
import json
import re
from pathlib import Path

import numpy as np

import lowbit
from lowbit.mixed_precision import measured_ms
from resnet20 import cifar10

RECIPES = "float32,int8,int8-affine,int:4/4,int:3/8,codebook:4,codebook:4/int8"


def converted(net: Path, recipes: list[str], images: np.ndarray, folder: Path) -> dict[str, Path]:
    """A file for every recipe."""
    folder.mkdir(parents=True, exist_ok=True)
    table = lowbit.calibrate(str(net), np.array_split(images, 8))
    files = {}
    for recipe in recipes:
        files[recipe] = folder / f"{re.sub('[:/]', '-', recipe)}.lowbit"
        first = {"conv1": "int:8/8"} if recipe.startswith("int:") else {}  # its input is the image
        lowbit.convert(str(net), recipe, table, first).save(files[recipe])
    return files


def right_percent(model: lowbit.Model, x: np.ndarray, y: np.ndarray) -> float:
    """Top-1 on the engine."""
    answers = np.concatenate([model.run(part) for part in np.array_split(x, 40)]).argmax(1)
    return round(100 * float((answers == y).mean()), 2)


def plot(rows: list[dict], isa: str, path: Path) -> None:
    """Accuracy against bytes, and against milliseconds on one level."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.8), layout="constrained")
    left, right, names = figure.subplots(1, 3, gridspec_kw={"width_ratios": [3, 3, 1.3]})
    for number, row in enumerate(rows, 1):
        style, color = ("s", "C0") if row["post_training"] else ("o", "C3")
        side = (5, -3) if number % 2 else (-5, -3)  # neighbours are often in nearly the same place
        for ax, x in ((left, row["bytes"] / 1000), (right, row["ms"][isa])):
            ax.plot(x, row["top1"], style, ms=5, color=color)
            at = (x, row["top1"])
            ax.annotate(
                str(number), at, side, textcoords="offset points", fontsize=7, ha="left" if number % 2 else "right"
            )
    left.set(xlabel="file in kB", ylabel="test accuracy in %", xscale="log")
    right.set(xlabel=f"ms, level {isa}, one thread", xscale="log")
    for style, color, text in (("s", "C0", "recipe, post-training"), ("o", "C3", "from a file")):
        right.plot([], [], style, color=color, label=text)
    right.legend(loc="lower right")
    names.axis("off")
    lines = [f"{number:2}  {row['name']}" for number, row in enumerate(rows, 1)]
    names.text(0, 1, "\n".join(lines), va="top", fontsize=8, family="monospace", linespacing=1.4)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Convert, run, time, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("net", type=Path, help="resnet20_cifar10.onnx")
    parser.add_argument("files", nargs="*", help="[name=]file.lowbit of trained networks")
    parser.add_argument("--recipes", default=RECIPES)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each network and level")
    parser.add_argument("--isas", help="levels, with commas between; all of this machine by default")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--out", type=Path, default=Path("build/reproductions/points"))
    args = parser.parse_args()

    data = cifar10(args.data)
    x, y = data.x_test.contiguous().numpy(), data.y_test.numpy()
    recipes = args.recipes.split(",") if args.recipes else []
    post_training = converted(args.net, recipes, data.x_valid[:512].contiguous().numpy(), args.out)
    named = [(name, Path(file)) for name, _, file in (text.rpartition("=") for text in args.files)]
    files = post_training | {name or file.stem: file for name, file in named}
    models = {name: lowbit.load(file) for name, file in files.items()}
    isas = args.isas.split(",") if args.isas else [isa for isa in lowbit.isas() if isa != "scalar"]
    ms = {isa: measured_ms(models, threads=1, isa=isa, seconds=args.seconds) for isa in isas}
    rows = [
        {
            "name": name,
            "post_training": name in post_training,
            "top1": right_percent(model, x, y),
            "bytes": files[name].stat().st_size,
            "ms": {isa: round(ms[isa][name], 4) for isa in isas},
        }
        for name, model in models.items()
    ]
    (args.out / "points.json").write_text(json.dumps({"cpu": lowbit.cpu_name(), "rows": rows}, indent=1))
    print(lowbit.cpu_name(), "one thread, batch 1\n\n| network | top-1 | bytes |", *(f"ms {isa} |" for isa in isas))
    print("|---|---:|---:|" + "---:|" * len(isas))
    for row in rows:
        print(f"| {row['name']} | {row['top1']:.2f} % | {row['bytes']:,} |", *(f"{row['ms'][i]:.3f} |" for i in isas))
    if args.plot:
        plot(rows, isas[0], args.plot)


if __name__ == "__main__":
    main()
