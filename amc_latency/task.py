"""What a search asks of its user: what the network is for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from amc_latency.arguments.settings import check_settings
from amc_latency.data.load import Streaming  # The fields' types are read.
from amc_latency.errors import OptionError, UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from amc_latency.console import Console
    from amc_latency.data import ImageData
    from amc_latency.models.load import Network


@runtime_checkable
class Task(Protocol):
    """A task of the user's own; one that also has `train` (see `Trains`) has its cut networks trained.

    Networks that a task is given take and return what the user's own module does, in eval mode, on the CPU.

        class Segmentation:
            def calibration(self):
                return (images for images, masks in train_loader)

            def score(self, model, budget=None):
                return mean_iou(model, validation_loader, budget)

            def train(self, model, teacher):
                own_loop(model, teacher, train_loader)

            def digest(self):
                return "segmentation 1"
    """

    def calibration(self) -> Iterable[Tensor | tuple[Tensor, ...]]:
        """Batches of inputs [N, C, H, W], or tuples that begin with one: for refit, batch norms and checks of files.

        As many are read as the search needs (512 inputs unless set). The same ones at every call.
        """
        ...

    def score(self, model: nn.Module, budget: int | None = None) -> float:
        """What `model` is worth: the higher, the better. The same for the same network at every call.

        With `budget` about that many inputs are enough; without, all that there are.
        """
        ...

    def digest(self) -> str:
        """What tells this task from another: a search is resumed only by the same one."""
        ...


@runtime_checkable
class Trains(Protocol):
    """What a task has that trains."""

    def train(self, model: nn.Module, teacher: nn.Module) -> Any:
        """Train `model` in place; `teacher` is the original network. Another network must not be returned."""
        ...


@dataclass(frozen=True)
class ImageTask:
    """Classification of images, the task of the command line: it knows labels, and so has its own fast paths.

    task = ImageTask("folder:photos")
    task = ImageTask(unlabelled="photos")  # what counts is agreement with the original network
    task = ImageTask(train=train_set, held_back=val_set, test=test_set)

    A data set is a map-style `Dataset` of PyTorch, or a `DataLoader` of one, whose items are (image, label): images of
    Pillow or bytes [H, W, 3] or [3, H, W], or floats [C, H, W] as the network takes them.
    """

    data: Any = "auto"
    """what `data` takes, see `amc_latency.data.load.load_data`; or one data set, of which a part is held back"""
    unlabelled: str | Path | None = None
    """in its place: a folder of images without labels"""
    train: Any = None
    """in its place: the data set to train on"""
    held_back: Any = None
    """beside it: one that every choice is made by, a tenth of `train` unless set"""
    test: Any = None
    """beside it: one for the figure at the end, 15 % of `train` unless set"""
    streaming: Streaming | None = None
    """how much is kept in memory"""

    def __post_init__(self) -> None:
        check_settings(self)
        for name in ("data", "train", "held_back", "test"):
            value = getattr(self, name)
            is_left_out = value is None and name != "data"
            if not (
                isinstance(value, str) or is_left_out or hasattr(value, "__getitem__") or hasattr(value, "dataset")
            ):
                raise OptionError(name, f"is a data set, map-style or a loader of one, not {repr(value)[:100]}")

    def images(self, network: Network, console: Console) -> ImageData:
        """The images as `network` takes them. Raises what `data_for` and `data_of_sets` raise, UserError for both."""
        from amc_latency.data.fitting import data_for, data_of_sets

        if self.train is None and (self.held_back, self.test) != (None, None):
            raise UserError("`held_back` and `test` go with `train`: give that too")
        folder = None if self.unlabelled is None else str(self.unlabelled)
        if self.train is None and isinstance(self.data, str):
            return data_for(network, self.data, folder, console, False, self.streaming)
        if self.unlabelled is not None or (self.train is not None and self.data != "auto"):
            raise UserError("`train`, `data` and `unlabelled` take each other's place: give one of them")
        train = self.data if self.train is None else self.train
        return data_of_sets(network, train, self.held_back, self.test, console, self.streaming)
