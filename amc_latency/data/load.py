"""What `data` means: a record for each source of images, by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from pkgutil import resolve_name

from amc_latency.arguments.names import nearest
from amc_latency.arguments.settings import at_least, check_settings, setting
from amc_latency.console import Console
from amc_latency.data.splits import ImageData
from amc_latency.errors import OptionError, UserError
from amc_latency.models.spec import names_own_file
from amc_latency.pixels import Crop


@dataclass(frozen=True)
class Streaming:
    """How images are read that are decoded from files or a data set."""

    memory_gib: float = setting(
        1.5,
        "GiB of decoded images that may be kept: a set that fits is, others are decoded anew whenever they are used",
        rule=at_least(0),
    )

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class Wanted:
    """What is to be loaded; only photos of folders and images of own files go by `size`, others keep their own."""

    source: str
    """as the user names it"""
    name: str
    """the source's"""
    place: str
    """what stands behind that and a colon"""
    data_dir: Path | None
    """where torchvision keeps its sets"""
    download: bool
    size: tuple[int, int]
    """height and width of what the network takes"""
    console: Console
    crop: Crop = field(default_factory=Crop)
    """what of a photo the network sees"""
    streaming: Streaming = field(default_factory=Streaming)


@dataclass(frozen=True)
class DataSource:
    """Where images come from."""

    loader: str
    """`module:function`, imported when called: of a `Wanted`, the `ImageData`"""
    place: str | None = None
    """what must stand behind the name and a colon; nothing may where it is None"""
    place_is_needed: bool = True
    """whether the name means nothing without one"""
    in_torchvisions_folder: bool = False
    """whether `data_dir` and `download` mean something"""

    def spelled(self, name: str) -> list[str]:
        """What a user may write for the source `name`."""
        with_place = [] if self.place is None else [f"{name}:{self.place}"]
        return [name, *with_place] if self.place is None or not self.place_is_needed else with_place


OWN_FILE = "FILE.py"
_SETS = "amc_latency.data.sets"
SOURCES = {
    "auto": DataSource(f"{_SETS}.fashion_mnist:load", in_torchvisions_folder=True),
    "torchvision": DataSource(
        f"{_SETS}.torchvision_sets:load", place="NAME", place_is_needed=False, in_torchvisions_folder=True
    ),
    "debian": DataSource(f"{_SETS}.fashion_mnist:load"),
    "bundled": DataSource(f"{_SETS}.fashion_mnist:load"),
    "cifar10": DataSource(f"{_SETS}.cifar:load", in_torchvisions_folder=True),
    "cifar100": DataSource(f"{_SETS}.cifar:load", in_torchvisions_folder=True),
    "folder": DataSource(f"{_SETS}.folders:load", place="DIR"),
    "imagenet": DataSource(f"{_SETS}.folders:load", place="DIR"),
    OWN_FILE: DataSource(f"{_SETS}.own:load", place="FUNCTION"),
}
"""By name, in the order in which messages list them."""


def check_source(source: str) -> None:
    """Raise UserError for a `source` that names nothing, or a folder or file that is not there; nothing is loaded."""
    name, place = _parts(source)
    record = SOURCES.get(name)
    if record is None or (record.place is None and source != name):
        if Path(source).is_dir():
            raise OptionError("data", f"{source} is a folder: say `data=folder:{source}` or `data=imagenet:{source}`")
        if Path(source).exists():
            raise OptionError(
                "data", f"{source} is a file: images come from a folder, `data=folder:DIR`, or FILE.py:FUNCTION"
            )
        names = sorted((named for name, each in SOURCES.items() for named in each.spelled(name)), key=_has_place)
        near = nearest(source, names)
        guess = "" if near is None else f'; did you mean "{near}"?'
        raise UserError(f'no data source is called "{source}"{guess or "."} Known: {", ".join(names)}')
    if record.place == "DIR" and not place:
        raise OptionError("data", f"{name} needs a folder: `data={name}:DIR`")
    if record.place == "DIR" and not Path(place).is_dir():
        raise UserError(f"{place}: no such folder")


def load_data(
    source: str = "auto",
    data_dir: Path | None = None,
    download: bool = False,
    size: tuple[int, int] = (224, 224),
    console: Console | None = None,
    crop: Crop | None = None,
    streaming: Streaming | None = None,
) -> ImageData:
    """Load what `source` names: a set by name, or with its place as in "folder:DIR" and "FILE.py:FUNCTION".

    `data_dir` is where torchvision keeps its sets, `download` has it fetch one first. Photos of a folder are decoded
    for a network that takes `size` (h, w) and sees what `crop` says of them; all other sets keep their own. `streaming`
    says how many decoded ones are kept in memory.
    Raises UserError for an unknown source and for what is missing or wrong there, JobError for a failed download.
    """
    name, place = _parts(source)
    record = SOURCES.get(name)
    if record is None or not record.in_torchvisions_folder:
        _check_no_folder(source, data_dir, download)
    check_source(source)
    console, crop, streaming = console or Console(quiet=True), crop or Crop(), streaming or Streaming()
    wanted = Wanted(source, name, place, data_dir, download, size, console, crop, streaming)
    return resolve_name(SOURCES[name].loader)(wanted)


def _parts(source: str) -> tuple[str, str]:
    """The name of the source, and what stands behind it and a colon."""
    if names_own_file(source):
        return OWN_FILE, source
    name, _, place = source.partition(":")
    return name, place


def _has_place(name: str) -> bool:
    return ":" in name


def _check_no_folder(source: str, data_dir: Path | None, download: bool) -> None:
    if download:
        named = ", ".join(name for name in SOURCES if name.startswith("cifar"))
        raise OptionError(
            "download", f"is for torchvision's sets, {named}, torchvision:NAME and Fashion-MNIST: not for {source}"
        )
    if data_dir is not None:
        raise OptionError("data_dir", f"is where torchvision keeps its sets: not for {source}")
