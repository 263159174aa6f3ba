"""Recipes, schedules, and what decays: each field against its rule, each schedule against its closed form."""

import json
import math
import tomllib

import numpy as np
import pytest
import torch
from torch import nn

from rmtbn._checks import InvalidArgumentError
from rmtbn.nets.resnet import resnet_cifar
from rmtbn.train.optimiser import sgd, undecayed
from rmtbn.train.recipe import Recipe
from rmtbn.train.schedule import SCHEDULES, Plateau, factor


def test_recipes_go_through_json_and_toml():
    """Recipe.of(table()) is the same recipe; a table of TOML is one too."""
    recipe = Recipe(rate=0.1, steps=7, amp="bf16", decay_norms=False, seed=3)
    assert Recipe.of(json.loads(json.dumps(recipe.table()))) == recipe
    text = 'rate = 0.1\nsteps = 7\namp = "bf16"\ndecay_norms = false\nseed = 3'
    assert Recipe.of(tomllib.loads(text)) == recipe


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"rate": 0.0}, "`rate` must be a finite number > 0.0; got 0.0"),
        ({"rate": math.nan}, "`rate`.*nan"),
        ({"steps": 3}, r"`epochs` must be given, or `steps`, and not both; got \(2, 3\)"),
        ({"epochs": None}, r"`epochs`.*\(None, None\)"),
        ({"epochs": 0}, "`epochs`.*got 0"),
        ({"momentum": 1.0}, "`momentum`.*got 1.0"),
        ({"weight_decay": -1.0}, "`weight_decay`.*got -1.0"),
        ({"batch_size": 0}, "`batch_size`.*got 0"),
        ({"accumulate": 3}, "`accumulate` must be a divisor of the batch size 128; got 3"),
        ({"schedule": "steps"}, "`schedule`.*'plateau'; got 'steps'"),
        ({"amp": True}, "`amp`.*got True"),
        ({"compile": "fast"}, "`compile`.*got 'fast'"),
        ({"seed": -1}, "`seed`.*got -1"),
    ],
)
def test_each_field_has_its_rule(changed, message):
    """One line that names field, rule and value."""
    with pytest.raises(InvalidArgumentError, match=message):
        Recipe(**{"rate": 0.1, "epochs": 2, "seed": 1, **changed})


def test_tables_with_other_fields_are_refused():
    """The first field too many, or too few, is named."""
    with pytest.raises(InvalidArgumentError, match="got 'learning_rate'"):
        Recipe.of({"learning_rate": 1.0, "seed": 1})
    with pytest.raises(InvalidArgumentError, match="holds 'seed'"):
        Recipe.of({"rate": 1.0, "epochs": 1})


def test_an_epoch_is_the_whole_batches_of_the_images():
    """⌊1000/128⌋ = 7 steps; fewer images than a batch are refused."""
    recipe = Recipe(rate=0.1, epochs=5, seed=1)
    assert (recipe.steps_per_epoch(1000), recipe.total_steps(1000)) == (7, 35)
    assert Recipe(rate=0.1, steps=11, seed=1).total_steps(1000) == 11
    with pytest.raises(InvalidArgumentError, match="`batch_size` must be <= the number of images, 100; got 128"):
        recipe.total_steps(100)


def test_schedules_are_their_closed_forms():
    """10^-[t ≥ ½] - [t ≥ ¾]; 1; cos²(πt/2)."""
    for t in (0.0, 0.25, 0.499, 0.5, 0.749, 0.75, 0.999):
        drops = (t >= 0.5) + (t >= 0.75)
        assert factor("step", done=t, plateau=Plateau()) == pytest.approx(10.0**-drops, rel=1e-15)
        assert factor("constant", done=t, plateau=Plateau()) == 1.0
        assert factor("cosine", done=t, plateau=Plateau()) == pytest.approx(math.cos(math.pi * t / 2) ** 2, rel=1e-12)


def test_the_plateau_rule_is_that_of_torch():
    """The same factor as ReduceLROnPlateau after every epoch of a loss that falls, stalls and rises."""
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs, ours = torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser), Plateau()
    losses = np.concatenate([np.linspace(2, 1, 9), np.full(14, 0.99995), np.linspace(1, 3, 30), np.full(15, 0.5)])
    seen = set()
    for place, loss in enumerate(losses.tolist()):
        theirs.step(loss)
        ours.see(loss)
        if place == 20:  # half of the way it is another object that goes on
            state, ours = ours.state_dict(), Plateau()
            ours.load_state_dict(state)
        seen.add(factor("plateau", done=0.9, plateau=ours))
        assert factor("plateau", done=0.9, plateau=ours) == pytest.approx(optimiser.param_groups[0]["lr"], rel=1e-12)
    assert len(seen) == 6
    assert set(SCHEDULES) == {"step", "constant", "cosine", "plateau"}


@pytest.mark.parametrize("norm", ["batch", "layer", "group", "instance"])
def test_gamma_and_beta_can_be_left_out_of_weight_decay(norm):
    """decay_norms=False: what has `norm` in its name, exactly, is in the group without decay."""
    net = resnet_cifar(depth=8, norm=norm, final_bn=True)
    of_norms = {name for name, _ in net.named_parameters() if "norm" in name}
    assert set(undecayed(net)) == of_norms
    assert of_norms
    recipe = Recipe(rate=0.1, epochs=1, weight_decay=0.3, decay_norms=False, seed=1)
    decay = {id(p): group["weight_decay"] for group in sgd(net, recipe).param_groups for p in group["params"]}
    assert {name: decay[id(p)] for name, p in net.named_parameters()} == {
        name: 0.0 if name in of_norms else 0.3 for name, _ in net.named_parameters()
    }
    every = sgd(net, Recipe(rate=0.1, epochs=1, weight_decay=0.3, seed=1))
    assert [group["weight_decay"] for group in every.param_groups] == [0.3]


def test_layers_without_matrices_are_left_out_too():
    """A layer norm over three dimensions has γ of three; a scale of one number is no norm; a bias of a layer decays."""
    net = nn.Sequential(nn.Linear(6, 6), nn.Unflatten(1, (1, 2, 3)), nn.LayerNorm((1, 2, 3)), nn.PReLU())
    assert set(undecayed(net)) == {"2.weight", "2.bias", "3.weight"}


def test_parameters_that_require_no_gradient_are_left_out():
    """A frozen layer is in no group; with all of them frozen there is nothing to train."""
    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    net[0].requires_grad_(False)
    recipe = Recipe(rate=0.1, epochs=1, seed=1)
    assert {id(p) for group in sgd(net, recipe).param_groups for p in group["params"]} == set(
        map(id, net[1].parameters())
    )
    with pytest.raises(InvalidArgumentError, match="`module` must be a network with parameters that require"):
        sgd(net.requires_grad_(False), recipe)
