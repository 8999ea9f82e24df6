"""Pictures in files at their own sizes, decoded one at a time."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from tqdm import tqdm

from ganfast.data.files import EncodedImages
from ganfast.data.images import Frame, pillows_limit
from ganfast.data.rows import advised, none_left
from ganfast.errors import InputError


class FullSize:
    """``pictures[k]`` is uint8 [H, W, C] of the k-th file that can be decoded, whose name is ``titles[k]``.

    Args:
        channels: 1 or 3; by default 1 where all are grey.
        skip_bad: leave out files that cannot be decoded; ``skipped`` are their names.

    Raises InputError, that names the file, where one cannot be decoded: all are, once, to find out.
    """

    def __init__(self, files: EncodedImages, channels: int | None, skip_bad: bool, progress: bool = True):
        self.files, self.channels = files, channels or files.survey().channels
        self.kept, bad = [], []
        for index in tqdm(range(len(files)), files.name, unit="img", delay=1, leave=False, disable=not progress):
            try:
                self.decoded(index)
            except InputError as error:
                if not skip_bad:
                    raise advised(error) from error
                bad.append(files.title(index))
            else:
                self.kept.append(index)
        if not self.kept:
            raise none_left(files)
        self.titles, self.skipped = [files.title(index) for index in self.kept], tuple(bad)

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, k: int) -> Tensor:
        return self.decoded(self.kept[k])

    def decoded(self, index: int) -> Tensor:
        with reading(), self.files.naming(index):
            image = self.files.picture(index)
            return torch.tensor(self.files.bring(image, Frame(image.height, image.width, self.channels)))


@contextmanager
def reading() -> Iterator[None]:
    """While files are read: what Pillow warns of is checked here, and what it refuses."""
    with warnings.catch_warnings(), pillows_limit():
        warnings.filterwarnings("ignore", module="PIL")
        yield
