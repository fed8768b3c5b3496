"""DDPG (Lillicrap et al., arXiv 1509.02971) as AMC uses it: one flat module, read top to bottom.

Two things differ from AMC's released code: the actor's output is scaled to the bounds, and the replay buffer holds the
keep ratios that were executed, not those that were wanted.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.special import ndtr, ndtri
from torch import nn
from torch.nn import functional

from amc_latency.search.agents import warm
from amc_latency.search.costs.clamp import Clamp
from amc_latency.search.episodes.problem import Session
from amc_latency.search.judge.record import EpisodeRecord


@dataclass(frozen=True)
class DDPGConfig:
    """Settings of the agent. "Code" is mit-han-lab/amc's default, "paper" AMC's (arXiv 1802.03494)."""

    hidden: int = 300
    """Units in each of the two hidden layers of actor and critic (code)."""
    actor_rate: float = 1e-4
    """Adam's learning rate for the actor (code)."""
    critic_rate: float = 1e-3
    """Adam's learning rate for the critic (code)."""
    tau: float = 0.01
    """Share of the way that a target network moves at each update (paper, code)."""
    gamma: float = 1.0
    """Discount; 1, so that early groups count as much as late ones (paper, code)."""
    batch: int = 64
    """Transitions in an update (paper, code)."""
    replay: int = 2000
    """Transitions kept, the oldest overwritten (the code keeps 100 episodes)."""
    warmup: int = 100
    """Episodes of uniformly random actions, without learning (code)."""
    noise: float = 0.5
    """Sigma of the truncated normal noise on the first action after warm-up (paper, code)."""
    noise_decay: float = 0.95
    """Factor on sigma an episode (code)."""
    baseline_rate: float = 0.5
    """Share of the way that the reward baseline moves to each batch's mean (code; paper: moving average)."""
    actor_from: int = 0
    """Age from which the actor learns; before, the critic learns what a cloned actor's policies are worth (ours)."""
    lowest: float = 0.2
    """Smallest keep ratio that is ever wanted (code: lbound)."""
    highest: float = 1.0
    """The largest (code: 1)."""
    action_layer: int = 1
    """Which hidden layer of the critic the action joins at: 1 (code) or 2 (Lillicrap et al., section 7)."""


def search(session: Session) -> list[EpisodeRecord]:
    """The episodes of a `DDPGAgent`. Raises what `run_episodes` raises."""
    problem, options = session.problem, session.options
    config = DDPGConfig(
        warmup=options.warmup,
        lowest=problem.lowest,
        highest=problem.highest,
        action_layer=options.critic_action_layer,
    )
    if options.warm_start:
        config = replace(config, noise=warm.NOISE, actor_from=warm.ACTOR_FROM)
    return session.episodes(warm.cloned(DDPGAgent(config, session.state_dim, problem.seed), session))


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread, so that sums don't depend on how many there are."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class Replay:
    """The last `size` transitions as plain arrays."""

    def __init__(self, size: int, state_dim: int) -> None:
        self.states = np.zeros((size, state_dim), dtype=np.float32)
        self.next_states = np.zeros((size, state_dim), dtype=np.float32)
        self.actions = np.zeros((size, 1), dtype=np.float32)
        self.rewards = np.zeros((size, 1), dtype=np.float32)
        self.dones = np.zeros((size, 1), dtype=np.float32)
        self.added = 0

    def __len__(self) -> int:
        return min(self.added, len(self.states))

    def add(self, state: np.ndarray, action: float, reward: float, next_state: np.ndarray, done: bool) -> None:
        """Keep one transition, in place of the oldest when full."""
        i = self.added % len(self.states)
        self.states[i], self.next_states[i] = state, next_state
        self.actions[i], self.rewards[i], self.dones[i] = action, reward, done
        self.added += 1

    def sample(self, n: int, rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
        """`n` transitions with replacement: states, actions, rewards, next states, dones."""
        i = rng.integers(len(self), size=n)
        arrays = (self.states, self.actions, self.rewards, self.next_states, self.dones)
        return tuple(torch.from_numpy(array[i]) for array in arrays)


class DDPGAgent:
    """Actor and critic for one keep ratio a step.

    The same config, seed and history give the same actions: it draws from its own generators only and
    computes on one thread, so neither torch's global seed nor the number of threads changes what it does.
    """

    def __init__(self, config: DDPGConfig, state_dim: int, seed: int) -> None:
        self.config = config
        self.rng = np.random.default_rng(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            # Scaled to the bounds (ours): a critic that is asked about keep ratios that nobody ever executed answers
            # with whatever it extrapolates to, and the targets of all others are built on that.
            self.actor = nn.Sequential(
                _two_hidden(state_dim, config.hidden), nn.Sigmoid(), Between(config.lowest, config.highest)
            )
            self.critic = CRITICS[config.action_layer](state_dim, config.hidden)
        self.target_actor = copy.deepcopy(self.actor)
        self.target_critic = copy.deepcopy(self.critic)
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), config.actor_rate, fused=True)
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), config.critic_rate, fused=True)
        self.replay = Replay(config.replay, state_dim)
        self.baseline: float | None = None

    @property
    def warmup(self) -> int:
        """Episodes of random actions."""
        return self.config.warmup

    def begin(self, clamp: Clamp) -> None:
        """Nothing to prepare: actions follow from states."""

    @one_thread()
    def act(self, state: np.ndarray, age: int) -> float:
        """The keep ratio wanted: random in the warm-up, whose `age` is negative, then the actor's with noise.

        `age` counts episodes since exploration began, and the noise decays with it.
        """
        config = self.config
        if age < 0:
            return float(self.rng.uniform(config.lowest, config.highest))
        with torch.no_grad():
            mean = self.actor(torch.from_numpy(state)).item()
        sigma = config.noise * config.noise_decay**age
        return truncated_normal(mean, sigma, config.lowest, config.highest, self.rng)

    def learn(self, states: list[np.ndarray], actions: list[float], rewards: list[float], age: int) -> None:
        """Store a finished episode, then take one gradient step a transition, if the warm-up is over.

        `states` holds the terminal one too, so is one longer than `actions`: the keep ratios **executed**,
        after the clamp (the code stores what was wanted). As in AMC every transition gets the episode's whole reward.
        """
        for t, action in enumerate(actions):
            self.store(states[t], action, sum(rewards), states[t + 1], done=t == len(actions) - 1)
        if age >= 0:
            for _ in actions:
                self.update(with_actor=age >= self.config.actor_from)

    def store(self, state: np.ndarray, action: float, reward: float, next_state: np.ndarray, done: bool) -> None:
        """Put one transition into the replay buffer."""
        self.replay.add(state, action, reward, next_state, done)

    @one_thread()
    def clone(self, states: np.ndarray, actions: np.ndarray, steps: int = 300, rate: float = 1e-3) -> None:
        """Behaviour cloning: fit the actor to keep ratios [n] that others chose in `states` [n, features]."""
        inputs = torch.from_numpy(np.asarray(states, dtype=np.float32))
        wanted = torch.from_numpy(np.asarray(actions, dtype=np.float32)).unsqueeze(1)
        optimizer = torch.optim.Adam(self.actor.parameters(), rate)
        for _ in range(steps):
            loss = functional.mse_loss(self.actor(inputs), wanted)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        self.target_actor.load_state_dict(self.actor.state_dict())

    @one_thread()
    def update(self, with_actor: bool = True) -> None:
        """One gradient step of the critic, and of the actor, on a batch from the replay buffer."""
        config = self.config
        states, actions, rewards, next_states, dones = self.replay.sample(config.batch, self.rng)
        mean = rewards.mean().item()
        if self.baseline is None:
            self.baseline = mean
        self.baseline += config.baseline_rate * (mean - self.baseline)

        critic_loss = self._critic_loss(states, actions, rewards - self.baseline, next_states, dones)
        self.critic_optimizer.zero_grad()
        critic_loss.backward()
        self.critic_optimizer.step()

        if with_actor:
            actor_loss = self._actor_loss(states)
            self.actor_optimizer.zero_grad()
            # Through the critic, whose own gradients are of no use here.
            actor_loss.backward(inputs=list(self.actor.parameters()))
            self.actor_optimizer.step()

        polyak_update(self.target_critic, self.critic, config.tau)
        polyak_update(self.target_actor, self.actor, config.tau)

    def _critic_loss(
        self,
        states: torch.Tensor,
        actions: torch.Tensor,
        rewards: torch.Tensor,
        next_states: torch.Tensor,
        dones: torch.Tensor,
    ) -> torch.Tensor:
        with torch.no_grad():
            next_values = self.target_critic(next_states, self.target_actor(next_states))
            # Nothing follows the last group: its value must not leak into the return.
            returns = rewards + self.config.gamma * (1 - dones) * next_values
        return functional.mse_loss(self.critic(states, actions), returns)

    def _actor_loss(self, states: torch.Tensor) -> torch.Tensor:
        return -self.critic(states, self.actor(states)).mean()


def truncated_normal(mean: float, sigma: float, low: float, high: float, rng: np.random.Generator) -> float:
    """One draw from a normal cut to `low`..`high`, by its inverse distribution function."""
    mean = min(max(mean, low), high)
    from_, to = ndtr((low - mean) / sigma), ndtr((high - mean) / sigma)
    return float(np.clip(mean + sigma * ndtri(rng.uniform(from_, to)), low, high))


class Between(nn.Module):
    """Scales 0..1 to `low`..`high`."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = low, high

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The value that lies at share `x` of the way."""
        return self.low + (self.high - self.low) * x


class CriticAtFirst(nn.Module):
    """Q of states [n, features] and actions [n, 1]: [n, 1]. The action joins at the first hidden layer."""

    def __init__(self, state_dim: int, hidden: int) -> None:
        super().__init__()
        self.layers = _two_hidden(state_dim + 1, hidden)

    def forward(self, states: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """Q: [n, 1]."""
        return self.layers(torch.cat([states, actions], 1))


class CriticAtSecond(nn.Module):
    """Q of states [n, features] and actions [n, 1]: [n, 1]. The action joins at the second hidden layer."""

    def __init__(self, state_dim: int, hidden: int) -> None:
        super().__init__()
        self.first = nn.Linear(state_dim, hidden)
        self.second = nn.Linear(hidden + 1, hidden)
        self.last = small_last(hidden)

    def forward(self, states: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """Q: [n, 1]."""
        known = functional.relu(self.first(states))
        return self.last(functional.relu(self.second(torch.cat([known, actions], 1))))


CRITICS = {1: CriticAtFirst, 2: CriticAtSecond}
"""By the hidden layer that the action joins at."""


def _two_hidden(inputs: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), small_last(hidden))


def small_last(hidden: int) -> nn.Linear:
    """A last layer whose first outputs are near 0 (Lillicrap et al., section 7)."""
    last = nn.Linear(hidden, 1)
    nn.init.uniform_(last.weight, -3e-3, 3e-3)
    nn.init.uniform_(last.bias, -3e-3, 3e-3)
    return last


def polyak_update(target: nn.Module, source: nn.Module, tau: float) -> None:
    """Move a target network `tau` of the way to `source`."""
    with torch.no_grad():
        torch._foreach_lerp_(list(target.parameters()), list(source.parameters()), tau)
