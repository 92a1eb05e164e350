"""A gallery answers as a comparison with all rows does, keeps what it was given, and really erases."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csametric.errors import BusyError, UserError
from csametric.search import gallery as galleries
from csametric.search.gallery import Gallery
from csametric.search.rows import row_key

DIMENSIONS = 8


def features(count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, DIMENSIONS)).astype(np.float32)


def fill(gallery, count=200):
    """Row i has identity i // 4 (or none), camera i % 3 and time i."""
    gallery.add_features(
        features(count),
        [f"{index}.jpg" for index in range(count)],
        identities=[None if index % 5 == 4 else index // 4 for index in range(count)],
        cameras=[index % 3 for index in range(count)],
        times=[float(index) for index in range(count)],
        digests=[f"{index:064x}" for index in range(count)],
    )


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    with Gallery(tmp_path_factory.mktemp("gallery") / "people.db", DIMENSIONS, model="abc") as gallery:
        fill(gallery)
        yield gallery


def nearest_by_loop(queries, rows, allowed, k):
    answers = []
    for query in queries:
        distances = [(float(np.linalg.norm(query - row)), index) for index, row in enumerate(rows) if allowed(index)]
        answers.append(sorted(distances)[:k])
    return answers


@pytest.mark.parametrize(
    ("where", "allowed"),
    [
        ("", lambda index: True),
        ("camera != 1", lambda index: index % 3 != 1),
        ("camera == 2 and time > 50.5", lambda index: index % 3 == 2 and index > 50),
        ("identity in [3, 7]", lambda index: index % 5 != 4 and index // 4 in (3, 7)),
        ("identity is null", lambda index: index % 5 == 4),
    ],
)
def test_search_equals_a_loop(filled, where, allowed):
    queries = features(300, seed=1)  # more than fit into one message
    expected = nearest_by_loop(queries, features(200), allowed, 5)
    found = filled.search_features(queries, k=5, where=where)
    assert [[hit.path for hit in hits] for hits in found] == [[f"{index}.jpg" for _, index in hits] for hits in expected]
    np.testing.assert_allclose(
        [[hit.distance for hit in hits] for hits in found], [[distance for distance, _ in hits] for hits in expected], atol=1e-4
    )
    assert filled.count(where) == sum(allowed(index) for index in range(200))


def test_a_hit_carries_what_was_added(filled):
    (hit,) = filled.search_features(features(200)[13:14], k=1)[0]
    assert (hit.path, hit.key, hit.identity, hit.camera, hit.time, hit.box) == ("13.jpg", "13.jpg", 3, 1, 13.0, None)
    assert hit.digest == f"{13:064x}"
    assert hit.distance == pytest.approx(0, abs=1e-3)


def test_rows_come_back_with_their_features(filled):
    rows = [row for batch in filled.rows("camera == 0", batch=7) for row in batch]
    assert sorted(hit.path for hit, _ in rows) == sorted(f"{index}.jpg" for index in range(0, 200, 3))
    for hit, feature in rows:
        np.testing.assert_array_equal(feature, features(200)[int(hit.path.removesuffix(".jpg"))])


def test_the_same_path_and_box_are_replaced(tmp_path):
    with Gallery(tmp_path / "x.db", 2) as gallery:
        gallery.add_features([[0, 0], [1, 1]], ["a", "b"], boxes=[None, (1, 2, 30, 60)])
        gallery.add_features([[5, 5], [6, 6]], ["a", "b"])
        assert gallery.count() == 3
        assert [hit.key for hit in gallery.search_features([[1, 1]], k=3)[0]] == [row_key("b", (1, 2, 30, 60)), "a", "b"]
        assert gallery.search_features([[1, 1]], k=1)[0][0].box == (1, 2, 30, 60)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.lists(st.floats(-100, 100, width=32), min_size=3, max_size=3), min_size=1, max_size=12), st.integers(1, 15))
def test_distances_rise_and_no_row_is_found_twice(tmp_path_factory, rows, k):
    with Gallery(tmp_path_factory.mktemp("g") / "x.db", 3) as gallery:
        gallery.add_features(rows, [str(index) for index in range(len(rows))])
        hits = gallery.search_features(rows[:1], k)[0]
    assert len(hits) == len({hit.key for hit in hits}) == min(k, len(rows))
    assert [hit.distance for hit in hits] == sorted(hit.distance for hit in hits)


def test_what_was_removed_is_in_no_file(tmp_path):
    with Gallery(tmp_path / "x.db", DIMENSIONS) as gallery:
        fill(gallery)
        assert gallery.remove("identity == 7") == 3
        assert gallery.remove("identity == 7") == 0
        assert gallery.count() == 197
        assert gallery.search_features(features(200)[28:29], k=1)[0][0].path != "28.jpg"
        assert gallery.about["dimensions"] == DIMENSIONS
    with Gallery(tmp_path / "x.db", DIMENSIONS) as gallery:
        assert gallery.count() == 197
    content = b"".join(path.read_bytes() for path in sorted((tmp_path / "x.db").rglob("*")) if path.is_file())
    assert features(200)[27].tobytes() in content, "features are stored as they are"
    assert features(200)[28].tobytes() not in content
    assert f"{28:064x}".encode() not in content


@pytest.mark.parametrize("moment", ["drop_collection", "rename_collection"])
def test_an_erasure_that_is_interrupted_loses_nothing(tmp_path, monkeypatch, moment):
    gallery = Gallery(tmp_path / "x.db", DIMENSIONS)
    fill(gallery)

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(gallery._client, moment, stop)
    with pytest.raises(KeyboardInterrupt):
        gallery.remove("camera == 1")
    gallery.close()
    with Gallery(tmp_path / "x.db", DIMENSIONS) as gallery:
        assert (gallery.count(), gallery.count("camera == 1")) == (133, 0)


def test_many_rows_get_an_index_that_finds_almost_all(tmp_path, monkeypatch):
    monkeypatch.setattr(galleries, "HNSW_ROWS", 1000)
    with Gallery(tmp_path / "x.db", DIMENSIONS) as gallery:
        rows, queries = features(1500), features(50, seed=1)
        for start in (0, 500, 1000):
            gallery.add_features(rows[start : start + 500], [str(index) for index in range(start, start + 500)])
        assert gallery._client.describe_index("images", "feature")["index_type"] == "HNSW"
        found = [{hit.path for hit in hits} for hits in gallery.search_features(queries, k=10)]
    expected = [{str(index) for _, index in hits} for hits in nearest_by_loop(queries, rows, lambda _: True, 10)]
    assert np.mean([len(a & b) / 10 for a, b in zip(found, expected, strict=True)]) > 0.99


def test_other_models_and_sizes_are_refused(filled, tmp_path):
    with Gallery(tmp_path / "x.db", 4, model="abc") as gallery:
        path = gallery.uri
    with pytest.raises(UserError, match="holds features of 4 dimensions, not 8; use another gallery"):
        Gallery(path, 8)
    with pytest.raises(UserError, match="features of another model"):
        Gallery(path, 4, model="abd")


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("camera !! 3", "the condition 'camera !! 3' cannot be used: unexpected token '!' at column 8"),
        ("camara == 3", "unknown field 'camara' at column 1.*did you mean 'camera'"),
        ("camera != 'x'", "incompatible types at column 8"),
        ("1; drop", "unexpected character ';' at column 2"),
        ("camera ==", "cannot be used"),
    ],
)
def test_conditions_that_cannot_be_used_are_explained(filled, where, words):
    for use in (filled.count, filled.remove, lambda where: filled.search_features(features(1), where=where)):
        with pytest.raises(UserError, match=words):
            use(where)
    assert filled.count() == 200


def test_unusable_values_are_refused(filled):
    for arguments, words in (
        ((np.zeros((2, 3)), ["a", "b"]), r"must be \(2, 8\), one row per path, got \(2, 3\)"),
        ((np.full((1, 8), np.nan), ["a"]), "NaN or infinite"),
        ((np.zeros((1, 8)), ["a"], [1, 2]), "need one identity per path, got 2 for 1 paths"),
        ((np.zeros((1, 8)), ["a" * 5000]), "path of more than 4,096 bytes"),
    ):
        with pytest.raises(UserError, match=words):
            filled.add_features(*arguments)
    with pytest.raises(UserError, match="k must be at least 1"):
        filled.search_features(features(1), k=0)
    with pytest.raises(UserError, match=r"must be \(N, 8\), got \(8,\)"):
        filled.search_features(features(1)[0])
    with pytest.raises(UserError, match="name a condition"):
        filled.remove(" ")


def test_files_that_are_no_gallery_are_explained(tmp_path):
    (tmp_path / "old.db").write_bytes(b"SQLite format 3\0")
    for uri, words in (
        (tmp_path / "old.db", "was written by another version"),
        (tmp_path / "gallery", "must end in .db"),
        (tmp_path / "nowhere" / "x.db", "does not exist; create it first"),
        ("http://127.0.0.1:1", "server http://127.0.0.1:1 cannot be reached"),
    ):
        with pytest.raises(UserError, match=words):
            Gallery(uri)
    with pytest.raises(UserError, match="does not exist; make one with `csametric index`"):
        Gallery(tmp_path / "x.db", create=False)
    assert not (tmp_path / "x.db").exists()


HOLD = (
    "import sys; from csametric.search.gallery import Gallery; g = Gallery(sys.argv[1], 2); print('open', flush=True); input()"
)


def test_a_gallery_in_use_is_named_and_survives_a_kill(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path / "x.db")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(BusyError, match=r"x\.db is open already, in another process"):
            Gallery(tmp_path / "x.db", 2)
        holder.kill()
    with Gallery(tmp_path / "x.db", 2) as gallery:
        assert gallery.count() == 0


def test_the_packages_of_the_extra_are_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(UserError, match=r"pip install 'csametric\[search\]'"):
        Gallery(tmp_path / "x.db")
