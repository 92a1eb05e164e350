"""Planned runs: experiments of each budget, digests, missing data, collecting, sharing among processes."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from csametric.data.brown import count_brown
from csametric.data.datasets import dataset_root
from csametric.errors import BusyError, DivergedError, FullDiskError
from csametric.files import lock_folder, write_text
from csametric.recipes import find_recipe
from csametric.reproduction import execution
from csametric.reproduction.budgets import experiment_for
from csametric.reproduction.collection import collect
from csametric.reproduction.execution import execute_runs
from csametric.reproduction.paper import CUHK03, DUKE, LIBERTY, MARKET, TABLES
from csametric.reproduction.places import HPATCHES, MissingDataError, find_place
from csametric.reproduction.plan import HPATCHES_SCORES, Run, make_plan, settings_digest, trainings
from csametric.runs.folder import (
    ENVIRONMENT,
    EXPERIMENT,
    SCORES,
    SCORES_BY_QUERY,
    read_environment,
    read_experiment,
    read_scores,
    read_scores_by_query,
)
from csametric.runs.overrides import override
from csametric.training import loop
from tests.data import people
from tests.data.brown_folder import write_subset
from tests.reproduction.paper_data import write_hpatches


@pytest.fixture(autouse=True)
def no_reports(monkeypatch):
    """Skip reports, which take seconds to draw and have tests of their own."""
    monkeypatch.setattr(execution, "report_run", lambda experiment, folder: None)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A data root with CUHK03-NP only."""
    return people.write_cuhk03_folders(tmp_path_factory.mktemp("data") / "CUHK03-NP").parent


@pytest.fixture(scope="module")
def plan(tmp_path_factory, root):
    table = TABLES["table1"].with_rows(["PCB", "PCB + CSA"], False)
    return make_plan([table], root, tmp_path_factory.mktemp("out"), "tiny", seeds=2)


def test_the_full_budget_is_the_recipe_and_the_quick_one_its_lite_twin():
    full = experiment_for("pcb_csa", MARKET, Path("/m"), 3, "full")
    assert full == override(find_recipe("pcb_csa"), ["seed=3", "data.path=/m"])
    for twin in ("pcb", "pcb_sa", "pcb_csa", "pcb_supervised"):
        quick = experiment_for(twin, CUHK03, Path("/c"), 0, "quick")
        assert replace(quick, recipe=f"lite_{twin}") == override(
            find_recipe(f"lite_{twin}"), ["data.kind=cuhk03-detected", "data.path=/c"]
        )


@pytest.mark.parametrize("budget", ["full", "quick", "tiny"])
def test_every_row_has_an_experiment_in_every_budget(budget):
    digests = {}
    for table in TABLES.values():
        for recipe, data in trainings(table):
            digests[recipe, data] = settings_digest(experiment_for(recipe, data, Path("/data"), 0, budget))
    assert len(digests) > 70
    assert len(set(digests.values())) == len(digests), "two rows are the same run"


def test_a_digest_covers_the_settings_that_influence_the_result():
    experiment = experiment_for("pcb", MARKET, Path("/a"), 0, "full")
    same = [replace(experiment, recipe="x"), override(experiment, ["data.path=/b"]), replace(experiment, checkpoint_every=7)]
    assert {settings_digest(variant) for variant in same} == {settings_digest(experiment)}
    assert settings_digest(experiment_for("pcb", MARKET, Path("/a"), 0, "full", Path("r50.pth"))) == settings_digest(experiment)
    different = [
        replace(experiment, seed=1),
        override(experiment, ["optimizer.lr=0.2"]),
        override(experiment, ["data.kind=msmt17"]),
    ]
    assert len({settings_digest(variant) for variant in [experiment, *different]}) == 4


def test_the_error_for_missing_data_says_what_to_get(tmp_path, root):
    assert find_place(root, CUHK03).name == "CUHK03-NP"
    with pytest.raises(MissingDataError, match=r"get Market-1501-v15\.09\.15\.zip"):
        find_place(root, MARKET)
    (tmp_path / "Brown" / "liberty").mkdir(parents=True)
    with pytest.raises(MissingDataError, match="lacks liberty, notredame, yosemite; unpack"):
        find_place(tmp_path, LIBERTY)
    (tmp_path / "hpatches" / "i_ajuntament").mkdir(parents=True)
    with pytest.raises(MissingDataError, match="lacks 115 of the 116 sequences"):
        find_place(tmp_path, HPATCHES)


def test_a_plan_has_each_run_once_and_lists_missing_data(plan):
    assert [run.folder.name.rpartition("-")[0] for run in plan.runs.values()] == [
        "pcb-cuhk03-detected-seed0",
        "pcb-cuhk03-detected-seed1",
        "pcb_csa-cuhk03-detected-seed0",
        "pcb_csa-cuhk03-detected-seed1",
    ]
    assert set(plan.missing) == {MARKET, DUKE}


def test_runs_are_executed_once_and_finished_copies_are_collected(plan, root, tmp_path, monkeypatch):
    first = next(iter(plan.runs.values()))
    reported = []
    monkeypatch.setattr(execution, "report_run", lambda experiment, folder: reported.append(folder))
    assert execute_runs([first], "tiny") == {}
    assert first.is_finished
    assert reported == [first.folder]
    (first.folder / "report.html").write_text("complete")
    monkeypatch.setattr(loop, "train", lambda *_: pytest.fail("trained again"))
    assert execute_runs([first], "tiny") == {}
    assert reported == [first.folder], "the report exists already"

    elsewhere = make_plan([TABLES["table1"].with_rows(["PCB"], False)], root, tmp_path / "other", "tiny", seeds=1)
    (planned_run,) = elsewhere.runs.values()
    (first.folder / SCORES_BY_QUERY).rename(tmp_path / "kept.npz")
    assert collect([first.folder.parents[1]], [planned_run]).runs == [planned_run]
    assert collect([first.folder.parents[1]], [planned_run]).runs == []
    assert not planned_run.is_finished, "its scores per query are missing, as an older version left them"
    assert execute_runs([planned_run], "tiny") == {}
    scores = [read_scores(run.folder)["map_step"] for run in (first, planned_run)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)
    (tmp_path / "kept.npz").rename(first.folder / SCORES_BY_QUERY)


def test_a_run_that_was_trained_on_other_images_is_refused(tmp_path):
    people.write_cuhk03_folders(tmp_path / "CUHK03-NP")
    plan = make_plan([TABLES["table1"].with_rows(["PCB"], False)], tmp_path, tmp_path / "out", "tiny", seeds=1)
    (run,) = plan.runs.values()
    assert execute_runs([run], "tiny") == {}
    next((tmp_path / "CUHK03-NP" / "detected" / "bounding_box_train").iterdir()).unlink()
    execution._digests.cache_clear()
    failed = execute_runs([run], "tiny")
    assert "was trained on images that differ" in failed[run]
    assert list(plan.without_runs(failed).runs) == []
    execution._digests.cache_clear()


def test_only_runs_on_the_same_images_by_one_process_are_collected(plan, root, tmp_path):
    first = next(iter(plan.runs.values()))
    execute_runs([first], "tiny")
    (planned_run,) = make_plan(
        [TABLES["table1"].with_rows(["PCB"], False)], root, tmp_path / "o", "tiny", seeds=1
    ).runs.values()
    for name, changes in (("a", {"processes": 8}), ("b", {"data": {"digest": "other"}}), (".c.part", {}), ("d", {}), ("e", {})):
        shutil.copytree(first.folder, tmp_path / "elsewhere" / name)
        environment = read_environment(first.folder) | changes
        write_text(tmp_path / "elsewhere" / name / ENVIRONMENT, json.dumps(environment))
    (tmp_path / "elsewhere" / "d" / EXPERIMENT).write_text("{")
    with lock_folder(planned_run.folder):
        assert collect([tmp_path / "elsewhere"], [planned_run]).runs == [], "another process is using it"
    collected, skipped = collect([tmp_path / "elsewhere"], [planned_run])
    assert collected == [planned_run]
    assert len(skipped) == 3
    for message, reason in zip(("8 processes", "images that differ", "damaged"), skipped, strict=True):
        assert message in reason


def test_a_run_is_resumed_and_reused_after_its_data_have_moved(tmp_path, monkeypatch):
    people.write_cuhk03_folders(tmp_path / "old" / "CUHK03-NP")
    table = TABLES["table1"].with_rows(["PCB"], False)

    def planned(place: str) -> Run:
        (run,) = make_plan([table], tmp_path / place, tmp_path / "out", "tiny", seeds=1).runs.values()
        return run

    def stop(folder, scores):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(loop, "write_scores", stop)
        with pytest.raises(KeyboardInterrupt):
            execute_runs([planned("old")], "tiny")
    (tmp_path / "old").rename(tmp_path / "new")
    assert execute_runs([planned("new")], "tiny") == {}
    (tmp_path / "new").rename(tmp_path / "newer")
    run = planned("newer")
    assert execute_runs([run], "tiny") == {}
    assert read_experiment(run.folder) == run.experiment
    root = dataset_root(run.experiment.data.kind, run.experiment.data.path)
    assert "newer" in root.parts
    assert all((root / ranked["query"]).is_file() for ranked in read_scores(run.folder)["ranked"])


def test_hpatches_is_scored_again_once_its_task_files_are_present(tmp_path):
    for name in ("liberty", "notredame", "yosemite"):
        write_subset(tmp_path / "brown" / name, points=40, pairs=80)
    write_hpatches(tmp_path / "hpatches-release")
    (tmp_path / "hpatches-release" / "tasks").rename(tmp_path / "tasks")
    table = TABLES["table8"].with_rows(["HardNet"], False)
    (run,) = make_plan([table], tmp_path, tmp_path / "out", "tiny", seeds=1).runs.values()
    assert execute_runs([run], "tiny") == {}
    before = json.loads((run.folder / HPATCHES_SCORES).read_text())
    (tmp_path / "tasks").rename(tmp_path / "hpatches-release" / "tasks")
    assert execute_runs([run], "tiny") == {}
    after = json.loads((run.folder / HPATCHES_SCORES).read_text())
    assert before["retrieval"] is None
    assert 0 < after["retrieval"] < 1
    assert before["matching"] == pytest.approx(after["matching"])


def test_a_table_that_needs_hpatches_has_no_runs_without_it(tmp_path):
    for name in ("liberty", "notredame", "yosemite"):
        write_subset(tmp_path / "brown" / name, points=40, pairs=80)
    plan = make_plan([TABLES["table8"]], tmp_path, tmp_path / "out", "tiny", seeds=1)
    assert (list(plan.runs), list(plan.missing)) == ([], [HPATCHES])
    both = make_plan([TABLES["table7"], TABLES["table8"]], tmp_path, tmp_path / "out", "tiny", seeds=1)
    assert len(both.runs) == 18


def test_a_descriptor_that_was_trained_on_other_subsets_of_brown_is_refused(tmp_path):
    for name in ("liberty", "notredame", "yosemite"):
        write_subset(tmp_path / "brown" / name, points=40, pairs=80)
    table = TABLES["table7"].with_rows(["HardNet"], False)
    run, *_ = make_plan([table], tmp_path, tmp_path / "out", "tiny", seeds=1).runs.values()
    assert execute_runs([run, run], "tiny") == {}
    shutil.rmtree(tmp_path / "brown" / "yosemite")
    write_subset(tmp_path / "brown" / "yosemite", points=40, pairs=90)
    count_brown.cache_clear()
    assert "was trained on images that differ" in execute_runs([run], "tiny")[run]
    count_brown.cache_clear()


def test_a_run_that_another_process_has_locked_is_skipped(plan):
    last = list(plan.runs.values())[-1]
    with lock_folder(last.folder):
        assert execute_runs([last], "tiny") == {}
        assert not last.is_finished
        with pytest.raises(BusyError, match="another process is using"), lock_folder(last.folder):
            pass
    with lock_folder(last.folder):
        pass


def test_a_diverged_run_does_not_stop_the_others(plan, monkeypatch):
    *_, third, fourth = plan.runs.values()
    train = loop.train

    def diverge_first(experiment, folder):
        if folder == third.folder:
            raise DivergedError("training diverged at step 3")
        train(experiment, folder)

    monkeypatch.setattr(loop, "train", diverge_first)
    assert execute_runs([third, fourth], "tiny") == {third: "training diverged at step 3"}
    assert fourth.is_finished


def test_a_run_that_does_not_fit_into_memory_does_not_stop_the_others(plan, monkeypatch):
    *_, third, fourth = plan.runs.values()

    def fill_memory(experiment, folder):
        raise torch.OutOfMemoryError("CUDA out of memory")

    for run in (third, fourth):
        (run.folder / "report.html").unlink(missing_ok=True)
    monkeypatch.setattr(execution, "report_run", fill_memory)
    failed = execute_runs([third, fourth], "tiny")
    assert list(failed) == [third, fourth]
    assert "does not fit into the GPU's memory" in failed[third]


def test_a_run_is_scored_again_when_the_queries_have_changed(tmp_path):
    """The dataset was corrected after the run: the training images are the same, the queries are not."""
    people.write_cuhk03_folders(tmp_path / "CUHK03-NP", noise=100)
    table = TABLES["table1"].with_rows(["PCB"], False)
    (run,) = make_plan([table], tmp_path, tmp_path / "out", "tiny", seeds=1).runs.values()
    assert execute_runs([run], "tiny") == {}
    before = read_scores(run.folder)
    execution._digests.cache_clear()
    queries = sorted((tmp_path / "CUHK03-NP" / "detected" / "query").iterdir())
    for query in queries[8:]:
        query.unlink()
    assert execute_runs([run], "tiny") == {}
    after = read_scores(run.folder)
    assert (before["queries"], after["queries"]) == (16, 8)
    assert len(read_scores_by_query(run.folder)["first_match"]) == 8
    execution._digests.cache_clear()


def test_a_damaged_file_stops_one_run_and_a_full_disk_all(plan, monkeypatch):
    first, *_, last = plan.runs.values()
    execute_runs([first, last], "tiny")
    kept = (first.folder / SCORES).read_bytes()
    (first.folder / SCORES).write_bytes(kept[:20])
    failed = execute_runs([first, last], "tiny")
    assert list(failed) == [first]
    assert "is damaged" in failed[first]
    (first.folder / SCORES).write_bytes(kept)

    def full(experiment, folder):
        raise FullDiskError("the disk is full")

    (last.folder / "report.html").unlink(missing_ok=True)
    monkeypatch.setattr(execution, "report_run", full)
    with pytest.raises(FullDiskError):
        execute_runs([last], "tiny")


def test_collecting_without_copying_leaves_the_folders_alone(plan, root, tmp_path):
    first = next(iter(plan.runs.values()))
    execute_runs([first], "tiny")
    (planned_run,) = make_plan(
        [TABLES["table1"].with_rows(["PCB"], False)], root, tmp_path / "o", "tiny", seeds=1
    ).runs.values()
    assert collect([first.folder], [planned_run], copy=False).runs == [planned_run]
    assert not planned_run.folder.exists()
