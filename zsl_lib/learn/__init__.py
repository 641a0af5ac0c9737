"""Learning algorithms: how the models of :mod:`zsl_lib.models` are fitted."""

from zsl_lib.learn.abp import ABP, ABPConfig
from zsl_lib.learn.langevin import Chain, langevin, mala

__all__ = ["ABP", "ABPConfig", "Chain", "langevin", "mala"]
