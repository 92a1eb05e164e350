"""Patches per second when the patch cache is built, including decoding and keypoint detection."""

import tempfile
from pathlib import Path

from bench.measure import write_results
from csametric.cli.tables import print_table
from csametric.data.photo_patches import PhotoSettings, open_photo_patches


def main() -> None:
    rows = []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as cache:
            summary = open_photo_patches(PhotoSettings(), Path(cache)).summary
        rows.append({"patches": summary.patches, "seconds": summary.seconds, "rate": summary.patches / summary.seconds})
    text = [[f"{row['patches']:,}", f"{row['seconds']:.1f}", f"{row['rate']:,.0f}"] for row in rows]
    print_table("patch cache of the bundled photographs", ["patches", "seconds", "patches per second"], text)
    print(f"results: {write_results('patches', rows)}")


if __name__ == "__main__":
    main()
