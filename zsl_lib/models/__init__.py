"""Networks and densities: what is learned, without how."""

from zsl_lib.models.generator import Generator, log_joint

__all__ = ["Generator", "log_joint"]
