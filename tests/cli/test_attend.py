"""`csametric attend`: pictures, a page, a folder with a damaged file, mistakes."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from csametric.training import loop
from tests.data import people
from tests.training import tiny_reid


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """A run, the images it was trained on, and a folder of images with a damaged file."""
    folder = tmp_path_factory.mktemp("work")
    people.write_market(folder / "market")
    loop.train(tiny_reid.experiment("market1501", folder / "market", "epochs=1"), folder / "run")
    (folder / "mixed").mkdir()
    for number in range(3):
        people.person(number, 1, 0).save(folder / "mixed" / f"{number}.png")
    (folder / "mixed" / "broken.png").write_bytes(b"no image")
    return folder


@pytest.mark.parametrize("out", ["maps.png", "maps.pdf", "maps.svg", "maps.html"])
def test_maps_of_given_positions_are_drawn(called_here, work, out):
    arguments = ["mixed/0.png", "mixed/1.png", "--layer", "stage 2", "--group", "2", "--at", "0.2,0.5", "--at", "1,1"]
    done = called_here("attend", "run", *arguments, "--out", out, cwd=work)
    assert done.returncode == 0, done.stderr
    assert (work / out).stat().st_size > 5000
    assert "stage 2, group 2" in done.stdout
    assert "largest cosine" in done.stdout


def test_a_folder_gives_a_contact_sheet_without_its_damaged_file(called_here, work):
    done = called_here("attend", "run", "mixed", "--out", "sheet.png", cwd=work)
    assert done.returncode == 0, done.stderr
    assert "skipped: mixed/broken.png is not a BMP, GIF, JPEG" in done.stdout
    assert "images: 3" in done.stdout
    assert np.ptp(cv2.imread(str(work / "sheet.png"))) > 100


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mixed/broken.png"], "is not a BMP, GIF, JPEG"),
        (["mixed/none.png"], "image mixed/none.png does not exist"),
        (["mixed", "mixed/0.png"], "mixed is a folder; give one folder alone"),
        (
            ["mixed/0.png", "--layer", "stage 9"],
            "no compressed self-attention after stage 9; use one of stage 1, stage 2, stage 3",
        ),
        (["mixed/0.png", "--group", "3"], "group must be in 1 to 2, got 3"),
        (["mixed/0.png", "--at", "2,0"], "must lie in the image"),
        (["mixed/0.png", "--at", "up"], "must be two fractions Y,X"),
        (["mixed/0.png", "--out", "maps.gif"], "must end in .png, .pdf, .svg or .html"),
    ],
)
def test_mistakes_are_explained(called_here, work, arguments, message):
    done = called_here("attend", "run", *arguments, cwd=work)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())
