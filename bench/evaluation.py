"""Re-identification metrics and re-ranking against public code, and the whole evaluation from features.

The usual loop, as in public code, sorts every row of the distance matrix, then filters and averages one query after the
other. The dense re-ranking is the original procedure: all distances, ranks and encodings as dense matrices.
"""

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.measure import interleaved, ratio, write_results
from csametric import evaluate_distances, evaluate_reid, k_reciprocal_distances
from csametric.cli.tables import print_table
from csametric.evaluation.rerank import rerank_distances

MARKET = (3368, 15913, 750, 6)  # queries, gallery images, identities, cameras
CUHK03 = (1400, 5332, 700, 2)  # the same


def people(size: tuple[int, int, int, int], dimensions: int, noise: float) -> dict[str, NDArray]:
    """Return unit features around one centre per identity, with labels in the proportions of a dataset."""
    queries, gallery, identities, cameras = size
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((identities, dimensions)).astype(np.float32)
    problem: dict[str, NDArray] = {}
    for name, count in (("query", queries), ("gallery", gallery)):
        ids = rng.integers(0, identities, count)
        features = centres[ids] + noise * rng.standard_normal((count, dimensions)).astype(np.float32)
        problem[f"{name}_features"] = features / np.linalg.norm(features, axis=1, keepdims=True)
        problem[f"{name}_ids"], problem[f"{name}_cameras"] = ids + 1, rng.integers(0, cameras, count)
    return problem


def usual_loop(distances: NDArray, query_ids: NDArray, query_cameras: NDArray, ids: NDArray, cameras: NDArray) -> float:
    """Return the mean average precision (step) as public code computes it."""
    order = np.argsort(distances, axis=1)
    matches = (ids[order] == query_ids[:, None]).astype(np.int32)
    precisions = []
    for query in range(len(distances)):
        keep = ~((ids[order[query]] == query_ids[query]) & (cameras[order[query]] == query_cameras[query]))
        hits = matches[query][keep]
        if hits.any():
            hits_so_far = hits.cumsum()
            precisions.append(float((hits_so_far / np.arange(1, len(hits) + 1) * hits).sum() / hits.sum()))
    return float(np.mean(precisions))


def dense_reranking(squared: NDArray, queries: int, k1: int = 20, k2: int = 6, weight: float = 0.3) -> NDArray:
    """Re-rank by the original procedure on dense matrices; distances from queries to gallery."""
    scaled = (squared / squared.max(0)).T.astype(np.float32)
    ranks = np.argsort(scaled, axis=1).astype(np.int32)
    size, half = len(scaled), round(k1 / 2)
    encodings = np.zeros_like(scaled)

    def reciprocal(index: int, k: int) -> NDArray:
        forward = ranks[index, : k + 1]
        return forward[np.where(ranks[forward, : k + 1] == index)[0]]

    # Encode each image by its reciprocal neighbours, and by theirs if most of those are shared.
    for index in range(size):
        neighbours = reciprocal(index, k1)
        members = neighbours
        for candidate in neighbours:
            candidate_neighbours = reciprocal(candidate, half)
            if len(np.intersect1d(candidate_neighbours, neighbours)) > 2 / 3 * len(candidate_neighbours):
                members = np.append(members, candidate_neighbours)
        members = np.unique(members)
        weights = np.exp(-scaled[index, members])
        encodings[index, members] = weights / weights.sum()
    # Average the encodings of the nearest k2 images (local query expansion).
    encodings = np.stack([encodings[ranks[index, :k2]].mean(0) for index in range(size)])
    # Jaccard distance between the encodings of each query and of all images.
    columns = [np.where(encodings[:, index] != 0)[0] for index in range(size)]
    jaccard = np.zeros((queries, size), np.float32)
    for index in range(queries):
        shared = np.zeros(size, np.float32)
        for column in np.where(encodings[index] != 0)[0]:
            rows = columns[column]
            shared[rows] += np.minimum(encodings[index, column], encodings[rows, column])
        jaccard[index] = 1 - shared / (2 - shared)
    return ((1 - weight) * jaccard + weight * scaled[:queries])[:, queries:]


def metrics_rows(rounds: int, noise: float, what: str) -> dict[str, Any]:
    problem = people(MARKET, 128, noise)
    distances = 1 - problem["query_features"] @ problem["gallery_features"].T
    labels = (problem["query_ids"], problem["query_cameras"], problem["gallery_ids"], problem["gallery_cameras"])
    ours = evaluate_distances(distances, *labels)
    assert abs(ours.map_step - usual_loop(distances, *labels)) < 1e-6
    calls: dict[str, Callable[[], Any]] = {
        "loop": lambda: usual_loop(distances, *labels),
        "ours": lambda: evaluate_distances(distances, *labels),
    }
    seconds = interleaved(calls, rounds, warm_up=1)
    return {"what": f"evaluate_distances, {what} (mAP {100 * ours.map_step:.0f} %)", "seconds": seconds, "loop": "loop"}


def reranking_row(rounds: int) -> dict[str, Any]:
    problem = people(CUHK03, 128, 1.0)
    features = np.concatenate([problem["query_features"], problem["gallery_features"]]).astype(np.float64)
    squared = np.maximum(2 - 2 * features @ features.T, 0).astype(np.float32)
    np.fill_diagonal(squared, 0)
    difference = np.abs(dense_reranking(squared, CUHK03[0]) - rerank_distances(squared, CUHK03[0])).max()
    calls: dict[str, Callable[[], Any]] = {
        "dense": lambda: dense_reranking(squared, CUHK03[0]),
        "ours": lambda: rerank_distances(squared, CUHK03[0]),
    }
    return {
        "what": f"re-ranking at CUHK03-NP's size (largest difference {difference:.0e})",
        "seconds": interleaved(calls, rounds, warm_up=0),
        "loop": "dense",
    }


def peak_of_reranking() -> None:
    """Print the peak memory of re-ranking at Market-1501's size; run in its own process, whose peak it then is."""
    queries, gallery, identities, cameras = MARKET
    problem = people((queries, gallery, identities, cameras), 1536, 1.0)
    started = time.perf_counter()
    k_reciprocal_distances(problem["query_features"], problem["gallery_features"])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"re-ranking {queries + gallery:,} features of 1,536: {time.perf_counter() - started:.1f} s, peak {peak:.2f} GiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peak", action="store_true", help="print only the peak memory of re-ranking")
    arguments = parser.parse_args()
    if arguments.peak:
        peak_of_reranking()
        return
    rows = [
        metrics_rows(arguments.rounds, 1.5, "good features"),
        metrics_rows(arguments.rounds, 30.0, "features at chance"),
        reranking_row(2),
    ]
    text = []
    for row in rows:
        median, lower, upper = ratio(row["seconds"], row["loop"], "ours")
        text.append([row["what"], f"{min(row['seconds']['ours']):.2f} s", f"{median:.1f} ({lower:.1f}-{upper:.1f})"])
    problem = people(MARKET, 1536, 1.0)
    started = time.perf_counter()
    evaluate_reid(**problem)  # type: ignore[arg-type]
    text.append(["evaluate_reid from 1,536 dimensions", f"{time.perf_counter() - started:.2f} s", ""])
    print_table("re-identification metrics, 3,368 x 15,913 unless stated", ["what", "ours", "usual / ours"], text)
    subprocess.run([sys.executable, "-m", "bench.evaluation", "--peak"], check=True)
    print(f"results: {write_results('evaluation', rows)}")


if __name__ == "__main__":
    main()
