"""index, search and dedupe from the command line, on generated people."""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from csametric import Gallery, load
from csametric.evaluation.reid import evaluate_reid
from csametric.files import write_text
from csametric.search.reranking import search_reranked
from csametric.training import loop
from tests.data import people
from tests.training import tiny_reid


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with a run, the people that it was trained on as market1501, and a gallery of the query images' folder."""
    folder = tmp_path_factory.mktemp("search")
    market = people.write_market(folder / "market")
    loop.train(tiny_reid.experiment("market1501", market), folder / "run")
    return folder


@pytest.fixture
def indexed(folder, tmp_path, called_here):
    """A gallery of the dataset's gallery images, 32 dimensions."""
    done = called_here(
        "index", folder / "run", f"market1501:{folder}/market", "--gallery", tmp_path / "x.db", "--dimensions", "32", cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return tmp_path / "x.db", done.stdout


def rows_of(path: Path) -> dict[str, tuple]:
    with Gallery(path, create=False) as gallery:
        found = [row for rows in gallery.rows() for row in rows]
        return {hit.key: (*vars(hit).values(), feature.tobytes()) for hit, feature in found}


def test_a_dataset_is_indexed_once_with_identities_and_cameras(folder, indexed, called_here):
    path, printed = indexed
    rows = rows_of(path)
    assert f"{len(rows):,} images added, 0 there already" in printed
    assert "images/s" in printed
    again = called_here(
        "index", folder / "run", f"market1501:{folder}/market", "--gallery", path, "--dimensions", "32", cwd=folder
    )
    assert f"0 images added, {len(rows):,} there already" in again.stdout
    assert rows_of(path) == rows
    names = {Path(key).name: (values[2], values[3]) for key, values in rows.items()}
    assert all((identity, camera) == (int(name[:4]), int(name[6])) for name, (identity, camera) in names.items())


def test_the_papers_metrics_from_a_gallery_equal_those_of_the_features(folder, indexed):
    path, _ = indexed
    model = load(folder / "run")
    with Gallery(path) as gallery:
        rows = [row for batch in gallery.rows() for row in batch]
        records = [(hit.identity, hit.camera) for hit, _ in rows]
        queries = sorted((folder / "market/query").iterdir())
        labels = [(int(query.name[:4]), int(query.name[6])) for query in queries]
        features = model.embed(queries, dimensions=32).numpy()
        found = gallery.search_features(features, k=gallery.count())
    embedded = model.embed([hit.path for hit, _ in rows], dimensions=32).numpy()
    expected = evaluate_reid(features, *zip(*labels, strict=True), embedded, *zip(*records, strict=True))
    ranks = []
    for (identity, camera), hits in zip(labels, found, strict=True):
        kept = [hit for hit in hits if not (hit.identity == identity and hit.camera == camera)]
        ranks.append(kept[0].identity == identity)
    assert sum(ranks) / len(ranks) == pytest.approx(expected.rank(1))


def test_search_prints_a_table_json_and_a_sheet(folder, indexed, called_here, tmp_path):
    path, _ = indexed
    query = sorted((folder / "market/query").iterdir())[0]
    done = called_here("search", path, query, "--k", "3", "--where", "camera != 1", "--sheet", tmp_path / "s.png", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "distance" in done.stdout
    with Image.open(tmp_path / "s.png") as picture:
        assert picture.size[0] > 300
    done = called_here("search", path, query, "--k", "3", "--json", "--rerank", cwd=folder)
    (answer,) = json.loads(done.stdout)
    assert (answer["query"], len(answer["hits"])) == (str(query), 3)
    assert answer["hits"][0]["identity"] == int(query.name[:4])


def test_reranking_orders_the_nearest_images(folder, indexed):
    model = load(folder / "run")
    with Gallery(indexed[0]) as gallery:
        features = model.embed(sorted((folder / "market/query").iterdir())[:3], dimensions=32).numpy()
        plain, reranked = gallery.search_features(features, k=100), search_reranked(gallery, features, k=100)
        assert [sorted(hit.key for hit in hits) for hits in plain] == [sorted(hit.key for hit in hits) for hits in reranked]
        assert search_reranked(gallery, features, 3, "camera == 99") == [[], [], []]


def test_a_changed_image_is_embedded_again_and_a_missing_one_is_named(folder, indexed, called_here, tmp_path):
    shutil.copytree(folder / "market/query", tmp_path / "photos")
    photos = sorted((tmp_path / "photos").iterdir())
    arguments = ("index", folder / "run", tmp_path / "photos", "--gallery", tmp_path / "p.db", "--dimensions", "32")
    (tmp_path / "photos/broken.jpg").write_text("no image")
    done = called_here(*arguments, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "broken.jpg" in done.stdout
    before = rows_of(tmp_path / "p.db")
    with Image.open(photos[0]) as photo:
        photo.rotate(180).save(photos[0], quality=95)
    assert f"1 images added, {len(photos) - 1} there already" in called_here(*arguments, cwd=folder).stdout
    after = rows_of(tmp_path / "p.db")
    assert after.keys() == before.keys()
    assert [key for key in after if after[key] != before[key]] == [str(photos[0])]
    photos[1].unlink()
    done = called_here("search", tmp_path / "p.db", photos[2], "--k", "99", cwd=folder)
    assert done.stdout.count("(missing)") == 1


def test_a_table_gives_identity_camera_and_time(folder, tmp_path, called_here):
    photo = sorted((folder / "market/query").iterdir())[0]
    shutil.copy(photo, tmp_path / "a.jpg")
    write_text(tmp_path / "t.csv", "path,camera,time\na.jpg,4,12.5\n")
    done = called_here("index", folder / "run", tmp_path / "t.csv", "--gallery", tmp_path / "t.db", cwd=folder)
    assert done.returncode == 0, done.stderr
    with Gallery(tmp_path / "t.db") as gallery:
        ((hit, _),) = next(gallery.rows())
    assert (hit.path, hit.identity, hit.camera, hit.time) == (str(tmp_path / "a.jpg"), None, 4, 12.5)
    write_text(tmp_path / "t.csv", "path,camera\na.jpg,four\n")
    done = called_here("index", folder / "run", tmp_path / "t.csv", "--gallery", tmp_path / "t.db", cwd=folder)
    assert (done.returncode, "line 2 of" in done.stderr) == (2, True)


def test_doubles_are_grouped_and_written(folder, tmp_path, called_here):
    shutil.copytree(folder / "market/query", tmp_path / "photos")
    first = sorted((tmp_path / "photos").iterdir())[0]
    shutil.copy(first, tmp_path / "photos/zcopy.jpg")
    called_here("index", folder / "run", tmp_path / "photos", "--gallery", tmp_path / "p.db", cwd=folder)
    arguments = (
        "dedupe",
        tmp_path / "p.db",
        "--distance",
        "0.0001",
        "--out",
        tmp_path / "d.csv",
        "--sheet",
        tmp_path / "d.png",
    )
    done = called_here(*arguments, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "1 groups of near-doubles" in done.stdout
    rows = list(csv.DictReader((tmp_path / "d.csv").read_text().splitlines()))
    assert [(row["keep"], row["path"]) for row in rows] == [("yes", str(first)), ("no", str(tmp_path / "photos/zcopy.jpg"))]
    assert (tmp_path / "d.png").is_file()


def test_mistakes_are_explained(folder, indexed, called_here, tmp_path):
    path, _ = indexed
    query = sorted((folder / "market/query").iterdir())[0]
    loop.train(tiny_reid.experiment("market1501", folder / "market", "epochs=2", "seed=1"), tmp_path / "other")
    for arguments, words in (
        (("search", path, query, "--run", tmp_path / "other"), "features of another model"),
        (("index", tmp_path / "other", folder / "market/query", "--gallery", path, "--dimensions", "32"), "another model"),
        (
            ("index", folder / "run", folder / "market/query", "--gallery", path, "--dimensions", "16"),
            "of 32 dimensions, not 16",
        ),
        (("index", folder / "run", tmp_path / "none", "--gallery", path), "does not exist; name a folder"),
        (("search", tmp_path / "no.db", query), "does not exist; make one"),
        (("search", path, query, "--where", "camara == 1"), "did you mean 'camera'"),
        (("dedupe", path, "--distance", "-1"), "at least 0"),
    ):
        done = called_here(*arguments, cwd=folder)
        assert (done.returncode, words in done.stderr) == (2, True), done.stderr
    shutil.move(folder / "run", folder / "moved")
    done = called_here("search", path, query, cwd=folder)
    assert "has moved; give its folder with --run" in done.stderr
    shutil.move(folder / "moved", folder / "run")


def test_an_index_that_is_killed_has_the_rows_of_an_undisturbed_one(folder, indexed, tmp_path, monkeypatch):
    expected = rows_of(indexed[0])
    program = (
        "import sys; from csametric.search import indexing; indexing.BATCHES_PER_WRITE = 1; indexing.EMBED_BATCH = 4;"
        "from csametric.cli.app import main; main()"
    )
    words = ["index", folder / "run", f"market1501:{folder}/market", "--gallery", tmp_path / "k.db", "--dimensions", "32"]
    rng, killed = random.Random(0), 0
    while True:
        process = subprocess.Popen([sys.executable, "-c", program, *map(str, words)], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + (rng.uniform(3.0, 6.0) if killed < 2 else 300)
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        if process.returncode is not None:
            assert process.returncode == 0
            break
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        killed += 1
    rows = rows_of(tmp_path / "k.db")
    assert rows.keys() == expected.keys()
    assert all(rows[key][:-1] == expected[key][:-1] for key in rows)
