"""The rules of torch's functions and methods: which rule a call takes, from its arguments.

A maker takes a call's arguments, the recorder first, and gives (rule, its tensors in order), or None for no rule: what
runs natively then is right, too, but takes double backward (recorder.py). ``COMPOSITES`` are written as calls of others.
"""

import inspect
import math
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ganfast.penalty import layers, linear, products, smooth
from ganfast.penalty.batch_norm import BatchNorm
from ganfast.penalty.norms import GroupNorm, InstanceNorm, LayerNorm
from ganfast.penalty.rules import LinearMap

RULES, COMPOSITES = {}, {}


def named(*names) -> list:
    """torch's functions of these names, and its methods."""
    found = [getattr(home, name, None) for home in (torch, Tensor, F) for name in names]
    return [function for function in found if callable(function)]


def _table(table):
    def of(*names):
        def register(make):
            for name in names:
                for function in named(name) if isinstance(name, str) else [name]:
                    table[function] = make
            return make

        return register

    return of


rule, composite = _table(RULES), _table(COMPOSITES)
RANDOM = frozenset(
    named("rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like", "normal", "bernoulli",
          "multinomial", "poisson", "uniform_", "normal_", "bernoulli_", "random_", "exponential_", "cauchy_", "log_normal_",
          "geometric_")
)  # fmt: skip
SHAPES = frozenset(
    named("view", "reshape", "flatten", "unflatten", "expand", "squeeze", "unsqueeze", "new_zeros", "new_ones", "zeros",
          "ones", "empty", "new_empty", "full", "new_full")
)  # fmt: skip
CONSTANTS = frozenset(named("new_zeros", "new_ones", "new_empty", "new_full", "zeros_like", "ones_like", "empty_like"))
REFUSED = frozenset(named("register_hook", "register_post_accumulate_grad_hook", "backward", "set_", "resize_"))


def name_of(function) -> str:
    name = getattr(function, "__name__", str(function))
    return getattr(getattr(function, "__self__", None), "__name__", name) if name == "__get__" else name


# --- operations in place ----------------------------------------------------------------------------------------------

_IN_PLACE = {"__setitem__", "__iadd__", "__isub__", "__imul__", "__itruediv__", "__ifloordiv__", "__imod__", "__ipow__"}
_NO_CHANGE = frozenset(named("requires_grad_", "retain_grad", "share_memory_", "rename_", "is_set_to"))


@cache
def _twin(function):
    """(the function out of place, the place of ``inplace`` among its arguments) of what may work in place, else None."""
    name = getattr(function, "__name__", "")
    if function in _NO_CHANGE:
        return None
    if name in _IN_PLACE or (name.endswith("_") and not name.endswith("__")):
        home = F if getattr(F, name, None) is function else torch if getattr(torch, name, None) is function else Tensor
        plain = None if name == "__setitem__" else getattr(home, name.removesuffix("_"), None)
        return plain or _on_a_copy(function), None
    if getattr(F, name, None) is function and inspect.isfunction(function):
        parameters = list(inspect.signature(function).parameters)
        return (function, parameters.index("inplace")) if "inplace" in parameters else None
    return None


def _on_a_copy(function):
    def call(x, *args, **kwargs):
        y = x.clone()
        function(y, *args, **kwargs)
        return y

    return call


def out_of_place(function, args, kwargs):
    """(function, args, kwargs) of a call that works in place on its first argument, as one that does not, else None."""
    twin = _twin(function)
    if twin is None or not args:
        return None
    plain, place = twin
    if place is None:
        return plain, args, kwargs
    if kwargs.get("inplace") or (len(args) > place and args[place]):
        return plain, args[:place], {k: v for k, v in kwargs.items() if k != "inplace"}
    return None


def writes(function, args, kwargs) -> bool:
    """Whether a call changes a tensor that is there."""
    return out_of_place(function, args, kwargs) is not None or kwargs.get("out") is not None


# --- weights ----------------------------------------------------------------------------------------------------------


def _tuple(value, dims):
    return tuple(value) if isinstance(value, (tuple, list)) else (value,) * dims


def _conv(r, dims, transposed, input, weight, bias, stride, padding, output_padding, groups, dilation):
    if padding == "valid":
        padding = 0
    if isinstance(padding, str) or input.dim() != dims + 2 or r.live(weight) or r.live(bias):
        return None
    geometry = (_tuple(v, dims) for v in (stride, padding, dilation))
    made = layers.Conv(weight, bias, *geometry, transposed, _tuple(output_padding, dims), groups)
    return made, [input]


for _dims, _plain, _transposed in (
    (1, torch.conv1d, torch.conv_transpose1d), (2, torch.conv2d, torch.conv_transpose2d),
    (3, torch.conv3d, torch.conv_transpose3d),
):  # fmt: skip

    @rule(_plain)
    def _(r, input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, *, dims=_dims):
        return _conv(r, dims, False, input, weight, bias, stride, padding, 0, groups, dilation)

    @rule(_transposed)
    def _(r, input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1, *, dims=_dims):
        return _conv(r, dims, True, input, weight, bias, stride, padding, output_padding, groups, dilation)


@rule(F.linear)
def _(r, input, weight, bias=None):
    if input.dim() < 2 or weight.dim() != 2 or r.live(weight) or r.live(bias):
        return None
    return layers.Linear(weight, bias), [input]


@rule("matmul", "bmm", "mm")
def _(r, a, b):
    if not r.live(b) and b.dim() == 2 and a.dim() >= 2:
        return layers.Linear(b.t()), [a]
    if min(a.dim(), b.dim()) < 2 or (a.dim() != b.dim() and r.tape.start):
        return None
    return products.Matmul(), [a, b]


@rule(F.batch_norm)
def _(r, input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    if training and input.numel() == input.shape[1]:
        return None  # torch says what is wrong
    return BatchNorm(running_mean, running_var, weight, bias, training, momentum, eps), [input]


@rule(F.layer_norm)
def _(r, input, normalized_shape, weight=None, bias=None, eps=1e-5):
    shape = tuple(normalized_shape)
    if (weight is None and bias is not None) or input.shape[-len(shape) :] != shape or input.dim() <= len(shape):
        return None
    return LayerNorm(weight, bias, eps, shape), [input]


@rule(F.group_norm)
def _(r, input, num_groups, weight=None, bias=None, eps=1e-5):
    if (weight is None) != (bias is None) or input.shape[1] % num_groups:
        return None
    return GroupNorm(weight, bias, eps, num_groups), [input]


@rule(F.instance_norm)
def _(r, input, running_mean=None, running_var=None, weight=None, bias=None, use_input_stats=True, momentum=0.1, eps=1e-5):
    if (weight is None) != (bias is None) or math.prod(input.shape[2:]) == 1:
        return None
    if not use_input_stats:
        return BatchNorm(running_mean, running_var, weight, bias, False, momentum, eps), [input]
    return None if running_mean is not None else (InstanceNorm(weight, bias, eps), [input])


# --- activations ------------------------------------------------------------------------------------------------------


@rule("relu")
def _(r, input):
    return layers.LeakyReLU(), [input]


@rule(F.relu)
def _(r, input, inplace=False):
    return layers.LeakyReLU(), [input]


@rule(F.leaky_relu)
def _(r, input, negative_slope=0.01, inplace=False):
    return layers.LeakyReLU(negative_slope), [input]


def _no_options(name, make):
    @rule(name)
    def _(r, input):
        return make(), [input]


for _name, _make in {
    "tanh": smooth.Tanh, "sigmoid": smooth.Sigmoid, "exp": smooth.exp, "log": smooth.log, "square": smooth.square,
    "sqrt": lambda: smooth.power(0.5), "rsqrt": lambda: smooth.power(-0.5), "sin": smooth.sin, "cos": smooth.cos,
    "atan": smooth.atan, "arctan": smooth.atan, "logsigmoid": smooth.log_sigmoid, "softsign": smooth.softsign,
    "reciprocal": products.Reciprocal,
    "abs": lambda: layers.Sloped(torch.abs, torch.sign), "neg": lambda: linear.Times(-1),
}.items():  # fmt: skip
    _no_options(_name, _make)


@rule(F.silu)
def _(r, input, inplace=False):
    return smooth.SiLU(), [input]


@rule(F.mish)
def _(r, input, inplace=False):
    return smooth.Mish(), [input]


@rule(F.hardswish)
def _(r, input, inplace=False):
    return smooth.Hardswish(), [input]


@rule(F.softplus)
def _(r, input, beta=1.0, threshold=20.0):
    return smooth.Softplus(beta, threshold), [input]


@rule(F.gelu)
def _(r, input, approximate="none"):
    return smooth.GELU(approximate), [input]


@rule(F.elu)
def _(r, input, alpha=1.0, inplace=False):
    return smooth.ELU(alpha), [input]


@rule("selu")
def _(r, input, inplace=False):
    return smooth.ELU(1.6732632423543772848170429916717, 1.0507009873554804934193349852946), [input]


def _inside(low, high):
    return lambda x: ((x > low) & (x < high)).to(x.dtype)


@rule(F.hardtanh)
def _(r, input, min_val=-1.0, max_val=1.0, inplace=False):
    return layers.Sloped(lambda x: x.clamp(min_val, max_val), _inside(min_val, max_val)), [input]


@rule(F.relu6)
def _(r, input, inplace=False):
    return layers.Sloped(lambda x: x.clamp(0.0, 6.0), _inside(0.0, 6.0)), [input]


@rule(F.hardsigmoid)
def _(r, input, inplace=False):
    return layers.Sloped(F.hardsigmoid, lambda x: _inside(-3.0, 3.0)(x) / 6), [input]


@rule(F.threshold)
def _(r, input, threshold, value, inplace=False):
    return layers.Sloped(lambda x: F.threshold(x, threshold, value), lambda x: (x > threshold).to(x.dtype)), [input]


@rule("clamp", "clip")
def _(r, input, min=None, max=None):
    if isinstance(min, Tensor) or isinstance(max, Tensor):
        return None
    low, high = -math.inf if min is None else min, math.inf if max is None else max
    return layers.Sloped(lambda x: x.clamp(min, max), lambda x: ((x >= low) & (x <= high)).to(x.dtype)), [input]


@rule(F.softmax)
def _(r, input, dim=None, _stacklevel=3, dtype=None):
    return _softmax(r, input, dim, dtype)


@rule(torch.softmax, Tensor.softmax)
def _(r, input, dim, dtype=None):
    return _softmax(r, input, dim, dtype)


def _softmax(r, input, dim, dtype):
    if dim is None or dtype is not None or dim % input.dim() == 0:
        return None
    return products.Softmax(dim % input.dim()), [input]


@rule(F.dropout)
def _(r, input, p=0.5, training=True, inplace=False):
    return _dropout(F.dropout, input, p, training)


@rule(F.dropout1d)
def _(r, input, p=0.5, training=True, inplace=False):
    return _dropout(F.dropout1d, input, p, training)


@rule(F.dropout2d)
def _(r, input, p=0.5, training=True, inplace=False):
    return _dropout(F.dropout2d, input, p, training)


@rule(F.dropout3d)
def _(r, input, p=0.5, training=True, inplace=False):
    return _dropout(F.dropout3d, input, p, training)


@rule(F.log_softmax)
def _(r, input, dim=None, _stacklevel=3, dtype=None):
    if dim is None or dtype is not None or dim % input.dim() == 0:
        return None
    return products.LogSoftmax(dim % input.dim()), [input]


def _dropout(function, input, p, training):
    return layers.Masked(lambda ones: function(ones, p, True)) if training else linear.Keep(), [input]


# --- pooling, resizing, padding ---------------------------------------------------------------------------------------


@rule(F.avg_pool2d)
def _(r, input, *args, **kwargs):
    return (layers.AvgPool2d(*args, **kwargs), [input]) if input.dim() == 4 else None


def _dispatched(name) -> list:
    """The functions behind a pooling of torch.nn.functional that may return places, too."""
    inner = getattr(F, f"_{name}", None)  # what its call without places is known as to torch's modes
    return [getattr(F, name), getattr(torch, name, None), *([inner] if inner else [])]


@rule(*(function for dims in (1, 2, 3) for function in _dispatched(f"max_pool{dims}d")))
def _(r, input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    dims = input.dim() - 2
    if ceil_mode or return_indices or dims < 1:
        return None
    pool = getattr(F, f"max_pool{dims}d")
    pooled = lambda x: pool(x, kernel_size, stride, padding, dilation, return_indices=True)  # noqa: E731
    return layers.Pick(pooled, dims), [input]


@rule(*(function for dims in (1, 2, 3) for function in _dispatched(f"adaptive_max_pool{dims}d")))
def _(r, input, output_size, return_indices=False):
    dims = input.dim() - 2
    if return_indices or dims < 1:
        return None
    pool = getattr(F, f"adaptive_max_pool{dims}d")
    return layers.Pick(lambda x: pool(x, output_size, return_indices=True), dims), [input]


def _whole(function):
    """A linear map of its first argument, row by row."""

    @rule(function)
    def _(r, input, *args, **kwargs):
        return (LinearMap(lambda x: function(x, *args, **kwargs)), [input]) if input.dim() > 2 else None


for _function in (
    F.avg_pool1d, F.avg_pool3d, F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d, F.interpolate,
    F.upsample, F.upsample_nearest, F.upsample_bilinear, F.pixel_shuffle, F.pixel_unshuffle, F.unfold, F.fold,
    F.channel_shuffle,
):  # fmt: skip
    _whole(_function)


@rule(F.grid_sample)
def _(r, input, grid, *args, **kwargs):
    if r.live(grid) or grid.requires_grad or r.tape.start:
        return None
    return LinearMap(lambda x: F.grid_sample(x, grid, *args, **kwargs)), [input]


@rule(F.pad)
def _(r, input, pad, mode="constant", value=None):
    if mode == "constant":
        return (linear.Pad(pad, value), [input]) if len(pad) < 2 * input.dim() else None
    return LinearMap(lambda x: F.pad(x, pad, mode, value)), [input]


# --- sums and products ------------------------------------------------------------------------------------------------


def _number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _constant(r, value) -> bool:
    """A constant: a number, or a tensor that nobody trains."""
    return _number(value) or (isinstance(value, Tensor) and not value.requires_grad and not r.live(value))


def _grows(x, other) -> bool:
    """Whether the other operand makes the result larger, or of another dtype, than x."""
    if _number(other):
        return False
    return torch.broadcast_shapes(x.shape, other.shape) != x.shape or torch.result_type(x, other) != x.dtype


@rule("add")
def _(r, input, other, *, alpha=1):
    return _sum(r, input, other, alpha)


@rule("sub", "subtract")
def _(r, input, other, *, alpha=1):
    return _sum(r, input, other, -alpha)


@rule(Tensor.__rsub__)
def _(r, input, other):
    return (linear.Times(-1), [input]) if _number(other) and other == 0 else None


def _sum(r, a, b, c):
    if _constant(r, b) and isinstance(a, Tensor) and not _grows(a, b):
        return linear.Keep(lambda x: torch.add(x, b, alpha=c), views=False), [a]
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)) or a.dtype != b.dtype:
        return None
    return linear.Add(c), [a, b]


@rule("mul", "multiply")
def _(r, input, other):
    a, b = (input, other) if isinstance(input, Tensor) and r.live(input) else (other, input)
    if _constant(r, b) and not _grows(a, b):
        return linear.Times(b), [a]
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)) or a.dtype != b.dtype:
        return None
    return products.Product(), [a, b]


@rule("div", "true_divide")
def _(r, input, other, *, rounding_mode=None):
    if rounding_mode is not None or not _constant(r, other) or not r.live(input) or _grows(input, other):
        return None
    return linear.Times(other, divides=True), [input]


@composite("div", "true_divide")
def _(input, other, *, rounding_mode=None):
    if rounding_mode is None and isinstance(other, Tensor) and other.requires_grad and input.dtype == other.dtype:
        return input * other.reciprocal()
    return None


@composite(Tensor.__rsub__, "rsub")
def _(input, other):
    return -input + other


@composite(Tensor.__rdiv__, Tensor.__rtruediv__)
def _(input, other):
    return input.reciprocal() * other


@rule("pow", Tensor.__pow__)
def _(r, input, exponent):
    if not _number(exponent) or exponent in (0, 1) or not r.live(input):
        return None
    return (smooth.square() if exponent == 2 else smooth.power(exponent)), [input]


@composite("lerp")
def _(input, end, weight):
    return input + weight * (end - input)


@composite("addcmul")
def _(input, tensor1, tensor2, *, value=1):
    return input + value * tensor1 * tensor2


@composite("baddbmm")
def _(input, batch1, batch2, *, beta=1, alpha=1):
    return beta * input + alpha * (batch1 @ batch2)


@composite("addmm")
def _(input, mat1, mat2, *, beta=1, alpha=1):
    return beta * input + alpha * (mat1 @ mat2)


# --- shapes and parts -------------------------------------------------------------------------------------------------


def _reshape(function):
    @rule(function)
    def _(r, input, *args, **kwargs):
        if args and isinstance(args[0], torch.dtype) or "dtype" in kwargs:
            return None
        target = Tensor.reshape if function is Tensor.view else function
        return linear.Reshape(lambda x: target(x, *args, **kwargs)), [input]


for _function in named("flatten", "reshape", "squeeze", "unsqueeze", "unflatten", "view"):
    _reshape(_function)


@rule("view_as", "reshape_as")
def _(r, input, other):
    shape = other.shape
    return linear.Reshape(lambda x: x.reshape(shape)), [input]


@rule("permute")
def _(r, input, *dims, **kwargs):
    dims = kwargs.get("dims", dims[0] if len(dims) == 1 and isinstance(dims[0], (tuple, list)) else dims)
    return linear.Permute([d % input.dim() for d in dims]), [input]


@rule("transpose", "swapaxes", "swapdims")
def _(r, input, dim0, dim1):
    return _swapped(input, dim0, dim1)


@rule("t", Tensor.T.__get__)
def _(r, input):
    return _swapped(input, 0, 1) if input.dim() == 2 else None


@rule(Tensor.mT.__get__)
def _(r, input):
    return _swapped(input, -2, -1)


def _swapped(input, dim0, dim1):
    order = list(range(input.dim()))
    order[dim0], order[dim1] = order[dim1], order[dim0]
    return linear.Permute(order), [input]


def _dims(input, dim):
    dims = range(input.dim()) if dim is None or dim == () else dim if isinstance(dim, (tuple, list)) else (dim,)
    return [d % input.dim() for d in dims] if input.dim() else None


@rule("sum")
def _(r, input, dim=None, keepdim=False, *, dtype=None):
    dims = _dims(input, dim)
    return None if dtype is not None or dims is None else (linear.Sum(dims, keepdim), [input])


@rule("mean")
def _(r, input, dim=None, keepdim=False, *, dtype=None):
    dims = _dims(input, dim)
    return None if dtype is not None or dims is None else (linear.Sum(dims, keepdim, mean=True), [input])


@composite("var")
def _(input, dim=None, unbiased=None, keepdim=False, *, correction=None):
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    if correction is None:
        correction = 1 if unbiased is None or unbiased else 0
    dims = _dims(input, dim)
    count = math.prod(input.shape[d] for d in dims)
    if count <= correction:
        return None
    return (input - input.mean(dims, True)).square().sum(dims, keepdim) / (count - correction)


@composite("std")
def _(input, *args, **kwargs):
    return input.var(*args, **kwargs).sqrt()


@composite(F.normalize)
def _(input, p=2.0, dim=1, eps=1e-12, out=None):
    if p != 2 or out is not None or not isinstance(dim, int):
        return None
    return input * input.square().sum(dim, keepdim=True).sqrt().clamp(min=eps).reciprocal()


@composite(F.scaled_dot_product_attention)
def _(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
    if attn_mask is not None or dropout_p or is_causal or enable_gqa:
        return None
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    return (query * scale @ key.transpose(-2, -1)).softmax(-1) @ value


def _simple(index) -> bool:
    return index is None or index is Ellipsis or isinstance(index, slice) or type(index) is int


@rule(Tensor.__getitem__)
def _(r, input, index):
    parts = index if isinstance(index, tuple) else (index,)
    return (linear.Part(parts), [input]) if all(map(_simple, parts)) and parts else None


@rule("narrow")
def _(r, input, dim, start, length):
    if isinstance(start, Tensor):
        return None
    dim, start = dim % input.dim(), start % (input.shape[dim % input.dim()] or 1)
    return linear.Part((*[slice(None)] * dim, slice(start, start + length))), [input]


@rule("select")
def _(r, input, dim, index):
    return linear.Part((*[slice(None)] * (dim % input.dim()), index)), [input]


@composite("chunk")
def _(input, chunks, dim=0):
    size = -(-input.shape[dim] // chunks)
    return _pieces(input, [size] * chunks, dim)


@composite(torch.split, Tensor.split)
def _(input, split_size_or_sections, dim=0):
    return _split(input, split_size_or_sections, dim)


def _split(input, sizes, dim):
    sizes = [sizes] * -(-input.shape[dim] // sizes) if isinstance(sizes, int) else list(sizes)
    return _pieces(input, sizes, dim)


def _pieces(input, sizes, dim):
    found, at, end = [], 0, input.shape[dim]
    for size in sizes:
        if at < end:
            found.append(input.narrow(dim, at, min(size, end - at)))
        at += size
    return tuple(found)


@composite("unbind")
def _(input, dim=0):
    return tuple(input.select(dim, i) for i in range(input.shape[dim]))


@rule("cat", "concat", "concatenate")
def _(r, tensors, dim=0):
    if len({t.dtype for t in tensors}) > 1 or len({t.dim() for t in tensors}) > 1:
        return None
    return linear.Cat(dim % tensors[0].dim()), list(tensors)


@composite("stack")
def _(tensors, dim=0):
    dim = dim % (tensors[0].dim() + 1)
    return torch.cat([t.unsqueeze(dim) for t in tensors], dim)


@rule("flip")
def _(r, input, *dims):
    dims = dims[0] if len(dims) == 1 and isinstance(dims[0], (tuple, list)) else dims
    return linear.Flip([d % input.dim() for d in dims]), [input]


@rule("roll")
def _(r, input, shifts, dims=None):
    dims = dims if dims is None or isinstance(dims, (tuple, list)) else (dims,)
    if dims is None:
        return None
    apart = all(d % input.dim() for d in dims)
    return LinearMap(lambda x: torch.roll(x, shifts, dims), merges=apart), [input]


for _function in named("expand", "expand_as", "repeat"):

    @rule(_function)
    def _(r, input, *args, function=_function, **kwargs):
        return LinearMap(lambda x: function(x, *args, **kwargs)), [input]


@rule("contiguous")
def _(r, input, **kwargs):
    return linear.Keep(lambda x: x.contiguous(**kwargs)), [input]


@rule("clone")
def _(r, input, **kwargs):
    return linear.Keep(lambda x: x.clone(**kwargs), views=False), [input]


@rule("where")
def _(r, condition, input, other):
    if r.live(condition) or not isinstance(input, Tensor) or not isinstance(other, Tensor) or input.dtype != other.dtype:
        return None
    return LinearMap(lambda a, b: torch.where(condition, a, b), merges=False), [input, other]


@rule("amax")
def _(r, input, dim=(), keepdim=False):
    return (linear.Largest(dim % input.dim(), keepdim), [input]) if isinstance(dim, int) else None


@composite("max")
def _(input, dim=None, keepdim=False, **kwargs):
    if type(dim) is not int or kwargs:
        return None
    return torch.return_types.max((input.amax(dim, keepdim), input.detach().argmax(dim, keepdim)))


@rule("to", "type_as", "type")
def _(r, input, dtype, *args, **kwargs):
    dtype = dtype.dtype if isinstance(dtype, Tensor) else dtype
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point or args or kwargs:
        return None
    return linear.Cast(dtype), [input]


def _cast(name, dtype):
    @rule(name)
    def _(r, input):
        return linear.Cast(dtype), [input]


for _name, _dtype in {
    "float": torch.float32, "double": torch.float64, "half": torch.float16, "bfloat16": torch.bfloat16
}.items():
    _cast(_name, _dtype)
