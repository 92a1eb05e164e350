"""Re-identification metrics equal loops over ranked lists and hand-computed values, also in blocks."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from csametric import evaluate_distances, evaluate_reid
from csametric.errors import UserError
from csametric.evaluation import reid
from csametric.evaluation.reid import nearest_entries


def by_loops(distances, query_ids, query_cameras, gallery_ids, gallery_cameras, camera_filter=True):
    """Rank, filter and average, one query after the other; non-matches rank first among equals."""
    cmc, steps, trapezoids, minps, unmatched = [], [], [], [], []
    for q, row in enumerate(distances):
        ranked = []
        for g, distance in enumerate(row):
            match = gallery_ids[g] == query_ids[q]
            if gallery_ids[g] == -1 or (camera_filter and match and gallery_cameras[g] == query_cameras[q]):
                continue
            ranked.append((distance, match))
        ranked.sort()
        hits = [match for _, match in ranked]
        if not any(hits):
            unmatched.append(q)
            continue
        hit_count, step, trapezoid = 0, 0.0, 0.0
        for rank, hit in enumerate(hits):
            if hit:
                before = 1.0 if rank == 0 else hit_count / rank
                hit_count += 1
                step += hit_count / (rank + 1)
                trapezoid += (before + hit_count / (rank + 1)) / 2
        steps.append(step / hit_count)
        trapezoids.append(trapezoid / hit_count)
        last = max(rank for rank, hit in enumerate(hits) if hit)
        minps.append(hit_count / (last + 1))
        cmc.append([any(hits[: k + 1]) for k in range(len(row))])
    return cmc, steps, trapezoids, minps, unmatched


@st.composite
def problems(draw):
    """Small problems with ties, junk, distractors, one-camera identities, and queries without a match."""
    queries, gallery = draw(st.integers(1, 6)), draw(st.integers(1, 12))
    values = st.sampled_from([0.0, 0.25, 0.5, 1.0])
    return {
        "distances": np.array([[draw(values) for _ in range(gallery)] for _ in range(queries)], np.float32),
        "query_ids": np.array([draw(st.integers(1, 3)) for _ in range(queries)]),
        "query_cameras": np.array([draw(st.integers(0, 1)) for _ in range(queries)]),
        "gallery_ids": np.array([draw(st.integers(-1, 3)) for _ in range(gallery)]),
        "gallery_cameras": np.array([draw(st.integers(0, 1)) for _ in range(gallery)]),
        "camera_filter": draw(st.booleans()),
    }


@settings(max_examples=300, deadline=None)
@given(problem=problems())
def test_metrics_equal_the_loops(problem):
    cmc, steps, trapezoids, minps, unmatched = by_loops(**problem)
    if not steps:
        with pytest.raises(UserError, match="no query has a match"):
            evaluate_distances(**problem)
        return
    metrics = evaluate_distances(**problem)
    np.testing.assert_allclose(metrics.cmc, np.mean(cmc, 0))
    assert metrics.map_step == pytest.approx(np.mean(steps))
    assert metrics.map_trapezoid == pytest.approx(np.mean(trapezoids))
    assert metrics.minp == pytest.approx(np.mean(minps))
    assert metrics.queries_without_match == unmatched
    assert metrics.queries == len(steps)


@settings(max_examples=100, deadline=None)
@given(problem=problems(), seed=st.integers(0, 99))
def test_the_order_of_the_gallery_does_not_matter(problem, seed):
    order = np.random.default_rng(seed).permutation(problem["distances"].shape[1])
    shuffled = problem | {
        "distances": problem["distances"][:, order],
        "gallery_ids": problem["gallery_ids"][order],
        "gallery_cameras": problem["gallery_cameras"][order],
    }
    try:
        metrics = evaluate_distances(**problem)
    except UserError:
        return
    other = evaluate_distances(**shuffled)
    np.testing.assert_array_equal(metrics.cmc, other.cmc)
    assert (metrics.map_step, metrics.map_trapezoid, metrics.minp) == (other.map_step, other.map_trapezoid, other.minp)


def test_queries_with_many_matches_equal_the_loops():
    rng = np.random.default_rng(0)
    problem = {
        "distances": rng.integers(0, 50, (4, 300)).astype(np.float32),
        "query_ids": np.array([1, 1, 2, 3]),
        "query_cameras": np.array([0, 1, 0, 0]),
        "gallery_ids": rng.integers(-1, 3, 300),
        "gallery_cameras": rng.integers(0, 3, 300),
    }
    metrics = evaluate_distances(**problem)
    _, steps, _, _, unmatched = by_loops(**problem)
    assert metrics.map_step == pytest.approx(np.mean(steps))
    assert metrics.queries_without_match == unmatched == [3]


def test_metrics_equal_hand_computed_values():
    """Match, non-match, match: AP (1 + 2/3)/2 by steps; (1 + (1/2 + 2/3)/2)/2 by trapezoids; mINP 2/3."""
    metrics = evaluate_distances([[0.1, 0.2, 0.3]], [7], [0], [7, 8, 7], [1, 1, 2])
    assert metrics.cmc[0] == metrics.rank(5) == 1
    assert metrics.map_step == pytest.approx(5 / 6)
    assert metrics.map_trapezoid == pytest.approx((1 + 7 / 12) / 2)
    assert metrics.minp == pytest.approx(2 / 3)
    late = evaluate_distances([[0.3, 0.2, 0.1]], [7], [0], [7, 8, 9], [1, 1, 2])
    assert list(late.cmc) == [0, 0, 1]
    assert late.map_trapezoid == pytest.approx((0 + 1 / 3) / 2)


def test_junk_is_dropped_and_distractors_stay():
    arguments = ([[0.1, 0.2, 0.3]], [7], [0])
    assert evaluate_distances(*arguments, [-1, 7, 8], [1, 1, 1]).map_step == 1
    assert evaluate_distances(*arguments, [0, 7, 8], [1, 1, 1]).map_step == 0.5


def test_data_from_one_camera_needs_the_camera_filter_off():
    arguments = ([[0.1, 0.2]], [7], [0], [7, 8], [0, 0])
    with pytest.raises(UserError, match=r"no query has a match in the gallery; .* use camera_filter=False"):
        evaluate_distances(*arguments)
    assert evaluate_distances(*arguments, camera_filter=False).rank(1) == 1


def features(seed=0, queries=20, gallery=90):
    """Clustered features with identities and cameras, as arguments of `evaluate_reid`."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((8, 6))
    labels = {
        "query_ids": rng.integers(0, 8, queries) + 1,
        "query_cameras": rng.integers(0, 3, queries),
        "gallery_ids": rng.integers(-1, 9, gallery),
        "gallery_cameras": rng.integers(0, 3, gallery),
    }
    draw = [
        centres[labels[f"{part}_ids"] % 8] + rng.standard_normal((n, 6))
        for part, n in (("query", queries), ("gallery", gallery))
    ]
    return {"query_features": draw[0].astype(np.float32), "gallery_features": draw[1].astype(np.float32)} | labels


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_metrics_of_features_equal_those_of_their_distances(distance):
    problem = features()
    query, gallery = problem["query_features"].astype(float), problem["gallery_features"].astype(float)
    lengths = np.outer(np.linalg.norm(query, axis=1), np.linalg.norm(gallery, axis=1))
    distances = -query @ gallery.T / lengths if distance == "cosine" else np.linalg.norm(query[:, None] - gallery[None], axis=2)
    labels = {name: value for name, value in problem.items() if "features" not in name}
    expected, metrics = evaluate_distances(distances, **labels), evaluate_reid(**problem, distance=distance)
    np.testing.assert_allclose(metrics.cmc, expected.cmc)
    assert metrics.map_step == pytest.approx(expected.map_step, abs=1e-6)
    tensors = {name: torch.from_numpy(value) for name, value in problem.items()}
    assert evaluate_reid(**tensors, distance=distance).map_step == metrics.map_step


def test_a_memory_mapped_gallery_in_blocks_gives_the_same_metrics(tmp_path, monkeypatch):
    problem = features()
    problem["gallery_features"][5] = problem["gallery_features"][50]
    in_memory = evaluate_reid(**problem)
    np.save(tmp_path / "gallery.npy", problem["gallery_features"])
    problem["gallery_features"] = np.load(tmp_path / "gallery.npy", mmap_mode="r")
    monkeypatch.setattr(reid, "BLOCK_BYTES", 4 * 20 * 7)
    in_blocks = evaluate_reid(**problem)
    np.testing.assert_array_equal(in_memory.cmc, in_blocks.cmc)
    assert in_memory.map_step == pytest.approx(in_blocks.map_step, abs=1e-9)


def test_rerank_changes_the_metrics():
    problem = features(queries=30, gallery=120)
    assert evaluate_reid(**problem, rerank=True).map_step != evaluate_reid(**problem).map_step


def test_infinite_distances_are_ties():
    labels = ([7], [0], [7, 7, 8], [1, 1, 1])
    assert evaluate_distances([[np.inf, np.inf, 0.1]], *labels).map_step == evaluate_distances([[9, 9, 0.1]], *labels).map_step


def test_bfloat16_distances_are_accepted():
    metrics = evaluate_distances(torch.tensor([[0.25, 0.5]], dtype=torch.bfloat16), [7], [0], [7, 8], [1, 1])
    assert metrics.rank(1) == 1


def test_nearest_entries_exclude_junk_and_the_same_camera():
    arguments = ([[0.1, 0.2, 0.3, 0.4]], [7], [0], [-1, 7, 7, 8], [1, 0, 1, 0])
    assert [list(entries) for entries in nearest_entries(*arguments, count=2)] == [[2, 3]]
    assert [list(entries) for entries in nearest_entries(*arguments, camera_filter=False)] == [[1, 2, 3]]


def test_invalid_arguments_are_refused():
    problem = features()
    with pytest.raises(UserError, match="re-ranking needs Euclidean distances, got distance='cosine'; use rerank=False"):
        evaluate_reid(**problem, distance="cosine", rerank=True)
    with pytest.raises(UserError, match="distance must be one of euclidean, cosine, got 'hamming'"):
        evaluate_reid(**problem, distance="hamming")
    with pytest.raises(UserError, match=r"query_features must be \(20, D\), one row per image, got \(19, 6\)"):
        evaluate_reid(**problem | {"query_features": problem["query_features"][1:]})
    with pytest.raises(UserError, match="queries have 4 dimensions and gallery entries 6"):
        evaluate_reid(**problem | {"query_features": problem["query_features"][:, :4]})
    with pytest.raises(UserError, match=r"gallery_ids \(90\) and gallery_cameras \(1\)"):
        evaluate_reid(**problem | {"gallery_cameras": [1]})
    broken = problem["gallery_features"].copy()
    broken[3, 2] = np.nan
    with pytest.raises(UserError, match="features are NaN or infinite"):
        evaluate_reid(**problem | {"gallery_features": broken})
    with pytest.raises(UserError, match=r"distances must have one row per query .*\(1, 1\), got \(1, 2\)"):
        evaluate_distances([[1.0, 2.0]], [1], [0], [1], [1])
    with pytest.raises(UserError, match="some distances are NaN"):
        evaluate_distances([[float("nan")]], [1], [0], [1], [1])
    with pytest.raises(UserError, match="a rank must be at least 1, got 0"):
        evaluate_reid(**problem).rank(0)


def metrics_of(ids, cameras):
    problem = features()
    queries = len(problem["query_ids"])
    names = {"query_ids": ids[:queries], "gallery_ids": ids[queries:]}
    if cameras is None:
        names |= {"query_cameras": None, "gallery_cameras": None}
    else:
        names |= {"query_cameras": cameras[:queries], "gallery_cameras": cameras[queries:]}
    return evaluate_reid(**problem | names)


def test_labels_may_be_names():
    problem = features()
    ids, cameras = (
        [int(label) for split in ("query", "gallery") for label in problem[f"{split}_{what}"]] for what in ("ids", "cameras")
    )
    ids = [2 + number for number in ids]  # without junk and distractors, which have no names
    expected = metrics_of(ids, cameras)
    assert expected.camera_filter
    named = metrics_of([f"person {number}" for number in ids], [("site", number) for number in cameras])
    assert (named.map_step, named.minp) == (expected.map_step, expected.minp)
    arrays = metrics_of(np.array([f"person {number}" for number in ids]), torch.tensor(cameras))
    assert arrays.map_step == expected.map_step
    huge = metrics_of([10**20 + number for number in ids], cameras)
    assert huge.map_step == expected.map_step


def test_without_cameras_the_filter_is_off_and_it_says_so():
    problem = features()
    ids = [int(label) for split in ("query", "gallery") for label in problem[f"{split}_ids"]]
    off = metrics_of(ids, None)
    assert not off.camera_filter
    assert off.map_step == evaluate_reid(**problem, camera_filter=False).map_step


@pytest.mark.parametrize("ids", [[1.7, 2.0, 1.7], [0.0, 2, 3], np.array([1.0, 2.0, 1.0]), torch.tensor([1.0, 2.0, 1.0])])
def test_fractions_are_no_labels(ids):
    with pytest.raises(UserError, match=r"ids must be whole numbers or names, got .*astype\(int\)"):
        evaluate_distances([[0.1, 0.2]], ids[:1], [0], ids[1:], [1, 1])
    with pytest.raises(UserError, match="one list of labels, got nested lists"):
        evaluate_distances([[0.1, 0.2]], [[1]], [0], [[1], [2]], [1, 1])
