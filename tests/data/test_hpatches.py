"""HPatches on disk: patches, task files, the benchmark's CSV layout, and its published pairs."""

import cv2
import numpy as np
import pytest

from csametric.data import hpatches
from csametric.data.hpatches import (
    PATCH_KINDS,
    check_task,
    describe_sequence,
    draw_two,
    find_sequences,
    find_task_file,
    read_descriptors,
    read_sequence,
    read_splits,
    read_task,
    verification_pairs,
    write_descriptors,
)
from csametric.errors import UserError
from tests.data.hpatches_folder import write_sequence, write_tasks


def test_reading_a_sequence_returns_what_was_written(tmp_path):
    patches = write_sequence(tmp_path / "v_wall", 5)
    read = read_sequence(tmp_path / "v_wall")
    assert list(read) == list(PATCH_KINDS)
    for kind in PATCH_KINDS:
        np.testing.assert_array_equal(read[kind], patches[kind])


def test_descriptors_survive_writing_and_reading_in_the_benchmarks_layout(tmp_path):
    write_sequence(tmp_path / "v_wall", 5)

    def describe(patches):
        assert patches.shape == (80, 32, 32)
        return patches.reshape(len(patches), -1)[:, :7] / 3

    descriptors = describe_sequence(tmp_path / "v_wall", describe)
    write_descriptors(tmp_path / "out" / "v_wall", descriptors)
    assert len((tmp_path / "out" / "v_wall" / "e3.csv").read_text().splitlines()) == 5
    read = read_descriptors(tmp_path / "out" / "v_wall")
    for kind in PATCH_KINDS:
        np.testing.assert_allclose(read[kind], descriptors[kind], rtol=1e-6)
    for path in (tmp_path / "out" / "v_wall").glob("*.csv"):
        path.write_text(path.read_text().replace(",", ";"))
    np.testing.assert_array_equal(read_descriptors(tmp_path / "out" / "v_wall")["t5"], read["t5"])


def test_the_splits_have_their_published_sizes():
    assert {name: len(names) for name, names in read_splits().items()} == {
        "a": 40, "b": 40, "c": 40, "illum": 57, "view": 59, "full": 116,
    }  # fmt: skip
    assert set(read_splits()["illum"]) | set(read_splits()["view"]) == set(read_splits()["full"])


def test_the_first_published_rows_of_split_a_are_reproduced():
    """The benchmark's documentation prints them; only these four counts, and none near them, give its patches."""
    counts = {"v_birdwoman": 2000, "v_strand": 1816, "i_salon": 1102, "i_zion": 2000}
    legacy = np.random.RandomState(hpatches.SEED)
    sequences = legacy.choice(40, hpatches.PAIRS)[:4]
    names = [read_splits()["a"][sequence] for sequence in sequences]
    assert names == ["v_birdwoman", "v_strand", "i_salon", "i_zion"]
    assert draw_two(legacy, [counts[name] for name in names])[:, 0].tolist() == [251, 1625, 1100, 1766]


def test_pairs_equal_those_of_the_benchmarks_own_code():
    counts = [5, 40, 17]
    np.random.seed(42)  # noqa: NPY002
    draw = np.random  # the global generator, as in the benchmark's code, whose names are kept here
    s = draw.choice(["x", "y", "z"], 200)
    number = {"x": 0, "y": 1, "z": 2}
    idx = [draw.choice(np.arange(counts[number[name]]), 2, replace=False) for name in s]
    t = [draw.choice(np.arange(5), 2, replace=False) for _ in s]
    other = draw.choice(["x", "y", "z"], 200)
    other_idx = [draw.randint(counts[number[name]]) for name in other]
    positives, within, across = verification_pairs(counts, 200)
    for m in range(200):
        a = number[s[m]]
        assert positives[m].tolist() == [a, t[m][0], idx[m][0], a, t[m][1], idx[m][0]]
        assert within[m].tolist() == [a, t[m][0], idx[m][0], a, t[m][1], idx[m][1]]
        assert across[m].tolist() == [a, t[m][0], idx[m][0], number[other[m]], t[m][1], other_idx[m]]


def test_task_files_are_found_and_read(tmp_path):
    write_tasks(tmp_path, "a", ["i_x", "v_y"], [4, 6], 3, 5)
    queries = read_task(find_task_file(tmp_path, "retr_queries", "a"), ["i_x", "v_y"])
    assert queries.shape == (3, 2)
    assert queries[:, 0].max() <= 1
    (tmp_path / "verif_pos_split-a.csv").write_text("s1,t1,idx1,s2,t2,idx2\nv_y,4,251,i_x,3,204\n")
    assert read_task(find_task_file(tmp_path, "verif_pos", "a"), ["i_x", "v_y"]).tolist() == [[1, 4, 251, 0, 3, 204]]
    assert find_task_file(tmp_path, "retr_queries", "b") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("s,idx\nv_other,3\n", "names the sequence v_other"),
        ("s,idx\ni_x,three\n", "is not a task file"),
        ("s,idx\ni_x\n", "not a task file"),
    ],
)
def test_damaged_task_files_are_refused(tmp_path, text, message):
    path = tmp_path / "retr_queries_split-a.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_task(path, ["i_x"])


def test_the_error_for_a_damaged_sequence_names_the_problem(tmp_path):
    write_sequence(tmp_path / "v_wall", 5)
    write_sequence(tmp_path / "v_less", 4)
    (tmp_path / "v_less" / "h2.png").rename(tmp_path / "v_wall" / "h2.png")
    with pytest.raises(UserError, match=r"as many patches in h2 as in ref \(5\), got 4"):
        read_sequence(tmp_path / "v_wall")
    with pytest.raises(UserError, match=r"h2\.png is missing"):
        read_sequence(tmp_path / "v_less")
    (tmp_path / "v_less" / "ref.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="is not a BMP, GIF"):
        read_sequence(tmp_path / "v_less")
    cv2.imwrite(str(tmp_path / "v_less" / "ref.png"), np.zeros((65, 64), np.uint8))
    with pytest.raises(UserError, match="must be a column of 65 x 65 patches, got 64 x 65 pixels"):
        read_sequence(tmp_path / "v_less")
    assert find_sequences(tmp_path) == ["v_less", "v_wall"]
    with pytest.raises(UserError, match="holds no sequence"):
        find_sequences(tmp_path / "v_wall")
    with pytest.raises(UserError, match="nowhere does not exist"):
        find_sequences(tmp_path / "nowhere")


def test_tasks_with_patches_that_do_not_exist_are_refused(tmp_path):
    check_task(tmp_path / "x.csv", np.array([[1, 4, 5, 0, 3, 3]]), [4, 6])
    with pytest.raises(UserError, match="names a patch in line 3"):
        check_task(tmp_path / "x.csv", np.array([[0, 3], [0, 4]]), [4, 6])
    with pytest.raises(UserError, match="names a patch in line 2"):
        check_task(tmp_path / "x.csv", np.array([[0, 6, 1, 1, 0, 1]]), [4, 6])


def test_the_error_for_damaged_descriptors_names_the_problem(tmp_path):
    values = {kind: np.ones((3, 4)) for kind in PATCH_KINDS}
    write_descriptors(tmp_path / "v_a", values | {"t3": np.ones((3, 5))})
    with pytest.raises(UserError, match=r"as many columns in t3\.csv as in ref\.csv \(4\), got 5"):
        read_descriptors(tmp_path / "v_a")
    write_descriptors(tmp_path / "v_b", values | {"e1": np.ones((2, 4))})
    with pytest.raises(UserError, match=r"as many patches in e1 as in ref \(3\), got 2"):
        read_descriptors(tmp_path / "v_b")
    (tmp_path / "v_b" / "h1.csv").write_text("1,2,3,4\n1,2,x,4\n1,2,3,4\n")
    with pytest.raises(UserError, match="must be a table of numbers"):
        read_descriptors(tmp_path / "v_b")
    for content, message in ((b"1,nan,3,4\n", "nan or infinite"), (b"\xff\xfe\x80\n", "must be a table of numbers")):
        (tmp_path / "v_b" / "h1.csv").write_bytes(content * 3)
        with pytest.raises(UserError, match=message):
            read_descriptors(tmp_path / "v_b")
    (tmp_path / "v_b" / "h1.csv").unlink()
    with pytest.raises(UserError, match=r"h1\.csv is missing"):
        read_descriptors(tmp_path / "v_b")
