"""Constant folding: nodes whose inputs are all known are evaluated when the file is read, one operator at a time.

The batch is symbolic. In shape arithmetic it is the number ``BATCH_MARK``, a prime far above any real size, so that
Shape -> Gather -> Concat -> Reshape chains fold like everything else and the mark is found again in their result.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lowbit.graph.net import Array, UnsupportedError

BATCH_MARK = 1_000_003
_LARGEST = 1 << 28

# Never worth folding, or not a function of their inputs.
_NOT_CONSTANT = {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli"}


def evaluate(proto: Any, inputs: list[Array | None], opsets: dict[str, int]) -> list[Array]:
    """Outputs of one ONNX node on known inputs.

    Args:
        proto: the NodeProto.
        inputs: its inputs in order; None for an absent optional one.
        opsets: domain -> version.

    Raises:
        UnsupportedError: where onnx's reference evaluator has no answer, or the result would be huge.
    """
    import onnx
    from onnx.reference import ReferenceEvaluator

    where = f"node {proto.name or proto.output[0]!r}: {proto.op_type} of constants"
    if proto.op_type in _NOT_CONSTANT:
        raise UnsupportedError(f"{where} is random; export the network in evaluation mode")
    if proto.op_type == "ConstantOfShape" and inputs[0] is not None:
        size = int(np.prod(inputs[0].astype(np.float64)))
        if size > _LARGEST:
            raise UnsupportedError(f"{where} has {size} elements; a constant may not depend on the batch size")
    names = {n: a for n, a in zip(proto.input, inputs, strict=True) if n and a is not None}
    graph = onnx.helper.make_graph(
        [proto],
        "constant",
        [
            onnx.helper.make_tensor_value_info(n, onnx.helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
            for n, a in names.items()
        ],
        [onnx.helper.make_empty_tensor_value_info(n) for n in proto.output if n],
    )
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid(d, v) for d, v in opsets.items()], ir_version=10
    )
    try:
        results = ReferenceEvaluator(model).run(None, names)
    except Exception as error:  # the evaluator raises whatever it meets
        raise UnsupportedError(
            f"{where} cannot be folded: {error}; simplify the file (onnxsim) before converting"
        ) from error
    answers = iter(results)
    return [np.asarray(next(answers)) if n else np.zeros(0) for n in proto.output]
