"""What an encoder's codes know of the classes of data, beside raw samples and an encoder that has learned nothing."""

from collections.abc import Callable

import torch
from torch import Tensor

from ganfast.data import Dataset
from ganfast.data.sampler import drawn
from ganfast.metrics.representation import RepresentationReport, accuracies
from ganfast.recipes import Trained
from ganfast.training import sampling

FITTED, JUDGED = 60_000, 10_000  # rows at most


def report(trained: Trained, data: Dataset, own: Dataset | None, progress: bool) -> RepresentationReport | None:
    """Rows of ``data`` judged by ``own``, the run's training data, or where that is None by four fifths of ``data``.

    Rows are drawn by a fixed seed. None where the data has no two classes.
    """
    if data.labels is None or len(data.labels.unique()) < 2:
        return None
    order = drawn(data)
    if own is None:
        known, protocol = data, "four fifths of the same data"
        judged, fitted = order.tensor_split([max(len(data) // 5, 1)])
    else:
        known, protocol = own, "of the run's training data"
        judged, fitted = order, drawn(own)
    fitted, judged = fitted[:FITTED], judged[:JUDGED]

    def compared(encode: Callable[[Tensor], Tensor]):
        codes, others = (codes_of(encode, *each) for each in ((known, fitted), (data, judged)))
        return accuracies(codes, known.labels[fitted], others, data.labels[judged], progress)

    def codes_of(encode: Callable[[Tensor], Tensor], data: Dataset, rows: Tensor) -> Tensor:
        """fp32 [N, n]."""
        return sampling.of_data(trained, lambda x: encode(x).flatten(1).float(), data, rows, "codes", progress)

    numbers = codes_of(trained.encode, data, judged[:2]).shape[1]
    found = [compared(encode) for encode in (trained.encode, lambda x: x, untrained(trained).encode)]
    return RepresentationReport(*found, numbers, len(fitted), len(judged), protocol)


def untrained(trained: Trained) -> Trained:
    """The same networks as they begin, by a fixed seed, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        networks = trained.recipe.build(trained.specs)
    averaged = {name: networks[name] for name in trained.recipe.averaged}
    return Trained(trained.recipe, trained.specs, averaged, trained.origin).to(trained.device).eval()
