"""HAQ's agent: what it sees, what its actions mean, how the budget is kept, and that a search repeats and resumes."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="lowbit.torch needs torch")

from lowbit.torch import HaqLayer, HaqSettings, HaqSpace, haq_search  # noqa: E402
from lowbit.torch.haq.agent import Agent, truncated_normal  # noqa: E402

SEED = 3  # of a problem whose exact optimum is far from any uniform one
BOTH = {f"int:{w}/{a}": (w, a) for w in range(2, 9) for a in range(2, 9)}
WEIGHTS = {f"int:{w}/8": (w, 8) for w in range(2, 9)}


def layers(n, choices, first=None):
    """Channels double and areas halve along the net; the first layer may have choices of its own."""
    out = []
    for i in range(n):
        c = 16 << (3 * i // n)
        out.append(HaqLayer(f"l{i}", choices, c, c, 3, 1, 1024 >> (2 * (3 * i // n)), 9 * c * c))
    if first is not None:
        out[0] = HaqLayer("l0", first, 16, 16, 3, 1, 1024, 2304)
    return out


def by_table(stack, table):
    """A space whose cost is a sum of table[layer, weight bits, activation bits]."""
    index = {layer.name: i for i, layer in enumerate(stack)}
    return HaqSpace(
        stack, lambda chosen: sum(table[(index[n], *stack[index[n]].choices[c])] for n, c in chosen.items())
    )


def bitwise(n, choices=BOTH):
    """Cost in proportion to weight bits times activation bits times multiplications."""
    stack = layers(n, choices)
    return by_table(
        stack, {(i, w, a): x.weights * x.area * w * a / 1e6 for i, x in enumerate(stack) for w, a in choices.values()}
    )


# What an action means -------------------------------------------------------------------------------------------------


def published(action, fewest, most):
    """HAQ's mapping, with the clip after the rounding."""
    return min(max(round(fewest - 0.5 + action * (most - fewest + 1)), fewest), most)


@given(st.floats(0, 1), st.sampled_from([(1, 8), (2, 8), (3, 5)]))
def test_actions_are_bits_as_published(action, reach):
    choices = {f"{w}": (w, 8) for w in range(reach[0], reach[1] + 1)}
    space = HaqSpace(layers(1, choices), lambda chosen: 0.0)
    bits = space.bits(0, space.act(space.most, 0, action)[0])[0]
    # shares begin at multiples of 1 / n; which side a tie falls to is rounding's, half to even
    assert bits == published(action, *reach) or (action * (reach[1] - reach[0] + 1)) % 1 == 0
    assert reach[0] <= bits <= reach[1]


def test_an_action_of_zero_is_the_fewest_bits_not_none():
    space = HaqSpace(layers(1, {str(w): (w, 8) for w in range(1, 9)}), lambda chosen: 0.0)
    assert round(1 - 0.5 + 0.0 * 8) == 0  # the trap
    assert space.act(space.most, 0, 0.0) == ("1",) and space.act(space.most, 0, 1.0) == ("8",)


def test_two_steps_per_layer_and_none_for_fixed_ones():
    space = HaqSpace(layers(3, BOTH, first={"int8": (8, 8)}), lambda chosen: 0.0)
    assert space.steps == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert HaqSpace(layers(2, WEIGHTS), lambda chosen: 0.0).steps == [(0, 0), (1, 0)]
    chosen = space.act(space.act(space.most, 0, 0.0), 1, 0.3)
    assert chosen == ("int8", "int:2/4", "int:8/8")


def test_choices_need_not_be_a_grid():
    mixed = {"float32": (32, 32), "int8": (8, 8), "codebook:4": (4, 32), "int:4/4": (4, 4), "int8-affine": (8, 8)}
    space = HaqSpace(layers(1, mixed), lambda chosen: 0.0)
    reached = {
        space.act(space.act(space.most, 0, w), 1, a)[0] for w in np.linspace(0, 1, 9) for a in np.linspace(0, 1, 9)
    }
    assert reached == {"float32", "int8", "codebook:4", "int:4/4"}  # of equal bits the first


def test_states_are_ten_numbers_from_0_to_1():
    stack = [
        HaqLayer("conv", BOTH, 3, 16, 3, 1, 1024, 432),
        HaqLayer("depthwise", BOTH, 16, 16, 3, 2, 1024, 144, depthwise=True),
        HaqLayer("fc", BOTH, 16, 10, 1, 0, 1, 160),
    ]
    space = HaqSpace(stack, lambda chosen: 0.0)
    chosen = ("int:4/2", "int:6/8", "int:8/8")
    states = np.array([space.state(chosen, s) for s in range(6)])
    assert states.dtype == np.float32 and states.shape == (6, 10)
    assert states.min() == 0 and states.max() == 1
    np.testing.assert_array_equal(states[:, 0], [0, 0, 1, 1, 0, 0])
    np.testing.assert_array_equal(states[:, 3], [0.5, 0.5, 1, 1, 0, 0])
    np.testing.assert_array_equal(states[:, 7], [0, 0, 0.5, 0.5, 1, 1])
    np.testing.assert_array_equal(states[:, 8], np.float32([1, 4 / 8, 2 / 8, 6 / 8, 8 / 8, 8 / 8]))
    np.testing.assert_array_equal(states[:, 9], [1, 0, 1, 0, 1, 0])
    same = HaqSpace(layers(1, BOTH), lambda chosen: 0.0)
    assert not same.state(same.most, 0)[:8].any()  # no difference between layers: 0, not NaN


# The budget -----------------------------------------------------------------------------------------------------------


def published_enforcement(bits, cost, budget):
    """Wang et al.'s loop, on lists of [weight bits, activation bits] from 2 to 8."""
    bits = [list(pair) for pair in bits]
    while cost(bits) > budget:
        for pair in reversed(bits):
            for side in (1, 0):
                if cost(bits) > budget and pair[side] > 2:
                    pair[side] -= 1
    return [tuple(pair) for pair in bits]


@given(st.lists(st.tuples(st.integers(2, 8), st.integers(2, 8)), min_size=4, max_size=4), st.floats(0.07, 1))
def test_where_every_bit_costs_the_budget_is_kept_as_published(bits, share):
    space = bitwise(4)
    budget = share * space.cost(space.most)
    got = space.enforce(tuple(f"int:{w}/{a}" for w, a in bits), budget)

    def cost(pairs):
        return sum(x.weights * x.area * w * a / 1e6 for x, (w, a) in zip(space.layers, pairs, strict=True))

    assert got == tuple(f"int:{w}/{a}" for w, a in published_enforcement(bits, cost, budget))


@given(st.integers(0, 10**6), st.floats(0, 1))
def test_any_table_keeps_any_budget_that_can_be_kept(seed, share):
    rng = np.random.default_rng(seed)
    stack = layers(3, BOTH)
    table = {(i, w, a): float(rng.integers(1, 9)) for i in range(3) for w, a in BOTH.values()}
    space = by_table(stack, table)
    least = sum(min(table[i, w, a] for w, a in BOTH.values()) for i in range(3))
    assert space.cost(space.cheapest()) == least
    budget = least + share * (24 - least)
    got = space.enforce(tuple(rng.choice(list(BOTH), 3)), budget)
    assert space.cost(got) <= budget
    for i in range(3):  # no bit is missing that would cost nothing
        w, a = space.bits(i, got[i])
        assert not any(
            table[i, w2, a2] <= table[i, w, a] and (w2 + a2 > w + a) and w2 >= w and a2 >= a for w2, a2 in BOTH.values()
        )
    with pytest.raises(ValueError, match="cannot be met"):
        space.enforce(space.most, least - 0.5)


def test_bits_that_cost_nothing_are_kept():
    stack = layers(2, BOTH)  # weights of 4 bits and fewer are faster, activations do not matter
    space = by_table(stack, {(i, w, a): 1.0 if w <= 4 else 2.0 for i in range(2) for w, a in BOTH.values()})
    assert space.enforce(("int:2/2", "int:7/3"), 3.0) == ("int:4/8", "int:8/8")
    assert space.enforce(space.most, 3.0) == ("int:8/8", "int:4/8")


# The agent ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mean", "std"), [(0.5, 0.5), (0.0, 0.2), (0.97, 0.05), (0.3, 5.0)])
def test_noise_is_a_truncated_normal(mean, std):
    quantiles = (np.arange(4000) + 0.5) / 4000
    got = np.array([truncated_normal(mean, std, q) for q in quantiles])
    stats = pytest.importorskip("scipy.stats")
    np.testing.assert_allclose(got, stats.truncnorm.ppf(quantiles, -mean / std, (1 - mean) / std, mean, std), atol=1e-9)
    assert truncated_normal(0.7, 0.0, 0.9) == 0.7


def test_every_step_has_the_final_reward_and_only_the_last_is_terminal():
    agent = Agent(6, HaqSettings(), 0)
    states = np.random.default_rng(0).random((4, 10), np.float32)
    agent.store(states, np.float32([0.1, 0.2, 0.3, 0.4]), -0.5)
    rows = agent.memory[:4].numpy()
    np.testing.assert_array_equal(rows[:, 11], np.float32([-0.5] * 4))
    np.testing.assert_array_equal(rows[:3, 12:22], states[1:])
    np.testing.assert_array_equal(rows[:, 22], [1, 1, 1, 0])
    agent.store(states, np.float32([0.5] * 4), 1.0)  # the oldest go first
    assert agent.stored == 8 and agent.memory[[4, 5, 0, 1], 11].tolist() == [1.0] * 4
    assert agent.memory[2, 11] == -0.5


def test_the_networks_are_those_of_the_paper():
    agent = Agent(64, HaqSettings(), 0)
    assert sum(p.numel() for p in agent.actor.parameters()) == 10 * 300 + 300 + 300 * 300 + 300 + 300 + 1
    assert sum(p.numel() for p in agent.critic.parameters()) == 11 * 300 + 600 + 300 * 300 + 300 + 300 + 1
    action = agent.actor(torch.zeros(2, 10))
    assert action.shape == (2, 1) and ((action > 0) & (action < 1)).all()


def test_critic_and_baseline_learn_what_the_rewards_say():
    agent = Agent(256, HaqSettings(actor_rate=1e-3), 0)
    states, rng = np.zeros((1, 10), np.float32), np.random.default_rng(0)
    for action in rng.random(256, np.float32):  # episodes of one step, best at 0.8
        agent.store(states, np.array([action]), -abs(float(action) - 0.8))
    for _ in range(250):
        agent.learn()
    assert agent.baseline == pytest.approx(float(agent.memory[:, 11].mean()), abs=0.05)
    assert agent.actor(torch.zeros(1, 10)).item() == pytest.approx(0.8, abs=0.1)


# The search -----------------------------------------------------------------------------------------------------------


def problem(n=6):
    """Accuracy falls with each layer's bits, some layers hurt far more; and the exact best under half of the bits."""
    hurt = np.random.default_rng(SEED).lognormal(0, 1.5, n)
    stack = layers(n, WEIGHTS)
    space = by_table(stack, {(i, w, 8): x.weights * w / 8 for i, x in enumerate(stack) for w in range(2, 9)})

    def accuracy(chosen):
        return 100 * math.exp(
            -sum(h * 4.0 ** (3 - space.bits(i, chosen[f"l{i}"])[0]) for i, h in enumerate(hurt)) / 100
        )

    budget = 0.5 * space.cost(space.most)
    return space, accuracy, budget


def exact(space, accuracy, budget):
    """By trying everything."""
    everything = itertools.product(*(list(named.values()) for named in space.choices))
    return max(accuracy(space.assignment(c)) for c in everything if space.cost(c) <= budget)


def test_comes_close_to_the_exact_optimum():
    space, accuracy, budget = problem(5)
    best = exact(space, accuracy, budget)
    uniform = accuracy(dict.fromkeys(space.names, "int:4/8"))
    result = haq_search(space, accuracy, budget, original=100, episodes=70, seed=1)
    assert result.cost <= budget and len(result.history) == 70
    assert all(cost <= budget for _, _, cost, _ in result.history)
    assert result.accuracy == accuracy(result.assignment)
    assert best - result.accuracy < 0.2 * (best - uniform)
    early, late = (np.mean([h[1] for h in result.history[s]]) for s in (slice(20), slice(-20, None)))
    assert late > early + 0.5 * (best - early)  # the agent learned; luck alone stays where it was
    assert result.history[0][0] == pytest.approx(0.1 * (result.history[0][1] - 100))


def test_a_seed_repeats_and_a_checkpoint_resumes_exactly(tmp_path):
    space, accuracy, budget = problem(4)
    settings = HaqSettings(warmup=6, batch=16)
    torch.manual_seed(3)

    def run(episodes, seed=2, file=None, evaluate=accuracy):
        return haq_search(
            space,
            evaluate,
            budget,
            original=100,
            episodes=episodes,
            seed=seed,
            settings=settings,
            checkpoint=file,
            every=4,
        )

    whole = run(20)
    drawn = torch.rand(1)
    torch.manual_seed(3)
    assert torch.rand(1) == drawn  # the caller's generator was left alone
    assert run(20).history == whole.history
    assert run(20, seed=3).history != whole.history

    calls = itertools.count()

    def dies(chosen):
        if next(calls) == 10:
            raise OSError("the machine went away")
        return accuracy(chosen)

    file = tmp_path / "haq.pt"
    with pytest.raises(OSError, match="went away"):
        run(20, file=file, evaluate=dies)
    resumed = run(20, file=file)
    assert resumed.history == whole.history and resumed.assignment == whole.assignment
    assert [f.name for f in tmp_path.iterdir()] == ["haq.pt"]
    longer = run(24, file=file)
    assert longer.history == run(24).history and longer.history[:20] == whole.history
    assert run(20, file=file).history == longer.history  # what is there already stays


def test_an_assignment_is_evaluated_once():
    space, accuracy, budget = problem(3)
    seen = []

    def evaluate(chosen):
        seen.append(tuple(chosen.values()))
        return accuracy(chosen)

    result = haq_search(space, evaluate, budget, original=100, episodes=30)
    assert len(seen) == len(set(seen)) == result.evaluations


def test_a_checkpoint_of_another_search_is_refused(tmp_path):
    space, accuracy, budget = problem(3)
    file = tmp_path / "haq.pt"

    def run(**changes):
        options = {"original": 100, "episodes": 2, "seed": 1, "checkpoint": file, "identity": "net A"} | changes
        space_, budget_ = options.pop("space", space), options.pop("budget", budget)
        return haq_search(space_, accuracy, budget_, **options)

    run()
    for name, changes in {
        "seed": {"seed": 2},
        "net": {"identity": "net B"},
        "space": {"space": problem(4)[0]},
        "budget": {"budget": budget + 1},
        "original accuracy": {"original": 99},
        "settings": {"settings": HaqSettings(noise=0.4)},
    }.items():
        with pytest.raises(ValueError, match=rf"haq\.pt is of another search: its {name} is"):
            run(**changes)
    for damage in (b"", b"nonsense", file.read_bytes()[:-100]):
        file.write_bytes(damage)
        with pytest.raises(ValueError, match="no checkpoint of a search"):
            run()
    torch.save({"format": "something else"}, file)
    with pytest.raises(ValueError, match="'something else'"):
        run()


def test_bad_input():
    space, accuracy, budget = problem(3)
    with pytest.raises(ValueError, match="the budget 10 cannot be met: the cheapest assignment costs"):
        haq_search(space, accuracy, 10, original=100, episodes=2)
    with pytest.raises(ValueError, match="NaN"):
        haq_search(space, accuracy, math.nan, original=100, episodes=2)
    with pytest.raises(ValueError, match="episodes 0"):
        haq_search(space, accuracy, budget, original=100, episodes=0)
    for value in (math.nan, -1.0, 101.0):
        with pytest.raises(ValueError, match="no accuracy in percent"):
            haq_search(space, lambda chosen, value=value: value, budget, original=100, episodes=2)
    with pytest.raises(ValueError, match="nothing to search"):
        HaqSpace(layers(2, {"int8": (8, 8)}), lambda chosen: 0.0)
    with pytest.raises(ValueError, match="'l1' has no choices"):
        HaqSpace([*layers(1, BOTH), HaqLayer("l1", {}, 1, 1, 1, 1, 1, 1)], lambda chosen: 0.0)
    with pytest.raises(ValueError, match="names of their own"):
        HaqSpace(layers(1, BOTH) * 2, lambda chosen: 0.0)
