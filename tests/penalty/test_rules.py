"""Every rule alone, and random critics made of rules, against torch's double backward in fp64."""

import random
import re
from pathlib import Path

import pytest
import torch
from penalty.truth import between, distance, double_backward, gradients, grads, samples, wgan
from torch import nn

from ganfast import nn as gnn
from ganfast import penalty
from ganfast.penalty import forward
from ganfast.penalty.rules import REGISTERED

SHAPE = (5, 6, 4, 4)

# name → layer of 6 channels on 4×4
LAYERS = {
    "Conv2d": lambda: nn.Conv2d(6, 4, 3, 2, 1, groups=2),
    "Conv2d same": lambda: nn.Conv2d(6, 4, 3, padding="same"),
    "Conv2d reflect": lambda: nn.Conv2d(6, 4, 3, padding=1, padding_mode="reflect"),
    "Conv2d dilated": lambda: nn.Conv2d(6, 4, 2, dilation=2, bias=False),
    "ConvTranspose2d": lambda: nn.ConvTranspose2d(6, 4, 4, 2, 1, output_padding=1),
    "Linear": lambda: nn.Linear(4, 5),
    "Identity": nn.Identity,
    "ReLU": nn.ReLU,
    "ReLU in place": lambda: nn.ReLU(inplace=True),
    "LeakyReLU": lambda: nn.LeakyReLU(0.2),
    "Tanh": nn.Tanh,
    "Sigmoid": nn.Sigmoid,
    "SiLU": nn.SiLU,
    "GELU": nn.GELU,
    "GELU tanh": lambda: nn.GELU("tanh"),
    "Softplus": lambda: nn.Softplus(2.0, 1.0),
    "ELU": nn.ELU,
    "PReLU": nn.PReLU,
    "Mish": nn.Mish,
    "SELU": nn.SELU,
    "CELU": lambda: nn.CELU(0.7),
    "Hardtanh": lambda: nn.Hardtanh(-0.5, 0.5),
    "ReLU6": nn.ReLU6,
    "LogSigmoid": nn.LogSigmoid,
    "Softsign": nn.Softsign,
    "Softmax": lambda: nn.Softmax(1),
    "AvgPool2d": lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    "MaxPool2d": lambda: nn.MaxPool2d(3, 2, 1),
    "AdaptiveAvgPool2d": lambda: nn.AdaptiveAvgPool2d((2, 3)),
    "Upsample nearest": lambda: nn.Upsample(scale_factor=2),
    "Upsample bilinear": lambda: nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
    "UpsamplingNearest2d": lambda: nn.UpsamplingNearest2d(scale_factor=2),
    "UpsamplingBilinear2d": lambda: nn.UpsamplingBilinear2d(scale_factor=2),
    "ChannelShuffle": lambda: nn.ChannelShuffle(2),
    "PixelUnshuffle": lambda: nn.PixelUnshuffle(2),
    "PixelShuffle": lambda: nn.Sequential(nn.Conv2d(6, 8, 1), nn.PixelShuffle(2)),
    "ZeroPad2d": lambda: nn.ZeroPad2d((1, 2, 0, 1)),
    "ConstantPad2d": lambda: nn.ConstantPad2d(1, 0.5),
    "ReflectionPad2d": lambda: nn.ReflectionPad2d(1),
    "ReplicationPad2d": lambda: nn.ReplicationPad2d(1),
    "CircularPad2d": lambda: nn.CircularPad2d(1),
    "RMSNorm": lambda: nn.RMSNorm((4,)),
    "LocalResponseNorm": lambda: nn.LocalResponseNorm(3),
    "GroupNorm": lambda: nn.GroupNorm(3, 6),
    "GroupNorm of one": lambda: nn.GroupNorm(1, 6),
    "GroupNorm without weights": lambda: nn.GroupNorm(2, 6, affine=False),
    "LayerNorm": lambda: nn.LayerNorm((6, 4, 4)),
    "LayerNorm of the last": lambda: nn.LayerNorm(4, bias=False),
    "LayerNorm without weights": lambda: nn.LayerNorm((4, 4), elementwise_affine=False),
    "InstanceNorm2d": lambda: nn.InstanceNorm2d(6),
    "InstanceNorm2d affine": lambda: nn.InstanceNorm2d(6, affine=True),
    "InstanceNorm2d running": lambda: nn.InstanceNorm2d(6, affine=True, track_running_stats=True).eval(),
    "BatchNorm2d": lambda: nn.BatchNorm2d(6),
    "BatchNorm2d in evaluation": lambda: nn.BatchNorm2d(6).eval(),
    "MinibatchStddev": gnn.MinibatchStddev,
    "ConvAct2d": lambda: gnn.ConvAct2d(6, 4, 3),
    "ConvAct2d batch_norm": lambda: gnn.ConvAct2d(6, 4, 3, batch_norm=True, activation="relu"),
    "ConvTransposeBNReLU2d": lambda: gnn.ConvTransposeBNReLU2d(6, 4, 3, activation="tanh"),
}


def perturbed(critic):
    """fp64, with weights of norms that are nobody's default."""
    critic = critic.double()
    with torch.no_grad():
        for p in critic.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return critic


def check(critic, shape, bound=1e-10):
    """Value and gradients of the penalty and those of the step, against double backward."""
    real, fake, eps = samples(shape)
    x = between(real, fake, eps).requires_grad_()
    wanted, _ = double_backward(critic, x, wgan)
    wanted_gradients = gradients(wanted, critic, x)
    mine = penalty.gradient_penalty(critic, x, x, eps=eps, strict=True)
    assert distance([mine.detach()], [wanted.detach()]) < bound
    assert distance(gradients(mine, critic, x), wanted_gradients) < bound

    loss = critic(fake).mean() - critic(real).mean() + double_backward(critic, x, wgan)[0]
    wanted_gradients = gradients(loss, critic)
    critic.zero_grad()
    step = penalty.wgan_gp_step(critic, real, fake, eps=eps, strict=True)
    assert distance([step.loss], [loss.detach()]) < bound
    assert distance(grads(critic), wanted_gradients) < bound


def between_layers(layer):
    """A layer between convolutions, below a head that bends."""
    lower = nn.Sequential(nn.Conv2d(3, 6, 3, 1, 1), nn.LeakyReLU(0.2), layer)
    size = lower(torch.randn(5, 3, 4, 4))[0].numel()
    return nn.Sequential(lower, nn.Flatten(), nn.Linear(size, 4), nn.Tanh(), nn.Linear(4, 1))


@pytest.mark.parametrize("name", LAYERS)
def test_each_rule(name):
    torch.manual_seed(1)
    check(perturbed(between_layers(LAYERS[name]())), (5, 3, 4, 4))


@pytest.mark.parametrize("name", ["GroupNorm", "GroupNorm of one", "AvgPool2d", "MaxPool2d", "Upsample nearest"])
def test_rules_in_channels_last(name):
    critic = perturbed(between_layers(LAYERS[name]())).to(memory_format=torch.channels_last)
    real, fake, eps = (t.to(memory_format=torch.channels_last) if t.dim() == 4 else t for t in samples((5, 3, 4, 4)))
    x = between(real, fake, eps).requires_grad_()
    wanted = gradients(double_backward(critic, x, wgan)[0], critic)
    assert (
        distance(gradients(penalty.gradient_penalty(critic, real, fake, eps=eps, strict=True), critic), wanted) < 1e-10
    )


@pytest.mark.parametrize(
    "layers, shape",
    [
        ([nn.Conv1d(2, 4, 3), nn.ReLU(), nn.MaxPool1d(2), nn.AvgPool1d(2), nn.Conv1d(4, 3, 1)], (4, 2, 12)),
        ([nn.Conv3d(2, 3, 2), nn.SiLU(), nn.GroupNorm(3, 3), nn.AvgPool3d(2)], (3, 2, 5, 5, 5)),
        ([nn.ConvTranspose1d(2, 4, 3), nn.InstanceNorm1d(4), nn.Tanh()], (4, 2, 5)),
        (
            [nn.ConvTranspose3d(2, 3, 2), nn.InstanceNorm3d(3), nn.MaxPool3d(2), nn.AdaptiveAvgPool3d(1)],
            (3, 2, 4, 4, 4),
        ),
        (
            [nn.Conv3d(2, 3, 2), nn.ZeroPad3d(1), nn.ConstantPad3d(1, 0.5), nn.BatchNorm3d(3), nn.Tanh()],
            (3, 2, 3, 3, 3),
        ),
        ([nn.ZeroPad1d(1), nn.ReflectionPad1d(1), nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.Tanh()], (4, 2, 6)),
        (
            [
                nn.ConstantPad1d(1, 0.5),
                nn.ReplicationPad1d(1),
                nn.CircularPad1d(1),
                nn.Conv1d(2, 4, 3),
                nn.SiLU(),
                nn.AdaptiveAvgPool1d(3),
                nn.Unflatten(1, (2, 2)),
            ],
            (4, 2, 6),
        ),
    ],
    ids=["one", "three", "one, transposed", "three, transposed", "three, padded", "one, padded", "one, padded more"],
)
def test_rules_in_other_dimensions(layers, shape):
    lower = nn.Sequential(*layers)
    critic = nn.Sequential(lower, nn.Flatten(), nn.Linear(lower(torch.randn(shape))[0].numel(), 1))
    check(perturbed(critic), shape)


@pytest.mark.parametrize("layer", [nn.Dropout(0.4), nn.Dropout2d(0.4)], ids=["Dropout", "Dropout2d"])
def test_dropout_keeps_its_mask(layer):
    critic = perturbed(nn.Sequential(nn.Conv2d(3, 4, 3), layer, nn.Tanh(), nn.Flatten(), nn.Linear(16, 1)))
    real, fake, eps = (t.to(memory_format=torch.channels_last) if t.dim() == 4 else t for t in samples((5, 3, 4, 4)))
    x = between(real, fake, eps).requires_grad_()
    torch.manual_seed(3)
    wanted = gradients(double_backward(critic, x, wgan)[0], critic)
    torch.manual_seed(3)
    mine = gradients(penalty.gradient_penalty(critic, real, fake, eps=eps, strict=True), critic)
    assert distance(mine, wanted) < 1e-10
    torch.manual_seed(4)
    assert distance(gradients(penalty.gradient_penalty(critic, real, fake, eps=eps), critic), wanted) > 1e-3


CHANNEL_KEEPING = [
    n for n in LAYERS if n not in ("Linear", "LayerNorm", "LayerNorm of the last", "RMSNorm", "Conv2d dilated")
]


@pytest.mark.parametrize("seed", range(30))
def test_random_critics(seed):
    """Two to five layers drawn from the table, whatever fits."""
    pick = random.Random(seed)
    torch.manual_seed(seed)
    body, x = [nn.Conv2d(3, 6, 3, 1, 1)], torch.randn(5, 3, 4, 4)
    for _ in range(pick.randint(2, 5)):
        body.append(LAYERS[pick.choice(CHANNEL_KEEPING)]())
        channels = nn.Sequential(*body)(x).shape[1]
        body.append(nn.Sequential(nn.Conv2d(channels, 6, 1), nn.AdaptiveAvgPool2d(4)))
    head = [
        nn.Linear(96, 4),
        pick.choice([nn.LeakyReLU(0.2), nn.Tanh(), nn.LayerNorm(4)]),
        nn.Linear(4, pick.randint(1, 2)),
    ]
    check(perturbed(nn.Sequential(*body, nn.Flatten(), *head)), (5, 3, 4, 4))


def test_the_page_names_every_layer():
    page = Path(__file__).parents[2] / "docs" / "gradient_penalty.md"
    table = page.read_text().partition("## The rules")[2].partition("*Merged*")[0]
    assert not [layer for layer in forward.LAYERS if re.sub(r"[123]d$", "", layer.__name__) not in table]


def test_a_rule_of_one_s_own():
    class Bent(nn.Module):
        def forward(self, x):
            return x.sin() + x

    class BentRule(penalty.Elementwise):
        def value(self, x):
            return x.sin() + x

        def slope(self, x, y):
            return x.cos() + 1

        def bend(self, x, y):
            return -x.sin()

    critic = perturbed(nn.Sequential(nn.Linear(6, 8), Bent(), nn.Linear(8, 1)))
    try:
        check(critic, (5, 6))  # sin and + have rules
        penalty.register(Bent, BentRule)
        for again in (nn.Sequential(*critic), nn.Sequential(*critic, nn.Softsign())):  # walked, recorded
            check(again, (5, 6))
    finally:
        REGISTERED.pop(Bent, None)
    with pytest.raises(TypeError, match=r"layer: got 3, needs a subclass of torch.nn.Module"):
        penalty.register(3, BentRule)
