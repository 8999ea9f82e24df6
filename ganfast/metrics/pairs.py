"""How well pairs of generated images agree (Liu and Tuzel 2016, arXiv:1606.07536, section 4)."""

from dataclasses import dataclass

from torch import Tensor

BRIGHT = 128  # of 256 levels: a pixel is on from here


@dataclass(frozen=True)
class PairReport:
    """Shares of pixels, 0 … 1, that are bright in both images, or dark in both."""

    agreement: float
    """of the two of a pair: the paper's pixel agreement ratio"""
    unrelated: float
    """of one and the other of the next pair: what chance gives"""

    def __str__(self) -> str:
        return f"pixel agreement of pairs: {self.agreement:.1%} (of images of different pairs: {self.unrelated:.1%})"


def pair_report(wanted: Tensor, found: Tensor) -> PairReport:
    """Of uint8 [N, H, W, C] twice, N ≥ 2: what should be made of the one image of each pair, and the other one."""
    wanted, found = wanted >= BRIGHT, found >= BRIGHT
    alike = (wanted == found).float().mean().item()
    return PairReport(alike, (wanted.roll(1, 0) == found).float().mean().item())
