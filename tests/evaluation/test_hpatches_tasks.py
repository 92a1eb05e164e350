"""The tasks of HPatches equal slow literal loops on small sequences and answers worked by hand, with ties."""

import numpy as np
import pytest

from csametric.evaluation.hpatches_tasks import HPatchesScores, evaluate_matching, evaluate_retrieval, evaluate_verification

PATCH_KINDS = ("ref", *(f"{letter}{image}" for letter in "eht" for image in range(1, 6)))
NAMES = {"easy": "e", "hard": "h", "tough": "t"}


def sequences(counts=(7, 9, 6), dimensions: int = 4, seed: int = 0, rounded: bool = False) -> list[dict[str, np.ndarray]]:
    """Descriptors of sequences as noisy copies of a reference; rounding makes ties."""
    rng = np.random.default_rng(seed)
    result = []
    for count in counts:
        reference = rng.normal(0, 2, (count, dimensions))
        noisy = {kind: reference + rng.normal(0, 0.3 + "reht".index(kind[0]), reference.shape) for kind in PATCH_KINDS}
        if rounded:
            noisy = {kind: np.rint(values) for kind, values in noisy.items()}
        result.append({kind: values.astype(np.float32) for kind, values in noisy.items()})
    return result


def average_precision(distances, is_correct, positives: int) -> float:
    """Sum of trapezoids, one entry after the other; wrong entries rank first among equals."""
    order = sorted(range(len(distances)), key=lambda i: (distances[i], is_correct[i]))
    area, hits, precision = 0.0, 0, 1.0
    for rank, i in enumerate(order, 1):
        before, hits = precision, hits + bool(is_correct[i])
        precision = hits / rank
        if is_correct[i]:
            area += (before + precision) / 2 / positives
    return area


def pairs(rng, counts, total: int, same_sequence: bool, same_patch: bool) -> np.ndarray:
    """Random pairs (total, 6): sequence, image and patch of both."""
    rows = []
    for _ in range(total):
        s = rng.integers(len(counts))
        i, j = rng.choice(counts[s], 2, replace=False)
        t, u = rng.choice(6, 2, replace=False)
        other = s if same_sequence else rng.integers(len(counts))
        rows.append([s, t, i, other, u, i if same_patch else j % counts[other]])
    return np.array(rows)


@pytest.mark.parametrize("rounded", [False, True])
def test_verification_equals_the_loops(rounded):
    described = sequences(rounded=rounded)
    rng = np.random.default_rng(1)
    counts = [len(sequence["ref"]) for sequence in described]
    positives, within, across = (pairs(rng, counts, 60, *same) for same in ((True, True), (True, False), (False, False)))
    scores = evaluate_verification(described, positives, within, across)
    for level, letter in NAMES.items():

        def distance(row, letter=letter):
            a, b = ((described[s]["ref" if t == 0 else f"{letter}{t}"][i]) for s, t, i in (row[:3], row[3:]))
            return float(np.linalg.norm(a - b))

        same = [distance(row) for row in positives]
        for name, negatives in (("within", within), ("across", across)):
            different = [distance(row) for row in negatives]
            area = np.mean([[positive < negative for negative in different] for positive in same])
            assert scores[level][name].roc_area == pytest.approx(area, abs=1e-6)
            listed = different + same[:12]
            expected = average_precision(listed, [0] * 60 + [1] * 12, 12)
            assert scores[level][name].average_precision == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("rounded", [False, True])
def test_matching_equals_the_loops(rounded):
    described = sequences(rounded=rounded)
    scores = evaluate_matching(described)
    for level, letter in NAMES.items():
        expected = []
        for sequence in described:
            for image in range(1, 6):
                nearest, is_correct = [], []
                for i, reference in enumerate(sequence["ref"]):
                    distances = [float(np.linalg.norm(reference - target)) for target in sequence[f"{letter}{image}"]]
                    others = [d for j, d in enumerate(distances) if j != i]
                    is_correct.append(distances[i] < min(others) - 1e-6)
                    nearest.append(min(distances))
                expected.append(average_precision(np.round(nearest, 5), is_correct, len(is_correct)))
        assert scores[level] == pytest.approx(np.mean(expected), abs=1e-6)


@pytest.mark.parametrize("rounded", [False, True])
def test_retrieval_equals_the_loops(rounded):
    described = sequences(counts=(8, 9, 10), rounded=rounded)
    rng = np.random.default_rng(2)
    patches = np.array([(s, i) for s, sequence in enumerate(described) for i in range(len(sequence["ref"]))])
    rng.shuffle(patches)
    queries, distractors = patches[:7], patches[7:]
    pools = (6, 9, 15)
    scores = evaluate_retrieval(described, queries, distractors, pools)
    for level, letter in NAMES.items():
        for pool in pools:
            expected = []
            for s, i in queries:
                query = described[s]["ref"][i]
                own = [float(np.linalg.norm(query - described[s][f"{letter}{image}"][i])) for image in range(1, 6)]
                foreign = [float(np.linalg.norm(query - described[t]["ref"][j])) for t, j in distractors if t != s]
                listed = (own + foreign)[:pool]
                expected.append(average_precision(np.round(listed, 4), [1] * 5 + [0] * (len(listed) - 5), 5))
            assert scores[level][pool] == pytest.approx(np.mean(expected), abs=1e-5)


def test_perfect_descriptors_score_one_and_constant_ones_the_minimum():
    reference = np.eye(8, dtype=np.float32)
    perfect = [dict.fromkeys(PATCH_KINDS, reference), dict.fromkeys(PATCH_KINDS, 5 + reference)]
    constant = [{kind: np.ones((8, 3), np.float32) for kind in PATCH_KINDS} for _ in range(2)]
    within = np.array([[0, 0, i, 0, 1, (i + 1) % 8] for i in range(8)] * 5)
    across = np.array([[0, 0, i, 1, 1, i] for i in range(8)] * 5)
    positives = np.array([[0, 0, i, 0, 2, i] for i in range(8)] * 5)
    queries, distractors = np.array([[0, 0], [0, 1]]), np.array([[1, i] for i in range(8)])
    for described, expected in ((perfect, 1.0), (constant, 0.0)):
        verification = evaluate_verification(described, positives, within, across)
        assert verification["hard"]["within"].roc_area == expected
        assert evaluate_matching(described)["easy"] == expected
        retrieval = evaluate_retrieval(described, queries, distractors, (13,))["tough"][13]
        worst = np.mean([((i - 1) / (7 + i) + i / (8 + i)) / 2 for i in range(1, 6)])
        assert retrieval == pytest.approx(expected or worst)


def test_means_are_over_levels_and_none_for_tasks_that_were_not_run():
    scores = HPatchesScores(matching=evaluate_matching(sequences()))
    assert scores.matching_mean == pytest.approx(np.mean(list(scores.matching.values())))
    assert scores.retrieval_mean is None
    assert scores.verification_mean is None
