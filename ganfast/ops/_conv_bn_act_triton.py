"""conv_bn_act on its Triton kernels: views of channels_last tensors, workspaces, configurations.

A configuration (tile sizes, warps, stages) is one of a few that the kernels' module proposes; each launch of a new
shape times them once (ops/_tuning.py) and keeps the fastest.
"""

import functools

import torch

from ganfast.ops import _tuning
from ganfast.ops._registry import guard


def supports(x, weight) -> bool | str:
    """True, or why the vendor's convolution has to run."""
    last = torch.channels_last
    if x.dtype == torch.float64:
        return "float64 goes through the reference"
    if not x.numel():
        return "an empty batch goes through the reference"
    if not x.is_contiguous(memory_format=last):
        return "x is not channels_last (x.to(memory_format=torch.channels_last), and the module, too)"
    if not any(_clearly_last(t) for t in (x, weight)):
        return "neither x nor weight is channels_last (module.to(memory_format=torch.channels_last))"
    return True


def _clearly_last(t):
    """Whether torch takes t for channels_last: not where it is contiguous, too, as with one channel or one pixel."""
    return t.is_contiguous(memory_format=torch.channels_last) and not t.is_contiguous()


def _last(t):
    return None if t is None else t.contiguous(memory_format=torch.channels_last)


def _pixels(t):
    """[N, C, H, W] in channels_last memory as the kernels' [N, H, W, C]."""
    return None if t is None else t.permute(0, 2, 3, 1)


def _factor(weight, transposed, backward):
    """The weight as [kH, kW, C_k, C_n], C_k the channels that go in: of y in the backward, of x in the forward."""
    y_last = transposed != backward  # [C_in, C_out, kH, kW] of a transposed convolution has those of y second
    return _last(weight).permute(2, 3, 0, 1) if y_last else _last(weight).permute(2, 3, 1, 0)


def _packings(factor, tf32):
    """The factor as it lies and, where TF32 tensor cores would have it copied 4 bytes at a time, packed, C_k last."""
    if not tf32 or factor.stride(2) == 1:
        return [False]
    return [True, False]


def _packed(factor, pack):
    return factor.transpose(2, 3).contiguous().transpose(2, 3) if pack else factor


def _fastest(what, configurations, launch, tensors, rest):
    """launch(configuration) with the fastest of the configurations."""
    ways = {str(c): functools.partial(launch, c) for c in configurations}
    key = _tuning.key_of(f"conv_bn_act {what}", (*tensors, *rest))
    ways[_tuning.choose(key, ways, tensors[0].device)]()


def _tf32(x):
    return x.dtype == torch.float32 and torch.backends.cudnn.conv.fp32_precision == "tf32"


def forward(
    x, scale, shift, weight, bias, transposed, stride, padding, output_padding, in_activation, in_slope,
    out_activation, out_slope, statistics, shape, saved=None,
):  # fmt: skip
    """(y, mean, var) as the operator's, y of this shape; with saved = act(z), y is the tangent conv(x)·act'(z)."""
    from ganfast.kernels import conv_bn_act as kernels

    y = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    mean, var = (y.new_empty(shape[1:2] if statistics else 0, dtype=torch.float32) for _ in range(2))
    geometry, factor = (transposed, tuple(stride), tuple(padding)), _factor(weight, transposed, False)
    source, into, before = _pixels(x), _pixels(y), _pixels(_last(saved))

    def launch(choice):
        configuration, pack = choice
        partials = None
        if statistics:
            rows = kernels.partial_rows(source, factor, into, geometry, configuration)
            partials = y.new_empty((rows, 3, shape[1]), dtype=torch.float32)
        kernels.forward(
            source, _packed(factor, pack), into, geometry, configuration, scale, shift, in_activation, in_slope, bias,
            out_activation, out_slope, before, partials, _tf32(x),
        )  # fmt: skip
        if statistics:
            kernels.statistics(partials, mean, var)

    with guard(x.device):
        rest = geometry, scale is None, in_activation, bias is None, out_activation, statistics, saved is None, _tf32(x)
        choices = kernels.choices(source, factor, into, geometry, tf32=_tf32(x))
        choices = [(choice, pack) for pack in _packings(factor, _tf32(x)) for choice in choices]
        _fastest("forward", choices, launch, (x, weight, y), rest)
    return y, mean, var


def backward(
    dy, dmean, dvar, x, scale, shift, weight, y, mean, transposed, stride, padding, output_padding, in_activation,
    in_slope, out_activation, out_slope, needed,
):  # fmt: skip
    """(dx, dscale, dshift, dweight, dbias) as the operator's, empty where they are not needed."""
    need_x, need_affine, need_weight, need_bias = needed
    geometry = transposed, tuple(stride), tuple(padding)
    dz = _output_gradient(dy, dmean, dvar, y, mean, out_activation, out_slope)
    prologue = {"scale": scale, "shift": shift, "in_activation": in_activation, "in_slope": in_slope}
    none = [t.new_empty(0) for t in (x, x if scale is None else scale, x if scale is None else scale, weight, weight)]
    dx, dscale, dshift, dweight, dbias = none
    with guard(x.device):
        if need_x or need_affine:
            made, sums = _data_gradient(dz, x, weight, geometry, prologue, need_affine)
            dx = made if need_x else dx
            dscale, dshift = sums if need_affine else (dscale, dshift)
        if need_weight:
            dweight = _weight_gradient(dz, x, weight, geometry, prologue)
        if need_bias:
            dbias = _bias_gradient(dz)
    return dx, dscale, dshift, dweight, dbias


def _output_gradient(dy, dmean, dvar, y, mean, activation, slope) -> dict:
    """What the kernels rebuild dz from: dy with y and the activation, or dy with y, p, q and mean."""
    dy = torch.zeros_like(y) if dy is None else dy
    dz = {"dy": _pixels(_last(dy)), "out_activation": activation, "out_slope": slope}
    dz |= dict.fromkeys(("y", "p", "q", "mean"))
    if activation is not None:
        return dz | {"y": _pixels(_last(y))}
    if dmean is None and dvar is None:
        return dz
    count = y.numel() // y.shape[1]
    p = torch.zeros_like(dvar) if dmean is None else dmean / count
    q = torch.zeros_like(dmean) if dvar is None else 2 * dvar / count
    return dz | {"y": _pixels(_last(y)), "p": p, "q": q, "mean": torch.zeros_like(p) if mean is None else mean}


def _features(dz, prologue):
    """What of a call a configuration's time depends on beside its sizes."""
    kinds = dz["y"] is None, dz["p"] is None, dz["out_activation"]
    return *kinds, prologue["scale"] is None, prologue["in_activation"]


def _data_gradient(dz, x, weight, geometry, prologue, need_affine):
    """dx, and (dscale, dshift) where they are needed."""
    from ganfast.kernels import conv_bn_act as kernels

    dx, factor = torch.empty_like(x, memory_format=torch.channels_last), _factor(weight, geometry[0], True)
    into = _pixels(dx)
    sums = x.new_empty((2, x.shape[1]) if need_affine else 0, dtype=torch.float32)
    before = prologue if prologue["scale"] is None else prologue | {"x": _pixels(x)}

    def launch(choice):
        configuration, pack = choice
        partials = None
        if need_affine:
            rows = kernels.partial_rows(dz["dy"], factor, into, geometry, configuration, True)
            partials = sums.new_empty((rows, 2, x.shape[1]))
        kernels.backward_data(
            w=_packed(factor, pack), dx=into, geometry=geometry, configuration=configuration, partials=partials,
            tf32=_tf32(x), **dz, **before,
        )  # fmt: skip
        if need_affine:
            kernels.total(partials, sums)

    rest = geometry, *_features(dz, prologue), need_affine, _tf32(x)
    choices = kernels.choices(dz["dy"], factor, into, geometry, True, before is not prologue, _tf32(x))
    choices = [(choice, pack) for pack in _packings(factor, _tf32(x)) for choice in choices]
    _fastest("data gradient", choices, launch, (x, weight, dz["dy"]), rest)
    return dx, tuple(sums)


def _weight_gradient(dz, x, weight, geometry, prologue):
    from ganfast.kernels import conv_bn_act as kernels

    dweight = torch.empty_like(weight, memory_format=torch.channels_last)
    into, source = _pixels(dweight), _pixels(x)

    def launch(configuration):
        splits = configuration[-1]
        workspace = into.new_empty((splits, *into.shape), dtype=torch.float32) if splits > 1 else None
        kernels.backward_weight(
            x=source, dw=into, geometry=geometry, configuration=configuration, workspace=workspace, tf32=_tf32(x),
            **dz, **prologue,
        )  # fmt: skip

    many = torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else 132
    rest = geometry, *_features(dz, prologue), _tf32(x)
    choices = kernels.weight_choices(source, dz["dy"], into, geometry, _tf32(x), many)
    _fastest("weight gradient", choices, launch, (x, weight, dz["dy"]), rest)
    return dweight


def _bias_gradient(dz):
    from ganfast.kernels import conv_bn_act as kernels

    dy = dz["dy"]
    dbias = dy.new_empty(dy.shape[3])
    kernels.bias_gradient(
        partials=dy.new_empty((kernels.bias_rows(dy), dy.shape[3]), dtype=torch.float32), db=dbias, **dz
    )
    return dbias
