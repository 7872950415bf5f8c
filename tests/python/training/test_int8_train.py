"""Int8TrainLinear and Int8TrainConv2d: values and gradients against NumPy integers; clips, resuming, bad gradients."""

import copy
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="lowbit.torch needs torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import lowbit  # noqa: E402
import lowbit.torch as lt  # noqa: E402

SHAPES = [  # c, oc, kernel, stride, padding, dilation, groups
    (5, 7, 3, 1, 1, 1, 1),
    (8, 12, 3, 2, 1, 1, 4),
    (6, 3, (1, 3), (2, 1), (0, 2), (1, 2), 1),
    (9, 4, 1, 2, 0, 1, 1),
]


def codes(x: torch.Tensor, clip: float) -> torch.Tensor:
    """Whole numbers in float64, which holds every sum exactly."""
    scale = np.float32(clip / 127)
    return torch.from_numpy(np.clip(np.rint(x.detach().numpy() / scale), -127, 127)).double()


def expected(layer: nn.Conv2d, x: torch.Tensor, g: torch.Tensor, g_clip: float, seed: int, stream: int):
    """y, dx and dw from integer convolutions of codes and one float32 product each."""
    pixels = np.ascontiguousarray(g.permute(0, 2, 3, 1).numpy())
    rounded, _, _ = lowbit.quantize_stochastic(pixels, g_clip / 127, seed=seed, stream=stream)
    gq = torch.from_numpy(rounded.astype(np.float64) - 128).permute(0, 3, 1, 2)
    xq = codes(x, float(x.detach().abs().max())).requires_grad_()
    wq = codes(layer.weight, float(layer.weight.detach().abs().max())).requires_grad_()
    y = F.conv2d(xq, wq, None, layer.stride, layer.padding, layer.dilation, layer.groups)
    dx, dw = torch.autograd.grad(y, (xq, wq), gq)
    scales = [float(v) / 127 for v in (x.abs().max(), layer.weight.abs().max(), torch.tensor(g_clip))]

    def times(v: torch.Tensor, a: int, b: int, rate: float = 1.0) -> torch.Tensor:
        return v.detach().float() * torch.tensor(scales[a] * scales[b] * rate, dtype=torch.float32)

    return times(y, 0, 1), times(dx, 2, 1), times(dw, 2, 0, layer.lr_scale())


@pytest.mark.parametrize("c,oc,kernel,stride,padding,dilation,groups", SHAPES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_values_and_gradients_are_the_integer_ones(c, oc, kernel, stride, padding, dilation, groups, layout):
    torch.manual_seed(0)
    layer = lt.Int8TrainConv2d(c, oc, kernel, stride, padding, dilation, groups, bias=False, seed=11)
    for step in range(2):
        layer.input_clip.zero_()  # so that the clip is this batch's
        x = torch.randn(3, c, 9, 8).to(memory_format=layout).requires_grad_()
        y = layer(x)
        g = torch.randn_like(y)
        layer.weight.grad = None
        y.backward(g)
        want_y, want_dx, want_dw = expected(layer, x, g, float(layer.gradient_clip), 11, step)
        assert torch.equal(y, want_y) and torch.equal(x.grad, want_dx)
        assert torch.equal(layer.weight.grad, want_dw)
        assert int(layer.step) == step + 1


def test_a_linear_layer_is_a_convolution_of_one_row():
    torch.manual_seed(0)
    linear = lt.Int8TrainLinear(6, 4, seed=3)
    conv = lt.Int8TrainConv2d(6, 4, 1, seed=3)
    with torch.no_grad():
        conv.weight.copy_(linear.weight[:, :, None, None])
        conv.bias.copy_(linear.bias)
    x = torch.randn(2, 5, 6, requires_grad=True)
    row = x.detach().reshape(1, 1, 10, 6).permute(0, 3, 1, 2).requires_grad_()
    g = torch.randn(2, 5, 4)
    y, z = linear(x), conv(row)
    y.backward(g)
    z.backward(g.reshape(1, 1, 10, 4).permute(0, 3, 1, 2))
    assert torch.equal(y.reshape(10, 4), z[0, :, 0].T)
    assert torch.equal(x.grad.reshape(10, 6), row.grad[0, :, 0].T)
    assert torch.equal(linear.weight.grad, conv.weight.grad[:, :, 0, 0])
    assert torch.allclose(linear.bias.grad, g.sum((0, 1)) * linear.lr_scale(), rtol=1e-6)


def test_gradients_are_near_those_of_float():
    torch.manual_seed(0)
    layer, x = lt.Int8TrainConv2d(16, 16, 3, padding=1, seed=0), torch.randn(4, 16, 8, 8, requires_grad=True)
    y = layer(x)
    g = torch.randn_like(y)
    grads = torch.autograd.grad(y, (x, layer.weight), g)
    exact = F.conv2d(x, layer.weight, layer.bias, padding=1)
    wanted = torch.autograd.grad(exact, (x, layer.weight), g)
    for a, b in ((y, exact), *zip(grads, wanted, strict=True)):
        assert F.cosine_similarity(a.flatten(), b.flatten(), 0) > 0.999


def one_step(layer: nn.Module, x: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    layer.weight.grad = None
    layer(x).backward(g)
    return layer.weight.grad.clone()


def test_the_clip_is_of_the_least_deviation_and_kept_for_a_period():
    torch.manual_seed(0)
    layer = lt.Int8TrainLinear(8, 8, bias=False, seed=0, period=3)
    x, g = torch.randn(400, 8), torch.randn(400, 8)
    g[0, 0] = 60.0  # an outlier: to clip it turns the gradient less than coarse steps would
    one_step(layer, x, g)
    grid = 60.0 * layer.GRID
    found = lowbit.clip_deviations(g.numpy(), grid)
    clip = float(layer.gradient_clip)
    assert clip == grid[np.argmin(found)]
    for _ in range(2):
        one_step(layer, x, g * 1.1)
        assert float(layer.gradient_clip) == clip
    one_step(layer, x, g * 1.1)
    assert float(layer.gradient_clip) == pytest.approx(1.1 * clip, rel=1e-6)


def test_a_gradient_that_outgrows_its_clip_is_fitted_at_once():
    torch.manual_seed(0)
    layer = lt.Int8TrainLinear(8, 8, bias=False, seed=0)
    x, g = torch.randn(100, 8), torch.randn(100, 8)
    one_step(layer, x, g)
    assert float(layer.deviation) < 1e-2
    one_step(layer, x, 1000 * g)
    assert float(layer.deviation) < 1e-2 and float(layer.gradient_clip) > 1000
    one_step(layer, x, g)  # all codes were 0 or nearly so
    assert float(layer.deviation) < 1e-2 and float(layer.gradient_clip) < 10


def test_the_learning_rate_falls_with_the_deviation():
    layer = lt.Int8TrainLinear(4, 4)
    assert layer.lr_scale() == 1
    layer.deviation.fill_(0.05)
    assert layer.lr_scale() == pytest.approx(math.exp(-1))
    layer.deviation.fill_(0.5)
    assert layer.lr_scale() == 0.1
    torch.manual_seed(0)
    x, g = torch.randn(50, 8), torch.randn(50, 8)
    g[0, 0] = 3000.0  # most others become 0 or a whole step
    plain, scaled = (lt.Int8TrainLinear(8, 8, bias=False, seed=0, lr_scaling=s) for s in (False, True))
    scaled.load_state_dict(plain.state_dict())
    a, b = one_step(plain, x, g), one_step(scaled, x, g)
    assert scaled.lr_scale() < 1
    assert torch.allclose(a * scaled.lr_scale(), b, rtol=1e-6)
    assert lt.gradient_deviations(nn.Sequential(scaled)) == {"0": (float(scaled.deviation), scaled.lr_scale())}


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
def test_steps_are_scaled_for_any_optimiser(kind):
    weights = []
    for hooked in (False, True):
        torch.manual_seed(0)
        layer = lt.Int8TrainLinear(8, 8, seed=0, lr_scaling=False)
        before = copy.deepcopy(list(layer.parameters()))
        optimizer = kind(layer.parameters(), lr=0.1, weight_decay=0.01)
        if hooked:
            steps = lt.deviation_steps(optimizer, layer)
        g = torch.randn(50, 8)
        g[0, 0] = 3000.0
        layer(torch.randn(50, 8)).backward(g)
        optimizer.step()
        weights.append([after - old for after, old in zip(layer.parameters(), before, strict=True)])
    assert layer.lr_scale() < 1
    for plain, scaled in zip(*weights, strict=True):
        assert torch.allclose(plain * layer.lr_scale(), scaled, rtol=1e-4, atol=1e-6)
    steps.remove()
    moved = layer.weight.detach().clone()
    layer.deviation.fill_(1.0)
    optimizer.step()
    assert not torch.allclose(layer.weight, moved, atol=1e-3)


def test_zero_gradients_and_zero_inputs():
    layer = lt.Int8TrainConv2d(3, 4, 3, padding=1, seed=0)
    x = torch.randn(2, 3, 5, 5, requires_grad=True)
    layer(x).backward(torch.zeros(2, 4, 5, 5))
    assert not layer.weight.grad.any() and not x.grad.any() and not layer.bias.grad.any()
    assert float(layer.deviation) == 0 and layer.lr_scale() == 1
    assert float(layer.gradient_clip) == 0  # the first gradient that is not zero will set it
    layer(x).backward(torch.randn(2, 4, 5, 5))
    assert layer.weight.grad.any() and float(layer.gradient_clip) > 0
    with torch.no_grad():
        layer.weight.zero_()
        assert torch.equal(layer(torch.zeros(2, 3, 5, 5)), layer.bias.view(1, -1, 1, 1).expand(2, 4, 5, 5))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("first", [True, False])
def test_bad_gradients_name_the_layer(bad, first):
    net = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 3)))
    lt.swap(net, {"1.0": "int8_train"})
    if not first:  # the clip is known
        net(torch.randn(2, 4)).sum().backward()
    y = net(torch.randn(2, 4))
    g = torch.ones(2, 3)
    g[1, 1] = bad
    with pytest.raises(ValueError, match=r"Int8TrainLinear '1\.0': output gradient: .*(NaN|infinit)"):
        y.backward(g)


def test_bad_inputs_and_weights_name_the_layer():
    layer = lt.Int8TrainConv2d(3, 4, 3)
    with pytest.raises(ValueError, match=r"Int8TrainConv2d: input: .*NaN"):
        layer(torch.full((1, 3, 4, 4), math.nan))
    layer.weight.data[0, 0, 0, 0] = math.inf
    with pytest.raises(ValueError, match=r"Int8TrainConv2d: weight: .*infinite"):
        layer(torch.ones(1, 3, 4, 4))


def trained(net: nn.Module, optimizer: torch.optim.Optimizer, batches: range) -> dict[str, torch.Tensor]:
    for k in batches:
        rng = torch.Generator().manual_seed(k)
        x, y = torch.randn(16, 3, 6, 6, generator=rng), torch.randint(0, 5, (16,), generator=rng)
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
    return copy.deepcopy(net.state_dict())


def small_net() -> nn.Module:
    torch.manual_seed(5)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 5))
    return lt.swap(net, {"2": {"layer": "int8_train", "period": 4}, "5": "int8_train"})


def sgd(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)


def test_seeds_reproduce_at_any_thread_count_and_resuming_goes_on_exactly(tmp_path):
    net = small_net()
    once = trained(net, sgd(net), range(10))
    torch.set_num_threads(2)
    try:
        again = small_net()
        # One thread for what is not ours would round differently: only the int8 layers are compared for threads.
        second = trained(again, sgd(again), range(10))
    finally:
        torch.set_num_threads(1)
    assert all(torch.allclose(once[k].double(), second[k].double(), rtol=1e-3, atol=1e-3) for k in once)
    third = small_net()
    assert all(torch.equal(v, once[k]) for k, v in trained(third, sgd(third), range(10)).items())

    half = small_net()
    optimizer = sgd(half)
    trained(half, optimizer, range(6))
    torch.save({"net": half.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "checkpoint.pt")
    torch.manual_seed(99)
    resumed = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 5)
    )
    lt.swap(resumed, {"2": {"layer": "int8_train", "period": 4}, "5": "int8_train"})  # other seeds until loaded
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    resumed.load_state_dict(state["net"])
    optimizer = sgd(resumed)
    optimizer.load_state_dict(state["optimizer"])
    assert all(torch.equal(v, once[k]) for k, v in trained(resumed, optimizer, range(6, 10)).items())


def test_one_layer_gives_the_same_bits_at_any_thread_count():
    torch.manual_seed(0)
    first = lt.Int8TrainConv2d(32, 48, 3, padding=1, bias=False)
    x, g = torch.randn(8, 32, 14, 14), torch.randn(8, 48, 14, 14)
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        layer, leaf = copy.deepcopy(first), x.clone().requires_grad_()
        y = layer(leaf)
        y.backward(g)
        results.append((y.detach(), leaf.grad, layer.weight.grad, layer.deviation))
    torch.set_num_threads(1)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_eval_mode_keeps_what_training_learned():
    torch.manual_seed(0)
    layer = lt.Int8TrainLinear(4, 2, seed=0, input_momentum=0.5)
    layer(torch.tensor([[4.0, 0, 0, 0]]))
    layer(torch.tensor([[2.0, 0, 0, 0]]))
    assert float(layer.input_clip) == 3.0
    layer.eval()
    with torch.no_grad():
        high, clipped = layer(torch.tensor([[9.0, 0, 0, 0]])), layer(torch.tensor([[3.0, 0, 0, 0]]))
    assert torch.equal(high, clipped) and float(layer.input_clip) == 3.0


def test_training_lowers_the_loss():
    net = small_net()
    optimizer = sgd(net)
    torch.manual_seed(1)
    x, y = torch.randn(64, 3, 6, 6), torch.randint(0, 5, (64,))
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_swapped_layers_start_from_the_float_weights_and_convert():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 4)).eval()
    swapped = lt.swap(copy.deepcopy(net), {"op:Conv2d": {"layer": "int8_train", "seed": 7}, "op:Linear": "int8_train"})
    assert torch.equal(swapped[0].weight, net[0].weight) and int(swapped[0].seed) == 7 and swapped[0].name == "0"
    x = torch.randn(2, 3, 6, 6)
    with torch.no_grad():
        assert F.cosine_similarity(swapped(x).flatten(), net(x).flatten(), 0) > 0.999
    model = lowbit.convert(swapped, example=x, recipe="float32")
    assert np.allclose(model.run(x.numpy()), net(x).detach().numpy(), atol=1e-4)


def test_bad_options():
    with pytest.raises(ValueError, match="padding 2 is more than dilation"):
        lt.Int8TrainConv2d(3, 4, 2, padding=2)
    with pytest.raises(ValueError, match="period 0"):
        lt.Int8TrainLinear(3, 4, period=0)
    with pytest.raises(ValueError, match="input_momentum"):
        lt.Int8TrainLinear(3, 4, input_momentum=1.0)
    with pytest.raises(ValueError, match="seed"):
        lt.Int8TrainLinear(3, 4, seed=-1)
    with pytest.raises(ValueError, match=r"swap: 0: .*padding_mode 'reflect'"):
        lt.swap(nn.Sequential(nn.Conv2d(3, 3, 3, padding_mode="reflect")), {"0": "int8_train"})
