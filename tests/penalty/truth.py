"""Double backward, written as users write it, and critics of every kind; shared by the penalty's tests."""

import torch
import torch.nn.functional as F
from torch import nn

from ganfast import nn as gnn


def between(real, fake, eps):
    eps = eps.view(-1, *[1] * (real.dim() - 1))
    return eps * real + (1 - eps) * fake


def double_backward(critic, x, phi, inputs=()):
    """(P, norms): mean over samples of φ(norm over all dimensions of a sample)."""
    scores = critic(x, *inputs)
    total = sum(s.sum() for s in scores) if isinstance(scores, tuple) else scores.sum()
    (g,) = torch.autograd.grad(total, x, create_graph=True)
    squares = g.flatten(1).square().sum(1)
    norms = torch.where(squares == 0, 0.0, torch.where(squares == 0, 1.0, squares).sqrt())  # at 0 its derivative is 0
    return phi(norms).mean(), norms


def wgan(norms):
    return 10 * (norms - 1).square()


def trained(critic):
    return [p for p in critic.parameters() if p.requires_grad]


def gradients(loss, critic, *more):
    """Of each parameter that is trained, and of ``more``; zeros where there is none."""
    wanted = [*trained(critic), *more]
    found = torch.autograd.grad(loss, wanted, allow_unused=True)
    return [torch.zeros_like(w) if g is None else g for w, g in zip(wanted, found)]


def grads(critic):
    """``.grad`` of each parameter that is trained; zeros where there is none."""
    return [torch.zeros_like(p) if p.grad is None else p.grad for p in trained(critic)]


def distance(a, b) -> float:
    """‖a − b‖/‖b‖ over lists of tensors; nan and inf never pass as small."""
    a, b = (torch.cat([t.double().flatten() for t in ts]) for ts in (a, b))
    assert bool(a.isfinite().all()) and bool(b.isfinite().all()) and float(b.norm()) > 0
    return float((a - b).norm() / b.norm())


def samples(shape, dtype=torch.float64):
    """real, fake and ε."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    return torch.randn(shape, dtype=dtype), torch.randn(shape, dtype=dtype), torch.rand(shape[0], dtype=wide)


class Residual(nn.Module):
    """A block whose input is used three times, with functions and methods."""

    def __init__(self, features, norm=nn.Identity):
        super().__init__()
        self.norm = norm(features)
        self.conv = nn.Conv2d(features, features, 3, padding=1)
        self.gain = nn.Parameter(torch.tensor(0.7))

    def forward(self, x):
        h = self.conv(F.leaky_relu(self.norm(x), 0.2))
        return F.avg_pool2d(x + self.gain * h, 2) + 0.5 * F.max_pool2d(x, 2)


def residual(norm=nn.Identity):
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), Residual(4, norm), Residual(4, norm), nn.ReLU(), nn.Flatten(), nn.Linear(16, 1)
    )


class Conditional(nn.Module):
    """A projection head: D(x, y) = l(f(x)) + e(y)·f(x); f is run twice, and there are parameters of its own."""

    def __init__(self):
        super().__init__()
        self.f = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8))
        self.e = nn.Embedding(4, 8)
        self.l = nn.Linear(8, 1)
        self.scale = nn.Parameter(torch.randn(8))

    def forward(self, x, y):
        h = self.f(x) * self.scale + self.f(2.0 * x)
        return self.l(h).squeeze(1) + (self.e(y) * h).sum(1)


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.f = nn.Sequential(nn.Linear(6, 8), nn.SiLU())
        self.a, self.b = nn.Linear(8, 1), nn.Linear(8, 3)

    def forward(self, x):
        h = self.f(x)
        return self.a(h), self.b(h)


class Rough(nn.Module):
    """Views that name the batch, a mean and a concatenation."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 2, 1)
        self.head = nn.Linear(8, 1)

    def forward(self, x):
        h = self.conv(x).relu()
        flat = h.view(x.size(0), 4, -1)
        both = torch.cat([flat.mean(2), flat.permute(0, 2, 1).tanh().mean(dim=1)], 1)
        return self.head(both) - 1


def conv_critic(width=6, outputs=1):
    return nn.Sequential(
        nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(width, width, 3, 2, 1, bias=False), nn.ReLU(),
        nn.Flatten(), nn.Linear(4 * width, outputs),
    )  # fmt: skip


# name: (critic, shape of the samples, further arguments)
LABELS = (torch.tensor([0, 1, 2, 3, 1]),)
CRITICS = {
    "conv": lambda: (conv_critic(), (5, 3, 8, 8), ()),
    "several outputs": lambda: (conv_critic(outputs=3), (5, 3, 8, 8), ()),
    "residual": lambda: (residual(), (5, 3, 8, 8), ()),
    "residual, normalised": lambda: (residual(lambda f: nn.GroupNorm(1, f)), (5, 3, 8, 8), ()),
    "conditional": lambda: (Conditional(), (5, 6), LABELS),
    "functions": lambda: (Rough(), (5, 3, 8, 8), ()),
    "LayerNorm": lambda: (
        nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.LeakyReLU(0.2), nn.Linear(8, 1)), (5, 6), (),
    ),
    "MinibatchDiscrimination": lambda: (
        nn.Sequential(nn.Linear(6, 8), nn.ReLU(), gnn.MinibatchDiscrimination(8, 3, 2), nn.Linear(11, 1)), (5, 6), (),
    ),
    "spectral norm, evaluation": lambda: (
        nn.Sequential(
            nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 4, 3)), nn.Tanh(), nn.Flatten(),
            nn.utils.spectral_norm(nn.Linear(144, 1)),
        ).eval(), (5, 3, 8, 8), (),
    ),
    "weight norm": lambda: (
        nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 8)), nn.ReLU(), nn.Linear(8, 1)), (5, 6), (),
    ),
}  # fmt: skip
