"""LQ-Nets' layers: what a training step does and in which order, gradients, eval mode, resuming."""

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="lowbit.torch needs torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import lowbit.torch as lt  # noqa: E402
from lowbit import lq  # noqa: E402
from lowbit.torch.few_bits.lq_quantizers import nearest_level  # noqa: E402


def rectified(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).relu()


@pytest.mark.parametrize("basis", [[1.0], [0.5, 1.0], [1.0, 0.5], [0.3, 0.9, 1.4], [-0.4, 1.0], [0.7, 0.7]])
@pytest.mark.parametrize("layout", ["rows", "channels_last", "strided", "bfloat16", "many", "empty"])
def test_nearest_level_is_the_arrays_quantizer(basis, layout):
    x = rectified(3, 5, 6, 7)
    if layout == "channels_last":
        x = x.contiguous(memory_format=torch.channels_last)
    if layout == "strided":
        x = x[:, ::2, :, 1:].transpose(1, 3)
    if layout == "bfloat16":
        x = x.bfloat16()
    if layout == "many":
        x = rectified(3, 100_001)  # more than a chunk
    if layout == "empty":
        x = x[:0]
    sums, _ = lq.levels(basis, signed=False)
    y = nearest_level(x, torch.from_numpy(sums), torch.from_numpy(lq.thresholds(sums)))
    assert y.dtype == x.dtype and y.shape == x.shape
    assert layout == "strided" or y.stride() == x.stride()
    wanted = torch.from_numpy(lq.quantize(x.float().numpy(), basis, signed=False)).to(x.dtype)
    assert torch.equal(y, wanted)


def test_the_forward_pass_uses_the_old_basis():
    layer = lt.LQActivation(2, decay=0.9)
    layer(rectified(100))
    for step in range(2, 6):
        x, old = 3 * rectified(100, seed=step), layer.basis.numpy().copy()
        y = layer(x)
        np.testing.assert_array_equal(y.numpy(), lq.quantize(x.numpy(), old, signed=False))
        best = lq.qem_step(x.numpy(), old, signed=False)
        share = 0.1 / (1 - 0.9**step)
        np.testing.assert_allclose(layer.basis.numpy(), old + share * (best - old), rtol=1e-5)


def test_the_moving_average_keeps_nothing_of_its_start():
    # the debiased mean of v*_1 ... v*_t, written from TensorFlow's definition; one value makes v* known
    layer, average = lt.LQActivation(1, decay=0.9), 0.0
    layer(torch.full((10,), 50.0))  # fits: v* is 50
    average = 0.1 * 50.0
    for step, value in enumerate([2.0, 3.0, 1.0, 5.0], start=2):
        x = torch.full((10,), 100 * value)  # far above every threshold: v* is the value
        layer(x)
        average = 0.9 * average + 0.1 * 100 * value
        assert layer.basis.item() == pytest.approx(average / (1 - 0.9**step), rel=1e-4)


def test_the_weights_basis_moves_likewise_per_channel():
    w = torch.randn(6, 5, 3, 3, generator=torch.Generator().manual_seed(1))
    quantizer = lt.LQWeight(w, 3)
    quantizer(w)
    for step in range(2, 5):
        w = w + 0.3 * torch.randn(6, 5, 3, 3, generator=torch.Generator().manual_seed(step))
        old = quantizer.basis.numpy().copy()
        np.testing.assert_array_equal(quantizer(w).numpy(), lq.quantize(w.numpy(), old, signed=True))
        best = lq.qem_step(w.numpy(), old, signed=True)
        np.testing.assert_allclose(
            quantizer.basis.numpy(), old + 0.1 / (1 - 0.9**step) * (best - old), rtol=1e-4, atol=1e-6
        )
    assert len(np.unique(quantizer.basis.numpy()[:, 0])) == 6


def test_levels_are_sorted_anew_when_components_cross():
    layer = lt.LQActivation(2, decay=0.5)
    layer(rectified(1000))
    with torch.no_grad():
        layer.basis.copy_(torch.tensor([1.5, -0.2]))  # crossed, one of them negative
    for step in range(30):
        x = rectified(1000, seed=step)
        old = layer.basis.numpy().copy()
        assert torch.equal(layer(x), torch.from_numpy(lq.quantize(x.numpy(), old, signed=False)))
    error = (layer.eval()(x) - x).square().mean() / x.square().mean()
    assert error < 0.1  # of normal values' positive part: 0.047 at best, 0.074 in the optimum that lies near this start


def test_gradients():
    layer = lt.LQConv2d(3, 4, 3, padding=1, w_bits=2, a_bits=2)
    x = (4 * rectified(2, 3, 6, 6)).requires_grad_()
    layer(x)  # the bases are those of these values from here on
    layer.zero_grad()
    old = copy.deepcopy(layer).eval()
    y = layer(x)
    g = torch.randn(y.shape, generator=torch.Generator().manual_seed(9))
    y.backward(g)
    quantized, weight = old.quantized(x.detach())
    quantized, weight = quantized.requires_grad_(), weight.detach().requires_grad_()
    F.conv2d(quantized, weight, layer.bias, padding=1).backward(g)
    top = old.quantize_input.levels()[0][-1]
    assert (x > top).any() and (x <= top).any()
    torch.testing.assert_close(x.grad, quantized.grad * (x <= top))
    torch.testing.assert_close(layer.weight.grad, weight.grad)  # identity, beyond the top level as well
    assert not any(b.requires_grad for b in layer.buffers())


def test_the_gradient_at_the_top_level_is_one():
    layer = lt.LQActivation(1)
    layer.basis.fill_(2.0)
    layer.steps.fill_(1)
    x = torch.tensor([-3.0, 2.0, 2.0000003], requires_grad=True)
    layer.eval()(x).sum().backward()
    assert x.grad.tolist() == [1.0, 1.0, 0.0]


def test_eval_uses_what_is_stored_and_changes_nothing():
    layer = lt.LQLinear(20, 7, w_bits=2, a_bits=3)
    for seed in range(3):
        layer(rectified(30, 20, seed=seed))
    layer.eval()
    before = copy.deepcopy(layer.state_dict())
    x = rectified(5, 20, seed=9) * 3
    y = layer(x)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), layer.state_dict().values(), strict=True))
    q = lq.quantize(x.numpy(), before["quantize_input.basis"].numpy(), signed=False)
    w = lq.quantize(layer.weight.detach().numpy(), before["quantize_weight.basis"].numpy(), signed=True)
    np.testing.assert_allclose(y.detach().numpy(), q @ w.T + layer.bias.detach().numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_planes_and_basis_are_the_weight(bits):
    layer = lt.LQConv2d(3, 5, 3, w_bits=bits)
    planes = layer.quantize_weight.planes(layer.weight)
    assert (
        planes.dtype == torch.int8 and planes.shape == (bits, 5, 3, 3, 3) and set(planes.unique().tolist()) == {-1, 1}
    )
    basis = layer.quantize_weight.basis.T[:, :, None, None, None]
    torch.testing.assert_close((planes * basis).sum(0), layer.eval().quantize_weight(layer.weight).detach())


def test_weights_alone():
    layer = lt.LQConv2d(3, 4, 3, w_bits=1, a_bits=32)
    assert layer.quantize_input is None
    x = torch.randn(2, 3, 5, 5)
    assert torch.equal(layer(x), F.conv2d(x, lt.LQWeight(layer.weight, 1)(layer.weight), layer.bias))


def net():
    torch.manual_seed(4)
    made = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Flatten(), nn.Linear(8 * 16, 10),
    )  # fmt: skip
    return lt.swap(made, {"3": {"layer": "lq", "w_bits": 2, "a_bits": 3}, "op:Linear": "lq:1/2"})


def steps(model, optimizer, seeds):
    for seed in seeds:
        g = torch.Generator().manual_seed(seed)
        x, y = torch.randn(16, 1, 8, 8, generator=g), torch.randint(0, 10, (16,), generator=g)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
    return loss.item()


def test_swap_takes_weights_over():
    torch.manual_seed(1)
    float_layer = nn.Linear(16, 4).double()
    made = lt.swap(copy.deepcopy(float_layer), {"": "lq:4/32"})
    assert torch.equal(made.weight, float_layer.weight) and torch.equal(made.bias, float_layer.bias)
    x = torch.randn(9, 16, dtype=torch.float64)
    assert (made.eval()(x) - float_layer(x)).std() < 0.15 * float_layer(x).std()
    model = net()
    assert (model[3].quantize_weight.bits, model[3].quantize_input.bits) == (2, 3)
    assert (model[7].quantize_weight.bits, model[7].quantize_input.bits) == (1, 2)


def test_training_lowers_the_loss_and_resumes():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    first = steps(model, optimizer, [0])
    steps(model, optimizer, [0, 0, 0, 0])
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    last = steps(model, optimizer, [0, 0, 0, 0, 0])
    assert last < 0.7 * first
    again = net()
    optimizer = torch.optim.SGD(again.parameters(), lr=0.05, momentum=0.9)
    again.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1])
    assert steps(again, optimizer, [0, 0, 0, 0, 0]) == last
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))


def test_under_autocast_the_basis_stays_float32():
    model = net().to(memory_format=torch.channels_last)
    for seed in range(3):
        x = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
        with torch.autocast("cpu", torch.bfloat16):
            model(x).float().square().mean().backward()
    assert model[3].quantize_input.basis.dtype == torch.float32
    assert model[3].weight.grad.dtype == torch.float32 and torch.isfinite(model[3].weight.grad).all()


def test_dead_inputs_and_tiny_batches():
    layer = lt.LQLinear(4, 2, w_bits=4, a_bits=4)
    layer(rectified(50, 4))
    for x in (torch.zeros(50, 4), torch.zeros(1, 4), torch.full((1, 4), 2.0), rectified(1, 4)):
        for _ in range(5):
            assert torch.isfinite(layer(x)).all()
            assert torch.isfinite(layer.quantize_input.basis).all()
    fresh = lt.LQActivation(2)  # whose first batch is dead
    assert not fresh(torch.zeros(10)).any()
    for _ in range(60):
        x = rectified(1000)
        y = fresh(x)
    assert ((y - x).square().mean() / x.square().mean()).item() < 0.08


def test_an_empty_batch_changes_nothing():
    layer = lt.LQLinear(4, 2)
    layer(rectified(50, 4))
    before = layer.quantize_input.basis.clone()
    assert layer(torch.zeros(0, 4)).shape == (0, 2)
    assert torch.equal(layer.quantize_input.basis, before) and layer.quantize_input.steps == 1


def test_large_batches_are_sampled_and_every_channel_is_seen():
    layer = lt.LQActivation(2, sample=1000)
    x = rectified(8, 16, 32, 32)
    x[:, 3] *= 10
    for memory_format in (torch.contiguous_format, torch.channels_last):
        values = [
            layer._sampled(x.contiguous(memory_format=memory_format)) for layer.steps in map(torch.tensor, range(3))
        ]
        assert all(900 < len(v) < 1100 for v in values)
        assert not torch.equal(values[0], values[1])
        for v in values:
            assert v.mean() == pytest.approx(x.mean().item(), rel=0.35)


@pytest.mark.parametrize("mode", [True, False])
def test_nan_is_an_error(mode):
    layer = lt.LQLinear(4, 2)
    layer(rectified(8, 4))
    layer.train(mode)
    x = rectified(8, 4)
    x[3, 2] = torch.nan
    with pytest.raises(ValueError, match=r"LQActivation: the input \(8, 4\) holds NaN"):
        layer(x)
    with torch.no_grad():
        layer.weight[1, 1] = torch.nan
    with pytest.raises(ValueError, match="values hold NaN"):
        layer(rectified(8, 4))


def test_arguments_that_are_wrong():
    for options in ({"w_bits": 5}, {"w_bits": 0}, {"a_bits": 8}, {"decay": 1.0}, {"sample": 0}):
        with pytest.raises(ValueError, match=str(next(iter(options.values())))):
            lt.LQLinear(4, 4, **options)
    with pytest.raises(ValueError, match="'lq:5/2' is not one of"):
        lt.swap(nn.Linear(4, 4), {"": "lq:5/2"})
    with pytest.raises(ValueError, match="swap: 0: LQWeight: bits is 7"):
        lt.swap(nn.Sequential(nn.Linear(4, 4)), {"0": {"layer": "lq", "w_bits": 7}})
    with pytest.raises(ValueError, match="padding_mode 'circular'"):
        lt.LQConv2d.from_float(nn.Conv2d(3, 3, 3, padding_mode="circular"))


def test_the_exported_network_has_codes_and_bases():
    onnx = pytest.importorskip("onnx")
    numpy_helper = pytest.importorskip("onnx.numpy_helper")
    from lowbit.torch.lowering import to_onnx

    model = net()
    x = torch.randn(4, 1, 8, 8)
    model(x)
    graph = onnx.load_from_string(to_onnx(model, x)).graph
    values = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    values |= {n.output[0]: numpy_helper.to_array(n.attribute[0].t) for n in graph.node if n.op_type == "Constant"}
    ours = [n for n in graph.node if n.domain == "lowbit"]
    assert [n.op_type for n in ours] == ["LevelQuantize", "BasisWeight"] * 2
    for layer, (levels, weight) in zip((model[3], model[7]), (ours[:2], ours[2:]), strict=True):
        np.testing.assert_array_equal(values[levels.input[1]], layer.quantize_input.basis.numpy())
        planes, basis = (values[name] for name in weight.input)
        assert planes.dtype == np.int8
        wanted = layer.eval().quantize_weight(layer.weight).detach().numpy()
        np.testing.assert_allclose(np.einsum("po...,op->o...", planes, basis), wanted, rtol=1e-6)
        assert [n.op_type for n in graph.node if weight.output[0] in n.input] in (["Conv"], ["Gemm"])
