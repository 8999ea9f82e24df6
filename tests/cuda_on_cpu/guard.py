"""Copies of arrays against a guard page on either side: one access too far ends a kernel."""

import ctypes
import mmap

PAGE = mmap.PAGESIZE
CANARY = 0xFF  # NaN in every floating type: what is read beside an array shows in the results
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


class Copy:
    """`size` bytes of `source`: they end at a guard page (at_end) or begin after one, 16-byte alignment kept."""

    def __init__(self, source: int, size: int, at_end: bool):
        self.source, self.size = source, size
        self.room = -(-(size + 16) // PAGE) * PAGE
        protection, flags = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        self.all = _libc.mmap(None, self.room + 2 * PAGE, protection, flags, -1, 0)
        self.first = self.all + PAGE
        for page in (self.all, self.first + self.room):
            _libc.mprotect(page, PAGE, 0)  # PROT_NONE
        off = source % 16
        self.pointer = self.first + off
        if at_end:
            last = self.first + self.room - size
            self.pointer = last - (last - off) % 16
        ctypes.memset(self.first, CANARY, self.room)
        ctypes.memmove(self.pointer, source, size)

    def stray(self) -> bool:
        """Whether something beside the array was written."""
        before = ctypes.string_at(self.first, self.pointer - self.first)
        behind = self.pointer + self.size
        after = ctypes.string_at(behind, self.first + self.room - behind)
        return any(part.strip(bytes([CANARY])) for part in (before, after))

    def back(self) -> None:
        """To the original."""
        ctypes.memmove(self.source, self.pointer, self.size)

    def free(self) -> None:
        _libc.munmap(self.all, self.room + 2 * PAGE)


def call(function, *args, at_end: bool) -> None:
    """function(*args) with pointers to guarded copies for tensors, and 0 for None."""
    copies: dict = {}
    try:
        numbers = []
        for a in args:
            if hasattr(a, "data_ptr") and a.numel():
                key = a.data_ptr(), a.numel() * a.element_size()
                if key not in copies:
                    copies[key] = Copy(*key, at_end)
                numbers.append(copies[key].pointer)
            else:
                numbers.append(0 if a is None or hasattr(a, "data_ptr") else a)
        function(*numbers)
        for copy in copies.values():
            if copy.stray():
                raise RuntimeError(f"{function.__name__} writes beside an array of {copy.size} bytes")
            copy.back()
    finally:
        for copy in copies.values():
            copy.free()
