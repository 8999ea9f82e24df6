"""Packages of ganfast and its compiled extension; pyproject.toml holds everything that needs no code.

``ganfast._C`` is optional: whatever keeps it from being built is one line on stderr and one line in
``ganfast/_C.txt`` (``ganfast info`` shows it), and the package installs without it. Environment:

    CXX                    the C++ compiler (g++)
    GANFAST_CUDA=0         leaves the CUDA half out although nvcc is there
    GANFAST_CUDA_ARCHS     CUDA targets, e.g. "80;90a;100a+PTX" (default: sm_80, sm_90a and PTX for later chips)
    GANFAST_REQUIRE_EXT=1  what cannot be built fails the installation
"""

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
CSRC = ROOT / "csrc"
DEFAULT_GENCODE = ["arch=compute_80,code=sm_80", "arch=compute_90a,code=sm_90a", "arch=compute_90,code=compute_90"]

NINJA = """\
cxx = {cxx}
nvcc = {nvcc}
cflags = {cflags}
nvflags = {nvflags}

rule cxx
  command = $cxx $cflags -MMD -MF $out.d -c $in -o $out
  depfile = $out.d
  deps = gcc
rule nvcc
  command = $nvcc $nvflags -MD -MF $out.d -c $in -o $out
  depfile = $out.d
  deps = gcc
rule link
  command = {link}

"""


class CannotBuildError(Exception):
    """The reason, in one line."""


def find_cxx() -> str:
    name = os.environ.get("CXX", "g++")
    path = shutil.which(name)
    if path is None:
        raise CannotBuildError(f"no C++ compiler: {name!r} is not on PATH (install g++ or set CXX)")
    return path


def find_ninja() -> str:
    try:
        import ninja  # the wheel's own folder need not be on PATH

        path = shutil.which("ninja", path=ninja.BIN_DIR)
    except (ImportError, AttributeError):
        path = None
    path = path or shutil.which("ninja")
    if path is None:
        raise CannotBuildError("no ninja: install it with 'pip install ninja'")
    return path


def find_pybind11() -> str:
    try:
        import pybind11
    except ImportError:
        raise CannotBuildError("no pybind11: install it with 'pip install pybind11'") from None
    return pybind11.get_include()


def find_nvcc() -> str:
    """nvcc of CUDA_HOME, else of PATH, else of /usr/local/cuda."""
    if os.environ.get("GANFAST_CUDA") == "0":
        raise CannotBuildError("left out by GANFAST_CUDA=0")
    home = os.environ.get("CUDA_HOME", "")
    folders = [f"{home}/bin"] if home else []
    for path in (*folders, None, "/usr/local/cuda/bin"):
        nvcc = shutil.which("nvcc", path=path)
        if nvcc:
            return nvcc
    raise CannotBuildError("no nvcc (looked in CUDA_HOME, PATH and /usr/local/cuda)")


def gencode(archs: str) -> list[str]:
    """nvcc's -gencode values of a list such as "80;90a;100a+PTX"."""
    if not archs:
        return DEFAULT_GENCODE
    values = []
    for item in archs.replace(",", ";").split(";"):
        match = re.fullmatch(r"(\d+[af]?)(\+PTX)?", item.strip())
        if match is None:
            raise CannotBuildError(f"GANFAST_CUDA_ARCHS={archs!r}: {item!r} is not like 80, 90a or 100a+PTX")
        arch, ptx = match.groups()
        values.append(f"arch=compute_{arch},code=sm_{arch}")
        if ptx:
            values.append(f"arch=compute_{arch},code=compute_{arch}")
    return values


def activations() -> str:
    """The header that ganfast/activations.py makes; importing ganfast would need torch."""
    return runpy.run_path(str(ROOT / "ganfast" / "activations.py"))["cpp"]()


def path(value) -> str:
    """A path as a word of build.ninja."""
    return re.sub(r"([$ :])", r"$\1", str(value))


class NinjaBuildExt(build_ext):
    """Builds ganfast._C from csrc/ by ninja, or says in one line why not."""

    def build_extension(self, ext):
        self.target = Path(self.get_ext_fullpath(ext.name)).resolve()
        self.work = ROOT / "build" / f"ganfast-{sys.implementation.cache_tag}"
        self.target.unlink(missing_ok=True)  # never an old one beside new Python code
        required = os.environ.get("GANFAST_REQUIRE_EXT", "0") not in ("", "0")
        note = self.target.parent / "_C.txt"
        note.parent.mkdir(parents=True, exist_ok=True)
        try:
            cuda = self.compile(required)
            note.write_text(f"built; CUDA half: {cuda}\n")
        except CannotBuildError as reason:
            note.write_text(f"not built: {reason}\n")
            if required:
                raise SystemExit(
                    f"ganfast: GANFAST_REQUIRE_EXT is set and ganfast._C cannot be built: {reason}"
                ) from None
            self.tell(f"ganfast._C was not built, plain PyTorch will be used: {reason}")

    def tell(self, line: str) -> None:
        print(f"ganfast: {line}", file=sys.stderr, flush=True)

    def compile(self, required: bool) -> str:
        """Build the library; returns what became of its CUDA half."""
        tools = {"cxx": find_cxx(), "ninja": find_ninja(), "pybind11": find_pybind11()}
        cuda = self.compile_cuda(tools, required)
        self.ninja(tools, [path(self.target)])
        return cuda

    def compile_cuda(self, tools: dict, required: bool) -> str:
        """Build the CUDA objects and enter nvcc into `tools`, or say why the CUDA half is left out."""
        try:
            tools["nvcc"] = find_nvcc()
        except CannotBuildError as reason:
            return f"not built: {reason}"
        try:
            tools["gencode"] = gencode(os.environ.get("GANFAST_CUDA_ARCHS", ""))
            self.ninja(tools, ["cuda"])
        except CannotBuildError as reason:
            if required:
                raise
            del tools["nvcc"]
            self.tell(f"the CUDA half of ganfast._C was not built: {reason}")
            return f"not built: {reason}"
        return "built for " + " ".join(re.findall(r"code=(\w+)", " ".join(tools["gencode"])))

    def ninja(self, tools: dict, goals: list[str]) -> None:
        """Write build.ninja and build `goals`; a failure is told by the first line that says error."""
        self.work.mkdir(parents=True, exist_ok=True)
        header, text = self.work / "activations.h", activations()
        if not header.exists() or header.read_text() != text:  # else nothing that includes it is compiled again
            header.write_text(text)
        (self.work / "build.ninja").write_text(self.manifest(tools))
        run = subprocess.run([tools["ninja"], *goals], cwd=self.work, capture_output=True, text=True)
        output = run.stdout + run.stderr
        log = self.work / "build.log"
        log.write_text(output)
        if self.verbose:
            print(output)
        if run.returncode:
            lines = [line.strip() for line in output.splitlines() if line.strip()]
            error = next((line for line in lines if re.search(r"\berror\b", line, re.I)), lines[-1])
            raise CannotBuildError(f"{error[:300]} (log: {log})")

    def manifest(self, tools: dict) -> str:
        """The text of build.ninja: objects, the goal `cuda` (its objects) and the library."""
        nvcc = tools.get("nvcc")
        folders = tools["pybind11"], sysconfig.get_path("include"), str(CSRC), str(self.work)
        include = " ".join(f"-I{shlex.quote(p)}" for p in folders)
        cflags = "-std=c++17 -O3 -g0 -fPIC -fvisibility=hidden -fopenmp -Wall -Wno-psabi -Wno-attributes " + include
        if nvcc:
            cflags += " -DGANFAST_CUDA"
        nvflags = "-std=c++17 -O3 -Xcompiler -fPIC,-fvisibility=hidden " + f"-I{shlex.quote(str(CSRC))}"
        nvflags += "".join(f" -gencode {value}" for value in tools.get("gencode", []))
        ccbin = f"-ccbin {shlex.quote(tools['cxx'])}"
        if nvcc:  # nvcc knows where its static runtime lies
            link = f"$nvcc {ccbin} -shared -cudart static -Xcompiler -fopenmp -Xlinker --exclude-libs,ALL $in -o $out"
        else:
            link = "$cxx -shared -fopenmp $in -o $out"
        text = NINJA.format(
            cxx=shlex.quote(tools["cxx"]).replace("$", "$$"),
            nvcc=shlex.quote(nvcc or "nvcc").replace("$", "$$"),
            cflags=cflags.replace("$", "$$"),
            nvflags=f"{ccbin} {nvflags}".replace("$", "$$"),
            link=link,
        )
        sources = [CSRC / "bindings.cpp", *sorted((CSRC / "cpu").glob("*.cpp"))]
        cuda_sources = sorted((CSRC / "cuda").glob("*.cu")) if nvcc else []
        objects, cuda_objects = [], []
        for source in [*sources, *cuda_sources]:
            output = f"{source.parent.name}-{source.stem}.o"
            rule = "nvcc" if source in cuda_sources else "cxx"
            text += f"build {output}: {rule} {path(source)}\n"
            (cuda_objects if rule == "nvcc" else objects).append(output)
        text += f"build cuda: phony {' '.join(cuda_objects)}\n"
        return text + f"build {path(self.target)}: link {' '.join(objects + cuda_objects)}\n"

    def copy_extensions_to_source(self):
        """An editable installation keeps the library, or the reason for its absence, in ganfast/."""
        inplace = ROOT / "ganfast"
        (inplace / self.target.name).unlink(missing_ok=True)
        for built in (self.target, self.target.parent / "_C.txt"):
            if built.exists() and built.parent != inplace:
                shutil.copy2(built, inplace / built.name)


setup(
    packages=[*find_packages(include=["ganfast", "ganfast.*"]), "ganfast.kernels"],
    package_dir={"ganfast.kernels": "kernels"},
    ext_modules=[Extension("ganfast._C", sources=["csrc/bindings.cpp"], optional=True)],
    cmdclass={"build_ext": NinjaBuildExt},
)
