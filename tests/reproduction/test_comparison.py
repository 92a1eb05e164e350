"""Our figures beside the paper's, from run folders written by hand: means, spreads, differences, and how they are printed."""

import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from csametric.evaluation.verification import fpr95
from csametric.files import write_text
from csametric.reproduction import speed
from csametric.reproduction.budgets import experiment_for
from csametric.reproduction.comparison import fill
from csametric.reproduction.paper import CUHK03, LIBERTY, MARKET, NOTREDAME, TABLES, YOSEMITE
from csametric.reproduction.plan import HPATCHES_SCORES, Plan, Run
from csametric.reproduction.rendering import as_csv, as_latex, as_sections, as_text
from csametric.runs.folder import ENVIRONMENT, EXPERIMENT, METRICS, write_scores
from csametric.runs.overrides import to_json

QUERIES = 200
CORRECT = {"PCB": 100, "PCB + CSA": 150}


def write_run(folder: Path, recipe: str, data: str, seed: int, scores: dict) -> Run:
    experiment = experiment_for(recipe, data, Path("/data"), seed, "quick")
    write_text(folder / EXPERIMENT, to_json(experiment))
    write_text(folder / ENVIRONMENT, json.dumps({"processes": 1, "commit": "abc1234"}))
    row = json.dumps({"step": 1, "loss": 1.0, "images_per_second": experiment.batch_size / 1800}) + "\n"
    write_text(folder / METRICS, row + row.replace('"step": 1', '"step": 2'))
    write_scores(folder, scores)
    return Run(experiment=experiment, folder=folder)


def reid_scores(correct: int, precision: float, seed: int) -> dict:
    """Scores with `correct` queries answered at rank 1 and the others at rank 7."""
    rng = np.random.default_rng((seed, correct))
    precisions = np.full(QUERIES, precision) + rng.normal(0, 0.02, QUERIES)
    return {
        "rank1": correct / QUERIES,
        "rank5": correct / QUERIES,
        "rank10": 1.0,
        "map_step": float(precisions.mean()) + 0.02,
        "map_trapezoid": float(precisions.mean()),
        "first_match": np.where(np.arange(QUERIES) < correct, 1, 7),
        "ap_step": precisions + 0.02,
        "ap_trapezoid": precisions,
    }


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    runs = {}
    for seed in (0, 1):
        for recipe, correct, precision in (("pcb", CORRECT["PCB"] + 2 * seed, 0.4), ("pcb_csa", CORRECT["PCB + CSA"], 0.5)):
            folder = out / f"{recipe}{seed}"
            runs[recipe, CUHK03, seed] = write_run(folder, recipe, CUHK03, seed, reid_scores(correct, precision, seed))
    plan = Plan(budget="quick", seeds=2, runs=runs, missing={MARKET: "no Market"})
    return fill(TABLES["table1"], plan, ["A note."])


def cell(filled, label: str, metric: str, data: str = CUHK03):
    column = next(column for column in filled.table.columns if (column.data, column.metric[-1]) == (data, metric))
    return filled.cells[label, column]


def test_figures_are_means_over_seeds_with_their_spread(filled):
    plain = cell(filled, "PCB", "rank1")
    assert plain.ours == pytest.approx([50, 51])
    assert (plain.mean, plain.paper) == (pytest.approx(50.5), 59.7)
    assert plain.spread == pytest.approx(math.sqrt(0.5))
    assert plain.difference is None, "it is the baseline"


def test_differences_from_the_baseline_have_bounds(filled):
    rank1 = cell(filled, "PCB + CSA", "rank1")
    assert rank1.difference.difference == pytest.approx(75 - 50.5)
    assert rank1.difference_spread == pytest.approx(math.sqrt(0.5))
    share = 0.245  # of the queries that only CSA answers at rank 1
    deviation = 100 * math.sqrt(share * (1 - share) / QUERIES)
    assert rank1.difference.low == pytest.approx(24.5 - 1.96 * deviation, abs=1)
    assert rank1.difference.high == pytest.approx(24.5 + 1.96 * deviation, abs=1)
    precision = cell(filled, "PCB + CSA", "map_trapezoid")
    assert precision.difference.low < precision.difference.difference < precision.difference.high
    assert precision.difference.difference == pytest.approx(10, abs=0.5)


def test_a_cell_without_runs_keeps_the_papers_figure(filled):
    assert cell(filled, "PCB", "rank1", MARKET).ours == []
    assert cell(filled, "PCB + SA", "rank1").paper == 65.9
    assert cell(filled, "PCB + SA", "rank1").difference is None
    assert cell(filled, "Mancs (Wang et al. 2018)", "rank1").paper == 65.5
    assert (filled.commits, filled.seconds) == (["abc1234"], pytest.approx(4 * 3600))


def test_differences_are_over_the_seeds_that_both_rows_have(tmp_path):
    """The row is one point better for every seed, and scores differ more between seeds."""
    runs = {}
    for seed, correct in enumerate((40, 80, 120)):
        for recipe, gain in (("pcb", 0), ("pcb_csa", 2)):
            folder = tmp_path / f"{recipe}{seed}"
            runs[recipe, CUHK03, seed] = write_run(folder, recipe, CUHK03, seed, reid_scores(correct + gain, 0.5, seed))
    del runs["pcb", CUHK03, 0], runs["pcb_csa", CUHK03, 2]
    filled = fill(TABLES["table1"], Plan(budget="quick", seeds=3, runs=runs, missing={}))
    rank1 = cell(filled, "PCB + CSA", "rank1")
    assert (rank1.ours, rank1.paired) == (pytest.approx([21, 41]), 1)
    assert rank1.difference.difference == pytest.approx(1)
    assert rank1.difference_spread is None
    assert rank1.difference.low <= 1 <= rank1.difference.high
    assert "over the seeds that both rows have" in as_text(filled)


def test_a_wide_table_is_not_truncated(tmp_path):
    runs = {}
    for seed in (0, 1, 2):
        for recipe, precision in (("pcb", 0.4), ("pcb_csa", 0.5)):
            run = write_run(tmp_path / f"{recipe}{seed}", recipe, CUHK03, seed, reid_scores(100 + seed, precision, seed))
            runs[recipe, CUHK03, seed] = run
    filled = fill(TABLES["table1"], Plan(budget="quick", seeds=3, runs=runs, missing={}))
    cells = {key: replace(cell, ours=[1234567.8, 2345678.9] if cell.ours else ()) for key, cell in filled.cells.items()}
    text = as_text(replace(filled, cells=cells))
    assert "…" not in text
    assert max(map(len, text.splitlines())) > 220


def test_text_has_our_figure_then_the_papers(filled):
    text = as_text(filled)
    lines = {line.split("  ")[0].strip(): line for line in text.split("CUHK03-NP")[1].splitlines()}
    assert "50.5 ± 0.7 (59.7)" in lines["PCB"]
    assert "75.0 ± 0.0 (67.2)" in lines["PCB + CSA"]
    assert "(65.5)" in lines["Mancs (Wang et al. 2018)"]
    assert "cited" in lines["Mancs (Wang et al. 2018)"]
    assert "ours" in lines["PCB, random erasing, no attention"]
    assert "DuATM" not in text.split("CUHK03-NP")[1], "the paper cites no figure of DuATM on this dataset"
    assert text.endswith("± is the standard deviation over seeds.\nA note.\nTrained for 4.00 h at commit abc1234.\n")


def test_csv_has_every_figure_to_six_digits(filled):
    rows = list(csv.DictReader(io.StringIO(as_csv(filled))))
    assert len(rows) == len(TABLES["table1"].rows) * len(TABLES["table1"].columns)
    (line,) = (row for row in rows if (row["row"], row["dataset"], row["figure"]) == ("PCB + CSA", "CUHK03-NP", "R-1"))
    assert (line["paper"], line["ours"], line["seeds"], line["compared with"]) == ("67.2", "75", "2", "PCB")
    assert (line["commit"], line["seconds of the table"]) == ("abc1234", "14400")
    assert float(line["ours - paper"]) == pytest.approx(7.8)
    assert float(line["95 % from"]) < float(line["difference"]) < float(line["95 % to"])


def test_latex_has_every_row_and_column(filled):
    latex = as_latex(filled)
    body = latex.split(r"\midrule")[1].split(r"\bottomrule")[0]
    assert body.count(r"\\") == len(TABLES["table1"].rows)
    assert all(line.count("&") == len(TABLES["table1"].columns) for line in body.strip().splitlines())
    assert r"50.5 $\pm$ 0.7 (59.7)" in body
    assert r"no attention\textsuperscript{*}" in body


def test_the_page_has_one_section_per_dataset_that_was_run(filled):
    sections = as_sections(filled)
    assert [section.title.rpartition(", ")[2] for section in sections] == ["CUHK03-NP"], "the others were not run"


def test_brown_has_a_mean_column_and_bounds_over_pairs(tmp_path):
    rng = np.random.default_rng(0)
    is_match = np.arange(400) % 2 == 0
    runs, rates = {}, {}
    names = {LIBERTY: "liberty", NOTREDAME: "notredame", YOSEMITE: "yosemite"}
    for recipe, noise in (("brown_hardnet", 0.8), ("brown_hardnet_csa", 0.4)):
        for train in names:
            tests = [name for name in names.values() if name != names[train]]
            distances = {name: np.where(is_match, 0.0, 2.0) + rng.normal(0, noise, 400) for name in tests}
            rates[recipe, train] = {name: fpr95(distances[name], is_match) for name in tests}
            scores = {"fpr95": rates[recipe, train]}
            for name in tests:
                scores |= {f"distances_{name}": distances[name], f"is_match_{name}": is_match}
            runs[recipe, train, 0] = write_run(tmp_path / f"{recipe}{train}", recipe, train, 0, scores)
    filled = fill(TABLES["table7"], Plan(budget="quick", seeds=1, runs=runs, missing={}))
    mean = filled.cells["HardNet + CSA", filled.table.columns[-1]]
    all_rates = [rate for train in names for rate in rates["brown_hardnet_csa", train].values()]
    assert mean.mean == pytest.approx(100 * np.mean(all_rates))
    assert mean.difference.low < mean.difference.difference < mean.difference.high < 0
    single = filled.cells["HardNet + CSA", filled.table.columns[0]]
    assert single.mean == pytest.approx(100 * rates["brown_hardnet_csa", NOTREDAME]["liberty"])
    assert single.difference.high - single.difference.low > mean.difference.high - mean.difference.low


def test_hpatches_has_differences_without_bounds(tmp_path):
    runs = {}
    for recipe, value in (("brown_hardnet", 0.5), ("brown_hardnet_csa", 0.52)):
        run = write_run(tmp_path / recipe, recipe, LIBERTY, 0, {"fpr95": {"yosemite": 0.1}, "distances_yosemite": np.zeros(2)})
        means = {"verification": value, "matching": value, "retrieval": None}
        write_text(run.folder / HPATCHES_SCORES, json.dumps(means))
        runs[recipe, LIBERTY, 0] = run
    filled = fill(TABLES["table8"], Plan(budget="quick", seeds=1, runs=runs, missing={}))
    verification, _, retrieval = (filled.cells["HardNet + CSA", column] for column in filled.table.columns)
    assert verification.difference.difference == pytest.approx(2)
    assert math.isnan(verification.difference.low)
    assert retrieval.ours == []
    assert "+2.00" in as_text(filled)
    assert "nan" not in as_text(filled) + as_csv(filled) + as_latex(filled)


def test_table_6_is_filled_from_the_benchmarks(tmp_path):
    machine = {"device": "cpu", "processor": "p", "commit": "abc1234"}
    arms = [row.recipe for row in TABLES["table6"].rows]
    memory = [{"model": arm, "megabytes": 100.0 + index, "of PCB": 1 + index / 100} for index, arm in enumerate(arms)]
    rates = [
        {"what": what, "arm": arm, "batch": 8, "seconds": [1.0 + index, 2.0 * (1 + index)]}
        for what in ("inference", "training")
        for index, arm in enumerate(arms)
    ]
    for name, rows in (("memory", memory), ("model", rates)):
        write_text(tmp_path / f"{name}.json", json.dumps({"machine": machine, "rows": rows}))
    filled = speed.fill_speed(tmp_path)
    ours = [filled.cells["PCB + SA", column].mean for column in filled.table.columns]
    assert ours == pytest.approx([101, 8 / 3, 101, 50, 50])
    assert "batch 8, 2 interleaved rounds, commit abc1234" in as_text(filled)
    assert as_text(speed.fill_speed(tmp_path / "none")).count("125.64") == 1
