"""HPatches' tasks against slow literal loops on small sequences, and against answers worked by hand; ties included."""

import numpy as np
import pytest

from csametric.evaluation.hpatches_tasks import HPatchesScores, evaluate_matching, evaluate_retrieval, evaluate_verification

KINDS = ("ref", *(f"{letter}{image}" for letter in "eht" for image in range(1, 6)))
NAMES = {"easy": "e", "hard": "h", "tough": "t"}


def sequences(counts=(7, 9, 6), dimensions: int = 4, seed: int = 0, whole: bool = False) -> list[dict[str, np.ndarray]]:
    """Noisy copies of a reference; whole numbers make ties."""
    rng = np.random.default_rng(seed)
    made = []
    for count in counts:
        reference = rng.normal(0, 2, (count, dimensions))
        noisy = {kind: reference + rng.normal(0, 0.3 + "reht".index(kind[0]), reference.shape) for kind in KINDS}
        made.append({kind: (np.rint(values) if whole else values).astype(np.float32) for kind, values in noisy.items()})
    return made


def average_precision(distances, is_right, positives: int) -> float:
    """Trapezoids one entry after the other, wrong ones first among equals."""
    order = sorted(range(len(distances)), key=lambda i: (distances[i], is_right[i]))
    area, hits, precision = 0.0, 0, 1.0
    for rank, i in enumerate(order, 1):
        before, hits = precision, hits + bool(is_right[i])
        precision = hits / rank
        if is_right[i]:
            area += (before + precision) / 2 / positives
    return area


def pairs(rng, counts, total: int, same_sequence: bool, same_patch: bool) -> np.ndarray:
    rows = []
    for _ in range(total):
        s = rng.integers(len(counts))
        i, j = rng.choice(counts[s], 2, replace=False)
        t, u = rng.choice(6, 2, replace=False)
        other = s if same_sequence else rng.integers(len(counts))
        rows.append([s, t, i, other, u, i if same_patch else j % counts[other]])
    return np.array(rows)


@pytest.mark.parametrize("whole", [False, True])
def test_verification_equals_the_loops(whole):
    made = sequences(whole=whole)
    rng = np.random.default_rng(1)
    counts = [len(each["ref"]) for each in made]
    positives, within, across = (pairs(rng, counts, 60, *same) for same in ((True, True), (True, False), (False, False)))
    scores = evaluate_verification(made, positives, within, across)
    for level, letter in NAMES.items():

        def distance(row, letter=letter):
            a, b = ((made[s]["ref" if t == 0 else f"{letter}{t}"][i]) for s, t, i in (row[:3], row[3:]))
            return float(np.linalg.norm(a - b))

        same = [distance(row) for row in positives]
        for name, negatives in (("within", within), ("across", across)):
            other = [distance(row) for row in negatives]
            area = np.mean([[mine < theirs for theirs in other] for mine in same])
            assert scores[level][name].roc_area == pytest.approx(area, abs=1e-6)
            listed = other + same[:12]
            expected = average_precision(listed, [0] * 60 + [1] * 12, 12)
            assert scores[level][name].average_precision == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("whole", [False, True])
def test_matching_equals_the_loops(whole):
    made = sequences(whole=whole)
    scores = evaluate_matching(made)
    for level, letter in NAMES.items():
        expected = []
        for each in made:
            for image in range(1, 6):
                nearest, right = [], []
                for i, reference in enumerate(each["ref"]):
                    distances = [float(np.linalg.norm(reference - target)) for target in each[f"{letter}{image}"]]
                    others = [d for j, d in enumerate(distances) if j != i]
                    right.append(distances[i] < min(others) - 1e-6)
                    nearest.append(min(distances))
                expected.append(average_precision(np.round(nearest, 5), right, len(right)))
        assert scores[level] == pytest.approx(np.mean(expected), abs=1e-6)


@pytest.mark.parametrize("whole", [False, True])
def test_retrieval_equals_the_loops(whole):
    made = sequences(counts=(8, 9, 10), whole=whole)
    rng = np.random.default_rng(2)
    places = np.array([(s, i) for s, each in enumerate(made) for i in range(len(each["ref"]))])
    rng.shuffle(places)
    queries, distractors = places[:7], places[7:]
    pools = (6, 9, 15)
    scores = evaluate_retrieval(made, queries, distractors, pools)
    for level, letter in NAMES.items():
        for pool in pools:
            expected = []
            for s, i in queries:
                query = made[s]["ref"][i]
                own = [float(np.linalg.norm(query - made[s][f"{letter}{image}"][i])) for image in range(1, 6)]
                foreign = [float(np.linalg.norm(query - made[t]["ref"][j])) for t, j in distractors if t != s]
                listed = (own + foreign)[:pool]
                expected.append(average_precision(np.round(listed, 4), [1] * 5 + [0] * (len(listed) - 5), 5))
            assert scores[level][pool] == pytest.approx(np.mean(expected), abs=1e-5)


def test_perfect_descriptors_score_one_and_equal_ones_as_little_as_can_be():
    reference = np.eye(8, dtype=np.float32)
    perfect = [dict.fromkeys(KINDS, reference), dict.fromkeys(KINDS, 5 + reference)]
    equal = [{kind: np.ones((8, 3), np.float32) for kind in KINDS} for _ in range(2)]
    within = np.array([[0, 0, i, 0, 1, (i + 1) % 8] for i in range(8)] * 5)
    across = np.array([[0, 0, i, 1, 1, i] for i in range(8)] * 5)
    positives = np.array([[0, 0, i, 0, 2, i] for i in range(8)] * 5)
    queries, distractors = np.array([[0, 0], [0, 1]]), np.array([[1, i] for i in range(8)])
    for made, expected in ((perfect, 1.0), (equal, 0.0)):
        verification = evaluate_verification(made, positives, within, across)
        assert verification["hard"]["within"].roc_area == expected
        assert evaluate_matching(made)["easy"] == expected
        retrieval = evaluate_retrieval(made, queries, distractors, (13,))["tough"][13]
        worst = np.mean([((i - 1) / (7 + i) + i / (8 + i)) / 2 for i in range(1, 6)])
        assert retrieval == pytest.approx(expected or worst)


def test_the_published_means():
    made = sequences()
    scores = HPatchesScores(matching=evaluate_matching(made))
    assert scores.matching_mean == pytest.approx(np.mean(list(scores.matching.values())))
    assert scores.retrieval_mean is None
    assert scores.verification_mean is None
