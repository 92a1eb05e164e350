"""Reading the files of a run folder."""

import pytest

from csametric.errors import UserError
from csametric.runs.folder import read_environment, read_experiment, read_metrics, read_scores


@pytest.mark.parametrize(
    "text", ["[]", "{}", "", "3", "[" * 100_000, "\x00"], ids=["list", "empty", "blank", "number", "deep", "nul"]
)
@pytest.mark.parametrize(("name", "read"), [("scores.json", read_scores), ("environment.json", read_environment)])
def test_a_file_that_is_not_an_object_is_damaged(tmp_path, name, read, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=rf"{name} is damaged"):
        read(tmp_path)


@pytest.mark.parametrize("text", ["[]\n", "{}\n", "{\n", "3\n"])
def test_metrics_without_steps_are_damaged(tmp_path, text):
    (tmp_path / "metrics.jsonl").write_text(text)
    with pytest.raises(UserError, match=r"metrics\.jsonl is damaged"):
        read_metrics(tmp_path)


def test_metrics_that_are_not_text_are_damaged(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(b"\xff\xfe\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl is damaged"):
        read_metrics(tmp_path)


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[" * 100_000])
def test_an_experiment_that_is_not_json_is_damaged(tmp_path, content):
    (tmp_path / "experiment.json").write_bytes(content)
    with pytest.raises(UserError, match=r"experiment\.json is damaged .*; remove .* and train again"):
        read_experiment(tmp_path)
