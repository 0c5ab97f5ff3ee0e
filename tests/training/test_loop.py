import dataclasses
import json
import shutil

import numpy as np
import pytest
import timm
import torch
import xarray as xr
from helpers import models
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import resnet_lesion as rl
from resnet_lesion.training import loop as training

QUIET = {"show_progress": False}


def batches(n=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(6, 3, 6, 6, generator=generator, dtype=torch.float64), torch.arange(6) % models.N_CLASSES)
        for _ in range(n)
    ]


def shuffled():
    """A loader whose order and images are random, as in real training."""
    inputs, targets = (torch.cat(parts) for parts in zip(*batches(), strict=True))

    def noisy(samples):
        images, labels = zip(*samples, strict=True)
        return torch.stack(images) + 0.1 * torch.randn(len(images), 3, 6, 6), torch.stack(labels)

    return DataLoader(TensorDataset(inputs, targets), 6, shuffle=True, collate_fn=noisy)


def fresh(case="pre-activation"):
    return models.build(case)


def same(state, other):
    return all(torch.equal(a, b) for a, b in zip(state.values(), other.values(), strict=True))


def naive_losses(model, recipe, data, planned=None):
    """Train by hand: torch's own SGD without decay of biases and norms, the cosine by its formula.

    ``planned`` says for each epoch how many were planned then; else all of the recipe's.
    """
    planned = planned or [recipe.epochs] * recipe.epochs
    network = rl.wrap(model)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": others, "weight_decay": 0.0}, {"params": decayed, "weight_decay": recipe.weight_decay}]
    optimizer = torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=True)
    model.train()
    losses = []
    for epoch in range(recipe.epochs):
        total = 0.0
        for step, (inputs, targets) in enumerate(data):
            done = (epoch * len(data) + step) / (planned[epoch] * len(data))
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * (1 + np.cos(np.pi * done)) / 2
            if recipe.modules_per_batch is not None:
                k = recipe.modules_per_batch
                trained = np.random.default_rng([recipe.seed, epoch, step]).permutation(len(network))[:k]
                handles = []
                for i, block in enumerate(network.blocks):
                    factor = 1.0 if i in trained else 0.0
                    exit_ = block.module.get_submodule(block.branch.exit)
                    handles.append(exit_.register_forward_hook(lambda _m, _a, out, factor=factor: out * factor))
            loss = F.cross_entropy(model(inputs), targets)
            if recipe.modules_per_batch is not None:
                for handle in handles:
                    handle.remove()
            optimizer.zero_grad()
            loss.backward()
            if recipe.modules_per_batch is not None:
                for i, block in enumerate(network.blocks):
                    if i not in trained:  # nothing runs there, so nothing has a gradient
                        skip = (
                            set(block.module.get_submodule(block.branch.shortcut).parameters())
                            if isinstance(block.branch.shortcut, str)
                            else set()
                        )
                        if isinstance(block.branch.preact, str):
                            skip |= set(block.module.get_submodule(block.branch.preact).parameters())
                        for parameter in set(block.module.parameters()) - skip:
                            parameter.grad = None
            optimizer.step()
            total += loss.item()
        losses.append(total / len(data))
    return losses


def without_norms(case):
    """A branch that is computed updates the running statistics of its norms; leave them out of the comparison."""
    model = fresh(case)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.0
    return model


@pytest.mark.parametrize("case", ["pre-activation", "post-activation"])
@pytest.mark.parametrize("options", [{}, {"modules_per_batch": 2}, {"modules_per_batch": 4}])
def test_losses_equal_training_by_hand(case, options):
    recipe = rl.Recipe(epochs=3, learning_rate=0.05, seed=3, **options)
    log = rl.train(without_norms(case), batches(), recipe, **QUIET)
    np.testing.assert_allclose(log.train_loss, naive_losses(without_norms(case), recipe, batches()), rtol=1e-9)


def test_left_out_branches_are_not_computed_and_not_changed():
    model = fresh()
    network = rl.wrap(model)
    ran = []
    for i, block in enumerate(network.blocks):
        block.module.conv2.register_forward_hook(lambda _m, _a, _o, i=i: ran.append(i))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    recipe = rl.Recipe(epochs=1, modules_per_batch=2, weight_decay=0.0)
    log = rl.train(model, batches(1), recipe, **QUIET)
    trained, afterwards = ran[:2], ran[2:]
    assert log.n_batches.values.nonzero()[0].tolist() == trained
    assert afterwards == list(range(6))  # for the running statistics
    for i, block in enumerate(network.blocks):
        key = f"{block.layer}.conv2.weight"
        assert torch.equal(before[key], model.state_dict()[key]) == (i not in trained)


def test_path_lengths_in_training_are_binomial():
    """A mini-batch that trains K blocks has the 2^K paths of a network of K blocks: of each length, K choose it."""
    network = rl.wrap(timm.create_model("cifar_preactresnet110"))
    k, n_steps = 23, 4000
    draws = training._Draws(network, rl.Recipe(modules_per_batch=k))
    trained = np.array([draws.trained(0, step) for step in range(n_steps)])
    assert (trained.sum(1) == k).all()
    # every path through those blocks, one at random for each mini-batch
    lengths = (trained & np.random.default_rng(0).integers(0, 2, trained.shape).astype(bool)).sum(1)
    measured = np.bincount(lengths, minlength=k + 1)[: k + 1]
    expected = n_steps * np.array([float(share) for share in rl.path_fraction(k)])
    common = expected > 5
    chi2 = ((measured - expected)[common] ** 2 / expected[common]).sum()
    assert chi2 < 2 * common.sum()  # its mean is one for each length, less one
    # each block as often as any other: four standard errors
    assert abs(trained.mean(0) - k / 54).max() < 4 * (k / 54 * (1 - k / 54) / n_steps) ** 0.5


@pytest.mark.parametrize("options", [{}, {"modules_per_batch": 3}, {"ema_decay": 0.9}, {"warmup_epochs": 1}])
@pytest.mark.parametrize("stop", [1, 3])
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, monkeypatch, options, stop):
    recipe = rl.Recipe(epochs=4, learning_rate=0.02, seed=1, **options)
    whole = fresh()
    expected = rl.train(whole, shuffled(), recipe, validation=batches(1, seed=9), **QUIET)

    original = training._Training.train_one_epoch

    def interrupted(self, data, draws):
        if self.epoch == stop:
            raise KeyboardInterrupt
        original(self, data, draws)

    checkpoint = tmp_path / "checkpoint.pt"
    with monkeypatch.context() as patch:
        patch.setattr(training._Training, "train_one_epoch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            rl.train(fresh(), shuffled(), recipe, validation=batches(1, seed=9), checkpoint=checkpoint, **QUIET)
    torch.randn(17)  # what the random state is in between does not matter
    resumed = fresh()
    with torch.no_grad():
        next(resumed.parameters()).zero_()  # nor do the weights
    log = rl.train(resumed, shuffled(), recipe, validation=batches(1, seed=9), checkpoint=checkpoint, **QUIET)
    for name in ("train_loss", "learning_rate", "validation_loss", "validation_error", "n_batches"):
        np.testing.assert_array_equal(log[name], expected[name])
    assert same(whole.state_dict(), resumed.state_dict())
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_finished_run_is_not_repeated(tmp_path):
    recipe = rl.Recipe(epochs=2)
    first = rl.train(fresh(), batches(), recipe, checkpoint=tmp_path / "c.pt", **QUIET)
    model = fresh()
    again = rl.train(model, batches(), recipe, checkpoint=tmp_path / "c.pt", **QUIET)
    np.testing.assert_array_equal(first.train_loss, again.train_loss)
    assert again.attrs["weights_sha256"] == first.attrs["weights_sha256"]


@pytest.mark.parametrize("options", [{}, {"modules_per_batch": 2}])
def test_more_epochs_follow_the_schedule_of_their_number(tmp_path, options):
    def recipe(epochs):
        return rl.Recipe(epochs=epochs, learning_rate=0.05, seed=3, **options)

    how = {"checkpoint": tmp_path / "c.pt", **QUIET}
    first = rl.train(without_norms("pre-activation"), batches(), recipe(2), **how)
    assert "continued" not in first.attrs
    with pytest.warns(UserWarning, match=r"after epoch 2 of 2\. .* of 4, from a learning rate of 0\.025 "):
        log = rl.train(without_norms("pre-activation"), batches(), recipe(4), **how)
    expected = naive_losses(without_norms("pre-activation"), recipe(4), batches(), planned=[2, 2, 4, 4])
    np.testing.assert_allclose(log.train_loss, expected, rtol=1e-9)
    np.testing.assert_array_equal(log.train_loss[:2], first.train_loss)
    np.testing.assert_allclose(log.learning_rate, [0.05, 0.025, 0.025, 0.05 * (1 + np.cos(np.pi * 0.75)) / 2])
    assert log.n_batches.sum() == 4 * 4 * (options.get("modules_per_batch") or log.sizes["layer"])
    assert log.attrs["continued"] == "after epoch 2 of 2"
    with pytest.warns(UserWarning, match="after epoch 4 of 4"):
        log = rl.train(without_norms("pre-activation"), batches(), recipe(5), **how)
    assert log.attrs["continued"] == "after epoch 2 of 2, after epoch 4 of 4"
    with pytest.raises(ValueError, match=r"is of another training: epochs=5\. Resume with the same"):
        rl.train(fresh(), batches(), recipe(4), **how)


@pytest.mark.parametrize("options", [{}, {"ema_decay": 0.9}, {"warmup_epochs": 1}, {"scheduler": "none"}])
def test_a_continued_run_that_was_stopped_is_the_uninterrupted_one(tmp_path, monkeypatch, options):
    def recipe(epochs):
        return rl.Recipe(epochs=epochs, learning_rate=0.02, seed=1, **options)

    def interrupted(self, data, draws):
        if self.epoch == 3:
            raise KeyboardInterrupt
        original(self, data, draws)

    def more(how):
        with pytest.warns(UserWarning, match="continues a training after epoch 2 of 2"):
            return rl.train(fresh(), shuffled(), recipe(4), **how)

    whole, stopped = ({"checkpoint": tmp_path / name, **QUIET} for name in ("whole.pt", "stopped.pt"))
    for how in (whole, stopped):
        rl.train(fresh(), shuffled(), recipe(2), **how)
    log, original = more(whole), training._Training.train_one_epoch
    with monkeypatch.context() as patch:
        patch.setattr(training._Training, "train_one_epoch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            more(stopped)
    resumed = rl.train(fresh(), shuffled(), recipe(4), **stopped)  # says nothing: it only resumes
    xr.testing.assert_equal(resumed, log)
    assert resumed.attrs["continued"] == log.attrs["continued"] == "after epoch 2 of 2"
    assert resumed.attrs["weights_sha256"] == log.attrs["weights_sha256"]


def test_a_checkpoint_whose_folder_is_deleted_in_between_is_written_again(tmp_path):
    path = tmp_path / "some" / "folder" / "c.pt"

    class Deleting(list):
        def __iter__(self):
            shutil.rmtree(tmp_path / "some")
            return super().__iter__()

    log = rl.train(fresh(), Deleting(batches()), rl.Recipe(epochs=2), checkpoint=path, **QUIET)
    assert log.sizes["epoch"] == 2
    rl.train(fresh(), batches(), rl.Recipe(epochs=2), checkpoint=path, **QUIET)  # resumes from its end


def test_a_checkpoint_that_cannot_be_written_is_said(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    ran = []
    model = fresh()
    model.register_forward_pre_hook(lambda *_: ran.append(1))
    with pytest.raises(OSError, match="file"):
        rl.train(model, batches(), rl.Recipe(epochs=1), checkpoint=tmp_path / "file" / "c.pt", **QUIET)
    assert not ran

    def full(*_):
        raise RuntimeError("PytorchStreamWriter failed writing file data/3: file write failed")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match=r"c\.pt' cannot be written: .* Is the disk full\?"):
        rl.train(model, batches(), rl.Recipe(epochs=1), checkpoint=tmp_path / "c.pt", **QUIET)


def test_everything_else_is_left_as_it_was():
    model = fresh()
    flags = [module.training for module in model.modules()]
    hooks = [len(module._forward_hooks) for module in model.modules()]
    random = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    rl.train(model, shuffled(), rl.Recipe(epochs=1, modules_per_batch=2), **QUIET)
    assert [module.training for module in model.modules()] == flags
    assert [len(module._forward_hooks) for module in model.modules()] == hooks
    assert not any("forward" in vars(module) for module in model.modules())
    assert torch.equal(torch.get_rng_state(), random[0])
    assert np.random.get_state()[1].tolist() == random[1]  # noqa: NPY002


def test_moving_average_is_what_is_left():
    plain, averaged = fresh(), fresh()
    rl.train(plain, batches(), rl.Recipe(epochs=2), **QUIET)
    rl.train(averaged, batches(), rl.Recipe(epochs=2, ema_decay=0.99), **QUIET)
    assert not same(plain.state_dict(), averaged.state_dict())


def test_validation_is_of_the_whole_network():
    model = fresh()
    validation = batches(2, seed=5)
    log = rl.train(model, batches(), rl.Recipe(epochs=2, modules_per_batch=2), validation=validation, **QUIET)
    with torch.no_grad():
        output, targets = torch.cat([model(x) for x, _ in validation]), torch.cat([y for _, y in validation])
    assert float(log.validation_loss[-1]) == pytest.approx(float(F.cross_entropy(output, targets)))
    assert float(log.validation_error[-1]) == pytest.approx(float((output.argmax(1) != targets).double().mean()))
    assert log.validation_loss.attrs["units"] == "nat"


def test_running_statistics_are_those_of_the_whole_network():
    data = batches(3)
    model = fresh()
    rl.train(model, data, rl.Recipe(epochs=2, modules_per_batch=2), **QUIET)
    norm = model.stage2[2].act[0]
    running_mean, seen = norm.running_mean.clone(), []
    norm.register_forward_pre_hook(lambda _module, args: seen.append(args[0].mean((0, 2, 3))))
    model.train()
    with torch.no_grad():
        for inputs, _ in data:
            model(inputs)
    torch.testing.assert_close(running_mean, torch.stack(seen).mean(0))


def test_a_plain_network_is_trained_whole():
    model = timm.create_model("cifar_vgg15_bn", num_classes=models.N_CLASSES).double()
    log = rl.train(model, batches(1), rl.Recipe(epochs=1), **QUIET)
    assert log.sizes == {"epoch": 1, "layer": 14}
    with pytest.raises(ValueError, match="has no skip"):
        rl.train(model, batches(1), rl.Recipe(epochs=1, modules_per_batch=3), **QUIET)


def test_autocast():
    model = fresh().float()
    data = [(inputs.float(), targets) for inputs, targets in batches()]
    seen = []
    model.head.register_forward_hook(lambda _m, _a, output: seen.append(output.dtype))
    rl.train(model, data, rl.Recipe(epochs=1, autocast=True), **QUIET)
    assert set(seen) == {torch.bfloat16}
    assert next(model.parameters()).dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modules_per_batch": 7}, "expected modules_per_batch from 1 to 6, the number of blocks, got 7"),
        ({"modules_per_batch": 0}, "expected modules_per_batch from 1 to 6, the number of blocks, got 0"),
    ],
)
def test_recipes_that_do_not_fit_the_network(options, message):
    with pytest.raises(ValueError, match=message):
        rl.train(fresh(), batches(), rl.Recipe(**options), **QUIET)


def test_wrong_checkpoints(tmp_path):
    path = tmp_path / "c.pt"
    rl.train(fresh(), batches(), rl.Recipe(epochs=1), checkpoint=path, **QUIET)
    with pytest.raises(ValueError, match=r"is of another training: learning_rate=0\.1\. Resume with the same"):
        rl.train(fresh(), batches(), rl.Recipe(epochs=1, learning_rate=0.2), checkpoint=path, **QUIET)
    with pytest.raises(ValueError, match=r"learning_rate=0\.1\. .* in which only epochs may be more"):
        rl.train(fresh(), batches(), rl.Recipe(epochs=2, learning_rate=0.2), checkpoint=path, **QUIET)
    with pytest.raises(ValueError, match="is of another training: batches in an epoch=4"):
        rl.train(fresh(), batches(3), rl.Recipe(epochs=1), checkpoint=path, **QUIET)
    torch.save([1], path)
    with pytest.raises(ValueError, match="is of another training"):
        rl.train(fresh(), batches(), rl.Recipe(epochs=1), checkpoint=path, **QUIET)
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="is no checkpoint of a training"):
        rl.train(fresh(), batches(), rl.Recipe(epochs=1), checkpoint=path, **QUIET)


def test_a_generator_of_its_own_is_refused_where_a_run_may_go_on(tmp_path):
    dataset = TensorDataset(*(torch.cat(parts) for parts in zip(*batches(), strict=True)))
    loader = DataLoader(dataset, 4, shuffle=True, generator=torch.Generator().manual_seed(3))
    rl.train(fresh(), loader, rl.Recipe(epochs=1), **QUIET)
    with pytest.raises(ValueError, match="expected a loader without a generator of its own"):
        rl.train(fresh(), loader, rl.Recipe(epochs=1), checkpoint=tmp_path / "c.pt", **QUIET)


def test_a_loss_that_is_no_longer_finite_is_said():
    with pytest.raises(ValueError, match="the loss is no longer finite in epoch"):
        rl.train(fresh(), batches(), rl.Recipe(epochs=3, learning_rate=1e30), **QUIET)


def test_a_one_shot_iterator_is_refused():
    with pytest.raises(TypeError, match="one-shot"):
        rl.train(fresh(), iter(batches()), **QUIET)


def test_recipes_are_recorded():
    recipe = rl.Recipe(epochs=1, modules_per_batch=2)
    log = rl.train(fresh(), batches(), recipe, **QUIET)
    assert json.loads(log.attrs["options"]) == dataclasses.asdict(recipe)
