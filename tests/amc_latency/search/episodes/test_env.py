"""The environment: Gymnasium's own checker, features against arithmetic, and the target."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from amc_latency.lut.shapes.architecture import Architecture, Layer
from amc_latency.lut.shapes.shape import LayerShape
from gymnasium.utils.env_checker import check_env

from amc_latency.errors import UserError
from amc_latency.search.costs.clamp import Clamp
from amc_latency.search.costs.costs import LatencyCosts
from amc_latency.search.episodes.env import ChannelEnv
from amc_latency.search.judge.score import Score
from amc_latency.search.records import FEATURES

ARCHITECTURE = Architecture(
    (
        Layer(LayerShape("conv", 3, 16, 32, 32, kernel=3, stride=2, padding=1), None, 0),
        Layer(LayerShape("depthwise", 16, 16, 16, 16, kernel=3, padding=1), 0, 0),
        Layer(LayerShape("conv", 16, 40, 16, 16), 0, 1),
        Layer(LayerShape("global_pool", 40, 40, 16, 16), 1, 1),
        Layer(LayerShape("linear", 40, 10), 1, None),
    ),
    (16, 40),
)
CHOICES = ((8, 16), (8, 24, 40))


def channel_product_ms(shape: LayerShape) -> float:
    """1 ms a thousand products of channels, so that expected values are arithmetic."""
    return shape.c_in * shape.c_out / 1000


def make_env(target_ms: float, accuracy: float = 0.9, offset_ms: float = 0.0) -> ChannelEnv:
    costs = LatencyCosts(ARCHITECTURE, CHOICES, channel_product_ms, offset_ms)
    return ChannelEnv(Clamp(costs, target_ms), lambda counts, best: Score(accuracy, 0.0, 100))


def test_gymnasium_accepts_it() -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*symmetric and normalized.*")
        check_env(make_env(1.5), skip_render_check=True)


def test_features_are_arithmetic() -> None:
    env = make_env(100.0)
    total = 3 * 16 + 16 * 16 + 16 * 40 + 40 * 40 + 40 * 10
    first, _ = env.reset()
    expected = {
        "t": 1 / 2, "n": 16 / 40, "c": 3 / 16, "h": 1, "w": 1, "stride": 1, "k": 1,
        "layer_cost": 3 * 16 / total, "reduced": 0, "rest": 1, "previous": 1,
    }  # fmt: skip
    assert dict(zip(FEATURES, first, strict=True)) == pytest.approx(expected, rel=1e-6)

    second, reward, done, truncated, info = env.step(np.array([0.5], np.float32))
    saved = total - (3 * 8 + 8 * 8 + 8 * 40 + 40 * 40 + 40 * 10)
    expected = {
        "t": 1, "n": 1, "c": 1, "h": 1 / 2, "w": 1 / 2, "stride": 1 / 2, "k": 1 / 3,
        "layer_cost": 16 * 40 / total, "reduced": saved / total,
        "rest": (8 * 40 + 40 * 40 + 40 * 10) / total, "previous": 1 / 2,
    }  # fmt: skip
    assert dict(zip(FEATURES, second, strict=True)) == pytest.approx(expected, rel=1e-6)
    assert (reward, done, truncated, info) == (0.0, False, False, {"action": 0.5, "counts": (8,)})

    last, reward, done, truncated, info = env.step(np.array([0.61], np.float32))
    left = 3 * 8 + 8 * 8 + 8 * 24 + 24 * 24 + 24 * 10
    values = dict(zip(FEATURES, last, strict=True))
    assert values["reduced"] == pytest.approx((total - left) / total, rel=1e-6)
    assert (values["rest"], values["previous"]) == (0.0, pytest.approx(24 / 40))
    assert (done, truncated, reward) == (True, False, pytest.approx(0.9 - 1))
    assert info["counts"] == (8, 24)
    assert info["action"] == 24 / 40
    assert info["predicted_ms"] == pytest.approx(left / 1000)
    with pytest.raises(RuntimeError, match="reset"):
        env.step(np.array([0.5], np.float32))


def test_the_two_stage_state_is_arithmetic() -> None:
    costs = LatencyCosts(ARCHITECTURE, CHOICES, channel_product_ms)
    env = ChannelEnv(Clamp(costs, 100.0), lambda counts, best: Score(0.9, 0.0, 100), state="two-stage")
    first, _ = env.reset()
    second, *_ = env.step(np.array([0.5], np.float32))
    total = 3 * 16 + 16 * 16 + 16 * 40 + 40 * 40 + 40 * 10
    # Group index, channels out and in, kernel height and width, stride, the share that may be pruned, cost.
    np.testing.assert_allclose(first, [1 / 2, 16 / 40, 3 / 16, 1, 1, 1, 8 / 16, 48 / total], rtol=1e-6)
    np.testing.assert_allclose(second, [1, 1, 1, 1 / 3, 1 / 3, 1 / 2, 32 / 40, 640 / total], rtol=1e-6)
    assert env.observation_space.contains(first)


def test_rewards_by_layer_add_up_to_what_the_policy_loses() -> None:
    costs = LatencyCosts(ARCHITECTURE, CHOICES, channel_product_ms)
    asked = []

    def evaluate(counts: tuple[int, ...], best: float) -> Score:
        asked.append(counts)
        return Score(0.5 + counts[0] / 100 + counts[1] / 200, 0.0, 100)

    env = ChannelEnv(Clamp(costs, 100.0), evaluate, by_layer=True)
    env.reset()
    _, first, _, _, info = env.step(np.array([0.5]))
    assert "reward" not in info
    _, second, _, _, info = env.step(np.array([24 / 40]))
    assert asked == [(16, 40), (8, 40), (8, 24)]
    assert (first, second) == (pytest.approx(-0.08), pytest.approx(-0.08))
    assert info["reward"] == pytest.approx(0.5 + 0.08 + 0.12 - 1)
    assert info["score"] == Score(0.5 + 0.08 + 0.12, 0.0, 100)
    # A policy whose score is known is not asked about again.
    env.reset(options={"score": Score(0.25, 1.0, 50)})
    env.step(np.array([0.5]))
    *_, info = env.step(np.array([24 / 40]))
    assert info["reward"] == 0.25 - 1
    assert asked[3:] == [(16, 40), (8, 40)]


def test_reduced_and_rest_share_the_total_without_the_offset() -> None:
    plain, _ = make_env(100.0).reset()
    shifted, _ = make_env(100.0, offset_ms=5.0).reset()
    np.testing.assert_array_equal(plain, shifted)


@pytest.mark.parametrize("action", [np.nan, np.inf, -np.inf, -3.0, 0.0, 1.0, 7.0])
def test_bad_actions_stay_inside_the_target(action: float) -> None:
    env = make_env(1.2)
    state, _ = env.reset()
    done, info = False, {}
    while not done:
        state, reward, done, _, info = env.step(np.array([action]))
        assert np.isfinite(state).all()
        assert np.isfinite(reward)
    assert info["predicted_ms"] <= 1.2


def test_random_actions_are_never_over_the_target() -> None:
    env = make_env(1.2)
    env.action_space.seed(0)
    seen = set()
    for _ in range(50):
        env.reset()
        done, info = False, {}
        while not done:
            _, _, done, _, info = env.step(env.action_space.sample())
        assert info["predicted_ms"] <= 1.2
        seen.add(info["counts"])
    assert len(seen) > 1


def test_reset_options() -> None:
    env = make_env(100.0)
    env.reset(options={"target_ms": 1.2, "score": Score(0.25, 1.0, 50)})
    env.step(np.array([1.0]))
    *_, reward, _, _, info = env.step(np.array([1.0]))
    assert reward == 0.25 - 1
    assert info["predicted_ms"] <= 1.2
    with pytest.raises(UserError, match="out of reach"):
        env.reset(options={"target_ms": 0.001})
