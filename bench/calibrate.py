"""What this machine is and can do: its names and versions, copy bandwidth, arithmetic rates and launch time.

    python bench/calibrate.py [--results FILE]    prints both as JSON; with FILE, a run of the benchmarks uses them

Every floor beside a time comes from here. Each number is the best of several tries: what the device gives undisturbed.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import shlex
import sys
import time
from pathlib import Path

import store
import torch

SETTINGS = ("OMP_", "GOMP_", "GANFAST_")  # what of the environment changes a time
PLACES = ("GANFAST_CACHE", "GANFAST_REVISION")  # and what does not
DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


# --- what it is -------------------------------------------------------------------------------------------------------


def _version(package: str):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def processor() -> str:
    """The CPU's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def environment() -> dict:
    """Hardware, versions, revision, date and command of this run."""
    found = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "revision": store.revision(),
        "command": os.environ.get("BENCH_COMMAND") or shlex.join([Path(sys.executable).name, *sys.orig_argv[1:]]),
        "cpu": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        **{package: _version(package) for package in ("torch", "triton", "numpy")},
        "system": platform.system(),
        "settings": {k: v for k, v in sorted(os.environ.items()) if k.startswith(SETTINGS) and k not in PLACES},
    }
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "gpu": properties.name,
            "compute_capability": f"{properties.major}.{properties.minor}",
            "gpu_memory_gib": round(properties.total_memory / 2**30, 1),
            "multiprocessors": properties.multi_processor_count,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "driver": store.output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").split("\n")[0],
        }
    return found


# --- what it can do ---------------------------------------------------------------------------------------------------


def seconds(function, device: str, repeat: int = 1) -> float:
    """Seconds of one of `repeat` calls in a row; on a GPU between two events."""
    if device == "cpu":
        start = time.perf_counter()
        for _ in range(repeat):
            function()
        return (time.perf_counter() - start) / repeat
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(repeat):
        function()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / repeat


def best(function, device: str, repeat: int = 1, tries: int = 15) -> float:
    """The least of several measurements, after two calls to warm up."""
    function()
    function()
    return min(seconds(function, device, repeat) for _ in range(tries))


def _copy_rate(device: str) -> float:
    """Bytes read plus bytes written, a second; the tensors are far larger than any cache."""
    source = torch.randn(2**25 if device == "cpu" else 2**28, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / best(lambda: target.copy_(source), device)


def _matmul_rate(device: str, name: str) -> float:
    """Operations a second (a multiplication and an addition are two) of a square product of random numbers.

    On a CPU in fp32 a convolution's, if that is more: torch has products from one library, convolutions from another.
    """
    n = {"cpu": 1024 if name == "fp32" else 512}.get(device, 4096 if name == "fp32" else 8192)
    a, b = (torch.randn(n, n, device=device).to(DTYPES[name]) for _ in range(2))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if name == "tf32" else "highest")
    try:
        rate = 2 * n**3 / best(lambda: a @ b, device)
    finally:
        torch.set_float32_matmul_precision(before)
    return max(rate, _convolution_rate()) if (device, name) == ("cpu", "fp32") else rate


def _convolution_rate() -> float:
    """Operations a second of a 3×3 convolution of 128 to 128 channels on the CPU, channels_last."""
    x, w = (torch.randn(s).to(memory_format=torch.channels_last) for s in ((16, 128, 32, 32), (128, 128, 3, 3)))
    return 2 * x.numel() * w[0].numel() / best(lambda: torch.conv2d(x, w, padding=1), "cpu")


def _launch_times(device: str) -> dict:
    """Seconds of the least thing torch can do: called from Python, and as a node of a CUDA graph."""
    x = torch.zeros(1, device=device)
    found = {device: best(lambda: x.add_(1), device, repeat=500)}
    if device == "cuda":
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(200):
                x.add_(1)
        found["graph"] = best(graph.replay, device) / 200
    return found


def calibration(device: str) -> dict:
    """{"device", "copy": bytes/s, "matmul": {dtype: operations/s}, "launch": {where: s}} of this very device."""
    names = ("fp32", "bf16", "fp16") if device == "cpu" else tuple(DTYPES)
    return {
        "device": device,
        "copy": _copy_rate(device),
        "matmul": {name: _matmul_rate(device, name) for name in names},
        "launch": _launch_times(device),
    }


def better(a: dict, b: dict) -> dict:
    """The best of two calibrations of a device, number by number."""
    return {
        "device": a["device"],
        "copy": max(a["copy"], b["copy"]),
        "matmul": {name: max(rate, b["matmul"][name]) for name, rate in a["matmul"].items()},
        "launch": {where: min(time, b["launch"][where]) for where, time in a["launch"].items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--results", type=Path, help="a results file to write them to")
    results = store.Results(parser.parse_args().results, environment())
    results.calibrate("cuda" if torch.cuda.is_available() else "cpu", calibration)
    print(json.dumps({key: results.data[key] for key in ("environment", "calibration")}, indent=1))


if __name__ == "__main__":
    main()
