"""Upper bounds of a kernel's speed on a chip: resident blocks, and the cycles of a pass of its main loop.

The arithmetic. A pass of the main loop by one warp, 32 lanes, is so many instructions of each kind and moves so many
bytes of global memory. On one multiprocessor it takes at least

    issue    instructions / 4                               four schedulers, one instruction a cycle each
    pipe     32 · instructions of that kind / lanes         lanes: results that the pipe gives in a cycle (table below)
    memory   bytes / (bandwidth / (multiprocessors · clock))   each multiprocessor's share of the memory, bytes a cycle

cycles; divided by the elements of the pass these are cycles per element per multiprocessor. The largest limits the
kernel: nothing can be faster than that, and what is slower loses to latency (too few warps), to launches or to
conflicts, which are not counted. Memory counts only where elements are declared by what is read (each is read once);
elsewhere the loads mostly hit caches.
"""

from dataclasses import dataclass

REGISTERS, WARPS, BLOCKS = 65_536, 64, 32  # of a multiprocessor, on all three chips
RESERVED_SHARED = 1024  # bytes that the system takes of each block


@dataclass(frozen=True)
class Chip:
    name: str
    multiprocessors: int
    clock: float  # GHz, boost
    bandwidth: float  # GB/s of global memory
    shared: int  # bytes a multiprocessor
    lanes: dict  # results a cycle and multiprocessor


# NVIDIA's data sheets; lanes, shared memory: CUDA C++ Programming Guide, arithmetic throughput and compute capabilities
# 8.0 and 9.0. The row of 10.0 repeats 9.0's lanes: to be confirmed on a chip. LSU: instructions of 4 bytes a lane.
_AMPERE = {"FP32": 64, "FP64": 32, "INT": 64, "MUFU": 16, "CVT": 16, "LSU": 32}
_HOPPER = {**_AMPERE, "FP32": 128, "FP64": 64}
CHIPS = {
    "80": Chip("A100", 108, 1.41, 2039, 164 * 1024, _AMPERE),
    "90": Chip("H200", 132, 1.98, 4800, 228 * 1024, _HOPPER),
    "100": Chip("B200", 148, 1.965, 8000, 228 * 1024, _HOPPER),
}


def resident_blocks(chip: Chip, threads: int, registers: int, shared: int) -> int:
    """Blocks of a kernel that fit on a multiprocessor together; 0: not one does."""
    warps = -(-threads // 32)
    per_warp = -(-registers * 32 // 256) * 256  # registers are given to a warp 256 at a time
    by_registers = REGISTERS // 4 // per_warp * 4 // warps if per_warp else BLOCKS  # a quarter to each scheduler
    by_shared = chip.shared // (-(-shared // 128) * 128 + RESERVED_SHARED)
    return min(BLOCKS, WARPS // warps, by_registers, by_shared)


def cycles(chip: Chip, mix: dict, global_bytes: int) -> dict:
    """Cycles of a multiprocessor that a pass of one warp takes of each resource; global_bytes: of a lane."""
    lsu = sum(mix.get(kind, 0) for kind in ("LDG", "STG", "LDS", "STS", "SHFL"))
    found = {"issue": sum(mix.values()) / 4, "LSU": 32 * lsu / chip.lanes["LSU"]}
    for pipe, lanes in chip.lanes.items():
        if pipe != "LSU":
            found[pipe] = 32 * mix.get(pipe, 0) / lanes
    found["memory"] = 32 * global_bytes / (chip.bandwidth / (chip.multiprocessors * chip.clock))
    return found
