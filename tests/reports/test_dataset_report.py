"""The inspection of a dataset is readable in a terminal of 80 columns."""

from csametric.cli.tables import print_table
from csametric.data.inspection import Inspection, inspect
from csametric.data.market1501 import read_market1501
from csametric.reports.dataset_report import inspection_table
from tests.data import people


def test_no_cell_is_wrapped_at_80_columns(tmp_path, capsys, monkeypatch):
    """As wide as MSMT17 with 15 cameras and six-digit counts."""
    monkeypatch.setenv("COLUMNS", "80")
    report = inspect(read_market1501(people.write_market(tmp_path))).splits["gallery"]
    wide = {**vars(report), "cameras": dict.fromkeys(range(1, 16), 123_456), "images": 1_234_567, "per_identity": (1, 99, 1000)}
    splits = {name: type(report)(**wide) for name in ("train", "query", "gallery")}
    table = inspection_table(Inspection(splits=splits, unreadable={}, duplicates=[], unmatched=[]))
    print_table("MSMT17", table.header, table.rows)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) == len(table.rows) + 5  # title, header and three rules
    assert any("images of camera 15" in line and line.count("123,456") == 3 for line in lines)


def test_counts_are_those_of_the_splits(tmp_path):
    dataset = read_market1501(people.write_market(tmp_path))
    rows = {name: values for name, *values in inspection_table(inspect(dataset)).rows}
    assert rows["junk images"] == ["0", "0", "1"]
    assert rows["distractor images"] == ["0", "0", "1"]
    cameras = [sum(record.camera == 1 for record in split) for split in dataset.splits.values()]
    assert rows["images of camera 1"] == [str(number) for number in cameras]
