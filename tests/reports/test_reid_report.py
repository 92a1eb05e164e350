"""The sentence under a table of scores says all that makes them better than they should be."""

import pytest

from csametric.reports.reid_report import conventions

SCORES = {"dataset": "mine", "camera_filter": True, "rerank": False, "flip": False, "queries_without_match": []}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"queries_in_gallery": 3}, "WARNING: 3 queries are in the gallery too, as the same file or a copy"),
        ({"camera_filter": False}, "no camera filter, by choice or because all images are from one camera"),
        ({"queries_without_match": [1, 2]}, "2 queries without a match left out"),
        ({"flip": True}, "features averaged over the image and its mirror image"),
    ],
)
def test_the_caption_says_so(change, words):
    assert words in conventions(SCORES | change)
    assert words not in conventions(SCORES | {"queries_in_gallery": 0})
