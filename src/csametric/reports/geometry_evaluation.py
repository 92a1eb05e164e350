"""Comparison of descriptors on photographs with known geometry."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from csametric.data.known_geometry import PlanarPair, PosedPair, read_posed_pairs, read_sequences
from csametric.evaluation import homography, pose
from csametric.inference.patches import PatchEmbedder
from csametric.matching.descriptors import Descriptor, classical_descriptor, network_descriptor
from csametric.matching.geometry import estimate_pose
from csametric.matching.keypoints import DetectorSettings
from csametric.matching.matches import match_descriptors
from csametric.matching.photographs import DescribedPhoto, MatchedPair, MatchSettings, describe_photos, match_photos
from csametric.progress import show_progress
from csametric.reports.evaluations import Evaluation
from csametric.visualization.page import Table

KEYPOINTS = 2048
PROTOCOL = f"{KEYPOINTS:,} keypoints, mutual nearest neighbours"
SETTINGS = MatchSettings(detector=DetectorSettings(limit=KEYPOINTS), ratio=None, threshold=3.0, against_chance=False)


def contenders(label: str, model: PatchEmbedder) -> list[Descriptor]:
    """SIFT, RootSIFT and a trained network, on the same keypoints."""
    return [classical_descriptor("sift"), classical_descriptor("rootsift"), network_descriptor(label, model)]


def on_sequences(run: Path, model: PatchEmbedder, folder: str) -> Evaluation:
    """Mean matching accuracy and homography AUC over photographs of planes."""
    descriptors = contenders(run.resolve().name, model)
    pairs = read_sequences(Path(folder))
    judged: dict[str, list[tuple[NDArray, float]]] = {descriptor.name: [] for descriptor in descriptors}
    described: dict[Path, list[DescribedPhoto]] = {}
    for pair in show_progress(pairs, "matching", len(pairs), enabled=True):
        for first, second in _both(pair, descriptors, described):
            judged[first[0]].append(_judge(match_photos(first[1], second[1], SETTINGS), pair))
    sequences = len({pair.sequence for pair in pairs})
    table = Table(header=["", *judged], rows=planar_rows(judged))
    return Evaluation(title=f"{len(pairs)} pairs of {sequences} sequences, {PROTOCOL}", table=table)


def planar_rows(judged: Mapping[str, Sequence[tuple[NDArray, float]]]) -> list[list[str]]:
    """One row per score, one column per descriptor, from the transfer errors and corner errors of every pair."""
    columns = []
    for pairs in judged.values():
        accuracy = np.mean([homography.matching_accuracy(errors) for errors, _ in pairs], 0)
        areas = homography.areas_under_recall([corner for _, corner in pairs])
        correct = np.mean([(errors <= 3).sum() for errors, _ in pairs])
        columns.append([*(f"{100 * value:.2f}" for value in (*accuracy, *areas)), f"{correct:.0f}"])
    names = [f"matching accuracy within {pixels} px, %" for pixels in homography.MMA_THRESHOLDS]
    names += [f"homography AUC at {pixels} px, %" for pixels in homography.AUC_THRESHOLDS]
    names.append("right matches a pair (3 px)")
    return [[name, *values] for name, *values in zip(names, *columns, strict=True)]


def _judge(matched: MatchedPair, pair: PlanarPair) -> tuple[NDArray, float]:
    errors = homography.transfer_errors(pair.homography, matched.from_points, matched.to_points)
    return errors, homography.corner_error(matched.geometry.matrix, pair.homography, *matched.first.size)


def on_posed_pairs(run: Path, model: PatchEmbedder, path: str) -> Evaluation:
    """Relative pose AUC over calibrated pairs."""
    descriptors = contenders(run.resolve().name, model)
    pairs = read_posed_pairs(Path(path))
    errors: dict[str, list[float]] = {descriptor.name: [] for descriptor in descriptors}
    described: dict[Path, list[DescribedPhoto]] = {}
    for pair in show_progress(pairs, "matching", len(pairs), enabled=True):
        for first, second in _both(pair, descriptors, described):
            errors[first[0]].append(_pose_error(first[1], second[1], pair))
    areas = {name: homography.areas_under_recall(pair_errors, pose.AUC_THRESHOLDS) for name, pair_errors in errors.items()}
    rows = [
        [f"pose AUC at {degrees} degrees, %", *(f"{100 * area[place]:.2f}" for area in areas.values())]
        for place, degrees in enumerate(pose.AUC_THRESHOLDS)
    ]
    return Evaluation(title=f"{len(pairs)} pairs, {PROTOCOL}", table=Table(header=["", *areas], rows=rows))


def _pose_error(first: DescribedPhoto, second: DescribedPhoto, pair: PosedPair) -> float:
    a, b = match_descriptors(first.descriptors, second.descriptors).pairs.T
    estimated = estimate_pose(first.points[a], second.points[b], pair.first_camera, pair.second_camera)
    if estimated is None:
        return float("inf")
    return pose.pose_error(estimated.rotation, estimated.translation, pair.pose[:3, :3], pair.pose[:3, 3])


def _both(
    pair: PlanarPair | PosedPair,
    descriptors: Sequence[Descriptor],
    described: dict[Path, list[DescribedPhoto]],
) -> list[tuple[tuple[str, DescribedPhoto], tuple[str, DescribedPhoto]]]:
    """Describe both photographs with every descriptor; the first photograph of a sequence is described once."""
    for path in (pair.first, pair.second):
        if path not in described:
            described[path] = describe_photos(path, descriptors, SETTINGS)
    names = [descriptor.name for descriptor in descriptors]
    both = [list(zip(names, described[path], strict=True)) for path in (pair.first, pair.second)]
    del described[pair.second]
    return list(zip(*both, strict=True))
