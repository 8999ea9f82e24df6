"""The arithmetic of a run: fp32, TF32, or half types under autocast, fp16 with a loss scale."""

import contextlib
import functools
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ganfast.errors import InputError

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """What ``--precision`` and ``--deterministic`` say; weights, their gradients and the optimisers' moments stay fp32.

    fp16's smallest number is 6e-8, and gradients can be smaller: losses are multiplied by a scale that falls when a
    gradient overflows (that update is left out) and rises after 2,000 that do not (Micikevicius et al. 2018,
    arXiv:1710.03740). It is a number on the device, and nothing waits for it.
    """

    def __init__(self, name: str, device: torch.device, deterministic: bool = False):
        self.name, self.device = name, device
        self.deterministic = deterministic and device.type == "cuda"  # a CPU's kernels are
        self.scaler = torch.amp.GradScaler(device.type) if name == "fp16" else None

    def autocast(self) -> contextlib.AbstractContextManager:
        """For forward passes."""
        if self.name not in HALF:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, HALF[self.name])

    @property
    def scale(self) -> Tensor | None:
        """What the loss is multiplied by, a scalar on the device; None: by nothing."""
        return None if self.scaler is None else self.scaler.scale(torch.ones((), device=self.device))

    def gradients(self, loss: Tensor, parameters: list[nn.Parameter]) -> tuple[Tensor | None, ...]:
        """Those of scale·loss."""
        loss = loss if self.scaler is None else self.scaler.scale(loss)
        seed = self.one if loss.dtype == self.one.dtype else None  # torch would make one in each call
        return torch.autograd.grad(loss, parameters, seed, allow_unused=True)

    @functools.cached_property
    def one(self) -> Tensor:
        return torch.ones((), device=self.device)

    def update(self, optimizer: torch.optim.Optimizer) -> None:
        """The optimiser's step on gradients of scale·loss."""
        if self.scaler is None:
            optimizer.step()
        else:
            self.scaler.step(optimizer)
            self.scaler.update()

    @contextlib.contextmanager
    def settings(self):
        """For a whole run: TF32 only where asked for; the fastest convolutions, or deterministic algorithms alone.

        ``InputError`` where an operation of a deterministic run has none.
        """
        tf32, cudnn, matmul = self.name == "tf32", torch.backends.cudnn, torch.backends.cuda.matmul
        kinds = matmul, cudnn.conv, cudnn.rnn
        before = [kind.fp32_precision for kind in kinds]
        benchmark = cudnn.benchmark
        try:
            cudnn.benchmark = not self.deterministic
            _set_tf32(kinds, ["tf32" if tf32 else "ieee"] * 3)
            with _deterministic_algorithms() if self.deterministic else contextlib.nullcontext():
                yield
        finally:
            cudnn.benchmark = benchmark
            _set_tf32(kinds, before)

    def state(self) -> dict:
        return {} if self.scaler is None else self.scaler.state_dict()

    def load_state(self, state: dict) -> None:
        if self.scaler is not None:
            self.scaler.load_state_dict(state)


@contextlib.contextmanager
def _deterministic_algorithms() -> Iterator[None]:
    cudnn, memory = torch.backends.cudnn, torch.utils.deterministic
    before = cudnn.deterministic, memory.fill_uninitialized_memory
    mode = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        cudnn.deterministic, memory.fill_uninitialized_memory = (
            True,
            False,
        )  # what is empty is written before it is read
        torch.use_deterministic_algorithms(True)
        yield
    except RuntimeError as error:
        reason, _, rest = str(error).partition(", but ")
        if "use_deterministic_algorithms" not in rest:
            raise
        raise InputError(f"the step cannot be deterministic ({reason}): leave out --deterministic.") from error
    finally:
        cudnn.deterministic, memory.fill_uninitialized_memory = before
        torch.use_deterministic_algorithms(mode[0], warn_only=mode[1])


def _set_tf32(kinds, precisions: list[str]) -> None:
    """Both of torch's switches: it raises an error where somebody reads the older one and they differ."""
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = (p == "tf32" for p in precisions[:2])
    for kind, precision in zip(kinds, precisions):
        kind.fp32_precision = precision
