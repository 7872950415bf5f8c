"""Post-training weight sharing at 8 to 2 bits: size and accuracy of a network, as a table, JSON and a plot.

    python examples/python/compression_sweep.py squeezenet1_1.onnx imagenet_sample500.zip --size 227 --channels BGR
    (and --mean 103.939,116.779,123.68)

No training: each layer's weights are clustered, dense, and Huffman-coded. Accuracy is that of the float ONNX export of
each compressed net, whose weights are the codebook's; the engine agrees with it to float rounding.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime

import lowbit
from lowbit.compression import layer_sizes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("net", type=Path)
    parser.add_argument("images")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--channels", default="RGB")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--mean", default="0")
    parser.add_argument("--std", default="1")
    parser.add_argument("--bits", default="8,6,5,4,3,2")
    parser.add_argument("--init", default="linear,optimal")
    parser.add_argument("--to", type=Path, default=Path("build/sweep"))
    args = parser.parse_args()
    mean, std = (tuple(float(v) for v in text.split(",")) for text in (args.mean, args.std))
    expected = lowbit.Preprocessing(
        size=(args.size, args.size), crop=0.875, interpolation="bilinear", channels=args.channels, scale=args.scale,
        mean=mean, std=std, layout="NCHW",
    )  # fmt: skip
    data = lowbit.Dataset(args.images, expected)
    images = np.concatenate(list(data.batches(50)))

    def accuracy(net: bytes | str) -> float:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(net, options)
        name = session.get_inputs()[0].name
        answers = [session.run(None, {name: x})[0].argmax(1) for x in np.array_split(images, len(images) // 20)]
        return round(100 * float(np.mean(np.concatenate(answers) == data.labels)), 2)

    rows = [{"bits": 32, "init": "", "bytes": 0, "top1": accuracy(str(args.net))}]
    for bits in (int(b) for b in args.bits.split(",")):
        for init in args.init.split(","):
            model = lowbit.compress(str(args.net), bits=bits, init=init, preprocessing=expected)
            sizes = layer_sizes(model.plan)
            rows[0]["bytes"] = sum(s.float_bytes for s in sizes)
            with tempfile.TemporaryDirectory() as folder:
                model.export_onnx(f"{folder}/net.onnx", form="float")
                top1 = accuracy(f"{folder}/net.onnx")
            packed = sum(s.packed_bytes for s in sizes)
            rows.append(
                {"bits": bits, "init": init, "bytes": sum(s.bytes for s in sizes), "packed": packed, "top1": top1}
            )
            print(rows[-1], flush=True)
    args.to.mkdir(parents=True, exist_ok=True)
    (args.to / f"{args.net.stem}.json").write_text(json.dumps(rows, indent=1) + "\n")
    print(f"| bits | {' | '.join(args.init.split(','))} | MB | of float32 |\n|---|---:|---:|---:|---:|")
    for bits in dict.fromkeys(row["bits"] for row in rows):
        mine = [row for row in rows if row["bits"] == bits]
        size, top1 = mine[-1]["bytes"], [str(row["top1"]) for row in mine]
        top1 += top1 * (len(args.init.split(",")) - len(top1))  # float32 has one number
        print(f"| {bits} | {' | '.join(top1)} | {size / 1e6:.2f} | {100 * size / rows[0]['bytes']:.1f} % |")
    plot(rows, args.to / f"{args.net.stem}.png", args.net.stem)


def plot(rows: list[dict], path: Path, name: str) -> None:
    """Accuracy against size, one line per way to start k-means."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4))
    axes.axhline(rows[0]["top1"], color="0.6", linestyle="--", label=f"float32, {rows[0]['bytes'] / 1e6:.2f} MB")
    for init in dict.fromkeys(row["init"] for row in rows[1:]):
        mine = [row for row in rows if row["init"] == init]
        axes.plot([r["bytes"] / 1e6 for r in mine], [r["top1"] for r in mine], marker="o", label=f"k-means, {init}")
        for row in mine:
            axes.annotate(
                f"{row['bits']}", (row["bytes"] / 1e6, row["top1"]), textcoords="offset points", xytext=(4, -12)
            )
    axes.set(
        xlabel="MB (codebooks, Huffman-coded weights, biases)", ylabel="top-1, %", title=f"{name}: bits per weight"
    )
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
