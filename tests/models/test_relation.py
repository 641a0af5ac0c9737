"""The relation network: Eq. 1 and 2 of paper 2, with and without concatenations."""

from __future__ import annotations

import pytest
import torch
from helpers import rng
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from zsl_lib.errors import DataError
from zsl_lib.models.backbone import SmallResNet
from zsl_lib.models.relation import RelationNetwork, unit_scale


class Flat(nn.Module):
    """Pixels as they are: images of 2 x 2, one channel."""

    width = 4

    def features(self, images: Tensor) -> Tensor:
        return (images.float() / 255 if images.dtype == torch.uint8 else images).flatten(1)


def network(**options) -> RelationNetwork:
    sizes = {"embedding": 6, "attribute_hidden": 7, "hidden": 8, "generator": rng()} | options
    return RelationNetwork(Flat(), 5, **sizes)


def naive(net: RelationNetwork, f: Tensor, g: Tensor) -> Tensor:
    """Eq. 1 as it is printed: every pair's concatenation through the relation MLP."""
    rows = [[net.last(net.first(torch.cat([a, b])).relu()) for b in g] for a in f]
    return torch.stack([torch.cat(row) for row in rows])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_first_layer_splits_into_a_part_of_the_image_and_one_of_the_description(dtype):
    net = network().to(dtype)
    net.first.bias.data.normal_(generator=rng(3))
    net.last.bias.data.fill_(0.7)
    f, g = torch.randn(9, 6, generator=rng(1), dtype=dtype), torch.randn(4, 6, generator=rng(2), dtype=dtype)
    found, expected = net.relation(f, g), naive(net, f, g)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    weights = torch.randn(9, 4, generator=rng(5), dtype=dtype)
    ours, theirs = (
        torch.autograd.grad((r * weights).sum(), list(net.first.parameters()) + list(net.last.parameters()))
        for r in (found, expected)
    )
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_the_split_by_hand():
    net = network(embedding=1, hidden=2).double()
    net.first.weight.data = torch.tensor([[1.0, 2.0], [-1.0, 1.0]], dtype=torch.float64)
    net.first.bias.data = torch.tensor([0.5, 0.0], dtype=torch.float64)
    net.last.weight.data = torch.tensor([[2.0, 3.0]], dtype=torch.float64)
    net.last.bias.data = torch.tensor([-1.0], dtype=torch.float64)
    f, g = torch.tensor([[1.0], [3.0]]).double(), torch.tensor([[2.0], [-2.0]]).double()
    # hidden units: [f + 2g + 0.5]₊ and [g - f]₊; score 2 · first + 3 · second - 1
    expected = [[2 * 5.5 + 3 * 1 - 1, -1.0], [2 * 7.5 - 1, -1.0]]
    torch.testing.assert_close(net.relation(f, g), torch.tensor(expected).double())


class Largest(TorchDispatchMode):
    """Watches the numbers of entries of all tensors that are made."""

    entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            self.entries = max(self.entries, out.numel())
        return out


def test_no_concatenation_is_ever_made():
    net = network(embedding=50, hidden=3)
    f, g = torch.randn(20, 50, generator=rng(1)), torch.randn(30, 50, generator=rng(2))
    with Largest() as seen:
        net.relation(f, g)
    assert seen.entries == 20 * 30 * 3  # and not 20 · 30 · 100
    pairs = [x.flatten(0, 1) for x in torch.broadcast_tensors(f[:, None], g)]
    with Largest() as seen:
        net.last(net.first(torch.cat(pairs, dim=1)).relu())
    assert seen.entries == 20 * 30 * 100


def test_products():
    f, g = torch.rand(3, 6, generator=rng(1)), torch.rand(2, 6, generator=rng(2))
    inner = network(combine="product")
    torch.testing.assert_close(inner.relation(f, g), torch.einsum("nd,cd->nc", f, g))
    assert not hasattr(inner, "first")
    pairs = network(combine="elementwise")
    expected = torch.stack([pairs.last(pairs.first(f * c).relu()).squeeze(1) for c in g], dim=1)
    torch.testing.assert_close(pairs.relation(f, g), expected)


def test_the_widths_of_the_paper():
    net = RelationNetwork(SmallResNet(3), 312, attribute_hidden=400, generator=rng())
    shapes = [tuple(p.shape) for p in net.attributes.parameters()]
    assert shapes == [(400, 312), (400,), (512, 400), (512,)]
    assert net.first.weight.shape == (400, 1024)
    assert net.last.weight.shape == (1, 400)
    assert net.adapt[0].weight.shape == (512, 128)
    wide = SmallResNet(3, widths=(2, 3, 4, 512))  # as wide as ResNet-34: nothing in between
    assert isinstance(RelationNetwork(wide, 312, generator=rng()).adapt, nn.Identity)


@pytest.mark.parametrize("combine", ["concatenation", "product", "elementwise"])
def test_gradients(combine):
    net = network(combine=combine).double()
    images = 255 * torch.rand(3, 1, 2, 2, generator=rng(1), dtype=torch.float64)
    semantics = torch.rand(4, 5, generator=rng(2), dtype=torch.float64)
    leaves = images.requires_grad_(), semantics.requires_grad_()
    torch.autograd.gradcheck(net, leaves, eps=1e-5, atol=1e-7)


def test_pixels_come_as_bytes_or_floats_of_the_same_scale_or_as_features():
    net, semantics = network(), torch.rand(4, 5, generator=rng(2))
    images = torch.randint(0, 256, (3, 1, 2, 2), generator=rng(1)).byte()
    torch.testing.assert_close(net(images, semantics), net(images.float(), semantics))
    torch.testing.assert_close(net(images, semantics), net(Flat().features(images), semantics))


def test_temperature_divides_scores_and_raises_the_entropy():
    images, semantics = torch.rand(3, 1, 2, 2, generator=rng(1)) * 255, torch.rand(4, 5, generator=rng(2))
    cold, hot = (network(temperature=t)(images, semantics) for t in (1.0, 4.0))
    torch.testing.assert_close(cold, 4 * hot)
    entropy = [torch.distributions.Categorical(logits=s).entropy() for s in (cold, hot)]
    assert (entropy[1] > entropy[0]).all()


def test_the_unit_of_descriptions_does_not_matter():
    s = torch.rand(7, 5, generator=rng(1))
    nets = [network(attribute_scale=unit_scale(c * s)) for c in (1.0, 100.0)]
    torch.testing.assert_close(nets[0].attribute_embedding(s), nets[1].attribute_embedding(100 * s))
    one_hot = F.one_hot(torch.arange(5)).float()
    assert (unit_scale(one_hot) * one_hot).square().mean() == pytest.approx(1)
    assert unit_scale(one_hot) == pytest.approx(5**0.5)


def test_weights_come_from_the_generator_alone():
    state = torch.get_rng_state()
    first, again, other = network(), network(), network(generator=rng(9))
    assert torch.equal(torch.get_rng_state(), state)
    for a, b, c in zip(first.parameters(), again.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert a.ndim == 1 or not torch.equal(a, c)


@pytest.mark.parametrize("options", [{"combine": "sum"}, {"temperature": 0.0}, {"temperature": -1.0}])
def test_what_makes_no_network(options):
    with pytest.raises(DataError, match=f"RelationNetwork: {next(iter(options))}"):
        network(**options)


@pytest.mark.parametrize("combine", ["concatenation", "product", "elementwise"])
def test_descriptions_embedded_once_give_the_scores_of_all_at_once(combine):
    net = network(combine=combine, temperature=3.0)
    images, semantics = torch.rand(7, 1, 2, 2, generator=rng(1)) * 255, torch.rand(4, 5, generator=rng(2))
    compare = net.compare_with(semantics)
    for part in (images[:3], images[3:]):
        r = net.relation(net.image_embedding(part), net.attribute_embedding(semantics))
        torch.testing.assert_close(compare(part), r / 3)
        torch.testing.assert_close(net(part, semantics), r / 3)


@pytest.mark.parametrize("combine", ["concatenation", "product", "elementwise"])
def test_images_embedded_once_are_compared_with_any_descriptions(combine):
    net = network(combine=combine, temperature=2.0)
    images = torch.rand(3, 1, 2, 2, generator=rng(1)) * 255
    tables = torch.randn(3, 4, 5, generator=rng(2))
    scores = net.compare_embedded(net.image_embedding(images))
    for table in tables:
        torch.testing.assert_close(scores(table), net(images, table))
    each = torch.stack([net(images[[i]], tables[i])[0] for i in range(3)])
    torch.testing.assert_close(scores(tables), each)
