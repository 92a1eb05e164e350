"""Speed on a generated full-size subset of Brown / UBC PhotoTour: filling the cache, sampling 5,000,000 pairs."""

import resource
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from bench.measure import write_results
from csametric.cli.tables import print_table
from csametric.data.brown import SHEET_PATCHES, SHEET_SIDE, SUBSETS, read_brown
from csametric.data.loading import prefetch
from csametric.data.sampling import index_points, point_batch

PATCHES, BATCH, EPOCH = SUBSETS["liberty"], 1024, 5_000_000
DISTINCT_SHEETS = 16  # noise images; the other sheets repeat them


def write_subset(folder: Path) -> None:
    """Write bitmap sheets of noise, with two to five patches per point."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    noise = [rng.integers(0, 256, (SHEET_SIDE, SHEET_SIDE), dtype=np.uint8) for _ in range(DISTINCT_SHEETS)]
    for sheet in range(-(-PATCHES // SHEET_PATCHES)):
        cv2.imwrite(str(folder / f"patches{sheet:04}.bmp"), noise[sheet % DISTINCT_SHEETS])
    points = np.repeat(np.arange(PATCHES), rng.integers(2, 6, PATCHES))[:PATCHES]
    (folder / "info.txt").write_text("".join(f"{point} 0\n" for point in points))


def own_memory() -> float:
    """Return the memory of this process without pages of files, GiB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 2**20


def main() -> None:
    with tempfile.TemporaryDirectory() as root:
        write_subset(Path(root) / "liberty")
        started = time.perf_counter()
        subset = read_brown(Path(root) / "liberty", cache=Path(root) / "cache")
        reading = time.perf_counter() - started
        index = index_points(subset.points)
        started = time.perf_counter()
        steps = EPOCH // BATCH
        for _ in prefetch(lambda step: point_batch(subset.patches, index, step, batch_size=BATCH, seed=0), range(steps)):
            pass
        sampling = time.perf_counter() - started
        own = own_memory()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    rows = [
        {"what": f"{PATCHES:,} patches read into the cache", "seconds": reading, "rate": PATCHES / reading},
        {"what": f"{steps * BATCH:,} pairs sampled", "seconds": sampling, "rate": steps * BATCH / sampling},
    ]
    print_table(
        "Brown", ["", "s", "per second"], [[row["what"], f"{row['seconds']:.1f}", f"{row['rate']:,.0f}"] for row in rows]
    )
    print(f"memory: {own:.2f} GiB at the end without the pages of the cache; peak {peak:.2f} GiB with them")
    print(f"results: {write_results('brown', [*rows, {'own_gib': own, 'peak_gib': peak}])}")


if __name__ == "__main__":
    main()
