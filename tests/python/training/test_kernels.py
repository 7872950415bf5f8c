"""torch.ops.lowbit.*: against the float path, torch.library's own checks, and the layers that use them in eval mode."""

import copy

import pytest

torch = pytest.importorskip("torch", reason="lowbit.torch needs torch")

from torch import nn  # noqa: E402

import lowbit.torch as lt  # noqa: E402
from lowbit.torch.binary import kernels  # noqa: E402


@pytest.fixture
def calls(monkeypatch):
    """Counts the calls of the kernels."""
    seen = []

    def count(name, door):
        def counted(*arguments, **options):
            seen.append(name)
            return door(*arguments, **options)

        return counted

    for name in ("xnor_gemm", "xnor_conv2d"):
        monkeypatch.setattr(kernels.lowbit, name, count(name, getattr(kernels.lowbit, name)))
    return seen


def float_path(layer, x):
    """The same layer as a graph would have it, without the kernels."""
    layer = copy.deepcopy(layer)
    layer.runs_on_kernels = lambda x: False
    return layer(x)


CONVS = [
    {"kernel_size": 3},
    {"kernel_size": (3, 5), "stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "groups": 2, "pad_value": -1},
    {"kernel_size": 3, "padding": 1, "pad_value": 0},
    {"kernel_size": 1, "stride": 2, "pad_value": 1, "padding": 1},
]


@pytest.mark.parametrize("options", CONVS)
@pytest.mark.parametrize("cls", [lt.BinaryConv2d, lt.XnorConv2d])
def test_eval_convolutions_run_on_the_kernel_and_give_the_float_path(cls, options, calls):
    more = {"input_scale": True} if cls is lt.XnorConv2d else {}
    layer = cls(34, 6, **options, **more, bias=True).eval()
    nn.init.normal_(layer.bias)
    x = torch.randn(2, 34, 9, 12)
    x[0, 0, 0] = 0
    with torch.inference_mode():
        for image in (x, x.to(memory_format=torch.channels_last)):
            assert torch.equal(layer(image), float_path(layer, image))
    assert calls == ["xnor_conv2d"] * 2


@pytest.mark.parametrize("layer", [lt.BinaryLinear(70, 9), lt.XnorLinear(70, 9, bias=True, input_scale=True)])
def test_eval_linears_run_on_the_kernel_and_give_the_float_path(layer, calls):
    layer = layer.eval()
    x = torch.randn(5, 70)
    with torch.no_grad():
        assert torch.equal(layer(x), float_path(layer, x))
        assert layer(x[:0]).shape == (0, 9)
    assert "xnor_gemm" in calls


@pytest.mark.parametrize("scale", ["lab", "libra"])
def test_other_scales_run_on_the_kernel_too(scale, calls):
    layer, x = lt.XnorConv2d(8, 4, 3, scale=scale).eval(), torch.randn(1, 8, 5, 5)
    with torch.no_grad():
        assert torch.equal(layer(x), float_path(layer, x))
    assert calls == ["xnor_conv2d"]


def test_kernels_stay_away_where_a_gradient_or_another_type_is_wanted(calls):
    layer, x = lt.BinaryLinear(8, 4), torch.randn(3, 8)
    layer(x)  # training
    assert layer.eval()(x).requires_grad
    with torch.no_grad():
        copy.deepcopy(layer).double()(x.double())
        lt.BinaryLinear(8, 4, activation=torch.sign).eval()(x)
        assert torch.equal(layer(x[None])[0], float_path(layer, x))  # three axes
    assert not calls
    with torch.no_grad():
        layer(x)
    assert calls


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_kernels_stay_away_from_traced_graphs(calls):
    layer, x = lt.BinaryLinear(8, 4).eval(), torch.randn(3, 8)
    with torch.no_grad():
        torch.export.export(layer, (x,))
        torch.jit.trace(layer, x, check_trace=False)  # what torch.onnx.export(dynamo=False) does
    assert not calls


def test_packed_weights_follow_the_weight():
    layer, x = lt.BinaryLinear(8, 4, bias=False).eval(), torch.randn(3, 8)
    with torch.no_grad():
        first = layer(x)
        assert torch.equal(layer(x), first)
        layer.weight.neg_()
        assert torch.equal(layer(x), -first)
        layer.load_state_dict({"weight": layer.weight.neg()})
        assert torch.equal(layer(x), first)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("options", [{}, {"scale": "lab"}, {"scale": "libra"}])
def test_packed_weights_and_alpha_follow_the_training(options, mode, calls):
    layer, x = lt.XnorLinear(40, 4, **options).eval(), torch.randn(3, 40)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.5)
    lt.binary_steps(optimizer, layer)
    results = []
    for _ in range(4):
        with mode():
            results.append(layer.eval()(x))
            assert torch.equal(results[-1], layer(x)) and torch.equal(results[-1], float_path(layer, x))
        optimizer.zero_grad()
        layer.train()(x).square().sum().backward()
        optimizer.step()
    assert any(not torch.equal(results[0], y) for y in results)
    if layer.eval().scale == "lab":
        with mode():
            before = layer(x)
        with torch.no_grad():
            layer.curvature[:, 0] += 1
        with mode():
            assert not torch.equal(layer(x), before) and torch.equal(layer(x), float_path(layer, x))
    assert calls


def test_operators_pass_the_checks_of_torch_library():
    x, w = torch.randn(2, 4, 6, 5, requires_grad=True), torch.randn(6, 2, 3, 3, requires_grad=True)
    scale, bias = (torch.rand(6, requires_grad=True) for _ in range(2))
    k = torch.rand(2, 1, 3, 5, requires_grad=True)
    conv = torch.ops.lowbit.xnor_conv2d
    torch.library.opcheck(conv, (x, w, [2, 1], [1, 1], [1, 1], 2, -1, scale, bias, k))
    torch.library.opcheck(conv, (x.detach(), w.detach()[:, :1].repeat(1, 4, 1, 1)))
    a, b = torch.randn(5, 7, requires_grad=True), torch.randn(6, 7, requires_grad=True)
    torch.library.opcheck(torch.ops.lowbit.xnor_gemm, (a, b, scale, None, torch.rand(5, 1)))
    torch.library.opcheck(torch.ops.lowbit.pack_bits, (torch.randn(3, 40),))


def test_gradients_are_the_float_paths():
    layer = lt.BinaryConv2d(4, 3, 3, padding=1, stride=2)
    x = torch.randn(2, 4, 6, 6, requires_grad=True)
    g = torch.randn(2, 3, 3, 3)
    layer(x).backward(g)
    expected = x.grad, layer.weight.grad, layer.bias.grad
    x.grad, layer.weight.grad, layer.bias.grad = None, None, None
    torch.ops.lowbit.xnor_conv2d(x, layer.weight, 2, 1, 1, 1, 1, None, layer.bias).backward(g)
    for ours, theirs in zip((x.grad, layer.weight.grad, layer.bias.grad), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_export_keeps_the_operator():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 40))

        def forward(self, x):
            return torch.ops.lowbit.xnor_gemm(x, self.weight)

    net, x = Net(), torch.randn(3, 40)
    program = torch.export.export(net, (x,))
    assert any("xnor_gemm" in str(node.target) for node in program.graph.nodes)
    assert torch.equal(program.module()(x), net(x))


def test_errors_name_the_operator_and_the_tensor():
    with pytest.raises(TypeError, match=r"xnor_gemm: weight is torch\.float64"):
        torch.ops.lowbit.xnor_gemm(torch.ones(1, 2), torch.ones(1, 2, dtype=torch.float64))
    with pytest.raises(TypeError, match=r"pack_bits: x is torch\.int8"):
        torch.ops.lowbit.pack_bits(torch.ones(1, 2, dtype=torch.int8))
    with pytest.raises(ValueError, match="NaN"):
        torch.ops.lowbit.xnor_conv2d(torch.full((1, 1, 1, 1), torch.nan), torch.ones(1, 1, 1, 1))
