"""DukeMTMC-reID (Zheng et al. 2017), in Market-1501's layout; its authors have withdrawn it: for those who hold it."""

from pathlib import Path

from csametric.data.market1501 import read_market_layout
from csametric.data.records import Count, ReidDataset

PUBLISHED = {"train": Count(16_522, 702), "query": Count(2228, 702), "gallery": Count(17_661, 1110)}


def read_dukemtmc(root: Path) -> ReidDataset:
    """The folders bounding_box_train, query and bounding_box_test.

    The gallery has 702 identities of the queries and 408 distractors with numbers of their own.

    Raises:
        UserError: a missing or empty folder, or a file name without identity and camera.
    """
    return read_market_layout("DukeMTMC-reID", root, PUBLISHED)
