"""csrc/cuda as C++ that g++ takes with the headers of include/; lines keep their numbers.

Text is replaced where C++ has no such syntax: launches, shared memory and the one piece of inline assembly. The rest is
macros and functions of include/cuda_runtime.h.
"""

import re
from pathlib import Path

LAUNCH = re.compile(r"([A-Za-z_]\w*(?:<[^<>;(){}]*>)?)\s*<<<")
SHARED = re.compile(
    r"(extern\s+)?(?:alignas\((?P<before>\w+)\)\s*)?__shared__\s+(?:(?:alignas|__align__)\((?P<after>\w+)\)\s*)?"
    r"(?P<type>[\w:]+(?:<[^;{}]*?>)?)\s+(?P<names>\w+[^;{}]*);"
)
STORE16 = re.compile(r'asm volatile\("st\.global\.v4\.b32 \[%0\], \{%1, %2, %3, %4\};"\s*::"l"\((\w+)\)[^;]*;')
BARRIER = re.compile(r"__sync(?:threads|warp)\([^()]*\);")


class UnknownCudaError(Exception):
    """The construct that is not known here, with its place: one sentence."""


def refuse(name: str, text: str, at: int, what: str):
    line = text[at:].split("\n", 1)[0].strip()
    number = text.count("\n", 0, at) + 1
    raise UnknownCudaError(f"{name}:{number}: tests/cuda_on_cpu does not know {what}: {line[:100]}")


def closing(text: str, at: int, opening: str, end: str) -> int:
    """The place after what closes the bracket that was opened before `at`."""
    depth = 1
    while depth:
        depth += {opening: 1, end: -1}.get(text[at], 0)
        at += 1
    return at


def split(text: str) -> list[str]:
    """At the commas outside brackets."""
    parts, depth = [""], 0
    for c in text:
        depth += (c in "([{") - (c in ")]}")
        if c == "," and not depth:
            parts.append("")
        else:
            parts[-1] += c
    return parts


def launches(name: str, text: str) -> str:
    """kernel<<<grid, block, bytes, stream>>>(arguments) as a call of emulator::launch."""
    out, at = "", 0
    for match in LAUNCH.finditer(text):
        end = text.find(">>>", match.end())
        options = split(text[match.end() : end])
        if end < 0 or not 2 <= len(options) <= 4 or text[end + 3] != "(":
            refuse(name, text, match.start(), "such a launch")
        after = closing(text, end + 4, "(", ")")
        grid, block, size = (*options, " 0")[:3]
        call = f"{match[1]}{text[end + 3 : after]}"
        out += text[at : match.start()]
        out += f'emulator::launch("{match[1]}", EMULATOR_HERE, {grid},{block},{size}, [&] {{ {call}; }})'
        at = after
    return out + text[at:]


def shared(match: re.Match) -> str:
    """Declarations of shared memory as references to what emulator::shared gives."""
    kind, alignment = match["type"], match["before"] or match["after"] or 1
    if match[1]:
        array = match["names"].split("[")[0].strip()
        return f"{kind}* const {array} = static_cast<{kind}*>(emulator::dynamic_shared());"
    out = ""
    for declared in split(match["names"]):
        array, size = re.match(r"\s*(\w+)\s*(.*)", declared, re.S).groups()
        out += f"using {array}_array = {kind} {size}; static char {array}_key; "
        out += f"auto& {array} = emulator::shared<{array}_array>(&{array}_key, {alignment}); "
    return out


def translate(name: str, text: str) -> str:
    """One file; raises UnknownCudaError."""
    text = STORE16.sub(r"emulator::store16(\1, &bits, EMULATOR_HERE);", text)
    text = SHARED.sub(shared, launches(name, text))
    for pattern, what in (
        (r"<<<", "such a launch"),
        (r"__shared__", "such shared memory"),
        (r"\basm\b", "this inline assembly"),
        (r"\bcooperative_groups\b|\bcg::", "cooperative groups"),
        (r"\batomic\w+\(", "atomic operations"),
    ):
        if match := re.search(pattern, re.sub(r"//[^\n]*", lambda c: " " * len(c[0]), text)):
            refuse(name, text, match.start(), what)
    return f'#line 1 "{name}"\n{text}'


def barriers(text: str) -> list[re.Match]:
    """__syncthreads and __syncwarp of a CUDA source, as they are called."""
    return list(BARRIER.finditer(text))


def sources(folder: Path, removed: tuple[str, int] | None = None) -> dict[str, str]:
    """File name → translated text; `removed`: a file's name and which of its barriers is left out."""
    texts = {}
    for path in sorted(folder.glob("*.cu*")):
        text = path.read_text()
        if removed and removed[0] == path.name:
            start, end = barriers(text)[removed[1]].span()
            text = text[:start] + ";" + text[end:]
        texts[path.name] = translate(path.name, text)
    return texts
