"""``lowbit.search``: budgets in, the best assignment out."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lowbit.mixed_precision.assignments import Choices
from lowbit.mixed_precision.exact import BudgetError, Program, amount, exact
from lowbit.mixed_precision.latency import LatencyTable, measured_ms
from lowbit.mixed_precision.result import Point, SearchResult
from lowbit.mixed_precision.sampler import sample
from lowbit.mixed_precision.sensitivity import Evaluator, sensitivities
from lowbit.mixed_precision.space import METRICS, Space

__all__ = ["limits", "search"]

Budget = Mapping[str, float | str]
METHODS = ("exact", "optuna", "haq")
_UNITS = {
    "latency": {"us": 1e-3, "ms": 1.0, "s": 1e3},
    "size": {"b": 1.0, "kb": 1e3, "mb": 1e6},
    "energy": {"uj": 1.0, "mj": 1e3},
    "bops": {"k": 1e3, "m": 1e6, "g": 1e9},
}


def limits(space: Space, budget: Budget, reference: str = "float32") -> dict[str, float]:
    """Budgets as absolute numbers.

    Args:
        space: what the reference costs.
        budget: cost -> part of what the reference costs (a number), or text with a unit: ``"0.5 ms"``, ``"120 kB"``.
        reference: the uniform precision that parts refer to.

    Raises:
        ValueError: no budget, an unknown cost, or a budget that is no positive number.

    Example:
        >>> from importlib.resources import files
        >>> space = Space(str(files("lowbit.demo") / "fashion.onnx"), ["float32", "int8"])
        >>> limits(space, {"size": "20 kB", "bops": "1.5 G"})
        {'size': 20000.0, 'bops': 1500000000.0}
    """
    if not budget:
        raise ValueError(f"search: budget= is empty; give one of {', '.join(METRICS)}")
    out = {}
    for metric, given in budget.items():
        if metric not in METRICS:
            raise ValueError(f"search: budget for {metric!r}, which is not one of {', '.join(METRICS)}")
        text = str(given).strip()
        match = re.fullmatch(r"([0-9.eE+-]+)\s*([a-zA-Z]*)", text)
        try:
            value = float(match[1]) if match else float("nan")
        except ValueError:
            value = float("nan")
        unit = match[2].lower() if match else ""
        if not np.isfinite(value) or value <= 0 or (unit and unit not in _UNITS[metric]):
            known = ", ".join(_UNITS[metric])
            raise ValueError(f"search: budget {metric}={given!r} is neither a part (0.6) nor an amount ({known})")
        out[metric] = value * (_UNITS[metric][unit] if unit else space.reference_cost(reference, metric))
    return out


def search(
    net: Any,
    data: Any,
    budget: Budget,
    method: str = "exact",
    *,
    labels: Any = None,
    choices: Choices | None = None,
    table: LatencyTable | str | os.PathLike[str] | None = None,
    calibration: Any = None,
    metric: Any = None,
    reference: str = "float32",
    sensitivity: str | os.PathLike[str] | None = None,
    points: int = 6,
    trials: int = 100,
    sampler: str = "tpe",
    seed: int = 0,
    storage: str | None = None,
    study_name: str = "lowbit",
    checkpoint: str | os.PathLike[str] | None = None,
    evaluate: Callable[[dict[str, str]], float] | None = None,
    measure: bool = False,
    threads: int | None = None,
    batch: int = 1,
    seconds: float = 20.0,
    example: Any = None,
    input_shapes: Mapping[str, Sequence[int | None]] | None = None,
    progress: Callable[[str, int, int | None], None] | None = None,
) -> SearchResult:
    """Choose a precision for every layer so that budgets hold and the network suffers least.

    Args:
        net: path of an ONNX file, an ``onnx.ModelProto``, or a ``torch.nn.Module`` with ``example``.
        data: inputs (n, ...) float32, a tuple (inputs, labels), or a ``lowbit.Dataset``; best data that neither
            trained nor will test the network. A few hundred samples are enough.
        budget: cost -> its limit. A number is a part of what ``reference`` costs (``{"latency": 0.6}``), text an amount
            (``{"size": "120 kB", "latency": "0.5 ms"}``). Costs: ``latency``, ``size``, ``energy``, ``bops``.
        method: ``exact`` (an integer programme over sensitivities), ``optuna`` (every trial is run on the data; starts
            from the exact answer), or ``haq`` (a DDPG agent, PyTorch).
        labels: classes, where data has none; without any the float network's answers count as right.
        choices: recipes per layer, see ``Space``.
        table: a latency table or its file; measured first where latency is limited and none is given.
        calibration: a ``CalibrationTable``; by default made from the first 256 inputs.
        metric: the error that is minimised, see ``Evaluator``.
        reference: uniform precision that parts of a budget refer to.
        sensitivity: file that keeps what was measured of each layer, see ``sensitivities``.
        points: budgets beside the one asked for, spread over what can be reached, for the table and the plot.
        trials: of Optuna, or episodes of HAQ.
        sampler: of Optuna: ``tpe`` or ``nsga2``.
        seed: of Optuna or HAQ.
        storage: of Optuna: URL or journal file, so that several workers share a study.
        study_name: within the storage.
        checkpoint: of HAQ: file to go on from.
        evaluate: of HAQ: function of an assignment that gives an accuracy in percent (such as one with fine-tuning);
            by default the accuracy on data.
        measure: measure every point's latency too.
        threads: of the engine.
        batch: of the latency.
        seconds: for measuring a latency table.
        example: input that a torch module is exported with.
        input_shapes: for axes that the file leaves open.
        progress: called as ``progress(stage, done, total)``.

    Returns:
        SearchResult.

    Raises:
        BudgetError: budgets that cannot be met; says what can be reached.
        ValueError: an unknown method, cost or recipe, a layer that no precision fits, ...
        ImportError: where highspy or optuna (``lowbit[search]``) or PyTorch is missing.

    Example:
        >>> from importlib.resources import files
        >>> images = np.random.default_rng(0).random((8, 1, 28, 28), np.float32)
        >>> found = search(str(files("lowbit.demo") / "fashion.onnx"), images, {"size": 0.5},
        ...                choices=["float32", "int8"], points=0)
        >>> found.best.costs["size"] <= found.budgets["size"], found.optimal
        (True, True)
    """
    if method not in METHODS:
        raise ValueError(f"search: method {method!r} is not one of {', '.join(METHODS)}")
    if points < 0:
        raise ValueError(f"search: points {points}")
    inputs, classes = _samples(data, labels)
    space = Space(net, choices, example=example, input_shapes=input_shapes, progress=progress)
    if isinstance(table, str | os.PathLike):
        table = LatencyTable.load(table)
    if table is not None:
        space.attach(table)
    elif "latency" in budget or measure:
        table = space.measure(threads=threads, batch=batch, seconds=seconds, progress=progress)
    budgets = limits(space, budget, reference)
    evaluator = Evaluator(space, inputs, classes, calibration=calibration, metric=metric, threads=threads)
    errors = sensitivities(evaluator, sensitivity, progress)
    program = Program(space, tuple(budgets))
    solution = exact(space, errors, budgets, program=program)  # tells every method whether the budgets can be met
    found: dict[str, dict[str, str]] = {}
    optimal: bool | None = None
    if method == "exact":
        found["best"], optimal = solution.assignment, solution.optimal
    elif method == "optuna":
        best = sample(evaluator, budgets, trials=trials, sampler=sampler, seed=seed, storage=storage,
                      study_name=study_name, first=[solution.assignment], progress=progress)  # fmt: skip
        found = {"best" if i == 0 else f"front {i}": a for i, a in enumerate(best[: points + 1])}
    else:
        found["best"] = _haq(evaluator, budgets, evaluate, trials, seed, checkpoint, progress)
    for choice in dict.fromkeys(c for options in space.choices.values() for c in options):
        found[f"uniform {choice}"] = space.uniform(choice)
    for name, assignment in _spread(program, errors, budgets, points):
        found[name] = assignment
    judged: dict[tuple[str, ...], Point] = {}
    for done, (name, assignment) in enumerate(found.items()):
        key = tuple(assignment.values())
        if key not in judged:
            judged[key] = _point(evaluator, name, assignment)
        elif name.startswith("uniform"):
            judged[key].name += f" = {name}"
        if progress:
            progress("evaluating", done + 1, len(found))
    kept = list(judged.values())
    if measure:
        models = {p.name: evaluator.model(p.assignment) for p in kept}
        for p, ms in zip(kept, measured_ms(models, threads=threads, batch=batch).values(), strict=True):
            p.measured_ms = ms
    return SearchResult(kept[0], kept, budgets, method, space, table, errors, optimal)


def _samples(data: Any, labels: Any) -> tuple[Any, Any]:
    if hasattr(data, "batches"):
        inputs = np.concatenate(list(data.batches(32)))
        return inputs, data.labels if labels is None else labels
    if isinstance(data, tuple):
        if len(data) != 2:
            raise ValueError(f"search: data is a tuple of {len(data)}, not (inputs, labels)")
        return np.asarray(data[0]), data[1] if labels is None else labels
    return np.asarray(data), labels


def _point(evaluator: Evaluator, name: str, assignment: dict[str, str]) -> Point:
    space = evaluator.space
    metrics = [m for m in METRICS if m != "latency" or space.table is not None]
    accuracy, error = evaluator.judge(assignment)
    return Point(name, assignment, {m: space.cost(assignment, m) for m in metrics}, accuracy, error)


def _spread(program: Program, errors: Any, budgets: dict[str, float], points: int) -> list[tuple[str, dict[str, str]]]:
    """The exact answers for other limits of the first cost, from the smallest to what the most precise one takes."""
    if not points:
        return []
    space, metric = program.space, next(iter(budgets))
    smallest = program.smallest(metric, {}, 30.0)
    assert smallest is not None  # the budgets were met
    low = smallest[1]
    high = max(space.cost(space.uniform(c), metric) for c in dict.fromkeys(sum(space.choices.values(), ())))
    out = []
    for limit in np.geomspace(low, max(high, 1.01 * low), points + 2)[1:-1]:
        try:
            found = exact(space, errors, {metric: float(limit)}, program=program, seconds=20.0)
        except BudgetError:
            continue
        out.append((f"exact {metric} {amount(metric, float(limit))}", found.assignment))
    return out


def _haq(
    evaluator: Evaluator,
    budgets: dict[str, float],
    evaluate: Callable[[dict[str, str]], float] | None,
    episodes: int,
    seed: int,
    checkpoint: Any,
    progress: Callable[[str, int, int | None], None] | None,
) -> dict[str, str]:
    try:
        from lowbit.torch.haq import HaqSpace, haq_search
    except ImportError as error:
        raise ImportError('method="haq" needs PyTorch: pip install "lowbit[torch]"') from error
    if len(budgets) != 1:
        raise ValueError(f"search: HAQ takes one budget, not {', '.join(budgets)}")
    ((metric, budget),) = budgets.items()
    space = evaluator.space

    def report(done: int, total: int, _: float) -> None:
        if progress:
            progress("HAQ's episodes", done, total)

    judge = evaluate or evaluator.accuracy
    result = haq_search(
        HaqSpace.of(space, metric),
        judge,
        budget,
        original=judge(dict.fromkeys(space.choices, "float32")),
        episodes=episodes,
        seed=seed,
        checkpoint=None if checkpoint is None else Path(checkpoint),
        identity="" if evaluate else f"{space.sha256} {evaluator.digest}",
        progress=report,
    )
    return dict(result.assignment)
