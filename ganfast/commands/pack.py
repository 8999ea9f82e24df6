"""``ganfast data pack``: a data set decoded once, into one file."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from ganfast import data
from ganfast.commands.outputs import refuse_as_data
from ganfast.data.options import DataOptions, data_fields


@dataclass(frozen=True, kw_only=True)
class Pack(DataOptions):
    """Decode a data set once into one file that trains without decoding."""

    src: Annotated[str, tyro.conf.arg(metavar="SRC"), tyro.conf.Positional]
    """what --data of training takes: a folder, zip, IDX, .npy or .npz file, ..."""
    dest: Annotated[str, tyro.conf.arg(metavar="DEST"), tyro.conf.Positional]
    """the file to write, DEST.safetensors"""
    targets: str | None = None
    """a folder or zip of the images' partners, by equal names"""

    def run(self) -> None:
        refuse_as_data(self.src, "SRC")
        refuse_as_data(self.targets, "--targets")
        packed = data.pack(self.src, self.dest, self.targets, **data_fields(self))
        left_out = f", {len(packed.skipped)} files left out that cannot be decoded" if packed.skipped else ""
        print(f"wrote {len(packed)} {packed.kind} of {'×'.join(map(str, packed.shape))} to {self.dest}{left_out}")
        for note in packed.notes:
            print(note)
