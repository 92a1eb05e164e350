"""Tensors are found in the usual checkpoints, and what is no checkpoint is named."""

import pytest
import torch
from safetensors.torch import save_file

from csametric.errors import UserError
from csametric.models.weights import read_state

STATE = {"conv.weight": torch.ones(2), "conv.bias": torch.zeros(1)}


@pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict", "net", "model"])
@pytest.mark.parametrize("prefix", ["", "module.", "model.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_wrappers_and_prefixes_are_removed(tmp_path, wrapper, prefix):
    prefixed = {prefix + name: tensor for name, tensor in STATE.items()}
    torch.save({wrapper: prefixed, "epoch": 3}, tmp_path / "checkpoint.pth")
    assert list(read_state(tmp_path / "checkpoint.pth")) == list(STATE)


def test_a_prefix_of_some_names_belongs_to_them(tmp_path):
    save_file({"model.weight": torch.ones(1), "head.weight": torch.ones(1)}, tmp_path / "w.safetensors")
    assert set(read_state(tmp_path / "w.safetensors")) == {"model.weight", "head.weight"}


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "is a Git LFS pointer, not the weights"),
        (b"<!DOCTYPE html><html>Not found</html>", "is a web page, not the weights"),
        (b"\n <html>", "is a web page, not the weights"),
        (b"anything", "cannot read tensors from"),
        (b"", "cannot read tensors from"),
    ],
)
def test_what_is_no_checkpoint_is_named(tmp_path, suffix, content, words):
    path = tmp_path / f"weights.{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match=words):
        read_state(path)


def test_nan_is_refused(tmp_path):
    torch.save({"conv.weight": torch.tensor([1.0, float("nan")])}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"w.pth is damaged \(conv.weight contains NaN"):
        read_state(tmp_path / "w.pth")


@pytest.mark.filterwarnings("ignore:.*quantize")
def test_tensors_that_are_no_plain_numbers_are_refused(tmp_path):
    for tensor in (torch.ones(2, 2).to_sparse(), torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)):
        torch.save({"conv.weight": tensor}, tmp_path / "w.pth")
        with pytest.raises(UserError, match=r"w.pth is damaged \(conv.weight is sparse or quantized\)"):
            read_state(tmp_path / "w.pth")
