"""What every source becomes: samples, perhaps labels, and a name."""

import hashlib
import re
from dataclasses import dataclass

import torch


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set in memory or memory-mapped.

    Args:
        name: short slug for run directories, such as ``digits`` or ``noto-emoji-64``.
        samples: images as uint8 [N, H, W, C] with H == W, or points as float32 [N, D].
        labels: int64 [N], or None.
        skipped: names of the files that ``skip_bad`` left out.
    """

    name: str
    samples: torch.Tensor
    labels: torch.Tensor | None = None
    skipped: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """``"images"`` or ``"points"``."""
        return "images" if self.samples.ndim == 4 else "points"

    @property
    def shape(self) -> tuple[int, ...]:
        """One sample as a network sees it: (C, H, W), or (D,)."""
        if self.kind == "points":
            return tuple(self.samples.shape[1:])
        _, height, width, channels = self.samples.shape
        return channels, height, width

    def __len__(self) -> int:
        return self.samples.shape[0]

    @property
    def num_classes(self) -> int:
        """The largest label + 1; 0 without labels."""
        return 0 if self.labels is None else int(self.labels.max()) + 1

    def fingerprint(self) -> str:
        """Count, shape and a hash of 16 evenly spaced rows and all labels, such as ``1797x1x32x32-0f3a…``.

        Cheap on a memory-mapped file, the same packed and unpacked, so that a resumed run can refuse other data.
        """
        rows = torch.linspace(0, len(self) - 1, min(16, len(self)), dtype=torch.float64).round().long()
        digest = hashlib.sha256(self.samples[rows].contiguous().numpy().tobytes())
        digest.update(b"" if self.labels is None else self.labels.numpy().tobytes())
        return "x".join(map(str, (len(self), *self.shape))) + "-" + digest.hexdigest()[:16]


def slug(name: str) -> str:
    """A name that is safe in a path: letters, digits, dots, dashes and underscores, 64 at most."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-")[:64] or "data"
