r"""Learning the relation network of paper 2 on clean images: its Baseline, α = 1 in Eq. 4.

The loss of an image of the seen class y is Eq. 3 with the minus sign that it lacks,

.. math:: L = -\log p(c_y | x) = -r_y/\gamma + \log \sum_k \exp(r_k/\gamma) ,

over the seen prototypes alone, minimised by Adam on mini-batches, the backbone trained along.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zsl_lib.data.dataset import Images, ZSLDataset
from zsl_lib.errors import DataError, check_range
from zsl_lib.learn.learner import EpochLearner, _digest
from zsl_lib.models.backbone import extract, hangul_backbone
from zsl_lib.models.frozen import from_first_call, frozen
from zsl_lib.models.relation import Combine, RelationNetwork, unit_scale


@dataclass(frozen=True)
class RelationConfig:
    """Settings of :class:`RelationLearner`.

    Where they are not the paper's, the defaults were chosen on hangul's validation classes, by T1 and H.
    At the paper's rate and weight decay as many epochs suffice for the training classes and leave others
    near chance.

    embedding, attribute_hidden, hidden, combine, temperature: see
        :class:`~zsl_lib.models.relation.RelationNetwork`.
    lr, decay, every: Adam's rate, multiplied by ``decay`` after every ``every`` epochs. The paper's are
        1e-5, 0.9 and 10.
    backbone_lr: what the backbone's rate is multiplied by; it was trained before, the rest was not. The paper
        has one rate for all: 1.
    weight_decay: λ of Adam's ℓ2 term (the paper: 1e-5).
    batch_size: images a step; the paper does not say.
    epochs: the paper: 400.
    freeze: leave the backbone as it is. Its features are then computed once, before the first epoch.
    noise: images get uniform noise on [-noise, noise], in pixels of [0, 255], anew each time; 0: none.
    precision: ``"bfloat16"`` runs the network under autocast.
    """

    embedding: int = 512
    attribute_hidden: int = 400
    hidden: int = 400
    combine: Combine = "concatenation"
    temperature: float = 1.0
    lr: float = 1e-3
    decay: float = 0.9
    every: int = 10
    backbone_lr: float = 0.1
    weight_decay: float = 3e-3
    batch_size: int = 64
    epochs: int = 12
    freeze: bool = False
    noise: float = 0.0
    precision: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        check_range(self, 0, "lr", "backbone_lr", "temperature", "decay", above=True)
        check_range(self, 0, "weight_decay", "noise")
        whole = ("embedding", "attribute_hidden", "hidden", "every", "batch_size", "epochs")
        check_range(self, 1, *whole, whole=True)
        if self.precision not in ("float32", "bfloat16"):
            where = f"{type(self).__name__}.precision"
            raise DataError(where, found=self.precision, expected="float32 or bfloat16")


class RelationLearner(EpochLearner):
    """A relation network, learned from images of the seen classes: paper 2's Baseline.

    Parameters
    ----------
    config, seed, device: see :class:`~zsl_lib.learn.learner.EpochLearner`.
    backbone: the network that images go through first, of which a copy is trained;
        :func:`~zsl_lib.models.backbone.hangul_backbone` if None.

    After :meth:`fit`: ``net``, a :class:`~zsl_lib.models.relation.RelationNetwork` in evaluation mode, and
    ``history``: for each epoch its mean ``loss``, ``accuracy`` on the training batches as they came (among
    seen classes, in per cent) and ``lr``.

    A subclass that learns from something else than clean images overrides :meth:`_loss`.
    """

    Config: ClassVar[type] = RelationConfig
    NEEDS_PIXELS: ClassVar[bool] = False
    """Whether :meth:`_loss` needs images even where the backbone is frozen."""

    net: RelationNetwork

    def __init__(
        self,
        config: Any = None,
        *,
        seed: int = 0,
        device: str = "auto",
        backbone: nn.Module | None = None,
    ) -> None:
        super().__init__(config, seed=seed, device=device)
        self.backbone = backbone or hangul_backbone()

    def fit(self, dataset: ZSLDataset, **options: Any) -> Self:
        """Learn from the images of ``dataset.trainval``; see :meth:`EpochLearner.fit` for the options.

        A data set without images serves a frozen backbone: its features are taken for the backbone's.
        """
        return super().fit(dataset, **options)

    def score_function(self, semantics: Tensor) -> Callable[[Tensor], Tensor]:
        """x ↦ scores ``[n, C]`` for descriptions ``[C, K]``, differentiable in x, on the learner's device.

        x is what :meth:`RelationNetwork.forward` takes, pixels of [0, 255]. This is what attacks get: the
        network as it is at the first call, :func:`~zsl_lib.models.frozen.frozen`.
        """
        semantics = self._checked_semantics(semantics)
        return from_first_call(
            lambda x: frozen(self.net, lambda net: net(x, semantics)).compare_with(semantics)
        )

    @torch.no_grad()
    def scores(self, x: Tensor, semantics: Tensor, *, batch: int = 256) -> Tensor:
        """Scores ``[N, C]`` on the CPU of images ``[N, channels, h, w]`` and descriptions ``[C, K]``.

        Images are uint8 or float in pixels of [0, 255]. Features ``[N, width]`` do as well where the backbone
        was left as it is.

        Raises
        ------
        DataError: before :meth:`fit`, K is not that of the data learned from, or features where the backbone
            has learned.
        """
        semantics = self._checked_semantics(semantics)
        self._check_input(x, f"{type(self).__name__}.scores: x")
        with self._autocast():
            parts = [self.net(part.to(self.device), semantics).float().cpu() for part in x.split(batch)]
        return torch.cat(parts)

    @torch.no_grad()
    def image_embedding(self, x: Tensor) -> Tensor:
        """f ``[n, embedding]`` of images as :meth:`scores` takes them, on the learner's device.

        Raises
        ------
        DataError: before :meth:`fit`, or features where the backbone has learned.
        """
        self._check_fitted(f"{type(self).__name__}.image_embedding")
        self._check_input(x, f"{type(self).__name__}.image_embedding: x")
        return self.net.image_embedding(x.to(self.device))

    def _loss(self, images: Tensor, labels: Tensor, semantics: Tensor) -> tuple[Tensor, Tensor]:
        """The mean loss of a batch, and its scores ``[n, S]`` for ``history``.

        images: uint8 ``[n, channels, h, w]`` on the device (features ``[n, width]`` where the backbone is
        frozen and :attr:`NEEDS_PIXELS` is False). labels: int64 ``[n]``, rows of semantics ``[S, K]``.
        """
        scores = self.net(self._noisy(images), semantics)
        return F.cross_entropy(scores.float(), labels), scores

    def _noisy(self, images: Tensor) -> Tensor:
        if self.config.noise == 0 or images.ndim == 2:
            return images
        noise = torch.rand(images.shape, generator=self._rng, device=images.device)
        return (images + self.config.noise * (2 * noise - 1)).clamp(0, 255)

    def _epoch(self, data: SeenImages) -> dict[str, float]:
        k, found = self.config, torch.zeros(2, device=self.device)
        lr = k.lr * k.decay ** (len(self.history) // k.every)
        for group in self._adam.param_groups:
            group["lr"] = lr * group["share"]
        self.net.train()
        if k.freeze:
            self.net.backbone.eval()
        order = torch.randperm(len(data.labels), generator=self._rng, device=self.device)
        for index in order.split(k.batch_size):
            images, labels = data.batch(index)
            with self._autocast():
                loss, scores = self._loss(images, labels, data.semantics)
            self._adam.zero_grad()
            loss.backward()
            self._adam.step()
            right = (scores.detach().argmax(1) == labels).sum()
            found += torch.stack([loss.detach() * len(index), right])
        self.net.eval()
        loss, right = (found / len(order)).tolist()
        return {"loss": loss, "accuracy": 100 * right, "lr": lr}

    def _training(self, dataset: ZSLDataset) -> SeenImages:
        x = dataset.images if self._pixels or dataset.images is not None else dataset.features
        if x is None:
            hint = "load(..., images=True); features serve a frozen backbone alone"
            raise DataError(
                f"{dataset.name}: images", found="none", expected="images [N, c, h, w]", hint=hint
            )
        return SeenImages(dataset, x, self.device)

    def _start(self, data: SeenImages) -> None:
        k, rng = self.config, torch.Generator().manual_seed(self.seed)
        net = RelationNetwork(
            deepcopy(self.backbone),
            data.semantics.shape[1],
            embedding=k.embedding,
            attribute_hidden=k.attribute_hidden,
            hidden=k.hidden,
            combine=k.combine,
            temperature=k.temperature,
            attribute_scale=unit_scale(data.semantics),
            generator=rng,
        )
        net.backbone.requires_grad_(not k.freeze)
        self.net = net.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._rng = torch.Generator(self.device).manual_seed(self.seed)
        heads = [p for name, p in self.net.named_parameters() if not name.startswith("backbone.")]
        groups: list[dict[str, Any]] = [{"params": heads, "share": 1.0}]
        if not k.freeze:
            groups.append({"params": list(self.net.backbone.parameters()), "share": k.backbone_lr})
        self._adam = torch.optim.Adam(groups, lr=k.lr, weight_decay=k.weight_decay, fused=True)
        self.history = []
        self._data_digest = _digest(*self.net.state_dict().values()) + data.digest
        if k.freeze and data.x.ndim == 4 and not self._pixels:
            data.x = extract(self.net.backbone, data.x, self.device)

    @property
    def _pixels(self) -> bool:
        """Whether a step needs images, not features."""
        return not self.config.freeze or self.NEEDS_PIXELS or self.config.noise > 0

    def _autocast(self) -> torch.autocast:
        low = self.config.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=low)

    def _check_fitted(self, where: str) -> None:
        if not hasattr(self, "net"):
            raise DataError(where, found="no network", expected="fit() before")

    def _check_input(self, x: Tensor, where: str) -> None:
        if x.ndim == 2 and not self.config.freeze:
            hint = "dataclasses.replace(dataset, features=None)"
            found, expected = "features", "images, since the backbone has learned"
            raise DataError(where, found=found, expected=expected, hint=hint)

    def _checked_semantics(self, semantics: Tensor) -> Tensor:
        where = f"{type(self).__name__}.scores"
        self._check_fitted(where)
        known = self.net.attributes[0].in_features
        if semantics.ndim != 2 or semantics.shape[1] != known:
            found = f"shape {tuple(semantics.shape)}"
            raise DataError(f"{where}: semantics", found=found, expected=f"[C, {known}]")
        return semantics.to(self.device)


class SeenImages:
    """What is learned from: images or features of ``trainval``, seen semantics ``[S, K]``, their points.

    Images are read once and stay in memory as bytes, on the CPU; a batch goes to the device.
    """

    def __init__(self, dataset: ZSLDataset, x: Images | Tensor, device: torch.device) -> None:
        index = dataset.trainval
        self.x, self.device = x[index], device
        self.labels = torch.searchsorted(dataset.seen, dataset.labels[index]).to(device)
        self.semantics = dataset.semantics[dataset.seen].to(device)
        self.points = None if dataset.points is None else dataset.points[dataset.seen].to(device)
        self.digest = _digest(self.x, self.labels, self.semantics)

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Images and classes (rows of the seen semantics) at ``index``, on the device."""
        return self.x[index.to(self.x.device)].to(self.device, non_blocking=True), self.labels[index]
