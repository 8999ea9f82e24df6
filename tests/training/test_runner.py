"""A captured step is the eager step: the same bits, one launch, and nobody waits."""

import copy

import pytest
import torch

from ganfast.data import Dataset, Feed, Stream
from ganfast.errors import InputError
from ganfast.graphs import WARM_UP
from ganfast.ops import for_graph
from ganfast.recipes import DCGAN, R3GAN, WGANGP
from ganfast.training.precision import Precision
from ganfast.training.runner import Runner
from ganfast.training.step import Step
from ganfast.training.window import Window

RECIPES = {
    "dcgan": DCGAN(width=16, latent_dim=16),
    "wgan-gp": WGANGP(width=16, latent_dim=16, d_steps=2),
    "wgan-gp resnet": WGANGP(width=8, latent_dim=16, architecture="resnet", d_steps=2),
    "r3gan": R3GAN(width=8, latent_dim=16),
}


def make(recipe, device, graph, precision="fp32", resident=2**30, compiled=False, deterministic=False):
    torch.manual_seed(0)
    random = torch.Generator().manual_seed(0)
    data = Dataset("noise", torch.randint(256, (60, 32, 32, 3), dtype=torch.uint8, generator=random))
    device = torch.device(device)
    networks = [net.to(device, memory_format=torch.channels_last) for net in recipe.networks(data.shape)]
    networks.append(copy.deepcopy(networks[0]).eval().requires_grad_(False))
    feed = Feed(Stream(data, 16, seed=3, flip=True), recipe.d_steps, device, resident)
    arithmetic = Precision(precision, device, deterministic)
    step = Step(recipe, tuple(networks), feed, arithmetic, seed=7, lr_decay="linear", total=100)
    if compiled:
        step.compile()
    return Runner(step, graph)


def losses(runner, count):
    """[count, figures]; read once at the end."""
    with runner.step.precision.settings():
        windows = []
        for i in range(count):
            runner()
            windows.append(Window(runner.step.sums, i, 0))
            runner.step.sums.zero_()
        return torch.tensor([window.means() for window in windows])


def test_without_a_graph_a_runner_loads_and_steps():
    runner = make(DCGAN(width=2, latent_dim=3), "cpu", graph=False)
    found = losses(runner, 2)
    assert found.isfinite().all() and runner.step.count == 2 and runner.step.feed.position == 32


def test_a_window_holds_what_the_sums_were():
    sums = torch.tensor([6.0, 3.0, 3.0])
    window = Window(sums, 5, 80)
    sums.zero_()
    assert window.arrived() and window.means() == [2.0, 1.0] and (window.step, window.images) == (5, 80)


@pytest.mark.parametrize("name", RECIPES)
def test_on_a_tape_captured_and_eager_steps_have_the_same_bits(name, tape):
    """What a graph does, on a CPU: tests/tape.py."""
    eager, captured = (make(RECIPES[name], "cpu", graph) for graph in (False, True))
    told = []
    captured.log = told.append
    rows = losses(eager, 6), losses(captured, 6)
    assert captured.graph is tape[0] and tape[0].replays == 6 - WARM_UP and torch.equal(*rows)
    assert told[-1] == "The step is one CUDA graph from here on." and tape[0].generators == [captured.step.noise]
    for a, b in zip(eager.step.generator.state_dict().values(), captured.step.generator.state_dict().values()):
        assert torch.equal(a, b)


def test_a_step_that_cannot_be_captured_says_what_to_do(tape, monkeypatch):
    runner = make(DCGAN(width=2, latent_dim=3), "cpu", graph=True)
    losses(runner, WARM_UP)
    monkeypatch.setattr(runner.step.average, "update", lambda count: torch.empty(-1))
    with pytest.raises(InputError, match=r"cannot be captured .* negative dimension .*: give --no-graph\."):
        runner()


@pytest.mark.gpu
@pytest.mark.parametrize("resident", [2**30, 0])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("name", RECIPES)
def test_captured_and_deterministic_eager_steps_have_the_same_bits(name, precision, resident):
    """Where operators choose alike: eager ones else take torch's for small tensors."""
    eager = make(RECIPES[name], "cuda", False, precision, resident, deterministic=True)
    captured = make(RECIPES[name], "cuda", True, precision, resident, deterministic=True)
    with for_graph():
        rows = losses(eager, 50), losses(captured, 50)
    assert captured.graph is not None and torch.equal(*rows)
    for a, b in zip(eager.step.generator.state_dict().values(), captured.step.generator.state_dict().values()):
        assert torch.equal(a, b)
    assert eager.step.precision.state() == captured.step.precision.state()


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
@pytest.mark.parametrize("name", RECIPES)
def test_captured_and_eager_steps_have_the_same_losses(name, precision):
    """By default: the convolutions that are fastest may add in any order, and from step to step that grows."""
    rows = [losses(make(RECIPES[name], "cuda", graph, precision), WARM_UP + 2)[:, :2] for graph in (False, True)]
    bound = 5e-3 if precision == "fp32" else 5e-2  # Adam's first steps are signs, not sizes
    torch.testing.assert_close(*rows, rtol=bound, atol=bound)


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.parametrize("name", ["dcgan", "wgan-gp"])
def test_a_compiled_step_is_captured_too(name):
    eager, captured = make(RECIPES[name], "cuda", False), make(RECIPES[name], "cuda", True, compiled=True)
    torch.testing.assert_close(losses(captured, 10), losses(eager, 10), rtol=1e-2, atol=1e-2)
    assert captured.graph is not None
    torch.compiler.reset()


@pytest.mark.gpu
@pytest.mark.parametrize("resident", [2**30, 0])
@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("name", RECIPES)
def test_no_step_waits_for_the_device_or_takes_new_memory(name, graph, resident):
    runner = make(RECIPES[name], "cuda", graph, "bf16", resident)
    losses(runner, WARM_UP + 2)
    torch.cuda.synchronize()
    reserved = torch.cuda.memory_reserved()
    torch.cuda.set_sync_debug_mode("error")
    try:
        windows = []
        with runner.step.precision.settings():
            for i in range(10):
                runner()
                windows.append(Window(runner.step.sums, i, 0))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.cuda.memory_reserved() == reserved
    assert torch.tensor([window.means() for window in windows]).isfinite().all()


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["dcgan", "wgan-gp"])
def test_states_taken_up_by_a_captured_step(name):
    """Into the memory that the graph reads; to the same bits, as --deterministic promises."""
    one, other = (make(RECIPES[name], "cuda", True, deterministic=True) for _ in range(2))
    losses(one, 8)
    saved = copy.deepcopy([one.step.state(), one.step.feed.position, *(net.state_dict() for net in
                           (one.step.generator, one.step.discriminator))])  # fmt: skip
    expected = losses(one, 5)
    losses(other, 6)  # captured by now
    other.step.load_state(saved[0], 8)
    other.step.feed.position = saved[1]
    other.step.generator.load_state_dict(saved[2]), other.step.discriminator.load_state_dict(saved[3])
    assert torch.equal(losses(other, 5), expected)
