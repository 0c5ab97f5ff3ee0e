import dataclasses

import pytest
import torch
from helpers import models
from helpers.chains import TOKENS, Mixer, Transformer, mixer
from torch import nn

import resnet_lesion as rl
from resnet_lesion.network.verification import verified_pass


@pytest.mark.parametrize("name", models.CASES)
def test_blocks_are_what_their_adapters_say(name):
    model = models.build(name)
    assert rl.wrap(model).verify(models.images(3, models.CASES[name].shape)) <= 1e-14


def test_deviations_within_rounding_are_returned():
    class Rounds(models.PostActivation):
        def forward(self, x):
            return super().forward(x)

    @rl.register_adapter(Rounds)
    def rounds(block):
        branch = models.post_activation(block)
        return dataclasses.replace(branch, scale=lambda r: r * 3 / 3)

    torch.manual_seed(0)
    deviation = rl.wrap(models.randomised(models.Net(Rounds)).double()).verify(models.images(3))
    assert 0 < deviation < 1e-15


# what is wrong, in which network, and at which block verify must find it
WRONG = [
    ("post-activation", 0, {"exit": "conv2"}, "relative deviation"),
    ("post-activation", 0, {"exit": "bn1"}, "relative deviation"),
    ("post-activation", 0, {"exit": "relu"}, "ran its branch exit 'relu' 2 times; expected once"),
    ("post-activation", 3, {"exit": "conv9"}, "no submodule 'conv9'"),
    ("post-activation", 2, {"entry": "conv9"}, "no submodule 'conv9'"),
    ("post-activation", 2, {"post": None}, "relative deviation"),
    ("post-activation", 2, {"post": "conv9"}, "no submodule 'conv9'"),
    ("post-activation", 4, {"post": torch.tanh}, "relative deviation"),
    ("post-activation", 5, {"post": lambda y: y[:, :1]}, r"makes shape \(3, 1, 3, 3\), the block \(3, 6, 3, 3\)"),
    ("post-activation", 3, {"shortcut": None}, "cannot be put together"),
    ("post-activation", 3, {"shortcut": "projection.0"}, "relative deviation"),
    ("post-activation", 3, {"shortcut": "relu"}, "cannot be put together"),
    ("post-activation", 1, {"preact": "relu", "shortcut": torch.abs, "scale": torch.neg}, "relative deviation"),
    ("post-activation", 1, {"scale": lambda r: r * float("nan")}, "relative deviation nan"),
    ("pre-activation", 3, {"preact": None}, "relative deviation"),
    ("pre-activation", 1, {"shortcut": nn.functional.relu}, "relative deviation"),
    ("pre-activation", 0, {"post": torch.relu}, "relative deviation"),
    ("functional", 1, {"scale": None}, "relative deviation"),
    ("functional", 3, {"shortcut": None}, "cannot be put together"),
    ("resnet basic", 1, {"post": None}, "relative deviation"),
    ("resnet basic eca, drop_path", 1, {"exit": "bn2"}, "relative deviation"),
    ("resnet bottleneck se, avg_down, blur", 0, {"shortcut": "downsample.1"}, "relative deviation"),
    ("resnetv2 basic", 2, {"preact": None}, "relative deviation"),
    ("resnetv2 post-activation", 2, {"exit": "norm2"}, "relative deviation"),
]


@pytest.mark.parametrize(("name", "index", "wrong", "message"), WRONG)
def test_wrong_adapters_are_caught(name, index, wrong, message):
    network = rl.wrap(models.build(name))
    snapshot = models.Snapshot(network.model)
    blocks = list(network.blocks)
    branch = dataclasses.replace(blocks[index].branch, **wrong)
    blocks[index] = dataclasses.replace(blocks[index], branch=branch)
    with network.isolated(), torch.no_grad(), pytest.raises(rl.AdapterError, match=message) as caught:
        verified_pass(network.model, blocks, [], models.images(3, models.CASES[name].shape))
    assert repr(network.layers[index]) in str(caught.value)
    snapshot.check()


class OwnError(RuntimeError):
    """An error of the model's own."""


@pytest.mark.parametrize("error", [OwnError, NotImplementedError, torch.OutOfMemoryError])
def test_an_error_that_is_not_about_shapes_is_not_blamed_on_the_adapter(error):
    def fail(_):
        raise error("mine")

    network = rl.wrap(models.build())
    blocks = [
        dataclasses.replace(block, branch=dataclasses.replace(block.branch, post=fail)) for block in network.blocks
    ]
    with pytest.raises(error, match="mine"), torch.no_grad():
        verified_pass(network.model, blocks, [], models.images(2))

    class Fails(Mixer):
        pass

    rl.register_adapter(Fails)(lambda block: rl.Chain(block, {"mix": rl.Residual(fail)}))
    network = rl.wrap(Transformer(Fails))
    with pytest.raises(error, match="mine"), torch.no_grad():
        verified_pass(network.model, network.blocks, network.chains, models.images(2, (TOKENS, 4), dtype=torch.float32))


class Swapped(Mixer):
    """Its adapter takes the second branch for the first."""


@rl.register_adapter(Swapped)
def swapped(block):
    return rl.Chain(block, dict(reversed(mixer(block).links.items())))


class Misfit(Mixer):
    """Its adapter names a layer that takes another number of channels."""


@rl.register_adapter(Misfit)
def misfit(block):
    return rl.Chain(block, {"mix": rl.Residual(block.norm1, block.mix), "mlp": rl.Residual(block.mlp[2])})


class Incomplete(Mixer):
    """Its adapter forgets the second branch."""


@rl.register_adapter(Incomplete)
def incomplete(block):
    return rl.Chain(block, {"mix": rl.Residual(block.norm1, block.mix)})


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (Swapped, r"'blocks\.0' \(Swapped\) does not compute the links \['mlp', 'mix'\] one after another"),
        (Incomplete, r"'blocks\.0' \(Incomplete\) does not compute the links \['mix'\] one after another"),
        (Misfit, r"'blocks\.0' \(Misfit\) cannot run the links \['mix', 'mlp'\] in a row"),
    ],
)
def test_wrong_chains_are_caught(block, message):
    model = models.randomised(Transformer(block)).double()
    with pytest.raises(rl.AdapterError, match=message):
        rl.wrap(model).verify(models.images(2, (TOKENS, 4)))


def deviation(found, expected):
    """Return the largest difference over the largest value, one entry after another."""
    pairs = [*zip(found.flatten().tolist(), expected.flatten().tolist(), strict=True)]
    return max(abs(a - b) for a, b in pairs) / max(abs(b) for _, b in pairs)


def test_the_deviations_are_those_of_the_blocks_in_order():
    model, x = models.build(), models.images(3)
    scales = [lambda r: r, lambda r: r * 3 / 3, lambda r: r * 7 / 7, lambda r: r, lambda r: r * 3 / 3, lambda r: r]
    blocks = [
        dataclasses.replace(block, branch=dataclasses.replace(block.branch, scale=scale))
        for block, scale in zip(rl.wrap(model).blocks, scales, strict=True)
    ]
    expected = []
    with torch.no_grad():
        found = verified_pass(model, blocks, [], x).deviations
        y = nn.functional.relu(model.stem(x))
        for stage in (model.stage1, model.stage2):
            for block in stage:
                residual = block.bn2(block.conv2(nn.functional.relu(block.bn1(block.conv1(y)))))
                shortcut = y if block.projection is None else block.projection(y)
                put_together = nn.functional.relu(shortcut + scales[len(expected)](residual))
                y = block(y)
                expected.append(deviation(put_together, y))
            y = 0.8 * y + 0.1
    assert found == expected
    assert [value > 0 for value in found] == [False, True, True, False, True, False]


def of_chains(network, x):
    """Return the deviations of chains of two links each, which stand behind those of their links."""
    return verified_pass(network.model, network.blocks, network.chains, x).deviations[2::3]


def test_the_deviations_of_chains_are_relative_to_what_the_module_computes():
    class Rounds(Mixer):
        pass

    @rl.register_adapter(Rounds)
    def rounds(block):
        return rl.Chain(
            block,
            {
                "mix": rl.Residual(block.norm1, block.mix, lambda r: r * 3 / 3),
                "mlp": rl.Residual(block.norm2, block.mlp),
            },
        )

    model, x = models.randomised(Transformer(Rounds, 2)).double(), models.images(2, (TOKENS, 4))
    expected = []
    with torch.no_grad():
        found = of_chains(rl.wrap(model), x)
        y = model.stem(x)
        for block in model.blocks:
            mixed = y + block.mix(block.norm1(y)) * 3 / 3
            y = block(y)
            expected.append(deviation(mixed + block.mlp(block.norm2(mixed)), y))
    assert found == expected
    assert 0 < max(found) < 1e-15


def test_what_the_model_overwrites_later_is_compared_as_it_was():
    class Clears(Transformer):
        def forward(self, x):
            x = self.stem(x)
            y = self.blocks(x)
            result = self.head(y.mean(1))
            x.zero_()
            y.zero_()
            return result

    model, x = models.randomised(Clears(n_blocks=1)).double(), models.images(2, (TOKENS, 4))
    with torch.no_grad():
        assert of_chains(rl.wrap(model), x) == [0.0]


def test_a_block_whose_output_is_zero_is_compared_absolutely():
    model = nn.Sequential(models.PostActivation(2, 2, 1).double().eval())
    nn.init.constant_(model[0].bn2.bias, -100.0)
    x = models.images(1, (2, 4, 4))
    with torch.no_grad():
        assert not model(x).any()
        assert verified_pass(model, rl.wrap(model).blocks, [], x).deviations == [0.0]


class Drawing(models.PostActivation):
    """Draws random numbers in eval mode, outside of the branch."""

    def forward(self, x):
        return super().forward(x) + torch.randn_like(x)


@rl.register_adapter(Drawing)
def drawing(block):
    return models.post_activation(block)


def test_a_block_that_is_no_function_of_its_input_is_not_laid_to_its_adapter():
    network = rl.wrap(models.randomised(models.Net(Drawing)).double())
    with pytest.raises(rl.AdapterError, match=r"gives the same input other outputs each time.*Switch that off"):
        network.verify(models.images(2))
