"""Estimators and binarizations of lowbit.torch against NumPy and finite differences."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="lowbit.torch needs torch")

import lowbit.torch as lt  # noqa: E402

X = np.concatenate([np.linspace(-2.5, 2.5, 101), [0.0, -0.0, 1e-30, -1e-30, 1.0, -1.0, 100.0, -100.0]]).astype("f4")


def value_and_gradient(function, x, g=None):
    x = torch.tensor(x, requires_grad=True)
    y = function(x)
    y.backward(torch.ones_like(y) if g is None else torch.tensor(g))
    return y.detach().numpy(), x.grad.numpy()


def signs(x):
    return np.where(x >= 0, 1, -1)


def logistic(z):
    return 1 / (1 + np.exp(-z))


SLOPES = {
    "sign": (lt.sign, lambda x: abs(x) <= 1),
    "approx_sign": (lt.approx_sign, lambda x: np.where(abs(x) < 1, 2 - 2 * abs(x), 0)),
    "sign_swish": (lt.sign_swish, None),
    "error_decay 0.1": (lambda x: lt.error_decay_sign(x, 0.1), lambda x: 1 - np.tanh(0.1 * x) ** 2),
    "error_decay 4": (lambda x: lt.error_decay_sign(x, 4.0), lambda x: 4 * (1 - np.tanh(4 * x) ** 2)),
}


@pytest.mark.parametrize("name", SLOPES)
def test_sign_forward_and_slope_backward(name):
    function, slope = SLOPES[name]
    y, g = value_and_gradient(function, X)
    assert np.array_equal(y, signs(X))
    if slope is not None:
        np.testing.assert_allclose(g, slope(X.astype("f8")), atol=1e-6, rtol=1e-5)


def test_no_gradient_gives_the_same_signs():
    for function, _ in SLOPES.values():
        assert np.array_equal(function(torch.tensor(X)).numpy(), signs(X))
        with torch.no_grad():
            assert not function(torch.tensor(X, requires_grad=True)).requires_grad


def test_approx_sign_slope_is_its_polynomials():
    x = np.linspace(-1.5, 1.5, 61) + 1e-3
    f = np.where(x < -1, -1, np.where(x < 0, 2 * x + x**2, np.where(x < 1, 2 * x - x**2, 1)))
    h = 1e-5
    z = x + h
    fz = np.where(z < -1, -1, np.where(z < 0, 2 * z + z**2, np.where(z < 1, 2 * z - z**2, 1)))
    _, g = value_and_gradient(lt.approx_sign, x)
    np.testing.assert_allclose(g, (fz - f) / h, atol=1e-4)


@pytest.mark.parametrize("beta", [1.0, 5.0, 10.0])
def test_sign_swish_slope_is_the_derivative_of_sign_swish(beta):
    def swish(x):
        z = beta * x
        return 2 * logistic(z) * (1 + z * (1 - logistic(z))) - 1

    x = np.linspace(-2, 2, 81)
    _, g = value_and_gradient(lambda t: lt.sign_swish(t, beta), x)
    np.testing.assert_allclose(g, (swish(x + 1e-6) - swish(x - 1e-6)) / 2e-6, atol=1e-6)
    _, far = value_and_gradient(lambda t: lt.sign_swish(t, beta), np.array([1e30, -1e30, np.inf]))
    assert np.all(far == far) and np.all(abs(far) < 1e-20)


def test_stochastic_sign_draws_by_the_hard_sigmoid():
    x = np.array([-3, -1, -0.5, 0, 0.5, 1, 3], "f4")
    torch.manual_seed(3)
    draws = torch.stack([lt.stochastic_sign(torch.tensor(x)) for _ in range(4000)]).numpy()
    assert set(np.unique(draws)) == {-1, 1}
    expected = np.clip((x + 1) / 2, 0, 1)
    assert np.all(draws[:, expected == 1] == 1) and np.all(draws[:, expected == 0] == -1)
    np.testing.assert_allclose((draws == 1).mean(0), expected, atol=4 * 0.5 / np.sqrt(4000))
    _, g = value_and_gradient(lt.stochastic_sign, x)
    assert np.array_equal(g, abs(x) <= 1)


def test_stochastic_draws_repeat_with_the_seed():
    x = torch.zeros(1000)
    first = lt.stochastic_sign(x, torch.Generator().manual_seed(7))
    assert torch.equal(first, lt.stochastic_sign(x, torch.Generator().manual_seed(7)))
    assert not torch.equal(first, lt.stochastic_sign(x, torch.Generator().manual_seed(8)))
    torch.manual_seed(1)
    a = lt.stochastic_sign(x)
    torch.manual_seed(1)
    assert torch.equal(a, lt.stochastic_sign(x))


def test_ap2_is_the_nearest_power_in_logarithm():
    x = np.array([-5.7, -5.6, 0, 0.0625, 1.41, 1.42, 3e-5], "f4")
    y, g = value_and_gradient(lt.ap2, x)
    assert y.tolist() == [-8, -4, 0, 0.0625, 1, 2, 2.0**-15] and np.all(g == 1)


def test_schedule_rejects_progress_outside():
    with pytest.raises(ValueError, match=r"progress 1\.5"):
        lt.error_decay_sharpness(1.5)


# weights ------------------------------------------------------------------------------------------------------------

W = np.random.default_rng(0).normal(0, 0.7, (4, 3, 2, 2))
G = np.random.default_rng(1).normal(0, 1, (4, 3, 2, 2))


@pytest.mark.parametrize("stochastic", [False, True])
def test_binary_connect_gradient_is_not_masked(stochastic):
    y, g = value_and_gradient(lambda w: lt.binary_connect(w, stochastic), W, G)
    assert np.array_equal(g, G) and np.any(abs(W) > 1)
    if not stochastic:
        assert np.array_equal(y, signs(W))


def test_xnor_gradients():
    n = W[0].size
    alpha = abs(W).reshape(4, -1).mean(1).reshape(4, 1, 1, 1)
    s = signs(W)
    for gradient, expected in {
        "exact": s * (G * s).sum((1, 2, 3), keepdims=True) / n + G * alpha * (abs(W) <= 1),
        "paper": G * (1 / n + alpha * (abs(W) <= 1)),
        "released": G * (1 / n + alpha * (abs(W) < 1)) * (1 - 1 / 3) * n,
    }.items():
        y, g = value_and_gradient(lambda w, kind=gradient: lt.xnor_weight(w, kind), W, G)
        np.testing.assert_allclose(y, alpha * s, rtol=1e-12)
        np.testing.assert_allclose(g, expected, rtol=1e-12, err_msg=gradient)
    with pytest.raises(ValueError, match="'fast'"):
        lt.xnor_weight(torch.tensor(W), "fast")


def test_exact_xnor_gradient_is_the_chain_rule_where_nothing_is_discrete():
    """Along alpha, the result is differentiable: finite differences of sum(G alpha sign(W)) with the signs held."""
    w = W / 10  # inside the gate

    def value(w, s):
        return (G * abs(w).reshape(4, -1).mean(1).reshape(4, 1, 1, 1) * s).sum()

    h = 1e-7
    numeric = np.empty_like(w)
    for i in np.ndindex(w.shape):
        up, down = w.copy(), w.copy()
        up[i] += h
        down[i] -= h
        numeric[i] = (value(up, signs(w)) - value(down, signs(w))) / (2 * h)
    alpha = abs(w).reshape(4, -1).mean(1).reshape(4, 1, 1, 1)
    _, g = value_and_gradient(lt.xnor_weight, w, G)
    np.testing.assert_allclose(g - G * alpha, numeric, atol=1e-6)


def test_alpha_minimises_the_distance():
    best = lt.xnor_alpha(torch.tensor(W)).numpy()
    for shift in (-0.01, 0.01):
        moved = (best + shift).reshape(4, 1, 1, 1)
        assert np.all(
            ((W - moved * signs(W)) ** 2).sum((1, 2, 3))
            > ((W - best.reshape(4, 1, 1, 1) * signs(W)) ** 2).sum((1, 2, 3))
        )


def test_balanced_and_libra():
    flat = W.reshape(4, -1)
    expected = (flat - flat.mean(1, keepdims=True)) / flat.std(1, ddof=1, keepdims=True)
    np.testing.assert_allclose(lt.balanced(torch.tensor(W)).numpy().reshape(4, -1), expected, rtol=1e-9)
    shift = 2 ** np.round(np.log2(abs(expected).mean(1)))
    y, g = value_and_gradient(lambda w: lt.libra_weight(w, 2.0), W, G)
    np.testing.assert_allclose(y.reshape(4, -1), shift[:, None] * signs(expected))
    w = torch.tensor(W, requires_grad=True)  # the same chain with torch's own derivatives
    z = w.flatten(1)
    z = (z - z.mean(1, keepdim=True)) / z.std(1, keepdim=True)
    inner = torch.tensor(G).flatten(1) * torch.tensor(shift)[:, None] * 2 * (1 - torch.tanh(2 * z.detach()) ** 2)
    z.backward(inner)
    np.testing.assert_allclose(g, w.grad.numpy(), rtol=1e-9)


def test_ternary_codes_and_scale():
    flat = W.reshape(4, -1)
    kept = abs(flat) > 0.7 * abs(flat).mean(1, keepdims=True)
    codes = lt.ternary_codes(torch.tensor(W)).numpy().reshape(4, -1)
    assert np.array_equal(codes, kept * signs(flat)) and {-1, 0, 1} == set(np.unique(codes))
    alpha = np.array([abs(r[k]).mean() for r, k in zip(flat, kept, strict=True)])
    np.testing.assert_allclose(lt.ternary_alpha(torch.tensor(W)).numpy(), alpha)
    _, g = value_and_gradient(lt.ternary_weight, W, G)
    assert np.array_equal(g, G)


def test_lab_alpha_weighs_by_curvature():
    d = np.random.default_rng(2).uniform(0, 1, W.shape)
    d[0] = 0
    expected = (d * abs(W)).sum((1, 2, 3))[1:] / d.sum((1, 2, 3))[1:]
    alpha = lt.lab_alpha(torch.tensor(W), torch.tensor(d)).numpy()
    np.testing.assert_allclose(alpha[1:], expected)
    np.testing.assert_allclose(alpha[0], abs(W[0]).mean())
    np.testing.assert_allclose(lt.lab_alpha(torch.tensor(W), torch.ones(W.shape)), lt.xnor_alpha(torch.tensor(W)))
    with pytest.raises(ValueError, match=r"\(4, 3, 2, 2\).*\(2,\)"):
        lt.lab_alpha(torch.tensor(W), torch.ones(2))


def test_dorefa_weight():
    y, g = value_and_gradient(lt.dorefa_weight, W, G)
    np.testing.assert_allclose(y, signs(W) * abs(W).mean())
    assert np.array_equal(g, G)
    y, _ = value_and_gradient(lambda w: lt.dorefa_weight(w, 3), W)
    t = np.tanh(W)
    np.testing.assert_allclose(y, 2 * np.round((t / (2 * abs(t).max()) + 0.5) * 7) / 7 - 1, atol=1e-12)
    with pytest.raises(ValueError, match="bits 0"):
        lt.dorefa_weight(torch.tensor(W), 0)


# activations --------------------------------------------------------------------------------------------------------


def test_dorefa_activation_and_gradient():
    x = np.linspace(-1, 2, 50)
    y, g = value_and_gradient(lambda t: lt.dorefa_activation(t, 2), x)
    np.testing.assert_allclose(y, np.round(np.clip(x, 0, 1) * 3) / 3)
    assert np.array_equal(g, (x >= 0) & (x <= 1))

    g = np.random.default_rng(3).normal(0, 1, (2, 50)).astype("f4")
    g[1] = 0
    torch.manual_seed(0)
    total = np.zeros_like(g)
    for _ in range(300):
        _, quantised = value_and_gradient(lambda t: lt.dorefa_gradient(t, 2), np.zeros_like(g), g)
        top = abs(g[0]).max()
        levels = np.round((quantised[0] / (2 * top) + 0.5) * 3, 4)
        assert np.array_equal(levels, np.round(levels)) and np.all(quantised[1] == 0)
        total += quantised
    np.testing.assert_allclose(total[0] / 300, g[0], atol=0.15 * top)  # unbiased: a step is 2/3 of top


def test_pact():
    x = np.array([-1, 0, 0.5, 1.99, 2, 3], "f8")
    alpha = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    y, g = value_and_gradient(lambda t: lt.pact(t, alpha, 4), x)
    clipped = 0.5 * (abs(x) - abs(x - 2) + 2)
    np.testing.assert_allclose(y, np.round(clipped / 2 * 15) / 15 * 2)
    assert g.tolist() == [0, 1, 1, 1, 0, 0] and alpha.grad.item() == 2
    with pytest.raises(ValueError, match=r"\(3,\)"):
        lt.pact(torch.ones(3), torch.ones(3), 4)


def test_learned_threshold_gets_minus_the_gradients():
    layer = lt.LearnedSign(3, "approx_sign")
    x = torch.randn(4, 3, 2, 2, requires_grad=True)
    with torch.no_grad():
        layer.threshold.copy_(torch.tensor([0.1, -0.2, 0.0]))
    g = torch.randn(4, 3, 2, 2)
    y = layer(x)
    y.backward(g)
    assert torch.equal(y, lt.hard_sign(x - layer.threshold.view(3, 1, 1)))
    torch.testing.assert_close(layer.threshold.grad, -x.grad.sum((0, 2, 3)))


def test_k_map_is_the_mean_over_channels_then_windows():
    x = np.random.default_rng(4).normal(0, 1, (2, 3, 7, 6))
    k = lt.k_map(torch.tensor(x), (3, 2), stride=(2, 1), padding=(1, 1), dilation=(1, 2)).numpy()
    a = np.pad(abs(x).mean(1), ((0, 0), (1, 1), (1, 1)))
    for i in range(k.shape[2]):
        for j in range(k.shape[3]):
            np.testing.assert_allclose(k[:, 0, i, j], a[:, 2 * i : 2 * i + 3, j : j + 3 : 2].mean((1, 2)), rtol=1e-9)
    assert torch.autograd.gradcheck(lambda t: lt.k_map(t, 3, padding=1), torch.tensor(x[:1, :, :4], requires_grad=True))


def test_losses():
    y = np.random.default_rng(5).normal(0, 1, (6, 4))
    target = np.array([0, 1, 2, 3, 0, 1])
    t = 2 * np.eye(4)[target] - 1
    expected = (np.maximum(0, 1 - t * y) ** 2).mean()
    np.testing.assert_allclose(lt.squared_hinge(torch.tensor(y), torch.tensor(target)).item(), expected)
    for x in (np.random.default_rng(6).normal(1, s, (8, 3, 2)) for s in (0.1, 1.0, 9.0)):
        m, s = x.mean((0, 2)), x.std((0, 2))
        expected = (
            np.maximum(0, 2 - abs(m) - s) ** 2 + np.maximum(0, s - 4) ** 2 + 0.5 * np.maximum(0, m**2 - s**2)
        ).mean()
        np.testing.assert_allclose(lt.distribution_loss(torch.tensor(x), 0.5).item(), expected, rtol=1e-6)
        assert torch.autograd.gradcheck(lt.distribution_loss, torch.tensor(x, requires_grad=True))
