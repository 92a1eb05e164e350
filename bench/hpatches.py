"""Time of HPatches' tasks on a generated split of 40 sequences, and the peak memory."""

import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.measure import write_results
from csametric.cli.tables import print_table
from csametric.data.hpatches import PATCH_KINDS, verification_pairs
from csametric.evaluation.hpatches_tasks import evaluate_matching, evaluate_retrieval, evaluate_verification

SEQUENCES, DIMENSIONS, QUERIES, DISTRACTORS = 40, 128, 10_000, 20_000


def make_sequences(rng: np.random.Generator) -> list[dict[str, NDArray]]:
    """Return sequences of 500 to 2,000 unit descriptors, where each kind is the reference plus noise as strong as itself."""
    sequences = []
    for count in rng.integers(500, 2001, SEQUENCES):
        reference = rng.standard_normal((count, DIMENSIONS), np.float32)
        noisy = {kind: reference + rng.standard_normal(reference.shape, np.float32) for kind in PATCH_KINDS}
        sequences.append({kind: values / np.linalg.norm(values, axis=1, keepdims=True) for kind, values in noisy.items()})
    return sequences


def timed(what: str, call: Callable[[], Any], rows: list[dict[str, Any]]) -> Any:
    """Return the result of a call, and append its time to the rows."""
    started = time.perf_counter()
    result = call()
    rows.append({"what": what, "seconds": time.perf_counter() - started})
    return result


def main() -> None:
    rng = np.random.default_rng(0)
    sequences = make_sequences(rng)
    counts = [len(sequence["ref"]) for sequence in sequences]
    places = np.array([(sequence, patch) for sequence, count in enumerate(counts) for patch in range(count)])
    rng.shuffle(places)
    queries, distractors = places[:QUERIES], places[QUERIES : QUERIES + DISTRACTORS]
    rows: list[dict[str, Any]] = []
    pairs = timed("verification pairs drawn again", lambda: verification_pairs(counts), rows)
    timed("verification", lambda: evaluate_verification(sequences, *pairs), rows)
    timed("matching", lambda: evaluate_matching(sequences), rows)
    timed("retrieval", lambda: evaluate_retrieval(sequences, queries, distractors), rows)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print_table("HPatches, 40 sequences", ["", "s"], [[row["what"], f"{row['seconds']:.1f}"] for row in rows])
    print(f"peak memory {peak:.2f} GiB, descriptors included")
    print(f"results: {write_results('hpatches', [*rows, {'peak_gib': peak}])}")


if __name__ == "__main__":
    main()
