"""PCB and RPP against loops, and the effect of their options."""

import copy

import pytest
import torch
from torch import nn

from csametric import PCB, CompressedSelfAttention, SelfAttention
from csametric.errors import UserError
from csametric.models.pcb import PartClassifier, refined_part_pooling, stripe_pooling
from csametric.models.weights import from_torchreid_pcb, load_strictly


def small(**options):
    torch.manual_seed(0)
    return PCB(**{"backbone": "resnet18", "num_ids": 5, "parts": 3, "maps": 4, "embedding": 16} | options)


def test_outputs_have_the_documented_shapes():
    out = small()(torch.randn(4, 3, 96, 32))
    assert [tuple(logits.shape) for logits in out.logits] == [(4, 5)] * 3
    assert [tuple(logits.shape) for logits in out.auxiliary] == [(4, 5)] * 3
    assert out.features.shape == (4, 3 * 512)


def test_defaults_are_those_of_the_paper():
    model = PCB()
    assert len(model.classifiers) == 6
    assert model.classifiers[0].out_features == 751
    assert [model.backbone.network.get_submodule(f"layer{s}").attention.channels for s in (1, 2, 3)] == [256, 512, 1024]
    layer = model.backbone.network.layer1.attention
    assert (layer.maps, layer.groups, layer.alpha.item()) == (32, 2, 0.0)
    assert len(model.supervision) == 3


def test_the_feature_of_each_part_has_unit_length():
    for feature, size in (("pooled", 512), ("embedded", 16)):
        features = small(feature=feature).eval()(torch.randn(2, 3, 96, 32)).features
        assert features.shape == (2, 3 * size)
        torch.testing.assert_close(features.unflatten(1, (3, size)).norm(dim=2), torch.ones(2, 3))


def test_evaluation_mode_skips_the_supervision():
    model = small().eval()
    out = model(torch.randn(2, 3, 96, 32))
    assert out.auxiliary == ()
    assert len(out.logits) == 3


@pytest.mark.parametrize("refined", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_forward_equals_a_loop_over_parts(refined, shared):
    model = small(refined=refined, shared_embedding=shared, attention=None, deep_supervision=False).eval()
    if refined:
        nn.init.normal_(model.refinement.assign.weight)
    images = torch.randn(2, 3, 96, 32)
    out = model(images)
    x, _ = model.backbone(images)
    for part in range(3):
        if refined:
            mask = model.refinement(x)[:, part]
            pooled = torch.stack([3 * (x[:, c] * mask).mean((1, 2)) for c in range(512)], 1)
        else:
            pooled = x[:, :, 2 * part : 2 * part + 2].mean((2, 3))
        embedded = model.embeddings[0 if shared else part](pooled[:, :, None, None])[:, :, 0, 0]
        torch.testing.assert_close(out.logits[part], model.classifiers[part](embedded))
        unit = pooled / pooled.norm(dim=1, keepdim=True)
        torch.testing.assert_close(out.features[:, 512 * part : 512 * (part + 1)], unit)


def test_equal_shares_give_the_mean():
    x = torch.randn(2, 8, 6, 4)
    pooled = refined_part_pooling(x, torch.full((2, 3, 6, 4), 1 / 3))
    torch.testing.assert_close(pooled, x.mean((2, 3))[..., None].expand(-1, -1, 3))


def test_part_shares_sum_to_one_and_ignore_the_mean():
    classify = PartClassifier(16, 3).eval()
    nn.init.normal_(classify.assign.weight)
    x = torch.randn(2, 16, 6, 4)
    parts = classify(x)
    torch.testing.assert_close(parts.sum(1), torch.ones(2, 6, 4))
    torch.testing.assert_close(classify(x + torch.randn(2, 16, 1, 1)), parts)


def test_the_plain_part_classifier_is_a_convolution_and_a_softmax():
    classify = PartClassifier(12, 3, plain=True)
    x = torch.randn(2, 12, 6, 4)
    torch.testing.assert_close(classify(x), classify.assign(x).softmax(1))
    with pytest.raises(UserError, match="got 12; use another backbone or the plain one"):
        PartClassifier(12, 3)


def test_a_refined_model_can_start_with_stripes():
    model = small(refined=True).eval()
    images = torch.randn(2, 3, 96, 32)
    refined = model(images).features
    model.refining = False
    striped = model(images).features
    plain = small(refined=False).eval()
    plain.load_state_dict({name: value for name, value in model.state_dict().items() if "refinement" not in name})
    assert torch.equal(plain(images).features, striped)
    assert not torch.equal(refined, striped)


@pytest.mark.parametrize(
    ("attention", "kind"),
    [("csa", CompressedSelfAttention), ("sa", SelfAttention), (lambda channels: nn.Conv2d(channels, channels, 1), nn.Conv2d)],
    ids=["csa", "sa", "callable"],
)
def test_attention_can_follow_any_stages(attention, kind):
    model = small(attention=attention, stages=(3, 1), deep_supervision=True)
    assert isinstance(model.backbone.network.layer1.attention, kind)
    assert isinstance(model.backbone.network.layer3.attention, kind)
    assert not hasattr(model.backbone.network.layer2, "attention")
    assert [branch.layers[0].in_features for branch in model.supervision] == [64, 256]
    assert len(model(torch.randn(2, 3, 96, 32)).auxiliary) == 2


def test_attention_and_supervision_work_without_each_other():
    supervised = small(attention=None)
    assert len(supervised.supervision) == 3
    assert not any("attention" in name for name in supervised.state_dict())
    attended = small(deep_supervision=False)
    assert not attended(torch.randn(2, 3, 96, 32)).auxiliary


def test_zero_alpha_leaves_the_features_unchanged():
    images = torch.randn(2, 3, 96, 32)
    attended, plain = small(alpha=0.0).eval(), small(attention=None).eval()
    plain.load_state_dict({name: value for name, value in attended.state_dict().items() if "attention" not in name})
    assert torch.equal(attended(images).features, plain(images).features)


def test_pcb_compiles_and_every_parameter_gets_a_gradient():
    model = small()
    images = torch.randn(4, 3, 96, 32)
    nn.init.ones_(model.backbone.network.layer1.attention.alpha)
    compiled = torch.compile(copy.deepcopy(model).eval(), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(images).features, model.eval()(images).features)
    out = model.train()(images)
    sum(logits.square().sum() for logits in [*out.logits, *out.auxiliary]).backward()
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]


def test_heights_that_the_parts_do_not_divide_are_refused():
    with pytest.raises(UserError, match=r"make the image height a multiple of 48 \(16 x 3 parts\)"):
        small()(torch.randn(2, 3, 64, 32))
    with pytest.raises(UserError, match="6 rows cannot be divided into 4 equal stripes"):
        stripe_pooling(torch.ones(1, 1, 6, 2), 4)


def test_unknown_options_are_refused():
    with pytest.raises(UserError, match="attention='csb' is unknown"):
        small(attention="csb")
    with pytest.raises(UserError, match="unknown feature 'both'"):
        small(feature="both")


def test_torchreid_checkpoints_load_strictly():
    """Torchreid's names, from the definition of its model: torchvision's blocks, conv5.layers, classifier."""
    ours = small(parts=2, shared_embedding=True, attention=None, deep_supervision=False)
    theirs = {}
    for name, value in ours.state_dict().items():
        renamed = (
            name.replace("backbone.network.", "")
            .replace("embeddings.0.", "conv5.layers.")
            .replace("classifiers.", "classifier.")
        )
        theirs[renamed] = value + 1
    load_strictly(ours, from_torchreid_pcb(theirs), "theirs")
    assert torch.equal(ours.classifiers[1].bias, theirs["classifier.1.bias"])
    del theirs["conv5.layers.1.running_mean"]
    with pytest.raises(UserError, match=r"missing: embeddings.0.1.running_mean"):
        load_strictly(ours, from_torchreid_pcb(theirs), "theirs")
