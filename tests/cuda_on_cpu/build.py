"""Builds the extension with its CUDA half for the CPU: csrc/ as it is, csrc/cuda translated, beside the emulator.

Objects and libraries are kept in build/cuda-on-cpu/ under the hash of all that goes into them, so that a process that
comes second finds them, and a changed file costs one compilation.
"""

import contextlib
import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cuda_on_cpu import translate

from ganfast import activations

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CSRC = ROOT / "csrc"
FOLDER = ROOT / "build" / "cuda-on-cpu"
COMMON = "-std=c++17 -fPIC -fvisibility=hidden -U_FORTIFY_SOURCE -Wno-psabi -Wno-attributes"
# lines for the emulator's sentences; accesses are checked for alignment and null, arithmetic for overflow
CHECKED = "-O1 -g1 -fsanitize=alignment,null,bounds,shift,signed-integer-overflow,integer-divide-by-zero"
CUDA = f"{COMMON} {CHECKED} -fno-sanitize-recover=all -Wno-unknown-pragmas -include cuda_runtime.h"


class CannotBuildError(Exception):
    """The compiler's first error, in one line."""


def missing() -> str | None:
    """Why nothing can be built here, or None."""
    if platform.machine() not in ("x86_64", "aarch64") or platform.system() != "Linux":
        return f"CUDA C++ runs on Linux on x86-64 and aarch64, this is {platform.system()} on {platform.machine()}"
    if shutil.which("g++") is None:
        return "no g++"
    try:
        import pybind11  # noqa: F401
    except ImportError:
        return "no pybind11"
    return None


def digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]


def included(text: str, headers: dict[str, str]) -> set[str]:
    """Names of those headers that a source includes, directly or not."""
    found, todo = set(), [text]
    while todo:
        names = {Path(name).name for name in re.findall(r'#include ["<]([^">]+)[">]', todo.pop())}
        new = names & set(headers) - found
        found |= new
        todo += [headers[name] for name in new]
    return found


def run(*command) -> None:
    words = [str(word) for word in command]
    result = subprocess.run(words, capture_output=True, text=True)
    if result.returncode:
        lines = (result.stderr or result.stdout).splitlines()
        error = next((line for line in lines if "error:" in line or "undefined" in line), lines[-1] if lines else "")
        raise CannotBuildError(f"{error.strip()[:300]} (g++ with the headers of tests/cuda_on_cpu/include)")


def object_file(source: Path, flags: str, headers: dict[str, str]) -> Path:
    """The compiled source, of an earlier build where nothing has changed."""
    text = source.read_text()
    used = [headers[name] for name in sorted(included(text + flags.replace("-include ", '\n#include "'), headers))]
    result = FOLDER / f"{source.stem}-{digest(text, flags, compiler(), *used)}.o"
    if not result.exists():
        part = result.with_suffix(f".{os.getpid()}.part")
        run("g++", *flags.split(), "-c", source, "-o", part)
        part.replace(result)
    return result


def compiler() -> str:
    return subprocess.run(["g++", "--version"], capture_output=True, text=True, check=True).stdout


def write_once(folder: Path, texts: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        path = folder / re.sub(r"\.cu$", ".cpp", name)
        if not path.exists():
            path.write_text(text)


@contextlib.contextmanager
def locked():
    """One build at a time: the others find its objects."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with open(FOLDER / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def link(jobs: list[tuple[Path, str]], headers: dict[str, str]) -> Path:
    """The library of these sources, each with its flags."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(lambda job: object_file(*job, headers), jobs))
    library = FOLDER / f"{digest(*map(str, objects))}.so"
    if not library.exists():
        part = library.with_suffix(f".{os.getpid()}.part")
        run("g++", "-shared", "-fopenmp", *objects, "-ldl", "-o", part)
        part.replace(library)
    return library


def cuda_jobs(texts: dict[str, str], headers: dict[str, str]) -> list[tuple[Path, str]]:
    """The emulator and translated CUDA files, which are written out; their headers are added to `headers`."""
    folder = FOLDER / digest(*texts, *texts.values())
    write_once(folder, texts)
    headers.update({path.name: path.read_text() for path in (HERE / "include").glob("*.h")})
    headers.update({name: text for name, text in texts.items() if name.endswith(".cuh")})
    flags = f"{CUDA} -DGANFAST_CUDA -I{HERE / 'include'} -I{CSRC / 'cuda'}"
    jobs = [(HERE / "emulator.cpp", f"{COMMON} -O2 -I{HERE / 'include'}")]
    return jobs + [(folder / f"{name[:-3]}.cpp", flags) for name in texts if name.endswith(".cu")]


def extension(removed: tuple[str, int] | None = None) -> Path:
    """ganfast._C with an emulated CUDA half; `removed`: a file of csrc/cuda and which of its barriers is left out."""
    import pybind11

    headers = {path.name: path.read_text() for path in CSRC.rglob("*.h")}
    headers["activations.h"] = activations.cpp()
    generated = FOLDER / digest(headers["activations.h"])
    write_once(generated, {"activations.h": headers["activations.h"]})
    includes = (CSRC, generated, pybind11.get_include(), sysconfig.get_path("include"))
    plain = f"{COMMON} -fopenmp -O1 -w -DGANFAST_CUDA " + " ".join(f"-I{folder}" for folder in includes)
    jobs = [(path, plain) for path in (CSRC / "bindings.cpp", *sorted((CSRC / "cpu").glob("*.cpp")))]
    with locked():
        return link(jobs + cuda_jobs(translate.sources(CSRC / "cuda", removed), headers), headers)


def library(folder: Path) -> Path:
    """The CUDA files of a folder and the emulator, without Python."""
    headers: dict[str, str] = {}
    with locked():
        return link(cuda_jobs(translate.sources(folder), headers), headers)
