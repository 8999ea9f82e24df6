"""Where the time of a step goes: traces of one captured and one eager step of ganfast's and of tuned torch.

    python bench/profile_steps.py [FOLDER]     default build/profile

For each step FOLDER gets a table by kernel (µs of a step, launches of a step, name), with the time that the device was
busy and the wall's above it, an eager step's also by torch's operators on the host; and a trace for chrome://tracing or
Perfetto (.json.gz). The tables are printed, too.
Without a GPU the eager steps are profiled on the CPU, at small sizes.
"""

import argparse
import gzip
import sys
import time
from pathlib import Path

import frame
import test_steps
import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from ganfast.ops import for_graph

ROOT = Path(__file__).resolve().parent.parent
ROWS = ("ganfast", "tuned")
STEPS = {  # name → (make, its arguments on a GPU, on a CPU)
    "dcgan": (test_steps.dcgan, (64, 128), (8, 4)),
    "wgan-gp": (test_steps.critic_update, ("wgan-gp", "conv", 64, 64), ("wgan-gp", "conv", 8, 4)),
}
REPEATS = 5  # steps in a trace
NAME = 110  # letters of a kernel's name


def step_of(name: str, row: str, device: str):
    make, large, small = STEPS[name]
    return test_steps.Step(make, row, "bf16", device, *(large if device == "cuda" else small))


def traced(run, calls: int, device: str):
    """(profile, seconds of the wall a step) of REPEATS runs of `calls` steps each."""
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device == "cuda")
    synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None
    run(), synchronize()
    with profile(activities=activities) as found:
        start = time.perf_counter()
        for _ in range(REPEATS):
            run()
        synchronize()
        wall = time.perf_counter() - start
    return found, wall / (REPEATS * calls)


def kernels(found, device: str) -> dict:
    """name → (launches, µs) of what ran on the device; on a CPU of torch's operators, their own time."""
    rows: dict = {}
    for event in found.events():
        if event.is_user_annotation:
            continue
        if event.device_type == (DeviceType.CUDA if device == "cuda" else DeviceType.CPU):
            count, microseconds = rows.get(event.name, (0, 0.0))
            own = event.time_range.elapsed_us() if device == "cuda" else event.self_cpu_time_total
            rows[event.name] = count + 1, microseconds + own
    return rows


def table(title: str, rows: dict, steps: int, wall: float) -> str:
    busy = sum(us for _, us in rows.values()) / steps
    launches = sum(count for count, _ in rows.values()) / steps
    lines = [f"{title}: {launches:.0f} calls, {busy:.0f} µs in all, {1e6 * wall:.0f} µs of the wall a step"]
    for name, (count, us) in sorted(rows.items(), key=lambda row: -row[1][1]):
        lines.append(f"{us / steps:10.1f} µs {count / steps:7.1f} ×  {name[:NAME]}")
    return "\n".join(lines) + "\n"


def save(folder: Path, title: str, found) -> None:
    """The trace, compressed."""
    plain = folder / f"{title}.json"
    found.export_chrome_trace(str(plain))
    with gzip.open(f"{plain}.gz", "wb", compresslevel=6) as out:
        out.write(plain.read_bytes())
    plain.unlink()


def profiled(folder: Path, name: str, row: str, place: str) -> str:
    """The table of a step; it and the trace are in the folder."""
    device = "cpu" if place == "cpu" else "cuda"
    run, calls = step_of(name, row, device), 1
    if place == "graph":
        with for_graph():
            timer = frame.Timer(run, [()], "graph")
        run, calls = timer.run, timer.calls
    found, wall = traced(run, calls, device)
    title = f"{name}-{row}-{place}"
    text = table(title, kernels(found, device), REPEATS * calls, wall)
    if place == "cuda":
        text += "\n" + table(f"{title}, on the host", kernels(found, "cpu"), REPEATS * calls, wall)
    (folder / f"{title}.txt").write_text(text)
    save(folder, title, found)
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "build" / "profile")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    failed = 0
    for name in STEPS:
        for place in ("graph", "cuda") if torch.cuda.is_available() else ("cpu",):
            for row in ROWS:
                if (folder / f"{name}-{row}-{place}.txt").exists():
                    continue
                try:
                    text = profiled(folder, name, row, place)
                except RuntimeError as error:  # the others are worth having
                    failed, text = 1, f"{name}-{row}-{place}: {error}\n"
                print(text, flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
