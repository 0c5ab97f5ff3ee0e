import dataclasses

import pytest

from resnet_lesion.training.recipe import Recipe


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "expected at least 1 epoch, got 0"),
        ({"warmup_epochs": 100}, "expected warmup_epochs from 0 to 99, got 100"),
        ({"warmup_epochs": -1}, "expected warmup_epochs from 0 to 99, got -1"),
        ({"learning_rate": 0.0}, "expected a learning rate above 0, got 0.0"),
        ({"learning_rate": float("nan")}, "expected a learning rate above 0, got nan"),
        ({"learning_rate": float("inf")}, "expected a learning rate above 0, got inf"),
        ({"momentum": 1.0}, "expected momentum= from 0 to below 1, got 1.0"),
        ({"weight_decay": float("inf")}, "expected weight_decay= from 0 to below inf, got inf"),
        ({"ema_decay": 7.0}, "expected ema_decay= from 0 to below 1, got 7.0"),
        ({"ema_decay": -0.1}, "expected ema_decay= from 0 to below 1, got -0.1"),
        ({"clip_gradient": -3.0}, "expected clip_gradient= above 0, or None for no limit, got -3.0"),
        ({"clip_gradient": float("nan")}, "expected clip_gradient= above 0, or None for no limit, got nan"),
    ],
)
def test_numbers_that_are_out_of_bounds(options, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**options)


def test_a_recipe_does_not_change():
    recipe = Recipe(epochs=30)
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.epochs = 5
    assert dataclasses.replace(recipe, epochs=5) == Recipe(epochs=5)
