"""A small objective for the training loop alone: a line through noisy points, which is learnt by heart in time."""

from __future__ import annotations

import random

import torch
from torch.nn.functional import dropout, mse_loss

from luthier_tune.training import Trainer

WIDTH = 8


def points(count, seed, noise):
    """Points on a line that does not depend on the seed, with noise in their height."""
    rng = random.Random(seed)
    given = [[rng.gauss(0, 1) for _ in range(WIDTH)] for _ in range(count)]
    return [(x, sum(x) / 2 + rng.gauss(0, noise)) for x in given]


class Regression:
    """The squared error of a linear layer, with dropout; `on_loss` is called before each batch."""

    device = torch.device("cpu")

    def __init__(self, on_loss=lambda: None, drop=0.1):
        self.module = torch.nn.Linear(WIDTH, 1)
        self.on_loss = on_loss
        self.drop = drop
        torch.nn.init.zeros_(self.module.weight)
        torch.nn.init.zeros_(self.module.bias)

    def terms(self, example):
        return 1

    def tokens(self, example):
        return 1

    def batches(self, examples):
        yield list(range(len(examples))), list(examples)

    def loss(self, batch):
        self.on_loss()
        given = dropout(torch.tensor([x for x, _ in batch]), self.drop, self.module.training)
        return mse_loss(self.module(given)[:, 0], torch.tensor([y for _, y in batch]), reduction="sum")

    def losses(self, batch):
        with torch.no_grad():
            got = self.module(torch.tensor([x for x, _ in batch]))[:, 0]
        return list(((got - torch.tensor([y for _, y in batch])) ** 2)[:, None])


def make_trainer(ctx, settings, objective=None):
    """A trainer on few, noisy points and many clean ones to measure the loss on."""
    objective = objective or Regression()
    parameters = dict(objective.module.named_parameters())
    return Trainer(objective, parameters, points(12, 1, 1.5), points(40, 2, 0.0), settings=settings, ctx=ctx)
