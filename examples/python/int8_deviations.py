"""Plots what int8_cifar10.py logged: each layer's gradient deviation over the steps, and the rates' factors.

python examples/python/int8_deviations.py build/reproductions/int8-train-int8-5-1.deviations.jsonl deviations.png
"""

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot


def main() -> None:
    """One line per layer, early layers dark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", type=Path)
    parser.add_argument("to", type=Path)
    args = parser.parse_args()
    rows = [json.loads(line) for line in args.log.read_text().splitlines()]
    steps, layers = [row["step"] for row in rows], list(rows[0]["layers"])
    figure, (top, bottom) = pyplot.subplots(2, 1, figsize=(7, 5), sharex=True, layout="constrained")
    for k, name in enumerate(layers):
        color = pyplot.colormaps["viridis"](k / max(len(layers) - 1, 1))
        label = name if k in (0, len(layers) - 1) else None
        top.plot(steps, [row["layers"][name][0] for row in rows], color=color, label=label)
        bottom.plot(steps, [row["layers"][name][1] for row in rows], color=color)
    top.set(yscale="log", ylabel="deviation 1 - cos(g, quantized g)")
    top.legend(frameon=False)
    bottom.set(xlabel="step", ylabel="factor on the learning rate")
    figure.savefig(args.to, dpi=110)


if __name__ == "__main__":
    main()
