"""The optimiser of recipes is torch's Adam, without copies of channels_last weights."""

import copy

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from ganfast.recipes.adam import Adam


def networks():
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 8, 4), nn.ReLU(), nn.ConvTranspose2d(8, 5, 3), nn.Flatten(), nn.Linear(320, 1))
    return plain, copy.deepcopy(plain).to(memory_format=torch.channels_last)


def backward(network, x):
    network.zero_grad(set_to_none=False)
    network(x).square().mean().backward()


@pytest.mark.parametrize("options", [{}, {"amsgrad": True, "weight_decay": 0.1}])
def test_updates_and_state_are_torchs(options):
    plain, last = networks()
    theirs = torch.optim.Adam(plain.parameters(), 1e-2, betas=(0.5, 0.9), **options)
    ours = Adam(last.parameters(), 1e-2, betas=(0.5, 0.9), fused=True, **options)
    for _ in range(4):
        x = torch.randn(2, 3, 9, 9)
        for network, optimizer in ((plain, theirs), (last, ours)):
            backward(network, x)
            optimizer.step()
    assert not last[0].weight.is_contiguous()
    torch.testing.assert_close(dict(last.named_parameters()), dict(plain.named_parameters()), rtol=1e-5, atol=1e-6)
    kept = ours.state_dict()["state"]
    assert kept[0]["exp_avg"].stride() == last[0].weight.stride()
    torch.testing.assert_close(kept, theirs.state_dict()["state"], rtol=1e-4, atol=1e-7, check_stride=False)


def test_channels_last_weights_are_not_copied():
    _, last = networks()
    optimizers = [kind(last.parameters(), fused=True) for kind in (torch.optim.Adam, Adam)]
    backward(last, torch.randn(2, 3, 9, 9))
    copies = []
    for optimizer in optimizers:
        optimizer.step()
        with profile(activities=[ProfilerActivity.CPU]) as record:
            optimizer.step()
        copies.append(sum(event.count for event in record.key_averages() if event.key == "aten::clone"))
    assert copies[1] == 0 < copies[0]  # the class can go when torch's own makes none
