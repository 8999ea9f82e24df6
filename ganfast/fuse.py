"""``ganfast.fuse(model)``: a network that exists runs convolution, norm and activation as single operators."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One convolution, or InstanceNorm2d without one in front: its path in the model, what stands there, and why it was
    left alone (empty: fused).
    """

    path: str
    found: str
    reason: str = ""


@dataclass(frozen=True, repr=False)
class Report:
    """What :func:`fuse` did, one row per convolution or norm; prints as a table."""

    rows: tuple[Row, ...]

    @property
    def fused(self) -> int:
        """How many of them were fused with what follows."""
        return sum(not row.reason for row in self.rows)

    @property
    def left_alone(self) -> int:
        """How many run as before."""
        return len(self.rows) - self.fused

    def __repr__(self):
        norms = " and norms" if any(row.found.startswith("InstanceNorm2d") for row in self.rows) else ""
        head = f"ganfast.fuse: {self.fused} of {len(self.rows)} convolutions{norms} fused"
        paths, found = (max((len(getattr(row, name)) for row in self.rows), default=0) for name in ("path", "found"))
        lines = [
            f"  {row.path:{paths}}  {row.found:{found}}  {'left alone: ' + row.reason if row.reason else 'fused'}"
            for row in self.rows
        ]
        return "\n".join([head, *lines])


def fuse(model) -> Report:
    """Run each Conv2d or ConvTranspose2d of ``model`` with its BatchNorm2d and activation as one operator.

    An InstanceNorm2d and its activation are one too, whatever stands in front, on a CPU as well. Activations: ReLU,
    LeakyReLU, Tanh, Sigmoid, SiLU, and GELU and Softplus with their default options. In place. The modules, their
    parameters and the keys of ``state_dict`` stay what they are, so checkpoints load both ways, optimisers made before
    go on, and initialisation by class name works. Only two things change: an ``nn.Sequential`` runs neighbouring
    modules together, and so does a module whose ``forward`` calls them by attribute without branches.
    A module that gets hooks, or is replaced later, runs by itself again: see docs/drop-in.md.
    Returns a :class:`Report`; print it. Raises TypeError where ``model`` is no ``nn.Module``.
    """
    from torch import nn

    from ganfast.nn import rewrite

    if not isinstance(model, nn.Module):
        raise TypeError(f"model: got {type(model).__name__}, needs a torch.nn.Module: call fuse on each network")
    rows, apart = [], {}
    for path, module in list(model.named_modules()):
        if path and isinstance(module, (nn.ModuleList, nn.ModuleDict)):
            continue  # their convolutions belong to the module whose forward calls them
        apart |= rewrite.taken_apart(module)
        rows += [
            Row(f"{path}.{name}" if path else name, *rest) for name, *rest in rewrite.fuse(module, apart.get(module))
        ]
    return Report(tuple(rows))
