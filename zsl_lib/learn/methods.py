"""The generative methods by name.

A line in :data:`METHODS` puts a method into the notebooks' parameters and the experiments of
``results/generative.py``, and so into every table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from typing import Any, NamedTuple

from zsl_lib.errors import DataError
from zsl_lib.learn.abp import ABP, ABPConfig
from zsl_lib.learn.gan import FeatureGAN, gan_config
from zsl_lib.learn.learner import FeatureLearner
from zsl_lib.learn.vae import CVAE, VZSL, CVAEConfig, VZSLConfig


class Method(NamedTuple):
    """A way to learn a generator of features.

    title: as tables print it. learner, config: the class and what makes its configuration, by default the
    published one. kept: settings that a shared setting of the same name does not change.
    """

    title: str
    learner: Callable[..., FeatureLearner]
    config: Callable[..., Any]
    kept: frozenset[str] = frozenset()

    def settings(self) -> set[str]:
        """The names of its hyper-parameters."""
        return {f.name for f in fields(self.config())}


# z is a GAN's noise and a likelihood model's latent factors, so a dimension for the one is none for the other
NOISE = frozenset({"latent_dim"})

METHODS: dict[str, Method] = {
    "abp": Method("ABP", ABP, ABPConfig),
    "cvae": Method("CVAE", CVAE, CVAEConfig),
    "vzsl": Method("VZSL", VZSL, VZSLConfig),
    "fgzsl": Method("FGZSL", FeatureGAN, partial(gan_config, "fgzsl"), NOISE),
    "gazsl": Method("GAZSL", FeatureGAN, partial(gan_config, "gazsl"), NOISE),
    "mcgzsl": Method("MCGZSL", FeatureGAN, partial(gan_config, "mcgzsl"), NOISE),
}


def learner(
    name: str,
    shared: Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
    device: str = "auto",
    **settings: Any,
) -> FeatureLearner:
    """The method of that name, ready to fit.

    Parameters
    ----------
    shared: settings for whichever method it is; those that it does not have, or keeps, are left out.
    settings: its own hyper-parameters, which override ``shared``.

    Raises
    ------
    DataError: no such method, a setting that it does not have, or a value out of its range.
    """
    if name not in METHODS:
        raise DataError("method", found=repr(name), expected=f"one of {', '.join(METHODS)}")
    method = METHODS[name]
    known = method.settings()
    if strange := sorted(set(settings) - known):
        raise DataError(f"{name}: settings", found=", ".join(strange), expected=", ".join(sorted(known)))
    taken = {k: v for k, v in (shared or {}).items() if k in known - method.kept}
    return method.learner(method.config(**(taken | settings)), seed=seed, device=device)
