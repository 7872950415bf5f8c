"""HAQ's agent on ResNet-20 under budgets of size or latency, beside the exact search at the same budgets.

    python examples/python/haq_cifar10.py cifar10.npz resnet20_cifar10.onnx --metric size --shares 0.375,0.45,0.5

Both judge an assignment by the same images, the first of those held out of training, on the engine; the test set sees
only what they chose. The published weights were trained on these images too (accuracy there: 100 %), so differences
count, not levels. Budgets are shares of what the most bits cost. One JSON line per budget and method goes to
results.jsonl, each point's network and recipe file (for `mixed_finetune.py`) beside it; searches resume.
"""

import argparse
import json
import re
import time
from pathlib import Path

import numpy as np

import lowbit
from lowbit.mixed_precision import Evaluator, LatencyTable, Space, exact, measured_ms, save_recipe, sensitivities
from lowbit.torch import HaqSettings, HaqSpace, haq_search
from resnet20 import cifar10

CHOICES = {"size": "int8," + ",".join(f"int:{w}/8" for w in range(2, 8)), "latency": "float32,int8,int:4/4"}


def space_of(net: Path, metric: str, choices: list[str], folder: Path) -> Space:
    """First and last layer keep 8 bits; the latency table is measured once and kept."""
    ends = [c for c in choices if c in ("float32", "int8")]
    space = Space(str(net), {"conv1|linear": ends, ".*": choices})
    file = folder / "latency.json"
    if metric == "latency" and file.exists():
        space.attach(LatencyTable.load(file))
    elif metric == "latency":
        space.measure(threads=1).save(file)
    return space


def figures(space: Space, evaluator: Evaluator, assignment: dict[str, str], x, y, file: Path) -> dict[str, object]:
    """What is known of an assignment: accuracies in percent, bytes, milliseconds. The network goes to the file."""
    model = evaluator.model(assignment)
    model.save(file)
    save_recipe(file.with_suffix(".json"), space.default, space.overrides(assignment))
    answers = np.concatenate([model.run(part) for part in np.array_split(x, 100)]).argmax(1)
    out = {
        "held_out": round(evaluator.accuracy(assignment), 2),
        "test": round(100 * float((answers == y).mean()), 2),
        "bytes": round(space.cost(assignment, "size")),
        "measured_ms": round(measured_ms({"": model}, threads=1)[""], 4),
        "assignment": assignment,
    }
    if space.table is not None:
        out["predicted_ms"] = round(space.cost(assignment, "latency"), 4)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("net", type=Path)
    parser.add_argument("--metric", choices=list(CHOICES), default="size")
    parser.add_argument("--shares", default="0.375,0.45,0.5")
    parser.add_argument("--choices", help="precisions with commas between")
    parser.add_argument("--episodes", type=int, default=160)
    parser.add_argument("--noise-decay", type=float, default=0.97, help="the paper's 0.99 is for 600 episodes")
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("build/reproductions/haq"))
    arguments = parser.parse_args()
    folder, metric = arguments.out, arguments.metric
    folder.mkdir(parents=True, exist_ok=True)
    space = space_of(arguments.net, metric, (arguments.choices or CHOICES[metric]).split(","), folder)
    data = cifar10(arguments.data)
    held_out = data.x_valid[: arguments.images].contiguous().numpy(), data.y_valid[: arguments.images].numpy()
    test = data.x_test.contiguous().numpy(), data.y_test.numpy()
    evaluator = Evaluator(space, *held_out)
    seen = HaqSpace.of(space, metric)
    original = evaluator.accuracy(dict.fromkeys(space.choices, "float32"))
    settings = HaqSettings(noise_decay=arguments.noise_decay)

    def report(name: str, share: float | None, assignment: dict[str, str], **more: object) -> None:
        row = {"name": name, "metric": metric, "share": share}
        file = folder / f"{re.sub('[ :/]', '-', name)}{f'-{metric}-{share}' if share else ''}.lowbit"
        row |= figures(space, evaluator, assignment, *test, file) | more | {"cpu": lowbit.cpu_name()}
        print(json.dumps({k: v for k, v in row.items() if k != "assignment"}), flush=True)
        with (folder / "results.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")

    for choice in space.choices[space.layers[1].name]:
        report(f"uniform {choice}", None, space.uniform(choice))
    started = time.perf_counter()
    errors = sensitivities(evaluator, folder / f"sensitivities_{metric}.json")
    print(f"sensitivities: {time.perf_counter() - started:.0f} s", flush=True)
    for share in map(float, arguments.shares.split(",")):
        budget = share * seen.cost(seen.most)
        solution = exact(space, errors, {metric: budget})
        report("exact", share, solution.assignment, budget=budget, error=solution.error)
        started = time.perf_counter()
        result = haq_search(
            seen,
            evaluator.accuracy,
            budget,
            original=original,
            episodes=arguments.episodes,
            seed=arguments.seed,
            settings=settings,
            checkpoint=folder / f"haq_{metric}_{share}.pt",
            identity=f"{space.sha256} {evaluator.digest}",
            progress=lambda done, total, best: (
                print(f"{done}/{total} {best:.2f}", flush=True) if not done % 20 else None
            ),
        )
        minutes = round((time.perf_counter() - started) / 60, 1)
        report(
            "haq",
            share,
            result.assignment,
            budget=budget,
            minutes=minutes,
            evaluations=result.evaluations,
            history=[[round(a, 2), round(c, 4)] for _, a, c, _ in result.history],
        )


if __name__ == "__main__":
    main()
