"""MSMT17 (Wei et al. 2018), from its list files or from Market-1501's layout."""

from pathlib import Path

from csametric.data.market1501 import FOLDERS, read_market_layout
from csametric.data.records import Count, Record, ReidDataset
from csametric.errors import UserError
from csametric.files import is_file, read_text

PUBLISHED = {"train": Count(32_621, 1041), "query": Count(11_659, 3060), "gallery": Count(82_161, 3060)}
DIGITS = 9  # of an identity or a camera; more are a mistake
_LISTS = {
    "train": (("train", "list_train.txt"), ("train", "list_val.txt")),
    "query": (("test", "list_query.txt"),),
    "gallery": (("test", "list_gallery.txt"),),
}


def read_msmt17(root: Path) -> ReidDataset:
    """Read MSMT17; the training split includes the validation list, as in published results.

    Identities start at 1. The list files start at 0, which would mean a distractor here.

    Args:
        root: the folder with the list files beside train and test (or mask_train_v2 and mask_test_v2), or with
            Market-1501's folders.

    Raises:
        UserError: the folder has neither layout, or a list is damaged or names a missing image.
    """
    if (root / FOLDERS["train"]).is_dir():
        return read_market_layout("MSMT17", root, PUBLISHED)
    splits = {
        split: sorted(record for folder, name in lists for record in _read_list(root, folder, name))
        for split, lists in _LISTS.items()
    }
    return ReidDataset(
        name="MSMT17", published=PUBLISHED, train=splits["train"], query=splits["query"], gallery=splits["gallery"]
    )


def _read_list(root: Path, folder: str, name: str) -> list[Record]:
    path = root / name
    if not path.is_file():
        raise UserError(f"{root} must contain {name} or {FOLDERS['train']}; extract the dataset there")
    images = _image_folder(root, folder)
    records = [_record(name, images, line.strip()) for line in read_text(path).split("\n") if line.strip()]
    missing = [record.path for record in records if not is_file(record.path)]
    if missing:
        raise UserError(
            f"{len(missing):,} of the {len(records):,} images in {name} are missing, first {missing[0]}; "
            "extract the dataset again"
        )
    return records


def _image_folder(root: Path, folder: str) -> Path:
    masked = root / f"mask_{folder}_v2"
    if masked.is_dir() and not (root / folder).is_dir():
        return masked
    return root / folder


def _record(list_name: str, images: Path, line: str) -> Record:
    file, _, identity = line.rpartition(" ")
    parts = Path(file).name.split("_")
    is_number = len(parts) > 2 and all(text.isdecimal() and len(text) <= DIGITS for text in (identity, parts[2]))
    if not is_number:
        raise UserError(
            f"{list_name} must have lines such as 0000/0000_000_01_0303morning_0008_0.jpg 0, got {line!r}; download it again"
        )
    return Record(images / file, identity=int(identity) + 1, camera=int(parts[2]))
