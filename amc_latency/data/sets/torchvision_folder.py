"""Where torchvision keeps the sets that it fetches, and how it is asked for one."""

from pathlib import Path

from amc_latency.errors import JobError


def torchvision_root(data_dir: Path | None = None) -> Path:
    """The folder handed to torchvision as `root`: `data_dir`, or the user's data folder."""
    if data_dir is not None:
        return data_dir
    from platformdirs import user_data_path

    return user_data_path("amc-latency") / "data"


def download_with(name: str, root: Path, advice: str) -> None:
    """Have `torchvision.datasets.<name>` fetch itself to `root`. Raises JobError with `advice` if it can't."""
    import torchvision.datasets

    try:
        getattr(torchvision.datasets, name)(str(root), download=True)
    except (OSError, RuntimeError) as error:
        raise JobError(f"{name} could not be downloaded to {root} ({error}); {advice}") from error
