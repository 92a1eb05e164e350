"""A trained model to hand on: a folder with its weights, an ONNX program, its experiment, and a card with measured figures.

config.json      experiment.json   environment.json   scores.json   nothing in them names a path of the machine
model.safetensors                  README.md, the card               model.onnx, where it was asked for
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from huggingface_hub import ModelHubMixin, snapshot_download
from jinja2 import Environment, PackageLoader, StrictUndefined
from torch import Tensor, nn

import csametric
from csametric.attention.layers import CompressedSelfAttention, SelfAttention
from csametric.errors import UserError
from csametric.files import copy_atomically, lock_folder, printable, replace_folder, write_atomically, write_text
from csametric.inference.images import ImageEmbedder, Images
from csametric.inference.load import load
from csametric.inference.patches import PatchEmbedder
from csametric.models.l2net import PATCH_SIDE, for_inference
from csametric.models.pcb import PCB
from csametric.runs.experiment import Experiment, PatchExperiment
from csametric.runs.folder import (
    BUNDLED_WEIGHTS,
    CONFIG,
    ENVIRONMENT,
    EXPERIMENT,
    SCORES,
    read_environment,
    read_scores,
    save_weights,
)
from csametric.runs.kinds import call
from csametric.runs.overrides import to_json

CARD, ONNX = "README.md", "model.onnx"
FILES = (CONFIG, EXPERIMENT, ENVIRONMENT, SCORES, BUNDLED_WEIGHTS, CARD, ONNX)
LARGEST_ERROR = 1e-4
Embedder = PatchEmbedder | ImageEmbedder


class Table(Protocol):
    """A table of scores for the card; `visualization.page.Table` is one."""

    @property
    def header(self) -> Sequence[str]:
        """The names of the columns."""

    @property
    def rows(self) -> Sequence[Sequence[str]]:
        """The cells, row by row."""

    @property
    def caption(self) -> str:
        """What a reader has to know about the figures."""


class ExportError(RuntimeError):
    """The network cannot be said in ONNX, or says something else there."""


class Bundle(ModelHubMixin, library_name="csametric", license="apache-2.0", tags=["metric-learning", "self-attention"]):
    """A bundle by the conventions of huggingface_hub: `from_pretrained`, `save_pretrained`, `push_to_hub`.

    `Bundle.from_pretrained(FOLDER_OR_NAME)` takes a folder that `write_bundle` made, or a repository of the hub that holds one.

    Raises:
        UserError: the folder is no bundle, or it is damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not _is_bundle(self.folder):
            raise UserError(f"{folder} is no bundle; make one with csametric export RUN --bundle FOLDER")
        self.embedder = load(self.folder)
        self._hub_mixin_config = json.loads((self.folder / CONFIG).read_text())

    def embed(self, images: Images) -> Tensor:
        """As `inference.ImageEmbedder.embed` or `inference.PatchEmbedder.embed`, whichever the model is."""
        return cast(ImageEmbedder, self.embedder).embed(images)

    def _save_pretrained(self, save_directory: Path) -> None:
        """All files; `save_pretrained` has removed config.json before, also where the bundle is saved onto itself."""
        with lock_folder(save_directory, wait=True):
            write_text(save_directory / CONFIG, json.dumps(self._hub_mixin_config, indent=1))
            is_ours = (save_directory / EXPERIMENT).is_file() and (save_directory / BUNDLED_WEIGHTS).is_file()
            for name in set(FILES) - {CONFIG}:
                source, target = self.folder / name, save_directory / name
                if not source.is_file():
                    if is_ours:
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
    """Make the bundle of a finished run, aside and then under its name.

    Args:
        folder: is made, or replaced where it is a bundle of the same experiment and nothing else.
        onnx: whether to write model.onnx, checked against the model.

    Raises:
        UserError: the folder holds something else, the run is not finished or is a bundle, or a package for ONNX is missing.
        ExportError: the network cannot be exported, or the ONNX program does not give what it gives.
    """
    folder = folder.expanduser().resolve()
    _check_free(folder)  # before the work; once more when no other process can write there
    if _is_bundle(run):
        raise UserError(f"{run} is a bundle already; copy it, or name the run it was made from")
    if onnx:
        _need_onnx()
    model = load(run, device="cpu")
    was_trained_here = (run / ENVIRONMENT).is_file()  # converted weights have no scores
    figures = call(model.experiment, "tabulate", run) if was_trained_here else None
    _check_same_model(folder, model.experiment, _data_digest(run, figures))
    with replace_folder(folder) as new:
        _check_free(folder)
        _check_same_model(folder, model.experiment, _data_digest(run, figures))
        _write(folder.name, run, model, new, figures, onnx)


def _check_free(folder: Path) -> None:
    """Nothing but a bundle is ever replaced: no other files, a clone's .git neither."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is no folder; name another")
    if folder.is_mount() or folder == Path.cwd():
        raise UserError(f"{folder} cannot be put in place as a whole; name a folder in it")
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not _is_bundle(folder):
        raise UserError(f"{folder} holds files and is no bundle; name another folder")
    others = sorted(path.name for path in folder.iterdir() if path.name not in FILES)
    if others:
        raise UserError(f"{folder} holds {', '.join(others[:3])} beside the bundle; move that away, or name another folder")


def _check_same_model(folder: Path, experiment: Experiment, data_digest: str) -> None:
    """A bundle is replaced by one of the same experiment on the same data alone."""
    if not _is_bundle(folder):
        return
    config = json.loads((folder / CONFIG).read_text())
    present, digest = config.get("experiment", {}), config.get("data_digest", "")
    if present != json.loads(to_json(experiment.without_paths())) or not digest == data_digest != "":
        raise UserError(
            f"{folder} is a bundle of other weights or data ({present.get('recipe')}); remove it, or name another folder"
        )


def _data_digest(run: Path, figures: Table | None) -> str:
    """Of what a run was trained on; "" for converted weights."""
    if figures is None:
        return ""
    return hashlib.sha256(json.dumps(read_environment(run)["data"], sort_keys=True).encode()).hexdigest()[:16]


def _write(name: str, run: Path, model: Embedder, folder: Path, figures: Table | None, onnx: bool) -> None:
    experiment = json.loads(to_json(model.experiment.without_paths()))
    ids = model.model.classifiers[0].out_features if isinstance(model.model, PCB) else None
    save_weights(folder / BUNDLED_WEIGHTS, model.model)
    write_text(folder / EXPERIMENT, json.dumps(experiment, indent=1))
    config = {"library_name": "csametric", "num_ids": ids, "data_digest": _data_digest(run, figures), "experiment": experiment}
    write_text(folder / CONFIG, json.dumps(config, indent=1))
    commit, trained_on = "unknown", None
    if figures is not None:
        environment, scores = read_environment(run), read_scores(run)
        trained_on = call(model.experiment, "describe_data", model.experiment, environment.pop("data"), scores)
        commit = environment.get("commit", commit)
        write_text(folder / ENVIRONMENT, json.dumps(environment, indent=1))
        told = {name: value for name, value in scores.items() if name != "ranked"}
        write_text(folder / SCORES, json.dumps(told, indent=1))
    error = write_onnx(model, folder / ONNX) if onnx else None
    write_text(folder / CARD, card(name, model, commit, trained_on, figures, error))


def _is_bundle(folder: Path) -> bool:
    try:
        config = json.loads((folder / CONFIG).read_text())
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("library_name") == "csametric"


def write_onnx(model: Embedder, path: Path) -> float:
    """Write the model as an ONNX program with a free batch, and how far its features are from the model's at most.

    For people: "images", float32 RGB in [0, 1], (N, 3, H, W) -> "features" (N, D). For patches: "patches", float32 grey,
    (N, 1, 32, 32) -> "descriptors" (N, 128).

    Raises:
        ExportError: the network cannot be exported, or the program gives other features.
    """
    exported = _Exported.of(model)
    example = torch.rand(2, *exported.shape, generator=torch.Generator().manual_seed(0))
    try:
        program = torch.onnx.export(
            exported.network,
            (example,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=[exported.input_name],
            output_names=[exported.output_name],
            verbose=False,
        )
    except Exception as error:
        raise ExportError(f"{model.experiment.recipe} cannot be exported ({type(error).__name__}); give --no-onnx") from error
    assert program is not None
    proto = program.model_proto
    for node in proto.graph.node:
        del node.metadata_props[:]  # among them the lines of source files
    write_atomically(path, lambda out: out.write(proto.SerializeToString()))
    difference = _largest_error(exported, path, torch.cat([example, example.flip(3)])[:3])
    if not difference <= LARGEST_ERROR:  # NaN is refused too
        raise ExportError(f"the ONNX program is {difference:.1e} from the model, more than {LARGEST_ERROR}; give --no-onnx")
    return difference


@dataclass(frozen=True, kw_only=True)
class _Exported:
    """A network from an array that needs no preparation to features, and the shape of one input."""

    network: nn.Module
    input_name: str
    output_name: str
    shape: tuple[int, int, int]

    @classmethod
    def of(cls, model: Embedder) -> "_Exported":
        if isinstance(model, PatchEmbedder):
            shape = (1, PATCH_SIDE, PATCH_SIDE)
            return cls(network=for_inference(model.model), input_name="patches", output_name="descriptors", shape=shape)
        size = (3, model.experiment.data.height, model.experiment.data.width)
        network = _FromUnitRange(model.model).eval()
        return cls(network=network, input_name="images", output_name="features", shape=size)


class _FromUnitRange(nn.Module):
    """(N, 3, H, W) in [0, 1] -> features, the normalisation of the backbone included."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, model: PCB) -> None:
        super().__init__()
        self.model = model
        for name, values in zip(("mean", "deviation"), model.backbone.normalization, strict=True):
            self.register_buffer(name, torch.tensor(values)[:, None, None])

    def forward(self, images_N3HW: Tensor) -> Tensor:
        """-> (N, D)."""
        return self.model((images_N3HW - self.mean) / self.deviation).features


@torch.inference_mode()
def _largest_error(exported: _Exported, program: Path, inputs: Tensor) -> float:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(program), providers=["CPUExecutionProvider"])
    (found,) = session.run([exported.output_name], {exported.input_name: inputs.numpy()})
    return float(np.abs(found - exported.network(inputs).numpy()).max())


def _need_onnx() -> None:
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise UserError(f"model.onnx needs {', '.join(missing)}; pip install 'csametric[onnx]', or give --no-onnx")


def literal(text: object) -> str:
    """Text for Markdown, on one line, with the characters escaped that Markdown or HTML would read as marks."""
    return re.sub(r"([\\`*_\[\]<>|&~$])", r"\\\1", printable(text))


def code(text: object) -> str:
    """Text as a code span of Markdown, on one line."""
    return f"`{printable(text).replace('`', chr(39))}`"


def card(
    name: str, model: Embedder, commit: str, trained_on: str | None, figures: Table | None, onnx_error: float | None
) -> str:
    """The model card, Markdown with the hub's metadata in front.

    Args:
        name: of the bundle. trained_on: in words. onnx_error: of model.onnx. None where that is not known or there is none.
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
        figures=figures,
        onnx_error=onnx_error,
        version=csametric.__version__,
    )
