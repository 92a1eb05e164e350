"""PCB and PCB-RPP (Sun et al. 2018), with attention after the stages of their backbone and deep supervision there.

Legend: N images, C channels of the last map, P parts, E dimensions of an embedding.
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
    """What a forward gives.

    logits: of each part, P x (N, ids). auxiliary: of each supervised stage, (N, ids); () in evaluation.
    features: of unit length part by part, one part after the other, (N, P * C) pooled or (N, P * E) embedded.
    """

    logits: list[Tensor]
    auxiliary: Sequence[Tensor]
    features: Tensor


pytree._register_namedtuple(PCBOutput, serialized_type_name="csametric.models.pcb.PCBOutput")  # so torch.export.save works


class PCB(nn.Module):
    """The part-based convolutional baseline: (N, 3, H, W) -> `PCBOutput`; images normalised as `backbone.normalization` says.

    The last map is cut into horizontal stripes, or (refined) into soft parts; each is averaged, embedded and classified.

    Args:
        backbone: a timm network, see `Backbone`.
        num_ids: identities to classify.
        parts: P.
        refined: refined part pooling instead of stripes.
        attention: after the stages: None, "sa", "csa", a name of `attention.catalogue.NAMES`, or a function from channels to a
            module.
        stages: where attention and supervision go, of 1, 2, 3.
        maps, groups: D and G of "csa".
        deep_supervision: a classifier at each of the stages, in training; without attention too.
        pretrained: the backbone's weights, see `Backbone`.
        alpha: of the attention at the start; 0 leaves pretrained weights as they were. learn_alpha: whether it is learned.
        attention_norm: the attention sees its input normalised, see `attention.layers.CompressedSelfAttention`.
        shared_embedding: one 1x1 convolution for all parts, as in PCB's public code, instead of one for each.
        embedding: E.
        feature: "pooled", the parts as they are averaged (G of the paper), or "embedded", after the 1x1 convolution (H).
        dropout: in front of the embeddings and of the part classifier.
        plain_refinement: see `PartClassifier`.

    Attributes:
        dimensions: of a feature. refining: whether the soft parts are in use; a refined model may begin with stripes.

    Raises:
        UserError: an unknown attention or feature, or what `Backbone` refuses.
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
            raise UserError(f"feature={feature!r} is unknown; use 'pooled' or 'embedded'")
        settings = {"maps": maps, "groups": groups, "alpha": alpha, "learn_alpha": learn_alpha, "norm": attention_norm}
        refuse_ignored(attention, **settings)
        make_layer = attention_maker(attention, **settings)
        layers = {} if make_layer is None else dict.fromkeys(stages, make_layer)
        self.backbone = Backbone(backbone, pretrained, layers, taken=stages if deep_supervision else ())
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
        """(N, 3, H, W), H a multiple of 16 x parts -> `PCBOutput`."""
        x_NCHW, stage_maps = self.backbone(images_N3HW)
        pooled_NCP = self._pool(x_NCHW)
        embedded_NEP = self._embed(self.dropout(pooled_NCP))
        logits = [classify(embedded_NEP[..., part]) for part, classify in enumerate(self.classifiers)]
        auxiliary = [branch(x) for branch, x in zip(self.supervision, stage_maps, strict=True)] if self.training else ()
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
    """Which part each position belongs to, (N, C, H, W) -> (N, P, H, W), sums to 1 over the parts (RPP, Sun et al. 2018).

    As in the public code: dropout, channels averaged in groups of eight, their spatial mean taken off, a 1x1 convolution,
    softmax; plain: the convolution and the softmax alone, on all channels.

    Raises:
        UserError: channels that are no multiple of 8, unless plain.
    """

    def __init__(self, channels: int, parts: int, plain: bool = False, dropout: float = 0.5) -> None:
        super().__init__()
        if channels % 8 and not plain:
            raise UserError(
                f"refined part pooling averages channels in groups of 8, the backbone has {channels}; use the plain one"
            )
        self.plain = plain
        self.dropout = nn.Dropout(0.0 if plain else dropout)
        self.assign = nn.Conv2d(channels if plain else channels // 8, parts, 1, bias=False)
        nn.init.normal_(self.assign.weight, std=0.001)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, P, H, W)."""
        return self.assign(x_NCHW if self.plain else self._reduce(self.dropout(x_NCHW))).softmax(1)

    @staticmethod
    def _reduce(x_NCHW: Tensor) -> Tensor:
        averaged = x_NCHW.unflatten(1, (-1, 8)).mean(2)
        return averaged - averaged.mean((2, 3), keepdim=True)


def stripe_pooling(x_NCHW: Tensor, parts: int) -> Tensor:
    """The mean of each of P horizontal stripes of equal height, (N, C, P).

    Raises:
        UserError: a height that P does not divide.
    """
    if x_NCHW.shape[2] % parts:
        raise UserError(
            f"a map {x_NCHW.shape[2]} rows high has no {parts} equal stripes; "
            f"make the image's height a multiple of {16 * parts}"
        )
    return x_NCHW.unflatten(2, (parts, -1)).mean((3, 4))


def refined_part_pooling(x_NCHW: Tensor, assignment_NPHW: Tensor) -> Tensor:
    """The mean of each part, weighted by the assignment and times P, so that even weights give the mean; (N, C, P)."""
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
