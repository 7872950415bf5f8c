"""Optuna as a sampler over the same space: for objectives that are no sum over layers, and for many workers.

Every trial is an assignment; those within the budgets are run on the data. With a storage (a database's URL, or the
path of a journal file) any number of processes and machines work on one study; what a worker that dies had finished
stays.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from lowbit.mixed_precision.exact import BudgetError
from lowbit.mixed_precision.latency import Progress
from lowbit.mixed_precision.sensitivity import Evaluator

__all__ = ["sample"]

_OUT_OF_BUDGET = 1e9


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise ImportError('search by Optuna needs optuna: pip install "lowbit[search]"') from error
    return optuna


def sample(
    evaluator: Evaluator,
    budgets: Mapping[str, float],
    *,
    trials: int = 100,
    sampler: str = "tpe",
    seed: int = 0,
    storage: Any = None,
    study_name: str = "lowbit",
    first: Sequence[Mapping[str, str]] = (),
    progress: Progress | None = None,
) -> list[dict[str, str]]:
    """Search with Optuna: the smallest error within the budgets.

    Args:
        evaluator: space, data and metric.
        budgets: cost -> its largest value.
        trials: that this process adds to the study.
        sampler: ``tpe``: one objective, the error; ``nsga2``: error and the first budget's cost, a Pareto front.
        seed: of the sampler; each worker of a shared study should have its own.
        storage: URL such as ``sqlite:///study.db``, the path of a journal file, or an Optuna storage: studies that are
            kept and shared. In a database the trial of a worker that died is tried again, by another one.
        study_name: within the storage.
        first: assignments to try first, in a study that is new.
        progress: called as ``progress(stage, done, total)``.

    Returns:
        The assignments within the budgets, best first (``nsga2``: the front, smallest error first).

    Raises:
        BudgetError: no trial met the budgets.
        ValueError: the study is of another network, other choices or data.
        ImportError: where optuna is missing.

    Example:
        >>> from importlib.resources import files
        >>> import numpy as np
        >>> from lowbit.mixed_precision import Evaluator, Space
        >>> space = Space(str(files("lowbit.demo") / "fashion.onnx"), ["float32", "int8"])
        >>> evaluator = Evaluator(space, np.random.default_rng(0).random((4, 1, 28, 28), np.float32))
        >>> limit = 0.9 * space.cost(space.uniform("float32"), "size")
        >>> found = sample(evaluator, {"size": limit}, trials=4, first=[space.uniform("int8")])
        >>> space.cost(found[0], "size") <= limit
        True
    """
    optuna = _optuna()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = evaluator.space
    if sampler not in ("tpe", "nsga2"):
        raise ValueError(f"search: sampler {sampler!r} is neither tpe nor nsga2")
    if trials < 1:
        raise ValueError(f"search: {trials} trials")

    def excess(trial: Any) -> list[float]:
        return [float(v) for v in trial.user_attrs["excess"]]

    with warnings.catch_warnings():  # that arguments of samplers are experimental
        warnings.simplefilter("ignore")
        chosen = (
            optuna.samplers.TPESampler(seed=seed, constraints_func=excess, multivariate=True, n_startup_trials=10)
            if sampler == "tpe"
            else optuna.samplers.NSGAIISampler(seed=seed, constraints_func=excess, population_size=24)
        )
    directions = ["minimize"] * (1 if sampler == "tpe" else 2)
    study = optuna.create_study(
        storage=_storage(optuna, storage),
        study_name=study_name,
        load_if_exists=True,
        directions=directions,
        sampler=chosen,
    )
    about = {
        "net": space.sha256,
        "data": evaluator.digest,
        "metric": evaluator.metric,
        "choices": _listed(space.choices),
    }
    for key, value in about.items():
        if study.user_attrs.setdefault(key, value) != value:
            raise ValueError(f"search: study {study_name!r} is of another {key}; give another study_name or storage")
        study.set_user_attr(key, value)
    if not study.trials:
        for assignment in first:
            space.check(assignment)
            study.enqueue_trial(dict(assignment))
    metric = next(iter(budgets))

    def objective(trial: Any) -> Any:
        assignment = {name: trial.suggest_categorical(name, list(options)) for name, options in space.choices.items()}
        costs = {m: space.cost(assignment, m) for m in budgets}
        over = [costs[m] / budgets[m] - 1 - 1e-6 for m in budgets]
        trial.set_user_attr("excess", over)
        error = evaluator.error(assignment) if max(over) <= 0 else _OUT_OF_BUDGET * (1 + max(over))
        return error if sampler == "tpe" else (error, costs[metric])

    def report(_: Any, trial: Any) -> None:
        if progress:
            done[0] += 1
            progress("sampling", done[0], trials)

    done = [0]
    study.optimize(objective, n_trials=trials, callbacks=[report])
    finished = [t for t in study.trials if t.state == optuna.trial.TrialState.COMPLETE and max(excess(t)) <= 0]
    if not finished:
        least = min(max(excess(t)) for t in study.trials if "excess" in t.user_attrs)
        raise BudgetError(
            f"search: none of {len(study.trials)} trials met the budgets; the nearest is {100 * least:.0f} % over. "
            "The exact method says whether they can be met",
            {},
        )
    finished.sort(key=lambda t: tuple(t.values))
    if sampler == "nsga2":
        best, front = float("inf"), []
        for t in finished:
            if t.values[1] < best:
                best = t.values[1]
                front.append(t)
        finished = front
    out: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}
    for t in finished:
        out.setdefault(tuple(t.params.items()), dict(t.params))
    return list(out.values())


def _listed(choices: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{name}: {', '.join(options)}" for name, options in choices.items())


def _storage(optuna: Any, storage: Any) -> Any:
    if storage is None or not isinstance(storage, str):
        return storage
    if "://" in storage:
        return database(storage)
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(storage))


def database(url: str, heartbeat: int = 60) -> Any:
    """A database as Optuna's storage, with a heartbeat every so many seconds.

    The trial of a worker that was silent for two of them is queued again, up to three times, by the next that asks.
    """
    storages = _optuna().storages
    with warnings.catch_warnings():  # that heartbeats are experimental
        warnings.simplefilter("ignore")
        if hasattr(storages, "RetryHeartbeatStaleTrialCallback"):  # Optuna 4.9
            retry = {"heartbeat_stale_trial_callback": storages.RetryHeartbeatStaleTrialCallback(max_retry=3)}
        else:
            retry = {"failed_trial_callback": storages.RetryFailedTrialCallback(max_retry=3)}
        return storages.RDBStorage(url, heartbeat_interval=heartbeat, grace_period=2 * heartbeat, **retry)
