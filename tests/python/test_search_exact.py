"""The exact search against trying every assignment, and the sensitivities that it takes."""

import itertools
import json
import random

import numpy as np
import pytest

import lowbit
from lowbit.mixed_precision import BudgetError, Evaluator, Program, Space, exact, sensitivities
from search_nets import branches, made_up, residual

pytest.importorskip("highspy", reason="the exact search needs highspy")
CHOICES = ["float32", "int8", "codebook:3"]


def every(space):
    return [dict(zip(space.choices, options, strict=True)) for options in itertools.product(*space.choices.values())]


@pytest.mark.parametrize("net", [residual, branches], ids=lambda f: f.__name__)
@pytest.mark.parametrize("seed", range(2))
def test_exact_is_the_best_of_all(net, seed):
    space = Space(net(seed), CHOICES)
    space.attach(made_up(space, seed))
    rng = random.Random(seed)
    errors = {n: {c: 10 ** rng.uniform(-6, 0) for c in options} for n, options in space.choices.items()}
    everything = every(space)
    of = {m: np.array([space.cost(a, m) for a in everything]) for m in ("latency", "size", "energy", "bops")}
    error = np.array([sum(errors[n][c] for n, c in a.items()) for a in everything])
    checked = 0
    for metrics in (("latency",), ("size",), ("energy",), ("bops",), ("latency", "size")):
        program = Program(space, metrics)
        for part in (0.1, 0.3, 0.6, 1.0):
            budgets = {m: float(np.quantile(of[m], part)) for m in metrics}
            allowed = np.all([of[m] <= budgets[m] * (1 + 1e-9) for m in metrics], axis=0)
            if not allowed.any():
                continue
            found = exact(space, errors, budgets, program=program)
            assert found.optimal and found.error == pytest.approx(error[allowed].min(), rel=1e-6)
            assert found.bound <= found.error
            assert all(space.cost(found.assignment, m) <= budgets[m] * (1 + 1e-5) for m in metrics)
            checked += 1
        for m in metrics:
            assert program.smallest(m, {}, 10)[1] == pytest.approx(of[m].min(), rel=1e-6)
    assert checked >= 16


def test_budgets_out_of_reach_say_what_can_be_reached():
    space = Space(residual(), CHOICES)
    space.attach(made_up(space))
    errors = {n: dict.fromkeys(options, 0.5) for n, options in space.choices.items()}
    least = {m: min(space.cost(a, m) for a in every(space)) for m in ("latency", "size")}
    with pytest.raises(BudgetError, match=r"size 100 B cannot be met; the smallest is \d+ B") as caught:
        exact(space, errors, {"size": 100.0, "latency": 1e6})
    assert caught.value.smallest == {"size": least["size"]}
    with pytest.raises(BudgetError, match=r"cannot be met within .*; the smallest is") as caught:
        exact(space, errors, {m: 1.0001 * b for m, b in least.items()})
    assert list(caught.value.smallest) == ["latency"] and caught.value.smallest["latency"] > least["latency"]
    with pytest.raises(ValueError, match="a budget of -1"):
        exact(space, errors, {"size": -1})
    with pytest.raises(ValueError, match="error of layer 'a' in int8 is nan"):
        exact(space, {**errors, "a": {**errors["a"], "int8": float("nan")}}, {"size": 1e6})
    with pytest.raises(ValueError, match="not one of latency, size"):
        exact(space, errors, {"speed": 1.0})


def data(n=16):
    return np.random.default_rng(1).standard_normal((n, 3, 6, 6), np.float32)


def test_sensitivities_are_errors_of_one_layer_alone_and_kept_in_a_file(tmp_path):
    path = tmp_path / "s.json"
    evaluator = Evaluator(Space(residual(), ["float32", "codebook:2"]), data(), metric="noise", threads=1)
    first = sensitivities(evaluator, path)
    assert all(e["float32"] == 0 for e in first.values()) and min(e["codebook:2"] for e in first.values()) > 1e-4
    alone = evaluator.outputs({"stem": "float32", "a": "codebook:2", "b": "float32", "fc": "float32"})
    off = ((alone - evaluator.reference) ** 2).sum() / ((evaluator.reference - evaluator.reference.mean()) ** 2).sum()
    assert first["a"]["codebook:2"] == pytest.approx(off, rel=1e-4)

    more = Evaluator(Space(residual(), ["float32", "int8", "codebook:2"]), data(), metric="noise", threads=1)
    asked = []
    more.error = lambda a: asked.append(a) or 0.25
    second = sensitivities(more, path)
    assert len(asked) == 4 and all(set(a.values()) == {"float32", "int8"} for a in asked)  # only what is new
    assert second["a"] == {**first["a"], "int8": 0.25}
    assert sensitivities(more, path) == second and len(asked) == 4


def test_sensitivities_of_something_else_are_refused(tmp_path):
    path = tmp_path / "s.json"
    space = Space(residual(), ["float32", "codebook:2"])
    sensitivities(Evaluator(space, data(), threads=1), path)
    with pytest.raises(ValueError, match="of another data"):
        sensitivities(Evaluator(space, data(8), threads=1), path)
    with pytest.raises(ValueError, match="of another metric"):
        sensitivities(Evaluator(space, data(), metric="noise", threads=1), path)
    with pytest.raises(ValueError, match="of another net"):
        sensitivities(Evaluator(Space(residual(3), ["float32", "codebook:2"]), data(), threads=1), path)
    path.write_text(json.dumps({"format": "lowbit sensitivities"}))
    with pytest.raises(lowbit.FormatError, match="not a file of sensitivities"):
        sensitivities(Evaluator(space, data(), threads=1), path)


def test_evaluator_checks_its_data_and_judges():
    space = Space(residual(), ["float32", "int8"])
    with pytest.raises(ValueError, match="no data"):
        Evaluator(space, data(0))
    with pytest.raises(ValueError, match="16 inputs and 3 labels"):
        Evaluator(space, data(), np.zeros(3))
    with pytest.raises(ValueError, match="metric 'x'"):
        Evaluator(space, data(), metric="x")
    evaluator = Evaluator(space, data(), threads=1)
    assert evaluator.accuracy(space.uniform("float32")) == 100 and evaluator.error(space.uniform("float32")) == 0
    wrong = Evaluator(space, data(), (evaluator.labels + 1) % 5, threads=1)
    assert wrong.accuracy(space.uniform("float32")) == 0
    ranges = dict.fromkeys(space.onnx_names, (-4.0, 4.0))
    assert 0 < Evaluator(space, data(), calibration=ranges, threads=1).error(space.uniform("int8")) < 0.1
