"""Distances between two sets of features, in fp64, exact at few samples, in memory that grows with neither set squared.

Every function takes features [N, F] of any float type, computes in fp64 on their device and returns Python floats.
"""

import numpy as np
import torch
from torch import Tensor

from ganfast.errors import InputError

ROWS = 2048  # of a block of a covariance
BLOCK = 2**24  # distances at once
SEED = 2020  # of subsets and splits, as torch-fidelity's, so that figures can be compared


def checked(name: str, features: Tensor, least: int, width: int | None = None) -> Tensor:
    """``features`` in fp64; ``InputError`` where they are no finite [N ≥ least, F = width]."""
    if features.dim() != 2 or not features.is_floating_point():
        kind = str(features.dtype).removeprefix("torch.")
        raise InputError(f"{name}: got {kind} {list(features.shape)}, needs floats [N, F].")
    if len(features) < least:
        raise InputError(f"{name}: got {len(features)} rows, needs at least {least}: give more samples.")
    if width is not None and features.shape[1] != width:
        raise InputError(f"{name}: got {features.shape[1]} features beside {width}: take both from one network.")
    if not features.isfinite().all():
        raise InputError(f"{name}: NaN or infinity among the features: look at the images that they are of.")
    return features.double()


def pair(real: Tensor, fake: Tensor, least: int) -> tuple[Tensor, Tensor]:
    real = checked("real", real, least)
    return real, checked("fake", fake, least, real.shape[1])


# -- Fréchet -----------------------------------------------------------------------------------------------------------


def frechet(real: Tensor, fake: Tensor) -> float:
    """‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2 (Σ₁^½ Σ₂ Σ₁^½)^½): the squared Fréchet distance of two Gaussians fitted to the sets.

    With Inception's pool features it is FID (Heusel et al. 2017, arXiv:1706.08500). Σ is the unbiased covariance. Two
    rows or more on each side; biased upwards at few, so compare equal numbers only.
    """
    real, fake = pair(real, fake, 2)
    return frechet_of(real.mean(0), factor(real), fake.mean(0), factor(fake))


def frechet_of(mean1: Tensor, factor1: Tensor, mean2: Tensor, factor2: Tensor) -> float:
    """The same of means [F] and factors A [R, F] of covariances Σ = AᵀA.

    tr (Σ₁^½ Σ₂ Σ₁^½)^½ is the sum of the singular values of A₁ A₂ᵀ, whatever the ranks: no root of a matrix that is
    not symmetric, no imaginary part, no εI.
    """
    common = torch.linalg.svdvals(factor1 @ factor2.T).sum()
    spread = factor1.square().sum() + factor2.square().sum()
    return max(float((mean1 - mean2).square().sum() + spread - 2 * common), 0.0)


def factor(features: Tensor) -> Tensor:
    """A [min(N, F), F] with AᵀA the unbiased covariance of fp64 features [N, F], N ≥ 2."""
    count, width = features.shape
    mean = features.mean(0)
    if count <= width:
        return (features - mean) / (count - 1) ** 0.5
    covariance = features.new_zeros(width, width)
    for part in features.split(ROWS):
        part = part - mean
        covariance.addmm_(part.T, part)
    return root(covariance / (count - 1))


def root(covariance: Tensor) -> Tensor:
    """A [F, F] with AᵀA = ``covariance``, symmetric and positive semidefinite up to rounding."""
    values, vectors = torch.linalg.eigh(covariance)
    return values.clamp(min=0).sqrt()[:, None] * vectors.T


# -- kernel distance ---------------------------------------------------------------------------------------------------


def kernel_distance(real: Tensor, fake: Tensor, subsets: int = 100, size: int = 1000) -> tuple[float, float]:
    """(mean, standard deviation) over ``subsets`` of the unbiased MMD² with the kernel (x·y/F + 1)³.

    With Inception's pool features it is KID (Bińkowski et al. 2018, arXiv:1801.01401). Each subset draws ``size`` rows
    of each side without replacement, all of the smaller side where it has fewer; with torch-fidelity's seed. Unbiased:
    0 on average where both sides are of one distribution, and negative half of the time.
    """
    real, fake = pair(real, fake, 2)
    if subsets < 1 or size < 2:
        raise InputError(f"subsets {subsets}, size {size}: give 1 and 2 at least.")
    size = min(size, len(real), len(fake))
    random = np.random.RandomState(SEED)
    found = []
    for _ in range(subsets):  # torch-fidelity draws of the generated samples first
        y = fake[torch.from_numpy(random.choice(len(fake), size, replace=False))]
        x = real[torch.from_numpy(random.choice(len(real), size, replace=False))]
        found.append(mmd2(x, y))
        if size == len(real) == len(fake):  # every subset is the whole
            break
    return float(np.mean(found)), float(np.std(found))


def mmd2(x: Tensor, y: Tensor) -> float:
    """Unbiased MMD² of x and y [n, F] with the cubic kernel."""

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    n = len(x)
    own = sum(float((k := kernel(a, a)).sum() - k.diagonal().sum()) for a in (x, y))
    return own / (n * (n - 1)) - 2 * float(kernel(x, y).mean())


# -- Inception Score ---------------------------------------------------------------------------------------------------


def inception_score(probabilities: Tensor, splits: int = 10) -> tuple[float, float]:
    """(mean, standard deviation) over ``splits`` of exp E KL(p(y|x) ‖ p(y)) of class probabilities [N, K].

    Salimans et al. 2016 (arXiv:1606.03498); rows are shuffled with torch-fidelity's seed first. From 1 to K.
    """
    p = checked("probabilities", probabilities, 1)
    if p.min() < 0 or (p.sum(1) - 1).abs().max() > 1e-3:
        raise InputError("probabilities: rows must be non-negative and sum to 1: take the softmax of the logits.")
    splits = max(min(splits, len(p)), 1)
    p = p[torch.from_numpy(np.random.RandomState(SEED).permutation(len(p)))]
    found = []
    for k in range(splits):
        part = p[k * len(p) // splits : (k + 1) * len(p) // splits]
        marginal = part.mean(0)
        divergence = (torch.special.xlogy(part, part) - torch.special.xlogy(part, marginal)).sum(1)
        found.append(float(divergence.mean().exp()))
    return float(np.mean(found)), float(np.std(found))


# -- neighbours --------------------------------------------------------------------------------------------------------


def precision_recall(real: Tensor, fake: Tensor, k: int = 3) -> tuple[float, float]:
    """(precision, recall): shares of fakes in the real manifold, and of real samples in the fakes' manifold.

    A manifold is the union of balls about its samples that reach to their k-th neighbours (Kynkäänniemi et al. 2019,
    arXiv:1904.06991). k + 1 rows or more on each side.
    """
    real, fake = pair(real, fake, k + 1)
    return float(inside(fake, real, radii(real, k))), float(inside(real, fake, radii(fake, k)))


def density_coverage(real: Tensor, fake: Tensor, k: int = 5) -> tuple[float, float]:
    """(density, coverage) of Naeem et al. 2020 (arXiv:2002.09797), k + 1 rows or more of real samples.

    Density: in how many real balls (radius: the k-th neighbour) a fake lies, over k; 1 for equal distributions, and
    above 1 where fakes crowd in the dense regions. Coverage: the share of real balls that hold a fake, in [0, 1].
    """
    real = checked("real", real, k + 1)
    fake = checked("fake", fake, 1, real.shape[1])
    reach = radii(real, k)
    hits, covered = 0, torch.zeros(len(real), dtype=torch.bool, device=real.device)
    for part in blocks(fake, real):
        within = torch.cdist(part, real) <= reach
        hits += int(within.sum())
        covered |= within.any(0)
    return hits / (k * len(fake)), float(covered.double().mean())


def blocks(points: Tensor, others: Tensor) -> tuple[Tensor, ...]:
    """``points`` in parts whose distances to all of ``others`` take bounded memory."""
    return points.split(max(BLOCK // max(len(others), 1), 1))


def radii(features: Tensor, k: int) -> Tensor:
    """[N]: the distance of each row to its k-th neighbour among the others."""
    return torch.cat([torch.cdist(part, features).kthvalue(k + 1).values for part in blocks(features, features)])


def inside(points: Tensor, centres: Tensor, reach: Tensor) -> Tensor:
    """The share of ``points`` that lie in a ball of radius ``reach`` [N] about ``centres`` [N, F]."""
    return torch.cat([(torch.cdist(p, centres) <= reach).any(1) for p in blocks(points, centres)]).double().mean()


def nearest(points: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """(distance [N], row of ``others`` [N]) of the nearest neighbour of each of ``points``, in their own precision."""
    found = [torch.cdist(part, others).min(1) for part in blocks(points, others)]
    return torch.cat([each.values for each in found]), torch.cat([each.indices for each in found])


def copying(train: Tensor, held_out: Tensor, fake: Tensor) -> tuple[float, float]:
    """(share, C_T): whether fakes lie nearer to ``train`` than real samples that are not in it, ``held_out``.

    ``share`` is that of pairs (fake, held-out sample) whose fake is the nearer one, 0.5 where the generator draws from
    the distribution. C_T (Meehan et al. 2020, arXiv:2004.05675, with one cell) is the Mann-Whitney statistic of the
    distances to the nearest neighbours as a z-score, negative where fakes are nearer: below −3 they are copies, far
    above 3 they lie off the data. For a set of which ``held_out`` was trained on as well, half of the copies are of
    ``train`` and are found, the other half are like ``held_out``.
    """
    train = checked("train", train, 1)
    held_out = checked("held_out", held_out, 1, train.shape[1])
    fake = checked("fake", fake, 1, train.shape[1])
    d_fake, d_real = nearest(fake, train)[0], nearest(held_out, train)[0]
    m, n = len(d_fake), len(d_real)
    order = d_real.sort().values
    above = n - torch.searchsorted(order, d_fake, right=True)  # real distances that are larger
    ties = n - above - torch.searchsorted(order, d_fake)
    nearer = float((above + ties / 2).double().sum())
    deviation = (m * n * (m + n + 1) / 12) ** 0.5
    return nearer / (m * n), (m * n / 2 - nearer) / deviation
