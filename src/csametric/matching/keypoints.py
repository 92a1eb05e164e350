"""Keypoints of a photograph as local frames: where, how large, turned how far, sheared how much.

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
    """How keypoints are found.

    detector: "sift" (differences of Gaussians, OpenCV), or one of kornia's by the extra: "hessian", "harris", "gftt". limit:
    the strongest so many are kept. upright: no orientation, for photographs that are not turned against each other. affine:
    estimate the affine shape (Baumberg, kornia). contrast_threshold: of "sift"; lower finds more and weaker points.
    """

    detector: Detector = "sift"
    limit: int = 4096
    upright: bool = False
    affine: bool = False
    contrast_threshold: float = 0.01


class LocalFrames(NamedTuple):
    """K keypoints, the strongest first.

    centres: (K, 2), x and y in pixels. axes: (K, 2, 2), columns are the images of a patch's x and y axes, as long as the
    keypoint's diameter in pixels. octaves: (K,), OpenCV's packed octaves, 0 where another detector found them.
    """

    centres: NDArray
    axes: NDArray
    octaves: NDArray

    @property
    def sizes(self) -> NDArray:
        """Diameters in pixels, (K,)."""
        return np.sqrt(np.abs(np.linalg.det(self.axes)))

    @property
    def angles(self) -> NDArray:
        """Orientation in degrees, clockwise as the image lies, in [0, 360), (K,)."""
        return np.degrees(np.arctan2(self.axes[:, 1, 0], self.axes[:, 0, 0])) % 360

    def corners(self, support: float) -> NDArray:
        """The support regions, parallelograms of `support` times the axes, (K, 4, 2), clockwise from the patch's upper left."""
        signs_42 = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], dtype=np.float64)
        return self.centres[:, None] + support / 2 * signs_42 @ self.axes.transpose(0, 2, 1)


def detect(image_HW: NDArray, settings: DetectorSettings) -> LocalFrames:
    """The strongest keypoints of a grey photograph, uint8 (H, W).

    Raises:
        UserError: a detector or the affine shape is asked for and kornia is not there.
    """
    frames = _sift(image_HW, settings) if settings.detector == "sift" else _by_kornia(image_HW, settings)
    return _with_affine_shape(image_HW, frames) if settings.affine and len(frames.centres) else frames


def _sift(image_HW: NDArray, settings: DetectorSettings) -> LocalFrames:
    found = cv2.SIFT.create(contrastThreshold=settings.contrast_threshold).detect(image_HW, None)
    columns = [(*point.pt, point.size, point.angle, point.response, point.octave) for point in found]
    table = np.array(columns).reshape(-1, 6)
    if settings.upright:
        table[:, 3] = 0
        table = np.unique(table, axis=0)  # a point with two orientations is one point upright
    strongest = table[np.lexsort((table[:, 0], table[:, 1], table[:, 3], -table[:, 4]))][: settings.limit]
    x, y, size, angle, _, octave = strongest.T
    return LocalFrames(np.stack([x, y], 1), _turned(size, np.radians(angle)), octave.astype(int))


def _turned(sizes_K: NDArray, radians_K: NDArray) -> NDArray:
    cosines, sines = np.cos(radians_K), np.sin(radians_K)
    return sizes_K[:, None, None] * np.stack([cosines, -sines, sines, cosines], 1).reshape(-1, 2, 2)


def _by_kornia(image_HW: NDArray, settings: DetectorSettings) -> LocalFrames:
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
    """The same sizes with the shape of their surroundings."""
    import torch

    feature = _kornia_feature("the affine shape")
    local = np.concatenate([frames.axes / 2, frames.centres[:, :, None]], 2)
    image = torch.from_numpy(image_HW)[None, None].float() / 255
    with torch.inference_mode():
        shaped = feature.LAFAffineShapeEstimator(SHAPE_PATCH)(torch.from_numpy(local).float()[None], image)
    axes = 2 * shaped[0, :, :, :2].double().numpy()
    found = np.isfinite(axes).all((1, 2)) & (np.abs(np.linalg.det(axes)) > 1e-6)
    return LocalFrames(frames.centres, np.where(found[:, None, None], axes, frames.axes), frames.octaves)


def _kornia_feature(what: str):  # type: ignore[no-untyped-def]
    try:
        from kornia import feature
    except ImportError as error:
        raise UserError(f"{what} comes from kornia; install csametric[kornia]") from error
    return feature
