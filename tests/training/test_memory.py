"""A captured step needs memory that stays where it is and nothing of the host's; both can be seen without a GPU."""

import contextlib
import copy
import sys

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from training.games import GAMES, play
from training.games import make as make_step
from training.tiny import weights

from ganfast.training.state import load_optimizer

META = torch.device("meta")


class HostTensors(TorchDispatchMode):
    """Operators that take or make a tensor of the host's."""

    def __init__(self):
        super().__init__()
        self.calls, self.found = 0, []

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        out = op(*args, **(kwargs or {}))
        self.calls += 1
        if any(torch.is_tensor(t) and t.device.type == "cpu" for t in tree_leaves((args, kwargs, out))):
            self.found.append(str(op))
        return out


@pytest.fixture
def meta(monkeypatch):
    """meta(recipe, precision) → a step over tensors without numbers: who reads one, as ``.item()`` does, fails."""
    autocast, enabled, dtype = torch.autocast, torch.is_autocast_enabled, torch.get_autocast_dtype
    is_meta = lambda kind: kind == "meta"  # noqa: E731, autocast knows no such device
    monkeypatch.setattr(torch, "autocast", lambda kind, *a, **k: contextlib.nullcontext() if is_meta(kind) else
                        autocast(kind, *a, **k))  # fmt: skip
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *kind: not is_meta(*kind) and enabled(*kind))
    monkeypatch.setattr(torch, "get_autocast_dtype", lambda kind: torch.half if is_meta(kind) else dtype(kind))
    optimizers = sys.modules[torch.optim.Optimizer.__module__]
    monkeypatch.setattr(optimizers, "_get_fused_kernels_supported_devices", lambda: ["meta"])
    monkeypatch.setattr(torch, "_fused_adam_", lambda *args, **kwargs: None)  # meta tensors lack it

    class OfTheHost(torch.Generator):  # and these
        def __new__(cls, device="cpu"):
            return super().__new__(cls)

    monkeypatch.setattr(torch, "Generator", OfTheHost)

    def make(recipe, precision):
        layout = lambda network: network.to(META, memory_format=torch.channels_last)  # noqa: E731
        flip = all(column.kind == "images" for column in recipe.columns.values())
        step = make_step(recipe, None, 4, precision, META, place=layout, flip=flip, lr_decay="cosine", total=9)
        draws = {
            "normal": lambda *shape: torch.randn(4, *shape, device=META),
            "uniform": lambda *shape: torch.rand(4, *shape, device=META),
            "categorical": lambda classes: torch.randint(classes, (4,), device=META),
        }
        for name, draw in draws.items():
            setattr(step.turn, name, draw)
        step.turn._kept |= draws.keys()
        return step

    return make


def from_the_host(step) -> list[str]:
    step()  # makes moments, traces what is traced once
    with HostTensors() as seen:
        step()
    assert seen.calls > 100
    return seen.found


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", GAMES)
def test_a_step_reads_no_number_and_brings_none_from_the_host(meta, name, precision):
    assert from_the_host(meta(GAMES[name], precision)) == []


def test_the_probe_sees_what_it_should(meta):
    step = meta(GAMES["dcgan"], "fp32")
    step.norm = lambda gradients: gradients.norm() * torch.tensor(2.0)
    assert from_the_host(step)
    step.norm = lambda gradients: torch.full((), gradients.norm().item(), device=META)
    with pytest.raises(RuntimeError, match="item"):
        step()


def places(step) -> list[int]:
    """Where everything lies that a captured step reads or writes and that outlives it."""
    state = step.state
    nets = [*state.networks.values(), *state.averages.values()]
    tensors = [t for net in nets for t in net.state_dict().values()]
    for average in state.ema:
        tensors += [*average.averages, *average.values, *(t for pair in average.copies for t in pair)]
    tensors += [p.grad for gradients in state.gradients.values() for p in gradients.parameters]
    for optimizer in state.optimizers.values():
        tensors += [optimizer.state[p][key] for group in optimizer.param_groups for p in group["params"]
                    for key in ("step", "exp_avg", "exp_avg_sq")]  # fmt: skip
        tensors += [group["lr"] for group in optimizer.param_groups]
    tensors += [state.means.buffer, state.count, *state.tensors.values()]
    tensors += [buffer for loader in state.loaders for buffer in loader.buffers.values()]
    tensors += [gradients.buffer for gradients in state.gradients.values()]
    if state.precision.scaler:
        tensors += [state.precision.scaler._scale, state.precision.scaler._growth_tracker]
    return [tensor.data_ptr() for tensor in tensors]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", GAMES)
def test_a_state_is_taken_up_in_place(name, precision):
    step = make_step(GAMES[name], precision=precision, lr_decay="linear", total=9)
    if precision == "fp16":
        step.state.precision.scaler = torch.amp.GradScaler("cpu", init_scale=64.0)  # nothing overflows
    play(step, 1)
    before, saved = places(step), copy.deepcopy(step.state.state_dict())
    drawn = torch.get_rng_state()  # of torch's own generator, which checkpoints keep beside the state
    expected = play(step, 2)
    other = copy.deepcopy(step.state.state_dict())
    step.state.load_state_dict(saved)
    assert places(step) == before and len(set(before)) > 20 and step.state.count == 1 == step.state.step
    found = step.state.state_dict()
    for key, optimizer in found["optimizers"].items():
        moments = optimizer["state"][0]["exp_avg"]
        assert torch.equal(moments, saved["optimizers"][key]["state"][0]["exp_avg"])
        assert not torch.equal(moments, other["optimizers"][key]["state"][0]["exp_avg"])
    assert torch.equal(found["noise"], saved["noise"]) and found["positions"] == saved["positions"]
    torch.set_rng_state(drawn)
    assert play(step, 2) == expected  # the same bits
    assert places(step) == before


def test_a_rollback_stays_in_place(tiny):
    trainer = tiny(on_nan="rollback", lr_decay="linear")
    advance, seen = trainer.advance, []

    def hurt():
        if trainer.step == 5 and not seen:
            seen.append(places(trainer.update))
            with torch.no_grad():
                trainer.state.networks["D"].layers[0].conv.weight.fill_(torch.nan)
        advance()

    trainer.advance = hurt
    trainer.train(progress=False)
    assert trainer.state.rollbacks["count"] == 1 and places(trainer.update) == seen[0]
    assert all(value.isfinite().all() for value in weights(trainer))


def test_a_run_that_was_on_a_cpu_can_be_captured():
    """Its optimisers were not capturable; this run's options stay, and so does its rate, which may be another."""
    saved, step = make_step(GAMES["dcgan"]), make_step(GAMES["dcgan"])
    play(saved, 1)
    saved.state.optimizers["G"].param_groups[0]["lr"].fill_(0.125)
    optimizer = step.state.optimizers["G"]
    rate = optimizer.param_groups[0]["lr"]
    optimizer.param_groups[0]["capturable"] = True
    load_optimizer(optimizer, copy.deepcopy(saved.state.optimizers["G"].state_dict()))
    (group,) = optimizer.param_groups
    assert group["capturable"] is True and group["lr"] is rate and rate.item() == pytest.approx(2e-4)
    assert optimizer.state[group["params"][0]]["step"] == 1
