"""``ganfast directions``: along which latent directions a class or an attribute of the data changes."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import tyro

from ganfast.commands import network
from ganfast.commands.evaluate import Evaluate
from ganfast.commands.outputs import Outputs, refuse_as_data
from ganfast.errors import InputError
from ganfast.metrics import check_shape
from ganfast.training import directions, pictures, run_directory


@dataclass(kw_only=True)
class Directions:
    """Find the latent directions that change a class or an attribute."""

    network: Path
    """a run directory, one of its checkpoints, or a generator.safetensors"""
    data: str | None = None
    """images with labels or attributes; by default the data that the run was trained on"""
    frm: Annotated[str | None, tyro.conf.arg(name="from")] = None
    """the class to go from; by default all others"""
    to: str | None = None
    """the class or attribute to go to; by default each in turn"""
    rows: int = 4
    """walks of each direction in the picture, from samples without"""
    outdir: Path | None = None
    """the folder to write: directions.png and directions.safetensors; by default the run, whose report shows them"""
    overwrite: bool = False
    """first remove what earlier calls wrote to --outdir, and nothing else"""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N"""

    def run(self) -> None:
        if not 1 <= self.rows <= 64:
            raise InputError(f"--rows must lie in 1 ... 64, got {self.rows}.")
        trained = network.load(self.network, self.device)
        data = self.open(trained)
        wanted = directions.sides(data, self.frm, self.to)
        outdir = self.outdir or run_directory.of(self.network) or Path("generated")
        with Outputs(outdir, ("directions.png", directions.FILE), self.overwrite) as out:
            found = [*directions.directions(trained, wanted, self.rows, progress=True)]
            missing = [side.name for side in wanted if side.name not in {each.name for each in found}]
            if not found:
                raise InputError(
                    f"of {directions.DRAWN} samples fewer than {directions.FEWEST} are {' or '.join(missing)}, or are "
                    "not: there is no direction to find."
                )
            print(table(found))
            drawn = torch.cat([directions.walk(trained, each.vector, each.base) for each in found])
            picture, file = out.path("directions.png"), out.path(directions.FILE)
            pictures.write_png(picture, pictures.picture_of(drawn, len(directions.STEPS)))
            directions.save(found, file)
        few = f"; too few samples for {', '.join(missing)}" if missing else ""
        print(f"wrote {picture} and {file}{few}")

    def open(self, trained):
        """The data, read as the run's is where no other is named."""
        stored = Evaluate(network=self.network).as_trained()
        chosen = stored if self.data is None else replace(stored, data=self.data, split=None)
        if chosen.data is None:
            raise InputError(f"{self.network} is a generator without its run: name the data (--data).")
        refuse_as_data(chosen.data, "--data")
        shape = trained.specs[next(iter(trained.recipe.columns))].shape
        data = chosen.open(shape)
        check_shape(data, shape)
        return data


def table(found: list[directions.Direction]) -> str:
    """A line for each direction: what share of samples without it have it, by how far they are moved."""
    wide = max(len(each.name) for each in found)
    heads = "".join(f"{f'{t:+d} σ' if t else '0':>7}" for t in directions.STEPS)
    lines = ["samples without, moved along a direction: share that a classifier then sees as it"]
    lines += [f"{'direction':<{max(wide, 9)}}{heads}  means apart  classifier right"]
    for each in found:
        shares = "".join(f"{share:>7.0%}" for share in each.shares)
        lines.append(f"{each.name:<{max(wide, 9)}}{shares}{each.difference:>11.2f} σ{each.accuracy:>18.1%}")
    return "\n".join(lines)
