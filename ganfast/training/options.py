"""What a person chooses about a run, whatever the recipe."""

import math
import os
from dataclasses import dataclass
from typing import Literal

import torch

from ganfast.errors import InputError, check_choices
from ganfast.training.distributed import local_device


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Options of a run, whatever its recipe."""

    data: str
    """digits, gaussians:ring8, gaussians:grid25, or a folder, zip, IDX, .npy, .npz or packed file"""
    outdir: str = "runs"
    """where the run's own directory is made"""
    size: int | None = None
    """pixels a side: 16, 32, 64, 128 or 256; by default the nearest to the data's own"""
    channels: int | None = None
    """1 for grey, 3 for RGB; by default what the data is"""
    batch: int = 64
    """samples in a batch"""
    kimg: float | None = None
    """train until the discriminator has seen this many thousand real samples (1000 when --steps is not given either)"""
    steps: int | None = None
    """train for this many generator updates, instead of --kimg"""
    seed: int = 0
    """of the weights, the data's order and the latents"""
    sync_bn: bool = False
    """with torchrun: BatchNorm's statistics in training are those of all processes"""
    flip: bool = False
    """mirror half of the images"""
    ema_decay: float = 0.999
    """decay per step of the averaged generator, the one that is saved and sampled; shorter while training is young"""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N"""
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    """arithmetic of convolutions and matrix products; weights stay fp32, fp16 scales its losses"""
    deterministic: bool = False
    """on a GPU the same bits in every run and after --resume, by slower kernels; a CPU always gives them"""
    graph: bool = True
    """on a GPU the step is captured in a CUDA graph and replayed; --no-graph runs it as it is"""
    compile: bool = False
    """run the networks under torch.compile, which takes a while to start"""
    lr_decay: Literal["none", "linear", "cosine"] = "none"
    """how the learning rates fall to 0 until the last step"""
    gpu_data_gib: float = 1.0
    """a data set up to this size lives on the GPU, a larger one is sent batch by batch"""
    log_every: int = 20
    """steps between two rows of stats.jsonl"""
    sample_every: int = 500
    """steps between two pictures"""
    checkpoint_every: int = 1000
    """steps between two checkpoints"""
    on_nan: Literal["stop", "rollback"] = "stop"
    """when a loss or weight is no number: stop, or go back to the newest checkpoint and on with other data and noise"""
    keep: int = 3
    """how many checkpoints stay; older ones are deleted"""
    skip_bad: bool = False
    """leave out files that cannot be decoded, and count them"""
    resume: str | None = None
    """go on with this run directory, or from this checkpoint of it"""

    def __post_init__(self):
        check_choices(self)
        for name in ("data", "outdir", "resume"):  # words, as options.json has them
            if isinstance(getattr(self, name), os.PathLike):
                object.__setattr__(self, name, os.fspath(getattr(self, name)))
        if self.kimg is not None and self.steps is not None:
            raise InputError("kimg and steps both say when to stop: give one of them (--kimg, --steps).")
        for name in ("batch", "log_every", "sample_every", "checkpoint_every", "keep", "kimg", "steps"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"{name} must be above 0, got {value} (--{name.replace('_', '-')}).")
        if self.batch < 2:
            raise InputError("batch must be at least 2, because BatchNorm needs two samples, got 1 (--batch).")
        if not self.gpu_data_gib >= 0:
            raise InputError(f"gpu_data_gib must be 0 or more, got {self.gpu_data_gib} (--gpu-data-gib).")
        if not 0 <= self.ema_decay < 1:
            raise InputError(f"ema_decay must lie in [0, 1), got {self.ema_decay} (--ema-decay).")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"seed must lie in [0, 2^63), got {self.seed} (--seed).")

    def total_steps(self, d_steps: int) -> int:
        """Generator updates until the end; each discriminator update sees ``batch`` real samples."""
        if self.steps is not None:
            return self.steps
        return math.ceil((self.kimg or 1000) * 1000 / (self.batch * d_steps))

    def torch_device(self) -> torch.device:
        name = local_device(self.device)
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            device = torch.device(name)
        except RuntimeError:
            raise InputError(f"device {name!r} is unknown: give auto, cpu, cuda or cuda:N (--device).") from None
        if device.type not in ("cpu", "cuda"):
            raise InputError(f"device {name!r} is not supported: give auto, cpu, cuda or cuda:N (--device).")
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            count = torch.cuda.device_count()
            raise InputError(f"device {name!r} is not there, {count} CUDA device(s) found: give --device cpu or auto.")
        if device.type == "cpu" and self.precision == "tf32":
            raise InputError("precision tf32 needs a CUDA device: give --precision fp32 or bf16.")
        return device


# what may differ between a run and its continuation, whose data is compared by its fingerprint; anything else would
# make it another run
MAY_CHANGE = {
    "size",
    "channels",
    "data",
    "outdir",
    "kimg",
    "steps",
    "device",
    "deterministic",
    "graph",
    "compile",
    "gpu_data_gib",
    "sample_every",
    "checkpoint_every",
    "keep",
    "on_nan",
    "resume",
    "skip_bad",
}


def refuse_changes(stored: dict, given: dict, run: str) -> None:
    """``InputError`` where ``given`` options or recipe fields differ from the ``stored`` ones of ``run``."""
    for name, value in given.items():
        if name not in MAY_CHANGE and name in stored and stored[name] != value:
            flag = "--" + name.replace("_", "-")
            raise InputError(
                f"{run} was trained with {flag} {stored[name]}, not {value}: leave {flag} out to go on with it, "
                "or leave --resume out to start a new run."
            )
