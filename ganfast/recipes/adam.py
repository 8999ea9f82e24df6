"""The optimiser of recipes."""

import torch


class Adam(torch.optim.Adam):
    """torch's; ``fused`` on a CPU, it reads and writes channels_last weights where they lie.

    torch 2.13 copies each into the order of its dimensions and back: it is given views whose order is that of memory.
    """

    def _init_group(self, group, params, grads, *moments):
        found = super()._init_group(group, params, grads, *moments)
        if group["fused"] and params and params[0].is_cpu:
            for k, p in enumerate(params):
                if not p.is_contiguous():
                    order = sorted(range(p.dim()), key=p.stride, reverse=True)
                    for tensors in (params, grads, *moments[:3]):  # moments are three lists of p's shape and the steps
                        if tensors:
                            tensors[k] = tensors[k].permute(order)
        return found
