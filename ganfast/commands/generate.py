"""``ganfast generate``: samples as PNGs, a grid, an animation, one array, or text."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ganfast.commands import network
from ganfast.commands.choices import parse_arithmetic, parse_grid, parse_seeds
from ganfast.commands.outputs import Outputs
from ganfast.errors import InputError

LATENT_SPACE = ("interpolate", "interpolate_grid", "arithmetic")  # options that choose latents beside those of seeds


@dataclass(kw_only=True)
class Generate:
    """Samples of a trained recipe; a seed always gives the same sample."""

    network: Path
    """a run directory, one of its checkpoints, or a generator.safetensors"""
    seeds: str | None = None
    """one latent per seed: 0-63, or 1,5,9-12; by default 0-63, or 0-7 of each class"""
    classes: str | None = None
    """classes by number or name, 3,7 or 0-4 or cat,dog, each with all the seeds; else each seed has one in turn"""
    attributes: str | None = None
    """what translations switch on, each in a picture of its own: hair=black,beard=0,hair=blond+beard=0.5 (+: both)"""
    input: str | None = None
    """a picture, a folder, a zip or other images: what the recipe translates or reconstructs"""
    size: str | None = None
    """read --input at this size, as 64 or 128x64; by default at its own where the network takes any, else as trained"""
    side_by_side: bool = False
    """each file has the picture of --input on the left, and what is made of it on the right"""
    direction: Literal["ab", "ba"] | None = None
    """which way to translate; by default as it was trained to show"""
    domain: Literal["a", "b"] | None = None
    """whose image of each pair, as --data or as --data-b; by default as it was trained to show"""
    grid: str | None = None
    """columns x rows of one picture, as 8x8; by default every sample has a file of its own beside the grid"""
    interpolate: str | None = None
    """walk through the latents of these seeds, as 3,7,19,3: a strip, and a GIF"""
    interpolate_grid: str | None = None
    """four seeds, as 3,7,19,42: an 8x8 grid between them, with theirs in the corners"""
    arithmetic: str | None = None
    """sums of mean latents of seeds, as "1,2,3 - 4,5,6 + 7,8,9": groups and means, the result amid eight near it"""
    strip: bool = False
    """strip.png: a row for each sample, its steps from first to last (lapgan, gran), both of a pair (cogan), or steps
    from --input to its --attributes (ganimation)"""
    latents: Path | None = None
    """latents.npz of ganfast project: walk, grid and arithmetic take its rows, counted from 0, in place of seeds"""
    npz: bool = False
    """one samples.npz: images uint8 [N, H, W, C] (or points fp32 [N, D]), seeds and labels int64 [N]"""
    truncation: float | None = None
    """draw latents from the normal cut off at this many standard deviations"""
    batch: int = 64
    """samples in memory at once"""
    outdir: Path = Path("generated")
    """the folder to write: samples/ holds a picture for each sample and nothing else, grid.png lies beside it"""
    overwrite: bool = False
    """first remove what earlier calls wrote to --outdir, and nothing else"""
    show: bool = False
    """only draw the samples in the terminal, in shades"""
    skip_bad: bool = False
    """leave out files of --input that cannot be decoded, and count them"""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N"""

    def run(self) -> None:
        from ganfast.commands.drawing import Drawing
        from ganfast.commands.translating import Translating

        self.check()
        trained = network.load(self.network, self.device, self.direction, self.domain)
        given_images = {"images", "maps"} & network.conditions(trained).keys()
        with ExitStack() as files:
            if given_images or self.input is not None:
                job = Translating(self, trained, files)
            else:
                job = Drawing(self, trained)
            if self.show:
                print(job.text())
                return
            with Outputs(self.outdir, job.files(), self.overwrite) as out:
                print(f"wrote {job.write(out)}")

    def check(self) -> None:
        """What can be known without the network."""
        kinds = [flag(name) for name in ("input", "grid", "strip", *LATENT_SPACE, "npz", "show") if getattr(self, name)]
        if len(kinds) > 1 and kinds not in (["--input", "--show"], ["--input", "--strip"]):
            raise InputError(f"{' and '.join(kinds)} make different things: give one of them.")
        if self.batch < 1:
            raise InputError(f"--batch must be at least 1, got {self.batch}.")
        if self.skip_bad and self.input is None:
            raise InputError("--skip-bad leaves out files of --input, and there is no --input: leave it out.")
        if self.side_by_side and (self.input is None or self.show or self.strip):
            raise InputError("--side-by-side is of the files that are made of --input: leave it out.")
        if self.size is not None and self.input is None:
            raise InputError(f"--size {self.size} is of --input, and there is no --input: leave it out.")
        for text in (self.seeds, self.interpolate, self.interpolate_grid):
            parse_seeds("0" if text is None else text)
        if self.interpolate and sum(map(len, parse_seeds(self.interpolate))) < 2:
            raise InputError("--interpolate needs two seeds or more, as in 3,7,19.")
        if self.interpolate_grid and sum(map(len, parse_seeds(self.interpolate_grid))) != 4:
            raise InputError(f"--interpolate-grid {self.interpolate_grid}: needs four seeds, as in 3,7,19,42.")
        if self.latents and not any(getattr(self, name) for name in LATENT_SPACE):
            raise InputError(
                f"--latents {self.latents}: say what to draw of its rows: --interpolate, --interpolate-grid or "
                "--arithmetic."
            )
        if self.arithmetic is not None:
            parse_arithmetic(self.arithmetic)
        if self.grid is not None:
            parse_grid(self.grid)

    def refuse(self, why: str, *names: str) -> None:
        """``InputError`` where one of these options is given; ``why`` says why it has no sense."""
        for name in names:
            if (value := getattr(self, name)) not in (None, False):
                said = "" if value is True else f" {value}"
                raise InputError(f"{flag(name)}{said}: {why}: leave it out.")


def flag(name: str) -> str:
    """The option of a field."""
    return "--" + name.replace("_", "-")
