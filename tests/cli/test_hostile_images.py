"""Every command that reads images refuses a PostScript file named .png, and does not run it."""

import shutil

import pytest

from csametric.training.loop import train
from tests.data import people
from tests.data.brown_folder import write_subset
from tests.data.hpatches_folder import write_sequence
from tests.data.test_decoding import EPS
from tests.matching.scenes import write_homography_sequence, write_pair
from tests.training import tiny, tiny_reid


@pytest.fixture(scope="module")
def work(tmp_path_factory, photo_folder, cache):
    """Two runs, and for each kind of data a good folder and one in which an image is PostScript."""
    folder = tmp_path_factory.mktemp("hostile")
    people.write_market(folder / "market")
    train(tiny_reid.experiment("market1501", folder / "market", "epochs=1"), folder / "runs" / "people")
    train(tiny.experiment(photo_folder, "steps=2"), folder / "runs" / "patches", cache)
    shutil.copytree(folder / "market", folder / "bad")
    for split in ("bounding_box_train", "query", "bounding_box_test"):
        next(iter(sorted((folder / "bad" / split).glob("00*_c1*")))).write_bytes(EPS)
    shutil.copytree(photo_folder, folder / "photos")
    (folder / "photos" / "photo1.png").write_bytes(EPS)
    (folder / "eps.png").write_bytes(EPS)
    (folder / "only").mkdir()
    (folder / "only" / "a.png").write_bytes(EPS)
    write_pair(folder)
    write_subset(folder / "brown" / "liberty", points=40, pairs=80)
    write_subset(folder / "brown" / "notredame", points=40, pairs=80)
    (folder / "brown" / "notredame" / "patches0000.bmp").write_bytes(EPS)
    write_sequence(folder / "hpatches" / "v_wall", 3)
    (folder / "hpatches" / "v_wall" / "e1.png").write_bytes(EPS)
    scene = write_homography_sequence(folder / "sequences" / "v_scene")
    next(scene.glob("2.*")).write_bytes(EPS)
    return folder


@pytest.fixture(autouse=True)
def ghostscript(monkeypatch):
    """Fail the test where Pillow would start Ghostscript, whether that is installed or not."""
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_, **__: pytest.fail("PostScript was run"))


SMALL = [argument for setting in tiny_reid.SETTINGS for argument in ("--set", setting)]
REFUSED = [
    ["train", "pcb_csa", "--data", "market1501:bad", "--name", "bad", *SMALL],
    ["evaluate", "runs/people", "--data", "market1501:bad"],
    ["attend", "runs/people", "eps.png"],
    ["attend", "runs/people", "only"],
    ["embed", "runs/people", "only", "--out", "x.npy"],
    ["serve", "runs/people", "--image", "eps.png"],
    ["match", "sift", "a.png", "eps.png"],
    ["match", "runs/patches", "eps.png", "a.png"],
    ["evaluate", "runs/patches", "--data", "brown:brown"],
    ["evaluate", "runs/patches", "--data", "sequences:sequences"],
    ["hpatches", "extract", "runs/patches", "hpatches", "out"],
    ["train", "brown_hardnet", "--data", "brown:brown", "--name", "brown"],
]
SKIPPED = [
    ["embed", "runs/people", "photos", "--out", "y.npy"],
    ["evaluate", "runs/patches", "--data", "photos:photos"],
    ["match", "sift", "photos", "--out", "graph"],
    ["attend", "runs/people", "photos"],
    ["data", "check", "market1501:bad"],
]


@pytest.mark.parametrize("arguments", REFUSED, ids=" ".join)
def test_a_postscript_file_is_refused(work, called_here, arguments):
    done = called_here(*arguments, cwd=work)
    assert done.returncode == 2
    assert "is not a BMP, " in done.stdout + done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("arguments", SKIPPED, ids=" ".join)
def test_a_postscript_file_among_others_is_skipped_and_named(work, called_here, arguments):
    done = called_here(*arguments, cwd=work)
    assert done.returncode == 0, done.stderr
    assert "is not a BMP, " in done.stdout
