"""Launches, and the bytes that they read and write, of DCGAN-64: counted, not timed, and without a GPU.

    python bench/counts.py               each layer in training, alone and in a chain
    python bench/counts.py --step        a whole training step as `ganfast train dcgan` captures it
    python bench/counts.py --markdown    the layers as docs/kernels/conv_bn_act.md has them

CPU tensors are taken for a GPU's (host.py); kernels are recorded and do not run. Choices are those of a CUDA graph, and
the kernels of ours before the vendor's. The bytes of

    a kernel of ours     are those of its tensor arguments, each once, also where it is read and written, or read twice
    torch's operators    are those of the tensors they read and of those they write; views cost nothing, a foreach or
                         fused operator is one launch, a convolution's backward one for each gradient

The least that a layer takes, with X, W and T the bytes of input, weight and output (vectors come on top):

    with batch normalisation, alone
        forward    X + W + 3T     reads x, w, writes z, reads z, writes a
        backward   6T + 2X + 2W   sums: da, z; data gradient: da, z, w → dx; weight gradient: da, z, x → dw
    in a chain
        forward    X + W + T      z is normalised where it is read
        backward   4T + 3X + 2W   no sums: the next data gradient makes them; this one reads x to make those of before
    without batch normalisation
        forward    X + W + T
        backward   4T + 2X + 2W   and 2T for the gradient of a bias; T for 2T where there is no activation
"""

import argparse
import contextlib
import math
from collections import Counter
from typing import NamedTuple
from unittest import mock

import host
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

WIDTH, BATCH = 64, 128
SAMPLED = {"finalise_kernel": ("first",)}  # arguments of which a kernel reads a number a channel
OVERWRITTEN = ("copy_", "fill_", "zero_", "normal_", "uniform_", "random_", "bernoulli_")
FREE = (*host._Operators.FREE, "_unsafe_view", "_reshape_alias")


class Launch(NamedTuple):
    name: str
    bytes: int
    tensors: tuple
    """(address, bytes) of what it reads or writes"""


class Cost(NamedTuple):
    launches: int
    bytes: int

    def over(self, least: int) -> float:
        return self.bytes / least


def cost(launches) -> Cost:
    return Cost(len(launches), sum(each.bytes for each in launches))


# --- recording --------------------------------------------------------------------------------------------------------


def size(t: Tensor) -> int:
    """Bytes of memory; a dimension of stride 0 is there once."""
    return math.prod(n if stride else min(n, 1) for n, stride in zip(t.shape, t.stride())) * t.element_size()


def launch_of(name: str, *groups) -> Launch | None:
    """A launch that moves each of the groups of tensors once; None where all of them are empty."""
    groups = [dict.fromkeys((t.data_ptr(), size(t)) for t in group if size(t)) for group in groups]
    found = [each for group in groups for each in group]
    return Launch(name, sum(n for _, n in found), tuple(found)) if found else None


class _Recorder(TorchDispatchMode):
    """Appends to `launches` what torch's own operators launch, those inside ganfast's operators, too."""

    def __init__(self, launches: list):
        super().__init__()
        self.launches = launches

    def add(self, *args) -> None:
        launch = launch_of(*args)
        if launch is not None:
            self.launches.append(launch)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        from ganfast.ops._registry import OPS

        namespace, name = function.name().split("::")
        if namespace == "ganfast":  # by way of the dispatcher, as under autocast
            with self:
                return OPS[name.split(".")[0]].run(*args, **(kwargs or {}))
        name = name.split(".")[0]
        if name == "convolution_backward":
            out = _shaped(function, args, kwargs)
            self.convolution_backward(*args[:3], args[-1], out)
            return out
        out = _shaped(function, args, kwargs) if name == "convolution" else function(*args, **(kwargs or {}))
        if not function.is_view and not name.startswith(FREE):
            self.operator(name, function, args, kwargs or {}, out)
        return out

    def operator(self, name, function, args, kwargs, out) -> None:
        read, written = [], []
        arguments = function._schema.arguments
        values = [*zip(arguments, args), *((a, kwargs[a.name]) for a in arguments if a.name in kwargs)]
        for argument, value in values:
            tensors = [t for t in tree_leaves(value) if isinstance(t, Tensor)]
            if argument.alias_info is not None and argument.alias_info.is_write:
                written += tensors
                read += [] if name in OVERWRITTEN or argument.is_out else tensors
            elif not name.endswith("_like") and not name.startswith("new_"):
                read += tensors
        written += [t for t in tree_leaves(out) if isinstance(t, Tensor)]
        self.add(name, read, written)

    def convolution_backward(self, dy, x, weight, mask, gradients) -> None:
        reads = {"data": (dy, weight), "weight": (dy, x), "bias": (dy,)}
        for (kind, read), wanted, gradient in zip(reads.items(), mask, gradients):
            if wanted:
                self.add(f"convolution_backward {kind}", read, (gradient,))


def _shaped(function, args, kwargs):
    """Results of the right shapes, in cuDNN's order: those of a real convolution would take a CPU minutes."""
    tensors = [t for t in tree_leaves(args) if isinstance(t, Tensor)]
    last = any(t.is_contiguous(memory_format=torch.channels_last) and not t.is_contiguous() for t in tensors)
    order = torch.channels_last if last else torch.contiguous_format

    def made(t):
        return torch.zeros_like(t, device="cpu", memory_format=order if t.dim() == 4 else torch.contiguous_format)

    args, kwargs = tree_map_only(Tensor, lambda t: t.to("meta"), (args, kwargs or {}))
    return tree_map_only(Tensor, made, function(*args, **kwargs))


@contextlib.contextmanager
def counting():
    """Inside, launches are appended to the list that it gives."""
    from ganfast import functional
    from ganfast.ops import _backends, _registry, _tuning, for_graph

    launches: list[Launch] = []
    recorder = _Recorder(launches)

    def run(kernel, *args):
        arguments = zip(kernel.of.arg_names, args[9:])
        sampled = SAMPLED.get(kernel.of.__name__, ())
        recorder.add(kernel.of.__name__, [a for name, a in arguments if isinstance(a, Tensor) and name not in sampled])

    def of_extension(module, name):
        if name.endswith("_workspace"):
            return lambda *args: 0

        def function(*args):
            pass

        function.launched = name
        return function

    def on_stream(device, function, pattern, places, tensors):
        recorder.add(function.launched, [tensors[source] for _, source in places])

    patches = [
        mock.patch.object(host._Kernel, "run", run),
        mock.patch.object(host._Cuda, "__getattr__", of_extension),
        mock.patch.object(_backends, "on_stream", on_stream),
        mock.patch.object(functional, "SMALL_ON_CPU", -1, create=True),  # of a real CPU
        # operators take the way that they take without a mode
        mock.patch.object(_registry, "len_torch_dispatch_stack", lambda: 0),
        mock.patch.object(_tuning, "is_in_torch_dispatch_mode", lambda: False),
    ]
    with contextlib.ExitStack() as stack:
        stack.enter_context(host.stubbed())
        for patch in patches:
            stack.enter_context(patch)
        stack.enter_context(for_graph())
        stack.enter_context(recorder)
        yield launches


def taken(launches: list) -> list:
    """What was recorded since; the list is empty then."""
    found = launches[:]
    launches.clear()
    return found


# --- layers -----------------------------------------------------------------------------------------------------------


def networks(batch: int = BATCH) -> dict:
    """name → (its FusedSequential in training, an input); as under autocast in bf16 but for batch normalisation."""
    from ganfast.models import dcgan

    made = {}
    for name, network, shape in (
        ("G", dcgan.Generator(width=WIDTH), (batch, 100, 1, 1)),
        ("D", dcgan.Discriminator(width=WIDTH), (batch, 3, 64, 64)),
    ):
        layers = network.layers.to(memory_format=torch.channels_last).train()
        for layer in layers:
            layer.conv.to(torch.bfloat16)
        x = torch.zeros(shape, dtype=torch.bfloat16).to(memory_format=torch.channels_last)
        made[name] = layers, x
    return made


class Layer(NamedTuple):
    """What a layer costs, alone and in its network's chain, beside the least bytes."""

    name: str
    normalises: bool
    forward: Cost
    least_forward: int
    backward: Cost
    least_backward: int
    chained: Cost
    least_chained: int


class Chain(NamedTuple):
    """What a whole network costs as a chain, beside the least bytes."""

    name: str
    forward: Cost
    least_forward: int
    backward: Cost
    least_backward: int


def least(layer, x: Tensor, y: Tensor) -> tuple[int, int, int]:
    """The bytes of a layer's forward, of its backward, and of its forward in a chain."""
    t, once = size(y), size(x) + size(layer.conv.weight)
    if layer.bn is not None:
        return once + 3 * t, 2 * once + 6 * t, once + t
    passes = 2 if layer.conv.bias is None else 3
    return once + t, 2 * once + passes * t * (1 if layer.activation is None else 2), once + t


def trained(launches: list, module, x: Tensor) -> tuple[list, list, Tensor]:
    """The launches of module(x) and of all its gradients, and the output; what is done once is not counted."""
    leaf = x.detach().requires_grad_()
    for _ in range(2):
        taken(launches)
        y = module(leaf)
        forward = taken(launches)
        seed = torch.zeros_like(y)
        taken(launches)
        torch.autograd.grad(y, [leaf, *module.parameters()], seed)
        backward = taken(launches)
    return forward, backward, y.detach()


def by_layer(launches: list, layers) -> list[list]:
    """A chain's forward in parts, each from the first launch that reads the weight of a layer."""
    parts: list[list] = [[] for _ in layers]
    places = {layer.conv.weight.data_ptr(): i for i, layer in enumerate(layers)}
    current = 0
    for launch in launches:
        current = next((places[at] for at, _ in launch.tensors if at in places), current)
        parts[current].append(launch)
    return parts


def table() -> tuple[list[Layer], list[Chain]]:
    """Every layer of both networks, and the networks as chains."""
    rows, chains = [], []
    with counting() as launches:
        for name, (layers, x) in networks().items():
            layers.chain = True
            forward, backward, _ = trained(launches, layers, x)
            parts = by_layer(forward, layers)
            least_chain = [0, 0]
            inner = False  # whether x is a chained layer's output before its normalisation
            for i, layer in enumerate(layers):
                alone = trained(launches, layer, x)
                least_of = least(layer, x, alone[2])
                rows.append(
                    Layer(
                        f"{name}{i + 1}", layer.bn is not None, cost(alone[0]), least_of[0], cost(alone[1]),
                        least_of[1], cost(parts[i]), least_of[2],
                    )
                )  # fmt: skip
                least_chain[0] += least_of[2]
                # no sums pass: they come from the next layer's data gradient, which reads its input for them
                least_chain[1] += least_of[1] - (2 * size(alone[2]) if layer.bn is not None else 0) + inner * size(x)
                x, inner = alone[2], layer.bn is not None
            chains.append(Chain(name, cost(forward), least_chain[0], cost(backward), least_chain[1]))
    return rows, chains


# --- a step -----------------------------------------------------------------------------------------------------------


def step(precision: str = "bf16", batch: int = BATCH, chain: bool | None = None) -> list[Launch]:
    """The launches of a training step of DCGAN-64: both updates, optimisers, average and figures, without the loader's.

    With another batch weight gradients have other numbers of parts, and bytes differ. chain: as FusedSequential's.
    """
    from ganfast.data import Dataset, Loader, Sampler
    from ganfast.recipes import DCGAN
    from ganfast.training.precision import Precision
    from ganfast.training.state import RunState
    from ganfast.training.step import Step

    device = torch.device("cpu")
    images = Dataset("noise", images=torch.zeros(2 * batch, 64, 64, 3, dtype=torch.uint8))
    loader = Loader(Sampler(images, batch, seed=1), 1, device)
    arithmetic = Precision(precision, device)
    with arithmetic.settings(), counting() as launches:
        state = RunState(
            [loader], arithmetic, place=lambda network: network.to(device, memory_format=torch.channels_last)
        )
        state.begin(DCGAN(width=WIDTH), {"x": images.spec("images")})
        for network in (*state.networks.values(), *state.averages.values()):
            network.layers.chain = chain
        one = Step(state)
        for _ in range(2):  # the first makes moments
            loader.load()
            taken(launches)
            one(one.due())
        return taken(launches)


# --- printing ---------------------------------------------------------------------------------------------------------


def _cells(found: Cost, fewest: int) -> list[str]:
    return [str(found.launches), f"{found.bytes / 1e6:.1f}", f"{fewest / 1e6:.1f}", f"{found.over(fewest):.2f}"]


def lines_of(rows: list[Layer], chains: list[Chain], markdown: bool) -> list[str]:
    head = ["layer"]
    for of in ("forward", "backward", "forward in a chain"):
        head += [f"{of}: launches", "MB", "least", "ratio"]
    body = [
        [
            row.name, *_cells(row.forward, row.least_forward), *_cells(row.backward, row.least_backward),
            *_cells(row.chained, row.least_chained),
        ]
        for row in rows
    ]  # fmt: skip
    body += [
        [
            f"{row.name} as a chain", *[""] * 4, *_cells(row.backward, row.least_backward),
            *_cells(row.forward, row.least_forward),
        ]
        for row in chains
    ]  # fmt: skip
    if markdown:
        return [f"| {' | '.join(each)} |" for each in (head, ["---", *["---:"] * (len(head) - 1)], *body)]
    widths = [max(map(len, column)) for column in zip(head, *body)]
    return ["  ".join(v.rjust(width) for v, width in zip(row, widths)) for row in (head, *body)]


def lines_of_step(launches: list[Launch]) -> list[str]:
    counts, sums = Counter(), Counter()
    for each in launches:
        counts[each.name] += 1
        sums[each.name] += each.bytes
    rows = [("in all", len(launches), sum(sums.values()))]
    rows += [(name, n, sums[name]) for name, n in sorted(counts.items(), key=lambda row: (-row[1], row[0]))]
    return [f"{n:5} launches  {moved / 1e6:8.1f} MB  {name}" for name, n, moved in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--step", action="store_true", help="a whole training step")
    parser.add_argument("--precision", default="bf16", choices=["fp32", "bf16", "fp16"], help="of the step")
    parser.add_argument("--batch", type=int, default=BATCH, help="of the step")
    parser.add_argument("--chain", action="store_true", help="the step with both networks as chains")
    parser.add_argument("--markdown", action="store_true", help="the layers as a table of markdown")
    options = parser.parse_args()
    if not options.step:
        print("\n".join(lines_of(*table(), options.markdown)))
        return
    print("\n".join(lines_of_step(step(options.precision, options.batch, options.chain or None))))


if __name__ == "__main__":
    main()
