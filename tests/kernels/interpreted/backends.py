"""What the programs beside this file run."""

import torch


def triton(op, *args):
    """op(*args) on its Triton backend, whatever the device of the tensors."""
    return next(backend.run for backend in op.backends if backend.name == "triton")(*args)


def wide(*args):
    """The arguments with tensors in fp64, for which an operator's reference runs."""
    return [a.double() if isinstance(a, torch.Tensor) else a for a in args]


def both(calls) -> tuple[list, list]:
    """The results of Triton and those of the reference in fp64, of calls (operator, *args), in a row."""
    got, wanted = [], []
    for op, *args in calls:
        for found, results in ((got, triton(op, *args)), (wanted, op(*wide(*args)))):
            found += [results] if isinstance(results, torch.Tensor) else results
    return got, wanted
