"""Mixed precision on ResNet-20 and CIFAR-10: the exact search at three budgets of size and three of latency.

    python examples/python/mixed_cifar10.py cifar10.npz resnet20_cifar10.onnx

Everything is post-training. Held-out training images calibrate, give the sensitivities and choose between two measures
of error; the test set is used once for each point, at the end. Each point is compared with the line between the uniform
precisions on its two sides (those that no other beats). The latency table's prediction is checked on random
assignments. Tables and sensitivities are kept in the folder: a second run is quick.
"""

import argparse
import functools
import json
import random
from pathlib import Path

import numpy as np

import lowbit
from lowbit.mixed_precision import Evaluator, LatencyTable, Point, Space, exact, measured_ms, pareto, sensitivities
from resnet20 import cifar10

SIZE = ["int8", *(f"int:{w}/8" for w in range(2, 8)), *(f"codebook:{b}" for b in range(2, 6))]
LATENCY = ["float32", "int8"]


def uniform_line(points: list[Point], metric: str) -> list[Point]:
    """The uniform precisions that points are compared with: codebooks lie below the line of the evenly spaced ones."""
    return pareto([p for p in points if "codebook" not in p.name], metric)


def run(name: str, choices: list[str], shares: list[float], data, arguments) -> None:
    folder, out = arguments.out, arguments.out / f"{name}.json"
    space = Space(str(arguments.net), choices)
    table = folder / f"latency_{name}.json"
    if table.exists():
        space.attach(LatencyTable.load(table))
    else:
        space.measure(threads=1, seconds=arguments.seconds).save(table)
    assert space.table is not None
    print(f"{table.name}: {len(space.table.rows)} operations, {space.table.seconds} s", flush=True)
    held_out = [a[: arguments.images].contiguous().numpy() for a in (data.x_valid, data.y_valid)]
    judges = {m: Evaluator(space, *held_out, metric=m, threads=1) for m in ("divergence", "noise")}
    outputs = functools.cache(lambda pairs: Evaluator.outputs(judges["divergence"], dict(pairs)))
    for one in judges.values():  # both look at the same outputs
        one.outputs = lambda assignment: outputs(tuple(assignment.items()))  # type: ignore[method-assign]
    errors = {m: sensitivities(judge, folder / f"sensitivities_{name}_{m}.json") for m, judge in judges.items()}
    judge = judges["divergence"]

    test = Evaluator(space, data.x_test.contiguous().numpy(), data.y_test.numpy(), calibration=judge.ranges, threads=1)
    points = []

    def add(label: str, assignment: dict[str, str]) -> Point:
        costs = {m: space.cost(assignment, m) for m in ("size", "latency", "energy", "bops")}
        points.append(Point(label, assignment, costs, *test.judge(assignment)))
        print(f"{label}: {points[-1].accuracy:.2f} % {costs['size']:.0f} B, {costs['latency']:.4f} ms", flush=True)
        return points[-1]

    for choice in choices:
        add(f"uniform {choice}", space.uniform(choice))
    line = uniform_line(points, name)
    low, high = line[0].costs[name], line[-1].costs[name]
    rows = []
    for share in shares:
        budget = low + share * (high - low)
        answers = [exact(space, errors[m], {name: budget}).assignment for m in judges]
        chosen = min(answers, key=lambda a: (-judge.judge(a)[0], judge.judge(a)[1]))
        found = add(f"searched {name} {100 * share:.0f} %", chosen)
        cost = found.costs[name]
        below = max((p for p in line if p.costs[name] <= cost * 1.0001), key=lambda p: p.costs[name], default=line[0])
        above = min((p for p in line if p.costs[name] >= cost * 0.9999), key=lambda p: p.costs[name], default=line[-1])
        span = above.costs[name] - below.costs[name]
        part = (cost - below.costs[name]) / span if span > 0 else 0.0
        between = below.accuracy + part * (above.accuracy - below.accuracy)
        rows.append({"budget": budget, "point": found.name, "accuracy": found.accuracy, "line": round(between, 2),
                     "neighbours": [below.name, above.name], "held_out": judge.accuracy(chosen)})  # fmt: skip
        print(json.dumps(rows[-1]), flush=True)
    rng = random.Random(0)
    checked = {f"random {i}": space.random(rng) for i in range(12)} | {p.name: p.assignment for p in points}
    models = {label: lowbit.Model(space.plan(a, judge.ranges)) for label, a in checked.items()}
    ms = measured_ms(models, threads=1, seconds=arguments.seconds / 20)
    off = {label: space.cost(a, "latency") / ms[label] - 1 for label, a in checked.items()}
    for point in points:
        point.measured_ms = ms[point.name]
    worst = [abs(v) for v in off.values()]
    print(
        f"prediction: median {100 * np.median(worst):.1f} %, largest {100 * max(worst):.1f} % off, of {len(off)} nets"
    )
    made = {"machine": space.table.machine, "points": [vars(p) for p in points], "rows": rows, "off": off}
    out.write_text(json.dumps(made, indent=1))


def plot(folder: Path, path: Path) -> None:
    """Both searches: accuracy against the cost that was limited."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.8), layout="constrained")
    for ax, (name, unit, text) in zip(
        figure.subplots(1, 2), [("size", 1e-3, "kB"), ("latency", 1e3, "us, predicted")], strict=True
    ):
        points = [Point(**p) for p in json.loads((folder / f"{name}.json").read_text())["points"]]
        uniform, searched = ([p for p in points if p.name.startswith(k)] for k in ("uniform", "searched"))
        line = uniform_line(uniform, name)
        ax.plot([unit * p.costs[name] for p in line], [p.accuracy for p in line], "-", lw=1, color="0.6")
        ax.plot([unit * p.costs[name] for p in uniform], [p.accuracy for p in uniform], "s", ms=5, label="uniform")
        ax.plot([unit * p.costs[name] for p in searched], [p.accuracy for p in searched], "*", ms=12, label="searched")
        for p in uniform:
            at = (unit * p.costs[name], p.accuracy)
            ax.annotate(p.name.removeprefix("uniform "), at, xytext=(4, -9), textcoords="offset points", fontsize=7)
        ax.set(xlabel=f"{name} in {text}", ylabel="test accuracy in %")
        ax.set_ylim(max(min(p.accuracy for p in points) - 1, 70), max(p.accuracy for p in points) + 1)
        ax.legend(loc="lower right")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("net", type=Path)
    parser.add_argument("--only", choices=["size", "latency"])
    parser.add_argument("--images", type=int, default=512, help="held-out images")
    parser.add_argument("--seconds", type=float, default=20.0, help="for a latency table")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--out", type=Path, default=Path("build/reproductions/mixed"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    data = cifar10(arguments.data)
    if arguments.only != "latency":
        run("size", SIZE, [0.2, 0.35, 0.5], data, arguments)
    if arguments.only != "size":
        run("latency", LATENCY, [0.2, 0.4, 0.6], data, arguments)
    if arguments.plot:
        plot(arguments.out, arguments.plot)


if __name__ == "__main__":
    main()
