"""The compiled extension: what is built, what is said when it cannot be, and whose threads it uses."""

import os
import runpy
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import setuptools

ROOT = Path(__file__).resolve().parent.parent
BROKEN = "#!/bin/sh\necho 'x.cpp:1:2: error: the moon is not full' >&2\nexit 1\n"


@pytest.fixture
def checkout(tmp_path):
    """A copy of what the build reads, without what an earlier build left."""
    copy = tmp_path / "checkout"
    copy.mkdir()
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "LICENSE", "README.md"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, copy)
    for name in ("csrc", "kernels", "ganfast"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "_C*"))
    return copy


def script(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def quick(tmp_path):
    """A g++ that does not optimise: what it builds is only loaded."""
    if (compiler := shutil.which("g++")) is None:
        pytest.skip("no g++ on this machine")
    return str(script(tmp_path / "bin", "quick-g++", f'#!/bin/sh\nexec {compiler} "$@" -O0\n'))


def environment(path=None, **more):
    drop = ("CXX", "GANFAST_CUDA", "GANFAST_CUDA_ARCHS", "GANFAST_REQUIRE_EXT", "CUDA_HOME")
    env = {k: v for k, v in os.environ.items() if k not in drop}
    return {**env, "PATH": str(path) if path else env["PATH"], "GANFAST_CUDA": "0", **more}


def pip(*args, env, python=sys.executable):
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "-v", *map(str, args)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)


def install(checkout, target, env, *args):
    return pip("--no-build-isolation", "--no-deps", "--target", target, *args, checkout, env=env)


def imported(target, code):
    """The output of `code` with the installed package first on the path."""
    code = f"import sys; sys.path.insert(0, {str(target)!r})\n" + textwrap.dedent(code)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=target)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def notices(run):
    return [line.strip() for line in (run.stdout + run.stderr).splitlines() if line.strip().startswith("ganfast: ")]


@pytest.mark.slow
def test_without_a_compiler_the_package_installs_and_says_why(checkout, tmp_path):
    target = tmp_path / "site"
    empty = tmp_path / "bin"
    empty.mkdir()
    run = install(checkout, target, environment(empty))
    assert run.returncode == 0, run.stderr
    assert notices(run) == [
        "ganfast: ganfast._C was not built, plain PyTorch will be used: "
        "no C++ compiler: 'g++' is not on PATH (install g++ or set CXX)"
    ]
    assert not list((target / "ganfast").glob("_C*.so"))
    assert "no C++ compiler" in (target / "ganfast" / "_C.txt").read_text()
    assert imported(target, "import ganfast, ganfast.kernels; print(ganfast.__file__)").startswith(str(target))


@pytest.mark.slow
def test_required_and_impossible_fails(checkout, tmp_path):
    empty = tmp_path / "bin"
    empty.mkdir()
    run = install(checkout, tmp_path / "site", environment(empty, GANFAST_REQUIRE_EXT="1"))
    assert run.returncode != 0
    assert "GANFAST_REQUIRE_EXT is set and ganfast._C cannot be built: no C++ compiler" in run.stdout + run.stderr


@pytest.mark.slow
def test_a_broken_compiler_is_one_line_with_the_first_error(checkout, tmp_path):
    target = tmp_path / "site"
    env = environment(CXX=str(script(tmp_path / "bin", "g++", BROKEN)))
    run = install(checkout, target, env)
    assert run.returncode == 0, run.stderr
    (line,) = notices(run)
    assert "x.cpp:1:2: error: the moon is not full (log: " in line
    log = Path(line.split("(log: ")[1].rstrip(")"))
    assert "the moon is not full" in log.read_text()


@pytest.mark.slow
def test_a_broken_nvcc_leaves_the_cpu_half(checkout, tmp_path, quick):
    target = tmp_path / "site"
    script(tmp_path / "cuda" / "bin", "nvcc", BROKEN)
    run = install(checkout, target, environment(CXX=quick, CUDA_HOME=str(tmp_path / "cuda"), GANFAST_CUDA="1"))
    assert run.returncode == 0, run.stderr
    (line,) = notices(run)
    assert line.startswith("ganfast: the CUDA half of ganfast._C was not built: x.cpp:1:2: error")
    assert imported(target, "import ganfast._C as C; print(hasattr(C, 'cpu'), hasattr(C, 'cuda'))") == "True False"
    assert "CUDA half: not built: x.cpp:1:2" in (target / "ganfast" / "_C.txt").read_text()


@pytest.mark.slow
def test_an_editable_installation_brings_its_tools_and_has_its_library_in_the_source_tree(checkout, tmp_path, quick):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    show = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(subprocess.check_output([python, "-c", show], text=True).strip())
    (site / "ours.pth").write_text(str(Path(setuptools.__file__).parent.parent) + "\n")  # setuptools, pybind11, ninja
    run = pip("--no-deps", "-e", checkout, env=environment(CXX=quick), python=python)
    assert run.returncode == 0, run.stdout + run.stderr
    code = "import ganfast._C, ganfast.kernels; print(ganfast._C.__file__, ganfast.kernels.__file__)"
    out = subprocess.check_output([python, "-c", code], text=True, cwd=tmp_path).split()
    assert [Path(p).parent for p in out] == [checkout / "ganfast", checkout / "kernels"]
    # a later build that fails does not leave the old library behind
    run = pip("--no-build-isolation", "--no-deps", "-e", checkout, env=environment(CXX="no-such-c++"), python=python)
    assert run.returncode == 0, run.stdout + run.stderr
    assert not list((checkout / "ganfast").glob("_C*.so"))
    assert "no-such-c++" in (checkout / "ganfast" / "_C.txt").read_text()


@pytest.fixture
def setup_py(monkeypatch):
    monkeypatch.setattr(setuptools, "setup", lambda **kwargs: None)
    return runpy.run_path(str(ROOT / "setup.py"))


def test_cuda_targets(setup_py):
    gencode = setup_py["gencode"]
    assert gencode("80;100a+PTX") == [
        "arch=compute_80,code=sm_80",
        "arch=compute_100a,code=sm_100a",
        "arch=compute_100a,code=compute_100a",
    ]
    assert [g.split("code=")[1] for g in gencode("")] == ["sm_80", "sm_90a", "compute_90"]
    with pytest.raises(setup_py["CannotBuildError"], match="'hopper' is not like 80, 90a or 100a"):
        gencode("80;hopper")


def test_nvcc_is_found_in_cuda_home_first_and_can_be_left_out(setup_py, tmp_path, monkeypatch):
    nvcc = script(tmp_path / "bin", "nvcc", BROKEN)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.delenv("GANFAST_CUDA", raising=False)
    assert setup_py["find_nvcc"]() == str(nvcc)
    monkeypatch.setenv("GANFAST_CUDA", "0")
    with pytest.raises(setup_py["CannotBuildError"], match="GANFAST_CUDA=0"):
        setup_py["find_nvcc"]()


def run_python(code):
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout.split()


def test_the_extension_loads_without_torch():
    pytest.importorskip("ganfast._C", reason="the extension is not built here")
    assert run_python("import sys, ganfast._C; print('torch' in sys.modules)") == ["False"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_extension_shares_the_threads_of_torch():
    pytest.importorskip("ganfast._C", reason="the extension is not built here")
    threads, after, runtimes = run_python("""
        import os, torch
        torch.set_num_threads(3)
        x = torch.randn(1 << 20)
        (x + 1).sum()
        count = lambda: len(os.listdir("/proc/self/task"))
        threads = count()
        import ganfast._C as C
        loss = torch.empty(())
        for _ in range(3):
            C.cpu.sigmoid_bce(x.data_ptr(), x.numel(), 1.0, 0, -1, 0.0, 0, loss.data_ptr(), torch.get_num_threads())
            x.add_(0)
        maps = {line.split()[-1] for line in open("/proc/self/maps") if "libgomp" in line or "libomp" in line}
        print(threads, count(), len(maps))
    """)
    assert int(threads) >= 3
    assert after == threads
    assert runtimes == "1"


@pytest.mark.parametrize("module", ["pybind11", "ninja"])
def test_a_missing_build_tool_is_named(setup_py, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(setup_py["CannotBuildError"], match=f"no {module}: install it with 'pip install {module}'"):
        setup_py[f"find_{module}"]()
