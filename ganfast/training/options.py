"""What a person chooses about a run, whatever the recipe."""

import math
import os
from dataclasses import dataclass
from typing import Literal

import torch

from ganfast.data.options import DataOptions
from ganfast.errors import InputError
from ganfast.training.distributed import local_device


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What is trained on: the first options of the help."""

    data: str
    """digits, gaussians:ring8 or :grid25, part:train:SRC, few:N:SRC, stacked:SRC, edges:SRC, negatives:SRC,
    users:K:SRC, or a folder, zip, tar, ZIP/folder, IDX, .npy, .npz or packed file"""
    data_b: str | None = None
    """the second set of unpaired images, or a folder or zip of the images' partners by equal names"""
    flip: bool = False
    """flip half of the images left to right"""


@dataclass(frozen=True, kw_only=True)
class DataGroup(DataOptions, Sources):
    """What is trained on, and how it is read."""


@dataclass(frozen=True, kw_only=True)
class RunGroup:
    """How long the run is, and where it goes."""

    steps: int | None = None
    """train for this many steps (of a GAN: generator updates), instead of --kimg"""
    kimg: float | None = None
    """train until the networks have seen this many thousand real samples (1000 when --steps is not given either)"""
    outdir: str = "runs"
    """where the run directory is created"""
    resume: str | None = None
    """continue this run directory, one of its checkpoints, or latest: the newest run of the recipe in --outdir"""
    seed: int = 0
    """random seed of weights, data order and latents"""
    on_nan: Literal["stop", "rollback"] = "stop"
    """on a loss or weight that is NaN or infinite: stop, or continue from the newest checkpoint with other batches"""


@dataclass(frozen=True, kw_only=True)
class OptimisationGroup:
    """Batches, learning rates and averages, whatever the recipe."""

    batch: int | None = None
    """samples in a batch; by default as the recipe says: mostly 64"""
    lr_decay: Literal["none", "linear", "late-linear", "cosine"] | None = None
    """how learning rates decay to 0 (late-linear: in the second half); by default as the recipe says"""
    ema_decay: float = 0.999
    """decay rate of the exponential moving average that is saved and sampled; smaller in the first steps"""
    sync_bn: bool = False
    """with torchrun: synchronise BatchNorm's statistics across processes"""


@dataclass(frozen=True, kw_only=True)
class DeviceGroup:
    """Where and in which precision it is computed."""

    device: str = "auto"
    """auto, cpu, cuda or cuda:N"""
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    """arithmetic of convolutions and matrix products; weights stay fp32, fp16 scales its losses"""
    compile: bool = False
    """run losses and networks under torch.compile, which takes a while to start"""
    graph: bool = True
    """capture the step in a CUDA graph on a GPU; --no-graph runs it eagerly"""
    deterministic: bool = False
    """bit-exact runs and --resume on a GPU, with slower kernels; a CPU is always bit-exact"""
    gpu_data_gib: float = 1.0
    """keep data sets up to this size in GPU memory; larger ones are copied batch by batch"""


@dataclass(frozen=True, kw_only=True)
class SavingGroup:
    """What is written, and how often."""

    checkpoint_every: int = 1000
    """steps between two checkpoints"""
    sample_every: int = 500
    """steps between two pictures"""
    log_every: int = 20
    """steps between two rows of stats.jsonl"""
    keep: int = 3
    """how many checkpoints are kept; older ones are deleted"""
    score_every: int = 0
    """steps between two scores of the averaged networks, as of evaluate, kept in metric-*.jsonl; 0: none"""
    features: str | None = None
    """with --score-every: weights of a published network to score images by, as of evaluate"""


GROUPS = {"data": DataGroup, "run": RunGroup, "optimisation": OptimisationGroup, "device": DeviceGroup,
          "saving": SavingGroup}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TrainOptions(SavingGroup, DeviceGroup, OptimisationGroup, RunGroup, DataGroup):
    """Options of a run, whatever its recipe."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("data", "data_b", "outdir", "resume", "features"):  # words, as options.json has them
            if isinstance(getattr(self, name), os.PathLike):
                object.__setattr__(self, name, os.fspath(getattr(self, name)))
        if self.kimg is not None and self.steps is not None:
            raise InputError("kimg and steps both say when to stop: give one of them (--kimg, --steps).")
        for name in ("batch", "log_every", "sample_every", "checkpoint_every", "keep", "kimg", "steps"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"{name} must be above 0, got {value} (--{name.replace('_', '-')}).")
        if self.score_every < 0:
            raise InputError(f"score_every must be 0 or more, got {self.score_every} (--score-every).")
        if self.features and not self.score_every:
            raise InputError("features are what scores compare: give --score-every as well, or leave --features out.")
        if not self.gpu_data_gib >= 0:
            raise InputError(f"gpu_data_gib must be 0 or more, got {self.gpu_data_gib} (--gpu-data-gib).")
        if not 0 <= self.ema_decay < 1:
            raise InputError(f"ema_decay must lie in [0, 1), got {self.ema_decay} (--ema-decay).")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"seed must lie in [0, 2^63), got {self.seed} (--seed).")

    def total_steps(self, batches: int) -> int:
        """Steps until the end, each of which sees ``batches`` batches of real samples."""
        if self.steps is not None:
            return self.steps
        return math.ceil((self.kimg or 1000) * 1000 / (self.batch * batches))

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


# what may differ between a run and its continuation, whose data is compared by its fingerprint, besides learning rates
# (fields lr, lr_…); anything else would silently change the method
MAY_CHANGE = {
    "direction",
    "domain",
    "size",
    "channels",
    "fit",
    "split",
    "shape",
    "transpose",
    "skip_unlabelled",
    "data",
    "data_b",
    "outdir",
    "kimg",
    "steps",
    "device",
    "deterministic",
    "graph",
    "compile",
    "gpu_data_gib",
    "log_every",
    "sample_every",
    "checkpoint_every",
    "keep",
    "score_every",
    "features",
    "on_nan",
    "resume",
    "skip_bad",
}


def refuse_changes(stored: dict, given: dict, run: str) -> None:
    """``InputError`` where ``given`` options or recipe fields differ from the ``stored`` ones of ``run``."""
    for name, value in given.items():
        rate = name == "lr" or (name.startswith("lr_") and name != "lr_decay")
        if name not in MAY_CHANGE and not rate and name in stored and stored[name] != value:
            flag = "--" + name.replace("_", "-")
            raise InputError(
                f"{run} was trained with {flag} {stored[name]}, not {value}, which would change the method: leave "
                f"{flag} out to go on with it (learning rates and the intervals of rows, pictures and checkpoints may "
                "change), or leave --resume out to start a new run."
            )
