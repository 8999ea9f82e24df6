"""Designs for a user: latents that a preference network likes best, under a quality constraint."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ganfast import models
from ganfast.recipes import Trained

QUALITY = 100.0  # a preference varies by tens, a realism by less than 1 (docs/papers.md, dvbpr)


@dataclass(frozen=True)
class Designs:
    """``samples`` [S, ...] of latents before or after their optimisation, with a number for each, on the CPU."""

    samples: Tensor
    given: Mapping[str, Tensor]
    preference: Tensor
    realism: Tensor

    def best(self, count: int, quality: float) -> Tensor:
        """The indices of the ``count`` with the highest preference + ``quality`` · realism."""
        return (self.preference + quality * self.realism).topk(count).indices


def design(
    trained: Trained,
    user: int,
    given: Mapping[str, Tensor],
    quality: float = QUALITY,
    steps: int = 100,
    lr: float = 0.1,
) -> tuple[Designs, Designs]:
    """(samples of latents as they are drawn, after ``steps`` of gradient ascent), a start for each row of ``given``.

    max_z s_k(x) + η · realism(x), x = G(z, given), s_k the preference of user k and η ``quality`` (Kang et al. 2017,
    eq. 10), by Adam from z of the seeds 0, 1, …; networks stay as they are. The recipe prefers and has a realism.
    """
    count = len(next(iter(given.values())))
    given = {name: values.to(trained.device) for name, values in given.items()}
    z = models.latents(range(count), trained.latent_dim).to(trained.device).requires_grad_()
    optimizer = torch.optim.Adam([z], lr, maximize=True)

    def look() -> tuple[Tensor, Tensor, Tensor]:
        x = trained(z=z, **given)
        return x, trained.prefer(x)[:, user], trained.realism(x, given)

    def designs() -> Designs:
        with torch.no_grad():
            x, preference, realism = (each.cpu() for each in look())
        return Designs(x, {name: values.cpu() for name, values in given.items()}, preference, realism)

    drawn = designs()
    for _ in range(steps):
        _, preference, realism = look()
        (z.grad,) = torch.autograd.grad((preference + quality * realism).sum(), z)
        optimizer.step()
    return drawn, designs()


@torch.no_grad()
def preferences(trained: Trained, samples: Tensor, block: int = 256) -> Tensor:
    """Scores [N, K] of samples [N, ...], on the CPU."""
    return torch.cat([trained.prefer(part.to(trained.device)).cpu() for part in samples.split(block)])


@torch.no_grad()
def realism_of(trained: Trained, samples: Tensor, given: Mapping[str, Tensor]) -> Tensor:
    """Numbers [N] of samples [N, ...], on the CPU."""
    return trained.realism(samples.to(trained.device), {k: v.to(trained.device) for k, v in given.items()}).cpu()
