"""Tools of others on a network of this project: Torch-Pruning, and ModelOpt's FastNAS.

Torch-Pruning (MIT) stands among the development packages. ModelOpt (Apache-2.0) does not:

    pip install nvidia-modelopt torchprofile
"""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import torch
from torch import nn

from amc_latency.errors import UserError
from amc_latency.models.load import Network
from amc_latency.search.judge.judge import Judge
from amc_latency.training.loop import accuracy
from benchmarks.rivals.transfer import last_linear

IMPORTANCES = {"l2": "GroupMagnitudeImportance", "bn": "BNScaleImportance"}
"""Torch-Pruning's, by our short names: the group's L2 norm, and the scale of batch norms."""
MOST_OF_A_LAYER = 0.9
"""Global ranking else takes whole layers away: at most so much of each goes."""
FASTNAS_DIVISOR = 8
"""Channels stay in multiples of this, as ours do."""
FASTNAS_BATCHES, FASTNAS_BATCH = 8, 64
"""that recalibrate its batch norms for each score, as many images as ours are recalibrated with"""


def torch_pruned(network: Network, importance: str, round_to: int, ratio: float) -> nn.Module:
    """A copy of the network after Torch-Pruning took the share `ratio` of all channels, ranked over all layers.

    Channels stay in multiples of `round_to`; the logits stay whole.
    """
    import torch_pruning as tp

    model = copy.deepcopy(network.model)
    kinds = {"l2": {"p": 2}, "bn": {}}
    pruner = tp.pruner.BasePruner(
        model,
        torch.zeros(1, *network.spec.input),
        importance=getattr(tp.importance, IMPORTANCES[importance])(**kinds[importance]),
        global_pruning=True,
        pruning_ratio=ratio,
        max_pruning_ratio=MOST_OF_A_LAYER,
        round_to=round_to,
        ignored_layers=[model.get_submodule(last_linear(model))],
    )
    pruner.step()
    return model.eval()


def fastnas(judge: Judge, flops: float, checkpoint: Path) -> tuple[nn.Module, int]:
    """The network that FastNAS finds at the share `flops`, and how many subnets it scored.

    Scored by the held-back images that judge an episode. Its map of sensitivities is kept at `checkpoint`: another
    share costs no more scores. Raises UserError for a share that it can't reach.
    """
    with warnings.catch_warnings(action="ignore"):
        import modelopt.torch.prune as mtp

    few, size = judge.data.held_back.take(judge.config.images), judge.image_size
    scored = 0

    def score(model: nn.Module) -> float:
        nonlocal scored
        scored += 1
        return accuracy(model, few, size) / 100

    # Unless told otherwise it keeps multiples of 32 channels, which is more than half of what small networks have.
    config = mtp.fastnas.FastNASConfig().model_dump()
    for rules in config.values():
        rules["*"].update({name: FASTNAS_DIVISOR for name in rules["*"] if name.endswith("_divisor")})
    train = judge.data.train.take(FASTNAS_BATCHES * FASTNAS_BATCH)
    batches = [inputs for inputs, _ in train.parts(size, FASTNAS_BATCH)]
    try:
        model, _ = mtp.prune(
            copy.deepcopy(judge.base.model),
            mode=[("fastnas", config)],
            constraints={"flops": f"{100 * flops:.3f}%"},
            dummy_input=torch.zeros(1, *judge.base.spec.input),
            config={"data_loader": batches, "score_func": score, "checkpoint": str(checkpoint)},
        )
    except (ValueError, AssertionError) as error:
        raise UserError(f"FastNAS at {100 * flops:.1f} % of the FLOPs: {error}") from error
    return model.eval(), scored


def widths(model: nn.Module) -> tuple[int, ...]:
    """The output channels of its convolutions but depthwise ones, in order."""
    return tuple(
        module.out_channels for module in model.modules() if isinstance(module, nn.Conv2d) and module.groups == 1
    )
