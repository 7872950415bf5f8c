"""The authors' own Deep Compression file of SqueezeNet 1.0, read, run and kept as a .lowbit file.

    python examples/python/published_squeezenet.py ../shared/data/squeezenet1_0_deepcompression.net -o sq.lowbit
    (with --images ../shared/data/imagenet_sample500.zip to measure its accuracy)

The file (songhan/SqueezeNet-Deep-Compression, 675,763 bytes) has codebooks, codes and 4-bit gaps; the net is Iandola et
al. 2016 (arXiv 1602.07360), figure 2 without bypass, with a rectified last convolution.
"""

import argparse
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

import lowbit
from lowbit.compression import layer_sizes, read_published, size_table

PREPROCESSING = lowbit.Preprocessing(
    size=(227, 227), crop=0.875, interpolation="bilinear", channels="BGR", mean=(104.0, 117.0, 123.0), layout="NCHW"
)


def float_net(layers: dict[str, tuple[np.ndarray, np.ndarray]]) -> ModelProto:
    """SqueezeNet 1.0 as ONNX with the given weights (OIHW) and biases; pooling windows may hang over (Caffe's way)."""
    nodes, constants = [], []

    def node(op: str, inputs: list[str], output: str, **attributes: object) -> str:
        nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def convolution(x: str, name: str, **attributes: object) -> str:
        names = [f"{name}.weight", f"{name}.bias"]
        constants.extend(numpy_helper.from_array(array, n) for array, n in zip(layers[name], names, strict=True))
        return node("Relu", [node("Conv", [x, *names], name, **attributes)], f"{name}/relu")

    def pool(x: str, name: str) -> str:
        return node("MaxPool", [x], name, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)

    x = pool(convolution("data", "conv1", strides=[2, 2]), "pool1")
    for n in range(2, 10):
        squeezed = convolution(x, f"fire{n}/conv1x1_1")
        wide = [convolution(squeezed, f"fire{n}/conv1x1_2")]
        wide.append(convolution(squeezed, f"fire{n}/conv3x3_2", pads=[1, 1, 1, 1]))
        x = node("Concat", wide, f"fire{n}/concat", axis=1)
        if n in (4, 8):
            x = pool(x, f"pool{n}")
    x = convolution(x, "conv_final", pads=[1, 1, 1, 1])
    node("Flatten", [node("GlobalAveragePool", [x], "pool_final")], "logits")
    data = helper.make_tensor_value_info("data", TensorProto.FLOAT, ["n", 3, 227, 227])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 1000])
    graph = helper.make_graph(nodes, "squeezenet1_0", [data], [logits], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--images", help="labelled images to measure the accuracy on")
    parser.add_argument("-o", "--output", type=Path, help="the .lowbit file to write")
    args = parser.parse_args()

    published = read_published(args.file)
    kept = sum(coded.codes.size - coded.fillers for coded, _ in published.values())
    print(f"{args.file.stat().st_size} bytes, {sum(c.size for c, _ in published.values())} weights, {kept} not zero")
    net = float_net({name: (coded.weights(), bias) for name, (coded, bias) in published.items()})
    model = lowbit.compress(net, bits=8, preprocessing=PREPROCESSING)
    print(size_table(layer_sizes(model.plan)))
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        model.save(args.output)
        print(f"{args.output}: {args.output.stat().st_size} bytes")
        model = lowbit.load(args.output)
    if args.images:
        images = lowbit.Dataset(args.images, PREPROCESSING)
        answers = np.concatenate([model.run(x).argmax(1) for x in images.batches(20)])
        print(f"top-1: {100 * np.mean(answers == images.labels):.2f} % of {len(images)}")


if __name__ == "__main__":
    main()
