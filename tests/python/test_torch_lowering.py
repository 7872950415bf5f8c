"""torch modules through lowbit.convert: the engine's outputs beside the module's in eval mode."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import lowbit  # noqa: E402
from lowbit.torch import (  # noqa: E402
    BinaryConnectConv2d,
    BinaryConnectLinear,
    BinaryConv2d,
    BinaryLinear,
    BiRealBlock,
    LearnedSign,
    ShiftBatchNorm,
    TernaryConv2d,
    XnorBlock,
    XnorConv2d,
    XnorLinear,
)
from lowbit.torch.lowering import frozen  # noqa: E402


def lively(module):
    """Random statistics and parameters of the norms, so that thresholds and signs of gamma matter."""
    for m in module.modules():
        if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d):
            m.running_mean.normal_(0, 3)
            m.running_var.uniform_(0.5, 2)
            if m.affine:
                nn.init.normal_(m.weight)
                nn.init.normal_(m.bias)
        if isinstance(m, ShiftBatchNorm):
            m.running_mean.normal_(0, 3)
            m.running_inverse.uniform_(0.1, 2)
            nn.init.normal_(m.bias)
        if isinstance(m, LearnedSign):
            nn.init.normal_(m.threshold)
    return module.eval()


def convert(module, x, **options):
    return lowbit.convert(module, example=x, **options)


def check(module, x, recipe="xnor", rtol=1e-5):
    torch.manual_seed(5)
    lively(module)
    with torch.no_grad():
        wanted = module(x).numpy()
    model = convert(module, x, recipe=recipe)
    np.testing.assert_allclose(model.run(x.numpy()), wanted, rtol=rtol, atol=rtol * np.abs(wanted).max())
    return [op["op"] for op in model.plan.ops], model


IMAGES = torch.randn(4, 3, 10, 10, generator=torch.Generator().manual_seed(1))
ROWS = torch.randn(7, 20, generator=torch.Generator().manual_seed(2))


def test_binary_mlp_stays_in_bits():
    layers = [BinaryConnectLinear(20, 64), nn.BatchNorm1d(64), BinaryLinear(64, 100), ShiftBatchNorm(100)]
    ops, model = check(nn.Sequential(*layers, BinaryLinear(100, 10), nn.BatchNorm1d(10)), ROWS)
    assert ops == ["gemm_f32", "binarize", "xnor_gemm", "xnor_gemm"]
    assert [r.layer for r in model.layers() if r.op == "xnor_gemm"] == ["2", "4"]
    assert model.plan.tensors["2.weight"].nbytes == 64 * 100 // 8


@pytest.mark.parametrize("pad_value", [-1, 0, 1])
def test_convolutions_pools_and_padding(pad_value: int):
    module = nn.Sequential(
        nn.Conv2d(3, 40, 3, padding=1),
        nn.BatchNorm2d(40),
        BinaryConv2d(40, 33, 3, padding=1, pad_value=pad_value),
        nn.MaxPool2d(2),
        nn.BatchNorm2d(33),
        BinaryConv2d(33, 8, 3, stride=2, padding=1, pad_value=pad_value, bias=False),
        nn.BatchNorm2d(8),
        nn.Hardtanh(),
        nn.Flatten(),
        BinaryLinear(8 * 9, 10),
    )
    ops, _ = check(module, IMAGES)
    assert ops[2:6] == ["binarize", "xnor_conv2d", "max_pool", "xnor_conv2d"] and ops[-1] == "xnor_gemm"


@pytest.mark.parametrize("scale", ["mean", "lab", "libra"])
@pytest.mark.parametrize("input_scale", [False, True])
def test_xnor_net(scale: str, input_scale: bool):
    options = {"scale": scale, "input_scale": input_scale, "padding": 1}
    module = nn.Sequential(
        nn.Conv2d(3, 40, 3, padding=1),
        XnorBlock(XnorConv2d(40, 33, 3, bias=True, **options), nn.MaxPool2d(2), affine=True),
        XnorBlock(XnorConv2d(33, 12, 3, pad_value=0, **options), relu=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        XnorLinear(12, 10, input_scale=input_scale),
    )
    ops, model = check(module, IMAGES)
    assert ops.count("xnor_conv2d") == 2 and ops.count("xnor_gemm") == 1
    maps = [op.get("attrs", {}).get("input_scale", False) for op in model.plan.ops if op["op"].startswith("xnor")]
    assert maps == [input_scale] * 3


def test_real_shortcuts():
    blocks = [BiRealBlock(32, 32), BiRealBlock(32, 64, 2), BiRealBlock(64, 64)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)]
    ops, _ = check(nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), *blocks, *head), IMAGES)
    assert ops.count("xnor_conv2d") == 3 and "binary" not in ops  # sums, scales and biases are in the products
    mixed = convert(
        nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), *blocks, *head).eval(),
        IMAGES,
        recipe="xnor-int8",
        calibration=[IMAGES.numpy()],
    )
    kinds = [op["op"] for op in mixed.plan.ops]
    assert kinds.count("xnor_conv2d") == 3 and kinds.count("conv2d") == 2 and kinds.count("gemm") == 1


def test_learned_thresholds_and_what_is_not_binary():
    module = nn.Sequential(
        TernaryConv2d(3, 16, 3),
        LearnedSign(16),
        BinaryConv2d(16, 16, 1),
        nn.PReLU(16),
        LearnedSign(16),
        BinaryConnectConv2d(16, 8, 3),
    )
    ops, _ = check(module, IMAGES)
    assert ops == ["transpose", "conv2d_f32", "binarize", "xnor_conv2d", "xnor_conv2d", "transpose"]
    real = nn.Sequential(BinaryConnectLinear(20, 8, test_weights="real"))
    ops, _ = check(real, ROWS, recipe="float32")
    assert ops == ["gemm_f32"]


def test_float_recipe_of_a_binary_module():
    module = nn.Sequential(nn.Conv2d(3, 40, 3), XnorConv2d(40, 8, 3, padding=1, input_scale=True, bias=True))
    ops, _ = check(module, IMAGES, recipe="float32")
    assert "xnor_conv2d" not in ops and "dequantize" in ops


def test_the_module_is_left_as_it_was():
    module = nn.Sequential(nn.Flatten(), BinaryLinear(300, 10), nn.BatchNorm1d(10)).train()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    convert(module, IMAGES, recipe="float32")
    assert module.training and module[1].training
    after = module.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items()) and before.keys() == after.keys()
    assert frozen(module)[1].weight.abs().eq(1).all()


def test_trained_converted_saved_and_run_again(tmp_path):
    module = nn.Sequential(BinaryConnectLinear(20, 64), nn.BatchNorm1d(64), BinaryLinear(64, 10))
    _, model = check(module, ROWS)
    model.save(tmp_path / "net.lowbit")
    np.testing.assert_array_equal(lowbit.load(tmp_path / "net.lowbit").run(ROWS.numpy()), model.run(ROWS.numpy()))
