"""A captured step needs memory that stays where it is and nothing of the host's; both can be seen without a GPU."""

import contextlib
import copy
import sys

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from training.test_step import make
from training.tiny import weights

from ganfast.data import Dataset, Feed, Stream
from ganfast.recipes import DCGAN, GAN, R3GAN, WGAN, WGANGP
from ganfast.training import checkpoint
from ganfast.training.precision import Precision
from ganfast.training.step import Step

META = torch.device("meta")
RECIPES = {
    "dcgan": DCGAN(width=4, latent_dim=6),
    "gan": GAN(width=8),
    "wgan": WGAN(width=4, latent_dim=6, d_steps=2),
    "wgan-gp": WGANGP(width=4, latent_dim=6, d_steps=2),
    "wgan-gp resnet": WGANGP(width=4, latent_dim=6, d_steps=1, architecture="resnet"),
    "r3gan": R3GAN(width=4, latent_dim=6),
}


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
        def __new__(cls, device):
            return super().__new__(cls)

    monkeypatch.setattr(torch, "Generator", OfTheHost)

    def make(recipe, precision):
        images = recipe.data_kind == "images"
        data = torch.zeros(20, 16, 16, 1, dtype=torch.uint8) if images else torch.zeros(20, 2)
        networks = [
            net.to(META, memory_format=torch.channels_last) for net in recipe.networks((1, 16, 16) if images else (2,))
        ]
        networks.append(copy.deepcopy(networks[0]).eval().requires_grad_(False))
        feed = Feed(Stream(Dataset("zeros", data), 4, 0, flip=images), recipe.d_steps, META)
        step = Step(recipe, tuple(networks), feed, Precision(precision, META), lr_decay="cosine", total=9)
        step.latents = lambda: torch.randn(4, networks[0].latent_dim, device=META)
        step.uniform = lambda count: torch.rand(count, device=META)
        return step

    return make


def from_the_host(step) -> list[str]:
    step()  # makes moments, traces what is traced once
    with HostTensors() as seen:
        step()
    assert seen.calls > 100
    return seen.found


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", RECIPES)
def test_a_step_reads_no_number_and_brings_none_from_the_host(meta, name, precision):
    assert from_the_host(meta(RECIPES[name], precision)) == []


def test_the_probe_sees_what_it_should(meta):
    step = meta(RECIPES["dcgan"], "fp32")
    step.norm = lambda gradients: gradients.norm() * torch.tensor(2.0)
    assert from_the_host(step)
    step.norm = lambda gradients: torch.full((), gradients.norm().item(), device=META)
    with pytest.raises(RuntimeError, match="item"):
        step()


def places(step) -> list[int]:
    """Where everything lies that a captured step reads or writes and that outlives it."""
    tensors = [t for net in (step.generator, step.discriminator) for t in net.state_dict().values()]
    tensors += [*step.average.averages, *step.average.values, *(t for pair in step.average.counters for t in pair)]
    tensors += [p.grad for net in (step.generator, step.discriminator) for p in net.parameters()]
    for optimizer in (step.optimizer_g, step.optimizer_d):
        tensors += [optimizer.state[p][key] for group in optimizer.param_groups for p in group["params"]
                    for key in ("step", "exp_avg", "exp_avg_sq")]  # fmt: skip
        tensors += [group["lr"] for group in optimizer.param_groups]
    tensors += [step.sums, step.count, *step.feed.buffers, step.gradients_g.buffer, step.gradients_d.buffer]
    if step.precision.scaler:
        tensors += [step.precision.scaler._scale, step.precision.scaler._growth_tracker]
    return [tensor.data_ptr() for tensor in tensors]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", ["dcgan", "wgan-gp"])
def test_a_state_is_taken_up_in_place(name, precision):
    step = make(RECIPES[name], precision=precision, lr_decay="linear", total=9)
    step()
    before, saved = places(step), copy.deepcopy(step.state())
    step.feed.load(), step()
    other = copy.deepcopy(step.state())
    step.load_state(saved, 1)
    assert places(step) == before and len(set(before)) > 20 and step.count == 1
    found = step.state()
    moments = found["optimizer_d"]["state"][0]
    assert torch.equal(moments["exp_avg"], saved["optimizer_d"]["state"][0]["exp_avg"])
    assert not torch.equal(moments["exp_avg"], other["optimizer_d"]["state"][0]["exp_avg"])
    assert torch.equal(found["noise"], saved["noise"]) and torch.equal(found["sums"], saved["sums"])
    step.feed.load(), step()
    assert places(step) == before


def test_a_rollback_stays_in_place(tiny):
    trainer = tiny(on_nan="rollback", lr_decay="linear")
    advance, seen = trainer.advance, []

    def hurt():
        if trainer.step == 5 and not seen:
            seen.append(places(trainer.update))
            with torch.no_grad():
                trainer.networks["D"].layers[0].conv.weight.fill_(torch.nan)
        advance()

    trainer.advance = hurt
    trainer.train(progress=False)
    assert trainer.rollback.count == 1 and places(trainer.update) == seen[0]
    assert all(value.isfinite().all() for value in weights(trainer))


def test_a_run_that_was_on_a_cpu_can_be_captured():
    """Its optimisers were not capturable; this run's options stay, and the rate comes along."""
    saved = make(RECIPES["dcgan"])
    saved()
    saved.optimizer_g.param_groups[0]["lr"].fill_(0.125)
    step = make(RECIPES["dcgan"])
    rate = step.optimizer_g.param_groups[0]["lr"]
    step.optimizer_g.param_groups[0]["capturable"] = True
    checkpoint.load_optimizer(step.optimizer_g, copy.deepcopy(saved.optimizer_g.state_dict()))
    (group,) = step.optimizer_g.param_groups
    assert group["capturable"] is True and group["lr"] is rate and rate == 0.125
    assert step.optimizer_g.state[group["params"][0]]["step"] == 1
