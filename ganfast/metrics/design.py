"""What designs are worth: how users like generated samples, beside those of the data."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Means:
    """Of samples drawn at random, and of those that please a user most, over samples and users."""

    data_random: float
    data_top: float
    generated_random: float
    generated_top: float

    @property
    def increase(self) -> float:
        """Of the best designs over the best of the data, as a share of what these gain over random ones."""
        return (self.generated_top - self.data_top) / max(self.data_top - self.data_random, 1e-12)

    def lines(self, what: str) -> list[str]:
        return [
            f"{what:<22}{'random':>8}{'best':>8}",
            f"  of the data         {self.data_random:>8.2f}{self.data_top:>8.2f}",
            f"  of the generator    {self.generated_random:>8.2f}{self.generated_top:>8.2f}",
        ]


@dataclass(frozen=True)
class DesignReport:
    """``preference`` is by the network's scores, which are comparable within a run alone; AUC lies in [0, 1]."""

    users: int
    top: int
    auc: float | None  # of held-out choices by all users; None where the data holds none out
    preference: Means
    taste: Means | None  # logits of the taste by which users were simulated; None where they were not
    realism_data: float  # −(D − b)², 0 where the discriminator is sure that a sample is real: of the data's best
    realism_random: float  # of generated samples
    realism_top: float  # of the best of them

    def __str__(self):
        lines = self.preference.lines("mean preference")
        lines += [f"  the generator's best over the data's best, of what these gain: {self.preference.increase:+.1%}"]
        if self.taste is not None:
            lines += self.taste.lines("simulated taste, logit")
        if self.auc is not None:
            lines = [f"AUC of held-out choices {self.auc:.4f}", *lines]
        return "\n".join(
            [
                *lines,
                f"realism: the data's best {self.realism_data:.3f}, generated {self.realism_random:.3f}, the best of "
                f"these {self.realism_top:.3f}",
                f"means over {self.users} users; best: {self.top} of each",
            ]
        )


def averaged(of_users: list[tuple[Tensor, ...]]) -> list[float]:
    """The mean over users of the mean of each of their tensors."""
    return [sum(values.mean().item() for values in each) / len(each) for each in zip(*of_users)]


def held_out_auc(scores: Tensor, chosen: Tensor) -> float | None:
    """Mean over users k of the share of pairs (i, j), i held out and j not chosen, with s_ik > s_jk; ties count half.

    ``scores`` [N, K] of N items; ``chosen`` [N, K]: −1 held out, 0 not chosen (Kang et al. 2017, section IV; a pair's
    items are all known from other users' choices). None where no user has a pair.
    """
    found = []
    for s, u in zip(scores.T, chosen.T):
        held_out, others = s[u == -1].contiguous(), s[u == 0].sort().values
        if len(held_out) and len(others):
            below = torch.searchsorted(others, held_out) + torch.searchsorted(others, held_out, right=True)
            found.append(below.float().mean().item() / 2 / len(others))
    return sum(found) / len(found) if found else None
