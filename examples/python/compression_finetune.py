"""SqueezeNet 1.1 with its codebooks fine-tuned by distillation from the float net, at 8 to 2 bits: size and top-1.

    python examples/python/compression_finetune.py squeezenet1_1.onnx imagenet_sample500.zip --bits 8,6,5,4,3,2
    python examples/python/compression_finetune.py ... --bits 4,3,2 --reassign --epochs 8
    python examples/python/compression_finetune.py ... --report

Every second image trains (250, without their labels); the others only evaluate: neither split sees the other's classes.
Assignments stay as k-means made them, and only codebooks and biases learn (Deep Compression, section 3.3); with
--reassign weights may also change their entry. Each net leaves a checkpoint under --to and is not trained again;
--report converts them all, runs them on the engine, and writes a table, JSON and a plot.
"""

import argparse
import copy
import json
import time
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

import lowbit
import lowbit.torch as lt

MEAN = (103.939, 116.779, 123.68)
TRAIN, TEST = slice(None, None, 2), slice(1, None, 2)
WINDOW = 163  # pixels a side of what trains: half the work of 227


class OnnxNet(nn.Module):
    """The few operators of SqueezeNet, run as the file has them; its convolutions are ``nn.Conv2d``."""

    def __init__(self, path: Path):
        super().__init__()
        graph = onnx.load(path).graph
        arrays = {i.name: torch.from_numpy(numpy_helper.to_array(i).copy()) for i in graph.initializer}
        self.nodes, self.end = [], graph.output[0].name
        self.start = graph.input[0].name
        self.convolutions = nn.ModuleDict()
        for node in graph.node:
            attrs = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            name = node.output[0].replace("/", "_")
            if node.op_type == "Conv":
                weight, bias = (arrays[i] for i in node.input[1:])
                made = nn.Conv2d(
                    weight.shape[1], weight.shape[0], weight.shape[2:], attrs.get("strides", (1, 1)),
                    tuple(attrs.get("pads", (0, 0))[:2]),
                )  # fmt: skip
                made.weight, made.bias = nn.Parameter(weight), nn.Parameter(bias)
                self.convolutions[name] = made
            self.nodes.append((node.op_type, name, list(node.input), node.output[0], attrs))

    def forward(self, x: Tensor, kept: list[Tensor] | None = None) -> Tensor:
        """Logits; ``kept`` receives the output of every fire module."""
        values = {self.start: x}
        for op, name, inputs, output, attrs in self.nodes:
            x = values[inputs[0]]
            if op == "Conv":
                x = self.convolutions[name](x)
            elif op == "Relu":
                x = F.relu(x)
            elif op == "MaxPool":
                x = F.max_pool2d(x, attrs["kernel_shape"], attrs["strides"], ceil_mode=bool(attrs.get("ceil_mode", 0)))
            elif op == "Concat":
                x = torch.cat([values[i] for i in inputs], 1)
                if kept is not None:
                    kept.append(x)
            elif op == "GlobalAveragePool":
                x = x.mean((2, 3), keepdim=True)
            elif op == "Flatten":
                x = x.flatten(1)
            else:
                raise ValueError(f"{name}: operator {op} is not one of SqueezeNet's")
            values[output] = x
        return values[self.end]


def images(source: str, rows: slice, size: int, crop: float) -> tuple[Tensor, Tensor]:
    """Network inputs (n, 3, size, size) and labels."""
    expected = lowbit.Preprocessing(
        size=(size, size), crop=crop, interpolation="bilinear", channels="BGR", scale=1.0, mean=MEAN, std=(1, 1, 1),
        layout="NCHW",
    )  # fmt: skip
    data = lowbit.Dataset(source, expected, rows=rows)
    return torch.from_numpy(np.concatenate(list(data.batches(50)))), torch.from_numpy(data.labels)


def augmented(x: Tensor) -> Tensor:
    """A random window of each image, half of them mirrored."""
    spare = x.shape[-1] - WINDOW + 1
    out = torch.empty(len(x), 3, WINDOW, WINDOW).to(memory_format=torch.channels_last)
    for i, (dy, dx, flip) in enumerate(
        zip(*(torch.randint(0, n, (len(x),)).tolist() for n in (spare, spare, 2)), strict=False)
    ):
        window = x[i, :, dy : dy + WINDOW, dx : dx + WINDOW]
        out[i] = window.flip(2) if flip else window
    return out


def distill(student: nn.Module, teacher: nn.Module, x: Tensor, epochs: int, batch: int, rate: float) -> list[float]:
    """Adam on codebooks and biases, in steps that are a share of the layer's weights."""
    groups = []
    for module in student.modules():
        if isinstance(module, lt.CodebookWeight):
            groups.append({"params": [module.codebook], "lr": rate * module.shared.detach().std().item()})
            if module.latent is not None:
                groups.append({"params": [module.latent], "lr": groups[-1]["lr"] / 10})
            groups.append({"params": [module.bias], "lr": rate * module.bias.detach().std().item()})
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99))
    steps = epochs * (len(x) // batch)
    rates = [group["lr"] for group in groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=steps, pct_start=0.15)
    losses: list[float] = []
    for _ in range(epochs):
        total = 0.0
        for rows in torch.randperm(len(x))[: len(x) // batch * batch].split(batch):
            seen = augmented(x[rows])
            theirs: list[Tensor] = []
            ours: list[Tensor] = []
            with torch.autocast("cpu", torch.bfloat16):
                with torch.no_grad():
                    wanted = teacher(seen, theirs)
                got = student(seen, ours)
            answers = F.kl_div(F.log_softmax(got.float(), 1), F.softmax(wanted.float(), 1), reduction="batchmean")
            inside = sum(
                ((a - b).float().square().mean() / b.float().square().mean())
                for a, b in zip(ours, theirs, strict=False)
            )
            loss = answers + inside / len(ours)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * batch / len(x)
        losses.append(round(total, 4))
    return losses


@torch.inference_mode()
def logits(net: nn.Module, x: Tensor) -> Tensor:
    """In float32."""
    return torch.cat([net(part.to(memory_format=torch.channels_last)) for part in x.split(25)])


def train(args: argparse.Namespace, teacher: OnnxNet) -> None:
    """The nets that have no checkpoint yet."""
    x = images(args.images, TRAIN, 256, 1.0)[0]
    for bits in (int(b) for b in args.bits.split(",")):
        torch.manual_seed(bits)
        path = args.to / f"{bits}-{'reassigned' if args.reassign else 'fixed'}.pt"
        if path.exists():
            continue
        start = time.perf_counter()
        student = copy.deepcopy(teacher)
        options = {"bits": bits, "init": "optimal", "reassign": args.reassign}
        lt.swap(student, {"op:Conv2d": {"layer": "codebook", **options}})
        losses = distill(student, teacher, x, args.epochs, args.batch, args.rate)
        print(path.stem, losses, f"{time.perf_counter() - start:.0f} s", flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(lt.unshared(student).state_dict(), path)


def report(args: argparse.Namespace, teacher: OnnxNet) -> None:
    """Every net on the engine, from its .lowbit file."""
    splits = {"train": images(args.images, TRAIN, 227, 0.875), "test": images(args.images, TEST, 227, 0.875)}
    wanted = {name: logits(teacher, x).argmax(1) for name, (x, _) in splits.items()}
    options = {"example": splits["test"][0][:1], "init": "optimal"}

    def measured(model: lowbit.Model) -> dict[str, float]:
        model.save(args.to / "net.lowbit")
        model = lowbit.load(args.to / "net.lowbit")
        row = {}
        for name, (x, labels) in splits.items():
            answers = torch.cat([torch.from_numpy(model.run(part.numpy())).argmax(1) for part in x.split(10)])
            row[f"{name}_top1"] = round(100 * (answers == labels).float().mean().item(), 1)
            row[f"{name}_agree"] = round(100 * (answers == wanted[name]).float().mean().item(), 1)
        return row

    rows = [{"bits": 32, "form": "float", "bytes": 4 * sum(p.numel() for p in teacher.parameters())}]
    rows[0] |= measured(lowbit.convert(teacher, recipe="float32", example=options["example"]))
    for bits in (8, 6, 5, 4, 3, 2):
        for form in ("k-means", "fixed", "reassigned"):
            path, net = args.to / f"{bits}-{form}.pt", copy.deepcopy(teacher)
            if form != "k-means" and not path.exists():
                continue
            if form != "k-means":
                net.load_state_dict(torch.load(path, weights_only=True))
            model = lowbit.compress(net, bits=bits, **options)
            size = sum(s.bytes for s in lowbit.compression.layer_sizes(model.plan))
            rows.append({"bits": bits, "form": form, "bytes": size} | measured(model))
            print(rows[-1], flush=True)
    (args.to / "finetune.json").write_text(json.dumps(rows, indent=1) + "\n")
    head = ["bits", "form", "bytes", "test_top1", "test_agree", "train_top1", "train_agree"]
    print("\n".join("| " + " | ".join(str(row[key]) for key in head) + " |" for row in rows))
    plot(rows, args.to / "finetune.png")


def plot(rows: list[dict], path: Path) -> None:
    """Agreement with float against size, on the images that trained nothing."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4))
    names = {
        "k-means": "post-training",
        "fixed": "codebooks fine-tuned",
        "reassigned": "codebooks and codes fine-tuned",
    }
    for form, name in names.items():
        mine = [row for row in rows if row["form"] == form]
        axes.plot([r["bytes"] / 1e6 for r in mine], [r["test_top1"] for r in mine], marker="o", label=name)
        for row in mine:
            at = (row["bytes"] / 1e6, row["test_top1"])
            axes.annotate(f"{row['bits']}", at, textcoords="offset points", xytext=(4, -12))
    label = f"float32, {rows[0]['bytes'] / 1e6:.2f} MB"
    axes.axhline(rows[0]["test_top1"], color="0.6", linestyle="--", label=label)
    axes.set(xlabel="MB (codebooks, Huffman-coded weights, biases)", ylabel="top-1, %, 250 images that trained nothing")
    axes.set_title("SqueezeNet 1.1: bits per weight")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("net", type=Path)
    parser.add_argument("images")
    parser.add_argument("--bits", default="8,6,5,4,3,2")
    parser.add_argument("--reassign", action="store_true", help="weights may change their entry of the codebook")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch", type=int, default=25)
    parser.add_argument("--rate", type=float, default=0.01)
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--to", type=Path, default=Path("build/finetune"))
    args = parser.parse_args()
    teacher = OnnxNet(args.net).eval().to(memory_format=torch.channels_last)
    (report if args.report else train)(args, teacher)


if __name__ == "__main__":
    main()
