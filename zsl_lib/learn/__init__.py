"""Learning algorithms: how the models of :mod:`zsl_lib.models` are fitted."""

from zsl_lib.learn.abp import ABP, ABPConfig
from zsl_lib.learn.gan import FeatureGAN, GANConfig, gan_config
from zsl_lib.learn.langevin import Chain, langevin, mala
from zsl_lib.learn.vae import CVAE, VZSL, CVAEConfig, VZSLConfig

__all__ = [
    "ABP",
    "CVAE",
    "VZSL",
    "ABPConfig",
    "CVAEConfig",
    "Chain",
    "FeatureGAN",
    "GANConfig",
    "VZSLConfig",
    "gan_config",
    "langevin",
    "mala",
]
