"""Features of many files: chunks, resuming, shares of several processes, unreadable files."""

import threading

import numpy as np
import pytest
import torch
from pyarrow import parquet

from csametric.errors import BusyError, UserError
from csametric.files import lock_folder
from csametric.inference import feature_files
from csametric.inference.feature_files import FeatureOptions, Share, write_features
from csametric.inference.images import ImageEmbedder, build_pcb
from csametric.progress import show_progress
from tests.data import people
from tests.training import tiny_reid


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    experiment = tiny_reid.experiment("folder", "nowhere")
    return ImageEmbedder(build_pcb(experiment.model, 8), experiment, torch.device("cpu"))


@pytest.fixture
def images(tmp_path, monkeypatch):
    """Ten images and a damaged one; chunks of four."""
    monkeypatch.setattr(feature_files, "CHUNK", 4)
    folder = tmp_path / "people"
    folder.mkdir()
    for identity in range(10):
        people.person(identity, 1, 0).save(folder / f"{identity}.png")
    (folder / "5a.png").write_text("no image")
    return sorted(folder.iterdir())


def write(model, images, out, options=None, share=None):
    return write_features(model, images[0].parent, images, out, options or FeatureOptions(), share)


def test_chunks_are_joined_in_order_without_unreadable_files(model, images, tmp_path):
    written = write(model, images, tmp_path / "x.npy")
    assert (written.images, written.dimensions, len(written.problems)) == (10, model.model.dimensions, 1)
    assert "5a.png" in written.problems[0]
    assert written.per_second > 0
    names = (tmp_path / "x.txt").read_text().splitlines()
    assert names == [f"{identity}.png" for identity in range(10)]
    features = np.load(tmp_path / "x.npy", mmap_mode="r")
    own = model.embed([path for path in images if path.name != "5a.png"])
    np.testing.assert_allclose(features, own.numpy(), atol=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["people", "x.npy", "x.txt"]


def test_parquet_and_16_bits(model, images, tmp_path):
    write(model, images, tmp_path / "x.parquet", FeatureOptions(fp16=True))
    table = parquet.read_table(tmp_path / "x.parquet")
    assert table.column("path").to_pylist() == [f"{identity}.png" for identity in range(10)]
    features = np.stack(table.column("features").to_numpy())
    assert features.dtype == np.float16
    write(model, images, tmp_path / "x.npy", FeatureOptions(fp16=True))
    np.testing.assert_array_equal(features, np.load(tmp_path / "x.npy"))


def test_an_interrupted_call_goes_on_and_changed_files_are_embedded_again(model, images, tmp_path, monkeypatch):
    write(model, images, tmp_path / "whole.npy")

    def interrupted(items, *arguments, **options):
        for number, item in enumerate(show_progress(items, *arguments, **options)):
            if number == 2:
                raise KeyboardInterrupt
            yield item

    with monkeypatch.context() as patch:
        patch.setattr(feature_files, "show_progress", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write(model, images, tmp_path / "x.npy")
    assert not (tmp_path / "x.npy").exists()
    assert len(list((tmp_path / ".x.npy.parts").iterdir())) == 1  # the second was not complete
    people.person(77, 1, 0).save(images[-1])
    done = []
    with monkeypatch.context() as patch:
        patch.setattr(model, "embed", lambda batch, *rest: done.append(len(batch)) or ImageEmbedder.embed(model, batch, *rest))
        written = write(model, images, tmp_path / "x.npy")
    assert done == [3, 3]  # all but the first chunk
    people.person(78, 1, 0).save(images[0])
    with monkeypatch.context() as patch:
        patch.setattr(feature_files, "_assemble", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            write(model, images, tmp_path / "z.npy")
    people.person(79, 1, 0).save(images[0])  # its chunk is embedded again, the others are taken over
    assert write(model, images, tmp_path / "z.npy").images == 10
    assert written.images == 10
    whole, resumed = np.load(tmp_path / "whole.npy"), np.load(tmp_path / "x.npy")
    np.testing.assert_array_equal(whole[:-1], resumed[:-1])
    assert not np.array_equal(whole[-1], resumed[-1])
    changed = np.load(tmp_path / "z.npy")
    np.testing.assert_array_equal(changed[1:], resumed[1:])
    np.testing.assert_allclose(changed[0], model.embed(images[0])[0].numpy(), atol=1e-5)


def test_processes_share_the_chunks(model, images, tmp_path):
    barrier = threading.Barrier(2)
    results = {}

    def run(rank):
        results[rank] = write(model, images, tmp_path / "x.npy", share=Share(rank, 2, barrier.wait))

    threads = [threading.Thread(target=run, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    write(model, images, tmp_path / "y.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), np.load(tmp_path / "y.npy"))
    assert (results[0].images, results[1].images) == (10, 0)


def test_mistakes(model, images, tmp_path):
    broken = [path for path in images if path.name == "5a.png"]
    with pytest.raises(UserError, match="none of the 1 images can be read"):
        write(model, broken, tmp_path / "x.npy")
    with lock_folder(tmp_path / ".x.npy.parts"), pytest.raises(BusyError):
        write(model, images, tmp_path / "x.npy")
    with pytest.raises(UserError, match="has no compact features"):
        write(model, images, tmp_path / "x.npy", FeatureOptions(dimensions=4))
    assert not (tmp_path / "x.npy").exists()
