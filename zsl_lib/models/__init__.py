"""Networks and densities: what is learned, without how."""

from zsl_lib.models.encoder import Autoencoder, ClassAutoencoder, Encoder
from zsl_lib.models.generator import Generator, log_joint, log_likelihood, log_prior

__all__ = [
    "Autoencoder",
    "ClassAutoencoder",
    "Encoder",
    "Generator",
    "log_joint",
    "log_likelihood",
    "log_prior",
]
