"""How unlike two images look to a feature network: LPIPS without its learned weights (Zhang et al. 2018)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ganfast.metrics.features import Network

Measure = Callable[[Tensor], Tensor]


def pixels(targets: Tensor) -> Measure:
    """Images [B, C, H, W] → mean squared error [B] to ``targets`` [B or 1, C, H, W], both in [−1, 1]."""
    return lambda images: (images - targets).square().flatten(1).mean(1)


class Perceptual:
    """``Perceptual(network)(targets)(images)``: distances [B] by the features of every block, differentiable.

        d(x, y) = mean over blocks and places p of ‖a(x)_p/‖a(x)_p‖ − a(y)_p/‖a(y)_p‖‖²

    with the activations a [B, C, P] of a block (Zhang et al. 2018, "The unreasonable effectiveness of deep features as
    a perceptual metric", arXiv:1801.03924, equation 1 with all weights 1). Between 0 and 4.
    """

    def __init__(self, network: Network):
        self.network = network
        self.found: list[Tensor] = []
        for block in blocks(network.module):
            block.register_forward_hook(self.note)

    def note(self, block: nn.Module, inputs: tuple, output: Tensor) -> None:
        maps = output.flatten(2) if output.ndim == 4 else output.transpose(1, 2)  # of tokens [B, P, C]
        self.found.append(nn.functional.normalize(maps, dim=1))

    def maps(self, images: Tensor) -> list[Tensor]:
        """The normalised activations [B, C, P] of each block."""
        self.found = []
        self.network.module(images)
        return self.found

    def __call__(self, targets: Tensor) -> Measure:
        with torch.no_grad():
            wanted = self.maps(targets)

        def measure(images: Tensor) -> Tensor:
            pairs = zip(self.maps(images), wanted)
            return torch.stack([(a - b).square().sum(1).mean(1) for a, b in pairs]).mean(0)

        return measure


def blocks(module: nn.Module) -> list[nn.Module]:
    """The parts of a published network whose outputs are maps: its children, or those of its one list of blocks."""
    for each in module.children():
        if isinstance(each, (nn.Sequential, nn.ModuleList)) and len(each) > 4:
            return list(each)
    return [each for each in module.children() if not isinstance(each, nn.Linear)]
