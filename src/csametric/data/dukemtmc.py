"""DukeMTMC-reID (Zheng et al. 2017), in Market-1501's layout.

Its authors have withdrawn the dataset; this reader is for those who already have a copy.
"""

from pathlib import Path

from csametric.data.market1501 import read_market_layout
from csametric.data.records import Count, ReidDataset

PUBLISHED = {"train": Count(16_522, 702), "query": Count(2228, 702), "gallery": Count(17_661, 1110)}


def read_dukemtmc(root: Path) -> ReidDataset:
    """Read DukeMTMC-reID; its gallery has the 702 identities of the queries and 408 that occur in no query.

    Args:
        root: the folder that holds bounding_box_train, query and bounding_box_test.

    Raises:
        UserError: a folder is missing or empty, or a file name does not begin with an identity and a camera.
    """
    return read_market_layout("DukeMTMC-reID", root, PUBLISHED)
