"""A run stays below runs/, whatever its name."""

import pytest

from csametric.cli.runs import RUNS, _run_folder
from csametric.errors import UserError


@pytest.mark.parametrize("name", ["mine", "a/b", "..hidden", "gr\u00fcn", "n" * 200])
def test_names_are_folders_below_runs(name):
    assert _run_folder(name) == RUNS / name


@pytest.mark.parametrize("name", ["", ".", "..", "../outside", "a/../../b", "/tmp/x", "a\0b", "n" * 300, "./"])
def test_names_that_lead_elsewhere_are_refused(name):
    with pytest.raises(UserError, match="--name must be a name of at most 200 characters for a folder in runs/, got"):
        _run_folder(name)
