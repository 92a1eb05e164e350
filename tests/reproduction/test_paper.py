"""The paper's tables as data: complete, consistent with one another, every row with a recipe."""

import pytest

from csametric.recipes import RECIPES
from csametric.reproduction.paper import MEAN, TABLES


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_every_row_is_complete(table):
    printed = [column for column in table.columns if column.printed]
    for row in table.rows:
        assert row.source == "ours" or len(row.scores) == len(printed), row.label
        assert row.recipe is not None or row.source == "cited"
        assert table.name == "table6" or row.recipe is None or row.recipe in RECIPES
    assert table.baseline in [row.label for row in table.rows] or table.name == "table6"
    assert len({row.label for row in table.rows}) == len(table.rows)


def test_tables_that_share_a_run_print_the_same_figure():
    seen, shared = {}, 0
    for table in TABLES.values():
        for row in table.rows:
            for column in table.columns:
                figure, key = table.paper_score(row, column), (row.recipe, column.data, column.metric)
                if figure is None or row.recipe is None:
                    continue
                shared += key in seen
                assert seen.setdefault(key, figure) == figure, (table.name, row.label, column.label)
    assert shared >= 20


def test_the_printed_means_of_table_7_are_means():
    """Two means of the paper are off by 0.01: those of RALNet + SA and HardNet + SA."""
    table = TABLES["table7"]
    for row in table.rows:
        assert row.scores[-1] == pytest.approx(sum(row.scores[:-1]) / 6, abs=0.015), row.label
    assert table.columns[-1].metric == MEAN


def test_the_ratios_of_table_6_follow_from_its_figures():
    plain, *others = TABLES["table6"].rows
    for row in others:
        assert row.scores[2] == pytest.approx(100 * row.scores[0] / plain.scores[0], abs=0.06)
        assert row.scores[3] == pytest.approx(100 * row.scores[1] / plain.scores[1], abs=0.06)


def test_rows_can_be_selected():
    table = TABLES["table1"]
    assert [row.label for row in table.with_rows(["PCB", "PCB + CSA"], False).rows] == ["PCB", "PCB + CSA"]
    assert all(row.source != "ours" for row in table.with_rows(None, True).rows)
    assert len(table.with_rows(None, False).rows) == len(table.rows)
