"""Groups of near-doubles equal the connected components of a slow loop."""

import numpy as np
import pytest

from csametric.errors import UserError
from csametric.search.duplicates import find_duplicates
from csametric.search.gallery import Gallery


def groups_by_loop(features, distance):
    """Merge labels until no pair within the distance has two."""
    labels = list(range(len(features)))
    for a in range(len(features)):
        for b in range(a):
            if np.linalg.norm(features[a] - features[b]) <= distance:
                labels = [labels[b] if label == labels[a] else label for label in labels]
    groups = [[index for index, label in enumerate(labels) if label == group] for group in set(labels)]
    return sorted((group for group in groups if len(group) > 1), key=lambda group: (-len(group), group[0]))


@pytest.mark.parametrize("distance", [0.05, 0.3, 0.6])
def test_groups_equal_a_loop(tmp_path, distance):
    rng = np.random.default_rng(0)
    features = np.repeat(rng.normal(size=(100, 3)), 3, 0) + 0.1 * rng.normal(size=(300, 3))
    with Gallery(tmp_path / "x.db", 3) as gallery:
        gallery.add_features(features, [f"{index:03}" for index in range(300)])
        groups = find_duplicates(gallery, distance)
    assert [[int(hit.path) for hit in group] for group in groups] == groups_by_loop(features.astype(np.float32), distance)
    for group in groups:
        for hit in group:
            others = [features[int(other.path)] for other in group if other != hit]
            nearest = min(np.linalg.norm(features[int(hit.path)] - other) for other in others)
            assert hit.distance == pytest.approx(nearest, abs=1e-3)


def test_without_doubles_there_are_no_groups(tmp_path):
    with Gallery(tmp_path / "x.db", 2) as gallery:
        assert find_duplicates(gallery, 1.0) == []
        gallery.add_features([[0, 0], [9, 9], [0, 0]], ["a", "b", "c"], cameras=[1, 1, 2])
        assert [[hit.path for hit in group] for group in find_duplicates(gallery, 0.0)] == [["a", "c"]]
        assert find_duplicates(gallery, 0.0, "camera == 1") == []
        with pytest.raises(UserError, match="at least 0"):
            find_duplicates(gallery, -1)
