"""How well codes represent labelled data: neighbours and a linear classifier among them, beside the raw numbers.

The protocol of Donahue et al. 2016 (arXiv:1605.09782), section 4.2: the class of the nearest neighbour among the codes
of training data.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

PART = 256  # rows that are compared at once
DECAY = 1e-4  # weight of the linear classifier's penalty ½‖W‖²
ITERATIONS = 100  # of L-BFGS, at most


@dataclass(frozen=True)
class Accuracies:
    """Shares in [0, 1] of the rows whose class is found."""

    neighbour: float  # the class of the nearest row, by Euclidean distance
    linear: float  # multinomial logistic regression on standardised numbers


@dataclass(frozen=True)
class RepresentationReport:
    """Of an encoder's codes, of the samples themselves, and of codes by the same networks as they begin."""

    encoder: Accuracies
    raw: Accuracies
    random: Accuracies
    numbers: int  # in a code
    fitted: int  # rows whose classes are known
    judged: int  # rows whose classes are to be found
    protocol: str  # where both come from

    def __str__(self):
        rows = {"encoder": self.encoder, "raw numbers": self.raw, "random encoder": self.random}
        return "\n".join(
            [f"classes of {self.judged} rows, by {self.fitted} others ({self.protocol})    1-NN    linear"]
            + [f"{name:<16}{each.neighbour:>8.2%}{each.linear:>8.2%}" for name, each in rows.items()]
        )


def accuracies(codes: Tensor, labels: Tensor, judged: Tensor, wanted: Tensor, progress: bool = False) -> Accuracies:
    """Of rows ``judged`` [M, n] of the classes ``wanted`` [M], by ``codes`` [N, n] of classes ``labels`` [N]."""
    found = labels[nearest(codes, judged, progress)], linear(codes, labels, judged)
    return Accuracies(*(float((each == wanted).double().mean()) for each in found))


def nearest(codes: Tensor, queries: Tensor, progress: bool = False) -> Tensor:
    """The row [M] of ``codes`` [N, n] that is nearest to each of ``queries`` [M, n] in Euclidean distance; no index.

    Distances are ‖c‖² − 2 c·q of centred numbers, in fp32: they round where a code is far from the mean of all.
    """
    mean = codes.mean(0)
    codes, queries = codes - mean, queries - mean
    squares = codes.square().sum(1)
    parts = tqdm(queries.split(PART), "neighbours", delay=1, leave=False, disable=not progress)
    return torch.cat([torch.addmm(squares, part, codes.T, alpha=-2).argmin(1) for part in parts])


def linear(codes: Tensor, labels: Tensor, queries: Tensor) -> Tensor:
    """Classes [M] of ``queries`` by multinomial logistic regression on ``codes`` [N, n], by L-BFGS from zero weights.

    Numbers are standardised by ``codes``; one that is the same in every row counts for nothing.
    """
    mean, deviation = codes.mean(0), codes.std(0)
    scale = torch.where(deviation > 0, 1 / deviation, 0)
    codes, queries = (codes - mean) * scale, (queries - mean) * scale
    classes = int(labels.max()) + 1
    weight, bias = codes.new_zeros(classes, codes.shape[1]), codes.new_zeros(classes)
    parameters = [weight.requires_grad_(), bias.requires_grad_()]
    optimizer = torch.optim.LBFGS(parameters, max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        value = F.cross_entropy(codes @ weight.T + bias, labels) + DECAY / 2 * weight.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    return (queries @ weight.T + bias).argmax(1).detach()
