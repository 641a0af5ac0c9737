"""The encoder q_φ(z | x, c) and the generator that carries one."""

from __future__ import annotations

import pytest
import torch
from helpers import rng

from zsl_lib.models import Generator
from zsl_lib.models.encoder import Autoencoder, Encoder

K, D_Z, D_X = 5, 3, 7


def test_the_encoder_is_an_mlp_on_x_and_c():
    net = Encoder(K, D_Z, D_X, hidden=11, generator=rng())
    x, c = torch.randn(4, D_X, generator=rng(1)), torch.randn(4, K, generator=rng(2))
    hidden = torch.cat([x, c], 1) @ net.inner.weight.T + net.inner.bias
    hidden = hidden.where(hidden > 0, 0.2 * hidden)
    expected = hidden @ net.outer.weight.T + net.outer.bias
    mean, log_var = net(x, c)
    torch.testing.assert_close(torch.cat([mean, log_var], 1), expected)


def test_the_paper_s_table_3_vzsl_count_fits_these_layers_with_a_latent_of_312():
    """The reading of book/errata.md: encoder 2360→4096→312 (means only), decoder 624→4096→2048."""
    net = Autoencoder(312, 312, 2048, hidden=4096, encoder_hidden=4096)
    variances = 4096 * 312 + 312
    assert sum(p.numel() for p in net.parameters()) - variances == 21_899_576


def test_it_starts_close_to_the_prior():
    net = Encoder(K, D_Z, D_X, hidden=64, generator=rng())
    mean, log_var = net(torch.rand(20, D_X), torch.rand(20, K))
    assert mean.abs().max() < 0.05
    assert log_var.abs().max() < 0.05


@pytest.mark.parametrize("junk", [1e6, float("nan")])
def test_values_under_the_mask_do_not_matter(junk):
    net = Encoder(K, D_Z, D_X, hidden=11, generator=rng())
    x, c = torch.randn(4, D_X, generator=rng(1)), torch.randn(4, K, generator=rng(2))
    mask = torch.rand(4, D_X, generator=rng(3)) < 0.5
    clean, dirty = net(x, c, mask), net(x.where(mask, junk), c, mask)
    assert all(torch.equal(a, b) for a, b in zip(clean, dirty, strict=True))


def test_as_a_generator_it_is_the_papers_from_the_same_seed():
    both = Autoencoder(K, D_Z, D_X, hidden=11, encoder_hidden=6, generator=rng(4))
    alone = Generator(K, D_Z, D_X, hidden=11, generator=rng(4))
    c, z = torch.randn(4, K, generator=rng(1)), torch.randn(4, D_Z, generator=rng(2))
    assert torch.equal(both(c, z), alone(c, z))
    assert torch.equal(both.sample(c, 3, generator=rng(5)), alone.sample(c, 3, generator=rng(5)))
    mean, log_var = both.prior(c)
    assert mean.shape == log_var.shape == (4, D_Z)
    assert not mean.any()
    assert not log_var.any()
