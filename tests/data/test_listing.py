"""The search for images in folders: visible files only, and no folder is left out silently."""

import os

import pytest

from csametric.data.folder import read_folder
from csametric.data.listing import list_folders, list_images
from csametric.errors import UserError
from tests.data import people


@pytest.fixture
def folder(tmp_path):
    for name in (
        "b.PNG",
        "a.jpg",
        "notes.txt",
        "deep/c.webp",
        ".hidden.png",
        ".ipynb_checkpoints/a.jpg",
        "@eaDir/a.jpg",
        "__MACOSX/a.jpg",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a folder.png").mkdir()
    return tmp_path


def test_images_other_files_and_skipped_files_are_listed_apart(folder):
    images, others, skipped = ([path.relative_to(folder).as_posix() for path in paths] for paths in list_images(folder))
    assert images == ["a.jpg", "b.PNG", "deep/c.webp"]
    assert others == ["notes.txt"]
    assert skipped == [".hidden.png", ".ipynb_checkpoints", "@eaDir", "__MACOSX"]
    assert [path.name for path in list_images(folder, recursive=False).images] == ["a.jpg", "b.PNG"]
    assert [path.name for path in list_folders(folder)] == ["a folder.png", "deep"]


def test_an_excluded_folder_is_not_listed(tmp_path):
    for name in ("a.png", "matches/a-b.png", "matches/a-b.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert list_images(tmp_path, excluded=tmp_path / "matches") == ([tmp_path / "a.png"], [], [])


def test_a_folder_inside_a_hidden_one_is_listed(tmp_path):
    (tmp_path / ".data" / "mine").mkdir(parents=True)
    (tmp_path / ".data" / "mine" / "a.png").touch()
    assert len(list_images(tmp_path / ".data" / "mine").images) == 1


@pytest.mark.parametrize("system", [".ipynb_checkpoints", "@eaDir", "__MACOSX"])
def test_copies_in_system_folders_are_not_part_of_a_dataset(tmp_path, system):
    for identity in range(4):
        (tmp_path / f"p{identity}" / system).mkdir(parents=True)
        for number in range(3):
            people.person(identity, 0, number).save(tmp_path / f"p{identity}" / f"{number}.png")
        people.person(identity, 0, 0).save(tmp_path / f"p{identity}" / system / "0-checkpoint.png")
    dataset = read_folder(tmp_path)
    assert not [record.path for split in dataset.splits.values() for record in split if system in record.path.parts]


def test_an_unreadable_folder_is_refused(folder, monkeypatch):
    real = os.scandir

    def scan(path):
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scan)
    with pytest.raises(UserError, match=r"cannot read the folder .*deep \(Permission denied\); change its permissions"):
        list_images(folder)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(UserError, match=r"folder .*none does not exist"):
        list_images(tmp_path / "none")
