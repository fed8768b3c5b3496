"""Who judges policies: by labelled images, or by a task of the user's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from amc_latency.console import Console
from amc_latency.data.labels import check_several
from amc_latency.errors import UserError
from amc_latency.models.load import Network, check_logits
from amc_latency.search.config import SearchConfig
from amc_latency.search.judge.config import JudgeConfig
from amc_latency.search.judge.judge import Judge
from amc_latency.search.judge.task_judge import Asked, TaskScores
from amc_latency.search.records import DAMAGES, REWARDS
from amc_latency.task import ImageTask, Task

MakeJudge = Callable[[Network, Network, Path], Judge]
"""From the network that is pruned, the original and the log of scores."""


@dataclass(frozen=True)
class Judging:
    """Who judges, and what makes a resumed search the same one."""

    judge: MakeJudge
    identity: dict[str, str]


def judged_by(
    task: Task | ImageTask,
    network: Network,
    config: SearchConfig,
    console: Console,
    of_images: type[Judge],
    of_task: type[TaskScores],
) -> Judging:
    """The judge of a search's policies, of class `of_images` or of a task of the user's own `of_task`.

    Raises `UserError` for a task that can't judge, and what loading it raises.
    """
    images = JudgeConfig(
        config.images,
        config.calibration_images,
        config.recalibration_images,
        config.precision,
        config.accelerator,
    )
    if isinstance(task, ImageTask):
        check_logits(network)
        data = task.images(network, console)
        check_several(data, config.model, console)

        def by_images(base: Network, original: Network, log: Path) -> Judge:
            return of_images(base, data, images, log, original, console.say)

        return Judging(by_images, {"data": data.source, "data_sha256": data.digest()})
    asked = Asked(task)
    if not REWARDS[config.reward].needs_budget:
        raise UserError(f"reward {config.reward!r} trades an accuracy of 0..1: with a task of your own give a target")
    if DAMAGES[config.damage].needs_labels:
        raise UserError("damage 'taylor' needs labels: with a task of your own it is 'refit' or 'measured'")

    def by_task(base: Network, original: Network, log: Path) -> Judge:
        return of_task(base, asked, images, log, original, console.say)

    return Judging(by_task, {"data": asked.name, "data_sha256": asked.digest()})
