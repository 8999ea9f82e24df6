"""Compile kernels for any chip, without a GPU, and read the machine code: resources, main path, instructions."""

import re
import shutil
import struct
import subprocess
import tempfile
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class ToolMissing(Exception):
    """A compiler or a reader of machine code is not on this machine."""


# --- compilers --------------------------------------------------------------------------------------------------------


def triton_tool(name: str) -> str:
    """A tool of CUDA that Triton's wheel carries, else one on PATH."""
    try:
        import triton
    except ImportError as error:
        raise ToolMissing(f"triton is not installed: {error}") from None
    inside = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name
    path = str(inside) if inside.exists() else shutil.which(name)
    if path is None:
        raise ToolMissing(f"no {name}: neither Triton's wheel nor PATH has it")
    return path


def triton_cubin(launch, arch: str) -> tuple[bytes, int]:
    """The cubin of a recorded launch (launches.Launch) for sm_`arch`, and its bytes of dynamic shared memory."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names, types, constants = launch.kernel.arg_names, dict(launch.signature), dict(launch.constants)
    source = ASTSource(
        fn=launch.kernel,
        signature={name: types.get(name, "constexpr") for name in names},
        constexprs=constants,
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in launch.aligned},
    )
    compiled = triton.compile(source, target=GPUTarget("cuda", int(arch), 32), options=dict(launch.options))
    return compiled.asm["cubin"], compiled.metadata.shared


def nvcc() -> str:
    path = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    if path is None:
        raise ToolMissing("no nvcc on PATH or in /usr/local/cuda")
    return path


def nvcc_cubin(source: Path, arch: str) -> bytes:
    """The cubin of a .cu file for sm_`arch`, with the flags of setup.py."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "out.cubin"
        command = [nvcc(), "-std=c++17", "-O3", f"-arch=sm_{arch}", "-cubin", "-o", output, source]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode:
            raise RuntimeError(f"nvcc cannot compile {source} for sm_{arch}: {run.stderr}")
        return output.read_bytes()


# --- reading a cubin --------------------------------------------------------------------------------------------------

WIDTHS = {"U8": 8, "S8": 8, "U16": 16, "S16": 16, "64": 64, "128": 128, "256": 256}


@dataclass(frozen=True)
class Instruction:
    address: int
    predicate: str  # "" or "@!P0"
    opcode: str  # "LDG.E.128"
    operands: str

    @property
    def kind(self) -> str:
        return self.opcode.partition(".")[0]

    @property
    def width(self) -> int:
        """Bits of a load or store."""
        return next((WIDTHS[part] for part in self.opcode.split(".")[1:] if part in WIDTHS), 32)

    @property
    def target(self) -> int | None:
        found = re.search(r"(?<![\w\[])0x([0-9a-f]+)\s*$", self.operands)
        return int(found[1], 16) if found and self.kind in ("BRA", "JMP") else None

    @property
    def ends(self) -> bool:
        """Nothing after it is reached through it."""
        sure = self.predicate in ("", "@PT") and "P" not in self.operands.partition("0x")[0]
        return self.kind in ("BRA", "JMP", "BRX", "EXIT", "RET", "BPT", "KILL") and sure


@dataclass
class Function:
    name: str
    registers: int
    stack: int
    local: int
    shared: int  # bytes, the static part
    threads: int | None = None  # a block has at most: __launch_bounds__ or Triton's warps
    code: list = field(default_factory=list)

    @property
    def atomics(self) -> int:
        """Those of sums; bits are set and cleared in any order, as where sm_100 takes its tensor memory."""
        kinds = ("ATOM", "ATOMG", "ATOMS", "RED", "REDG")
        return sum(i.kind in kinds and not {"OR", "AND"} & set(i.opcode.split(".")) for i in self.code)

    @property
    def spills(self) -> int:
        """Loads and stores of local memory."""
        return sum(i.kind in ("LDL", "STL") for i in self.code)


def read(cubins: list[bytes], arch: str) -> list[list[Function]]:
    """The functions of each cubin for sm_`arch`. Addresses run through all of them: one nvdisasm reads all code, as
    it takes longer to start than to disassemble a kernel."""
    found, where, code = [], [], b""
    for cubin in cubins:
        functions = resources(_output("cuobjdump", ("-res-usage", "-elf"), cubin))
        for name, instructions in _code(cubin).items():
            where.append((functions[name], len(code), len(code) + len(instructions)))
            code += instructions
        found.append(list(functions.values()))
    instructions = disassembly(_output("nvdisasm", ("-b", f"SM{arch}"), code))
    addresses = [i.address for i in instructions]
    for function, first, end in where:
        function.code = instructions[bisect_left(addresses, first) : bisect_left(addresses, end)]
    return found


def _output(tool: str, options: tuple, data: bytes) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(data)
        file.flush()
        command = [triton_tool(tool), *options, file.name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _code(elf: bytes) -> dict[str, bytes]:
    """Function → its instructions, of the sections .text.<function> of a 64-bit ELF file."""
    (start,) = struct.unpack_from("<Q", elf, 40)
    size, count, names = struct.unpack_from("<3H", elf, 58)
    # of a section: offset of its name, type, flags, address, offset, length, …
    sections = [struct.unpack_from("<IIQQQQ", elf, start + i * size) for i in range(count)]
    found = {}
    for offset, *_, first, length in sections:
        at = sections[names][4] + offset
        name = elf[at : elf.index(b"\0", at)].decode()
        if name.startswith(".text."):
            found[name.removeprefix(".text.")] = elf[first : first + length]
    return found


def resources(text: str) -> dict[str, Function]:
    """The functions in what cuobjdump -res-usage -elf prints, without their code."""
    functions = {}
    usage = r"Function (\S+):\s+REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)"
    for name, *numbers in re.findall(usage, text):
        functions[name] = Function(name, *(int(numbers[i]) for i in (0, 1, 3, 2)))
    for name, section in re.findall(r"^\.nv\.info\.(\S+)\n(.*?)(?=^\.\w|\Z)", text, re.S | re.M):
        size = re.search(r"EIATTR_(?:REQNTID|MAX_THREADS)\s+Format:\s+\S+\s+Value:\s+(0x\w+) (0x\w+) (0x\w+)", section)
        if size and name in functions:
            x, y, z = (int(n, 16) for n in size.groups())
            functions[name].threads = x * y * z
    return functions


def disassembly(text: str) -> list[Instruction]:
    """The instructions in what nvdisasm prints."""
    line = re.compile(r"^\s+/\*([0-9a-f]{4,})\*/\s+(?:(@!?U?P\w+)\s+)?([A-Z][\w.]*)\s*([^;]*);", re.M)
    return [Instruction(int(a, 16), p, op, rest.strip()) for a, p, op, rest in line.findall(text)]


# --- the main path ----------------------------------------------------------------------------------------------------


@dataclass
class MainPath:
    """Instructions of one pass through the main loop, or through a kernel without one."""

    code: list
    loop: bool

    def widths(self, *kinds) -> Counter:
        """How many accesses there are of each width in bits."""
        return Counter(i.width for i in self.code if i.kind in kinds)


def _blocks(code: list) -> list[list[Instruction]]:
    """Basic blocks, in the order of their addresses."""
    leaders = {i.target for i in code if i.target is not None}
    blocks, block = [], []
    for i in code:
        if i.address in leaders and block:
            blocks.append(block)
            block = []
        block.append(i)
        if i.target is not None or i.ends:
            blocks.append(block)
            block = []
    return blocks + ([block] if block else [])


def _best(blocks: list, weight, latches: set) -> list:
    """The code of the heaviest way forward, from the first block to one that ends at a latch, or else to any end."""
    starts = {block[0].address: n for n, block in enumerate(blocks)}
    reach: dict[int, tuple[float, int | None]] = {0: (0.0, None)}  # block → (weight before it, where from)
    best = (float("-inf"), None)
    for n, block in enumerate(blocks):
        if n not in reach:
            continue
        total = reach[n][0] + sum(map(weight, block))
        end = block[-1]
        following = [] if end.ends else [n + 1]
        if end.target is not None and end.target > end.address:
            following.append(starts.get(end.target, len(blocks)))
        for m in following:
            if m < len(blocks) and (m not in reach or total > reach[m][0]):
                reach[m] = (total, n)
        if (end.address in latches if latches else end.kind in ("EXIT", "RET")) and total > best[0]:
            best = (total, n)
    code, n = [], best[1]
    while n is not None:
        code = blocks[n] + code
        n = reach[n][1]
    return code


def main_path(function: Function, counts) -> MainPath:
    """The innermost loop that does an element in the fewest instructions, or else the whole kernel; loops inside: once.

    counts(instruction): what it contributes to an element. Of the ways through, the one that does most elements, then
    moves most bytes of global memory, then is shortest and calls no function: neither the slow path of a division nor
    the masked tail of a tile.
    """

    def weight(i):
        bytes_moved = i.width / 8 if i.kind in ("LDG", "STG", "LDGSTS") else 0
        return 1e8 * counts(i) + 1e5 * bytes_moved - 1 - 1e4 * (i.kind == "CALL")

    loops: dict[int, set] = {}  # first address → the addresses that jump back to it
    for i in function.code:
        if i.target is not None and i.target < i.address:
            loops.setdefault(i.target, set()).add(i.address)
    found = {}  # (first address, last) → its code, of the loops that do elements
    for first, latches in loops.items():
        inside = [i for i in function.code if first <= i.address <= max(latches)]
        code = _best(_blocks(inside), weight, latches)
        if any(map(counts, code)):
            found[first, max(latches)] = code
    inner = [code for at, code in found.items() if not any(at[0] < f and e <= at[1] for f, e in found)]
    if inner:
        return MainPath(min(inner, key=lambda code: len(code) / sum(map(counts, code))), True)
    return MainPath(_best(_blocks(function.code), weight, set()), False)


# --- the mix of instructions ------------------------------------------------------------------------------------------

GROUPS = {  # by pipe; what compares, selects, converts to packs or moves bits runs with the integers
    "FP32": "FADD FMUL FFMA FSWZADD HADD2 HFMA2 HMUL2",
    "FP64": "DADD DMUL DFMA DSETP",
    "INT": "IADD3 IADD IMAD IMAD32I ISETP IMNMX IMNMX3 VIMNMX VIMNMX3 VIADD IABS LOP3 LOP PLOP3 LEA SHF SHL SHR SEL "
    "PRMT MOV MOV32I P2R R2P FSETP FSEL FMNMX FMNMX3 FSET FCHK HSETP2 HMNMX2 HSET2 F2FP I2FP SGXT BMSK BREV",
    "MUFU": "MUFU",
    "CVT": "F2F F2I I2F I2I FRND POPC FLO",
    "LDG": "LDG LD LDGSTS",
    "STG": "STG ST RED ATOM ATOMG",
    "LDS": "LDS LDSM",
    "STS": "STS STSM",
    "SHFL": "SHFL",
    "TENSOR": "HMMA IMMA DMMA HGMMA IGMMA QGMMA UTCHMMA UTCQMMA UTCIMMA",
    "BRANCH": "BRA BRX JMP BSSY BSYNC BREAK CALL RET EXIT WARPSYNC BAR",
}
_GROUP_OF = {kind: group for group, kinds in GROUPS.items() for kind in kinds.split()}
_GROUP_OF |= dict.fromkeys(("FADD2", "FMUL2", "FFMA2"), "FP32")  # two results a lane: counted twice


def mix(code: list) -> dict:
    """Instructions of each group; OTHER issues and does nothing that a pipe could be short of."""
    found = Counter(_GROUP_OF.get(i.kind, "OTHER") for i in code)
    found["FP32"] += sum(i.kind in ("FADD2", "FMUL2", "FFMA2") for i in code)
    return {group: found[group] for group in (*GROUPS, "OTHER") if found[group]}
