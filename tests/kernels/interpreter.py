"""Runs functions of ``interpreted/`` in Triton's interpreter, each in a forked process of its own.

conftest.py starts one such process for each Triton, with TRITON_INTERPRET=1 and that Triton on PYTHONPATH. A request is
a line of JSON on stdin, ``[module, function, arguments]``; the answer is what the function prints, with its traceback
if it raises, and then a line ``status CODE``. torch, Triton and the operators are imported once, before the forks.
"""

import importlib
import json
import os
import sys

import triton.runtime.interpreter as interpreter

from ganfast import ops, reference  # noqa: F401  before the forks


class NothingToRestore:
    """A patch of triton.language that stays."""

    restore = staticmethod(int)


def patch_once(fn, patch=interpreter._patch_lang, patched=set()):  # noqa: B006  a cache
    """Patches triton.language once per module of kernels; the interpreter does so in every call of a function."""
    if fn.__module__ not in patched:
        patched.add(fn.__module__)
        patch(fn)
    return NothingToRestore


def serve() -> None:
    # patching anew, and checks of integer overflow whose results are ignored without debug=True, are two thirds of the
    # interpreter's time
    interpreter._patch_lang = patch_once
    interpreter.interpreter_builder.options = interpreter.InterpreterOptions(sanitize_overflow=False)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            module, function, arguments = json.loads(line)
            getattr(importlib.import_module(f"interpreted.{module}"), function)(*arguments)
            sys.exit()
        print("status", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    serve()
