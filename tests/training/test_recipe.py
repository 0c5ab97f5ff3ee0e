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
