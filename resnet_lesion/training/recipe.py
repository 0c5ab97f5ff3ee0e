"""How to train."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        epochs: Number of passes through the data.
        learning_rate: The highest learning rate.
        optimizer: A name that ``timm.optim.create_optimizer_v2`` takes; its ``sgd`` has Nesterov momentum.
        momentum: Momentum of the optimiser.
        weight_decay: Weight decay; biases and norms are left out, as timm does.
        scheduler: A name that ``timm.scheduler.create_scheduler_v2`` takes; it is stepped after every update.
        warmup_epochs: Number of epochs in which the learning rate rises.
        clip_gradient: Largest norm of the gradient of all parameters; None for no limit.
        ema_decay: Decay of the moving average of the weights that the model ends up with; None for no average.
        modules_per_batch: How many blocks, drawn at random for each mini-batch, are trained in it. The others are
            reduced to their shortcut: their branch is not computed. None for all. The running statistics of batch norms
            are then re-estimated after each epoch with all blocks in place, as training never sees the whole network.
        autocast: Whether to compute in bfloat16 where that is safe.
        seed: Seed of everything random. What is random in an epoch follows from the seed and the epoch's number.

    Raises:
        ValueError: If a number is out of bounds.

    References:
        Veit, Wilber & Belongie 2016, section 5, for training some random blocks (arXiv:1605.06431).

    Example:
        >>> import resnet_lesion as rl
        >>> rl.Recipe(epochs=30, modules_per_batch=23).learning_rate
        0.1
    """

    epochs: int = 100
    learning_rate: float = 0.1
    optimizer: str = "sgd"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    scheduler: str = "cosine"
    warmup_epochs: int = 0
    clip_gradient: float | None = None
    ema_decay: float | None = None
    modules_per_batch: int | None = None
    autocast: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ValueError(f"expected at least 1 epoch, got {self.epochs}.")
        if not 0 <= self.warmup_epochs < self.epochs:
            raise ValueError(f"expected warmup_epochs from 0 to {self.epochs - 1}, got {self.warmup_epochs}.")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"expected a learning rate above 0, got {self.learning_rate}.")
        for name, below in (("momentum", 1), ("weight_decay", math.inf), ("ema_decay", 1)):
            value = getattr(self, name)
            if value is not None and not 0 <= value < below:
                raise ValueError(f"expected {name}= from 0 to below {below}, got {value}.")
        if self.clip_gradient is not None and not self.clip_gradient > 0:
            raise ValueError(f"expected clip_gradient= above 0, or None for no limit, got {self.clip_gradient}.")
