"""The reproductions' training loop: an interrupted run goes on as if nothing had happened; the best epoch is tested."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="lowbit.torch needs torch")

from torch import nn  # noqa: E402

import lowbit.torch as lt  # noqa: E402

SCRIPTS = Path(__file__).resolve().parents[3] / "examples/python"


def script(name, monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.delitem(sys.modules, name, raising=False)
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def data(n):
    x = torch.randn(n, 8, generator=torch.Generator().manual_seed(n))
    return x, (x[:, 0] > 0).long()


def train(run, to):
    hinge = lambda logits, y, x: lt.squared_hinge(logits, y)  # noqa: E731
    run.train(*data(128), *data(40), lambda x: x + 0.1 * torch.randn_like(x), hinge, fresh_norms=True)
    return run.finish("tiny", *data(41), to / "results.jsonl", extra=1)


def new_run(module, epochs, checkpoint):
    torch.manual_seed(3)
    net = nn.Sequential(
        lt.BinaryConnectLinear(8, 16, stochastic=True), nn.BatchNorm1d(16), lt.BinaryLinear(16, 2), nn.BatchNorm1d(2)
    )
    return module.binary_run(net, epochs, 32, (0.01, 0.001), checkpoint)


def test_a_run_goes_on_where_it_stopped(tmp_path, monkeypatch):
    module = script("reproduction", monkeypatch)
    whole = new_run(module, 4, tmp_path / "whole.pt")
    error = train(whole, tmp_path)
    saved = []
    stopped = new_run(module, 4, tmp_path / "stopped.pt")
    keep = stopped._save
    monkeypatch.setattr(stopped, "_save", lambda: (keep(), saved.append(1), saved[1:] and 1 / 0))
    with pytest.raises(ZeroDivisionError):  # the process ends after the second epoch's checkpoint
        train(stopped, tmp_path)
    monkeypatch.undo()
    again = new_run(module, 4, tmp_path / "stopped.pt")
    assert again.epoch == 2
    assert train(again, tmp_path) == error
    for name, expected in whole.net.state_dict().items():
        assert torch.equal(again.net.state_dict()[name], expected), name
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [r["test_error"] for r in rows] == [error] * 2 and rows[0]["best_epoch"] == rows[1]["best_epoch"]
    assert error < 40 and rows[0]["extra"] == 1
    assert module.table(tmp_path / "results.jsonl").count(f"| tiny | {error} % | ") == 2


@pytest.mark.parametrize("kind", ["bnn", "connect", "connect-stochastic", "mlp", "xnor-lenet", "lenet"])
def test_mnist_nets_have_the_layers_they_are_named_for(kind, monkeypatch):
    module = script("binary_mnist", monkeypatch)
    net = module.lenet(kind == "xnor-lenet") if "lenet" in kind else module.mlp(kind, 32)
    counts = {
        "bnn": {lt.BinaryConnectLinear: 1, lt.BinaryLinear: 3},
        "connect": {lt.BinaryConnectLinear: 4},
        "connect-stochastic": {lt.BinaryConnectLinear: 4},
        "mlp": {nn.Linear: 4},
        "xnor-lenet": {nn.Conv2d: 1, lt.XnorConv2d: 1, lt.XnorLinear: 1, nn.Linear: 1},
        "lenet": {nn.Conv2d: 2, nn.Linear: 2},
    }[kind]
    products = [type(m) for m in net.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    assert {t: products.count(t) for t in products} == counts
    image = module.augment(torch.full((4, 1, 28, 28), -1.0))
    torch.testing.assert_close(image, torch.full_like(image, -1))  # the background stays the background
    assert net(image).shape == (4, 10)


def test_cifar_twins_differ_in_the_blocks_convolutions_only(monkeypatch):
    module = script("binary_cifar10", monkeypatch)
    binary, real = (module.resnet(b) for b in (True, False))
    x = module.augment(torch.randn(2, 3, 32, 32))
    assert binary(x).shape == real(x).shape == (2, 10)
    swapped = [type(m) for m in binary.modules() if isinstance(m, lt.BinaryWeight)]
    assert swapped == [lt.XnorConv2d] * 5
    shapes = [[tuple(p.shape) for p in net.parameters()] for net in (binary, real)]
    assert shapes[0] == shapes[1]


def test_resnet20_takes_the_published_names_and_augmentation_only_moves(monkeypatch):
    module = script("resnet20", monkeypatch)
    net = module.resnet20()
    assert sum(p.numel() for p in net.parameters()) == 269_722
    assert {"layer1.0.conv1.weight", "layer3.2.bn2.running_var", "linear.bias"} <= set(net.state_dict())
    x = torch.rand(64, 3, 32, 32) + 1
    moved = module.augment(x)
    assert net(moved).shape == (64, 10)
    for before, after in zip(x, moved, strict=True):
        inside = after[0] > 0  # the border is 0
        assert inside.sum() >= 28 * 28
        assert torch.isin(after[0][inside], before[0]).all()
    labels = torch.zeros(64, dtype=torch.long)
    logits = net.eval()(x)
    loss = module.distillation(net)(logits, labels, x)
    loss.backward()
    assert torch.isfinite(loss) and net.linear.weight.grad.abs().sum() > 0
