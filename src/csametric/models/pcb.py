"""PCB and PCB-RPP (Sun et al. 2018), with attention and deep supervision after stages of their backbone.

Legend: N images, C channels of the last map, P parts, E dimensions of an embedding, F = C or E dimensions of a part's feature.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils import _pytree as pytree

from csametric.attention.catalogue import attention_maker, refuse_ignored
from csametric.attention.layers import MakeLayer
from csametric.errors import UserError
from csametric.models.backbone import Backbone
from csametric.models.supervision import SupervisionBranch


class PCBOutput(NamedTuple):
    """The output of `PCB.forward`."""

    logits: list[Tensor]  # of each part, P x (N, ids)
    auxiliary: Sequence[Tensor]  # logits of each supervised stage, (N, ids); () in evaluation mode
    features: Tensor  # the parts one after the other, each of unit length; (N, P * C) pooled or (N, P * E) embedded


pytree._register_namedtuple(PCBOutput, serialized_type_name="csametric.models.pcb.PCBOutput")  # so torch.export.save works


class PCB(nn.Module):
    """The part-based convolutional baseline: (N, 3, H, W) -> `PCBOutput`.

    The last map is divided into horizontal stripes or, if refined, into soft parts; each part is averaged, embedded and
    classified. Images must be normalised as `backbone.normalization` says.

    Args:
        backbone: a timm model, see `Backbone`.
        num_ids: identities to classify.
        parts: P.
        refined: whether to use refined part pooling instead of stripes.
        attention: the layer after the stages: None, "sa", "csa", another name of `attention.catalogue.NAMES`, or a function
            from channels to a module.
        stages: where attention and supervision go, out of 1, 2, 3.
        maps: D of "csa".
        groups: G of "csa".
        deep_supervision: whether to classify the map of each of the stages in training; also works without attention.
        pretrained: the weights of the backbone, see `Backbone`.
        alpha: initial weight of the attended features; 0 leaves the output of pretrained weights unchanged.
        learn_alpha: whether alpha is learned.
        attention_norm: whether the attention normalises its input, see `attention.layers.CompressedSelfAttention`.
        shared_embedding: whether one 1x1 convolution embeds all parts, as in PCB's public code, instead of one per part.
        embedding: E.
        feature: "pooled" for the averaged parts (the paper's g), "embedded" for the output of the 1x1 convolution (its h).
        dropout: the dropout probability in front of the embeddings and of the part classifier.
        plain_refinement: whether the part classifier is plain, see `PartClassifier`.

    Attributes:
        dimensions: of a feature vector.
        refining: whether soft parts are in use; a refined model may start with stripes.

    Raises:
        UserError: an unknown attention or feature; or as `Backbone`.

    Examples:
        >>> model = PCB("resnet18", num_ids=10, parts=2).eval()
        >>> model(torch.zeros(1, 3, 64, 32)).features.shape
        torch.Size([1, 1024])
    """

    def __init__(
        self,
        backbone: str = "resnet50",
        num_ids: int = 751,
        parts: int = 6,
        refined: bool = False,
        attention: str | MakeLayer | None = "csa",
        stages: Sequence[int] = (1, 2, 3),
        maps: int = 32,
        groups: int = 2,
        deep_supervision: bool = True,
        pretrained: str | None = None,
        *,
        alpha: float = 0.0,
        learn_alpha: bool = True,
        attention_norm: bool = False,
        shared_embedding: bool = False,
        embedding: int = 256,
        feature: Literal["pooled", "embedded"] = "pooled",
        dropout: float = 0.5,
        plain_refinement: bool = False,
    ) -> None:
        super().__init__()
        if feature not in ("pooled", "embedded"):
            raise UserError(f"unknown feature {feature!r}; use 'pooled' or 'embedded'")
        settings = {"maps": maps, "groups": groups, "alpha": alpha, "learn_alpha": learn_alpha, "norm": attention_norm}
        refuse_ignored(attention, **settings)
        make_layer = attention_maker(attention, **settings)
        layers = {} if make_layer is None else dict.fromkeys(stages, make_layer)
        self.backbone = Backbone(backbone, pretrained, layers, returned_stages=stages if deep_supervision else ())
        self.parts, self.feature = parts, feature
        self.dimensions = parts * (self.backbone.channels if feature == "pooled" else embedding)
        self.refinement = PartClassifier(self.backbone.channels, parts, plain_refinement, dropout) if refined else None
        self.refining = refined
        self.dropout = nn.Dropout(dropout)
        embeddings = 1 if shared_embedding else parts
        self.embeddings = nn.ModuleList(_embedding(self.backbone.channels, embedding) for _ in range(embeddings))
        self.classifiers = nn.ModuleList(_classifier(embedding, num_ids) for _ in range(parts))
        supervised = sorted(stages) if deep_supervision else []
        self.supervision = nn.ModuleList(
            SupervisionBranch(self.backbone.stages[number].channels, num_ids) for number in supervised
        )

    def forward(self, images_N3HW: Tensor) -> PCBOutput:
        """Classify and embed images.

        Args:
            images_N3HW: normalised images, (N, 3, H, W), H a multiple of 16 x parts.

        Raises:
            UserError: a height that cannot be divided into the parts.
        """
        x_NCHW, stage_maps = self.backbone(images_N3HW)
        pooled_NCP = self._pool(x_NCHW)
        embedded_NEP = self._embed(self.dropout(pooled_NCP))
        logits = [classify(embedded_NEP[..., part]) for part, classify in enumerate(self.classifiers)]
        auxiliary: Sequence[Tensor] = ()
        if self.training:
            auxiliary = [branch(x) for branch, x in zip(self.supervision, stage_maps, strict=True)]
        features_NFP = pooled_NCP if self.feature == "pooled" else embedded_NEP
        return PCBOutput(logits, auxiliary, functional.normalize(features_NFP.float(), dim=1).transpose(1, 2).flatten(1))

    def _pool(self, x_NCHW: Tensor) -> Tensor:
        if self.refinement is not None and self.refining:
            return refined_part_pooling(x_NCHW, self.refinement(x_NCHW))
        return stripe_pooling(x_NCHW, self.parts)

    def _embed(self, pooled_NCP: Tensor) -> Tensor:
        if len(self.embeddings) == 1:
            return self.embeddings[0](pooled_NCP.unsqueeze(3)).squeeze(3)
        parts = pooled_NCP[..., None, None].unbind(2)
        return torch.stack([embed(part).flatten(1) for embed, part in zip(self.embeddings, parts, strict=True)], 2)


class PartClassifier(nn.Module):
    """Assign each position softly to the parts: (N, C, H, W) -> (N, P, H, W), sums to 1 over the parts (RPP, Sun et al. 2018).

    As in the public code: dropout, channels averaged in groups of eight, their spatial mean subtracted, a 1x1 convolution,
    softmax. A plain one consists of the convolution and the softmax only, on all channels.

    Args:
        channels: C.
        parts: P.
        plain: whether to leave out everything but the convolution and the softmax.
        dropout: the dropout probability; unused if plain.

    Raises:
        UserError: channels are not a multiple of 8, unless plain.
    """

    def __init__(self, channels: int, parts: int, plain: bool = False, dropout: float = 0.5) -> None:
        super().__init__()
        if channels % 8 and not plain:
            raise UserError(
                f"refined part pooling needs a multiple of 8 channels, got {channels}; use another backbone or the plain one"
            )
        self.plain = plain
        self.dropout = nn.Dropout(0.0 if plain else dropout)
        self.assign = nn.Conv2d(channels if plain else channels // 8, parts, 1, bias=False)
        nn.init.normal_(self.assign.weight, std=0.001)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Compute the shares of the parts at each position, (N, C, H, W) -> (N, P, H, W)."""
        if not self.plain:
            x_NCHW = self._reduce(self.dropout(x_NCHW))
        return self.assign(x_NCHW).softmax(1)

    @staticmethod
    def _reduce(x_NCHW: Tensor) -> Tensor:
        averaged = x_NCHW.unflatten(1, (-1, 8)).mean(2)
        return averaged - averaged.mean((2, 3), keepdim=True)


def stripe_pooling(x_NCHW: Tensor, parts: int) -> Tensor:
    """Average each of P horizontal stripes of equal height.

    Args:
        x_NCHW: (N, C, H, W).
        parts: P.

    Returns:
        (N, C, P).

    Raises:
        UserError: H is not a multiple of P.

    Examples:
        >>> stripe_pooling(torch.tensor([[[[1.0], [3.0], [5.0], [9.0]]]]), parts=2)
        tensor([[[2., 7.]]])
    """
    if x_NCHW.shape[2] % parts:
        raise UserError(
            f"a map of {x_NCHW.shape[2]} rows cannot be divided into {parts} equal stripes; "
            f"make the image height a multiple of {16 * parts} (16 x {parts} parts)"
        )
    return x_NCHW.unflatten(2, (parts, -1)).mean((3, 4))


def refined_part_pooling(x_NCHW: Tensor, assignment_NPHW: Tensor) -> Tensor:
    """Average each part: the mean over all positions, weighted by P times the assignment.

    Equal shares of all parts thus give the plain mean.

    Args:
        x_NCHW: (N, C, H, W).
        assignment_NPHW: the share of each part at each position, (N, P, H, W).

    Returns:
        (N, C, P).

    Examples:
        >>> refined_part_pooling(torch.tensor([[[[1.0, 3.0]]]]), torch.full((1, 2, 1, 2), 0.5))
        tensor([[[2., 2.]]])
    """
    parts, positions = assignment_NPHW.shape[1], x_NCHW.shape[2] * x_NCHW.shape[3]
    return torch.einsum("nchw,nphw->ncp", x_NCHW, assignment_NPHW) * (parts / positions)


def _embedding(channels: int, dimensions: int) -> nn.Sequential:
    convolution = nn.Conv2d(channels, dimensions, 1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out")
    return nn.Sequential(convolution, nn.BatchNorm2d(dimensions), nn.ReLU())


def _classifier(dimensions: int, num_ids: int) -> nn.Linear:
    classifier = nn.Linear(dimensions, num_ids)
    nn.init.normal_(classifier.weight, std=0.001)
    nn.init.zeros_(classifier.bias)
    return classifier
