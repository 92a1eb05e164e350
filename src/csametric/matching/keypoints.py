"""Detection of keypoints, each a local frame: position, size, orientation and affine shape.

Legend: K keypoints.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from csametric.errors import UserError

Detector = Literal["sift", "hessian", "harris", "gftt"]
KORNIA_RESPONSES = {"hessian": "BlobHessian", "harris": "CornerHarris", "gftt": "CornerGFTT"}
HARRIS_K = 0.04
SHAPE_PATCH = 32


@dataclass(frozen=True, kw_only=True)
class DetectorSettings:
    """How keypoints are detected."""

    detector: Detector = "sift"  # differences of Gaussians (OpenCV); the others need the extra `kornia`
    limit: int = 4096  # the number of keypoints kept, the strongest first
    upright: bool = False  # ignore orientation, for photographs taken with the same orientation
    affine: bool = False  # estimate the affine shape (Baumberg); needs the extra `kornia`
    contrast_threshold: float = 0.01  # of "sift" only; lower finds more and weaker keypoints


class LocalFrames(NamedTuple):
    """K keypoints, the strongest first."""

    centres: NDArray  # (K, 2), x and y in pixels
    axes: NDArray  # (K, 2, 2), columns are the images of a patch's x and y axes, as long as the keypoint's diameter in pixels
    octaves: NDArray  # (K,), OpenCV's packed octaves, 0 for other detectors

    @property
    def sizes(self) -> NDArray:
        """Diameters in pixels, (K,)."""
        return np.sqrt(np.abs(np.linalg.det(self.axes)))

    @property
    def angles(self) -> NDArray:
        """Orientations in degrees, clockwise in the image, in [0, 360), (K,)."""
        return np.degrees(np.arctan2(self.axes[:, 1, 0], self.axes[:, 0, 0])) % 360

    def corners(self, support: float) -> NDArray:
        """Corners of the support regions, parallelograms of `support` times the axes, (K, 4, 2), clockwise from upper left."""
        signs_42 = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], dtype=np.float64)
        return self.centres[:, None] + support / 2 * signs_42 @ self.axes.transpose(0, 2, 1)


def detect(image_HW: NDArray, settings: DetectorSettings) -> LocalFrames:
    """Detect the strongest keypoints of a grey photograph, uint8 (H, W).

    Raises:
        UserError: the settings need kornia and it is not installed.
    """
    frames = _detect_sift(image_HW, settings) if settings.detector == "sift" else _detect_by_kornia(image_HW, settings)
    if settings.affine and len(frames.centres):
        return _with_affine_shape(image_HW, frames)
    return frames


def _detect_sift(image_HW: NDArray, settings: DetectorSettings) -> LocalFrames:
    points = cv2.SIFT.create(contrastThreshold=settings.contrast_threshold).detect(image_HW, None)
    columns = [(*point.pt, point.size, point.angle, point.response, point.octave) for point in points]
    table = np.array(columns).reshape(-1, 6)
    if settings.upright:
        table[:, 3] = 0
        table = np.unique(table, axis=0)  # a point with two orientations is one point upright
    strongest = table[np.lexsort((table[:, 0], table[:, 1], table[:, 3], -table[:, 4]))][: settings.limit]
    x, y, size, angle, _, octave = strongest.T
    return LocalFrames(np.stack([x, y], 1), _rotated_axes(size, np.radians(angle)), octave.astype(int))


def _rotated_axes(sizes_K: NDArray, radians_K: NDArray) -> NDArray:
    cosines, sines = np.cos(radians_K), np.sin(radians_K)
    return sizes_K[:, None, None] * np.stack([cosines, -sines, sines, cosines], 1).reshape(-1, 2, 2)


def _detect_by_kornia(image_HW: NDArray, settings: DetectorSettings) -> LocalFrames:
    import torch

    feature = _kornia_feature(f"the detector {settings.detector!r}")
    response = getattr(feature, KORNIA_RESPONSES[settings.detector])
    module = response(HARRIS_K) if settings.detector == "harris" else response()
    orientation = feature.PassLAF() if settings.upright else feature.LAFOrienter(SHAPE_PATCH)
    finder = feature.ScaleSpaceDetector(settings.limit, resp_module=module, ori_module=orientation, mr_size=1.0)
    with torch.inference_mode():
        frames, responses = finder(torch.from_numpy(image_HW)[None, None].float() / 255)
    frames = frames[0, responses[0] > 0].double().numpy()
    return LocalFrames(frames[:, :, 2], 2 * frames[:, :, :2], np.zeros(len(frames), int))


def _with_affine_shape(image_HW: NDArray, frames: LocalFrames) -> LocalFrames:
    """Keypoints of the same size with the affine shape of their surroundings; the old axes where no shape is found."""
    import torch

    feature = _kornia_feature("the affine shape")
    local = np.concatenate([frames.axes / 2, frames.centres[:, :, None]], 2)
    image = torch.from_numpy(image_HW)[None, None].float() / 255
    with torch.inference_mode():
        shaped = feature.LAFAffineShapeEstimator(SHAPE_PATCH)(torch.from_numpy(local).float()[None], image)
    axes = 2 * shaped[0, :, :, :2].double().numpy()
    is_valid_K = np.isfinite(axes).all((1, 2)) & (np.abs(np.linalg.det(axes)) > 1e-6)
    return LocalFrames(frames.centres, np.where(is_valid_K[:, None, None], axes, frames.axes), frames.octaves)


def _kornia_feature(what: str):  # type: ignore[no-untyped-def]
    try:
        from kornia import feature
    except ImportError as error:
        raise UserError(f"{what} needs kornia; pip install 'csametric[kornia]'") from error
    return feature
