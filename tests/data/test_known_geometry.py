"""Photographs with known geometry: sequences with homographies, and lists with intrinsics and poses."""

import cv2
import numpy as np
import pytest

from csametric.data.known_geometry import read_posed_pairs, read_sequences
from csametric.errors import UserError
from tests.matching.scenes import write_homography_sequence

MATRIX = "1 0 3\n0 1 4\n0 0 1\n"


def test_sequences_are_read_in_both_layouts(tmp_path):
    for folder, photo, homography in (("v_wall", "{}.ppm", "H_1_{}"), ("graf", "img{}.ppm", "H1to{}p")):
        (tmp_path / folder).mkdir()
        for number in (1, 2, 4):
            cv2.imwrite(str(tmp_path / folder / photo.format(number)), np.zeros((8, 8, 3), np.uint8))
        for number in (2, 4):
            (tmp_path / folder / homography.format(number)).write_text(MATRIX)
    pairs = read_sequences(tmp_path)
    assert [(pair.sequence, pair.second.name) for pair in pairs] == [
        ("graf", "img2.ppm"), ("graf", "img4.ppm"), ("v_wall", "2.ppm"), ("v_wall", "4.ppm"),
    ]  # fmt: skip
    assert pairs[0].homography[0, 2] == 3


def test_the_error_for_a_damaged_sequence_names_the_problem(tmp_path):
    with pytest.raises(UserError, match="holds no sequence"):
        read_sequences(tmp_path)
    (tmp_path / "v_a").mkdir()
    (tmp_path / "v_a" / "H_1_2").write_text("1 0 x")
    with pytest.raises(UserError, match="v_a has homographies, but photograph 1 is missing"):
        read_sequences(tmp_path)
    for number in (1, 2):
        (tmp_path / "v_a" / f"{number}.png").write_bytes(b"")
    with pytest.raises(UserError, match="H_1_2 must hold 3 x 3 numbers"):
        read_sequences(tmp_path)
    with pytest.raises(UserError, match="none does not exist"):
        read_sequences(tmp_path / "none")


def test_posed_pairs_are_read_and_damaged_lines_refused(tmp_path):
    numbers = [*range(9), *range(10, 19), *range(20, 36)]
    (tmp_path / "pairs.txt").write_text(f"# comment\na.jpg sub/b.jpg 0 1 {' '.join(map(str, numbers))}\n")
    (pair,) = read_posed_pairs(tmp_path / "pairs.txt")
    assert pair.second == tmp_path / "sub" / "b.jpg"
    assert pair.first_camera[2, 2] == 8
    assert pair.second_camera[0, 0] == 10
    assert pair.pose[3, 3] == 35
    (tmp_path / "pairs.txt").write_text("a.jpg b.jpg 0 0 1 2 3\n")
    with pytest.raises(UserError, match=r"line 1 must have 38 words .*, got 7"):
        read_posed_pairs(tmp_path / "pairs.txt")
    with pytest.raises(UserError, match=r"none\.txt does not exist"):
        read_posed_pairs(tmp_path / "none.txt")


@pytest.mark.parametrize("numbers", ["nan 0 0 0 1 0 0 0 1", "0 0 0 0 0 0 0 0 0", "1 0 0 2 0 0 0 0 1"])
def test_a_homography_that_cannot_be_inverted_is_refused(tmp_path, numbers):
    write_homography_sequence(tmp_path / "v_scene")
    next((tmp_path / "v_scene").glob("H_1_*")).write_text(numbers)
    with pytest.raises(UserError, match="must hold an invertible matrix"):
        read_sequences(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "has no pairs"), (b"# none\n", "has no pairs"), (b"\xff\xfe", "not UTF-8")]
)
def test_a_list_without_pairs_is_refused(tmp_path, content, message):
    (tmp_path / "pairs.txt").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_posed_pairs(tmp_path / "pairs.txt")
