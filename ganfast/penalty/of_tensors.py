"""The rules that sums and products of tensors take, their shapes and parts."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ganfast.penalty import linear, products, smooth
from ganfast.penalty.functions import composite, named, rule
from ganfast.penalty.rules import LinearMap

# --- sums and products ------------------------------------------------------------------------------------------------


def _wide(x) -> bool:
    """Whether x may be squared and summed as it is: torch's own functions of half precision do so in fp32."""
    return x.dtype in (torch.float32, torch.float64)


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
        if (args and isinstance(args[0], torch.dtype)) or "dtype" in kwargs:
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
    if count <= correction or not _wide(input):
        return None
    return (input - input.mean(dims, True)).square().sum(dims, keepdim) / (count - correction)


@composite("std")
def _(input, *args, **kwargs):
    return input.var(*args, **kwargs).sqrt() if _wide(input) else None


@composite(F.rms_norm)
def _(input, normalized_shape, weight=None, eps=None):
    if not _wide(input):
        return None
    dims = [-1 - i for i in range(len(normalized_shape))]
    eps = torch.finfo(input.dtype).eps if eps is None else eps
    y = input * (input.square().mean(dims, True) + eps).rsqrt()
    return y if weight is None else y * weight


@composite(F.normalize)
def _(input, p=2.0, dim=1, eps=1e-12, out=None):
    if p != 2 or out is not None or not isinstance(dim, int) or not _wide(input):
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


def _places(r, index) -> bool:
    """Whether an index is a tensor of places that do not depend on x."""
    return isinstance(index, Tensor) and not index.is_floating_point() and not r.live(index)


@rule(Tensor.__getitem__)
def _(r, input, index):
    parts = index if isinstance(index, tuple) else (index,)
    if parts and all(map(_simple, parts)):
        return linear.Part(parts), [input]
    if not all(_simple(part) or _places(r, part) for part in parts):
        return None
    return LinearMap(lambda x: x[index], merges=False), [input]


@rule("gather")
def _(r, input, dim, index, *, sparse_grad=False):
    return LinearMap(lambda x: x.gather(dim, index), merges=False), [input]


@rule("take_along_dim")
def _(r, input, indices, dim=None):
    return LinearMap(lambda x: x.take_along_dim(indices, dim), merges=False), [input]


@rule("index_select")
def _(r, input, dim, index):
    return LinearMap(lambda x: x.index_select(dim, index), merges=dim % input.dim() > 0), [input]


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
    sizes = split_size_or_sections
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


def _full(value, beside):
    """A number as a tensor of the dtype of what stands beside it."""
    if _number(value) and isinstance(beside, Tensor):
        return torch.full((), value, dtype=beside.dtype, device=beside.device)
    return value


@rule("where")
def _(r, condition, input, other):
    return _where(r, condition, _full(input, other), _full(other, input))


@rule("masked_fill")
def _(r, input, mask, value):
    return _where(r, ~mask, input, _full(value, input))


def _where(r, condition, input, other):
    if (
        r.live(condition)
        or not isinstance(input, Tensor)
        or not isinstance(other, Tensor)
        or input.dtype != other.dtype
    ):
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
    "float": torch.float32,
    "double": torch.float64,
    "half": torch.float16,
    "bfloat16": torch.bfloat16,
}.items():
    _cast(_name, _dtype)
