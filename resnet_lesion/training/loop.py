"""Training: one loop on timm's optimisers, schedulers and moving averages, with whole blocks left out if wanted."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Iterator, Sized
from contextlib import contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from resnet_lesion.network.isolation import isolated, preserved_flags, preserved_randomness
from resnet_lesion.network.residual_network import ResidualNetwork, wrap
from resnet_lesion.results.provenance import layer_coords, origin
from resnet_lesion.results.storage import whole_file
from resnet_lesion.results.variables import provenance, variable
from resnet_lesion.runs.data import IGNORE_INDEX, Data, batches, is_one_batch, refuse_one_shot
from resnet_lesion.training.recipe import Recipe

if TYPE_CHECKING:
    from timm.scheduler.scheduler import Scheduler
    from timm.utils import ModelEmaV3


_CALIBRATION_BATCHES = 50


def train(
    model: nn.Module | ResidualNetwork,
    data: Data,
    recipe: Recipe | None = None,
    *,
    validation: Data | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    show_progress: bool = True,
) -> xr.Dataset:
    """Train a model in place.

    Args:
        model: A model with known residual blocks, on its device.
        data: An iterable of batches ``(inputs, targets)`` that can be iterated over once for each epoch, such as a
            DataLoader with ``shuffle=True``. Its workers must not outlive an epoch (``persistent_workers=False``), and
            it must draw from torch's global generator, or a resumed run sees other images.
        recipe: How; default ``Recipe()``.
        validation: What to evaluate the model on after each epoch.
        checkpoint: A file to write after each epoch, atomically; its folder is made if there is none. If the file
            exists, training resumes from it and gives the losses of an uninterrupted run. With more epochs than it was
            meant for it continues, with a warning: the epochs that are left follow the schedule of the new number. The
            learning rate jumps to where a training of that many epochs would have it, so the result is another than
            that training's.
        show_progress: Show a progress bar.

    Returns:
        The curves: ``train_loss``, ``learning_rate``, ``validation_loss`` and ``validation_error`` (epoch), and
        ``n_batches`` (layer), the number of mini-batches that trained each block. The validation variables are missing
        without validation data. The attribute ``continued`` says after which epochs more were asked for, if ever.

    Raises:
        ValueError: If the recipe does not fit the model, the data is empty, the loss is no longer finite, the
            checkpoint is of another recipe, or with a checkpoint the data is a loader with a generator of its own.
        OSError: If the checkpoint cannot be written. Nothing has been trained if its folder is to blame.

    Example:
        >>> import resnet_lesion as rl, timm, torch
        >>> model = timm.create_model("cifar_preactresnet38")
        >>> batches = [(torch.randn(4, 3, 8, 8), torch.arange(4))]
        >>> log = rl.train(model, batches, rl.Recipe(epochs=2, modules_per_batch=9), show_progress=False)
        >>> log.train_loss.sizes["epoch"], int(log.n_batches.sum())
        (2, 18)
    """
    network, recipe = wrap(model), recipe or Recipe()
    refuse_one_shot(data)
    if checkpoint is not None and getattr(data, "generator", None) is not None:
        raise ValueError(
            "expected a loader without a generator of its own, which a run resumed from a checkpoint would draw "
            "from differently. Leave generator= out: torch.manual_seed seeds the global one."
        )
    draws = _Draws(network, recipe)
    with preserved_randomness(), preserved_flags(network.model):
        training = _Training(network, recipe, _n_batches(data))
        if checkpoint is not None:
            training.resume(Path(checkpoint))
        epochs = tqdm(
            range(training.epoch, recipe.epochs),
            initial=training.epoch,
            total=recipe.epochs,
            unit="epoch",
            disable=not show_progress,
        )
        for epoch in epochs:
            training.train_one_epoch(data, draws)
            if recipe.modules_per_batch is not None:
                training.calibrate(data)
            if validation is not None:
                training.evaluate(validation)
            if checkpoint is not None:
                training.save(Path(checkpoint))
            epochs.set_postfix({name: f"{values[epoch]:.4f}" for name, values in training.curves.items() if values})
        training.finish()
    return _log(network, recipe, training, draws)


class _Draws:
    """Which blocks each mini-batch trains; reproducible from (seed, epoch, step) alone."""

    def __init__(self, network: ResidualNetwork, recipe: Recipe) -> None:
        self._network, self._seed, self._k = network, recipe.seed, recipe.modules_per_batch
        n = len(network)
        if self._k is not None:
            network.require_skips()
            if not 1 <= self._k <= n:
                raise ValueError(f"expected modules_per_batch from 1 to {n}, the number of blocks, got {self._k}.")

    def trained(self, epoch: int, step: int) -> NDArray[np.bool_]:
        """Tell of each block whether this mini-batch trains it: (n_blocks,)."""
        chosen = np.ones(len(self._network), dtype=bool)
        if self._k is not None:
            random = np.random.default_rng([self._seed, epoch, step])
            chosen[random.permutation(len(chosen))[self._k :]] = False
        return chosen

    @contextmanager
    def applied(self, epoch: int, step: int) -> Iterator[None]:
        """Reduce the other blocks to their shortcut."""
        if self._k is None:
            yield
            return
        left_out = np.flatnonzero(~self.trained(epoch, step))
        with self._network.lesioned(delete=left_out.tolist()):
            yield


class _Training:
    """The state of a training, and what one epoch does to it."""

    def __init__(self, network: ResidualNetwork, recipe: Recipe, n_batches: int) -> None:
        from timm.optim import create_optimizer_v2
        from timm.scheduler import create_scheduler_v2
        from timm.utils import ModelEmaV3

        self._network, self._recipe, self.n_batches = network, recipe, n_batches
        self._model = network.model
        self.epoch = 0
        self.continued: list[str] = []
        self.curves: dict[str, list[float]] = {
            name: [] for name in ("train_loss", "learning_rate", "validation_loss", "validation_error")
        }
        self._optimizer = create_optimizer_v2(
            self._model,
            opt=recipe.optimizer,
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
        )
        self._scheduler: Scheduler | None
        self._scheduler, _ = create_scheduler_v2(
            self._optimizer,
            sched=recipe.scheduler,
            num_epochs=recipe.epochs,
            warmup_epochs=recipe.warmup_epochs,
            step_on_epochs=False,
            updates_per_epoch=n_batches,
        )
        self._average: ModelEmaV3 | None = (
            ModelEmaV3(self._model, decay=recipe.ema_decay, use_warmup=True) if recipe.ema_decay is not None else None
        )

    def train_one_epoch(self, data: Data, draws: _Draws) -> None:
        """Train on the data for one epoch."""
        from timm.utils import dispatch_clip_grad, random_seed

        random_seed(_epoch_seed(self._recipe.seed, self.epoch))
        self._model.train()
        losses: list[Tensor] = []
        rate = self._optimizer.param_groups[0]["lr"]
        for step, (inputs, targets) in enumerate(batches(data)):
            if step == self.n_batches:
                raise ValueError(f"expected {self.n_batches} batches in every epoch, as in the first, got more.")
            inputs = self._network.to_device(inputs)
            targets = targets.to(self._network.device, non_blocking=True)
            with draws.applied(self.epoch, step), self._autocast():
                loss = F.cross_entropy(self._model(inputs), targets)
            self._optimizer.zero_grad()
            loss.backward()
            if self._recipe.clip_gradient is not None:
                dispatch_clip_grad(self._model.parameters(), self._recipe.clip_gradient)
            self._optimizer.step()
            updates = self.epoch * self.n_batches + step + 1
            if self._scheduler is not None:
                self._scheduler.step_update(num_updates=updates)
            if self._average is not None:
                self._average.update(self._model, step=updates)
            losses.append(loss.detach())
        loss_of_epoch = float(torch.stack(losses).mean())
        if not np.isfinite(loss_of_epoch):
            raise ValueError(
                f"the loss is no longer finite in epoch {self.epoch + 1}. Try a lower learning rate, warm-up epochs, "
                "or clip_gradient=."
            )
        self.curves["train_loss"].append(loss_of_epoch)
        self.curves["learning_rate"].append(rate)
        self.epoch += 1

    def calibrate(self, data: Data) -> None:
        """Re-estimate the running statistics of batch norms with all blocks in place."""
        from torch.optim.swa_utils import update_bn

        model = self._result
        few = islice(batches(data), _CALIBRATION_BATCHES)
        update_bn((self._network.to_device(inputs) for inputs, _ in few), model)

    @property
    def _result(self) -> nn.Module:
        """The model that is evaluated, and whose weights remain at the end."""
        return self._model if self._average is None else self._average.module

    def evaluate(self, validation: Data) -> None:
        """Evaluate the whole network, or its moving average."""
        model = self._result
        loss, correct, total = (torch.zeros((), dtype=torch.float64, device=self._network.device) for _ in range(3))
        with isolated(model), torch.no_grad(), self._autocast():
            for inputs, targets in batches(validation):
                targets = targets.to(self._network.device, non_blocking=True)
                output = model(self._network.to_device(inputs)).float()
                loss += F.cross_entropy(output, targets, reduction="sum")
                correct += (output.argmax(1) == targets).sum()
                total += (targets != IGNORE_INDEX).sum()
        self.curves["validation_loss"].append(float(loss / total))
        self.curves["validation_error"].append(float(1 - correct / total))

    def finish(self) -> None:
        """Leave the model with the weights that were evaluated."""
        if self._average is not None:
            self._model.load_state_dict(self._average.module.state_dict())

    def save(self, path: Path) -> None:
        """Write everything that the next epoch depends on; the file is complete or does not exist."""
        state: dict[str, Any] = {
            "recipe": self._fingerprint(),
            "epoch": self.epoch,
            "continued": self.continued,
            "curves": self.curves,
            "model": self._model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "average": None if self._average is None else self._average.module.state_dict(),
        }
        path.parent.mkdir(parents=True, exist_ok=True)  # somebody may have deleted it since
        with whole_file(path) as temporary:
            try:
                torch.save(state, temporary)
            except RuntimeError as error:  # what torch raises on a full disk
                raise OSError(f"{str(path)!r} cannot be written: {error!s:.200} Is the disk full?") from error

    def resume(self, path: Path) -> None:
        """Go on where another run stopped, if it left this file; else make the folder that it will be written to."""
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            return
        try:
            state = torch.load(path, map_location=self._network.device, weights_only=True)
        except Exception as error:  # whatever a file of another kind makes torch raise
            raise ValueError(f"{str(path)!r} is no checkpoint of a training: {error!s:.200}") from error
        saved, own = state.get("recipe", {}) if isinstance(state, dict) else {}, self._fingerprint()
        planned, wanted = saved.get("epochs", 0), self._recipe.epochs
        if saved != {**own, "epochs": planned} or planned > wanted:
            differing = ", ".join(f"{key}={saved.get(key)!r}" for key in own if saved.get(key) != own[key])
            raise ValueError(
                f"the checkpoint {str(path)!r} is of another training: {differing}. Resume with the same model, data "
                "and recipe, in which only epochs may be more, or write to another file."
            )
        self._model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        if self._average is not None:
            self._average.module.load_state_dict(state["average"])
        self.curves, self.epoch, self.continued = state["curves"], state["epoch"], state.get("continued", [])
        if planned < wanted:
            self._follow_the_longer_schedule(planned)

    def _follow_the_longer_schedule(self, planned: int) -> None:
        """Set the learning rate to where the schedule of more epochs than were planned is now."""
        if self._scheduler is not None:
            self._scheduler.step_update(num_updates=self.epoch * self.n_batches)
        self.continued.append(f"after epoch {self.epoch} of {planned}")
        warnings.warn(
            f"continues a training after epoch {self.epoch} of {planned}. The other epochs follow the schedule of "
            f"{self._recipe.epochs}, from a learning rate of {self._optimizer.param_groups[0]['lr']:.4g} on, so "
            "the result is another than if as many had been asked for from the beginning.",
            stacklevel=4,
        )

    def _fingerprint(self) -> dict[str, Any]:
        return {
            **dataclasses.asdict(self._recipe),
            "batches in an epoch": self.n_batches,
            "numbers in the model": sum(tensor.numel() for tensor in self._model.state_dict().values()),
        }

    def _autocast(self) -> Any:
        if not self._recipe.autocast:
            return nullcontext()
        return torch.autocast(self._network.device.type, torch.bfloat16)


def _epoch_seed(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])


def _n_batches(data: Data) -> int:
    return 1 if is_one_batch(data) else len(data) if isinstance(data, Sized) else sum(1 for _ in batches(data))


def _log(network: ResidualNetwork, recipe: Recipe, training: _Training, draws: _Draws) -> xr.Dataset:
    units = {"train_loss": "nat", "validation_loss": "nat"}
    names = {
        "train_loss": "mean cross-entropy over the mini-batches of the epoch",
        "learning_rate": "learning rate at the beginning of the epoch",
        "validation_loss": "mean cross-entropy of the whole network on the validation data",
        "validation_error": "share of the validation images that the whole network gets wrong",
    }
    counts = np.zeros(len(network), dtype=np.int64)
    for epoch in range(recipe.epochs):
        for step in range(training.n_batches):
            counts += draws.trained(epoch, step)
    curves = {
        name: variable(("epoch",), values, names[name], units.get(name, "1"))
        for name, values in training.curves.items()
        if values
    }
    log = xr.Dataset(
        {**curves, "n_batches": variable(("layer",), counts, "number of mini-batches that trained the block")},
        {
            "epoch": variable(("epoch",), np.arange(1, recipe.epochs + 1), "number of passes through the data"),
            **layer_coords(network),
        },
    )
    if training.continued:
        log.attrs["continued"] = ", ".join(training.continued)
    return provenance(log, origin(network, "Training", dataclasses.asdict(recipe)))
