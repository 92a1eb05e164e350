"""L2Net: its size, its output, and the place of its attention."""

import pytest
import torch

from csametric import CompressedSelfAttention, L2Net, SelfAttention
from csametric.errors import UserError
from csametric.models.l2net import fold_l2net, normalize_patches
from csametric.models.weights import from_hardnet, load_strictly


def test_parameters_and_multiply_adds_are_as_published():
    net = L2Net().eval()
    assert sum(p.numel() for p in net.parameters()) == 1_334_560
    multiply_adds = 0

    def count(convolution, _, output):
        nonlocal multiply_adds
        multiply_adds += convolution.weight[0].numel() * output[0].numel()

    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(count)
    net(torch.randn(1, 1, 32, 32))
    assert round(multiply_adds / 1e6, 1) == 39.1


@pytest.mark.parametrize("attention", [None, "sa", "csa", lambda channels: torch.nn.Conv2d(channels, channels, 1)])
def test_descriptors_have_unit_length(attention):
    out = L2Net(attention).eval()(torch.rand(5, 1, 32, 32) * 255)
    assert out.shape == (5, 128)
    torch.testing.assert_close(out.norm(dim=1), torch.ones(5))


def test_attention_follows_the_third_convolution():
    input_shapes = []
    net = L2Net("csa").eval()
    net.attention.register_forward_hook(lambda module, args, out: input_shapes.append(tuple(args[0].shape)))
    net(torch.randn(2, 1, 32, 32))
    assert input_shapes == [(2, 64, 16, 16)]
    assert isinstance(net.attention, CompressedSelfAttention)
    assert (net.attention.groups, net.attention.maps) == (1, 32)
    assert sum(isinstance(m, torch.nn.Conv2d) for m in net.local) == 3
    assert isinstance(L2Net("sa").attention, SelfAttention)
    assert L2Net("sa").attention.reduction == 8


@pytest.mark.parametrize("attention", ["sa", "csa"])
def test_one_seed_initialises_the_same_network_with_any_attention(attention):
    torch.manual_seed(0)
    plain = L2Net().eval()
    torch.manual_seed(0)
    attended = L2Net(attention).eval()
    patches = torch.randn(3, 1, 32, 32)
    torch.testing.assert_close(attended(patches), plain(patches))


def test_descriptors_are_invariant_to_brightness_and_contrast():
    net, patches = L2Net().eval(), torch.rand(4, 1, 32, 32) * 255
    torch.testing.assert_close(net(patches), net(0.4 * patches + 30), rtol=1e-3, atol=1e-4)


def test_normalisation_matches_a_hand_computation():
    patch = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    expected = torch.tensor([[[[-1.5, -0.5], [0.5, 1.5]]]]) / (5 / 3) ** 0.5
    torch.testing.assert_close(normalize_patches(patch), expected)


def test_bf16_descriptors_are_unit_fp32():
    net = L2Net("csa").eval()
    with torch.autocast("cpu", torch.bfloat16):
        out = net(torch.rand(3, 1, 32, 32))
    assert out.dtype == torch.float32
    torch.testing.assert_close(out.norm(dim=1), torch.ones(3))


def test_the_descriptor_of_a_flat_patch_is_finite():
    assert L2Net("csa").eval()(torch.full((1, 1, 32, 32), 7.0)).isfinite().all()


def test_errors_say_what_to_do():
    with pytest.raises(UserError, match="use None, 'sa', 'csa', 'non_local'"):
        L2Net("gcn")
    with pytest.raises(ValueError, match=r"shape \(N, 1, 32, 32\), got \(2, 3, 32, 32\); resize them"):
        L2Net()(torch.randn(2, 3, 32, 32))


@pytest.mark.parametrize("attention", [None, "csa"])
def test_folding_batchnorm_keeps_the_descriptors(attention):
    torch.manual_seed(0)
    net = L2Net(attention)
    for _ in range(3):
        net(torch.rand(16, 1, 32, 32))
    folded, patches = fold_l2net(net), torch.rand(6, 1, 32, 32)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    torch.testing.assert_close(folded(patches), net.eval()(patches), rtol=0, atol=1e-5)
    assert sum(isinstance(module, torch.nn.BatchNorm2d) for module in net.modules()) == 7


def hardnet_of_kornia():
    """Kornia's HardNet with random weights and BatchNorm statistics."""
    feature = pytest.importorskip("kornia.feature")
    torch.manual_seed(0)
    other = feature.HardNet(pretrained=False).eval()
    for module in other.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
    return other


def test_l2net_equals_kornias_hardnet_with_its_weights():
    other, net = hardnet_of_kornia(), L2Net().eval()
    load_strictly(net, from_hardnet(other.state_dict()), "kornia")
    patches = torch.rand(20, 1, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(net(patches), other(patches), rtol=0, atol=1e-4)


def test_weights_of_other_networks_are_refused():
    state = hardnet_of_kornia().state_dict()
    with pytest.raises(UserError, match=r"unexpected tensor features\.30\.weight; use a checkpoint of HardNet"):
        from_hardnet(state | {"features.30.weight": torch.zeros(1)})
    del state["features.3.weight"]
    with pytest.raises(UserError, match=r"missing: local\.3\.weight"):
        load_strictly(L2Net(), from_hardnet(state), "this file")
    with pytest.raises(UserError, match="missing: attention"):
        load_strictly(L2Net("csa"), from_hardnet(hardnet_of_kornia().state_dict()), "this file")


def test_l2net_can_replace_hardnet_in_kornia():
    feature = pytest.importorskip("kornia.feature")
    frames = torch.tensor([[[[6.0, 0, 40], [0, 6, 30]], [[0, -9, 50], [9, 0, 40]]]])
    image = torch.rand(1, 1, 80, 100)
    descriptors = feature.LAFDescriptor(L2Net("csa").eval(), patch_size=32)(image, frames)
    assert descriptors.shape == (1, 2, 128)
    torch.testing.assert_close(descriptors.norm(dim=2), torch.ones(1, 2))
