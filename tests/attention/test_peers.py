"""Each peer against its published formula, position by position."""

import math

import pytest
import torch
from torch import Tensor, nn

from csametric import PCB, insert_after
from csametric.attention.catalogue import PEERS, peer
from csametric.attention.peers import EfficientAttention, ExpectationMaximizationAttention, MultiHeadAttention
from csametric.errors import UserError

C, H, W = 16, 3, 4
P = H * W


def conv(layer: nn.Module, x_CP: Tensor) -> Tensor:
    """A 1x1 convolution as a matrix product, column by column."""
    weight = layer.weight.flatten(1)
    columns = [weight @ x_CP[:, j] for j in range(x_CP.shape[1])]
    return torch.stack(columns, 1) + (0 if layer.bias is None else layer.bias[:, None])


def norm(layer: nn.BatchNorm2d, x_CP: Tensor) -> Tensor:
    z = (x_CP - layer.running_mean[:, None]) / (layer.running_var[:, None] + layer.eps).sqrt()
    return z * layer.weight[:, None] + layer.bias[:, None]


def shares(scores: list[float]) -> list[float]:
    highest = max(scores)
    exponentials = [math.exp(score - highest) for score in scores]
    return [value / sum(exponentials) for value in exponentials]


def attend(query: Tensor, key: Tensor, value: Tensor, scale: float = 1.0) -> Tensor:
    """Column i is the mean of the values with the softmax over j of q_i . k_j as weights."""
    out = torch.zeros(value.shape[0], P, dtype=value.dtype)
    for i in range(P):
        row = shares([float(query[:, i] @ key[:, j]) * scale for j in range(P)])
        out[:, i] = sum(row[j] * value[:, j] for j in range(P))
    return out


def gather_and_share(values: Tensor, gather: Tensor, share: Tensor) -> Tensor:
    """Values gathered with a softmax over positions, handed out with a softmax over the maps."""
    maps = gather.shape[0]
    gathered = []
    for k in range(maps):
        row = shares([float(gather[k, j]) for j in range(P)])
        gathered.append(sum(row[j] * values[:, j] for j in range(P)))
    columns = []
    for i in range(P):
        row = shares([float(share[k, i]) for k in range(maps)])
        columns.append(sum(row[k] * gathered[k] for k in range(maps)))
    return torch.stack(columns, 1)


def non_local(layer, x):
    return x + norm(layer.norm, conv(layer.z, attend(conv(layer.t, x), conv(layer.p, x), conv(layer.g, x))))


def danet(layer, x):
    return x + layer.alpha * attend(conv(layer.query, x), conv(layer.key, x), conv(layer.value, x))


def efficient(layer, x):
    return x + conv(layer.project, gather_and_share(conv(layer.value, x), conv(layer.key, x), conv(layer.query, x)))


def a2(layer, x):
    return x + conv(layer.extend, gather_and_share(conv(layer.feature, x), conv(layer.gather, x), conv(layer.distribute, x)))


def gc(layer, x):
    row = shares([float(score) for score in conv(layer.conv_attn, x)[0]])
    context = sum(row[j] * x[:, j] for j in range(P))[:, None]
    hidden = conv(layer.mlp_add.fc1, context)
    centred = hidden - hidden.mean()
    hidden = centred / (centred.square().mean() + layer.mlp_add.norm.eps).sqrt()
    hidden = hidden * layer.mlp_add.norm.weight[:, None] + layer.mlp_add.norm.bias[:, None]
    return x + conv(layer.mlp_add.fc2, hidden.relu())


def se(layer, x):
    return x * conv(layer.fc2, conv(layer.fc1, x.mean(1, keepdim=True)).relu()).sigmoid()


def mhsa(layer, x):
    query, key, value = conv(layer.query_key_value, x).chunk(3)
    heads = zip(*(part.chunk(layer.heads) for part in (query, key, value)), strict=True)
    attended = torch.cat([attend(q, k, v, scale=q.shape[0] ** -0.5) for q, k, v in heads])
    return x + conv(layer.project, attended)


def ema(layer, x):
    entered, bases = conv(layer.enter, x), layer.bases
    for _ in range(layer.steps):
        z = torch.tensor([shares([float(bases[:, k] @ entered[:, j]) for k in range(bases.shape[1])]) for j in range(P)])
        z = z.to(x.dtype)
        means = [(z[:, k] / (z[:, k].sum() + 1e-6)) @ entered.T for k in range(bases.shape[1])]
        bases = torch.stack([mean / mean.norm() for mean in means], 1)
    z = [shares([float(bases[:, k] @ entered[:, j]) for k in range(bases.shape[1])]) for j in range(P)]
    rebuilt = torch.stack([sum(z[j][k] * bases[:, k] for k in range(bases.shape[1])) for j in range(P)], 1)
    return (x + norm(layer.leave[1], conv(layer.leave[0], rebuilt.relu()))).relu()


def external(layer, x):
    scores = conv(layer.keys, conv(layer.enter, x))
    over_positions = torch.tensor([shares([float(s) for s in row]) for row in scores]).to(x.dtype)
    attended = conv(layer.values, torch.stack([column / (column.sum() + 1e-9) for column in over_positions.T], 1))
    return (x + norm(layer.leave[1], conv(layer.leave[0], attended))).relu()


def csa_pooled(layer, x):
    rows, columns = layer.grid
    cells = [
        x.unflatten(1, (H, W))[:, r * H // rows : -(-(r + 1) * H // rows), c * W // columns : -(-(c + 1) * W // columns)]
        for r in range(rows)
        for c in range(columns)
    ]
    vectors = conv(layer.query, torch.stack([cell.mean((1, 2)) for cell in cells], 1))
    key = conv(layer.key, x)
    logits = torch.stack([torch.stack([vectors[:, k] @ key[:, j] for j in range(P)]) for k in range(len(cells))])
    return x + layer.alpha * gather_and_share(conv(layer.value, x), logits, logits)


FORMULAS = {
    "non_local": non_local,
    "danet": danet,
    "efficient": efficient,
    "a2": a2,
    "gc": gc,
    "se": se,
    "mhsa": mhsa,
    "ema": ema,
    "external": external,
    "csa_pooled": csa_pooled,
}
each_peer = pytest.mark.parametrize("name", [name for name, place in PEERS.items() if place.startswith("peers:")])


def awake(name: str, channels: int = C) -> nn.Module:
    """The layer with every weight and statistic drawn, so that nothing is hidden behind a zero."""
    torch.manual_seed(0)
    layer = peer(name)(channels)
    with torch.no_grad():
        for key, tensor in layer.state_dict().items():
            if key.endswith(("running_var", "norm.weight", "leave.1.weight")):
                tensor.uniform_(0.5, 1.5)
            elif key != "bases" and tensor.is_floating_point():
                tensor.normal_(0.0, 0.4)
    return layer.double().eval()


@each_peer
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["NCHW", "channels_last"])
def test_equals_its_formula(name, memory_format):
    layer = awake(name)
    x = torch.randn(2, C, H, W, dtype=torch.float64).to(memory_format=memory_format)
    with torch.no_grad():
        out = layer(x)
        expected = torch.stack([FORMULAS[name](layer, image.flatten(1)).unflatten(1, (H, W)) for image in x])
    torch.testing.assert_close(out, expected, rtol=1e-7, atol=1e-7)


@each_peer
def test_goes_into_any_network_and_pcb_by_name(name):
    images = torch.randn(2, 3, 96, 32)
    network = insert_after(nn.Sequential(nn.Conv2d(3, 32, 3)), {"0": peer(name)})
    assert network(images).shape == (2, 32, 94, 30)
    model = PCB("resnet18", num_ids=4, attention=name, stages=(1,)).train()
    out = model(images)
    sum(logits.square().sum() for logits in out.logits).backward()
    assert sum("attention" in key for key in model.state_dict()) > 0


def test_the_bases_follow_the_batches_in_training_only():
    layer = ExpectationMaximizationAttention(C)
    x, before = torch.randn(2, C, H, W), layer.bases.clone()
    layer.eval()(x)
    assert torch.equal(layer.bases, before)
    layer.train()(x).sum().backward()
    assert not torch.equal(layer.bases, before)
    assert layer.enter.weight.grad.abs().sum() > 0


def test_widths_are_the_published_ones():
    assert peer("non_local")(256).t.weight.shape == (128, 256, 1, 1)
    assert peer("danet")(256).query.weight.shape == (32, 256, 1, 1)
    assert peer("a2")(256).gather.weight.shape == (64, 256, 1, 1)
    assert peer("gc")(256).mlp_add.fc1.weight.shape[0] == 16
    assert peer("se")(256).fc1.weight.shape[0] == 16
    assert MultiHeadAttention(256).query_key_value.weight.shape[0] == 3 * 4 * 64
    assert ExpectationMaximizationAttention(256).bases.shape == (256, 64)
    assert peer("external")(256).keys.weight.shape[0] == 64
    assert EfficientAttention(256).key.weight.shape[0] == 64


def test_channels_that_cannot_be_reduced():
    with pytest.raises(UserError, match="multiple of reduction"):
        peer("csa_pooled")(12)


@pytest.mark.parametrize("channels", [32, 256])
def test_global_context_starts_as_the_identity(channels):
    x = torch.randn(2, channels, H, W)
    assert torch.equal(peer("gc")(channels)(x), x)
