"""BatchNorm in the convolutions: the same function and the same gradient."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from helpers import rng
from torch import Tensor, nn

from zsl_lib.models.backbone import SmallResNet, backbone, hangul_backbone, untrained_resnet34
from zsl_lib.models.frozen import frozen


def shaken(network: nn.Module) -> nn.Module:
    """With statistics, weights and biases of its BatchNorm layers that are not the initial ones."""
    g = rng(1)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for value in (layer.running_mean, layer.weight.data, layer.bias.data):
                value.add_(0.1 * torch.randn(value.shape, generator=g))
            layer.running_var.mul_(0.5 + torch.rand(layer.running_var.shape, generator=g))
    return network


def norms(network: nn.Module) -> int:
    return sum(isinstance(layer, nn.BatchNorm2d) for layer in network.modules())


def outputs(network: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Features, and a gradient in the pixels."""
    x = x.clone().requires_grad_()
    features = network.features(x)
    return features, torch.autograd.grad(features.square().sum(), x)[0]


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (hangul_backbone, (1, 32, 32)),
        (lambda: SmallResNet(5, (2, 3, 4, 5)), (1, 32, 32)),
        (lambda: backbone("lite0"), (3, 64, 64)),
        (untrained_resnet34, (3, 64, 64)),
    ],
)
def test_all_normalisation_goes_and_features_and_gradient_stay(
    make: Callable[[], nn.Module], shape: tuple[int, ...]
):
    network = shaken(make()).eval().double()
    x = torch.rand(4, *shape, generator=rng(), dtype=torch.float64)
    made = frozen(network, lambda net: net.features(x[:2]))
    assert norms(network) >= 10
    assert norms(made) == 0
    for ours, theirs in zip(outputs(made, x), outputs(network, x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_in_single_precision_they_agree_to_a_hundred_thousandth():
    network, x = hangul_backbone(), torch.rand(20, 1, 32, 32, generator=rng())
    made = frozen(network, lambda net: net.features(x[:2]))
    expected = network.features(x)
    assert (made.features(x) - expected).abs().max() < 1e-5 * expected.abs().max()


def test_the_network_itself_is_left_alone():
    network = shaken(SmallResNet(5, (2, 3, 4, 5))).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    made = frozen(network, lambda net: net.features(torch.rand(2, 1, 32, 32, generator=rng())))
    assert network.training
    assert not made.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(p.requires_grad for p in network.parameters())
    assert not any(p.requires_grad for p in made.parameters())


class Branches(nn.Module):
    """One convolution: its output normalised and, if ``twice``, also added as it is."""

    def __init__(self, twice: bool) -> None:
        super().__init__()
        self.convolution, self.norm, self.twice = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), twice

    def features(self, x: Tensor) -> Tensor:
        y = self.convolution(x)
        return (self.norm(y) + y if self.twice else self.norm(y)).flatten(1)


@pytest.mark.parametrize("twice", [True, False])
def test_nothing_is_folded_where_the_function_would_be_another(twice: bool):
    network, x = shaken(Branches(twice)).eval(), torch.rand(4, 1, 6, 6, generator=rng())
    made = frozen(network, lambda net: net.features(x))
    torch.testing.assert_close(made.features(x), network.features(x))
    assert norms(made) == int(twice)


class Before(nn.Module):
    """Normalisation goes first: the layers stand in the order of those that can be folded, and cannot be."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 3)

    def features(self, x: Tensor) -> Tensor:
        return self.second(self.norm(self.first(x).relu())).flatten(1)


def test_a_normalisation_behind_a_relu_stays():
    network, x = shaken(Before()).eval(), torch.rand(4, 1, 6, 6, generator=rng())
    made = frozen(network, lambda net: net.features(x))
    torch.testing.assert_close(made.features(x), network.features(x))
    assert norms(made) == 1
