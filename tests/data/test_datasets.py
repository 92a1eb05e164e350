"""Readers of re-identification datasets, on a generated set in each layout."""

import shutil

import pytest
from PIL import Image
from scipy.io import loadmat, savemat

from csametric.data.datasets import READERS, read_dataset
from csametric.data.folder import read_folder, read_manifest
from csametric.data.inspection import inspect
from csametric.data.market1501 import read_market1501
from csametric.data.records import Count, Record, ReidDataset, count, number_identities, queries_without_match
from csametric.errors import UserError
from tests.data import people


@pytest.mark.parametrize("layout", people.LAYOUTS)
def test_every_layout_gives_the_same_people(tmp_path, layout):
    kind, write = people.LAYOUTS[layout]
    dataset = read_dataset(kind, write(tmp_path / "set"))
    test = people.IDENTITIES
    assert count(dataset.train) == Count(64, people.IDENTITIES)
    assert count(dataset.query) == Count(16, test)
    assert count(dataset.gallery).identities == test
    assert {record.camera for record in dataset.query} == {1, 2}
    for split in dataset.splits.values():
        assert list(split) == sorted(split)
        assert all(record.path.is_file() for record in split)
    for query in dataset.query:
        same = [record for record in dataset.gallery if record.identity == query.identity]
        assert {record.camera for record in same} == {1, 2}


def test_market_names_junk_and_distractors(tmp_path):
    dataset = read_market1501(people.write_market(tmp_path / "2020_c1"))
    assert sum(record.identity == -1 for record in dataset.gallery) == 1
    assert sum(record.identity == 0 for record in dataset.gallery) == 1
    assert count(dataset.gallery) == Count(49, 8)
    assert dataset.train[0] == Record(tmp_path / "2020_c1" / "bounding_box_train" / "0001_c1s1_000000_00.png", 1, 1)


def test_counts_are_held_against_the_published_ones(tmp_path):
    dataset = read_market1501(people.write_market(tmp_path))
    assert "train has 64 images of 8 identities, published are 12,936 images of 751 identities" in dataset.differences()
    assert "NOT AS PUBLISHED" in str(dataset)
    own = ReidDataset(name="x", train=[], query=[], gallery=[])
    assert own.differences() == []
    assert "PUBLISHED" not in str(own).upper()


def test_identities_are_numbered_in_their_order():
    records = [Record(None, identity, 0) for identity in (7, 3, 7, 12)]
    assert number_identities(records) == {3: 0, 7: 1, 12: 2}


def test_a_folder_of_identities_is_split_by_identity(tmp_path):
    for identity in range(6):
        (tmp_path / f"p{identity}").mkdir()
        for number in range(3):
            people.person(identity, 0, number).save(tmp_path / f"p{identity}" / f"{number}.png")
    dataset = read_folder(tmp_path)
    assert [count(split) for split in dataset.splits.values()] == [Count(9, 3), Count(3, 3), Count(6, 3)]
    assert not {r.identity for r in dataset.train} & {r.identity for r in dataset.gallery}
    assert dataset.names == ["p0", "p1", "p2", "p3", "p4", "p5"]


def test_people_with_few_images_still_find_a_match(tmp_path):
    """One image a camera; one camera with one image and another with three; one image in all."""
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


def _without(folder):
    def remove(root):
        for path in (root / folder).iterdir():
            path.unlink()
        (root / folder).rmdir()

    return remove


def change_split(root, name, change):
    (path,) = root.glob("*.mat")
    content = {key: value for key, value in loadmat(path).items() if not key.startswith("__")}
    savemat(path, content | {name: change(content[name].astype(float))})


@pytest.mark.parametrize(
    ("layout", "damage", "words"),
    [
        ("market1501", _without("query"), "there is no folder .*query; name the folder that holds query"),
        ("market1501", lambda root: (root / "query" / "me.png").write_text(""), "does not begin with an identity and a camera"),
        ("cuhk03 protocol", lambda root: (root / "images_detected" / "1_001_1_01.png").unlink(), "lacks 1 of the 128 images"),
        ("cuhk03 protocol", lambda root: change_split(root, "train_idx", lambda idx: idx - 1), r"must lie in 1\.\.128"),
        ("cuhk03 protocol", lambda root: change_split(root, "gallery_idx", lambda idx: idx + 1), r"must lie in 1\.\.128"),
        ("cuhk03 protocol", lambda root: change_split(root, "query_idx", lambda idx: idx + 0.5), r"must lie in 1\.\.128"),
        ("cuhk03 protocol", lambda root: change_split(root, "query_idx", lambda idx: idx - 1), "puts an image into two splits"),
        ("cuhk03 protocol", lambda root: change_split(root, "labels", lambda ids: ids % 12), "people in both train and test"),
        ("cuhk03 protocol", lambda root: next(root.glob("*.mat")).unlink(), "neither the folder detected nor cuhk03_new"),
        ("msmt17", lambda root: (root / "list_val.txt").unlink(), "neither list_val.txt nor bounding_box_train"),
        ("msmt17", lambda root: next(root.glob("train/0000/*")).unlink(), "1 images that are not there"),
        ("csv", lambda root: next(root.parent.glob("1-*.png")).unlink(), "line 2: there is no image"),
        ("csv", lambda root: root.write_text("path,id\na,b\n"), "needs a first line with the columns path, id, camera, split"),
        ("csv", lambda root: root.write_text("path,id,camera,split\na,b,1,test\n"), "line 2: the split is 'test'"),
        ("csv", lambda root: root.write_text("path,id,camera,split\na,b,left,train\n"), "the camera is 'left'"),
        ("csv", lambda root: root.write_text("path,camera,split,id\n1-1-0.png,1,train\n"), "line 2: the id is missing"),
        ("csv", lambda root: root.write_bytes("path,id,camera,split\né,b,1,train\n".encode("latin-1")), "not UTF-8"),
        ("msmt17", lambda root: (root / "list_val.txt").write_text("0000/a.jpg 0\n"), "has the line '0000/a.jpg 0'"),
    ],
)
def test_what_is_missing_is_named(tmp_path, layout, damage, words):
    kind, write = people.LAYOUTS[layout]
    root = write(tmp_path / "set")
    damage(root)
    with pytest.raises(UserError, match=words):
        read_dataset(kind, root)


def test_a_set_to_evaluate_on_needs_no_train_split(tmp_path):
    root = people.write_folders(tmp_path / "set")
    shutil.rmtree(root / "train")
    dataset = read_folder(root)
    assert len(dataset.train) == 0
    assert len(dataset.query) > 0
    manifest = tmp_path / "set.csv"
    manifest.write_text("path,id,camera,split\n" + "".join(f"{r.path},{r.identity},1,query\n" for r in dataset.query))
    with pytest.raises(UserError, match="has no images for gallery"):
        read_manifest(manifest)


@pytest.mark.parametrize("name", ["train", "Test", "val", "query"])
def test_the_name_of_a_split_is_no_identity(tmp_path, name):
    for folder in ("a", "b", "c", name):
        (tmp_path / folder).mkdir()
        people.person(1, 0, 0).save(tmp_path / folder / "1.png")
    with pytest.raises(UserError, match=f"lies in .*{name}, a split and no identity"):
        read_folder(tmp_path)


def test_unknown_kinds_and_empty_folders(tmp_path):
    with pytest.raises(UserError, match="no dataset kind 'market'; use one of market1501"):
        read_dataset("market", tmp_path)
    with pytest.raises(UserError, match="there is no dataset to train on; give --data KIND:PATH"):
        read_dataset("folder", "")
    for kind in READERS:
        with pytest.raises(UserError):
            read_dataset(kind, tmp_path)
        with pytest.raises(UserError):
            read_dataset(kind, tmp_path / "nowhere")


def test_an_inspection_finds_what_is_wrong(tmp_path):
    root = people.write_market(tmp_path)
    person = people.person(9, 1, 1)
    person.save(root / "bounding_box_train" / "0003_c1s1_000009_00.png")  # the twin of a gallery image
    (root / "query" / "0010_c1s1_000077_00.png").write_bytes(b"broken")
    person.save(root / "query" / "0044_c1s1_000000_00.png")
    Image.new("I;16", (9, 9)).save(root / "bounding_box_train" / "0003_c2s1_000010_00.png")
    found = inspect(read_market1501(root))
    assert len(found.unreadable) == 2
    assert any("is not a BMP, GIF" in problem for problem in found.unreadable.values())
    assert any("mode I;16" in problem for problem in found.unreadable.values())
    assert any("bounding_box_train" in first and "bounding_box_test" in second for first, second in found.duplicates)
    assert [path.rpartition("/")[2] for path in found.unmatched] == ["0044_c1s1_000000_00.png"]
    train = found.splits["train"]
    assert (train.images, train.identities, train.per_identity) == (66, 8, (8, 8, 10))
    assert train.cameras == {1: 33, 2: 33}
    assert (found.splits["gallery"].junk, found.splits["gallery"].distractors) == (1, 1)
    assert found.splits["query"].one_camera == 1
