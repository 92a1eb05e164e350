"""Weights carry a digest of their values: a flipped bit that leaves a finite number is noticed."""

import pytest
import torch
from safetensors.torch import load_file, save
from torch import nn

from csametric.errors import UserError
from csametric.runs.folder import read_weights, save_weights


def test_a_flipped_bit_is_noticed(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_weights(path, nn.Linear(3, 2))
    content = bytearray(path.read_bytes())
    content[-2] ^= 1  # in a mantissa
    path.write_bytes(content)
    assert all(tensor.isfinite().all() for tensor in load_file(path).values())
    with pytest.raises(UserError, match=r"damaged \(its values are not those that were saved\); remove it and train again"):
        read_weights(path)


def test_weights_of_older_versions_have_no_digest(tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(save({"weight": torch.ones(2)}))
    assert torch.equal(read_weights(path)["weight"], torch.ones(2))
