"""A captured step is the eager step: the same bits, one launch, and nobody waits."""

import copy

import pytest
import torch
from training.games import CPU, FOUR, GAMES, Counting, images, make, sources_of

from ganfast.errors import InputError
from ganfast.graphs import WARM_UP
from ganfast.ops import for_graph
from ganfast.recipes import RECIPES as PACKAGE
from ganfast.training.cuda_graph import CUDAGraphs
from ganfast.training.running_means import RunningMeans

RECIPES = {
    "dcgan": PACKAGE["dcgan"](width=16, latent_dim=16),
    "wgan-gp": PACKAGE["wgan-gp"](width=16, latent_dim=16, d_steps=2),
    "wgan-gp resnet": PACKAGE["wgan-gp"](width=8, latent_dim=16, architecture="resnet", d_steps=2),
    "r3gan": PACKAGE["r3gan"](width=8, latent_dim=16),
    **FOUR,
    "cut": GAMES["cut"],
}


def run_of(recipe, device, graph, precision="fp32", resident=2**30, compiled=False, deterministic=False):
    sources = [images(60, 32, 3, seed=k) for k in range(len(sources_of(recipe)))]
    device = torch.device(device)
    layout = lambda network: network.to(device, memory_format=torch.channels_last)  # noqa: E731
    step = make(
        recipe, sources, 14, precision, device, place=layout, flip=True, resident=resident,
        deterministic=deterministic, lr_decay="linear", total=100,
    )  # fmt: skip
    if compiled:
        step.compile()
    return CUDAGraphs(step, graph)


def losses(run, count):
    """[count, figures]; read once at the end."""
    state = run.step.state
    with state.precision.settings():
        readings = []
        for _ in range(count):
            run()
            readings.append(state.means.read())
            state.means.zero()
        return torch.tensor([list(reading.means().values()) for reading in readings])


def bits(run):
    return [value for network in run.step.state.networks.values() for value in network.state_dict().values()]


def test_without_a_graph_it_loads_and_steps():
    run = run_of(PACKAGE["dcgan"](width=2, latent_dim=3), "cpu", graph=False)
    found, state = losses(run, 2), run.step.state
    assert found.isfinite().all() and state.count == 2 == state.step and state.loaders[0].position == 28
    assert run.graphs == []


def test_a_reading_holds_what_the_sums_were():
    means = RunningMeans(CPU)
    for value in (1.0, 3.0):
        means.add({"loss": torch.tensor(value), "size": torch.tensor(2.0, dtype=torch.float64)})
    means.add({"loss": torch.tensor(8.0)})
    reading = means.read()
    means.zero()
    assert reading.arrived() and reading.means() == {"loss": 4.0, "size": 2.0} and means.read().means() == {}
    other = RunningMeans(CPU)
    other.add({"else": torch.tensor(1.0)})
    other.load_state_dict({"names": [["loss"]], "sums": [torch.tensor([6.0, 3.0])]})
    assert other.read().means() == {"loss": 2.0}
    with pytest.raises(ValueError, match="log fewer"):
        means.add({str(k): torch.ones(()) for k in range(600)})


@pytest.mark.parametrize("name", RECIPES)
def test_on_a_tape_captured_and_eager_steps_have_the_same_bits(name, tape):
    """What a graph does, on a CPU: tests/tape.py."""
    eager, captured = (run_of(RECIPES[name], "cpu", graph) for graph in (False, True))
    told = []
    captured.log = told.append
    rows = losses(eager, 6), losses(captured, 6)
    assert captured.graphs == tape and tape[0].replays == 6 - WARM_UP and torch.equal(*rows)
    assert told[-1] == "The step is one CUDA graph from here on." and tape[0].generators == [captured.step.state.noise]
    assert all(map(torch.equal, bits(eager), bits(captured)))


def test_on_a_tape_cyclegan_is_one_graph_with_two_buffers_of_gradients(tape):
    """Four networks, two pools and their exchange; a buffer for both generators, one for both discriminators."""
    run = run_of(PACKAGE["cyclegan"](width=2, blocks=1, layers=1, pool=14), "cpu", graph=True)
    losses(run, WARM_UP + 2)
    state = run.step.state
    assert len(tape) == 1 and tape[0].replays == 2 and state.tensors["count_a"] == 14  # the pools are full
    assert list(state.gradients) == ["G_ab+G_ba", "D_a+D_b"]
    for name, gradients in state.gradients.items():
        parameters = [p for network in name.split("+") for p in state.networks[network].parameters()]
        assert len(parameters) == len(gradients.parameters)
        assert {p.grad.untyped_storage().data_ptr() for p in parameters} == {gradients.buffer.data_ptr()}


def test_on_a_tape_each_set_of_players_has_its_graph(tape):
    """In one pool of memory; figures of lazy players come when they have moved."""
    runs = [CUDAGraphs(make(Counting()), graph) for graph in (False, True)]
    rows = []
    for run in runs:
        rows.append([])
        for _ in range(24):
            run()
            rows[-1].append(run.step.state.means.read().means())
            run.step.state.means.zero()
    assert rows[0] == rows[1] and len(tape) == 3 == len(runs[1].graphs)
    assert all(map(torch.equal, bits(runs[0]), bits(runs[1])))
    state = [run.step.state for run in runs]
    assert state[0].tensors["moved"] == state[1].tensors["moved"] == 72


def test_a_step_that_cannot_be_captured_says_what_to_do(tape, monkeypatch):
    run = run_of(PACKAGE["dcgan"](width=2, latent_dim=3), "cpu", graph=True)
    losses(run, WARM_UP)
    monkeypatch.setattr(run.step.state.ema[0], "update", lambda count: torch.empty(-1))
    with pytest.raises(InputError, match=r"cannot be captured .* negative dimension .*: give --no-graph\."):
        run()


@pytest.mark.gpu
@pytest.mark.parametrize("resident", [2**30, 0])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("name", RECIPES)
def test_captured_and_deterministic_eager_steps_have_the_same_bits(name, precision, resident):
    """Where operators choose alike: eager ones else take torch's for small tensors."""
    eager = run_of(RECIPES[name], "cuda", False, precision, resident, deterministic=True)
    captured = run_of(RECIPES[name], "cuda", True, precision, resident, deterministic=True)
    with for_graph():
        rows = losses(eager, 50), losses(captured, 50)
    assert captured.graphs and torch.equal(*rows)
    assert all(map(torch.equal, bits(eager), bits(captured)))
    assert eager.step.state.precision.state() == captured.step.state.precision.state()


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
@pytest.mark.parametrize("name", RECIPES)
def test_captured_and_eager_steps_have_the_same_losses(name, precision):
    """By default: the convolutions that are fastest may add in any order, and from step to step that grows."""
    rows = [losses(run_of(RECIPES[name], "cuda", graph, precision), WARM_UP + 2)[:, :2] for graph in (False, True)]
    bound = 5e-3 if precision == "fp32" else 5e-2  # Adam's first steps are signs, not sizes
    torch.testing.assert_close(*rows, rtol=bound, atol=bound)


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.parametrize("name", ["dcgan", "wgan-gp"])
def test_a_compiled_step_is_captured_too(name):
    eager, captured = run_of(RECIPES[name], "cuda", False), run_of(RECIPES[name], "cuda", True, compiled=True)
    torch.testing.assert_close(losses(captured, 10), losses(eager, 10), rtol=1e-2, atol=1e-2)
    assert captured.graphs
    torch.compiler.reset()


@pytest.mark.gpu
@pytest.mark.parametrize("resident", [2**30, 0])
@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("name", RECIPES)
def test_no_step_waits_for_the_device_or_takes_new_memory(name, graph, resident):
    run = run_of(RECIPES[name], "cuda", graph, "bf16", resident)
    losses(run, WARM_UP + 2)
    torch.cuda.synchronize()
    reserved = torch.cuda.memory_reserved()
    torch.cuda.set_sync_debug_mode("error")
    try:
        readings, state = [], run.step.state
        with state.precision.settings():
            for _ in range(10):
                run()
                readings.append(state.means.read())
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.cuda.memory_reserved() == reserved
    assert torch.tensor([list(reading.means().values()) for reading in readings]).isfinite().all()


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["dcgan", "wgan-gp"])
def test_states_taken_up_by_a_captured_step(name):
    """Into the memory that the graph reads; to the same bits, as --deterministic promises."""
    one, other = (run_of(RECIPES[name], "cuda", True, deterministic=True) for _ in range(2))
    losses(one, 8)
    saved = copy.deepcopy(one.step.state.state_dict())
    expected = losses(one, 5)
    losses(other, 6)  # captured by now
    other.step.state.load_state_dict(saved)
    assert torch.equal(losses(other, 5), expected)
