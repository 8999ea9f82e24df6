"""How well a recipe classifies labelled data: errors, or how its own categories agree with the classes."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ganfast.errors import InputError


@dataclass(frozen=True)
class ClassificationReport:
    """``error`` is the share in [0, 1] of ``rows`` that are assigned to another class than their own."""

    rows: int
    error: float

    def __str__(self):
        return f"classification error {self.error:.2%} of {self.rows} rows"


@dataclass(frozen=True)
class ClusteringReport:
    """Shares in [0, 1]; ``mutual_information`` I(category; class) over the mean of the two entropies, in [0, 1]."""

    rows: int
    categories: int
    classes: int
    used: int  # categories that have rows
    majority: float  # share of the rows that are of the commonest class of their category
    matched: float  # share of the rows that are of their category's class, one category a class, at best
    mutual_information: float

    def __str__(self):
        return (
            f"categories with rows                    {self.used} of {self.categories}, of {self.rows} rows\n"
            f"rows of their category's commonest class {self.majority:.2%}\n"
            f"rows of its class, one category a class  {self.matched:.2%}\n"
            f"normalised mutual information            {self.mutual_information:.3f}"
        )


def classification_report(predicted: Tensor, labels: Tensor) -> ClassificationReport:
    """Of classes ``predicted`` int64 [N] where ``labels`` [N] are the true ones."""
    wrong = (predicted != labels).double().mean()
    return ClassificationReport(len(labels), float(wrong))


def clustering_report(found: Tensor, labels: Tensor, categories: int, classes: int) -> ClusteringReport:
    """Of ``categories`` ``found`` without labels, int64 [N], beside ``labels`` [N] of ``classes``.

    ``majority`` names each category by these very labels: it can only rise with the number of categories, and is 1
    where each row has one of its own. ``matched`` names at most one category by each class (Kuhn 1955); rows of the
    others count as wrong. ``InputError`` where scipy is missing.
    """
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise InputError("the clustering score needs scipy: run pip install 'ganfast[demo]'") from error
    table = torch.bincount(found * classes + labels, minlength=categories * classes).view(categories, classes).double()
    pairs = linear_sum_assignment(table.numpy(), maximize=True)
    p = table / table.sum()
    joint, marginals = entropy(p), (entropy(p.sum(1)), entropy(p.sum(0)))
    mutual, mean = sum(marginals) - joint, sum(marginals) / 2
    return ClusteringReport(
        rows=len(labels),
        categories=categories,
        classes=classes,
        used=int((table.sum(1) > 0).sum()),
        majority=float(p.amax(1).sum()),
        matched=float(p[pairs].sum()),
        mutual_information=float(mutual / mean) if mean > 0 else 1.0,
    )


def entropy(p: Tensor) -> Tensor:
    """In nats, of probabilities of any shape."""
    return -torch.special.xlogy(p, p).sum()
