"""MSMT17 (Wei et al. 2018), from its list files or from Market-1501's layout."""

from pathlib import Path

from csametric.data.market1501 import FOLDERS, read_market_layout
from csametric.data.records import Count, Record, ReidDataset
from csametric.errors import UserError

PUBLISHED = {"train": Count(32_621, 1041), "query": Count(11_659, 3060), "gallery": Count(82_161, 3060)}
_LISTS = {
    "train": (("train", "list_train.txt"), ("train", "list_val.txt")),
    "query": (("test", "list_query.txt"),),
    "gallery": (("test", "list_gallery.txt"),),
}


def read_msmt17(root: Path) -> ReidDataset:
    """The list files beside the folders train and test (or mask_train_v2 and mask_test_v2), or Market-1501's folders.

    Identities count from 1: in the list files they begin at 0, which elsewhere means a distractor. Training takes the
    validation list too, as published results do.

    Raises:
        UserError: neither layout is there, or a list names a missing image.
    """
    if (root / FOLDERS["train"]).is_dir():
        return read_market_layout("MSMT17", root, PUBLISHED)
    splits = {split: sorted(record for each in lists for record in _read_list(root, *each)) for split, lists in _LISTS.items()}
    return ReidDataset(
        name="MSMT17", published=PUBLISHED, train=splits["train"], query=splits["query"], gallery=splits["gallery"]
    )


def _read_list(root: Path, part: str, name: str) -> list[Record]:
    if not (root / name).is_file():
        raise UserError(f"{root} has neither {name} nor {FOLDERS['train']}; put the extracted dataset there")
    images = next((root / folder for folder in (part, f"mask_{part}_v2") if (root / folder).is_dir()), root / part)
    records = []
    for line in (root / name).read_text().split("\n"):
        if line.strip():
            path, _, identity = line.strip().rpartition(" ")
            parts = Path(path).name.split("_")
            if not identity.isdecimal() or len(parts) < 3 or not parts[2].isdecimal():
                raise UserError(
                    f"{name} has the line {line.strip()!r}, not 0000/0000_000_01_0303morning_0008_0.jpg 0; get it again"
                )
            records.append(Record(images / path, int(identity) + 1, int(parts[2])))
    missing = [record.path for record in records if not record.path.is_file()]
    if missing:
        raise UserError(f"{name} lists {len(missing):,} images that are not there ({missing[0]}); extract the dataset again")
    return records
