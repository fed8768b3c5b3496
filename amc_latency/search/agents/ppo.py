"""PPO as the two-stage paper (Zhan, Lin, Cao, arXiv 1912.02254) uses it: one flat module, read top to bottom.

The copy of the paper at hand lost its formulas. What is marked "ours" fills a gap, from the work it cites or from
trials on problems whose answer is known. What differs from the paper:

- **Q-values are the rewards that followed**, not the target critic's word for them (`q_values`). With its word the
  bundled network at twice the speed was cut worse than at random: rewards of policies differ by a few hundredths, and
  the critic's error over the rest of an episode is larger. So there are no target networks and no smoothing either:
  `q_values="critic"` has all three, and only with it do `critic_rate`, `tau`, `batch`, `replay`, `smoothing`,
  `smoothing_clip` and `baseline_rate` matter.
- The policy is improved after each batch of episodes, not after each layer: before its end an episode has no reward.
  With rewards by layer (`ChannelEnv.by_layer`) each layer has its own, and Q is the sum of those that follow.
- The actors take turns in one process. They follow one policy, so the batch is the one that they would collect side
  by side.
- The policy's width follows a schedule instead of being learnt; learning rates and their like are ours.
- The state is AMC's unless set: `env.STATES` has the paper's.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from amc_latency.search.agents import warm
from amc_latency.search.agents.ddpg import Between, Replay, one_thread, polyak_update, small_last, truncated_normal
from amc_latency.search.costs.clamp import Clamp
from amc_latency.search.episodes.problem import Session
from amc_latency.search.judge.record import EpisodeRecord


@dataclass(frozen=True)
class PPOConfig:
    """Settings of the agent. "Paper" is the two-stage paper's (arXiv 1912.02254), "DDPG" as in `DDPGConfig`."""

    hidden: int = 64
    """Units in the one hidden layer of actor and critic (paper)."""
    clip: float = 0.2
    """How far from 1 a probability ratio may pay: c (paper)."""
    actors: int = 4
    """Episodes collected under the old policy before it is improved, at least two (paper: several; 4 is ours)."""
    epochs: int = 20
    """Gradient steps on these episodes, all at once (ours: a small rate and many steps let the clip say how far)."""
    actor_rate: float = 1e-3
    """Adam's learning rate for the actor (ours; at 3e-3 one run in four went astray, at 1e-2 every other)."""
    q_values: str = "return"
    """What an action is worth: the rewards that followed (`return`), or the next one and what the target critic expects
    after it (`critic`, paper)."""
    critic_rate: float = 1e-3
    """Adam's learning rate for the critic (DDPG)."""
    tau: float = 0.01
    """Share of the way that a target network moves at each update (paper: slowly; the number is DDPG's)."""
    gamma: float = 1.0
    """Discount (DDPG)."""
    batch: int = 64
    """Transitions in an update of the critic (DDPG)."""
    replay: int = 2000
    """Transitions kept for the critic (DDPG)."""
    warmup: int = 100
    """Episodes of uniformly random actions, without learning (DDPG)."""
    smoothing: float = 0.1
    """Sigma of the noise on the target policy's action (paper: noise; the number is ours)."""
    smoothing_clip: float = 0.25
    """That noise's largest size, for 2.5 sigma as in TD3 (Fujimoto et al., arXiv 1802.09477)."""
    noise: float = 0.3
    """Sigma of the policy, a truncated normal, after the warm-up (ours; DDPG's 0.5 is nearly uniform)."""
    noise_decay: float = 0.99
    """Factor on sigma an episode (ours; slower than DDPG's, for without noise PPO has no gradient)."""
    noise_least: float = 0.03
    """Sigma never falls below it (ours: the clip bounds a step to a share of sigma, so learning would end)."""
    baseline_rate: float = 0.5
    """Share of the way that the reward baseline moves to each episode's reward (DDPG)."""
    lowest: float = 0.2
    """Smallest keep ratio that is ever wanted (DDPG)."""
    highest: float = 1.0
    """The largest."""


def search(session: Session) -> list[EpisodeRecord]:
    """The episodes of a `PPOAgent`. Raises what `run_episodes` raises."""
    problem, options = session.problem, session.options
    config = PPOConfig(warmup=options.warmup, lowest=problem.lowest, highest=problem.highest, actors=options.ppo_actors)
    if options.warm_start:
        config = replace(config, noise=warm.NOISE)
    return session.episodes(warm.cloned(PPOAgent(config, session.state_dim, problem.seed), session))


@dataclass(frozen=True)
class Rollout:
    """An episode of the old policy."""

    states: torch.Tensor
    """[n + 1, features]"""
    sampled: torch.Tensor
    """keep ratios [n]"""
    sigma: float
    """of the policy that sampled them"""
    rewards: torch.Tensor
    """of each step [n]"""


class PPOAgent:
    """Actor and critic for one keep ratio a step.

    The actor gives the mean of a normal truncated to `lowest`..`highest`. Its sigma follows a schedule instead of being
    learnt (ours): the paper's actor ends in one sigmoid, and a few dozen improvements don't teach a width.

    Its probability ratios are those of the keep ratios it **sampled**, not of the ones the clamp executed. The clamp
    belongs to the environment: the policy chose the first, with a density that is known; an executed count stands
    for a whole range of wishes, and a wish that the clamp moved far is one that the policy may never have. The
    critic, where `q_values` asks for one, sees what was executed, since that alone decides the reward.

    Deterministic as `DDPGAgent` is: own generators, one thread.
    """

    def __init__(self, config: PPOConfig, state_dim: int, seed: int) -> None:
        self.config = config
        self.rng = np.random.default_rng(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.actor = nn.Sequential(
                _one_hidden(state_dim, config.hidden), nn.Sigmoid(), Between(config.lowest, config.highest)
            )
            self.critic = _one_hidden(state_dim + 1, config.hidden)
        self.target_actor = copy.deepcopy(self.actor)
        self.target_critic = copy.deepcopy(self.critic)
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), config.actor_rate, fused=True)
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), config.critic_rate, fused=True)
        self.replay = Replay(config.replay, state_dim)
        self.baseline = math.nan
        self.rollouts: list[Rollout] = []
        self._sampled: list[float] = []
        self._target_ms = math.nan

    @property
    def warmup(self) -> int:
        """Episodes of random actions."""
        return self.config.warmup

    def begin(self, clamp: Clamp) -> None:
        """Forget what was sampled in the episode before; under another target, what was collected too."""
        self._sampled = []
        if clamp.target_ms != self._target_ms:
            self.rollouts, self._target_ms = [], clamp.target_ms

    @one_thread()
    def act(self, state: np.ndarray, age: int) -> float:
        """The keep ratio wanted: random in the warm-up, whose `age` is negative, then sampled from the policy."""
        if age < 0:
            return float(self.rng.uniform(self.config.lowest, self.config.highest))
        with torch.no_grad():
            mean = self.actor(torch.from_numpy(state)).item()
        self._sampled.append(truncated_normal(mean, self.sigma(age), self.config.lowest, self.config.highest, self.rng))
        return self._sampled[-1]

    def sigma(self, age: int) -> float:
        """Of the policy in an episode of this age."""
        return max(self.config.noise * self.config.noise_decay**age, self.config.noise_least)

    @one_thread()
    def learn(self, states: list[np.ndarray], actions: list[float], rewards: list[float], age: int) -> None:
        """Take in a finished episode, and improve the policy when enough of its own are collected.

        An episode that was given instead of sampled teaches the critic only, if there is one to be taught.
        """
        if self.config.q_values == "critic":
            self._teach_critic(states, actions, rewards, age)
        if self._sampled and age >= 0:
            sampled, each = (torch.tensor(values, dtype=torch.float32) for values in (self._sampled, rewards))
            self.rollouts.append(Rollout(torch.from_numpy(np.stack(states)), sampled, self.sigma(age), each))
        if len(self.rollouts) == self.config.actors:
            self._improve_actor()
            self.rollouts = []

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

    def _teach_critic(self, states: list[np.ndarray], actions: list[float], rewards: list[float], age: int) -> None:
        """Store the transitions; after the warm-up, one gradient step of the critic for each."""
        config, total = self.config, sum(rewards)
        self.baseline = total if math.isnan(self.baseline) else self.baseline
        self.baseline += config.baseline_rate * (total - self.baseline)
        for t, (action, reward) in enumerate(zip(actions, rewards, strict=True)):
            self.replay.add(states[t], action, reward, states[t + 1], done=t == len(actions) - 1)
        if age >= 0:
            for _ in actions:
                self._update_critic()

    def _next_values(self, next_states: torch.Tensor) -> torch.Tensor:
        """What the target networks expect from `next_states` [n, features] on: [n, 1]."""
        config = self.config
        means = self.target_actor(next_states)
        # A value that holds only for one exact action is an error of the critic, so the actions around it count too.
        noise = self.rng.normal(0.0, config.smoothing, means.shape).clip(-config.smoothing_clip, config.smoothing_clip)
        actions = (means + torch.from_numpy(noise.astype(np.float32))).clamp(config.lowest, config.highest)
        return self.target_critic(torch.cat([next_states, actions], 1))

    def _update_critic(self) -> None:
        states, actions, rewards, next_states, dones = self.replay.sample(self.config.batch, self.rng)
        with torch.no_grad():
            # The baseline is the episode's, so it goes where the episode ends.
            returns = rewards - dones * self.baseline + self.config.gamma * (1 - dones) * self._next_values(next_states)
        loss = functional.mse_loss(self.critic(torch.cat([states, actions], 1)), returns)
        self.critic_optimizer.zero_grad()
        loss.backward()
        self.critic_optimizer.step()
        polyak_update(self.target_critic, self.critic, self.config.tau)
        polyak_update(self.target_actor, self.actor, self.config.tau)

    def _improve_actor(self) -> None:
        """Gradient steps on the clipped objective over the collected episodes: arrays are [actors, steps]."""
        states = torch.stack([rollout.states[:-1] for rollout in self.rollouts])
        sampled = torch.stack([rollout.sampled for rollout in self.rollouts])
        sigmas = torch.tensor([[rollout.sigma] for rollout in self.rollouts])
        with torch.no_grad():
            advantages = standardised(self._values())
            # Nothing was learnt since these episodes were sampled: the actor still is the old policy.
            old = log_density(sampled, self.actor(states).squeeze(2), sigmas, self.config.lowest, self.config.highest)
        for _ in range(self.config.epochs):
            new = log_density(sampled, self.actor(states).squeeze(2), sigmas, self.config.lowest, self.config.highest)
            loss = -clipped_objective((new - old).exp(), advantages, self.config.clip)
            self.actor_optimizer.zero_grad()
            loss.backward()
            self.actor_optimizer.step()

    def _values(self) -> torch.Tensor:
        """Q of every collected transition [actors, steps], as `q_values` says.

        With the critic it is the reward that was seen and the critic's word for what comes after: its word for the
        action itself is blurred by 64 hidden units (ours).
        """
        config = self.config
        rewards = torch.stack([rollout.rewards for rollout in self.rollouts])
        if config.q_values == "critic":
            following = torch.stack([rollout.states[1:] for rollout in self.rollouts])
            values = self._next_values(following.flatten(0, 1)).view(following.shape[:2])
            values[:, -1] = -self.baseline
            return rewards + config.gamma * values
        returns = rewards.clone()
        for step in reversed(range(returns.shape[1] - 1)):
            returns[:, step] += config.gamma * returns[:, step + 1]
        return returns


def standardised(values: torch.Tensor) -> torch.Tensor:
    """Q-values [actors, steps] in place of advantages: less the actors' mean at each step, by their spread (ours).

    Step by step, for what is left to be won or lost differs from step to step.
    """
    spread = values.std(0, correction=0, keepdim=True)
    return (values - values.mean(0, keepdim=True)) / (spread + 1e-8)


def clipped_objective(ratios: torch.Tensor, advantages: torch.Tensor, clip: float) -> torch.Tensor:
    """What PPO maximises (arXiv 1707.06347, equation 7): a ratio beyond 1 -+ `clip` pays nothing more, but may cost."""
    return torch.minimum(ratios * advantages, ratios.clamp(1 - clip, 1 + clip) * advantages).mean()


def log_density(
    actions: torch.Tensor, means: torch.Tensor, sigmas: torch.Tensor, lowest: float, highest: float = 1.0
) -> torch.Tensor:
    """Of a normal truncated to `lowest`..`highest`, all of one broadcast shape; up to a constant of each sigma."""
    mass = torch.special.ndtr((highest - means) / sigmas) - torch.special.ndtr((lowest - means) / sigmas)
    return -0.5 * ((actions - means) / sigmas) ** 2 - mass.log()


def _one_hidden(inputs: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), small_last(hidden))
