"""Groups of images in a gallery that are almost the same."""

from dataclasses import replace

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from csametric.errors import UserError
from csametric.progress import show_progress
from csametric.search.gallery import Gallery
from csametric.search.rows import Hit

NEIGHBOURS = 32  # compared with each image; larger groups are found through their members
BATCH = 256


def find_duplicates(gallery: Gallery, distance: float, where: str = "") -> list[list[Hit]]:
    """Group images that are linked by distances up to `distance`, directly or through others of the group.

    Args:
        gallery: to search.
        distance: the largest Euclidean distance between near-doubles; 0 finds exact doubles only.
        where: a condition on the rows that are compared.

    Returns:
        Groups of at least two, the largest first, each in the order of keys; a distance is that to the nearest in the group.

    Raises:
        UserError: a distance below 0, or a condition that cannot be used.
    """
    if not distance >= 0:  # also true for NaN
        raise UserError(f"the distance must be at least 0, got {distance:g}")
    hits: dict[str, Hit] = {}
    links: dict[tuple[str, str], float] = {}
    total = -(-gallery.count(where) // BATCH)
    for rows in show_progress(gallery.rows(where, BATCH), "comparing", total, enabled=True):
        found = gallery.search_features(np.stack([feature for _, feature in rows]), NEIGHBOURS, where)
        for (row, _), neighbours in zip(rows, found, strict=True):
            hits[row.key] = row
            for other in neighbours:
                if other.key != row.key and other.distance <= distance:
                    links[min(row.key, other.key), max(row.key, other.key)] = other.distance
    return _groups(hits, links)


def _groups(hits: dict[str, Hit], links: dict[tuple[str, str], float]) -> list[list[Hit]]:
    """Connected components of the links with at least two members."""
    keys = sorted({key for pair in links for key in pair})
    numbers = {key: number for number, key in enumerate(keys)}
    first, second = (np.array([numbers[pair[end]] for pair in links], int) for end in (0, 1))
    graph = coo_matrix((np.ones(len(links)), (first, second)), (len(keys), len(keys)))
    _, labels = connected_components(graph, directed=False)
    nearest: dict[str, float] = {}
    for pair, distance in links.items():
        for key in pair:
            nearest[key] = min(distance, nearest.get(key, np.inf))
    members = [replace(hits[key], distance=nearest[key]) for key in keys]
    groups = [[members[index] for index in np.flatnonzero(labels == label)] for label in range(labels.max(initial=-1) + 1)]
    return sorted(groups, key=lambda group: (-len(group), group[0].key))
