"""Launches and bytes of DCGAN-64, which need no GPU to be counted, and the counter itself."""

from pathlib import Path

import pytest

pytest.importorskip("triton")

import counts
import torch
from torch import nn

from ganfast import functional
from ganfast.nn import ConvAct2d
from ganfast.ops import use_backend
from ganfast.ops.interpolate import interpolate

# --- the bars ---------------------------------------------------------------------------------------------------------

ALONE, CHAINED = 3, 2  # launches of a forward with batch normalisation, at most; of one without: 1
BYTES = 1.15  # over the least
STEP_BEFORE, STEP = 305, 0.6  # launches of a step at revision adda314, bf16, batch 128; the share of them, at most

NORMALISING = {"G1", "G2", "G3", "G4", "D2", "D3", "D4"}
LAYERS = sorted(NORMALISING | {"G5", "D1", "D5"})


@pytest.fixture(scope="module")
def table():
    return counts.table()


@pytest.fixture(scope="module")
def layers(table):
    return {row.name: row for row in table[0]}


def test_the_bars_are_of_all_layers(layers):
    assert sorted(layers) == LAYERS
    assert {name for name, row in layers.items() if row.normalises} == NORMALISING


@pytest.mark.parametrize("name", LAYERS)
def test_launches_of_a_layer(layers, name):
    assert layers[name].forward.launches <= (ALONE if layers[name].normalises else 1)


@pytest.mark.parametrize("name", LAYERS)
def test_launches_of_a_layer_in_a_chain(layers, name):
    assert layers[name].chained.launches <= (CHAINED if layers[name].normalises else 1)


@pytest.mark.parametrize("name", LAYERS)
def test_bytes_of_a_forward(layers, name):
    assert layers[name].forward.over(layers[name].least_forward) <= BYTES


@pytest.mark.parametrize("name", LAYERS)
def test_bytes_of_a_forward_in_a_chain(layers, name):
    assert layers[name].chained.over(layers[name].least_chained) <= BYTES


@pytest.mark.parametrize("name", LAYERS)
def test_bytes_of_a_backward(layers, name):
    assert layers[name].backward.over(layers[name].least_backward) <= BYTES


@pytest.mark.parametrize("name", "GD")
def test_bytes_of_a_chains_backward(table, name):
    (row,) = (row for row in table[1] if row.name == name)
    assert row.backward.over(row.least_backward) <= BYTES


def test_launches_of_a_step():
    assert len(counts.step("bf16")) <= STEP * STEP_BEFORE


# --- the counter ------------------------------------------------------------------------------------------------------


def counted(function):
    """[(name, bytes)] of what function() launches, the second time."""
    with counts.counting() as launches:
        function()
        counts.taken(launches)
        function()
        return [each[:2] for each in counts.taken(launches)]


def test_torchs_operators_move_what_they_read_and_write():
    x, y = torch.zeros(10, 100), torch.zeros(10, 100)

    def run():
        x.view(1000).detach()
        torch.relu(x)
        x.add_(y)
        x.zero_()
        y.copy_(x)
        torch.empty_like(x), torch.zeros_like(x)
        x[:, :1].expand(10, 100).clone()
        torch._foreach_add_([x, y], 1.0)
        x[:0].relu()

    assert counted(run) == [
        ("relu", 8000), ("add_", 12000), ("zero_", 4000), ("copy_", 8000), ("zeros_like", 4000), ("clone", 40 + 4000),
        ("_foreach_add_", 16000),
    ]  # fmt: skip


def test_a_convolutions_backward_is_one_launch_for_each_gradient():
    conv, x = nn.Conv2d(2, 4, 3, padding=1), torch.zeros(5, 2, 8, 8, requires_grad=True)
    of_x, of_y, of_w, of_b = 4 * 640, 4 * 1280, 4 * 72, 4 * 4

    def run():
        torch.autograd.grad(conv(x).sum(), [x, *conv.parameters()])

    assert [row for row in counted(run) if row[0].startswith("convolution_backward")] == [
        ("convolution_backward data", 4 + of_w + of_x),  # dy is one number that is read as all
        ("convolution_backward weight", 4 + of_x + of_w),
        ("convolution_backward bias", 4 + of_b),
    ]
    assert of_y + of_x + of_w + of_b in [moved for name, moved in counted(lambda: conv(x)) if name == "convolution"]


@pytest.mark.parametrize("backend", ["triton", "cuda"])
def test_our_kernels_move_their_arguments(backend):
    real, fake, epsilon = torch.zeros(4, 3, 8, 8), torch.ones(4, 3, 8, 8), torch.ones(4)

    def run(fake=fake):
        with use_backend(backend):
            interpolate(real, fake, epsilon)

    ((_, moved),) = counted(run)
    assert moved == 3 * 4 * real.numel() + 16
    ((_, moved),) = counted(lambda: run(real))
    assert moved == 2 * 4 * real.numel() + 16  # a tensor that is given twice is read once


@pytest.mark.parametrize("batch, side, last, launches", [(1, 64, False, 1), (16, 64, True, 1), (1, 256, False, 3)])
def test_an_instance_norm_of_cyclegan(batch, side, last, launches):
    """One launch each way where many programs, or few of few steps, read whole instances: y, a; y, da, dy."""
    y = torch.zeros(batch, 64 * 256 // side, side, side, dtype=torch.bfloat16)
    y = y.to(memory_format=torch.channels_last if last else torch.contiguous_format).requires_grad_()
    da = torch.zeros_like(y)

    def run():
        functional.norm_act(y, y.shape[1], activation="relu")[0].backward(da)

    found = [(name, moved / (2 * y.numel())) for name, moved in counted(run) if name.endswith("kernel")]
    assert [name for name, _ in found].count("forward_kernel") == (1 if launches == 1 else 2)
    assert len(found) == 2 * launches
    moved = sum(each for _, each in found)
    assert 5 <= moved <= 5.02 if launches == 1 else 8 <= moved <= 8.1


def test_what_torch_launches_inside_our_operators_is_counted_under_autocast():
    x = torch.zeros(2, 4, 8, 8).to(memory_format=torch.channels_last)
    layer = ConvAct2d(4, 8, 4, 2, 1).to(memory_format=torch.channels_last)
    half = ConvAct2d(4, 8, 4, 2, 1).to(torch.bfloat16, memory_format=torch.channels_last)

    @torch.no_grad()
    def lowered():
        with torch.autocast("cpu", torch.bfloat16):
            layer(x)

    @torch.no_grad()
    def by_hand():
        half(x.to(torch.bfloat16))

    casts = [("_to_copy", 6 * t.numel()) for t in (x, layer.conv.weight)]  # a bias is added in fp32
    (cast, (name, moved)) = counted(by_hand)
    assert cast == casts[0]
    assert counted(lowered) == [*casts, (name, moved + 2 * layer.conv.bias.numel())]


def test_layers_of_one_launch_take_the_least(layers):
    for row in layers.values():
        if row.forward.launches == 1:
            assert 1 <= row.forward.over(row.least_forward) < 1.001


def test_the_table_has_a_row_of_each_layer(table, layers):
    plain, markdown = (counts.lines_of(*table, markdown) for markdown in (False, True))
    assert [line.split()[0] for line in plain[1 : 1 + len(layers)]] == list(layers)
    assert len({line.count("|") for line in markdown}) == 1


def test_the_table_of_the_docs_is_the_counted_one(table):
    page = (Path(counts.__file__).parents[1] / "docs" / "kernels" / "conv_bn_act.md").read_text()
    found = page.split("<!-- counts -->\n")[1].split("<!-- end of counts -->")[0]
    assert found.strip().splitlines() == counts.lines_of(*table, markdown=True), "python bench/counts.py --markdown"
