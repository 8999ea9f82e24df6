"""Samples that tell what a recipe's own codes mean: of each category, and along each continuous code."""

import torch

from ganfast.data import Dataset, Spec
from ganfast.metrics.codes import CodesReport, code_effects, codes_report
from ganfast.metrics.lenet import fitted, probabilities
from ganfast.recipes import Trained
from ganfast.training import sampling

EACH = 200  # samples of a category
SERIES = 160  # latents whose codes are varied, with each category in turn
VALUES = torch.linspace(-2, 2, 9)  # of a continuous code


def report(trained: Trained, data: Dataset, progress: bool = True) -> CodesReport | None:
    """None of recipes without a categorical code of their own, and where ``data`` has no images of two classes."""
    own = {spec.kind: name for name, spec in trained.recipe.given.items() if isinstance(spec, Spec)}
    labelled = data.kind == "images" and data.labels is not None and len(data.labels.unique()) > 1
    if "labels" not in own or not labelled:
        return None
    count = trained.given[own["labels"]].classes
    seeds = range(EACH * count)
    given = sampling.fill(trained, seeds)
    if "attributes" in own:  # as in training: U[−1, 1]
        numbers = torch.rand(given[own["attributes"]].shape, generator=torch.Generator().manual_seed(0))
        given[own["attributes"]] = numbers * 2 - 1
    fit = fitted(data, progress=progress)
    seen = probabilities(fit.network, sampling.sample(trained, seeds, None, given)).argmax(1)
    codes = trained.given[own["attributes"]].shape[0] if "attributes" in own else 0
    effects = [code_effects(VALUES, along(trained, own["attributes"], code)) for code in range(codes)]
    return codes_report(fit.accuracy, given[own["labels"]], seen, (count, data.num_classes), tuple(effects))


def along(trained: Trained, name: str, code: int) -> torch.Tensor:
    """[SERIES, VALUES, C, H, W]: one code over VALUES, the others 0."""
    seeds = [seed for seed in range(SERIES) for _ in VALUES]
    given = sampling.fill(trained, seeds)
    given[name][:, code] = VALUES.repeat(SERIES)
    return sampling.sample(trained, seeds, None, given).unflatten(0, (SERIES, len(VALUES)))
