"""Short runs of both kinds of model, and their bundles."""

import pytest

from csametric.inference.bundle import write_bundle
from csametric.training import loop
from tests.data import people
from tests.training import tiny, tiny_reid


@pytest.fixture(scope="package")
def people_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("people")
    market = people.write_market(folder / "market")
    loop.train(tiny_reid.experiment("market1501", market, "epochs=2"), folder / "run")
    return folder / "run"


@pytest.fixture(scope="package")
def patch_run(tmp_path_factory, photo_folder, cache):
    run = tmp_path_factory.mktemp("patches") / "run"
    loop.train(tiny.experiment(photo_folder, "steps=3"), run, cache)
    return run


@pytest.fixture(scope="package", params=["people_run", "patch_run"])
def bundled(request, tmp_path_factory):
    """A run and its bundle."""
    run = request.getfixturevalue(request.param)
    folder = tmp_path_factory.mktemp("bundles") / "bundle"
    write_bundle(run, folder)
    return run, folder
