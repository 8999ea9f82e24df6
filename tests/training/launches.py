"""What a step launches, counted by the dispatcher."""

import collections

from torch.utils._python_dispatch import TorchDispatchMode


class Launches(TorchDispatchMode):
    """``counts`` of operators that launch something: views, which have the memory of their input, do not."""

    def __init__(self):
        super().__init__()
        self.counts = collections.Counter()

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        views = any(r.alias_info and not r.alias_info.is_write for r in op._schema.returns)
        if not views and op._schema.name != "aten::detach":
            name = op._schema.name
            kind = "convolutions" if "conv" in name else "copies" if "copy" in name or "clone" in name else "others"
            self.counts[kind] += 1
        return op(*args, **(kwargs or {}))
