"""What assignments cost: sums over sites against whole plans, and the latency table's file."""

import itertools
import json
import random

import pytest

import lowbit
from lowbit.compare import energy_pj
from lowbit.graph.summary import rows
from lowbit.mixed_precision import LatencyTable, Space, bits_of, latency_table
from lowbit.mixed_precision.latency import cover
from lowbit.mixed_precision.signature import COLD, signatures
from search_nets import branches, made_up, residual

CHOICES = ["float32", "int8", "codebook:3"]


@pytest.mark.parametrize("net", [residual, branches], ids=lambda f: f.__name__)
@pytest.mark.parametrize(
    "choices",
    [
        CHOICES,
        [*CHOICES, "int8-dynamic"],
        ["float32", "int8", "int:4/4", "int:2/8"],
        ["float32", "int8", "lq:2/2", "lq:1/2"],
    ],
    ids=str,
)
def test_costs_are_those_of_the_whole_plan_for_every_assignment(net, choices):
    space = Space(net(), choices)
    table = made_up(space)
    space.attach(table)
    everything = list(itertools.product(*space.choices.values()))
    assert len(everything) == len(choices) ** len(space.layers) or "lq:2/2" in choices  # not every input has levels
    for options in everything[:: 1 if len(choices) == 3 else 3]:
        assignment = dict(zip(space.choices, options, strict=True))
        plan = space.plan(assignment)
        assert space.cost(assignment, "latency") == pytest.approx(table.predict(plan), rel=1e-12)
        assert space.cost(assignment, "size") == sum(row.bytes for row in rows(plan))
        assert space.cost(assignment, "energy") == pytest.approx(sum(map(energy_pj, rows(plan))) / 1e6, rel=1e-12)
        bops = sum(m.macs * bits_of(assignment[m.name])[0] * bits_of(assignment[m.name])[1] for m in space.layers)
        assert space.cost(assignment, "bops") == bops
    assert len(space.probes) < len(everything) or len(everything) < 100


def test_layers_say_what_an_agent_wants_to_know():
    space = Space(residual(), CHOICES)
    assert [m.name for m in space.layers] == ["stem", "a", "b", "fc"]
    stem, fc = space.layers[0], space.layers[-1]
    assert (stem.op, stem.in_channels, stem.out_channels, stem.kernel, stem.in_size) == ("conv2d", 3, 4, (3, 3), (6, 6))
    assert stem.weights == 108 and stem.macs == 108 * 36 and not stem.depthwise and stem.choices == tuple(CHOICES)
    assert (fc.op, fc.kernel, fc.stride, fc.in_size, fc.macs) == ("gemm", (1, 1), (1, 1), (1, 1), 20)


def test_choices_by_pattern_and_what_cannot_apply():
    space = Space(residual(), {"stem|fc": ["int8"], "op:Conv": ["xnor", *CHOICES]})
    assert space.choices["stem"] == ("int8",) and space.choices["a"] == tuple(CHOICES)  # no +-1 activations: no xnor
    assert space.uniform("float32") == {"stem": "int8", "a": "float32", "b": "float32", "fc": "int8"}
    with pytest.raises(ValueError, match="none of xnor fits layer 'a'"):
        Space(residual(), {"a": ["xnor"], ".*": CHOICES})
    with pytest.raises(ValueError, match="pattern 'nothing' matches no"):
        Space(residual(), {"nothing": CHOICES})
    with pytest.raises(ValueError, match="no pattern matches layer 'b'"):
        Space(residual(), {"stem|a|fc": CHOICES})
    with pytest.raises(ValueError, match="must be a list"):
        Space(residual(), {".*": "int8"})
    with pytest.raises(ValueError, match="recipe 'int9'"):
        Space(residual(), ["int9"])


def test_assignments_are_checked():
    space = Space(residual(), CHOICES)
    good = space.uniform("int8")
    with pytest.raises(ValueError, match="layer 'a' is missing"):
        space.cost({k: v for k, v in good.items() if k != "a"}, "size")
    with pytest.raises(ValueError, match="'z' is not in the network"):
        space.cost({**good, "z": "int8"}, "size")
    with pytest.raises(ValueError, match="layer 'b' cannot have 'xnor'"):
        space.cost({**good, "b": "xnor"}, "size")
    with pytest.raises(ValueError, match="needs a latency table"):
        space.cost(good, "latency")
    with pytest.raises(ValueError, match="'speed' is not one of"):
        space.cost(good, "speed")
    with pytest.raises(ValueError, match="not one of the choices"):
        space.uniform("codebook:5")


def test_table_is_measured_saved_and_read_back(tmp_path):
    table = latency_table(residual(), CHOICES, threads=1, seconds=0.05)
    assert table.rows and all(row.ms >= 0 for row in table.rows.values()) and table.run_ms >= 0
    assert any(key.endswith(COLD) for key in table.rows)
    precisions = {(row.weights, row.activations) for row in table.rows.values() if row.op.startswith("conv2d")}
    assert {("float32", "float32"), ("codebook 3 bit", "float32"), ("int8 per channel", "uint8")} <= precisions
    assert {"quantize", "dequantize"} <= {row.op for row in table.rows.values()}
    table.save(tmp_path / "t.json")
    again = LatencyTable.load(tmp_path / "t.json")
    assert again == table and "quantize" in str(again)
    space = Space(residual(), CHOICES, table=again)
    model = lowbit.Model(space.plan(space.uniform("int8")))
    assert 0 < again.predict(model) == pytest.approx(space.cost(space.uniform("int8"), "latency"), rel=1e-12)


def test_table_of_another_machine_or_network_is_refused(tmp_path):
    space = Space(residual(), CHOICES)
    table = made_up(space)
    table.machine = {**table.machine, "cpu": "Z80"}
    table.save(tmp_path / "t.json")
    with pytest.raises(ValueError, match="another machine: cpu 'Z80' instead of"):
        LatencyTable.load(tmp_path / "t.json")
    assert LatencyTable.load(tmp_path / "t.json", force=True) == table
    with pytest.raises(ValueError, match=r"was not measured: .* \(lowbit latency\)"):
        Space(branches(), CHOICES, table=table)
    with pytest.raises(ValueError, match="was not measured"):
        table.predict(Space(branches(), CHOICES).plan({"a": "int8", "b": "int8", "c": "int8", "d": "int8"}))


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"format": "x"}', b"\xff", "version", "ms", "rows"])
def test_damaged_tables_are_format_errors(tmp_path, damage):
    path = tmp_path / "t.json"
    made_up(Space(residual(), ["float32", "int8"])).save(path)
    if isinstance(damage, bytes):
        path.write_bytes(damage)
    else:
        data = json.loads(path.read_text())
        if damage == "ms":
            data["rows"][0]["ms"] = float("nan")
        else:
            data[damage] = 7
        path.write_text(json.dumps(data))
    with pytest.raises(lowbit.FormatError, match="not a latency table"):
        LatencyTable.load(path)


def test_products_on_codes_are_cold_after_float():
    space = Space(residual(), ["float32", "int8"])
    cold = [
        k.endswith(COLD) for k in signatures(space.plan({"stem": "int8", "a": "float32", "b": "int8", "fc": "int8"}))
    ]
    assert sum(cold) == 1
    assert not any(k.endswith(COLD) for choice in CHOICES[:2] for k in signatures(space.plan(space.uniform(choice))))


def test_cover_takes_each_often_enough():
    sets = [set(random.Random(i).sample("abcdefgh", 3)) for i in range(20)]
    for times in (1, 3):
        chosen = cover(sets, times)
        for letter in set().union(*sets):
            there = sum(letter in s for s in sets)
            assert sum(letter in sets[i] for i in chosen) >= min(times, there)
