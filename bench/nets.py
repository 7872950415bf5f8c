"""Float nets as ONNX files and their int8 QDQ twins, made once into a cache folder (LOWBIT_BENCH_CACHE).

ResNet-18, ResNet-50 and the binary ResNet-18 have random weights: they are here for their shapes and times. The others
come from LOWBIT_DATA.
"""

import os
import pathlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

_HERE = pathlib.Path(__file__).resolve().parent
DATA = pathlib.Path(os.environ.get("LOWBIT_DATA", _HERE.parent.parent / "shared" / "data"))
CACHE = pathlib.Path(os.environ.get("LOWBIT_BENCH_CACHE", pathlib.Path.home() / ".cache" / "lowbit-bench"))


@dataclass(frozen=True)
class Net:
    """A net of the benchmark: a file of LOWBIT_DATA, or the blocks of a ResNet built here."""

    name: str
    size: int
    macs: int  # of convolutions and products, per image
    file: str | None = None
    blocks: tuple[int, ...] = ()
    bottleneck: bool = False
    twin: str | None = None  # the float net beside which a binary one is timed


NETS = {
    net.name: net
    for net in (
        Net("resnet18", 224, 1_814_073_344, blocks=(2, 2, 2, 2)),
        Net("bireal18", 224, 1_814_073_344, blocks=(4, 4, 4, 4), twin="resnet18"),
        Net("resnet50", 224, 4_089_184_256, blocks=(3, 4, 6, 3), bottleneck=True),
        Net("mobilenet_v2", 224, 300_774_272, file="mobilenet_v2_100.onnx"),
        Net("squeezenet1_1", 227, 387_747_520, file="squeezenet1_1.onnx"),
        Net("efficientnet_lite0", 224, 385_187_552, file="efficientnet_lite0.onnx"),
    )
}


def _resnet(net: Net):
    import torch
    from torch import nn

    def conv(i, o, k, stride=1, relu=True):
        layers = [nn.Conv2d(i, o, k, stride, k // 2, bias=False), nn.BatchNorm2d(o)]
        return nn.Sequential(*layers, nn.ReLU()) if relu else nn.Sequential(*layers)

    class Block(nn.Module):
        def __init__(self, i, width, stride):
            super().__init__()
            o = width * 4 if net.bottleneck else width
            if net.bottleneck:
                self.body = nn.Sequential(
                    conv(i, width, 1), conv(width, width, 3, stride), conv(width, o, 1, relu=False)
                )
            else:
                self.body = nn.Sequential(conv(i, width, 3, stride), conv(width, o, 3, relu=False))
            self.shortcut = conv(i, o, 1, stride, relu=False) if stride > 1 or i != o else nn.Identity()

        def forward(self, x):
            return torch.relu(self.body(x) + self.shortcut(x))

    torch.manual_seed(0)
    layers, channels = [conv(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)], 64
    for stage, count in enumerate(net.blocks):
        width = 64 << stage
        for i in range(count):
            layers.append(Block(channels, width, 2 if stage and not i else 1))
            channels = width * 4 if net.bottleneck else width
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000))
    for m in model.modules():  # keeps the activations of a random net near 1 through all blocks
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight)
    with torch.no_grad():
        model.train()
        model(torch.randn(8, 3, net.size, net.size))
    return model.eval()


def _bireal(net: Net):
    """Bi-Real Net: a binary 3x3 convolution in every shortcut's reach, real 1x1 where the shape changes."""
    import torch
    from torch import nn

    from lowbit.torch import BiRealBlock

    torch.manual_seed(0)
    layers, channels = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.MaxPool2d(3, 2, 1)], 64
    for stage, count in enumerate(net.blocks):
        width = 64 << stage
        for i in range(count):
            layers.append(BiRealBlock(channels, width, 2 if stage and not i else 1))
            channels = width
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000))
    with torch.no_grad():
        model.train()
        model(torch.randn(8, 3, net.size, net.size))
    return model.eval()


def _aside(path: pathlib.Path) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return pathlib.Path(tempfile.mkdtemp(dir=path.parent)) / path.name


def float_net(name: str) -> pathlib.Path:
    """The float ONNX file of a net."""
    net = NETS[name]
    if net.file:
        return DATA / net.file
    path = CACHE / f"{name}.onnx"
    if net.twin:
        from lowbit.torch.lowering import to_onnx

        if not path.exists():
            import torch

            part = _aside(path)
            part.write_bytes(to_onnx(_bireal(net), torch.zeros(1, 3, net.size, net.size)))
            part.replace(path)
            part.parent.rmdir()
    elif not path.exists():
        import torch

        part = _aside(path)
        torch.onnx.export(
            _resnet(net), (torch.zeros(1, 3, net.size, net.size),), part,
            input_names=["input"], output_names=["logits"],
            dynamic_axes={"input": {0: "batch"}, "logits": {0: "batch"}}, opset_version=13, dynamo=False,
        )  # fmt: skip
        part.replace(path)
        part.parent.rmdir()
    return path


def batches(name: str, count: int = 8) -> Iterator[np.ndarray]:
    """Random images of the net's input shape: enough for scales that make a timing run, not for accuracy."""
    rng = np.random.default_rng(0)
    size = NETS[name].size
    spread = 64.0 if name.startswith("squeezenet") else 1.0
    for _ in range(count):
        coarse = rng.standard_normal((1, 3, size // 16 + 1, size // 16 + 1)).repeat(16, 2).repeat(16, 3)
        yield ((coarse[:, :, :size, :size] + 0.2 * rng.standard_normal((1, 3, size, size))) * spread).astype(np.float32)


def qdq_net(name: str, activation: str = "u8") -> pathlib.Path:
    """The net quantized by onnxruntime's static QDQ, per channel, S8 weights; activations "u8" or "s8"."""
    path = CACHE / f"{name}.{activation}.qdq.onnx"
    if not path.exists():
        import onnx
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process

        class Reader(CalibrationDataReader):
            def __init__(self):
                graph = onnx.load(float_net(name), load_external_data=False).graph
                weights = {t.name for t in graph.initializer}
                self.key = next(i.name for i in graph.input if i.name not in weights)
                self.images = batches(name)

            def get_next(self):
                image = next(self.images, None)
                return None if image is None else {self.key: image}

        part = _aside(path)
        prepared = part.with_suffix(".prepared")
        quant_pre_process(float_net(name), prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared, part, Reader(), quant_format=QuantFormat.QDQ, per_channel=True, weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8 if activation == "u8" else QuantType.QInt8,
            extra_options={"ActivationSymmetric": activation == "s8"},
        )  # fmt: skip
        part.replace(path)
        prepared.unlink()
        part.parent.rmdir()
    return path
