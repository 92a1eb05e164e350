"""Every command and every piece of Python in the guides runs, in order, as printed.

Only sizes are changed: training is cut to seconds, the paper's tables get the smallest budget, and pretrained weights, which
would have to be downloaded, are left out.
"""

import re
import shlex
import subprocess
import sys
import urllib.request
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from csametric import PCB
from tests.data import people
from tests.data.brown_folder import write_subset
from tests.matching.scenes import photograph, write_homography_sequence, write_pair
from tests.training import tiny, tiny_reid

GUIDES = Path(__file__).parents[2] / "docs" / "guides"
TINY_BROWN = ["pairs_per_epoch=64", "epochs=1", "batch_size=16", "evaluate_every=2"]


def parts_of(guide: Path) -> list[tuple[str, str]]:
    """The parts of a guide in order: ("python", its text) or ("command", a line)."""
    parts, python = [], None
    for line in guide.read_text().splitlines():
        if line == "```python":
            python = []
        elif line == "```" and python is not None:
            parts.append(("python", "\n".join(python)))
            python = None
        elif python is not None:
            python.append(line)
        elif line.startswith("    ") and not line.startswith("     "):
            parts.append(("command", line.strip()))
    return parts


def small(arguments: list[str]) -> list[str]:
    """The arguments of a command, with sizes for a test."""
    if arguments[0] == "train":
        settings = small_training(arguments)
        return [*arguments, *(argument for setting in settings for argument in ("--set", setting))]
    if arguments[0] == "reproduce":
        kept = [argument for argument in arguments if argument not in ("--budget", "tiny", "quick", "full")]
        return [*kept, "--budget", "tiny"]
    if arguments[0] == "bench":
        return ["bench", "attention", "--rounds", "2", "--batch", "1", "--only-csa"]
    return arguments


def small_training(arguments: list[str]) -> list[str]:
    """The settings that cut a training to seconds."""
    if "pcb" in arguments[1]:
        return tiny_reid.SETTINGS
    if any(argument.startswith("brown:") for argument in arguments):
        return TINY_BROWN
    return tiny.SETTINGS


def serve(arguments: list[str], folder: Path) -> None:
    """Start the server, fetch its page and stop it."""
    command = [sys.executable, "-u", "-m", "csametric", *arguments, "--port", "0"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            line = server.stdout.readline()
            address = re.search(r"http://[\d.:]+/", line)
            assert address, line
            with urllib.request.urlopen(address[0], timeout=30) as answer:
                assert "mountExplorer" in answer.read().decode()
        finally:
            server.terminate()


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder with what the guides name: data, people, others, photos, desk1.png, desk2.png, sequences."""
    people.write_market(tmp_path / "data" / "Market-1501-v15.09.15")
    for seed, name in enumerate(("liberty", "notredame", "yosemite")):
        write_subset(tmp_path / "data" / "brown" / name, points=40, pairs=80, seed=seed)
    names = ["anna", *(f"person{number}" for number in range(15))]
    for identity, name in enumerate([*(f"people/{name}" for name in names), *(f"others/{name}" for name in names)]):
        (tmp_path / name).mkdir(parents=True)
        for camera in (1, 2):
            for number in range(4):
                people.person(identity, camera, number).save(tmp_path / name / f"cam{camera}_{number}.png")
    (tmp_path / "photos").mkdir()
    for seed in range(5):
        cv2.imwrite(str(tmp_path / "photos" / f"photo{seed}.png"), photograph(seed=seed))
    write_pair(tmp_path)
    (tmp_path / "a.png").rename(tmp_path / "desk1.png")
    (tmp_path / "b.png").rename(tmp_path / "desk2.png")
    write_homography_sequence(tmp_path / "sequences" / "v_scene")
    monkeypatch.setenv("CSAMETRIC_CACHE", str(tmp_path / "cache"))
    return tmp_path


def write_torchreid_weights(path: Path) -> None:
    """Write the weights of a PCB under torchreid's names."""
    model = PCB("resnet50", num_ids=751, attention=None, deep_supervision=False, shared_embedding=True)
    names = {"backbone.network.": "", "embeddings.0.": "conv5.layers.", "classifiers.": "classifier."}
    state = {}
    for name, value in model.state_dict().items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        state[name] = value
    torch.save(state, path)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("guide", sorted(GUIDES.glob("*.md")), ids=lambda guide: guide.stem)
def test_everything_in_a_guide_runs(guide, folder, called_here, monkeypatch):
    if "pcb_p6.pth" in guide.read_text():
        write_torchreid_weights(folder / "pcb_p6.pth")
    monkeypatch.chdir(folder)
    names = {"patches": np.random.default_rng(0).integers(0, 256, (5, 32, 32), np.uint8)}
    assert len(parts_of(guide)) >= 7
    for kind, text in parts_of(guide):
        if kind == "python":
            exec(compile(text.replace("pretrained=True", "pretrained=False"), guide.name, "exec"), names)
            continue
        program, *arguments = shlex.split(text, comments=True)
        if (program, arguments) == (".", [".venv/bin/activate"]):
            continue
        assert program == "csametric", text
        if arguments[0] == "serve":
            serve(arguments, folder)
            continue
        done = called_here(*small(arguments), cwd=folder)
        assert done.returncode == 0, f"{text}\n{done.stdout[-2000:]}\n{done.stderr}"


def test_links_in_the_readme_and_the_guides_lead_to_files():
    root = GUIDES.parents[1]
    for page in (root / "README.md", root / "CONTRIBUTING.md", *root.glob("docs/**/*.md")):
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if not link.startswith("http"):
                assert (page.parent / link).exists(), f"{page.name} links to {link}"
