"""The critics rebuilt from papers: how they go through the sweeps, and how much memory a step takes."""

import critics
import frame
import pytest
import torch

from ganfast import penalty
from ganfast.penalty.forward import forward


def test_nine_critics_in_ten_have_rules_for_all_calls():
    apart = []
    for name, (_, shape) in critics.CRITICS.items():
        critic, *_ = critics.made(name)
        inputs = (torch.tensor([0, 1]),) if name in critics.LABELLED else ()
        tape, scores = forward(critic, torch.randn(2, *shape[1:]), inputs)
        assert scores.isfinite().all()
        apart += [name] if tape.islands else []
    assert len(apart) <= 0.1 * len(critics.CRITICS), apart


@pytest.mark.parametrize(
    "name", ["ResNet, InstanceNorm", "ResNet, LayerNorm", "ResNet, BatchNorm", "SAGAN", "SiLU ConvNet"]
)
def test_a_step_takes_no_more_memory_than_double_backward(name):
    critic, *_ = critics.made(name)
    shape = 8, *critics.CRITICS[name][1][1:]
    real, fake, eps = torch.randn(shape), torch.randn(shape), torch.rand(8)

    def ours():
        penalty.wgan_gp_step(critic, real, fake, eps=eps, strict=True)

    def plain():
        x = torch.lerp(fake, real, eps.view(-1, 1, 1, 1)).requires_grad_()
        (g,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
        loss = 10 * (g.flatten(1).norm(dim=1) - 1).square().mean() - critic(real).mean() + critic(fake).mean()
        loss.backward()

    peaks = []
    for step in (ours, plain):
        step()  # .grad is there, the ways are tried
        peaks.append(frame.peak_memory(step, (), "cpu"))
    assert 0 < peaks[0] <= peaks[1], [f"{peak / 2**20:.1f} MiB" for peak in peaks]
