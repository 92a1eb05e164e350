"""Decision thresholds and probabilities for verification: do two images show the same identity?

Terms are those of ISO/IEC 19795-1. A pair of images of the same identity is genuine, of different ones an impostor. A
comparison says "same" if the distance is at most the threshold. The false match rate (FMR) is the share of impostors called
same, the false non-match rate (FNMR) the share of genuine pairs called different.

Legend: N pairs, I impostors among them, K knots of the probability curve, B resamples.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import isotonic_regression

from csametric.errors import UserError

RESAMPLES = 200
BINS = 15  # of the expected calibration error


class Interval(NamedTuple):
    """A 95 % interval."""

    low: float
    high: float


class DetCurve(NamedTuple):
    """Both error rates at every threshold that changes one of them, the strictest first."""

    thresholds: NDArray  # ascending
    fmr: NDArray  # in [0, 1], increasing
    fnmr: NDArray  # in [0, 1], decreasing


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """What distances mean, learned from labelled pairs; see `calibrate_distances`."""

    genuine: NDArray  # sorted distances
    impostor: NDArray  # (I,), sorted distances
    prior: float  # the probability of a genuine pair that `probability` assumes
    knots: NDArray  # (K,), distances at which the probability curve is known, ascending
    probabilities: NDArray  # (K,), decreasing
    genuine_identities: NDArray  # the identity of each genuine distance, as numbers from 0
    impostor_identities: NDArray  # (I, 2), the identities of each impostor distance

    def threshold(self, fmr: float = 1e-3) -> float:
        """The largest distance at which at most a share `fmr` of the impostors is called same.

        Raises:
            UserError: fewer than 1/fmr impostors, or too few identities to form 1/fmr pairs.
        """
        if 0 < fmr < 1 and self.identity_pairs < 1 / fmr - 1e-9:
            identities = math.ceil((1 + math.sqrt(1 + 8 / fmr)) / 2)  # n (n - 1) / 2 pairs
            got = len(np.unique(self.impostor_identities))
            raise UserError(f"FMR {fmr:g} needs at least {identities:,} identities, got {got:,}; add identities")
        return _threshold(self.impostor, fmr)

    @cached_property
    def identity_pairs(self) -> float:
        """The number of different pairs of identities among the impostors; infinite where identities are unknown."""
        first_I, second_I = self.impostor_identities.T
        if (first_I == second_I).all():
            return math.inf
        return len(np.unique(np.sort(self.impostor_identities, 1), axis=0))

    def fnmr(self, fmr: float = 1e-3) -> float:
        """The FNMR at `threshold(fmr)`."""
        return float((self.genuine > self.threshold(fmr)).mean())

    def rates(self, threshold: float) -> tuple[float, float]:
        """FMR and FNMR at a threshold."""
        return float((self.impostor <= threshold).mean()), float((self.genuine > threshold).mean())

    def interval(self, fmr: float = 1e-3, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
        """The 95 % interval of `threshold(fmr)`, by a bootstrap over identities (pairs of one identity are not independent)."""
        self.threshold(fmr)  # raises if there are too few impostors
        identities = int(max(self.genuine_identities.max(), self.impostor_identities.max())) + 1
        rng = np.random.default_rng(seed)
        thresholds = []
        for _ in range(resamples):
            drawn = np.bincount(rng.integers(identities, size=identities), minlength=identities)
            first_I, second_I = self.impostor_identities.T
            weights_I = drawn[first_I] * np.where(first_I == second_I, 1, drawn[second_I])
            if weights_I.any():
                thresholds.append(_weighted_threshold(self.impostor, weights_I, fmr))
        return Interval(*(float(bound) for bound in np.percentile(thresholds, [2.5, 97.5])))

    @cached_property
    def det(self) -> DetCurve:
        """The detection error trade-off: FMR against FNMR."""
        thresholds = np.unique(np.concatenate([self.genuine, self.impostor]))
        return DetCurve(
            thresholds=thresholds,
            fmr=np.searchsorted(self.impostor, thresholds, side="right") / len(self.impostor),
            fnmr=1 - np.searchsorted(self.genuine, thresholds, side="right") / len(self.genuine),
        )

    @property
    def eer(self) -> float:
        """The equal error rate: the mean of FMR and FNMR where they are closest, in [0, 1]."""
        nearest = int(np.abs(self.det.fmr - self.det.fnmr).argmin())
        return float(self.det.fmr[nearest] + self.det.fnmr[nearest]) / 2

    def probability(self, distances: ArrayLike) -> NDArray:
        """The probability that pairs at these distances are genuine, in [0, 1]; never rises with the distance."""
        return np.interp(np.asarray(distances, np.float64), self.knots, self.probabilities)

    def calibration_error(self, distances: ArrayLike, is_same: ArrayLike, bins: int = BINS) -> float:
        """The expected calibration error on other pairs (Guo et al. 2017): the gap of probability and genuine share.

        Pairs are weighted so that genuine ones make up the share `prior` of the total; bins are of equal width.

        Args:
            distances: (N,).
            is_same: (N,), true for genuine pairs.
            bins: number of bins in [0, 1].
        """
        same_N = np.asarray(is_same, bool)
        predicted_N, weights_N = self.probability(distances), _class_weights(same_N, self.prior)
        bin_N = np.minimum((predicted_N * bins).astype(int), bins - 1)
        total, predicted, genuine = (
            np.bincount(bin_N, values, bins) for values in (weights_N, weights_N * predicted_N, weights_N * same_N)
        )
        return float(np.abs(predicted - genuine).sum() / total.sum())


def calibrate_distances(
    distances: ArrayLike, is_same: ArrayLike, identities: ArrayLike | None = None, prior: float = 0.5
) -> Calibration:
    """Learn thresholds and probabilities from the distances of labelled pairs.

    Args:
        distances: (N,), lower is more alike.
        is_same: (N,), true for genuine pairs.
        identities: (N, 2), the identities of both images, any labels, for intervals by identity; without them every pair
            counts as independent, which makes intervals too narrow if identities occur in several pairs.
        prior: the expected share of genuine pairs in the application, in (0, 1).

    Raises:
        UserError: sizes that do not agree, distances that are not finite, pairs of one kind only, identities that contradict
            `is_same`, or a prior out of range.

    Examples:
        >>> calibration = calibrate_distances([0.1, 0.2, 0.8, 0.9], [True, True, False, False])
        >>> calibration.eer, calibration.probability([0.15, 0.85]).tolist()
        (0.0, [1.0, 0.0])
        >>> 0.2 < calibration.threshold(fmr=0.5) < 0.9
        True
    """
    distances_N, same_N = np.asarray(distances, np.float64), np.asarray(is_same, bool)
    if distances_N.ndim != 1 or distances_N.shape != same_N.shape:
        raise UserError(f"distances {distances_N.shape} and is_same {same_N.shape} must be lists of the same length")
    if not np.isfinite(distances_N).all():
        raise UserError("some distances are NaN or infinite; check the features")
    if same_N.all() or not same_N.any():
        raise UserError("calibration needs pairs of the same identity and pairs of different identities; give both")
    if not 0 < prior < 1:
        raise UserError(f"prior must be in (0, 1), got {prior}")
    numbers_N2 = _identity_numbers(identities, same_N)
    order_N = np.argsort(distances_N, kind="stable")
    distances_N, same_N, numbers_N2 = distances_N[order_N], same_N[order_N], numbers_N2[order_N]
    knots, probabilities = _probability_curve(distances_N, same_N, prior)
    return Calibration(
        genuine=distances_N[same_N],
        impostor=distances_N[~same_N],
        prior=prior,
        knots=knots,
        probabilities=probabilities,
        genuine_identities=numbers_N2[same_N, 0],
        impostor_identities=numbers_N2[~same_N],
    )


def _identity_numbers(identities: ArrayLike | None, same_N: NDArray) -> NDArray:
    """The identities of each pair as numbers from 0, (N, 2); without identities, every pair gets a number of its own."""
    if identities is None:
        first_N = np.arange(len(same_N))
        return np.stack([first_N, first_N], 1)
    labels_N2 = np.asarray(identities)
    if labels_N2.shape != (len(same_N), 2):
        raise UserError(f"identities must be ({len(same_N)}, 2), one row per pair, got {labels_N2.shape}")
    numbers_N2 = np.unique(labels_N2, return_inverse=True)[1].reshape(-1, 2)
    contradicts_N = (numbers_N2[:, 0] == numbers_N2[:, 1]) != same_N
    if contradicts_N.any():
        raise UserError(
            f"identities contradict is_same in {contradicts_N.sum():,} pairs, first in row {contradicts_N.argmax()}"
        )
    return numbers_N2


def _threshold(impostor_I: NDArray, fmr: float) -> float:
    if not 0 < fmr < 1:
        raise UserError(f"fmr must be in (0, 1), got {fmr}")
    allowed = int(fmr * len(impostor_I) + 1e-9)
    if not allowed:
        raise UserError(
            f"FMR {fmr:g} needs at least {int(np.ceil(1 / fmr)):,} impostor pairs, got {len(impostor_I):,}; add pairs"
        )
    return float(np.nextafter(impostor_I[allowed], -np.inf))  # just below the first impostor beyond the limit


def _weighted_threshold(impostor_I: NDArray, weights_I: NDArray, fmr: float) -> float:
    cumulative_I = weights_I.cumsum()
    allowed = int(fmr * cumulative_I[-1] + 1e-9)
    return float(impostor_I[np.searchsorted(cumulative_I, allowed, side="right")])


def _class_weights(same_N: NDArray, prior: float) -> NDArray:
    """Weights that give genuine pairs the share `prior`; they sum to 1."""
    return np.where(same_N, prior / same_N.sum(), (1 - prior) / (~same_N).sum())


def _probability_curve(distances_N: NDArray, same_N: NDArray, prior: float) -> tuple[NDArray, NDArray]:
    """Isotonic regression of genuineness on sorted distances, as the ends of its constant pieces: (K,) and (K,)."""
    # equal distances get one value, whatever the order of their pairs
    unique, place_N = np.unique(distances_N, return_inverse=True)
    weights_N = _class_weights(same_N, prior)
    weight = np.bincount(place_N, weights_N)
    share = np.bincount(place_N, weights_N * same_N) / weight
    fitted = isotonic_regression(share, weights=weight, increasing=False).x.clip(0, 1)
    changes = np.flatnonzero(np.diff(fitted))
    ends = np.unique(np.concatenate([[0], changes, changes + 1, [len(fitted) - 1]]))
    return unique[ends], fitted[ends]
