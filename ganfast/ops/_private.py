"""Functions that torch keeps to itself and that save an eager call time; each has a stand-in for a torch without it."""

import torch

try:
    from torch._C import _will_engine_execute_node as will_engine_execute_node
except ImportError:

    def will_engine_execute_node(node):
        """Every gradient that could be asked for is made."""
        return True


try:
    from torch._C import _are_functorch_transforms_active as are_functorch_transforms_active
    from torch._C import _get_tracing_state as get_tracing_state
    from torch._C import _len_torch_dispatch_stack as len_torch_dispatch_stack
except ImportError:

    def are_functorch_transforms_active():
        return False

    def get_tracing_state():
        return None

    def len_torch_dispatch_stack():
        """Every call takes the dispatcher."""
        return 1


try:
    from torch._C._functorch import unwrap_if_dead
except ImportError:

    def unwrap_if_dead(x):
        """A tensor that has outlived its torch.func transform fails as it may."""
        return x


try:  # a CUDA build has them; Triton takes streams so, too
    from torch._C import _cuda_getCurrentRawStream as current_stream
    from torch._C import _cuda_getDevice as current_device
except ImportError:
    current_device = torch.cuda.current_device

    def current_stream(index):
        """As a number, of CUDA device `index`."""
        return torch.cuda.current_stream(index).cuda_stream
