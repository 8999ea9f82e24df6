"""Which files of a source are images, and what the others are."""

import collections
from pathlib import PurePosixPath

SYSTEM = ("thumbs.db", "desktop.ini", "icon\r")
DOCUMENTS = (
    "readme", "license", "licence", "copying", "copyright", "notice", "authors", "citation", "changelog", "changes",
    "contributing", "manifest", "version", "todo", "makefile", "dockerfile", "checksums", "md5sums", "sha256sums",
)  # fmt: skip

# kind → suffixes of what is no picture
KINDS = {
    "documents": ".md .txt .rst .rtf .pdf .doc .docx .odt .html .htm .css .tex .bib .log .cfg .conf .toml .sha256 .md5",
    "tables": ".csv .tsv .json .jsonl .ndjson .xml .yaml .yml .xls .xlsx .parquet .arrow .feather .db .sqlite .lst",
    "arrays": ".npy .npz .mat .h5 .hdf5 .pkl .pickle .pt .pth .ckpt .safetensors .tfrecord .mdb .bin",
    "archives": ".zip .tar .gz .tgz .bz2 .xz .7z .rar .zst",
    "programs": ".py .ipynb .sh .bat .m .js .c .cpp .h .java .r .lua .exe .dll .so",
    "sounds and films": ".wav .mp3 .flac .ogg .m4a .mp4 .avi .mov .mkv .webm",
}
SUFFIXES = {suffix: kind for kind, suffixes in KINDS.items() for suffix in suffixes.split()}


def kind_of(name: str) -> str | None:
    """What the file at the path ``name`` is, such as "documents"; None for a picture and for what may be one."""
    path = PurePosixPath(name)
    if any(part.startswith(".") or part == "__MACOSX" for part in path.parts) or path.name.lower() in SYSTEM:
        return "files of the system"
    if path.suffix.lower() in SUFFIXES:
        return SUFFIXES[path.suffix.lower()]
    return "documents" if not path.suffix and path.name.lower() in DOCUMENTS else None


def passed_over(names: list[str]) -> str:
    """A sentence on side files, by kind and with the first of their names; "" where there are none."""
    by_kind = collections.defaultdict(list)
    for name in names:
        by_kind[kind_of(name)].append(PurePosixPath(name).name)
    parts = [
        f"{len(found)} {kind} ({', '.join(found[:2])}{', …' * (len(found) > 2)})" for kind, found in by_kind.items()
    ]
    return f"passed over what is no picture: {', '.join(parts)}" if parts else ""
