"""Tiny networks whose blocks are links of a chain: a transformer, and a plain network."""

import torch
from torch import nn
from torch.nn import functional as F

import resnet_lesion as rl
from helpers import models

DIM, TOKENS = 6, 3


class Mixer(nn.Module):
    """Two branches added in one forward, as in a transformer: over the tokens, then over the channels."""

    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(DIM), nn.LayerNorm(DIM)
        self.mix = nn.Conv1d(TOKENS, TOKENS, 1)
        self.mlp = nn.Sequential(nn.Linear(DIM, 2 * DIM), nn.GELU(), nn.Linear(2 * DIM, DIM))

    def forward(self, x, mask=None):
        x = x + self.mix(self.norm1(x))
        return x + self.mlp(self.norm2(x))


@rl.register_adapter(Mixer)
def mixer(block):
    return rl.Chain(block, {"mix": rl.Residual(block.norm1, block.mix), "mlp": rl.Residual(block.norm2, block.mlp)})


class Transformer(nn.Module):
    def __init__(self, block=Mixer, n_blocks=3):
        super().__init__()
        self.stem = nn.Linear(4, DIM)
        self.blocks = nn.Sequential(*[block() for _ in range(n_blocks)])
        self.head = nn.Linear(DIM, models.N_CLASSES)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).mean(1))


class Layers(nn.Module):
    """A plain network: its second to fourth layer keep the shape."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True),
            *(layer for _ in range(3) for layer in (nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(inplace=True))),
        )  # fmt: skip
        self.head = nn.Linear(4, models.N_CLASSES)

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))


@rl.register_adapter(Layers)
def layers(model):
    first, *others = (nn.Sequential(*model.features[i : i + 2]) for i in range(0, 8, 2))
    return rl.Chain(model.features, {"0": first, **{str(2 * i + 2): rl.Plain(*pair) for i, pair in enumerate(others)}})


def transformer():
    return models.randomised(Transformer()).double().eval(), models.images(3, (TOKENS, 4))


def plain():
    return models.randomised(Layers()).double().eval(), models.images(3)


def naive(model, row, inputs):
    """Run the model by hand under one order row."""
    with torch.no_grad():
        if isinstance(model, Transformer):
            steps = [f for b in model.blocks for f in ((b.norm1, b.mix), (b.norm2, b.mlp))]
            x = model.stem(inputs)
            for index in row:
                x = x if index < 0 else x + steps[index][1](steps[index][0](x))
            return model.head(x.mean(1))
        convolutions = model.features[2::2]
        x = F.relu(model.features[0](inputs))
        for index in row:
            x = x if index < 0 else F.relu(convolutions[index](x))
        return model.head(x.mean((2, 3)))


CASES = {"transformer": transformer, "plain": plain}
