"""HAQ's reward by short training: rounding as convert rounds, and an accuracy that repeats."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="lowbit.torch needs torch")

from torch import nn  # noqa: E402

import lowbit  # noqa: E402
from lowbit.graph.weights import quantize_weights  # noqa: E402
from lowbit.torch import HaqLayer, HaqSettings, HaqSpace, haq_search  # noqa: E402
from lowbit.torch.haq import FineTuning  # noqa: E402


def stripes(n, seed):
    """Images of three kinds of stripes under noise: (n, 1, 8, 8), labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (n,), generator=generator)
    i, j = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    kinds = torch.stack([(i % 2).float(), (j % 2).float(), ((i + j) % 2).float()])
    return kinds[labels][:, None] + 0.8 * torch.randn(n, 1, 8, 8, generator=generator), labels


def trained():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 6, 3, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 3),
    )
    optimizer = torch.optim.Adam(net.parameters(), 0.02)
    x, y = stripes(256, 0)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    return net.eval()


TRAIN, HELD_OUT = stripes(256, 0), stripes(300, 1)


def test_weights_and_inputs_are_rounded_as_convert_rounds_them():
    net = trained()
    evaluate = FineTuning(net, TRAIN, HELD_OUT, steps=0)
    weight = net[3].weight.detach()
    codes, scale = quantize_weights(weight.flatten(1).numpy(), True, None, None, bits=3)
    codes = codes.reshape(weight.shape)
    mine = evaluate.quantized({"3": "int:3/8"})[3].weight.detach() / torch.from_numpy(scale).reshape(-1, 1, 1, 1)
    np.testing.assert_allclose(mine, mine.round(), atol=1e-5)
    assert np.abs(mine.round().numpy() - codes).max() <= 1  # which balances the errors of a channel

    overrides = {"3|7": "int:8/3", "0": "float32"}
    model = lowbit.convert(net, "int8", [p.numpy() for p in TRAIN[0].split(64)], overrides, example=TRAIN[0][:1])
    with torch.no_grad():
        simulated = evaluate.quantized({"3": "int:8/3", "7": "int:8/3"})(HELD_OUT[0])
        error = float((net(HELD_OUT[0]) - simulated).square().mean())
    run = torch.from_numpy(model.run(HELD_OUT[0].numpy()))
    assert float((run - simulated).square().mean()) < 0.2 * error


def test_codes_and_gradients():
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1))
    net[0].weight.data.copy_(torch.tensor([[1.0, -0.4], [0.3, 0.0]]))
    x = torch.tensor([[1.0, -1.0], [0.2, 3.0]])
    evaluate = FineTuning(net, (x, torch.zeros(2, dtype=torch.long)), (x, torch.zeros(2, dtype=torch.long)), steps=0)
    rounded = evaluate.quantized({"0": "int:2/8", "2": "codebook:1"})
    weight = rounded[0].weight
    scales = weight.abs().amax(1, keepdim=True)
    assert set((weight / scales).flatten().tolist()) <= {-1.0, 0.0, 1.0}
    assert len(rounded[2].weight.unique()) <= 2
    rounded(x).sum().backward()
    assert rounded[0].parametrizations.weight.original.grad.abs().sum() > 0
    assert torch.equal(net[0].weight, torch.tensor([[1.0, -0.4], [0.3, 0.0]]))  # the caller's net is as it was
    assert torch.equal(evaluate.quantized({"0": "float32"})[0].weight, net[0].weight)


def test_training_helps_and_repeats():
    net = trained()
    low = dict.fromkeys("037", "int:2/2")
    before, after = (FineTuning(net, TRAIN, HELD_OUT, steps=s, batch=64, rate=0.01) for s in (0, 30))
    torch.manual_seed(1)
    drawn = torch.rand(1)
    torch.manual_seed(1)
    first = after(low)
    assert torch.rand(1) == drawn
    assert first == after(low)
    assert first > before(low) + 5
    float_accuracy = before(dict.fromkeys("037", "float32"))
    assert float_accuracy > 95 and abs(before(dict.fromkeys("037", "int8")) - float_accuracy) < 1
    assert before.identity != after.identity
    assert before.identity == FineTuning(net, TRAIN, HELD_OUT, steps=0, batch=64, rate=0.01).identity


def test_a_search_on_a_network(tmp_path):
    net = trained()
    evaluate = FineTuning(net, TRAIN, HELD_OUT, steps=0)
    choices = {f"int:{w}/{a}": (w, a) for w in (2, 4, 8) for a in (2, 4, 8)}
    layers = [
        HaqLayer("0", {"int8": (8, 8)}, 1, 6, 3, 1, 64, 54),
        HaqLayer("3", choices, 6, 6, 3, 1, 36, 324),
        HaqLayer("7", choices, 6, 3, 1, 0, 1, 18),
    ]
    space = HaqSpace(layers, lambda chosen: sum(x.weights * np.prod(x.choices[chosen[x.name]]) for x in layers))
    float_accuracy = evaluate({})
    file = tmp_path / "haq.pt"
    options = {"original": float_accuracy, "settings": HaqSettings(warmup=5), "checkpoint": file}
    result = haq_search(space, evaluate, 0.5 * space.cost(space.most), episodes=12, **options)
    assert result.accuracy > float_accuracy - 5
    other = FineTuning(trained(), TRAIN, stripes(300, 2), steps=0)
    with pytest.raises(ValueError, match="another search: its net"):
        haq_search(space, other, 0.5 * space.cost(space.most), episodes=13, **options)


def test_bad_input():
    net = trained()
    evaluate = FineTuning(net, TRAIN, HELD_OUT, steps=0)
    with pytest.raises(ValueError, match="no layer 'conv9'; it has 0, 3, 7"):
        evaluate({"conv9": "int8"})
    with pytest.raises(ValueError, match="layer '3': 'xnor' is not one of"):
        evaluate({"3": "xnor"})
    with pytest.raises(ValueError, match="held_out has 300 inputs and 256 labels"):
        FineTuning(net, TRAIN, (HELD_OUT[0], TRAIN[1]))
