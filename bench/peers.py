"""The peers as callables without arguments, so that bench/timing.py can run them beside ours.

Every function takes a thread count and returns {label: call}. What is not installed is left out.
"""

from collections.abc import Callable
from importlib.util import find_spec

import numpy as np

import nets

Calls = dict[str, Callable[[], object]]


def _session(model, threads: int):
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _onnxruntime(model, feed: dict[str, np.ndarray], threads: int) -> Callable[[], object]:
    import onnxruntime as ort

    session = _session(model, threads)
    binding = session.io_binding()
    held = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in feed.items()}
    for name, value in held.items():
        binding.bind_ortvalue_input(name, value)
    for output in session.get_outputs():
        binding.bind_output(output.name)
    session.run_with_iobinding(binding)
    binding.bind_ortvalue_output(session.get_outputs()[0].name, binding.get_outputs()[0])  # its memory is used again

    def call(run=session._sess.run_with_iobinding, bound=binding._iobinding):
        run(bound, None)

    call.held = (session, binding, held)
    return call


def _openvino(path, x: np.ndarray, threads: int, precision: str | None) -> Callable[[], object]:
    import openvino as ov

    core = ov.Core()
    config = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": threads}
    if precision:
        config["INFERENCE_PRECISION_HINT"] = precision
    model = core.read_model(str(path))
    model.reshape({model.inputs[0]: list(x.shape)})
    request = core.compile_model(model, "CPU", config).create_infer_request()
    request.set_input_tensor(ov.Tensor(x, shared_memory=True))
    return lambda: request.infer({}, share_outputs=True)


def gemm(m: int, n: int, k: int, threads: int, rng: np.random.Generator) -> tuple[Calls, Calls]:
    """INT8 products of an (m, k) activation and a constant (k, n) weight, and the float32 ones."""
    a = rng.integers(-127, 128, (m, k), np.int8)
    b = rng.integers(-127, 128, (k, n), np.int8)
    low: Calls = {}
    full: Calls = {}
    if find_spec("torch"):
        import torch

        torch.set_num_threads(threads)
        ta, tb = torch.from_numpy(a), torch.from_numpy(b)
        tbt = tb.t().contiguous().t()
        out = torch.empty(m, n, dtype=torch.int32)
        fa, fb, fout = ta.float(), tb.float(), torch.empty(m, n)
        low["torch._int_mm"] = lambda: torch._int_mm(ta, tb, out=out)
        low["torch._int_mm (b.T)"] = lambda: torch._int_mm(ta, tbt, out=out)
        qlinear = _onednn_qlinear(ta, tb)
        if qlinear:
            low["oneDNN qlinear"] = qlinear
        full["torch fp32"] = lambda: torch.mm(fa, fb, out=fout)
    if find_spec("onnxruntime"):
        import onnx
        from onnx import TensorProto, helper

        for label, kind, feed in (("onnxruntime u8s8", TensorProto.UINT8, (a.view(np.uint8) ^ 0x80)),):
            node = helper.make_node("MatMulInteger", ["a", "b"], ["y"])
            graph = helper.make_graph(
                [node],
                "g",
                [helper.make_tensor_value_info("a", kind, [m, k])],
                [helper.make_tensor_value_info("y", TensorProto.INT32, [m, n])],
                [onnx.numpy_helper.from_array(b, "b")],
            )
            model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
            low[label] = _onnxruntime(model.SerializeToString(), {"a": feed}, threads)
    return low, full


def _onednn_qlinear(a, b) -> Callable[[], object] | None:
    import torch

    try:
        ops = torch.ops.onednn
        packed = ops.qlinear_prepack(b.t().contiguous(), list(a.shape))
        n = b.shape[1]
        x = (a.int() + 128).to(torch.uint8)
        scales, zeros = torch.full((n,), 1e-3), torch.zeros(n, dtype=torch.int64)

        def call():
            return ops.qlinear_pointwise(
                x, 1.0, 128, packed, scales, zeros, None, 1.0, 0, torch.float32, "none", [], ""
            )

        call()
    except (RuntimeError, AttributeError, TypeError):
        return None
    return call


def codebook_gemm(
    m: int, n: int, k: int, bits: int, mode: str, threads: int, rng: np.random.Generator
) -> tuple[Calls, Calls]:
    """float32 (m, k) times (n, k) weights of a few bits, uniform levels in blocks of 32; and dense float32.

    onnxruntime's MatMulNBits computes in int8 at accuracy_level 4 and in float32 at 0.
    """
    low: Calls = {}
    full: Calls = {}
    x = rng.standard_normal((m, k), np.float32)
    if find_spec("torch"):
        import torch

        torch.set_num_threads(threads)
        fx, fw, out = torch.from_numpy(x), torch.randn(n, k), torch.empty(m, n)
        full["torch fp32"] = lambda: torch.mm(fx, fw.t(), out=out)
    if find_spec("onnxruntime"):
        import onnx
        from onnx import TensorProto, helper

        blocks, level = k // 32, 4 if mode == "int8" else 0
        node = helper.make_node(
            "MatMulNBits", ["x", "w", "scale"], ["y"], domain="com.microsoft", K=k, N=n, bits=bits, block_size=32,
            accuracy_level=level,
        )  # fmt: skip
        graph = helper.make_graph(
            [node], "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [m, k])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [m, n])],
            [
                onnx.numpy_helper.from_array(rng.integers(0, 256, (n, blocks, 4 * bits), np.uint8), "w"),
                onnx.numpy_helper.from_array(np.full(n * blocks, 0.01, np.float32), "scale"),
            ],
        )  # fmt: skip
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        low[f"onnxruntime MatMulNBits, level {level}"] = _onnxruntime(model.SerializeToString(), {"x": x}, threads)
    return low, full


def fill(count: int, dtype: str) -> Calls:
    """A pure store loop."""
    out = np.empty(count, dtype)
    return {"numpy fill": lambda: out.fill(1)}


def conv(h: int, c: int, oc: int, kernel: int, threads: int, rng: np.random.Generator) -> tuple[Calls, Calls]:
    """A same-padded stride-1 NHWC convolution, batch 1: int8 and float32."""
    low: Calls = {}
    full: Calls = {}
    if find_spec("torch"):
        import torch

        torch.set_num_threads(threads)
        x = torch.randn(1, c, h, h).contiguous(memory_format=torch.channels_last)
        w = torch.randn(oc, c, kernel, kernel)
        full["torch fp32 NHWC"] = _onednn_conv(x, w, kernel // 2)
        low_call = _onednn_qconv(h, c, oc, kernel, rng)
        if low_call:
            low["oneDNN qconv"] = low_call
    if find_spec("onnxruntime"):
        import onnx
        from onnx import TensorProto, helper

        w8 = rng.integers(-127, 128, (oc, c, kernel, kernel), np.int8)
        scale = {name: np.float32(value) for name, value in (("sx", 0.02), ("sy", 1.0))}
        weights = [onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in scale.items()]
        weights += [
            onnx.numpy_helper.from_array(np.asarray(128, np.uint8), "zero"),
            onnx.numpy_helper.from_array(w8, "w"),
            onnx.numpy_helper.from_array(np.full(oc, 0.01, np.float32), "sw"),
            onnx.numpy_helper.from_array(np.zeros(oc, np.int8), "zw"),
        ]
        node = helper.make_node(
            "QLinearConv", ["x", "sx", "zero", "w", "sw", "zw", "sy", "zero"], ["y"], pads=[kernel // 2] * 4,
        )  # fmt: skip
        graph = helper.make_graph(
            [node], "g",
            [helper.make_tensor_value_info("x", TensorProto.UINT8, [1, c, h, h])],
            [helper.make_tensor_value_info("y", TensorProto.UINT8, [1, oc, h, h])],
            weights,
        )  # fmt: skip
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        low["onnxruntime QLinearConv"] = _onnxruntime(
            model.SerializeToString(), {"x": rng.integers(0, 256, (1, c, h, h), np.uint8)}, threads
        )
    return low, full


def _onednn_conv(x, w, padding: int) -> Callable[[], object]:
    import torch
    from torch.utils import mkldnn as mkldnn_utils  # noqa: F401  registers the prepacked convolution

    packed = torch.ops.mkldnn._reorder_convolution_weight(w, [padding] * 2, [1, 1], [1, 1], 1, list(x.shape))
    return lambda: torch.ops.mkldnn._convolution_pointwise(
        x, packed, None, [padding] * 2, [1, 1], [1, 1], 1, "none", [], ""
    )


def _onednn_qconv(h: int, c: int, oc: int, kernel: int, rng: np.random.Generator) -> Callable[[], object] | None:
    import torch

    try:
        ops = torch.ops.onednn
        p = [kernel // 2] * 2
        x = torch.from_numpy(rng.integers(0, 256, (1, c, h, h), np.uint8)).contiguous(memory_format=torch.channels_last)
        w = torch.from_numpy(rng.integers(-127, 128, (oc, c, kernel, kernel), np.int8))
        scales, zeros = torch.full((oc,), 0.01), torch.zeros(oc, dtype=torch.int64)
        packed = ops.qconv_prepack(w, scales, 0.02, 128, [1, 1], p, [1, 1], 1, list(x.shape))

        def call():
            return ops.qconv_pointwise(
                x, 0.02, 128, packed, scales, zeros, None, [1, 1], p, [1, 1], 1, 1.0, 128, torch.uint8, "none", [], ""
            )

        call()
    except (RuntimeError, AttributeError, TypeError):
        return None
    return call


def net(name: str, threads: int) -> tuple[Calls, Calls]:
    """A whole net at batch 1: int8 (one QDQ file for all) and float32."""
    low: Calls = {}
    full: Calls = {}
    name = nets.NETS[name].twin or name  # no peer has a binary net: its float and 8-bit twins
    x = next(nets.batches(name, 1))
    if find_spec("onnxruntime"):
        key = _session(str(nets.float_net(name)), 1).get_inputs()[0].name
        full["onnxruntime fp32"] = _onnxruntime(str(nets.float_net(name)), {key: x}, threads)
        low["onnxruntime int8"] = _onnxruntime(str(nets.qdq_net(name)), {key: x}, threads)
    if find_spec("openvino"):
        full["openvino fp32"] = _openvino(nets.float_net(name), x, threads, "f32")
        low["openvino int8"] = _openvino(nets.qdq_net(name), x, threads, None)  # bfloat16 between, where AMX has it
    return low, full
