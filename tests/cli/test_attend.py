"""attend as a user calls it: pictures, a page, a folder with a broken file, mistakes."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from csametric.training import loop
from tests.data import people
from tests.training import tiny_reid


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """A run, the images it was trained on, a folder with a broken file among them."""
    folder = tmp_path_factory.mktemp("work")
    people.write_market(folder / "market")
    loop.train(tiny_reid.experiment("market1501", folder / "market", "epochs=1"), folder / "run")
    (folder / "mixed").mkdir()
    for number in range(3):
        people.person(number, 1, 0).save(folder / "mixed" / f"{number}.png")
    (folder / "mixed" / "broken.png").write_bytes(b"no image")
    return folder


@pytest.mark.parametrize("out", ["maps.png", "maps.pdf", "maps.svg", "maps.html"])
def test_maps_of_positions_of_ones_choice(called_here, work, out):
    words = ["mixed/0.png", "mixed/1.png", "--layer", "stage 2", "--group", "2", "--at", "0.2,0.5", "--at", "1,1"]
    done = called_here("attend", "run", *words, "--out", out, cwd=work)
    assert done.returncode == 0, done.stderr
    assert (work / out).stat().st_size > 5000
    assert "stage 2, group 2" in done.stdout
    assert "largest cosine" in done.stdout


def test_a_folder_gives_a_sheet_without_its_broken_file(called_here, work):
    done = called_here("attend", "run", "mixed", "--out", "sheet.png", cwd=work)
    assert done.returncode == 0, done.stderr
    assert "skipped: mixed/broken.png is not a BMP, GIF, JPEG" in done.stdout
    assert "images: 3" in done.stdout
    assert np.ptp(cv2.imread(str(work / "sheet.png"))) > 100


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mixed/broken.png"], "is not a BMP, GIF, JPEG"),
        (["mixed/none.png"], "image mixed/none.png does not exist"),
        (["mixed", "mixed/0.png"], "mixed is a folder; name one folder alone"),
        (
            ["mixed/0.png", "--layer", "stage 9"],
            "unknown layer 'stage 9'; the layers with attention are stage 1, stage 2, stage 3",
        ),
        (["mixed/0.png", "--group", "3"], "group must be in 1..2, got 3"),
        (["mixed/0.png", "--at", "2,0"], "--at must lie in the image"),
        (["mixed/0.png", "--at", "up"], "--at must be two fractions"),
        (["mixed/0.png", "--out", "maps.gif"], "--out must end in .png, .pdf, .svg or .html"),
    ],
)
def test_mistakes_are_explained(called_here, work, words, message):
    done = called_here("attend", "run", *words, cwd=work)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())
