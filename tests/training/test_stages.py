"""Recipes that are a list of games: networks carry over by name, and a run is resumed within any stage."""

import dataclasses
import signal
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from training.games import images
from training.tiny import assert_same_bits, weights, without_times

import ganfast
from ganfast.objectives import discriminator_bce, generator_non_saturating
from ganfast.recipes import RECIPES, Player, Recipe, Stage
from ganfast.training import checkpoint, run_directory


@dataclass(frozen=True, kw_only=True)
class Growing(Recipe):
    """Three games, each with another layer, and in the last one another network (nobody et al.)."""

    name = "growing"
    latent_dim: int = 3
    """numbers in a latent vector"""
    depth: int = 1
    """hidden layers"""

    def stages(self, steps):
        return [
            Stage(steps // 3, self),
            Stage(steps // 3, dataclasses.replace(self, depth=2)),
            Stage(steps - 2 * (steps // 3), dataclasses.replace(self, depth=3)),
        ]

    def networks(self, data):
        layers = [nn.Linear(3, 8), *(nn.Sequential(nn.ReLU(), nn.Linear(8, 8)) for _ in range(self.depth))]
        generator = nn.Sequential(*layers, nn.Sequential(nn.Linear(8, 256), nn.Tanh(), nn.Unflatten(1, (1, 16, 16))))
        found = {"G": generator, "D": nn.Sequential(nn.Flatten(), nn.Linear(256, 1))}
        return found | ({"extra": nn.Sequential(nn.Flatten(), nn.Linear(256, 1))} if self.depth == 3 else {})

    def state(self, data):
        return {"steps": 0.0}

    def players(self):
        critic = Player(("D",), self.discriminator, after=self.count)
        extra = [Player(("extra",), self.other, every=2)] if self.depth == 3 else []
        return [critic, *extra, Player(("G",), self.generator)]

    def discriminator(self, t):
        t.fake = t.G(t.normal(3))
        return discriminator_bce(t.D(t.x).flatten(), t.D(t.fake.detach()).flatten())

    def other(self, t):
        return discriminator_bce(t.extra(t.x).flatten(), t.extra(t.fake.detach()).flatten())

    def generator(self, t):
        return generator_non_saturating(t.D(t.fake).flatten())

    def count(self, t):
        t.state.steps += 1


@pytest.fixture(autouse=True)
def growing(monkeypatch):
    monkeypatch.setitem(RECIPES, "growing", Growing)


def make(tmp_path, **options):
    options = {"batch": 4, "steps": 13, "log_every": 1, "sample_every": 50, "checkpoint_every": 4, **options}
    return ganfast.Trainer(Growing(lr=1e-2), images(), outdir=str(tmp_path), **options)


def test_networks_carry_over_by_name_and_shape(tmp_path):
    trainer = make(tmp_path)
    begin, seen = trainer.begin_stage, []

    def watched(stage):
        before = {n: v.clone() for n, v in trainer.state.networks["G"].state_dict().items()}
        averages = {n: v.clone() for n, v in trainer.state.averages["G"].state_dict().items()}
        begin(stage)
        after = trainer.state.networks["G"].state_dict()
        carried = {n for n, v in before.items() if n in after and torch.equal(v, after[n])}
        seen.append((trainer.step, stage, carried))
        for name in carried:
            assert torch.equal(trainer.state.averages["G"].state_dict()[name], averages[name])

    trainer.begin_stage = watched
    run = trainer.train(progress=False)
    assert [each[:2] for each in seen] == [(4, 1), (8, 2)]
    assert {"0.weight", "1.1.weight"} <= seen[0][2] and {"0.weight", "1.1.weight", "2.1.weight"} <= seen[1][2]
    assert trainer.state.stage == 2 and trainer.state.count == 13 and trainer.state.tensors["steps"] == 5
    rows = run_directory.read_stats(run)
    assert [row["step"] for row in rows] == list(range(1, 14))
    assert [row["step"] for row in rows if "loss_extra" in row] == [9, 11, 13]
    assert "Stage 2 of 3: networks G" in (run / "log.txt").read_text()
    loaded = ganfast.load(run)
    assert len(loaded.networks["G"]) == 5  # the last game's
    assert len(ganfast.load(run / checkpoint.name(8)).networks["G"]) == 4  # the end of the second
    z = torch.randn(4, 3)
    assert torch.equal(loaded(z), trainer.trained(z))


@pytest.mark.parametrize("step", [2, 4, 6, 8, 11])
def test_a_run_goes_on_within_any_stage(step, tmp_path):
    whole = make(tmp_path / "whole")
    whole.train(progress=False)
    stopped = make(tmp_path / "parts")
    advance = stopped.advance
    stopped.advance = lambda: (advance(), stopped.step == step and signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        stopped.train(progress=False)
    resumed = make(tmp_path / "parts", resume=str(stopped.run))
    assert resumed.step == step and resumed.state.stage == (step - 1) // 4
    resumed.train(progress=False)
    assert_same_bits(
        [*weights(whole), *whole.state.gradients["D"].views], [*weights(resumed), *resumed.state.gradients["D"].views]
    )
    assert without_times(run_directory.read_stats(whole.run)) == without_times(run_directory.read_stats(resumed.run))


def test_other_steps_move_the_ends_of_the_stages_to_come(tmp_path):
    run = make(tmp_path, steps=6).train(progress=False)  # 2, 2 and 2 steps
    resumed = make(tmp_path, steps=30, resume=str(run))
    assert resumed.state.stage == 2
    resumed.train(progress=False)
    assert resumed.step == 30 and resumed.state.stage == 2  # the last stage goes on, no earlier one begins


def test_a_rollback_goes_back_to_the_stage_before(tmp_path):
    trainer = make(tmp_path, on_nan="rollback", checkpoint_every=3)
    advance = trainer.advance

    def hurt():
        if trainer.step == 4 and not trainer.state.rollbacks["count"]:
            with torch.no_grad():
                next(trainer.state.networks["D"].parameters()).fill_(torch.nan)
        advance()

    trainer.advance = hurt
    run = trainer.train(progress=False)
    assert trainer.state.rollbacks["count"] == 1 and trainer.step == 13 and trainer.state.stage == 2
    assert "going on from" in (run / "log.txt").read_text()
    assert all(value.isfinite().all() for value in weights(trainer))


def test_each_stage_has_a_graph_of_its_own(tape, tmp_path):
    from ganfast.training.cuda_graph import CUDAGraphs

    eager, captured = make(tmp_path / "eager", steps=24), make(tmp_path / "captured", steps=24)
    begin = captured.begin_stage

    def with_graph(stage):
        begin(stage)
        captured.run_step = CUDAGraphs(captured.update, graph=True)

    captured.begin_stage = with_graph
    captured.run_step = CUDAGraphs(captured.update, graph=True)
    eager.train(progress=False), captured.train(progress=False)
    assert len(tape) == 4 and all(graph.replays for graph in tape)  # the last stage has two sets of players
    assert_same_bits(weights(captured), weights(eager))
