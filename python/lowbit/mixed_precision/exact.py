"""The best assignment within budgets, by integer programming: a multiple-choice knapsack with conversions.

    minimise    sum e[l, c] x[l, c]
    subject to  sum_c x[l, c] = 1                    every layer has one precision
                sum_s k[m, s] y[s] <= budget[m]      costs m over all sites, by their states
                sum_{s: l = c} y[s] = x[l, c]        a site's state agrees with its layer's precision
                sum_{s: n in g} y[s] = sum_{c in g} x[n, c]      and with its neighbours' classes
                x in {0, 1},  y >= 0                 (y is then 0 or 1 by itself)

Sites whose cost does not depend on their neighbours need no y. HiGHS (Huangfu and Hall 2018) solves it to optimality.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from lowbit.mixed_precision.sites import Site, State
from lowbit.mixed_precision.space import Space

__all__ = ["BudgetError", "Program", "Solution", "exact"]

Errors = Mapping[str, Mapping[str, float]]
_TOLERANCE = 1e-6  # of a budget, relative


class BudgetError(ValueError):
    """A budget that cannot be met; ``smallest`` has what can be reached.

    Example:
        >>> BudgetError("size cannot be 3", {"size": 7.0}).smallest
        {'size': 7.0}
    """

    def __init__(self, message: str, smallest: dict[str, float]) -> None:
        super().__init__(message)
        self.smallest = smallest


@dataclass(frozen=True)
class Solution:
    """What the solver found.

    Attributes:
        assignment: layer -> precision.
        error: sum of the layers' errors.
        bound: no assignment within the budgets has a smaller one.
        optimal: whether that was proved; False where the time ran out.
    """

    assignment: dict[str, str]
    error: float
    bound: float
    optimal: bool


def _highspy() -> Any:
    try:
        import highspy
    except ImportError as error:
        raise ImportError('the exact search needs highspy: pip install "lowbit[search]"') from error
    return highspy


@contextmanager
def _stdout_closed() -> Iterator[None]:
    """HiGHS prints its licence when the first solver is made; stdout is for results (``--json``)."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


class Program:
    """The integer programme of a space for some costs: what does not depend on errors or budgets is built once.

    Args:
        space: layers, choices and costs.
        metrics: the costs that budgets will limit.
    """

    def __init__(self, space: Space, metrics: tuple[str, ...]) -> None:
        self.space, self.metrics = space, metrics
        pairs = [(layer.name, choice) for layer in space.layers for choice in layer.choices]
        self.x = {pair: column for column, pair in enumerate(pairs)}
        self.columns = len(self.x)
        self.cost: dict[str, dict[int, float]] = {m: {} for m in metrics}
        self.equal: list[tuple[dict[int, float], float]] = [
            ({self.x[layer.name, c]: 1.0 for c in layer.choices}, 1.0) for layer in space.layers
        ]
        for site in space.sites:
            self._site(site)

    def _site(self, site: Site) -> None:
        space = self.space
        costs = {s: tuple(space.site_cost(site, s, m) for m in self.metrics) for s in space.states(site)}
        own = 1 if site.layer else 0
        near = [i for i in range(len(site.near)) if _matters(costs, own + i)]
        reduced = {_pick(s, own, near): c for s, c in costs.items()}
        if not near:
            for state, cost in reduced.items():
                # A tensor's cost that is the same for every assignment goes with each choice of the first layer.
                pairs = [(site.layer, state[0])] if site.layer else [p for p in self.x if p[0] == space.layers[0].name]
                for metric, value in zip(self.metrics, cost, strict=True):
                    for pair in pairs:
                        column = self.x[pair]
                        self.cost[metric][column] = self.cost[metric].get(column, 0.0) + value
            return
        y = {state: self.columns + i for i, state in enumerate(reduced)}
        self.columns += len(y)
        for state, cost in reduced.items():
            for metric, value in zip(self.metrics, cost, strict=True):
                self.cost[metric][y[state]] = value
        if site.layer:
            for c in space.choices[site.layer]:
                self._agree([y[s] for s in reduced if s[0] == c], [self.x[site.layer, c]])
        for place, i in enumerate(near):
            name, fine = site.near[i], site.fine[i]
            for group in dict.fromkeys(s[own + place] for s in reduced):
                columns = [self.x[name, c] for c in space.choices[name] if space.class_of(c, fine) == group]
                self._agree([y[s] for s in reduced if s[own + place] == group], columns)

    def _agree(self, states: list[int], choices: list[int]) -> None:
        self.equal.append(({**dict.fromkeys(states, 1.0), **dict.fromkeys(choices, -1.0)}, 0.0))

    def solve(
        self, objective: Mapping[int, float], budgets: Mapping[str, float], seconds: float
    ) -> tuple[dict[str, str], float, bool] | None:
        """Minimise an objective over columns; None where no assignment meets the budgets."""
        highspy = _highspy()
        rows = [(cost, b, b) for cost, b in self.equal]
        for metric, budget in budgets.items():
            limit = budget - self.space.fixed_cost(metric)
            size = max(abs(limit), 1e-12)
            cost = {column: value / size for column, value in self.cost[metric].items()}
            rows.append((cost, -highspy.kHighsInf, limit / size * (1 + _TOLERANCE) if limit > 0 else limit / size))
        largest = max((abs(v) for v in objective.values()), default=0.0) or 1.0
        lp = highspy.HighsLp()
        lp.num_col_, lp.num_row_ = self.columns, len(rows)
        lp.col_cost_ = np.array([objective.get(i, 0.0) / largest * 1e3 for i in range(self.columns)])
        lp.col_lower_, lp.col_upper_ = np.zeros(self.columns), np.ones(self.columns)
        lp.row_lower_, lp.row_upper_ = np.array([r[1] for r in rows]), np.array([r[2] for r in rows])
        lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        lp.a_matrix_.start_ = np.cumsum([0, *(len(r[0]) for r in rows)])
        lp.a_matrix_.index_ = np.array([i for r in rows for i in r[0]])
        lp.a_matrix_.value_ = np.array([v for r in rows for v in r[0].values()])
        whole, part = highspy.HighsVarType.kInteger, highspy.HighsVarType.kContinuous
        lp.integrality_ = [whole] * len(self.x) + [part] * (self.columns - len(self.x))
        with _stdout_closed():
            solver = highspy.Highs()
        for option, value in {
            "output_flag": False,
            "log_to_console": False,
            "threads": 1,
            "random_seed": 0,
            "mip_rel_gap": 0.0,
            "mip_abs_gap": 1e-9,
            "time_limit": float(seconds),
        }.items():
            solver.setOptionValue(option, value)
        solver.passModel(lp)
        solver.run()
        status = solver.getModelStatus()
        statuses = highspy.HighsModelStatus
        if status in (statuses.kInfeasible, statuses.kUnboundedOrInfeasible):
            return None
        info = solver.getInfo()
        if info.primal_solution_status != 2:  # feasible
            raise RuntimeError(
                f"search: the solver found nothing in {seconds:g} s ({solver.modelStatusToString(status)})"
            )
        values = np.asarray(solver.getSolution().col_value)
        chosen = {
            layer.name: max(layer.choices, key=lambda c, name=layer.name: values[self.x[name, c]])  # type: ignore[misc]
            for layer in self.space.layers
        }
        return chosen, float(info.mip_dual_bound) * largest / 1e3, status == statuses.kOptimal

    def smallest(
        self, metric: str, budgets: Mapping[str, float], seconds: float
    ) -> tuple[dict[str, str], float] | None:
        """The assignment with the smallest cost within the other budgets."""
        found = self.solve(self.cost[metric], budgets, seconds)
        return None if found is None else (found[0], self.space.cost(found[0], metric))


def _pick(state: State, own: int, near: list[int]) -> State:
    return (*state[:own], *(state[own + i] for i in near))


def _matters(costs: Mapping[State, tuple[float, ...]], place: int) -> bool:
    """Whether costs depend on one place of the state."""
    seen: dict[State, tuple[float, ...]] = {}
    return any(seen.setdefault((*s[:place], *s[place + 1 :]), cost) != cost for s, cost in costs.items())


def exact(
    space: Space, errors: Errors, budgets: Mapping[str, float], *, seconds: float = 60.0, program: Program | None = None
) -> Solution:
    """The assignment with the smallest sum of errors within all budgets.

    Args:
        space: layers, choices and costs; with a latency table where a budget limits latency.
        errors: layer -> precision -> error, as ``sensitivities`` gives it.
        budgets: cost (``latency`` in ms, ``size`` in bytes, ``energy`` in microjoules, ``bops``) -> its largest value.
        seconds: for the solver; when they are over the best so far is returned, with ``optimal`` False.
        program: what an earlier call for the same costs has built.

    Raises:
        BudgetError: no assignment meets the budgets; says the smallest value that one can.
        ValueError: an unknown cost, or an error that is missing, negative or no number.
        ImportError: where highspy is missing.

    Source: mixed precision as a knapsack: Chen et al. 2021 (arXiv 2110.06554), section 3.3; as an integer programme:
        Yao et al. 2021 (HAWQ-V3, arXiv 2011.10680), section 3.4.

    Example:
        >>> from importlib.resources import files
        >>> space = Space(str(files("lowbit.demo") / "fashion.onnx"), ["float32", "int8"])
        >>> errors = {name: {"float32": 0.0, "int8": 0.01} for name in space.choices}
        >>> found = exact(space, errors, {"size": 0.9 * space.cost(space.uniform("float32"), "size")})
        >>> found.optimal, sorted(found.assignment.values()).count("int8")
        (True, 1)
    """
    for layer in space.layers:
        for choice in layer.choices:
            error = errors.get(layer.name, {}).get(choice)
            if error is None or not np.isfinite(error) or error < 0:
                raise ValueError(f"search: the error of layer {layer.name!r} in {choice} is {error}")
    if program is None:
        program = Program(space, tuple(budgets))
    for metric, budget in budgets.items():
        if not np.isfinite(budget) or budget <= 0:
            raise ValueError(f"search: a budget of {budget} for {metric}")
    objective = {column: errors[name][choice] for (name, choice), column in program.x.items()}
    found = program.solve(objective, budgets, seconds)
    if found is None:
        raise _unreachable(program, budgets, seconds)
    assignment, bound, optimal = found
    total = sum(errors[name][choice] for name, choice in assignment.items())
    return Solution(assignment, total, min(bound, total), optimal)


def _unreachable(program: Program, budgets: Mapping[str, float], seconds: float) -> BudgetError:
    """Which budget fails alone; if none does, which fails given the others."""
    for others in ({}, budgets):
        for metric, budget in budgets.items():
            rest = {m: b for m, b in others.items() if m != metric}
            found = program.smallest(metric, rest, seconds)
            if found is not None and found[1] > budget:
                within = f" within {_said(rest)}" if rest else ""
                asked, least = _said({metric: budget}), amount(metric, found[1])
                return BudgetError(
                    f"search: {asked} cannot be met{within}; the smallest is {least}", {metric: found[1]}
                )
    return BudgetError(f"search: the budgets {_said(budgets)} cannot be met together", {})


def _said(budgets: Mapping[str, float]) -> str:
    return ", ".join(f"{metric} {amount(metric, value)}" for metric, value in budgets.items())


def amount(metric: str, value: float) -> str:
    """A cost for people.

    Example:
        >>> amount("latency", 0.51234), amount("size", 273_920), amount("bops", 2.5e9)
        ('0.512 ms', '273.9 kB', '2.5 G bit operations')
    """
    from lowbit.report import units

    if metric == "latency":
        return f"{units.milliseconds(value)} ms"
    if metric == "size":
        return units.size(value)
    return f"{value:.1f} uJ" if metric == "energy" else f"{units.quantity(value)} bit operations"
