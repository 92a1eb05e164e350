"""The inspection of a re-identification dataset as a table, lists of problems and a contact sheet."""

from pathlib import Path

import numpy as np

from csametric.data.inspection import Inspection
from csametric.data.records import ReidDataset
from csametric.data.transforms import read_image
from csametric.visualization.figures import contact_sheet, save_figure
from csametric.visualization.page import Table

SHEET_IMAGES = 48
HEIGHT, WIDTH = 192, 64  # of an image on the contact sheet, pixels


def inspection_table(inspection: Inspection) -> Table:
    """What each split contains, one column per split, which fits a terminal of 80 columns."""
    splits = inspection.splits.values()
    rows = [
        ["images", *(f"{split.images:,}" for split in splits)],
        ["identities", *(f"{split.identities:,}" for split in splits)],
        ["junk images", *(f"{split.junk:,}" for split in splits)],
        ["distractor images", *(f"{split.distractors:,}" for split in splits)],
        ["images per identity", *(f"{split.per_identity[0]} to {split.per_identity[2]}" for split in splits)],
        ["median", *(f"{split.per_identity[1]}" for split in splits)],
        ["identities on one camera", *(f"{split.one_camera:,}" for split in splits)],
    ]
    cameras = sorted({camera for split in splits for camera in split.cameras})
    rows += [[f"images of camera {camera}", *(f"{split.cameras.get(camera, 0):,}" for split in splits)] for camera in cameras]
    return Table(header=["", *inspection.splits], rows=rows)


def problems_by_kind(inspection: Inspection) -> dict[str, list[str]]:
    """The problems of a dataset as sentences or paths, by kind; a kind without problems has an empty list."""
    return {
        "unreadable files": list(inspection.unreadable.values()),
        "identical files in two splits": [" = ".join(pair) for pair in inspection.duplicates],
        "queries without a match in the gallery": list(inspection.unmatched),
    }


def write_contact_sheet(dataset: ReidDataset, inspection: Inspection, path: Path) -> bool:
    """Draw evenly spread training and query images with identity and camera.

    Returns:
        Whether a sheet was written; false if no image can be read.
    """
    records = [record for record in (*dataset.train, *dataset.query) if str(record.path) not in inspection.unreadable]
    if not records:
        return False
    indices = np.linspace(0, len(records) - 1, min(SHEET_IMAGES, len(records))).astype(int)
    shown = [records[index] for index in indices]
    figure = contact_sheet(
        [read_image(record.path, HEIGHT, WIDTH) for record in shown],
        [f"{_identity_name(dataset, record.identity)}, camera {record.camera}" for record in shown],
    )
    save_figure(figure, path)
    return True


def _identity_name(dataset: ReidDataset, identity: int) -> str:
    return dataset.names[identity - 1] if dataset.names else str(identity)
