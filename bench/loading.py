"""Images per second of the training loader alone: decoding, resizing and augmenting crops like those of the datasets."""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from bench.measure import write_results
from csametric.cli.tables import print_table
from csametric.data.loading import WORKERS, image_batch, prefetch
from csametric.data.records import Record
from csametric.data.transforms import Augmentation

CROPS, BATCH = 512, 64
SIZES = ((384, 128), (256, 128), (192, 64))
AUGMENTATIONS = {"flip": Augmentation(), "flip, pad, erasing": Augmentation(pad=10, erasing=0.5)}


def write_crops(folder: Path) -> list[Record]:
    """Write JPEG crops of smoothed noise, 128 x 64 pixels, Market-1501's size."""
    rng = np.random.default_rng(0)
    records = []
    for number in range(CROPS):
        coarse = Image.fromarray(rng.integers(0, 256, (16, 8, 3), dtype=np.uint8))
        path = folder / f"{number}.jpg"
        coarse.resize((64, 128), Image.Resampling.BICUBIC).save(path, quality=90)
        records.append(Record(path, number, 0))
    return records


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=32)
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        records = write_crops(Path(folder))
        for height, width in SIZES:
            for name, augmentation in AUGMENTATIONS.items():

                def make(step: int, height: int = height, width: int = width, how: Augmentation = augmentation) -> int:
                    chosen = [records[(step * BATCH + place) % CROPS] for place in range(BATCH)]
                    batch = image_batch(chosen, np.zeros(BATCH), height=height, width=width, augmentation=how, seed=(0, step))
                    return len(batch.images)

                started = time.perf_counter()
                images = sum(prefetch(make, range(arguments.batches)))
                rate = images / (time.perf_counter() - started)
                rows.append({"size": f"{height}x{width}", "augmentation": name, "images_per_second": rate})
    text = [[row["size"], row["augmentation"], f"{row['images_per_second']:,.0f}"] for row in rows]
    print_table(f"the loader alone, {WORKERS} threads", ["size", "augmentation", "images/s"], text)
    print(f"results: {write_results('loading', rows)}")


if __name__ == "__main__":
    main()
