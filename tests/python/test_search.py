"""``lowbit.search``: budgets, methods, results, recipe files, and the commands."""

import json
import subprocess
import sys

import numpy as np
import pytest

import lowbit
from lowbit.cli import main
from lowbit.mixed_precision import (
    BudgetError,
    Evaluator,
    LatencyTable,
    Point,
    Space,
    limits,
    load_recipe,
    pareto,
    sample,
)
from search_nets import made_up, residual

pytest.importorskip("highspy", reason="the search needs highspy")
CHOICES = ["float32", "int8", "int:3/8", "codebook:2"]


def data(n=24):
    return np.random.default_rng(1).standard_normal((n, 3, 6, 6), np.float32)


def run(budget, method="exact", **options):
    options = {"choices": CHOICES, "threads": 1, "points": 2, **options}
    return lowbit.search(residual(), data(), budget, method, **options)


def test_exact_result_table_plot_and_recipe(tmp_path):
    found = run({"size": 0.24})
    float_size = found.space.cost(found.space.uniform("float32"), "size")
    assert found.budgets == {"size": pytest.approx(0.24 * float_size)}
    assert found.optimal and found.best.costs["size"] <= found.budgets["size"] and "latency" not in found.best.costs
    uniform = {p.name: p for p in found.points if p.name.startswith("uniform")}
    assert uniform["uniform float32"].accuracy == 100 and uniform["uniform float32"].error == 0
    assert found.best.error < uniform["uniform codebook:2"].error
    assert any(p.name.startswith("exact size") for p in found.points)
    text = str(found)
    assert "proved optimal" in text and "uniform int8" in text and "=>  best" in text
    found.plot(tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    found.save(tmp_path / "r.json")
    recipe = load_recipe(tmp_path / "r.json")
    ranges = dict.fromkeys(found.space.onnx_names, (-4.0, 4.0))
    model = lowbit.convert(residual(), **recipe, calibration=ranges)
    assert sum(row.bytes for row in model.layers()) == found.best.costs["size"]
    assert json.loads(json.dumps(found.to_dict()))["best"]["assignment"] == found.best.assignment


def test_latency_budget_takes_a_table(tmp_path):
    table = made_up(Space(residual(), CHOICES))
    table.save(tmp_path / "t.json")
    found = run({"latency": 0.8, "size": "1.5 kB"}, table=tmp_path / "t.json", measure=True)
    assert found.best.costs["latency"] <= found.budgets["latency"] and found.best.costs["size"] <= 1500
    assert found.table == table and all(p.measured_ms > 0 for p in found.points) and "measured" in str(found)
    found.plot(tmp_path / "p.svg")
    assert b"predicted latency" in (tmp_path / "p.svg").read_bytes() or (tmp_path / "p.svg").stat().st_size > 10_000


def test_budgets_are_parts_or_amounts():
    space = Space(residual(), CHOICES)
    whole = space.cost(space.uniform("float32"), "size")
    assert limits(space, {"size": 0.5}) == {"size": whole / 2} == limits(space, {"size": "0.5"})
    assert limits(space, {"size": "1.5kB", "bops": "2 M", "energy": "3 uJ"}) == {"size": 1500, "bops": 2e6, "energy": 3}
    half = limits(space, {"size": 0.5}, reference="int8")["size"]
    assert half == space.cost(space.uniform("int8"), "size") / 2
    for bad in ({}, {"speed": 1}, {"size": 0}, {"size": -1}, {"size": "nan"}, {"size": "5 ms"}, {"size": "many"}):
        with pytest.raises(ValueError, match="search: budget"):
            limits(space, bad)


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_optuna_keeps_the_budget_and_is_not_worse_than_where_it_began(sampler):
    pytest.importorskip("optuna")
    exact, found = run({"size": 0.3}), run({"size": 0.3}, "optuna", trials=12, sampler=sampler)
    assert found.best.costs["size"] <= found.budgets["size"] and found.best.error <= exact.best.error * (1 + 1e-9)


def test_optuna_studies_are_shared_and_refuse_other_data(tmp_path):
    optuna = pytest.importorskip("optuna")
    space = Space(residual(), ["float32", "codebook:2"])
    evaluator = Evaluator(space, data(), threads=1)
    limit = {"size": 0.6 * space.cost(space.uniform("float32"), "size")}
    for storage in (f"sqlite:///{tmp_path}/s.db", str(tmp_path / "s.journal")):
        first = [space.uniform("codebook:2")]
        sample(evaluator, limit, trials=3, storage=storage, first=first)
        best = sample(evaluator, limit, trials=3, storage=storage, first=first, seed=1)[0]
        again = sample(evaluator, limit, trials=1, storage=storage, seed=2)[0]
        assert evaluator.error(again) <= evaluator.error(best)
        with pytest.raises(ValueError, match="of another data"):
            sample(Evaluator(space, data(8), threads=1), limit, trials=1, storage=storage)
    names = optuna.load_study(study_name="lowbit", storage=f"sqlite:///{tmp_path}/s.db")
    assert len(names.trials) == 7
    with pytest.raises(BudgetError, match="none of 2 trials met the budgets"):
        sample(evaluator, {"size": 10.0}, trials=2)
    with pytest.raises(ValueError, match="sampler 'x'"):
        sample(evaluator, limit, sampler="x")


def test_wrong_arguments():
    with pytest.raises(ValueError, match="method 'magic'"):
        run({"size": 0.5}, "magic")
    with pytest.raises(BudgetError, match="size 1 B cannot be met; the smallest is"):
        run({"size": "1 B"})
    with pytest.raises(ValueError, match="tuple of 3"):
        lowbit.search(residual(), (1, 2, 3), {"size": 1})
    with pytest.raises(ValueError, match="no data"):
        lowbit.search(residual(), data(0), {"size": 1})


def test_haq_within_a_budget():
    pytest.importorskip("torch", reason="HAQ's agent needs torch")
    found = run({"size": 0.3}, "haq", trials=4, choices=["int:8/8", "int:4/8", "int:2/8"], points=0)
    assert found.best.costs["size"] <= found.budgets["size"] and found.method == "haq"


def test_pareto_front():
    made = [Point(str(i), {}, {"size": s}, acc, err) for i, (s, acc, err) in enumerate(
        [(3, 90, 0.1), (1, 80, 0.3), (2, 80, 0.2), (2, 85, 0.2), (4, 90, 0.2)])]  # fmt: skip
    assert [p.name for p in pareto(made, "size")] == ["1", "3", "0"]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": "lowbit recipe", "version": 1, "recipe": 3, "overrides": {}}']
)
def test_damaged_recipes_are_format_errors(tmp_path, text):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(lowbit.FormatError, match="not a recipe file"):
        load_recipe(tmp_path / "r.json")


def test_commands(tmp_path, capsys):
    import onnx

    onnx.save(residual(), tmp_path / "net.onnx")
    np.savez(tmp_path / "d.npz", x=data(), y=np.arange(24) % 5)
    net, table, recipe = (str(tmp_path / n) for n in ("net.onnx", "t.json", "r.json"))
    few = ["--choices", "float32,int8,codebook:2", "--threads", "1"]
    assert main(["latency", net, "-o", table, *few, "--seconds", "0.05", "--json"]) == 0
    out = json.loads(capsys.readouterr().out)
    assert out["file"] == table and out["rows"] == len(LatencyTable.load(table).rows)
    common = ["search", net, "--data", f"{tmp_path}/d.npz", "-o", recipe, "--points", "0", *few]
    assert main([*common, "--budget", "latency=3", "--budget", "size=0.5", "--table", table, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["optimal"] and set(found["budgets"]) == {"latency", "size"} and found["recipe_file"] == recipe
    plot = str(tmp_path / "p.png")
    assert main([*common, "--budget", "size=0.5", "--plot", plot, "--sensitivity", f"{tmp_path}/s.json"]) == 0
    assert "=>" in capsys.readouterr().out and (tmp_path / "p.png").exists() and (tmp_path / "s.json").exists()
    low = str(tmp_path / "net.lowbit")
    assert main(["convert", net, "-o", low, "--recipe", recipe, "--calib", f"{tmp_path}/d.npz", "--json"]) == 0
    capsys.readouterr()
    assert {r.layer: r.weights.split()[0] for r in lowbit.load(low).layers() if r.macs}
    assert main([*common, "--budget", "size=1B"]) == 1
    assert "cannot be met; the smallest is" in capsys.readouterr().err
    assert main([*common, "--budget", "half"]) == 2
    assert "'cost=limit'" in capsys.readouterr().err


def test_importing_lowbit_loads_neither_solver_nor_sampler():
    code = "import sys, lowbit; assert callable(lowbit.search); print({'highspy', 'optuna', 'onnx'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "set()"
