"""Layers after stages of timm and torchvision networks."""

import copy
import pickle
import subprocess
import sys
from functools import partial

import pytest
import timm
import torch
import torchvision
from torch import nn

from csametric import CompressedSelfAttention, insert_after
from csametric.attention.insertion import FeatureMap, remove_after, stages
from csametric.errors import UserError

EXPECTED = {
    "timm resnet18": ("resnet18", {"layer1": (64, 4), "layer2": (128, 8), "layer3": (256, 16), "layer4": (512, 32)}),
    "timm efficientnet": (
        "tf_efficientnet_lite0",
        {"blocks.0": (16, 2), "blocks.1": (24, 4), "blocks.2": (40, 8), "blocks.3": (80, 16), "blocks.4": (112, 16)}
        | {"blocks.5": (192, 32), "blocks.6": (320, 32)},
    ),
    "timm convnext": (
        "convnext_atto",
        {"stem": (40, 4), "stages.0": (40, 4), "stages.1": (80, 8), "stages.2": (160, 16), "stages.3": (320, 32)},
    ),
    "timm regnet": ("regnety_002", {"stem": (32, 2), "s1": (24, 4), "s2": (56, 8), "s3": (152, 16), "s4": (368, 32)}),
}
SOME = {"timm resnet18": "layer2", "timm efficientnet": "blocks.2", "timm convnext": "stages.1", "timm regnet": "s2"}
some_networks = pytest.mark.parametrize("kind", EXPECTED)


def network(kind):
    torch.manual_seed(0)
    return timm.create_model(EXPECTED[kind][0], num_classes=5).eval()


def attending(alpha=0.5):
    return partial(CompressedSelfAttention, maps=4, groups=2, alpha=alpha)


@some_networks
def test_stages_and_their_channels(kind):
    assert stages(network(kind)) == {name: FeatureMap(*values) for name, values in EXPECTED[kind][1].items()}


@some_networks
def test_timm_names_the_same_maps(kind):
    model = network(kind)
    found = stages(model)
    for feature in model.feature_info:
        if feature["reduction"] in (4, 8, 16):
            assert found[feature["module"]] == (feature["num_chs"], feature["reduction"])


@some_networks
def test_the_layer_runs_after_the_stage_and_keys_stay(kind):
    model, stage = network(kind), SOME[kind]
    image = torch.randn(2, 3, 64, 64)
    plain, keys = model(image), set(model.state_dict())
    seen = []

    def watch(module, inputs, output):
        seen.append(output)

    with torch.no_grad():
        watching = model.get_submodule(stage).register_forward_hook(watch)
        model(image)
        watching.remove()
        insert_after(model, {stage: attending(alpha=0.0)})
        torch.testing.assert_close(model(image), plain)
        layer = model.get_submodule(stage).attention
        layer.alpha.fill_(2.0)
        model.get_submodule(stage).register_forward_hook(watch)
        attended = model(image)
    assert (attended - plain).abs().max() > 1e-6
    torch.testing.assert_close(seen[1], layer(seen[0]))
    assert set(model.state_dict()) - keys == {
        f"{stage}.attention.{name}" for name in ("alpha", "logits.weight", "value.weight")
    }
    assert keys <= set(model.state_dict())


@some_networks
def test_taken_out_the_network_is_as_before(kind):
    model, image = network(kind), torch.randn(2, 3, 64, 64)
    plain, keys = model(image), list(model.state_dict())
    insert_after(model, {SOME[kind]: attending()})
    assert remove_after(model, [SOME[kind]]) is model
    assert list(model.state_dict()) == keys
    assert torch.equal(model(image), plain)
    with pytest.raises(UserError, match="without an inserted layer"):
        remove_after(model, [SOME[kind]])


@some_networks
def test_copies_and_pickles_attend(kind):
    model, image = insert_after(network(kind), {SOME[kind]: attending()}), torch.randn(2, 3, 64, 64)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(image), model(image))
        with torch.no_grad():
            twin.get_submodule(SOME[kind]).attention.alpha.fill_(7.0)
        assert not torch.equal(twin(image), model(image))


@pytest.mark.parametrize("kind", ["timm resnet18", "timm convnext"])
def test_compiles_to_one_graph(kind):
    model, image = insert_after(network(kind), {SOME[kind]: attending()}), torch.randn(2, 3, 64, 64)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(image), model(image))


@pytest.mark.parametrize(
    ("make", "stage", "channels"),
    [
        (torchvision.models.resnet18, "layer1", 64),
        (torchvision.models.efficientnet_b0, "features.2", 24),
        (torchvision.models.convnext_tiny, "features.3", 192),
        (torchvision.models.mobilenet_v3_small, "features.3", 24),
        (torchvision.models.densenet121, "features.transition1.conv", 128),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_torchvision_networks(make, stage, channels):
    model = insert_after(make(num_classes=3).eval(), {stage: attending()})
    assert model.get_submodule(stage).attention.channels == channels
    assert model(torch.randn(1, 3, 64, 64)).shape == (1, 3)


def test_two_layers_one_after_the_other_call():
    model = insert_after(network("timm resnet18"), {"layer1": attending()})
    insert_after(model, {"layer2": attending()})
    assert model.layer2.attention.channels == 128


def test_any_layer_will_do():
    model = insert_after(network("timm resnet18"), {"layer1": lambda channels: nn.Conv2d(channels, channels, 1)})
    assert isinstance(model.layer1.attention, nn.Conv2d)


def test_an_unknown_stage_is_refused_with_those_there_are():
    model = network("timm resnet18")
    with pytest.raises(UserError, match=r"unknown stage 'layer9'; the stages of this model are layer1, layer2, layer3, layer4"):
        insert_after(model, {"layer1": attending(), "layer9": attending()})
    assert not hasattr(model.layer1, "attention")


def test_a_layer_takes_over_type_and_mode():
    model = insert_after(network("timm resnet18").double(), {"layer1": attending()})
    assert model.layer1.attention.logits.weight.dtype == torch.float64
    assert not model.layer1.attention.training
    model(torch.randn(1, 3, 64, 64, dtype=torch.float64))
    with pytest.raises(UserError, match="stage 'layer9' is unknown or without an inserted layer"):
        remove_after(model, ["layer9"])


@pytest.mark.parametrize("layer", [CompressedSelfAttention(64), "csa"], ids=["a layer", "a name"])
def test_what_makes_no_layer_is_refused(layer):
    with pytest.raises(UserError, match="'layer1' needs a function or class that makes a layer from a number of channels"):
        insert_after(network("timm resnet18"), {"layer1": layer})


def test_a_second_layer_at_a_stage_is_refused():
    model = insert_after(network("timm resnet18"), {"layer1": attending()})
    with pytest.raises(UserError, match="remove an inserted layer with remove_after"):
        insert_after(model, {"layer1": attending()})


def test_a_stage_that_iterates_its_children_is_refused():
    with pytest.raises(UserError, match="insert after the module that follows it"):
        insert_after(torchvision.models.densenet121(), {"features.denseblock1": attending()})


DDP = """
import timm, torch, torch.distributed as dist
from csametric import CompressedSelfAttention, insert_after
dist.init_process_group("gloo")
torch.manual_seed(0)
model = insert_after(timm.create_model("convnext_atto", num_classes=3), {"stages.1": CompressedSelfAttention})
model = torch.nn.parallel.DistributedDataParallel(model)
model(torch.randn(2, 3, 64, 64)).sum().backward()
assert model.module.stages[1].attention.alpha.grad is not None
dist.destroy_process_group()
"""


def test_distributed_data_parallel(tmp_path):
    script = tmp_path / "ddp.py"
    script.write_text(DDP)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr


class FixedSize(nn.Module):
    """A network for images of 32 x 32: its classifier fails on others."""

    def __init__(self, first=None):
        super().__init__()
        self.layer1 = nn.Sequential(first or nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU())
        self.fc = nn.Linear(16 * 16 * 16, 10)

    def forward(self, x):
        return self.fc(self.layer1(x).flatten(1))


class TwoInputs(nn.Module):
    """A network whose forward takes two images."""

    def __init__(self):
        super().__init__()
        self.layer1 = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))

    def forward(self, a, b):
        return self.layer1(a) - self.layer1(b)


class ByEinsum(nn.Module):
    """A network for one channel, without any convolution."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 1))
        self.stage = nn.Identity()

    def forward(self, x):
        return self.stage(torch.einsum("nchw,oc->nohw", x, self.weight))


def test_the_network_runs_only_up_to_the_stages():
    model = insert_after(FixedSize(), {"layer1": attending()})
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 10)


def test_an_example_stands_for_the_image():
    a, b = torch.randn(2, 3, 9, 9), torch.randn(2, 3, 9, 9)
    model = TwoInputs()
    with pytest.raises(UserError, match=r"fails on an image of 256 x 256 \(TypeError: .*give insert_after an example="):
        insert_after(model, {"layer1": attending()})
    state = copy.deepcopy(model.state_dict())
    insert_after(model, {"layer1": attending()}, example=(a, b))
    assert model.layer1.attention.channels == 8
    assert model.training
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in state.items())
    model = insert_after(ByEinsum(), {"stage": attending()}, example=torch.randn(2, 1, 5, 4))
    assert model(torch.randn(2, 1, 5, 4)).shape == (2, 8, 5, 4)


def test_a_wrong_example_is_explained():
    with pytest.raises(UserError, match=r"the network fails on the example \(RuntimeError: "):
        insert_after(FixedSize(), {"layer1": attending()}, example=torch.randn(1, 4, 8, 8))


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_networks_with_reparametrised_weights():
    model = FixedSize(nn.utils.weight_norm(nn.Conv2d(3, 16, 3, 2, 1)))
    x = torch.randn(2, 3, 32, 32)
    before = model(x)
    insert_after(model, {"layer1": attending(alpha=0.0)})
    assert model.layer1[0].weight.device.type == "cpu"
    torch.testing.assert_close(model(x), before)


def test_lazy_parameters_are_refused():
    model = FixedSize(nn.LazyConv2d(16, 3, 2, 1))
    with pytest.raises(UserError, match="lazy parameters without a shape; run it once"):
        insert_after(model, {"layer1": attending()})
    model(torch.randn(2, 3, 32, 32))
    assert insert_after(model, {"layer1": attending()}).layer1.attention.channels == 16
