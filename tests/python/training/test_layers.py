"""Binary layers: values in training and eval mode, test-time weights, updates, checkpoints, seeds, swapping."""

import copy
import doctest
import importlib
import inspect

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="lowbit.torch needs torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import lowbit.torch as lt  # noqa: E402

LAYERS = {
    "connect": (lt.BinaryConnectLinear, lt.BinaryConnectConv2d, {}),
    "connect-stochastic": (lt.BinaryConnectLinear, lt.BinaryConnectConv2d, {"stochastic": True}),
    "binary": (lt.BinaryLinear, lt.BinaryConv2d, {}),
    "binary-stochastic": (lt.BinaryLinear, lt.BinaryConv2d, {"activation": "stochastic"}),
    "xnor": (lt.XnorLinear, lt.XnorConv2d, {"bias": True}),
    "xnor-k": (lt.XnorLinear, lt.XnorConv2d, {"input_scale": True}),
    "xnor-lab": (lt.XnorLinear, lt.XnorConv2d, {"scale": "lab"}),
    "xnor-libra": (lt.XnorLinear, lt.XnorConv2d, {"scale": "libra"}),
    "ternary": (lt.TernaryLinear, lt.TernaryConv2d, {}),
}
DETERMINISTIC = [name for name in LAYERS if "stochastic" not in name]


def made(name, conv, **more):
    linear, convolution, options = LAYERS[name]
    torch.manual_seed(1)
    layer = convolution(6, 8, 3, **options, **more) if conv else linear(6, 8, **options, **more)
    if layer.bias is not None:
        nn.init.normal_(layer.bias)
    return layer


def batch(conv, n=5):
    return torch.randn(n, 6, 7, 7) if conv else torch.randn(n, 6)


@pytest.mark.parametrize("conv", [False, True])
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_training_and_eval_agree(name, conv):
    layer, x = made(name, conv), batch(conv)
    assert layer.train()(x).requires_grad
    torch.testing.assert_close(layer.train()(x), layer.eval()(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("conv", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_eval_is_the_product_of_codes_then_scales(name, conv):
    layer, x = made(name, conv).eval(), batch(conv)
    codes, alpha = layer.binary_weight(), layer.alpha()
    values = {-1.0, 0.0, 1.0} if name == "ternary" else {-1.0, 1.0}
    assert set(codes.unique().tolist()) <= values and codes.shape == layer.weight.shape
    assert alpha.shape == (8,) and not alpha.requires_grad and not codes.requires_grad
    real_input = name.startswith(("connect", "ternary"))
    inputs = x if real_input else torch.where(x >= 0, 1.0, -1.0)
    product = F.conv2d(inputs, codes) if conv else F.linear(inputs, codes)
    if not real_input:
        assert torch.equal(product, product.round())
    if layer.input_scale:
        product = product * (lt.k_map(x, 3) if conv else x.abs().mean(1, keepdim=True))
    shape = (8, 1, 1) if conv else (8,)
    expected = product * alpha.view(shape) + (0 if layer.bias is None else layer.bias.view(shape))
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("pad_value", [-1, 0, 1])
@pytest.mark.parametrize("cls", [lt.BinaryConv2d, lt.XnorConv2d, lt.BinaryConnectConv2d])
def test_padding_is_a_value_of_its_own(cls, pad_value):
    layer = cls(4, 6, (3, 5), stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2, pad_value=pad_value).eval()
    x = torch.randn(2, 4, 8, 11)
    inputs = x if cls is lt.BinaryConnectConv2d else lt.hard_sign(x)
    inputs = F.pad(inputs, (2, 2, 1, 1), value=float(pad_value))
    expected = F.conv2d(inputs, layer.binary_weight(), None, (2, 1), 0, (1, 2), 2) * layer.alpha().view(-1, 1, 1)
    expected = expected if layer.bias is None else expected + layer.bias.view(-1, 1, 1)
    torch.testing.assert_close(layer(x), expected)
    with pytest.raises(ValueError, match="pad_value 2"):
        cls(4, 6, 3, pad_value=2)


def test_input_gradient_is_masked_and_weight_gradient_is_not():
    layer = lt.BinaryLinear(3, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3.0, -0.1, 0.0], [-2.0, 0.5, 0.2]]))
    x = torch.tensor([[0.5, 1.0, -1.5]], requires_grad=True)
    layer(x).backward(torch.tensor([[1.0, 10.0]]))
    assert x.grad.tolist() == [[-9.0, 9.0, 0.0]]
    assert layer.weight.grad.tolist() == [[1.0, 1.0, -1.0], [10.0, 10.0, -10.0]]


def test_stochastic_activation_is_for_training_only():
    layer, x = made("binary-stochastic", False), 0.3 * torch.randn(50, 6)
    assert not torch.equal(layer.train()(x), layer(x))
    assert torch.equal(layer.eval()(x), layer(x))


@pytest.mark.parametrize("conv", [False, True])
def test_test_time_weights_are_what_was_asked(conv):
    x = batch(conv)
    for test_weights in ("binary", "real"):
        layer = made("connect-stochastic", conv, test_weights=test_weights, bias=False).eval()
        weight = lt.hard_sign(layer.weight) if test_weights == "binary" else layer.weight
        assert torch.equal(layer(x), F.conv2d(x, weight) if conv else F.linear(x, weight))
        assert layer.train()(x).sub(layer(x)).abs().max() > 0  # drawn anew
    with pytest.raises(ValueError, match="'sign'"):
        lt.BinaryConnectLinear(2, 2, test_weights="sign")


def test_unknown_choices_name_the_layer():
    for make, words in [
        (lambda: lt.BinaryLinear(2, 2, activation="relu"), "BinaryLinear.*'relu'"),
        (lambda: lt.XnorLinear(2, 2, scale="max"), "XnorLinear.*'max'"),
        (lambda: lt.XnorConv2d(2, 2, 1, gradient="none"), "XnorConv2d.*'none'"),
        (lambda: lt.BinaryConv2d(2, 2, 3, stride=2, padding="same"), "BinaryConv2d.*'same'"),
        (lambda: lt.BinaryConv2d(2, 2, 3, padding="full"), "BinaryConv2d.*'full'"),
    ]:
        with pytest.raises(ValueError, match=words):
            make()


# updates ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam, lt.ShiftAdaMax])
def test_the_step_is_scaled_then_the_weight_clipped(optimizer):
    torch.manual_seed(0)
    net = nn.Sequential(lt.BinaryConnectConv2d(3, 4, 3), nn.Flatten(), nn.BatchNorm1d(36), lt.BinaryLinear(36, 2))
    plain = copy.deepcopy(net)
    x, y = torch.randn(6, 3, 5, 5), torch.tensor([0, 1, 0, 1, 1, 0])
    ours, theirs = optimizer(net.parameters(), lr=0.01), optimizer(plain.parameters(), lr=0.01)
    lt.binary_steps(ours, net)
    for model, step in ((net, ours), (plain, theirs)):
        lt.squared_hinge(model(x), y).backward()
        step.step()
    torch.manual_seed(0)
    before = nn.Sequential(lt.BinaryConnectConv2d(3, 4, 3), nn.Flatten(), nn.BatchNorm1d(36), lt.BinaryLinear(36, 2))
    scales = {0: np.sqrt((3 * 9 + 4 * 9) / 1.5), 3: np.sqrt((36 + 2) / 1.5)}
    clipped = 0
    for i, s in scales.items():
        w, moved = before[i].weight.double(), plain[i].weight.double()
        expected = (w + s * (moved - w)).clamp(-1, 1)
        torch.testing.assert_close(net[i].weight.double(), expected, atol=1e-5, rtol=0)
        assert (net[i].weight.abs() <= 1).all()
        clipped += (expected.abs() == 1).sum().item()
        torch.testing.assert_close(net[i].bias, plain[i].bias)  # neither scaled nor clipped
    assert clipped > 0
    torch.testing.assert_close(net[2].weight, plain[2].weight)


def test_steps_can_be_left_unscaled_rounded_or_removed():
    layer = lt.BinaryConnectLinear(784, 1024)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    assert lt.binary_steps(optimizer, layer, scale=False).scales == [1.0]
    hooked = lt.binary_steps(optimizer, layer, power_of_two=True)
    assert hooked.scales == [32.0]  # 34.7
    hooked.remove()
    assert len(optimizer._optimizer_step_post_hooks) == 1
    with pytest.raises(ValueError, match=r"weight of 0$"):
        lt.binary_steps(optimizer, nn.Sequential(lt.BinaryLinear(2, 2)))


def test_xnor_weights_stay_centred_and_evaluating_changes_nothing():
    net = nn.Sequential(lt.XnorConv2d(6, 8, 3), nn.Flatten(), lt.XnorLinear(8, 2))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
    lt.binary_steps(optimizer, net)
    for _ in range(3):
        optimizer.zero_grad()
        net.train()(torch.randn(4, 6, 3, 3)).square().sum().backward()
        optimizer.step()
    for layer in (net[0], net[2]):
        torch.testing.assert_close(layer.weight.mean(1), torch.zeros_like(layer.weight.mean(1)), atol=1e-6, rtol=0)
    before = copy.deepcopy(net.state_dict())
    net.eval()(torch.randn(4, 6, 3, 3))
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())


def test_depthwise_weights_are_not_centred_away():
    layer = lt.XnorConv2d(4, 4, 3, groups=4, gradient="released")
    assert layer.alpha().min() > 0
    layer(torch.randn(2, 4, 5, 5)).square().sum().backward()
    assert layer.weight.grad.abs().sum() > 0


def test_lab_reads_the_curvature_from_adam():
    layer = lt.XnorLinear(6, 3, scale="lab", centre=False)
    torch.testing.assert_close(layer.alpha(), lt.xnor_alpha(layer.weight))  # none yet
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.01)
    lt.binary_steps(optimizer, layer)
    layer(torch.randn(8, 6)).square().sum().backward()
    optimizer.step()
    second = optimizer.state[layer.weight]["exp_avg_sq"].sqrt()
    torch.testing.assert_close(layer.alpha(), lt.lab_alpha(layer.weight, second))
    assert not torch.allclose(layer.alpha(), lt.xnor_alpha(layer.weight))


def test_shift_ada_max_follows_its_formulas():
    rng = np.random.default_rng(0)
    w = rng.normal(0, 1, 20)
    p = nn.Parameter(torch.tensor(w))
    optimizer = lt.ShiftAdaMax([p], lr=0.02)
    m, v = np.zeros(20), np.zeros(20)
    for t in range(1, 6):
        g = rng.normal(0, 1, 20)
        p.grad = torch.tensor(g)
        optimizer.step()
        m, v = 0.9 * m + 0.1 * g, np.maximum(0.999 * v, abs(g))
        v = 2.0 ** np.round(np.log2(v)) + 2.0**-27
        w = w - 2.0 ** np.round(np.log2(0.02 / (1 - 0.9**t))) * m / v
        np.testing.assert_allclose(p.detach().numpy(), w, rtol=1e-6)
    for wrong in ({"lr": 0.0}, {"betas": (0.9, 1.0)}):
        with pytest.raises(ValueError, match="ShiftAdaMax"):
            lt.ShiftAdaMax([p], **wrong)


def test_shift_batch_norm_follows_its_formulas():
    rng = np.random.default_rng(0)
    x = rng.normal(3, 5, (6, 2, 4))
    norm = lt.ShiftBatchNorm(2).double()
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([3.0, -0.7]))
        norm.bias.copy_(torch.tensor([0.5, -1.0]))

    def power(a):
        return np.sign(a) * 2.0 ** np.round(np.log2(abs(a)))

    c = x - x.mean((0, 2), keepdims=True)
    r = ((c * power(c)).mean((0, 2)) + 1e-5) ** -0.5
    factor = (power(r) * np.array([4, -0.5])).reshape(2, 1)
    bias = np.array([[0.5], [-1.0]])
    np.testing.assert_allclose(norm(torch.tensor(x)).detach().numpy(), c * factor + bias, rtol=1e-9)
    np.testing.assert_allclose(norm.running_inverse.numpy(), 0.875 + 0.125 * r)
    np.testing.assert_allclose(norm.running_mean.numpy(), 0.125 * x.mean((0, 2)))
    factor = (power(norm.running_inverse.numpy()) * np.array([4, -0.5])).reshape(2, 1)
    expected = (x - norm.running_mean.numpy().reshape(2, 1)) * factor + bias
    np.testing.assert_allclose(norm.eval()(torch.tensor(x)).detach().numpy(), expected, rtol=1e-9)
    with pytest.raises(ValueError, match="one value per channel"):
        norm.train()(torch.zeros(1, 2, dtype=torch.float64))


def test_refreshed_statistics_belong_to_the_test_time_weights():
    net = nn.Sequential(lt.BinaryConnectLinear(6, 4, stochastic=True), nn.BatchNorm1d(4))
    x = torch.randn(64, 6)
    net(x)
    lt.refresh_batch_norm(net, x.split(32))
    expected = net[0].eval()(x)
    torch.testing.assert_close(net[1].running_mean, expected.mean(0))
    assert net[1].momentum == 0.1 and not any(m.training for m in net.modules())


# checkpoints, seeds, swapping ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LAYERS)
def test_checkpoints_reload(name, tmp_path):
    layer, x = made(name, True), batch(True)
    optimizer = torch.optim.Adam(layer.parameters())
    lt.binary_steps(optimizer, layer)
    layer(x).square().sum().backward()
    optimizer.step()
    torch.save(layer.state_dict(), tmp_path / "layer.pt")
    other = LAYERS[name][1](6, 8, 3, **LAYERS[name][2])
    other.load_state_dict(torch.load(tmp_path / "layer.pt", weights_only=True))
    assert torch.equal(layer.eval()(x), other.eval()(x))
    assert torch.equal(copy.deepcopy(layer)(x), layer(x))


@pytest.mark.parametrize("name", ["connect-stochastic", "binary-stochastic"])
def test_seeds_reproduce_a_training(name):
    def train(seed):
        layer = made(name, False)
        optimizer = torch.optim.Adam(layer.parameters(), lr=0.01)
        lt.binary_steps(optimizer, layer)
        x = batch(False, 16)
        torch.manual_seed(seed)
        for _ in range(4):
            optimizer.zero_grad()
            layer(x).square().mean().backward()
            optimizer.step()
        return layer.weight.detach().clone()

    assert torch.equal(train(5), train(5)) and not torch.equal(train(5), train(6))


def small_net():
    return nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.Sequential(nn.BatchNorm2d(6), nn.Conv2d(6, 6, 3, padding="same", bias=False)),
        nn.Flatten(),
        nn.Linear(6 * 36, 10),
    )


def test_swap_by_name_and_type_first_match_wins():
    net = small_net()
    weights = net[1][1].weight.detach().clone()
    config = {
        "0": None,
        "1.1": {"layer": "xnor", "centre": False, "pad_value": -1},
        "op:Conv2d": "binary",
        ".*": "ternary",
    }
    assert lt.swap(net, config) is net
    assert [type(m) for m in (net[0], net[1][1], net[3])] == [nn.Conv2d, lt.XnorConv2d, lt.TernaryLinear]
    assert torch.equal(net[1][1].weight, weights.clamp(-1, 1)) and net[1][1].pad_value == -1
    assert net[1][1].padding == (1, 1) and net(torch.randn(2, 3, 8, 8)).shape == (2, 10)
    lt.swap(net, {"0": lambda layer: nn.Identity()})
    assert isinstance(net[0], nn.Identity)


def test_swap_takes_over_signs_mode_and_type():
    net = small_net().double().eval()
    signs = lt.hard_sign(net[3].weight)
    bias = net[3].bias.detach().clone()
    lt.swap(net, {"op:Linear": "binary_connect"})
    assert torch.equal(net[3].binary_weight(), signs) and torch.equal(net[3].bias, bias)
    assert net[3].weight.abs().max() == 1 and not net[3].training


def test_swap_replaces_a_shared_layer_by_one_and_a_root_by_its_replacement():
    layer = nn.Linear(4, 4)
    net = lt.swap(nn.ModuleDict({"a": layer, "b": nn.Sequential(layer)}), {"a": "xnor", "b.0": "binary"})
    assert isinstance(net["a"], lt.XnorLinear) and net["a"] is net["b"][0]
    assert isinstance(lt.swap(nn.Linear(2, 2), {"": "xnor"}), lt.XnorLinear)


def test_swap_errors_name_the_pattern_or_the_layer():
    for config, error, words in [
        ({"conv9": "xnor"}, ValueError, "'conv9' matches no.*1.1"),
        ({"1": "xnor"}, ValueError, "'1' matches no"),
        ({"op:ConvTranspose2d": "xnor"}, ValueError, "op:ConvTranspose2d"),
        ({"3": "two-bit"}, ValueError, "swap: 3: 'two-bit'"),
        ({"3": {"layer": "xnor", "scale": "max"}}, ValueError, "swap: 3: .*'max'"),
        ({"3": {"layer": "ternary", "alpha": 1}}, TypeError, "swap: 3: .*alpha"),
    ]:
        net = small_net()
        with pytest.raises(error, match=words):
            lt.swap(net, config)
        assert type(net[3]) is nn.Linear
    with pytest.raises(ValueError, match=r"swap: 0: .*'reflect'"):
        lt.swap(nn.Sequential(nn.Conv2d(1, 1, 3, padding_mode="reflect")), {"0": "xnor"})


def test_error_decay_is_part_of_the_checkpoint():
    net = nn.Sequential(lt.XnorLinear(4, 4, scale="libra"), nn.Linear(4, 4))
    lt.set_error_decay(net, 3.0)
    assert net.state_dict()["0.sharpness"] == 3.0
    with pytest.raises(ValueError, match="libra"):
        lt.set_error_decay(net[1], 3.0)


def test_bi_real_block_keeps_real_values_beside_the_signs():
    torch.manual_seed(0)
    x = torch.randn(2, 8, 6, 6)
    block = lt.BiRealBlock(8, 8).eval()
    torch.testing.assert_close(block(x) - block.norm(block.conv(x)), x, atol=1e-5, rtol=1e-5)
    assert lt.BiRealBlock(8, 12, stride=2)(x).shape == (2, 12, 3, 3)


@pytest.mark.parametrize("scale", ["mean", "libra"])
def test_eval_mode_exports_to_plain_operators(scale):
    net = nn.Sequential(
        lt.XnorBlock(lt.XnorConv2d(6, 8, 3, padding=1, scale=scale, input_scale=True), nn.MaxPool2d(2)),
        nn.Flatten(),
        lt.BinaryLinear(72, 4),
    ).eval()
    x = torch.randn(2, 6, 6, 6)
    program = torch.export.export(net, (x,))
    torch.testing.assert_close(program.module()(x), net(x))


def test_public_names_have_examples():
    shown = set()
    for name in {getattr(lt, n).__module__ for n in lt.__all__}:
        shown |= {t.name for t in doctest.DocTestFinder().find(importlib.import_module(name)) if t.examples}
    for name in lt.__all__:
        thing = getattr(lt, name)
        if name not in (
            "BinarySteps",
            "BinaryWeight",
            "CodebookWeight",
            "DeviationSteps",
            "QatLayer",
        ):  # made by functions, mixed in
            assert f"{thing.__module__}.{name}" in shown, name
        assert inspect.getdoc(thing)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_inputs_without_or_with_more_batch_axes(name):
    conv, linear = made(name, True).eval(), made(name, False).eval()
    x = batch(True)
    torch.testing.assert_close(conv(x[0]), conv(x)[0])
    x = torch.randn(2, 3, 6)
    torch.testing.assert_close(linear(x), torch.stack([linear(part) for part in x]))
