"""Readers of re-identification datasets, tested on generated people in each layout."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat, savemat

from csametric.data import matfile
from csametric.data.cuhk03 import ARRAYS
from csametric.data.datasets import READERS, read_dataset
from csametric.data.folder import read_folder, read_manifest
from csametric.data.inspection import inspect
from csametric.data.market1501 import read_market1501
from csametric.data.records import (
    JUNK,
    Count,
    Record,
    ReidDataset,
    count,
    hold_back,
    number_identities,
    queries_in_gallery,
    queries_without_match,
)
from csametric.errors import UserError
from tests.data import people


@pytest.mark.parametrize("layout", people.LAYOUTS)
def test_every_layout_is_read_as_the_same_people(tmp_path, layout):
    kind, write = people.LAYOUTS[layout]
    dataset = read_dataset(kind, write(tmp_path / "set"))
    assert count(dataset.train) == Count(64, people.IDENTITIES)
    assert count(dataset.query) == Count(16, people.IDENTITIES)
    assert count(dataset.gallery).identities == people.IDENTITIES
    assert {record.camera for record in dataset.query} == {1, 2}
    for split in dataset.splits.values():
        assert list(split) == sorted(split)
        assert all(record.path.is_file() for record in split)
    for query in dataset.query:
        matches = [record for record in dataset.gallery if record.identity == query.identity]
        assert {record.camera for record in matches} == {1, 2}


def test_market_1501_has_junk_and_distractors(tmp_path):
    dataset = read_market1501(people.write_market(tmp_path / "2020_c1"))
    assert sum(record.identity == -1 for record in dataset.gallery) == 1
    assert sum(record.identity == 0 for record in dataset.gallery) == 1
    assert count(dataset.gallery) == Count(49, 8)
    assert dataset.train[0] == Record(tmp_path / "2020_c1" / "bounding_box_train" / "0001_c1s1_000000_00.png", 1, 1)


def test_counts_are_compared_with_the_published_ones(tmp_path):
    dataset = read_market1501(people.write_market(tmp_path))
    assert "train has 64 images of 8 identities but 12,936 images of 751 identities were published" in dataset.differences()
    assert "NOT AS PUBLISHED" in str(dataset)
    unpublished = ReidDataset(name="x", train=[], query=[], gallery=[])
    assert unpublished.differences() == []
    assert "PUBLISHED" not in str(unpublished).upper()


def test_identities_are_numbered_in_ascending_order():
    records = [Record(None, identity, 0) for identity in (7, 3, 7, 12)]
    assert number_identities(records) == {3: 0, 7: 1, 12: 2}


def test_a_folder_without_splits_is_split_by_identity(tmp_path):
    for identity in range(6):
        (tmp_path / f"p{identity}").mkdir()
        for number in range(3):
            people.person(identity, 0, number).save(tmp_path / f"p{identity}" / f"{number}.png")
    dataset = read_folder(tmp_path)
    assert [count(split) for split in dataset.splits.values()] == [Count(9, 3), Count(3, 3), Count(6, 3)]
    assert not {record.identity for record in dataset.train} & {record.identity for record in dataset.gallery}
    assert dataset.names == ["p0", "p1", "p2", "p3", "p4", "p5"]


def test_queries_of_people_with_few_images_have_a_match(tmp_path):
    """Person a has one image per camera, b one and three images on two cameras, c a single image."""
    names = {"a": ["c1", "c2"], "b": ["c1_0", "c2_0", "c2_1", "c2_2"], "c": ["c1"]}
    for train in ("0", "a0", "b0"):
        names[train] = ["c1"]
    for person, files in names.items():
        (tmp_path / person).mkdir()
        for file in files:
            people.person(1, 0, 0).save(tmp_path / person / f"{file}.png")
    dataset = read_folder(tmp_path)
    assert dataset.names == ["0", "a", "a0", "b", "b0", "c"]
    assert [record.path.parent.name + record.path.stem for record in dataset.query] == ["ac1", "bc2_0"]
    assert queries_without_match(dataset, camera_filter=True) == []


def removing(folder):
    def remove(root):
        for path in (root / folder).iterdir():
            path.unlink()
        (root / folder).rmdir()

    return remove


def change_protocol(root, name, change):
    """Apply a function to an array of the .mat file."""
    (path,) = root.glob("*.mat")
    content = {key: value for key, value in loadmat(path).items() if not key.startswith("__")}
    savemat(path, content | {name: change(content[name].astype(float))})


def change_mat(root, change):
    (path,) = root.glob("*.mat")
    path.write_bytes(change(path.read_bytes()))


def change_files(root, first):
    """Rename the first image in the .mat file."""
    (path,) = root.glob("*.mat")
    content = {key: value for key, value in loadmat(path).items() if not key.startswith("__")}
    content["filelist"].flat[0] = first
    savemat(path, content)


@pytest.mark.parametrize(
    ("layout", "damage", "message"),
    [
        ("market1501", removing("query"), "folder .*query does not exist; give the folder that contains query"),
        ("market1501", lambda root: (root / "query" / "me.png").write_text(""), "must begin with an identity and a camera"),
        ("cuhk03 protocol", lambda root: (root / "images_detected" / "1_001_1_01.png").unlink(), "1 of the 128 images in"),
        ("cuhk03 protocol", lambda root: change_protocol(root, "train_idx", lambda idx: idx - 1), r"whole numbers in 1\.\.128"),
        (
            "cuhk03 protocol",
            lambda root: change_protocol(root, "gallery_idx", lambda idx: idx + 1),
            r"whole numbers in 1\.\.128",
        ),
        (
            "cuhk03 protocol",
            lambda root: change_protocol(root, "query_idx", lambda idx: idx + 0.5),
            r"whole numbers in 1\.\.128",
        ),
        (
            "cuhk03 protocol",
            lambda root: change_protocol(root, "query_idx", lambda idx: idx - 1),
            "lists an image in two splits",
        ),
        (
            "cuhk03 protocol",
            lambda root: change_protocol(root, "labels", lambda ids: ids % 12 + 1),
            "people in both train and test",
        ),
        ("cuhk03 protocol", lambda root: change_protocol(root, "labels", lambda ids: ids - 1), "labels in .* from 1"),
        ("cuhk03 protocol", lambda root: change_protocol(root, "labels", lambda ids: ids + 0.5), "labels in .* from 1"),
        ("cuhk03 protocol", lambda root: change_protocol(root, "camId", lambda ids: ids * np.nan), "camId in .* from 1"),
        ("cuhk03 protocol", lambda root: change_protocol(root, "labels", lambda ids: ids[:1]), "labels; download"),
        ("cuhk03 protocol", lambda root: change_mat(root, lambda data: data[: len(data) // 2]), "mat is damaged"),
        ("cuhk03 protocol", lambda root: change_mat(root, lambda data: b""), "mat is not a MATLAB file"),
        ("cuhk03 protocol", lambda root: change_mat(root, lambda data: b"text, not Matlab"), "mat is not a MATLAB file"),
        (
            "cuhk03 protocol",
            lambda root: change_files(root, "../1_001_1_01.png"),
            "different images, without folders",
        ),
        ("cuhk03 protocol", lambda root: change_files(root, "1_001_1_02.png"), "must name different images"),
        (
            "cuhk03 protocol",
            lambda root: next(root.glob("*.mat")).unlink(),
            "must contain the folder detected or the file cuhk03_new",
        ),
        ("msmt17", lambda root: (root / "list_val.txt").unlink(), "must contain list_val.txt or bounding_box_train"),
        ("msmt17", lambda root: next(root.glob("train/0000/*")).unlink(), "1 of the .* images in list_train.txt are missing"),
        ("csv", lambda root: next(root.parent.glob("1-*.png")).unlink(), "line 2: image .* does not exist"),
        ("csv", lambda root: root.write_text("path,id\na,b\n"), "needs a first line with the columns path, id, camera, split"),
        ("csv", lambda root: root.write_text("path,id,camera,split\na,b,1,test\n"), "line 2: the split is 'test'"),
        ("csv", lambda root: root.write_text("path,id,camera,split\na,b,left,train\n"), "the camera is 'left'"),
        ("csv", lambda root: root.write_text("path,camera,split,id\n1-1-0.png,1,train\n"), "line 2: the id is missing"),
        ("csv", lambda root: root.write_bytes("path,id,camera,split\né,b,1,train\n".encode("latin-1")), "not UTF-8"),
        (
            "msmt17",
            lambda root: (root / "list_val.txt").write_text("0000/a.jpg 0\n"),
            "list_val.txt must have lines such as .*, got '0000/a.jpg 0'",
        ),
    ],
)
def test_the_error_for_a_damaged_dataset_names_the_problem(tmp_path, layout, damage, message):
    kind, write = people.LAYOUTS[layout]
    root = write(tmp_path / "set")
    damage(root)
    with pytest.raises(UserError, match=message):
        read_dataset(kind, root)


def test_the_train_split_is_optional_but_the_gallery_is_not(tmp_path):
    root = people.write_folders(tmp_path / "set")
    shutil.rmtree(root / "train")
    dataset = read_folder(root)
    assert len(dataset.train) == 0
    assert len(dataset.query) > 0
    manifest = tmp_path / "set.csv"
    lines = [f"{record.path},{record.identity},1,query\n" for record in dataset.query]
    manifest.write_text("path,id,camera,split\n" + "".join(lines))
    with pytest.raises(UserError, match="has no images for gallery"):
        read_manifest(manifest)


@pytest.mark.parametrize("name", ["train", "Test", "val", "query"])
def test_a_folder_named_like_a_split_is_not_an_identity(tmp_path, name):
    for folder in ("a", "b", "c", name):
        (tmp_path / folder).mkdir()
        people.person(1, 0, 0).save(tmp_path / folder / "1.png")
    with pytest.raises(UserError, match=f"lies in .*{name}, which is named like a split, not an identity"):
        read_folder(tmp_path)


def test_unknown_kinds_and_empty_or_missing_folders_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"unknown dataset kind 'market'; did you mean market1501\? use one of folder"):
        read_dataset("market", tmp_path)
    with pytest.raises(UserError, match=r"no dataset given; name a kind \(folder, csv, market1501"):
        read_dataset("folder", "")
    for kind in READERS:
        with pytest.raises(UserError):
            read_dataset(kind, tmp_path)
        with pytest.raises(UserError):
            read_dataset(kind, tmp_path / "nowhere")


def test_an_inspection_finds_broken_duplicate_and_unmatched_files(tmp_path):
    root = people.write_market(tmp_path)
    person = people.person(9, 1, 1)
    person.save(root / "bounding_box_train" / "0003_c1s1_000009_00.png")  # identical to a gallery image
    (root / "query" / "0010_c1s1_000077_00.png").write_bytes(b"broken")
    person.save(root / "query" / "0044_c1s1_000000_00.png")
    Image.new("F", (9, 9)).save(root / "bounding_box_train" / "0003_c2s1_000010_00.tif")
    inspection = inspect(read_market1501(root))
    assert len(inspection.unreadable) == 2
    assert any("is not a BMP, GIF" in problem for problem in inspection.unreadable.values())
    assert any("mode F" in problem for problem in inspection.unreadable.values())
    assert any("bounding_box_train" in first and "bounding_box_test" in second for first, second in inspection.duplicates)
    assert [path.rpartition("/")[2] for path in inspection.unmatched] == ["0044_c1s1_000000_00.png"]
    train = inspection.splits["train"]
    assert (train.images, train.identities, train.per_identity) == (66, 8, (8, 8, 10))
    assert train.cameras == {1: 33, 2: 33}
    assert (inspection.splits["gallery"].junk, inspection.splits["gallery"].distractors) == (1, 1)
    assert inspection.splits["query"].one_camera == 1


HIDDEN = (".ipynb_checkpoints", "@eaDir", "__MACOSX")


def test_hidden_and_system_folders_are_not_data_and_are_named(tmp_path):
    """On noise, a copy of the query in the gallery would be found at rank 1."""
    people.write_folders(tmp_path)
    clean = read_folder(tmp_path)
    for folder in sorted(tmp_path.glob("*/person*")):
        for hidden in HIDDEN:
            (folder / hidden).mkdir()
            shutil.copy(sorted(folder.glob("*.png"))[0], folder / hidden / "copy.png")
        (folder / "._first.png").write_bytes(b"resource fork")
    (folder / "phone.heic").write_bytes(b"heic")
    dataset = read_folder(tmp_path)
    assert (dataset.train, dataset.query, dataset.gallery) == (clean.train, clean.query, clean.gallery)
    skipped, others = dataset.notes
    folders = len(list(tmp_path.glob("*/person*")))
    assert skipped.startswith(f"{4 * folders} hidden or system files or folders skipped, first ")
    assert others == "not read as images: 1 .heic"
    assert f"\nnote: {skipped}\nnote: {others}" in str(dataset)


CAMERA_FORMS = {
    "Market-1501": "{i:04d}_c{c}s1_{k}.png",
    "MARS": "{i:04d}C{c}T0001F{k:03d}.png",
    "camera": "camera{c}_{k}.png",
    "dashes": "{i:04d}-cam-{c}-{k}.png",
    "cam": "cam{c}_{k}.png",
    "spaces": "person {i} camera {c} {k}.png",
}


def write_cameras(root, form, pattern=None):
    for i in range(4):
        (root / f"p{i}").mkdir(parents=True)
        for c in (1, 2):
            for k in range(2):
                Image.new("RGB", (8, 16)).save(root / f"p{i}" / form.format(i=i, c=c, k=k))
    return root


@pytest.mark.parametrize("form", CAMERA_FORMS.values(), ids=CAMERA_FORMS)
def test_cameras_are_read_from_the_usual_names(tmp_path, form):
    dataset = read_folder(write_cameras(tmp_path / "people", form))
    assert {record.camera for record in (*dataset.query, *dataset.gallery)} == {1, 2}
    assert dataset.notes == []


def test_names_that_seem_to_hold_a_camera_are_pointed_out(tmp_path):
    dataset = read_folder(write_cameras(tmp_path / "people", "IPCAM_{c}_{k}.png"))
    assert not dataset.has_several_cameras
    (note,) = dataset.notes
    assert note == "CAMERAS NOT READ from names such as IPCAM_1_0.png; set data.camera_pattern if they name one"
    patterned = read_folder(tmp_path / "people", r"ipcam_(\d)")
    assert patterned.has_several_cameras
    assert patterned.notes == []


def test_other_names_have_one_camera_without_a_note(tmp_path):
    dataset = read_folder(write_cameras(tmp_path / "people", "pic_3c4a{c}{k}.png"))
    assert {record.camera for record in dataset.gallery} == {0}
    assert dataset.notes == []


def test_a_camera_in_some_names_only_is_refused(tmp_path):
    """Camera 0 for the others would make them matches from another camera."""
    root = write_cameras(tmp_path / "people", "c{c}_{k}.png")
    (root / "p1" / "c2_1.png").rename(root / "p1" / "holiday.png")
    with pytest.raises(UserError, match=r"15 of 16 image names have a camera, but .*holiday.png has not; rename it"):
        read_folder(root)


@pytest.mark.parametrize(
    ("pattern", "advice"),
    [
        ("cam(", "is not a regular expression"),
        ("cam", "needs a group for the number of the camera"),
        ("(c)am", "camera 'c' in cam1_0.png is not a whole number"),
    ],
)
def test_a_wrong_pattern_is_explained(tmp_path, pattern, advice):
    with pytest.raises(UserError) as error:
        read_folder(write_cameras(tmp_path / "people", "cam{c}_{k}.png"), pattern)
    assert advice in str(error.value)


def test_nobody_in_particular_is_not_trained_on(tmp_path):
    people.write_market(tmp_path)
    folder = tmp_path / "bounding_box_train"
    for name in ("-1_c1s1_000000_00.png", "0000_c2s1_000000_00.png"):
        people.person(99, 1, 0).save(folder / name)
    dataset = read_dataset("market1501", tmp_path)
    assert {record.identity for record in dataset.train} == set(range(1, people.IDENTITIES + 1))
    assert count(dataset.train) == Count(len(dataset.train), people.IDENTITIES)
    (note,) = dataset.notes
    assert note.startswith("2 images of identity -1 or 0 left out of training, first ")


def test_queries_that_are_in_the_gallery_too_are_found(tmp_path):
    for name in "abcd":
        people.person(ord(name), 1, 0).save(tmp_path / f"{name}.png")
    shutil.copy(tmp_path / "a.png", tmp_path / "copy.png")
    a, b, c, d, copy = (tmp_path / f"{name}.png" for name in ("a", "b", "c", "d", "copy"))
    query = [Record(a, 1, 1), Record(b, 2, 1), Record(c, 3, 1), Record(d, 4, 1)]
    gallery = [Record(copy, 1, 2), Record(b, 2, 1), Record(c, JUNK, 2)]
    dataset = ReidDataset(name="x", train=[], query=query, gallery=gallery)
    assert queries_in_gallery(dataset, camera_filter=True) == [query[0]]  # b's copy is left out, c's is junk
    assert queries_in_gallery(dataset, camera_filter=False) == query[:2]


def test_the_split_of_cuhk03_may_be_json(tmp_path):
    people.write_cuhk03_protocol(tmp_path)
    (mat,) = tmp_path.glob("*.mat")
    expected = read_dataset("cuhk03-detected", tmp_path)
    content = loadmat(mat, squeeze_me=True)
    values = {name: np.atleast_1d(content[name]).tolist() for name in ARRAYS}
    mat.unlink()
    mat.with_suffix(".json").write_text(json.dumps(values))
    assert read_dataset("cuhk03-detected", tmp_path) == expected
    for damaged in ("[]", "{}", "[" * 100_000, json.dumps(values | {"labels": [[1], 2]}), json.dumps(values | {"camId": None})):
        mat.with_suffix(".json").write_text(damaged)
        with pytest.raises(UserError, match=r"json must be a JSON object with the lists filelist, labels"):
            read_dataset("cuhk03-detected", tmp_path)


def test_a_reader_that_crashes_is_a_sentence(tmp_path, monkeypatch):
    people.write_cuhk03_protocol(tmp_path)
    monkeypatch.setattr(matfile.sys, "executable", str(tmp_path / "python"))
    (tmp_path / "python").write_text("#!/bin/sh\nkill -SEGV $$\n")
    (tmp_path / "python").chmod(0o755)
    with pytest.raises(UserError, match=r"mat is damaged \(the reader crashed\); download it again"):
        read_dataset("cuhk03-detected", tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x89HDF\r\n\x1a\n" + bytes(500), "has MATLAB's format 7.3; save it with -v7"),
        (b"MATLAB 7.3 MAT-file, Platform: GLNXA64" + bytes(500), "has MATLAB's format 7.3; save it with -v7"),
        (b"MATLAB 5.0 MAT-file" + bytes(500), "is damaged"),
    ],
)
def test_other_mat_files_are_named(tmp_path, content, words):
    people.write_cuhk03_protocol(tmp_path)
    (mat,) = tmp_path.glob("*.mat")
    mat.write_bytes(content)
    with pytest.raises(UserError, match=words):
        read_dataset("cuhk03-detected", tmp_path)


def test_identities_held_back_depend_on_the_seed_alone():
    records = [Record(Path(f"{identity}_{number}.png"), identity, number) for identity in range(1, 41) for number in (1, 2)]
    train, held_back = hold_back(records, 0.1, seed=0)
    assert len({record.identity for record in held_back}) == 4
    assert sorted([*train, *held_back]) == sorted(records)
    assert {record.identity for record in train}.isdisjoint(record.identity for record in held_back)
    assert hold_back(records[::-1], 0.1, seed=0).held_back == held_back[::-1]
    assert hold_back(records, 0.1, seed=1).held_back != held_back


@pytest.mark.parametrize("share", [0.0, 0.03])
def test_fewer_than_two_identities_are_not_held_back(share):
    records = [Record(Path(f"{identity}.png"), identity, 1) for identity in range(1, 41)]
    assert hold_back(records, share, seed=0) == (records, [])
