"""Calibration by several processes that may die, as shards or on ray: the table of one machine, to the last count."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import lowbit

onnx = pytest.importorskip("onnx", reason='needs pip install "lowbit[onnx]"')
pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402


def net():
    """x -> Conv -> Relu -> y."""
    weight = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", c, 6, 6]) for n, c in (("x", 3), ("y", 4)))
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["conv"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "g", [x], [y], [numpy_helper.from_array(weight, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def batches(count=7):
    rng = np.random.default_rng(1)
    return [rng.standard_normal((2, 3, 6, 6)).astype(np.float32) for _ in range(count)]


# Shards ---------------------------------------------------------------------------------------------------------------


def shard(folder, i, dies_at=None):
    """A process that calibrates share i of 3 and saves its table, or is killed before its batch `dies_at`."""
    words = [sys.executable, __file__, str(folder), str(i), str(-1 if dies_at is None else dies_at)]
    return subprocess.Popen(words, env=os.environ | {"OMP_NUM_THREADS": "1"})


def main(folder, i, dies_at):
    def stream():
        for number, batch in enumerate(batches()):
            if number == dies_at:
                os.kill(os.getpid(), signal.SIGKILL)
            yield batch

    lowbit.calibrate(folder / "net.onnx", stream, shard=(i, 3)).save(folder / f"{i}.json")


def test_a_shard_that_dies_is_run_again_and_nothing_is_lost(tmp_path):
    onnx.save(net(), tmp_path / "net.onnx")
    first = [shard(tmp_path, 0), shard(tmp_path, 1, dies_at=4), shard(tmp_path, 2)]
    assert [process.wait(timeout=120) for process in first] == [0, -signal.SIGKILL, 0]
    assert sorted(f.name for f in tmp_path.glob("*.json")) == ["0.json", "2.json"]  # no half table
    assert not [f for f in tmp_path.iterdir() if f.name.startswith(".")]

    table = lowbit.CalibrationTable.load(tmp_path / "0.json")
    table.merge(lowbit.CalibrationTable.load(tmp_path / "2.json"))
    assert table.shards == [(0, 3), (2, 3)]  # it shows what is missing
    assert shard(tmp_path, 1).wait(timeout=120) == 0
    table.merge(lowbit.CalibrationTable.load(tmp_path / "1.json"))
    assert table.digest == lowbit.calibrate(tmp_path / "net.onnx", batches()).digest


# Ray ------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ray():
    found = pytest.importorskip("ray", reason='needs pip install "lowbit[ray]"')
    found.init(num_cpus=2, log_to_driver=False, include_dashboard=False)
    yield found
    found.shutdown()


def test_ray_gives_the_same_table(ray):
    calls = []
    whole = lowbit.calibrate(net(), batches(), method="entropy")
    table = lowbit.calibrate(net(), batches(), method="entropy", engine="ray", progress=lambda *a: calls.append(a))
    assert table.digest == whole.digest and table.samples == 14 and table.shards == []
    assert calls == [(1, 2), (2, 2)]
    assert lowbit.calibrate(net(), batches(1), engine="ray").digest == lowbit.calibrate(net(), batches(1)).digest


def test_every_worker_opens_batches_that_a_function_gives(ray, tmp_path):
    stored = batches()

    def stream():
        (tmp_path / str(os.getpid())).touch()
        yield from stored

    table = lowbit.calibrate(net(), stream, engine="ray")
    assert table.digest == lowbit.calibrate(net(), stored).digest
    workers = {int(f.name) for f in tmp_path.iterdir()}
    assert workers and os.getpid() not in workers
    one = lowbit.calibrate(net(), lambda: stored[:1], engine="ray")  # a share without batches is none
    assert one.digest == lowbit.calibrate(net(), stored[:1]).digest
    with pytest.raises(ValueError, match="no samples in the batches"):
        lowbit.calibrate(net(), lambda: [], engine="ray")


def test_a_worker_that_is_killed_loses_nothing(ray, tmp_path):
    stored, mark = batches(), tmp_path / "was killed"

    def stream():
        for number, batch in enumerate(stored):
            if number == 5 and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            yield batch

    table = lowbit.calibrate(net(), stream, engine="ray")
    assert mark.exists()
    assert table.digest == lowbit.calibrate(net(), stored).digest


def test_an_error_is_not_tried_again_and_names_the_tensor(ray, tmp_path):
    spoilt = batches()
    spoilt[3][0, 0, 0, 0] = np.nan

    def stream():
        (tmp_path / f"{len(list(tmp_path.iterdir()))}").touch()
        yield from spoilt

    with pytest.raises(ValueError, match="tensor 'x', batch 1"):  # the second batch of its share
        lowbit.calibrate(net(), stream, engine="ray")
    assert len(list(tmp_path.iterdir())) <= 2


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
