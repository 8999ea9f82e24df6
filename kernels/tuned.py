"""Constants of the kernels measured to be best on an architecture; `python bench/tune.py --write` writes the table."""

import triton

# compute capability → operator → constants of kernels/<operator>.py
TABLE: dict = {}


def constants(operator: str) -> dict:
    """Those of this GPU; empty where there is none, or it was not tuned: the file's own stand."""
    try:
        arch = triton.runtime.driver.active.get_current_target().arch
    except RuntimeError:  # no GPU
        return {}
    return TABLE.get(str(arch), {}).get(operator, {})
