"""Small data sets as people have them, made on the spot."""

import io
import pickle
import struct
import tarfile
import zipfile

import numpy as np
from PIL import Image


def png(k=0, size=16, mode="RGB"):
    pixels = np.random.default_rng(k).integers(256, size=(size, size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, "PNG")
    return buffer.getvalue()


def place(root, form, files):
    """``files`` {path: bytes} as a folder or an archive; returns its path."""
    root.mkdir(parents=True, exist_ok=True)
    if form == "folder":
        for name, content in files.items():
            (root / "set" / name).parent.mkdir(parents=True, exist_ok=True)
            (root / "set" / name).write_bytes(content)
        return str(root / "set")
    path = root / f"set.{form}"
    if form == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(path, "w:gz" if form.endswith("gz") else "w") as archive:
            for name, content in files.items():
                member = tarfile.TarInfo(f"./{name}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return str(path)


def idx(values, kind=0x08, dtype=">u1"):
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, kind, values.ndim, *values.shape) + values.astype(dtype).tobytes()


def cifar(count, seed, key=b"labels"):
    data = np.random.default_rng(seed).integers(256, size=(count, 3072), dtype=np.uint8)
    return {b"data": data, key: [k % 2 for k in range(count)]}


def dumped(value):
    """As Python 2 wrote it: protocol 2, NumPy's old names, bytes as str."""
    content = pickle.dumps(value, protocol=2)
    return content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
