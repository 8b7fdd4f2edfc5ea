"""MoCo's loss and queue are lightly's, whose implementation is independent of ours."""

import copy

import torch
from lightly.loss import NTXentLoss

from handreid.build import build_embedder, build_towers
from handreid.recipe import parse_recipe
from handreid.training.stages.pretrain.terms import Moco
from handreid.training.stages.pretrain.terms.base import Encoded
from tests.conftest import MICRO_RECIPE

QUEUE, BATCH, WIDTH = 6, 2, 4


def test_loss_gradient_and_queue_over_steps_that_replace_its_keys_twice():
    """No photo comes twice: of one that does, we leave out its own keys (see `momentum_contrast`)."""
    torch.manual_seed(0)
    recipe = parse_recipe(MICRO_RECIPE, "micro")
    backbone = build_embedder(recipe, build_towers(recipe)).backbone
    term = Moco(
        backbone, feature="joint", version="queue", queue=QUEUE, momentum=0.9, temperature=0.2, hidden=8, width=WIDTH
    ).train()
    ours, theirs = term.projection, copy.deepcopy(term.projection)
    loss_of = NTXentLoss(temperature=0.2, memory_bank_size=(QUEUE, WIDTH))
    loss_of.memory_bank.bank.copy_(term.queue)
    for step in range(2 * QUEUE // BATCH):
        views = list(torch.randn(2, BATCH, 3, 32, 32))
        with torch.no_grad():
            features, keys = (backbone.eval()(view) for view in views)
            keys = term.key_projection(keys.joint)
        photos = torch.arange(BATCH) + step * BATCH
        loss = term(Encoded(views, [features], photos, photos)).loss
        expected = loss_of(theirs(features.joint), keys)
        torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
        for module, value in ((ours, loss), (theirs, expected)):
            module.zero_grad()
            value.backward()
        for own, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(own.grad, other.grad, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(term.queue, loss_of.memory_bank.bank)
