"""Runs every CUDA backend of an operator on the AWKWARD sizes of tools/launches/, for test_memory.py: OP [DEVICE]."""

import sys

import launches
import torch

from ganfast import ops  # noqa: F401  registers the operators
from ganfast.ops._backends import available
from ganfast.ops._registry import OPS


def main(op: str, place: str = "cuda:0") -> None:
    declaration, device, ran = launches.declared()[op], torch.device(place), set()
    for dtype in (torch.float32, torch.float16, torch.bfloat16):

        def tensor(*shape, dtype=dtype):
            return torch.randn(shape, device=device).to(dtype)

        for sizes in declaration.AWKWARD:
            for name, args in declaration.calls(tensor, *sizes):
                for backend in OPS[name].backends:
                    usable = backend.device == device.type and available(backend.name, device) is True
                    if usable and backend.supports(*args) is True:
                        backend.run(*args)
                        ran.add(backend.name)
            if device.type == "cuda":
                torch.cuda.synchronize()
    print("ran", *sorted(ran))


if __name__ == "__main__":
    main(*sys.argv[1:])
