"""LQ layers through lowbit.convert: the engine's outputs beside the module's in eval mode.

Sums of products agree to float32's rounding; a value within that rounding of an interval's end may take the
neighbouring level, which these few values never do.
"""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="lowbit.torch needs torch")

from torch import nn  # noqa: E402

import lowbit  # noqa: E402
import lowbit.torch as lt  # noqa: E402


def check(module, x, recipe, rtol=1e-5):
    with torch.no_grad():
        for _ in range(3):
            module.train()(x + 0.1 * torch.randn_like(x))  # the bases and norms settle
        wanted = module.eval()(x).numpy()
    model = lowbit.convert(module, example=x, recipe=recipe)
    np.testing.assert_allclose(model.run(x.numpy()), wanted, rtol=rtol, atol=rtol * np.abs(wanted).max())
    return [op["op"] for op in model.plan.ops]


def images(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("w_bits", "a_bits"), [(1, 1), (1, 2), (2, 2), (3, 2), (3, 3), (4, 4)])
def test_one_layer(w_bits, a_bits):
    torch.manual_seed(2)
    bits = {"w_bits": w_bits, "a_bits": a_bits}
    x = images(3, 32, 9, 9)
    assert "conv2d_bitserial" in check(lt.LQConv2d(32, 32, 3, 2, 1, **bits), x, "lq")
    assert "gemm_bitserial" in check(lt.LQLinear(70, 33, **bits), images(5, 70), "lq")


def residual_net():
    torch.manual_seed(3)

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(32, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32)
            self.conv2, self.bn2 = nn.Conv2d(32, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32)

        def forward(self, x):
            y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
            return (y + x).relu()

    net = nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), Block(), Block(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(32 * 9, 10),
    )  # fmt: skip
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.normal_(m.weight)  # scales of both signs
            nn.init.normal_(m.bias)
    return lt.swap(net, {r"\d\.conv\d": "lq:2/2"})


def test_a_residual_net():
    ops = check(residual_net(), images(4, 3, 8, 8), "lq", rtol=1e-4)
    assert ops.count("conv2d_bitserial") == 4


def test_weights_alone_run_in_float():
    torch.manual_seed(4)
    ops = check(lt.LQConv2d(3, 8, 3, w_bits=2, a_bits=32), images(2, 3, 6, 6), "float32")
    assert [op for op in ops if op != "transpose"] == ["conv2d_f32"]
