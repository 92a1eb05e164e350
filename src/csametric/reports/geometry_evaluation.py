"""Evaluation of descriptors, side by side, on photographs with known geometry."""

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

KEYPOINTS = 2048  # per photograph
PROTOCOL = f"{KEYPOINTS:,} keypoints, mutual nearest neighbours"
SETTINGS = MatchSettings(detector=DetectorSettings(limit=KEYPOINTS), ratio=None, threshold=3.0, against_chance=False)


def contenders(label: str, model: PatchEmbedder) -> list[Descriptor]:
    """The compared descriptors: SIFT, RootSIFT and a trained network."""
    return [classical_descriptor("sift"), classical_descriptor("rootsift"), network_descriptor(label, model)]


def on_sequences(run: Path, model: PatchEmbedder, folder: str) -> Evaluation:
    """Mean matching accuracy and homography AUC over sequences of photographs that differ by homographies.

    Args:
        run: the folder of the network, for its label.
        model: the network.
        folder: one folder per sequence, as read by `read_sequences`.
    """
    descriptors = contenders(run.resolve().name, model)
    pairs = read_sequences(Path(folder))
    errors: dict[str, list[tuple[NDArray, float]]] = {descriptor.name: [] for descriptor in descriptors}
    described: dict[Path, list[DescribedPhoto]] = {}
    for pair in show_progress(pairs, "matching", len(pairs), enabled=True):
        for name, first, second in _describe_pair(pair, descriptors, described):
            errors[name].append(_planar_errors(match_photos(first, second, SETTINGS), pair))
    sequences = len({pair.sequence for pair in pairs})
    table = Table(header=["", *errors], rows=planar_rows(errors))
    return Evaluation(title=f"{len(pairs)} pairs of {sequences} sequences, {PROTOCOL}", table=table)


def planar_rows(errors: Mapping[str, Sequence[tuple[NDArray, float]]]) -> list[list[str]]:
    """One row per score, one column per descriptor.

    Args:
        errors: for each descriptor, the transfer errors of the matches and the corner error of each pair, in pixels.
    """
    columns = []
    for pairs in errors.values():
        accuracy = np.mean([homography.matching_accuracy(transfer_errors) for transfer_errors, _ in pairs], 0)
        areas = homography.areas_under_recall([corner_error for _, corner_error in pairs])
        correct = np.mean([(transfer_errors <= 3).sum() for transfer_errors, _ in pairs])
        columns.append([*(f"{100 * value:.2f}" for value in (*accuracy, *areas)), f"{correct:.0f}"])
    names = [f"matching accuracy within {pixels} px, %" for pixels in homography.MMA_THRESHOLDS]
    names += [f"homography AUC at {pixels} px, %" for pixels in homography.AUC_THRESHOLDS]
    names.append("correct matches per pair (3 px)")
    return [[name, *values] for name, *values in zip(names, *columns, strict=True)]


def _planar_errors(matched: MatchedPair, pair: PlanarPair) -> tuple[NDArray, float]:
    """The transfer error of each match, and the corner error of the estimated homography, in pixels."""
    transfer_errors = homography.transfer_errors(pair.homography, matched.from_points, matched.to_points)
    return transfer_errors, homography.corner_error(matched.geometry.matrix, pair.homography, *matched.first.size)


def on_posed_pairs(run: Path, model: PatchEmbedder, path: str) -> Evaluation:
    """Relative pose AUC over pairs of photographs with known cameras.

    Args:
        run: the folder of the network, for its label.
        model: the network.
        path: a list of pairs, as read by `read_posed_pairs`.
    """
    descriptors = contenders(run.resolve().name, model)
    pairs = read_posed_pairs(Path(path))
    errors: dict[str, list[float]] = {descriptor.name: [] for descriptor in descriptors}
    described: dict[Path, list[DescribedPhoto]] = {}
    for pair in show_progress(pairs, "matching", len(pairs), enabled=True):
        for name, first, second in _describe_pair(pair, descriptors, described):
            errors[name].append(_pose_error(first, second, pair))
    areas = {name: homography.areas_under_recall(degrees, pose.AUC_THRESHOLDS) for name, degrees in errors.items()}
    rows = [
        [f"pose AUC at {threshold} degrees, %", *(f"{100 * values[index]:.2f}" for values in areas.values())]
        for index, threshold in enumerate(pose.AUC_THRESHOLDS)
    ]
    return Evaluation(title=f"{len(pairs)} pairs, {PROTOCOL}", table=Table(header=["", *areas], rows=rows))


def _pose_error(first: DescribedPhoto, second: DescribedPhoto, pair: PosedPair) -> float:
    """The larger of the rotation and translation errors in degrees; infinite if no pose can be estimated."""
    first_indices, second_indices = match_descriptors(first.descriptors, second.descriptors).pairs.T
    from_points, to_points = first.points[first_indices], second.points[second_indices]
    estimated = estimate_pose(from_points, to_points, pair.first_camera, pair.second_camera)
    if estimated is None:
        return float("inf")
    return pose.pose_error(estimated.rotation, estimated.translation, pair.pose[:3, :3], pair.pose[:3, 3])


def _describe_pair(
    pair: PlanarPair | PosedPair,
    descriptors: Sequence[Descriptor],
    described: dict[Path, list[DescribedPhoto]],
) -> list[tuple[str, DescribedPhoto, DescribedPhoto]]:
    """Both photographs of a pair as each descriptor describes them, with the descriptor's name.

    Args:
        pair: the photographs to describe.
        descriptors: all of them see the same keypoints.
        described: kept between calls, so that the first photograph, which pairs of a sequence share, is described once.
    """
    for path in (pair.first, pair.second):
        if path not in described:
            described[path] = describe_photos(path, descriptors, SETTINGS)
    first, second = described[pair.first], described.pop(pair.second)
    names = [descriptor.name for descriptor in descriptors]
    return list(zip(names, first, second, strict=True))
