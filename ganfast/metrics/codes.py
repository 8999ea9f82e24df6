"""What a recipe's own codes mean: the classes that its categories hold, what its continuous codes do to a shape."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ganfast.metrics.classification import clustering_report


@dataclass(frozen=True)
class Effect:
    """Of a code on a measure, over series of samples along it: all else is fixed within a series."""

    slope: float  # of the least-squares line, per unit of the code
    range: float  # mean at the code's last value − mean at its first
    correlation: float  # of code and measure, each about its mean in the series


@dataclass(frozen=True)
class CodeEffects:
    """``slant`` in degrees, ``width`` in pixels; see :func:`slants` and :func:`widths`."""

    slant: Effect
    width: Effect


@dataclass(frozen=True)
class CodesReport:
    """Shares are in [0, 1]; ``confusion[k][c]`` samples of category k look like class c to a classifier."""

    accuracy: float  # of the classifier, on real samples held out from it
    purity: float  # share of the samples in the commonest class of their category
    matched: float  # share in the class of their category, one category a class, at best
    owned: float  # share of the classes that one category holds: most of its samples, and most of the class's
    confusion: tuple[tuple[int, ...], ...]
    codes: tuple[CodeEffects, ...]
    slant: Effect | None  # of the code that changes it most from end to end
    width: Effect | None

    def __str__(self):
        lines = [
            f"classifier's accuracy on held-out real samples {self.accuracy:.1%}",
            f"samples in the commonest class of their category {self.purity:.1%}",
            f"samples in its class, one category a class     {self.matched:.1%}",
            f"classes that one category owns                 {self.owned:.1%}",
            "category  samples that look like class 0, 1, …",
            *(f"{k:>8}  " + " ".join(f"{n:>4}" for n in row) for k, row in enumerate(self.confusion)),
        ]
        if self.codes:
            lines.append("code      measure            slope of 1    from first to last    correlation")
        for k, code in enumerate(self.codes):
            for what, effect in (("slant, degrees", code.slant), ("width, pixels", code.width)):
                numbers = f"{effect.slope:>+10.2f} {effect.range:>+21.2f} {effect.correlation:>+14.2f}"
                lines.append(f"{k:>8}  {what:<18} {numbers}")
        return "\n".join(lines)


def codes_report(
    accuracy: float, categories: Tensor, classes: Tensor, counts: tuple[int, int], codes: tuple[CodeEffects, ...] = ()
) -> CodesReport:
    """Of samples' ``categories`` int64 [N] and what a classifier of this ``accuracy`` takes them for, ``classes`` [N].

    ``counts`` are the numbers of categories and of classes. A category owns a class where more than half of its samples
    are of it, and more than half of all samples of the class are the category's. Purity can only rise with the number
    of categories. ``InputError`` where scipy is missing.
    """
    table = torch.bincount(categories * counts[1] + classes, minlength=counts[0] * counts[1]).view(counts)
    owned = (2 * table > table.sum(1, keepdim=True)) & (2 * table > table.sum(0))
    agreement = clustering_report(categories, classes, *counts)
    return CodesReport(
        accuracy=accuracy,
        purity=agreement.majority,
        matched=agreement.matched,
        owned=float(owned.any(0).double().mean()),
        confusion=tuple(map(tuple, table.tolist())),
        codes=codes,
        slant=max((code.slant for code in codes), key=lambda effect: abs(effect.range), default=None),
        width=max((code.width for code in codes), key=lambda effect: abs(effect.range), default=None),
    )


def code_effects(values: Tensor, images: Tensor) -> CodeEffects:
    """Of a code at ``values`` [T] on ``images`` [S, T, C, H, W], S series in which nothing else changes."""
    series, images = images.shape[:2], images.flatten(0, 1)
    return CodeEffects(*(effect(values, measure(images).view(series)) for measure in (slants, widths)))


def effect(values: Tensor, measured: Tensor) -> Effect:
    """Of a code at ``values`` [T] on a measure [S, T]; a correlation of 0 where the measure stays as it is."""
    x, y = values.double() - values.double().mean(), measured - measured.mean(1, keepdim=True)
    squares = len(y) * x.square().sum()
    product, norm = (x * y).sum(), (squares * y.square().sum()).sqrt()
    return Effect(
        slope=float(product / squares),
        range=float((measured[:, -1] - measured[:, 0]).mean()),
        correlation=float(product / norm) if norm > 0 else 0.0,
    )


def slants(images: Tensor) -> Tensor:
    """[N, C, H, W] in [−1, 1], bright on dark → [N] degrees by which upright strokes lean to the right.

    atan(−μ_xy / μ_yy) of the second central moments of the brightness, y downwards: the shear whose inverse leaves no
    correlation of x and y. 0 for images without height.
    """
    _, xy, yy = moments(images)
    return torch.atan2(-xy, yy.clamp(min=1e-12)).rad2deg()


def widths(images: Tensor) -> Tensor:
    """[N, C, H, W] in [−1, 1], bright on dark → [N] pixels: what a bar of the same variance across would measure.

    √(12 σ² + 1), for a bar of w pixels has the variance (w² − 1) / 12; σ² = μ_xx − μ_xy² / μ_yy is what is left of the
    variance of x without the slant.
    """
    xx, xy, yy = moments(images)
    return (12 * (xx - xy.square() / yy.clamp(min=1e-12)) + 1).sqrt()


def moments(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """[N, C, H, W] → μ_xx, μ_xy, μ_yy [N], in pixels², of the brightness above −1; 0 of black images."""
    mass = images.double().mean(1).add(1).clamp(min=0)
    mass = mass / mass.sum((1, 2), keepdim=True).clamp(min=1e-12)
    y, x = (torch.arange(side, dtype=torch.float64) for side in mass.shape[1:])
    along_y, along_x = mass.sum(2), mass.sum(1)
    dy, dx = y - (along_y @ y)[:, None], x - (along_x @ x)[:, None]
    return (
        (along_x * dx.square()).sum(1),
        torch.einsum("nyx,ny,nx->n", mass, dy, dx),
        (along_y * dy.square()).sum(1),
    )
