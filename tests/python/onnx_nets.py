"""Small ONNX networks for tests, and how they are run through onnxruntime and through the reference of the plan."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from lowbit.graph.lower import lower
from lowbit.graph.recipe import parse_recipe
from lowbit.graph.source import build, float_names
from plan_reference import Reference

node = helper.make_node


def net(nodes, inputs, weights=None, outputs=("y",), opset=17, batch="N", domains=()):
    """A ModelProto; inputs: name -> shape without the batch."""
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [batch, *s]) for n, s in inputs.items()]
    initializers = [numpy_helper.from_array(np.asarray(a), n) for n, a in (weights or {}).items()]
    outs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs]
    graph = helper.make_graph(list(nodes), "test", infos, outs, initializers)
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def session(model):
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def run_onnx(model, feeds):
    s = session(model)
    return dict(zip([o.name for o in s.get_outputs()], s.run(None, feeds), strict=True))


def tap(model, feeds):
    """Every float tensor of the network by name."""
    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    have = {o.name for o in tapped.graph.output}
    inferred = onnx.shape_inference.infer_shapes(model)
    types = {v.name: v.type.tensor_type.elem_type for v in inferred.graph.value_info}
    for n in model.graph.node:
        for o in n.output:
            if o and o not in have and types.get(o, 1) == 1 and n.op_type != "Constant":
                tapped.graph.output.append(helper.make_empty_tensor_value_info(o))
    values = run_onnx(tapped, feeds)
    return {**{k: v for k, v in values.items() if v.dtype == np.float32}, **feeds}


def min_max(model, feeds):
    return {k: (float(v.min()), float(v.max())) for k, v in tap(model, feeds).items()}


def make_plan(model, recipe="float32", ranges=None, overrides=None, rounding=None, input_shapes=None):
    built = build(model, input_shapes)
    return lower(built, parse_recipe(recipe, rounding), ranges, overrides, rounding, float_names(model))


def run_plan(plan, feeds):
    return Reference(plan).run(feeds)


def sqnr(reference, y):
    noise = float(((reference.astype(np.float64) - y) ** 2).sum())
    return np.inf if noise == 0 else 10 * np.log10(float((reference.astype(np.float64) ** 2).sum()) / noise)
