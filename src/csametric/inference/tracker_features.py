"""Features of the boxes of a video frame, in the form that trackers ask for them."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch.nn import functional

from csametric.data.transforms import resize
from csametric.errors import UserError
from csametric.inference.images import ImageEmbedder


class TrackerFeatures:
    """A re-identification model as an appearance backend: `get_features(boxes, frame)`, as BoxMOT calls it.

    Args:
        model: as returned by `load`.
        dimensions: the number of compact features; None for all.

    Examples:
        A BoxMOT tracker takes it as `reid_model=TrackerFeatures(load("runs/mine"))`.
    """

    def __init__(self, model: ImageEmbedder, dimensions: int | None = None) -> None:
        self.model, self.dimensions = model, dimensions
        self.feature_dimensions = model.model.dimensions if dimensions is None else dimensions
        if dimensions is not None:
            model.compact_for(dimensions)  # raises if there are none

    def get_features(self, xyxy: ArrayLike, image_bgr: NDArray) -> NDArray:
        """Unit features of the boxes of a frame, for comparison by cosine.

        Args:
            xyxy: (N, 4), left, top, right and bottom in pixels; the parts outside the frame are cut off.
            image_bgr: the frame as OpenCV reads it, uint8 (H, W, 3).

        Returns:
            float32 (N, D); zeros for boxes without a pixel.

        Raises:
            UserError: boxes or frame of another shape.
        """
        boxes_N4 = np.asarray(xyxy, np.float64)
        if boxes_N4.size == 0:
            boxes_N4 = boxes_N4.reshape(0, 4)
        if boxes_N4.ndim != 2 or boxes_N4.shape[1] != 4 or image_bgr.ndim != 3 or image_bgr.shape[2] != 3:
            raise UserError(f"boxes must be (N, 4) and the frame (H, W, 3), got {boxes_N4.shape} and {image_bgr.shape}")
        height, width = image_bgr.shape[:2]
        corners_N4 = np.round(np.nan_to_num(boxes_N4)).clip(0, [width, height, width, height]).astype(int)
        is_visible = (corners_N4[:, 2] > corners_N4[:, 0]) & (corners_N4[:, 3] > corners_N4[:, 1])
        features = np.zeros((len(boxes_N4), self.feature_dimensions), np.float32)
        if is_visible.any():
            data = self.model.experiment.data
            crops = [
                resize(np.ascontiguousarray(image_bgr[top:bottom, left:right, ::-1]), data.height, data.width)
                for left, top, right, bottom in corners_N4[is_visible]
            ]
            embedded = self.model.embed(np.stack(crops), dimensions=self.dimensions)
            features[is_visible] = functional.normalize(embedded).numpy()
        return features
