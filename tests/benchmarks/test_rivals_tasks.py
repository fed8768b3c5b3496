"""Tasks: Tiny ImageNet's first classes, and what is refused."""

from dataclasses import fields
from pathlib import Path

import pytest

from amc_latency.errors import UserError
from benchmarks.rivals.tasks import TASKS, Sizes, checkpoint_of, link_first_classes, task_of


def tiny_imagenet(folder: Path) -> Path:
    """Three classes of two photos each as the archive lays them, and three photos to validate by."""
    (folder / "val" / "images").mkdir(parents=True)
    (folder / "wnids.txt").write_text("n03\nn01\nn02\n")
    for wnid in ("n01", "n02", "n03"):
        images = folder / "train" / wnid / "images"
        images.mkdir(parents=True)
        for number in range(2):
            (images / f"{wnid}_{number}.JPEG").write_bytes(wnid.encode())
        (folder / "val" / "images" / f"val_{wnid}.JPEG").write_bytes(wnid.encode())
    lines = [f"val_{wnid}.JPEG\t{wnid}\t0\t0\t63\t63\n" for wnid in ("n02", "n03", "n01")]
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    return folder


def test_the_first_classes_by_wnid_are_linked_with_their_own_photos(tmp_path: Path) -> None:
    data, folder = tiny_imagenet(tmp_path / "data"), tmp_path / "first"
    link_first_classes(data, folder, 2)
    found = {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*.JPEG")}
    assert found == {
        "train/n01/n01_0.JPEG": "n01",
        "train/n01/n01_1.JPEG": "n01",
        "train/n02/n02_0.JPEG": "n02",
        "train/n02/n02_1.JPEG": "n02",
        "val/n01/val_n01.JPEG": "n01",
        "val/n02/val_n02.JPEG": "n02",
    }


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give the folder that Tiny ImageNet's archive unpacks to"):
        link_first_classes(tmp_path, tmp_path / "first", 2)
    assert not (tmp_path / "first").exists()


def test_a_task_and_its_networks_go_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="trashnet"):
        task_of("trashnot")
    task = task_of("trashnet")
    with pytest.raises(UserError, match="efficientnet_lite0"):
        checkpoint_of(task, "efficientnet", tmp_path, tmp_path, task.full)
    with pytest.raises(UserError, match="--data"):
        checkpoint_of(task, "efficientnet_lite0", None, tmp_path, task.full)


@pytest.mark.parametrize("name", TASKS)
def test_quick_is_no_larger_than_the_full_form(name: str) -> None:
    full, quick = TASKS[name].full, TASKS[name].quick
    for field in fields(Sizes):
        ours, theirs = (getattr(sizes, field.name) for sizes in (quick, full))
        if isinstance(ours, int) and field.name not in ("train_images", "classes"):
            assert ours <= theirs, field.name
    assert set(quick.networks) <= set(TASKS[name].networks)
