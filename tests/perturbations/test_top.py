"""The k largest by histograms are those of a sort, and their bits are kept and used as they are."""

import pytest
import torch

from hf_sam.perturbations import top
from hf_sam.perturbations.top import apply_bits, flat_pieces, keys_of, pack, top_bits, unpack


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch):
    monkeypatch.setitem(top.PIECE, "cpu", 16)


def bits_of(tensors, count):
    sources = [lambda tensor=tensor: (keys_of(piece.abs()) for piece in flat_pieces(tensor)) for tensor in tensors]
    packed = top_bits(sources, count)
    return [unpack(p, t.numel()).view(t.shape) for p, t in zip(packed, tensors, strict=True)]


def by_sorting(tensors, count):
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors]).abs()
    chosen = torch.zeros_like(flat, dtype=torch.bool)
    chosen[flat.float().sort(descending=True, stable=True).indices[:count]] = True
    return [part.view(t.shape) for part, t in zip(chosen.split([t.numel() for t in tensors]), tensors, strict=True)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("count", [0, 1, 5, 40, 77, 99, 200])
def test_as_by_sorting_and_of_equal_ones_the_first(dtype, count):
    """bfloat16 and rounded numbers have many that are equal, and half of all are 0."""
    torch.manual_seed(count)
    tensors = [torch.randn(7, 9).to(dtype), torch.randn(17).to(dtype), (torch.randn(3, 4) * 2).round().to(dtype)]
    tensors.append(torch.zeros(7, dtype=dtype))
    for ours, expected in zip(bits_of(tensors, count), by_sorting(tensors, count), strict=True):
        assert torch.equal(ours, expected)


def test_extreme_numbers_keep_their_order():
    values = torch.tensor([0.0, 1e-45, 1e-38, 1.0, 3e38, torch.inf])
    assert keys_of(values).tolist() == sorted(keys_of(values).tolist())
    assert len(set(keys_of(values).tolist())) == 6
    assert int(keys_of(values).min()) > 0
    assert keys_of(torch.tensor([-torch.nan, torch.nan]).abs()).tolist() == [keys_of(values)[-1]] * 2


def test_what_may_not_be_taken_is_not():
    keys = torch.tensor([0, 5, 0, 3, 3], dtype=torch.int32)
    (packed,) = top_bits([lambda: [keys]], 4)
    assert unpack(packed, 5).tolist() == [False, True, False, True, True]


@pytest.mark.parametrize("count", [1, 8, 15, 16, 17, 100])
def test_eight_bits_to_a_byte_and_back(count):
    bits = torch.randn(count) > 0
    assert len(pack(bits)) == -(-count // 8)
    assert torch.equal(unpack(pack(bits), count), bits)


@pytest.mark.parametrize("transposed", [False, True])
def test_bits_are_those_of_the_entries_in_whatever_layout(transposed):
    tensor = torch.randn(9, 11)
    tensor = tensor.T if transposed else tensor
    (chosen,), before = bits_of([tensor], 30), tensor.clone()
    (packed,) = top_bits([lambda: (keys_of(piece.abs()) for piece in flat_pieces(tensor))], 30)
    apply_bits(packed, tensor)
    assert torch.equal(tensor, before * chosen)
    assert int((tensor != 0).sum()) == 30
