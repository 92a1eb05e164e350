"""Score a re-identification model on query and gallery; the processes share the embedding."""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from csametric.data.datasets import dataset_root
from csametric.data.loading import in_batches, prefetch, read_images
from csametric.data.records import Record, ReidDataset, data_digest, queries_in_gallery
from csametric.distances import euclidean_distances
from csametric.evaluation.reid import ReidMetrics, evaluate_distances, evaluate_reid, nearest_entries
from csametric.evaluation.rerank import k_reciprocal_distances
from csametric.evaluation.verification_pairs import measure_rates
from csametric.inference.compact import CompactFeatures
from csametric.inference.engines import Engine
from csametric.inference.images import EMBED_BATCH
from csametric.progress import show_progress
from csametric.runs.experiment import ReidData
from csametric.training.machine import Machine

COMPACT_DIMENSIONS = (64, 128, 256, 512, 1024)
RANKED_QUERIES, RANKED_LENGTH = 8, 10  # ranked lists that are kept with the scores, and gallery images in each


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """What differs from the plain evaluation of a run."""

    flip: bool = False  # average the features of each image and its mirror image
    rerank: bool = False  # by k-reciprocal distances
    dimensions: int | None = None  # of compact features; None for all
    whiten: bool = False  # compact features

    @property
    def names(self) -> list[str]:
        """Short names of what is switched on, for file names.

        Examples:
            >>> EvaluationOptions(flip=True, dimensions=512).names
            ['flip', '512']
        """
        switched = [name for name in ("rerank", "flip", "whiten") if getattr(self, name)]
        return switched if self.dimensions is None else [*switched, str(self.dimensions)]


def embed_records(
    engine: Engine, records: Sequence[Record], height: int, width: int, machine: Machine, flip: bool = False
) -> NDArray:
    """Embed image files; each process embeds a share of the batches, and all of them get all features.

    Args:
        engine: computes the features.
        records: N image files.
        height: of the model's input, in pixels.
        width: of the model's input, in pixels.
        machine: the processes.
        flip: whether to average the features of each image and its mirror image.

    Returns:
        float32 (N, D).
    """
    batches = in_batches(records, EMBED_BATCH)
    share = math.ceil(len(batches) / machine.world_size)
    own_batches = batches[machine.rank * share : (machine.rank + 1) * share]
    images = show_progress(
        prefetch(lambda batch: read_images(batch, height, width), own_batches),
        "embedding",
        len(own_batches),
        machine.is_main,
    )
    features = [engine.embed(batch, flip) for batch in images]
    rows = np.concatenate(features) if features else np.zeros((0, engine.dimensions), np.float32)
    return machine.gather_rows(rows, len(records))


def score_dataset(
    engine: Engine,
    dataset: ReidDataset,
    data: ReidData,
    machine: Machine,
    options: EvaluationOptions | None = None,
    thresholds: Sequence[float] = (),
    compact: CompactFeatures | None = None,
) -> dict[str, Any]:
    """Evaluate a model on the query and gallery of a dataset.

    Args:
        engine: computes the features.
        dataset: with query and gallery.
        data: the size of images, the camera filter, and the path of the dataset.
        machine: the processes.
        options: what differs from the plain evaluation.
        thresholds: decision thresholds of verification, whose error rates are measured on query and gallery.
        compact: the projection that `options.dimensions` needs. If these are None, scores of compact features are added.

    Returns:
        The metrics and the ranked lists of some queries. Apart from arrays, all values are ready for JSON.
    """
    options = options or EvaluationOptions()
    query, gallery = (_features(engine, split, data, machine, options, compact) for split in (dataset.query, dataset.gallery))
    camera_filter = filters_cameras(dataset, data)
    labels = (*_labels(dataset.query), *_labels(dataset.gallery))

    def evaluate(query: NDArray, gallery: NDArray) -> ReidMetrics:
        return evaluate_reid(query, *labels[:2], gallery, *labels[2:], camera_filter=camera_filter)

    if options.rerank:
        distances = k_reciprocal_distances(query, gallery)
        metrics = evaluate_distances(distances, *labels, camera_filter=camera_filter)
    else:
        metrics = evaluate(query, gallery)
    sample = np.linspace(0, len(query) - 1, min(RANKED_QUERIES, len(query))).astype(int)
    if options.rerank:
        sample_distances = distances[sample]
    else:
        sample_distances = euclidean_distances(torch.from_numpy(query[sample]), torch.from_numpy(gallery)).numpy()
    return {
        "dataset": dataset.name,
        "engine": engine.name,
        "digest": data_digest([*dataset.query, *dataset.gallery]),
        "camera_filter": camera_filter,
        "queries_in_gallery": len(queries_in_gallery(dataset, camera_filter)),
        **asdict(options),
        **({"compact": _score_compact(query, gallery, compact, evaluate)} if compact and options.dimensions is None else {}),
        **({"verification": _verify(dataset, np.concatenate([query, gallery]), thresholds)} if thresholds else {}),
        **{f"rank{k}": metrics.rank(k) for k in (1, 5, 10)},
        **{name: value for name, value in asdict(metrics).items() if name != "cmc"},
        "ranked": _ranked_lists(
            [dataset.query[index] for index in sample],
            dataset.gallery,
            sample_distances,
            camera_filter,
            dataset_root(data.kind, data.path),
        ),
    }


def _features(
    engine: Engine,
    records: Sequence[Record],
    data: ReidData,
    machine: Machine,
    options: EvaluationOptions,
    compact: CompactFeatures | None,
) -> NDArray:
    features = embed_records(engine, records, data.height, data.width, machine, options.flip)
    if options.dimensions is None:
        return features
    assert compact is not None
    return compact.project(features, options.dimensions, options.whiten)


def filters_cameras(dataset: ReidDataset, data: ReidData) -> bool:
    """Whether gallery images of the query's identity and camera are ignored: if set, and if there are several cameras."""
    return data.camera_filter and dataset.has_several_cameras


def _score_compact(
    query: NDArray, gallery: NDArray, compact: CompactFeatures, evaluate: Callable[[NDArray, NDArray], ReidMetrics]
) -> list[dict[str, float]]:
    """Scores of features of few dimensions to many, without re-ranking; the last row is the full feature."""
    scores = []
    for dimensions in (*(number for number in COMPACT_DIMENSIONS if number <= len(compact.components)), query.shape[1]):
        if dimensions < query.shape[1]:
            pair = [compact.project(features, dimensions) for features in (query, gallery)]
        else:
            pair = [query, gallery]
        metrics = evaluate(*pair)
        scores.append({"dimensions": dimensions, "map_step": metrics.map_step, "rank1": metrics.rank(1)})
    return scores


def _verify(dataset: ReidDataset, features: NDArray, thresholds: Sequence[float]) -> list[dict[str, float]]:
    """The error rates of verification among the images of query and gallery, without junk and distractors."""
    identities, cameras = (np.array(labels) for labels in _labels([*dataset.query, *dataset.gallery]))
    people = identities > 0
    rates = measure_rates(features[people], identities[people], thresholds, cameras[people])
    return [rate._asdict() for rate in rates]


def _labels(records: Sequence[Record]) -> tuple[list[int], list[int]]:
    return [record.identity for record in records], [record.camera for record in records]


def _ranked_lists(
    queries: Sequence[Record], gallery: Sequence[Record], distances_QG: NDArray, camera_filter: bool, root: Path
) -> list[dict[str, Any]]:
    """List the nearest gallery images of queries: their paths in the dataset, and which show the query's identity."""
    nearest = nearest_entries(distances_QG, *_labels(queries), *_labels(gallery), RANKED_LENGTH, camera_filter)
    return [
        {
            "query": os.path.relpath(record.path, root),
            "gallery": [os.path.relpath(gallery[entry].path, root) for entry in entries],
            "right": [gallery[entry].identity == record.identity for entry in entries],
        }
        for record, entries in zip(queries, nearest, strict=True)
    ]
