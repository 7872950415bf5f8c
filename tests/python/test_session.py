"""Sessions: what run() accepts, batches, threads, kept tensors, times."""

import threading

import numpy as np
import pytest

from lowbit import _core
from tiny_nets import Net


def two_in_two_out() -> Net:
    net = Net()
    a, b = net.input("float32", (2, 3)), net.input("uint8", (4,))
    y = net.op("unary", [a], net.tensor("float32", (2, 3)), kind="relu")
    z = net.op("lookup", [b], net.tensor("float32", (4,)), {"table": np.arange(256, dtype=np.float32)})
    return net.outputs(y, z)


def session(**options) -> _core.Session:
    return _core.Session(_core.Model.from_bytes(two_in_two_out().bytes()), **options)


A, B = np.ones((2, 2, 3), np.float32), np.zeros((2, 4), np.uint8)


@pytest.mark.parametrize(
    "inputs, error, message",
    [
        ({"t0": A}, ValueError, "'t1'"),
        ({"t0": A, "t1": B, "t9": B}, ValueError, "'t9'"),
        ({"t0": A, "x": B}, ValueError, "'x'"),
        ({"t0": A.astype(np.float64), "t1": B}, TypeError, "'t0' is float64, but must be float32"),
        ({"t0": A, "t1": B.astype(np.int8)}, TypeError, "'t1' is int8, but must be uint8"),
        ({"t0": A.tolist(), "t1": B}, TypeError, "'t0' must be a NumPy array, not list"),
        ({"t0": A[0], "t1": B}, ValueError, r"'t0' has shape \(2, 3\), but must have \(-1, 2, 3\)"),
        ({"t0": A, "t1": B[:, :3]}, ValueError, r"'t1' has shape \(2, 3\), but must have \(-1, 4\)"),
        ({"t0": A, "t1": B[:1]}, ValueError, r"'t1' has shape \(1, 4\), but must have \(2, 4\)"),
    ],
)
def test_wrong_inputs_name_the_tensor_and_both_shapes(inputs, error, message):
    with pytest.raises(error, match=message):
        session().run(inputs)


def test_views_are_made_dense_and_inputs_stay_as_they_are():
    a = np.random.default_rng(0).normal(size=(3, 2, 4)).astype(np.float32).transpose(1, 0, 2)[:, ::2, ::2]
    a = np.concatenate([a, a], axis=1)[:, ::2, :]
    a = np.lib.stride_tricks.as_strided(np.arange(24, dtype=np.float32) - 9, (2, 2, 3), (48, 24, 8))
    before = a.copy()
    out = session().run({"t0": a, "t1": B})
    np.testing.assert_array_equal(out["t2"], np.maximum(before, 0))
    np.testing.assert_array_equal(a, before)


def test_many_batch_sizes_in_any_order():
    s = session()
    rng = np.random.default_rng(0)
    for batch in [1, 7, 2, 0, 13, 1, 3, 4, 5, 6, 8, 9, 10, 7, 1]:
        a = rng.normal(size=(batch, 2, 3)).astype(np.float32)
        b = rng.integers(0, 256, (batch, 4)).astype(np.uint8)
        out = s.run({"t0": a, "t1": b})
        np.testing.assert_array_equal(out["t2"], np.maximum(a, 0))
        np.testing.assert_array_equal(out["t3"], b.astype(np.float32))


def test_options_are_checked():
    for options in ({"threads": -1}, {"threads": 10**6}, {"isa": "sse9"}):
        with pytest.raises(ValueError):
            session(**options)


def test_kept_tensors_need_keep_tensors_and_a_run():
    with pytest.raises(ValueError, match="keep_tensors"):
        session().tensor(0)
    s = session(keep_tensors=True)
    with pytest.raises(ValueError, match="no finished run"):
        s.tensor(0)
    s.run({"t0": A, "t1": B})
    np.testing.assert_array_equal(s.tensor(0), A)
    for index in (-1, 4):
        with pytest.raises(ValueError, match=str(index)):
            s.tensor_codes(index)


def test_profile_times_every_op():
    s = session(profile=True)
    assert s.op_ms() == [0.0, 0.0]
    s.run({"t0": A, "t1": B})
    assert len(s.op_ms()) == 2 and all(ms >= 0 for ms in s.op_ms()) and sum(s.op_ms()) > 0


def conv_net() -> Net:
    net = Net()
    x = net.input("float32", (3, 20, 20))
    t = net.op("quantize", [x], net.tensor("int8", (20, 20, 3), 0.05, 0), nchw_to_nhwc=True)
    c = 3
    for _ in range(6):
        y = net.tensor("int8", (20, 20, 16), 0.1, 0)
        t, c = net.op("conv2d", [t], y, net.weights(16, 3, 3, c), pads=[1, 1, 1, 1]), 16
    t = net.op("average_pool", [t], net.tensor("int8", (1, 1, 16), 0.1, 0), kernel=[20, 20])
    return net.outputs(net.op("dequantize", [t], net.tensor("float32", (1, 1, 16))))


def test_memory_is_reused():
    model = _core.Model.from_bytes(conv_net().bytes())
    lean, kept = _core.Session(model), _core.Session(model, keep_tensors=True)
    layer = 20 * 20 * 16
    for batch in (1, 3):
        assert lean.memory_bytes(batch) <= batch * 2 * layer + 4096
        assert kept.memory_bytes(batch) >= batch * 6 * layer
    assert lean.memory_bytes(0) == 0
    with pytest.raises(ValueError):
        lean.memory_bytes(-1)
    with pytest.raises(ValueError, match="too large"):
        lean.memory_bytes(2**61)


def test_several_sessions_and_one_shared_session_in_several_threads():
    net = conv_net()
    model = _core.Model.from_bytes(net.bytes())
    inputs = [net.random_inputs(b) for b in (1, 2, 3, 4)]
    expected = [net.reference(x)[0] for x in inputs]
    name = next(iter(expected[0]))
    shared = _core.Session(model, threads=2)
    wrong: list[int] = []

    def work(i: int) -> None:
        own = _core.Session(model, threads=2)
        for _ in range(20):
            for s in (own, shared):
                if not np.array_equal(s.run(inputs[i])[name], expected[i][name]):
                    wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong
