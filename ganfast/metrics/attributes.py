"""Whether translated images have the attributes that were asked for: classifiers of real images judge them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ganfast.data import Dataset
from ganfast.data.attributes import groups
from ganfast.errors import InputError
from ganfast.metrics.lenet import fitted, probabilities


@dataclass(frozen=True)
class AttributeReport:
    """Shares in [0, 1] by field (``hair`` of ``hair=black`` and ``hair=blond``), as its classifier judges.

    ``changed``: translations of images whose value was to change that have the new one; ``input``: of these images
    themselves; ``real``: of real images with the new value; ``kept``: translations of other images that keep theirs.
    """

    rows: int
    means: dict[str, float]  # over the fields
    changed: dict[str, float]
    input: dict[str, float]
    real: dict[str, float]
    kept: dict[str, float]

    def __str__(self):
        width = max(map(len, [*self.changed, "mean"]))
        rows = {field: [getattr(self, name).get(field) for name in self.means] for field in self.changed}
        rows["mean"] = [*self.means.values()]
        return "\n".join([
            f"{self.rows} translations: shares that a classifier of real images finds right",
            " " * width + "".join(f"{name:>10}" for name in self.means),
            *(f"{name:<{width}}" + "".join("         -" if x is None else f"{x:>10.1%}" for x in found)
              for name, found in rows.items()),
        ])  # fmt: skip


def attribute_report(
    known: Dataset,
    images: Tensor,
    made: Tensor,
    real: Tensor,
    own: Tensor,
    wanted: Tensor,
    steps: int = 300,
    progress: bool = False,
) -> AttributeReport:
    """Of ``made`` [N, C, H, W] from ``images``, whose attributes are ``own`` [N, A]; ``real`` have the ``wanted`` ones.

    A classifier for each field learns from ``known``, whose names of attributes say which belong together. Fields of
    other numbers than −1, 0 and 1 are left out; InputError where none is left.
    """
    found = {name: {} for name in ("changed", "input", "real", "kept")}
    for field, members in groups(known.names["attributes"]).items():
        values = known.columns["attributes"][:, members]
        if not torch.isin(values, torch.tensor([-1.0, 0.0, 1.0])).all() or len(values.unique(dim=0)) < 2:
            continue
        labelled = Dataset(known.name, images=known.samples, labels=classes(values))
        network = fitted(labelled, steps, progress=progress).network
        before, after = classes(own[:, members]), classes(wanted[:, members])
        seen = {name: probabilities(network, x).argmax(1) for name, x in (("made", made), ("in", images), ("re", real))}
        change = before != after
        for name, judged, rows in (
            ("changed", "made", change), ("input", "in", change), ("real", "re", change), ("kept", "made", ~change),
        ):  # fmt: skip
            if rows.any():
                found[name][field] = (seen[judged] == after)[rows].float().mean().item()
    if not found["changed"]:
        raise InputError(f"{known.name} has no attributes of 0 and 1 that differ: choose others (--attributes).")
    means = {name: sum(shares.values()) / len(shares) for name, shares in found.items() if shares}
    return AttributeReport(len(made), means, **found)


def classes(values: Tensor) -> Tensor:
    """[N, K] of a field → int64 [N]: 1 … K, the first that is above 0, or 0 where none is."""
    return torch.cat([torch.full_like(values[:, :1], 0.5), (values > 0).to(values.dtype)], 1).argmax(1)


def partners(identities: Tensor) -> Tensor:
    """int64 [N]: for each row the row before it of the same identity, for the first one the last."""
    found = torch.arange(len(identities))
    for identity in identities.unique():
        rows = (identities == identity).nonzero().flatten()
        found[rows] = rows.roll(1)
    return found
