"""Pruning with retraining and layers with shared weights, against their definitions."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="lowbit.torch needs torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import lowbit  # noqa: E402
import lowbit.torch as lt  # noqa: E402
from lowbit.compression import codebook_gradient, layer_sizes  # noqa: E402


def small_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 6, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 16, 10))


def batch(n=16):
    g = torch.Generator().manual_seed(1)
    return torch.randn(n, 1, 8, 8, generator=g), torch.randint(0, 10, (n,), generator=g)


def train(net, steps=5, kind=torch.optim.SGD, **options):
    optimizer = kind(net.parameters(), **options)
    x, y = batch()
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
    return optimizer


@pytest.mark.parametrize(
    ("kind", "options"),
    [(torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-2}), (torch.optim.AdamW, {"lr": 0.01})],
)
def test_momentum_does_not_revive_a_pruned_weight(kind, options):
    net = small_net()
    optimizer = train(net, kind=kind, **options)  # momentum gathers before the pruning
    pruner = lt.Pruner(net)
    pruner.attach(optimizer)
    pruner.prune({"0": 0.5, "3": 0.1})
    before = net[3].weight.detach().clone()
    x, y = batch()
    for _ in range(5):
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
    assert pruner.densities() == {"0": pytest.approx(27 / 54), "3": pytest.approx(96 / 960)}
    for name, layer in (("0", net[0]), ("3", net[3])):
        assert not layer.weight[~pruner.masks[name]].any()
    assert (net[3].weight[pruner.masks["3"]] != before[pruner.masks["3"]]).all()


def test_a_surviving_weight_may_pass_through_zero():
    net = nn.Linear(4, 1, bias=False)
    pruner = lt.Pruner(net)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[1.0, 2.0, 0.1, 0.2]]))
    pruner.prune(0.5)
    with torch.no_grad():
        net.weight[0, 0] = 0
    pruner.apply()
    with torch.no_grad():
        net.weight += 1
    pruner.apply()
    assert net.weight.tolist() == [[1.0, 3.0, 0.0, 0.0]]


def test_iterative_pruning_and_masks_as_state():
    net = small_net()
    pruner = lt.Pruner(net)
    masks = []
    for density in (0.8, 0.4, 0.2):
        pruner.prune(density)
        masks.append(pruner.masks["3"].clone())
        train(net, lr=0.1)
        pruner.apply()
    assert [round(m.float().mean().item(), 1) for m in masks] == [0.8, 0.4, 0.2]
    assert not (masks[2] & ~masks[1]).any() and not (masks[1] & ~masks[0]).any()
    other = lt.Pruner(small_net())
    other.load_state_dict(pruner.state_dict())
    assert torch.equal(other.layers["3"].weight != 0, masks[2])
    with pytest.raises(ValueError, match="are not for layers"):
        other.load_state_dict({"3": masks[2]})


def test_threshold_by_deviation():
    net = nn.Linear(50, 40)
    spread = net.weight.std(correction=0)
    wanted = net.weight.abs() >= spread
    pruner = lt.Pruner(net)
    pruner.prune(deviations=1.0)
    assert torch.equal(pruner.masks[""], wanted)


def test_wrong_prunings_are_named():
    pruner = lt.Pruner(small_net())
    with pytest.raises(ValueError, match="'5' matches no layer; they are 0, 3"):
        pruner.prune({"5": 0.1})
    with pytest.raises(ValueError, match="layer '0': density is 0"):
        pruner.prune(0.0)
    with torch.no_grad():
        pruner.layers["3"].weight[0, 7] = float("nan")
    with pytest.raises(ValueError, match="layer '3': weight 7 is nan"):
        pruner.prune({"3": 0.5})


@pytest.mark.parametrize("pruned", [False, True])
@pytest.mark.parametrize("which", [0, 3])
def test_centroids_get_the_sum_of_their_weights_gradients(which, pruned):
    net = small_net()
    if pruned:
        lt.Pruner(net).prune(0.3)
    lt.swap(net, {str(which): "codebook:3"})
    layer, x, y = net[which], *batch()
    assert layer.pinned == pruned
    F.cross_entropy(net(x), y).backward()
    twin = lt.unshared(net)
    F.cross_entropy(twin(x), y).backward()
    assert torch.equal(net(x), twin(x))
    expected = codebook_gradient(
        twin[which].weight.grad.numpy(), layer.codes.numpy(), layer.codebook.numel(), pinned=pruned
    )
    np.testing.assert_allclose(layer.codebook.grad, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(layer.bias.grad, twin[which].bias.grad, rtol=1e-6)


def test_fine_tuning_keeps_assignments_and_zeros():
    net = small_net()
    lt.Pruner(net).prune(0.3)
    zeros = net[3].weight == 0
    lt.swap(net, {"0": "codebook:4", "3": "codebook:2"})
    codes, start = net[3].codes.clone(), net[3].codebook.detach().clone()
    loss = [F.cross_entropy(net(batch()[0]), batch()[1]).item()]
    train(net, steps=30, kind=torch.optim.Adam, lr=1e-2)
    loss.append(F.cross_entropy(net(batch()[0]), batch()[1]).item())
    assert loss[1] < loss[0]
    assert torch.equal(net[3].codes, codes) and not torch.equal(net[3].codebook, start)
    assert net[3].codebook[0] == 0 and torch.equal(net[3].shared == 0, zeros)
    assert {n for n, _ in net.named_parameters()} == {f"{i}.{p}" for i in (0, 3) for p in ("codebook", "bias")}


def test_state_dict_round_trip():
    net = lt.swap(small_net(), {"3": "codebook:2"})
    other = lt.swap(small_net(), {"3": "codebook:2"})
    train(net, lr=0.01)
    other.load_state_dict(net.state_dict())
    assert torch.equal(net(batch()[0]), other(batch()[0]))


def test_few_values_take_a_shorter_codebook():
    layer = nn.Linear(8, 8)
    with torch.no_grad():
        layer.weight.copy_(torch.where(layer.weight > 0, 0.5, -0.25))
    shared = lt.CodebookLinear.from_float(layer, bits=4)
    assert shared.codebook.tolist() == [-0.25, 0.5] and torch.equal(shared.shared, layer.weight)


def test_gradients_by_finite_differences():
    codes = torch.randint(0, 3, (4, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    codebook = torch.randn(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda c: lt.shared_weight(c, codes).sin(), codebook)


def test_compress_with_fine_tuning_runs_on_the_engine():
    """Stages in order, pruned weights stay 0 through an optimiser that the caller makes, and the engine agrees."""
    stages = []

    def finetune(module, stage):
        stages.append((stage, type(module[3]).__name__))
        train(module, lr=0.05, momentum=0.9, steps=5)

    net = small_net()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    x = batch()[0]
    model = lowbit.compress(net, sparsity={"Gemm": 0.8}, bits={"Conv": 6, "Gemm": 4}, finetune=finetune, example=x[:1])
    assert stages == [("prune", "Linear"), ("codebook", "CodebookLinear")]
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    conv, fc = layer_sizes(model.plan)
    assert (conv.bits, fc.bits, fc.kept) == (6, 4, 192)
    assert np.abs(model.run(x.numpy()) - net(x).detach().numpy()).max() > 1e-3


def test_a_module_with_shared_layers_converts():
    net = small_net()
    lt.Pruner(net).prune(0.2)
    lt.swap(net, {"0": "codebook:5", "3": "codebook:4"})
    x = batch()[0]
    model = lowbit.compress(net, bits={"Conv": 5, "Gemm": 4}, example=x[:1])
    np.testing.assert_allclose(model.run(x.numpy()), net(x).detach().numpy(), rtol=1e-4, atol=1e-5)
    sizes = layer_sizes(model.plan)
    assert [s.codebook // 4 for s in sizes] == [net[0].codebook.numel(), net[3].codebook.numel()]


def test_other_paddings_are_refused():
    with pytest.raises(ValueError, match="padding_mode 'circular'"):
        lt.CodebookConv2d.from_float(nn.Conv2d(1, 1, 3, padding_mode="circular"))
    with pytest.raises(ValueError, match=r"swap: 3: .*bits is 0"):
        lt.swap(small_net(), {"3": {"layer": "codebook", "bits": 0}})
