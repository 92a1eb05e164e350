"""Bundles: a trained model as a folder to publish, with its weights, ONNX model, training settings and model card.

config.json         what the folder is, and a digest of the training data
experiment.json     the training settings
environment.json    where and with which versions it was trained
scores.json         its scores
model.safetensors   its weights
model.onnx          the ONNX model, unless it was left out
model_int8.onnx     the ONNX model with 8-bit integers, if the run has one
README.md           the model card

None of the files contains a path of the machine on which the bundle was written.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, Self, cast

from huggingface_hub import ModelHubMixin, snapshot_download
from jinja2 import Environment, PackageLoader, StrictUndefined
from torch import Tensor

import csametric
from csametric.attention.layers import CompressedSelfAttention, SelfAttention
from csametric.errors import UserError, printable
from csametric.files import copy_atomically, lock_folder, replace_folder, write_text
from csametric.inference.compact import COMPACT
from csametric.inference.images import ImageEmbedder, Images
from csametric.inference.load import Embedder, load
from csametric.inference.onnx import (
    ExportError,
    ExportTarget,
    check_onnx_packages,
    image_target,
    weights_digest,
    write_onnx_model,
)
from csametric.inference.patches import PatchEmbedder
from csametric.models.l2net import PATCH_SIDE, fold_l2net
from csametric.models.pcb import PCB
from csametric.runs.experiment import Experiment, PatchExperiment
from csametric.runs.folder import (
    BUNDLED_WEIGHTS,
    CONFIG,
    ENVIRONMENT,
    EXPERIMENT,
    INT8_MODEL,
    ONNX_MODEL,
    SCORES,
    digest_of_weights,
    read_environment,
    read_scores,
    save_weights,
)
from csametric.runs.kinds import call
from csametric.runs.overrides import from_json, to_json
from csametric.runs.stored_calibration import CALIBRATION, read_calibration, write_calibration

CARD = "README.md"
FILES = (CONFIG, EXPERIMENT, ENVIRONMENT, SCORES, CALIBRATION, COMPACT, BUNDLED_WEIGHTS, CARD, ONNX_MODEL, INT8_MODEL)


class Table(Protocol):
    """A table of scores for the model card, such as `visualization.page.Table`."""

    @property
    def header(self) -> Sequence[str]:
        """The names of the columns."""

    @property
    def rows(self) -> Sequence[Sequence[str]]:
        """The cells, row by row."""

    @property
    def caption(self) -> str:
        """What a reader must know about the scores."""


class Bundle(ModelHubMixin, library_name="csametric", license="apache-2.0", tags=["metric-learning", "self-attention"]):
    """A bundle with the methods of huggingface_hub: `from_pretrained`, `save_pretrained`, `push_to_hub`.

    `Bundle.from_pretrained(FOLDER_OR_NAME)` takes a folder that `write_bundle` wrote, or a repository on the hub with such
    files.

    Raises:
        UserError: the folder is not a bundle, or it is damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not _is_bundle(self.folder):
            raise UserError(f"{folder} is not a bundle; write one with csametric.inference.bundle.write_bundle(run, folder)")
        self.embedder = load(self.folder)
        self._hub_mixin_config = json.loads((self.folder / CONFIG).read_text())

    def embed(self, images: Images) -> Tensor:
        """Embed images or patches, as `ImageEmbedder.embed` or `PatchEmbedder.embed` does, whichever the model is."""
        return cast(ImageEmbedder, self.embedder).embed(images)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> Self:
        """Load a bundle from a folder, or from a repository on the hub.

        Args:
            pretrained_model_name_or_path: the folder, or the name of the repository.
            options: as in `huggingface_hub.ModelHubMixin.from_pretrained`.

        Raises:
            UserError: the folder is not a bundle, or it is damaged.
        """
        if Path(pretrained_model_name_or_path).is_dir():
            return cls(pretrained_model_name_or_path)
        return super().from_pretrained(pretrained_model_name_or_path, **options)

    def _save_pretrained(self, save_directory: Path) -> None:
        """Copy all files; `save_pretrained` has already removed config.json, even if the bundle is saved onto itself."""
        with lock_folder(save_directory, wait=True):
            write_text(save_directory / CONFIG, json.dumps(self._hub_mixin_config, indent=1))
            was_bundle = (save_directory / EXPERIMENT).is_file() and (save_directory / BUNDLED_WEIGHTS).is_file()
            for name in set(FILES) - {CONFIG}:
                source, target = self.folder / name, save_directory / name
                if not source.is_file():
                    if was_bundle:
                        target.unlink(missing_ok=True)
                elif not (target.exists() and target.samefile(source)):
                    copy_atomically(source, target)

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
        **_: Any,
    ) -> "Bundle":
        if Path(model_id).is_dir():
            return cls(model_id)
        folder = snapshot_download(
            model_id,
            revision=revision,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            token=token,
            allow_patterns=list(FILES),
        )
        return cls(folder)


def write_bundle(run: Path, folder: Path, onnx: bool = True) -> None:
    """Write the bundle of a finished run; the folder appears complete or not at all.

    Args:
        run: the folder of the run.
        folder: the folder to write. An existing bundle of the same experiment and data is replaced, provided the folder
            holds nothing else.
        onnx: whether to write model.onnx, checked against the model.

    Raises:
        UserError: the folder holds something else, the run is not finished or is a bundle, or a package for ONNX is missing.
        ExportError: the network cannot be exported to ONNX, or its features differ from the model's.
    """
    folder = folder.expanduser().resolve()
    _check_replaceable(folder)
    if _is_bundle(run):
        raise UserError(f"{run} is already a bundle; copy it, or name the run it was written from")
    if onnx:
        check_onnx_packages()
    model = load(run, device="cpu")
    was_trained_here = (run / ENVIRONMENT).is_file()  # converted weights have no scores
    table = call(model.experiment, "tabulate", run) if was_trained_here else None
    _check_same_model(folder, model.experiment, _data_digest(run, was_trained_here))
    with replace_folder(folder) as new:
        # Check again: another process may have written to the folder before this one locked it.
        _check_replaceable(folder)
        _check_same_model(folder, model.experiment, _data_digest(run, was_trained_here))
        _write_files(folder.name, run, model, new, table, onnx)


def _check_replaceable(folder: Path) -> None:
    """Raise `UserError` unless the folder is missing, empty, or a bundle without extra files, such as .git."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is not a folder; choose another path")
    if folder.is_mount() or folder == Path.cwd():
        raise UserError(f"{folder} is a mount point or the current folder, which cannot be replaced; choose a folder in it")
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not _is_bundle(folder):
        raise UserError(f"{folder} holds files and is not a bundle; choose another folder")
    others = sorted(path.name for path in folder.iterdir() if path.name not in FILES)
    if others:
        raise UserError(f"{folder} holds {', '.join(others[:3])} besides the bundle; move it away, or choose another folder")


def _check_same_model(folder: Path, experiment: Experiment, data_digest: str) -> None:
    """Raise `UserError` if the folder is a bundle from a different experiment or different data."""
    if not _is_bundle(folder):
        return
    config = json.loads((folder / CONFIG).read_text())
    existing = config.get("experiment") or {}
    try:
        is_same_experiment = from_json(json.dumps(existing)) == experiment.without_paths()  # newer settings take their defaults
    except ValueError:
        is_same_experiment = False
    is_same_data = data_digest != "" and config.get("data_digest", "") == data_digest
    if not (is_same_experiment and is_same_data):
        raise UserError(
            f"{folder} is a bundle of other weights or data ({existing.get('recipe')}); remove it, or choose another folder"
        )


def _data_digest(run: Path, was_trained_here: bool) -> str:
    """Return a digest of what a run was trained on; "" for converted weights."""
    if not was_trained_here:
        return ""
    return hashlib.sha256(json.dumps(read_environment(run)["data"], sort_keys=True).encode()).hexdigest()[:16]


def _write_files(name: str, run: Path, model: Embedder, folder: Path, table: Table | None, onnx: bool) -> None:
    was_trained_here = table is not None
    experiment = json.loads(to_json(model.experiment.without_paths()))
    save_weights(folder / BUNDLED_WEIGHTS, model.model)
    write_text(folder / EXPERIMENT, json.dumps(experiment, indent=1))
    config = {
        "library_name": "csametric",
        "num_ids": model.model.classifiers[0].out_features if isinstance(model.model, PCB) else None,
        "data_digest": _data_digest(run, was_trained_here),
        "experiment": experiment,
    }
    write_text(folder / CONFIG, json.dumps(config, indent=1))
    commit, trained_on = "unknown", None
    if was_trained_here:
        environment, scores = read_environment(run), read_scores(run)
        trained_on = call(model.experiment, "describe_data", model.experiment, environment.pop("data"), scores)
        commit = environment.get("commit", commit)
        write_text(folder / ENVIRONMENT, json.dumps(environment, indent=1))
        scores = {name: value for name, value in scores.items() if name != "ranked"}  # the ranked lists contain file names
        write_text(folder / SCORES, json.dumps(scores, indent=1))
    calibration = read_calibration(run)
    if calibration is not None:
        write_calibration(folder, calibration)
    if (run / COMPACT).is_file():
        copy_atomically(run / COMPACT, folder / COMPACT)
    difference = write_onnx(model, folder / ONNX_MODEL, digest_of_weights(folder)) if onnx else None
    if onnx and weights_digest(run / INT8_MODEL) == digest_of_weights(folder):
        copy_atomically(run / INT8_MODEL, folder / INT8_MODEL)
    write_text(folder / CARD, card(name, model, commit, trained_on, table, difference))


def write_onnx(model: Embedder, path: Path, digest: str = "") -> float:
    """Write the model as an ONNX model for batches of any size, and check its output against the model's.

    For images, the input is "images", float32 RGB in [0, 1], (N, 3, H, W), and the output "features", (N, D). For a descriptor,
    the input is "patches", float32 grey, (N, 1, 32, 32), and the output "descriptors", (N, 128).

    Args:
        model: a loaded run or bundle, on the CPU.
        path: where to write it.
        digest: the digest of the model's weights, see `weights_digest`.

    Returns:
        The largest absolute difference between the features of the program and of the model, on three random inputs.

    Raises:
        ExportError: the network cannot be exported, or its features differ from the model's.
    """
    try:
        return write_onnx_model(_onnx_target(model, digest), path)
    except ExportError as error:
        raise ExportError(f"{model.experiment.recipe}: {error}; write the bundle with onnx=False") from error


def _onnx_target(model: Embedder, digest: str) -> ExportTarget:
    if isinstance(model, PatchEmbedder):
        return ExportTarget(
            network=fold_l2net(model.model),
            input_name="patches",
            output_name="descriptors",
            shape=(1, PATCH_SIDE, PATCH_SIDE),
            convention="grey patches in any range of values; normalised inside",
            digest=digest,
        )
    return image_target(model.model, model.experiment.data.height, model.experiment.data.width, digest)


def _is_bundle(folder: Path) -> bool:
    try:
        config = json.loads((folder / CONFIG).read_text())
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("library_name") == "csametric"


def literal(text: object) -> str:
    r"""Return text for Markdown on one line, with every character escaped that Markdown or HTML would interpret.

    Examples:
        >>> print(literal("a_b <c>"))
        a\_b \<c\>
    """
    return re.sub(r"([\\`*_\[\]<>|&~$])", r"\\\1", printable(text))


def code(text: object) -> str:
    """Return text as a code span of Markdown, on one line.

    Examples:
        >>> print(code("pcb_csa"))
        `pcb_csa`
    """
    return f"`{printable(text).replace('`', chr(39))}`"


def card(
    name: str, model: Embedder, commit: str, trained_on: str | None, table: Table | None, onnx_difference: float | None
) -> str:
    """Render the model card: Markdown, with the hub's metadata as YAML in front.

    Args:
        name: the bundle's name.
        model: the bundled model.
        commit: the commit of csametric that trained it, or "unknown".
        trained_on: a description of the training data; None if unknown.
        table: its scores; None if it was not evaluated.
        onnx_difference: the largest difference of the features of model.onnx; None without model.onnx.
    """
    experiment = model.experiment
    layers = [layer for layer in model.model.modules() if isinstance(layer, CompressedSelfAttention | SelfAttention)]
    templates = PackageLoader("csametric.inference")
    page = Environment(
        loader=templates, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    page.filters |= {"literal": literal, "code": code}
    return page.get_template("card.md").render(
        name=name,
        experiment=experiment,
        is_patches=isinstance(experiment, PatchExperiment),
        trained_on=trained_on,
        commit=commit,
        alphas=[f"{layer.alpha.item():+.3f}" for layer in layers],
        parameters=sum(parameter.numel() for parameter in model.model.parameters()),
        dimensions=model.model.dimensions if isinstance(model.model, PCB) else 128,
        support=model.support if isinstance(model, PatchEmbedder) else None,
        table=table,
        onnx_difference=onnx_difference,
        version=csametric.__version__,
    )
