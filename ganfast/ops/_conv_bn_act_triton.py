"""conv_bn_act on its Triton kernels: views of channels_last tensors, workspaces, configurations.

A configuration (tile sizes, warps, stages) is one of a few that the kernels' module proposes; each launch of a new
shape times them once (ops/_tuning.py) and keeps the fastest. A layer with batch normalisation and a backward are also
timed as a whole beside the vendor's convolutions with our normalisation around them.
"""

import functools

import torch

from ganfast.ops import _checks, _tuning
from ganfast.ops._backends import guard
from ganfast.ops._channels import dense, lies, new_sums, ordered
from ganfast.ops._registry import is_eager, unforced
from ganfast.ops.batch_norm_act import batch_norm_act_backward, normalise_act
from ganfast.reference.batch_norm_act import moments_gradient
from ganfast.reference.conv_bn_act import conv_act, conv_bn_act_backward, output_gradient


def supports_any(x) -> bool | str:
    """True, or why no kernel of ours can run: neither the convolution's nor the normalisation's."""
    if x.dtype == torch.float64:
        return "float64 goes through the reference"
    return True if x.numel() else "an empty batch goes through the reference"


def supports(x, weight) -> bool | str:
    """True, or why the vendor's convolution has to run."""
    if supports_any(x) is not True:
        return supports_any(x)
    if not x.is_contiguous(memory_format=torch.channels_last):
        return "x is not channels_last (x.to(memory_format=torch.channels_last), and the module, too)"
    if not any(_clearly_last(t) for t in (x, weight)):
        return "neither x nor weight is channels_last (module.to(memory_format=torch.channels_last))"
    return True


def may_win(x) -> bool:
    """Whether a kernel of ours may be faster than the vendor's: exact fp32 products leave the tensor cores out."""
    return x.dtype is not torch.float32 or torch.backends.cudnn.conv.fp32_precision == "tf32"


def _choose(name, x, weight, vendor, ours, features, *trial):
    """The faster of the vendor's convolution and ours, called with `trial`; or the one that can run, or is forced."""
    ways = {"vendor": vendor, "triton": ours}
    if supports(x, weight) is not True or (unforced() and not may_win(x)):
        del ways["triton"]
    elif not unforced():
        del ways["vendor"]
    trials = {way: functools.partial(function, *trial) for way, function in ways.items()}
    conv = torch.backends.cudnn.conv.fp32_precision, torch.backends.cudnn.benchmark
    key = _tuning.key_of(name, (x, weight, *features, conv))
    return ways[_tuning.choose(key, trials, x.device, by_host=is_eager(x.device))]


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


def _operand(x, moments, gain=None, offset=None, eps=0.0, activation=None, slope=0.0):
    """u of x and what stands before the convolution."""
    from ganfast.kernels._implicit_gemm import Operand

    if moments is None:
        return Operand(_pixels(x))
    affine = {"moments": moments.contiguous(), "gain": dense(gain), "offset": dense(offset), "eps": eps}
    return Operand(_pixels(x), "normalise", **affine, activation=activation, slope=slope)


def _features(*operands):
    """What of a call a configuration's time depends on beside its sizes."""
    return tuple((u.form, u.gain is None, u.offset is None, u.activation) for u in operands)


# --- forward ----------------------------------------------------------------------------------------------------------


def forward(x, before, weight, bias, geometry, shape, activation, slope, saved=None, statistics=False):
    """y of this shape and, with statistics, its tiles' partial moments; with saved = act(z), y is the tangent."""
    from ganfast.kernels import conv_bn_act as kernels

    transposed, stride, padding, _ = geometry
    y = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    geometry, factor = (transposed, tuple(stride), tuple(padding)), _factor(weight, transposed, False)
    u, into, saved = _operand(x, *before), _pixels(y), _pixels(_last(saved))
    partials = [None]

    def launch(choice):
        configuration, pack = choice
        if statistics:
            rows = kernels.partial_rows(u.x, factor, into, geometry, configuration)
            partials[0] = y.new_empty((rows, 3, shape[1]), dtype=torch.float32)
        kernels.forward(
            u, _packed(factor, pack), into, geometry, configuration, bias, activation, slope, saved, partials[0],
            _tf32(x),
        )  # fmt: skip

    with guard(x.device):
        rest = geometry, *_features(u), bias is None, activation, statistics, saved is None, _tf32(x)
        choices = kernels.choices(u.x, factor, into, geometry, tf32=_tf32(x))
        choices = [(choice, pack) for pack in _packings(factor, _tf32(x)) for choice in choices]
        _fastest("forward", choices, launch, (x, weight, y), rest)
    return y, partials[0]


def layer(x, before, weight, bias, geometry, shape, bn, running, apply):
    """(a, z, moments) of conv_bn_act: with the statistics of z from the convolution, or from a pass over it."""
    vendor = functools.partial(_by_vendor, x, before, weight, bias, geometry, bn, apply)
    ours = functools.partial(_by_ours, x, before, weight, bias, geometry, shape, bn, apply)
    features = *(v is None for v in (before[0], bias, bn[0], bn[1])), *geometry, bn[3], apply
    trial = None, None, None, 0.0  # leaves the running statistics as they are
    results = _choose("conv_bn_act", x, weight, vendor, ours, features, trial)(running)
    torch.autograd.graph.increment_version([v for v in running[:3] if v is not None])
    return results


def _input(x, moments, gain=None, offset=None, *rest):
    """u in memory."""
    return x if moments is None else normalise_act.run(x, gain, offset, moments, *rest)


def _by_vendor(x, before, weight, bias, geometry, bn, apply, running):
    z = conv_act(_input(x, *before), None, None, None, weight, bias, *geometry)
    return _normalised(ordered(z), None, bn, apply, running)


def _by_ours(x, before, weight, bias, geometry, shape, bn, apply, running):
    from ganfast.kernels import batch_norm_act as kernels

    pixels = shape[0] * shape[2] * shape[3]
    small = apply and kernels.is_small((pixels, shape[1], 1), True, x.element_size())  # then one launch reads z twice
    made = forward(x, before, weight, bias, geometry, shape, None, 0.0, statistics=not small)
    return _normalised(*made, bn, apply, running)


def _normalised(z, partials, bn, apply, running):
    """(a, z, moments) of z, whose tiles' partial moments are there, or are to be made."""
    from ganfast.kernels import _statistics
    from ganfast.kernels import batch_norm_act as kernels

    weight, bias, eps, activation, slope = bn
    weight, bias, moments = dense(weight), dense(bias), new_sums(z)
    a = torch.empty_like(z) if apply else z.new_empty(0)
    with guard(z.device):
        if partials is not None:
            _statistics.finalise(partials, moments, *running, z.numel() // z.shape[1])
        elif apply:
            kernels.forward(*lies(z), weight, bias, *running, eps, activation, slope, a, moments)
        else:
            kernels.statistics(*lies(z), *running, moments)
        if apply and partials is not None:
            kernels.apply(*lies(z), weight, bias, moments, eps, activation, slope, a)
    return a, z, moments


# --- backward ---------------------------------------------------------------------------------------------------------


def backward(cotangents, x, before, weight, y, moments, bn, geometry, needed):
    """What conv_bn_act_backward makes, empty where it is not needed: dz made while it is read, or in memory."""
    arguments = cotangents, x, before, weight, y, moments, bn, geometry, needed
    vendor, ours = (functools.partial(way, *arguments) for way in (_backward_by_vendor, _backward_by_ours))
    features = *(v is None for v in (*cotangents, before[0], moments, bn[0], bn[1])), *geometry, bn[3], needed
    return _choose("conv_bn_act_backward", x, weight, vendor, ours, features)()


def _backward_by_vendor(cotangents, x, before, weight, y, moments, bn, geometry, needed):
    need_x, need_before, need_weight, need_bias = needed
    dz, sums = _dz(cotangents, bn, y, moments)
    u = _input(x, *before) if need_weight else x
    wanted = [need_x or need_before, False, need_weight, need_bias]
    nothing = 0.0, None, 0.0
    dx, _, _, dweight, dbias, _ = conv_bn_act_backward(
        dz, None, None, u, None, None, None, weight, None, None, None, None, *geometry, *nothing, *nothing, wanted
    )
    dmoments = dbefore = None
    if before[0] is not None and wanted[0]:
        in_moments, gain, offset, *rest = before
        dx, dbefore = batch_norm_act_backward.run(dx, x, gain, offset, in_moments, False, *rest)
        dmoments = moments_gradient(gain, in_moments, rest[0], dbefore)
    found = dx if need_x else None, *((dmoments, dbefore) if need_before else (None, None)), dweight, dbias, sums
    return filled(found, x, weight)


def filled(found, x, weight):
    """The gradients, with an empty tensor for what there is not."""
    sums = x.new_empty(0, dtype=_checks.sum_dtype(x))
    kinds = x, sums, sums, weight, sums, sums
    return tuple(kind.new_empty(0) if v is None else v for v, kind in zip(found, kinds))


def _dz(cotangents, bn, y, moments):
    """dz in memory, and the sums of its batch normalisation."""
    da, dz, dmoments = cotangents
    weight, bias, *rest = bn
    if moments is None or da is None:
        return output_gradient(da, dz, dmoments, weight, bias, y, moments, *rest)
    return batch_norm_act_backward.run(da, y, weight, bias, moments, True, *rest)


def _dz_operand(cotangents, bn, y, moments):
    """dz to be made while it is read, and the sums of its batch normalisation."""
    from ganfast.kernels import batch_norm_act as kernels
    from ganfast.kernels._implicit_gemm import Operand

    da, dz, dmoments = cotangents
    weight, bias, eps, activation, slope = bn
    if moments is None:
        if activation is None:
            return Operand(_pixels(_last(da))), None
        return Operand(_pixels(_last(da)), "act", _pixels(_last(y)), activation=activation, slope=slope), None
    y, moments = _last(y), moments.contiguous()
    share = 1.0 / (y.numel() // y.shape[1])
    known = {"y": _pixels(y), "moments": moments, "eps": eps, "share": share}
    if da is None:
        if dmoments is None:
            return Operand(_pixels(_last(dz))), None
        dz = torch.zeros_like(y) if dz is None else dz
        return Operand(_pixels(_last(dz)), "statistics", sums=dmoments.contiguous(), **known), None
    da, sums, affine = _last(da), new_sums(y), {"gain": dense(weight), "offset": dense(bias)}
    with guard(y.device):
        kernels.sums(da, *lies(y), *affine.values(), moments, eps, activation, slope, sums)
    known |= {"sums": sums, "activation": activation, "slope": slope, **affine}
    return Operand(_pixels(da), "normalised", **known), sums


def _backward_by_ours(cotangents, x, before, weight, y, moments, bn, geometry, needed):
    from ganfast.kernels import conv_bn_act as kernels

    need_x, need_before, need_weight, need_bias = needed
    geometry = geometry[0], tuple(geometry[1]), tuple(geometry[2])
    with guard(x.device):
        dz, sums = _dz_operand(cotangents, bn, y, moments)
        u = _operand(x, *before)
        dx = dmoments = dbefore = dweight = dbias = None
        if need_x or need_before:
            dx, dmoments, dbefore = _data_gradient(dz, u, x, weight, geometry, need_before)
        if need_weight:
            dweight = _weight_gradient(dz, u, x, weight, geometry)
        if need_bias:
            dbias = kernels.bias_gradient(dz, lambda *shape: x.new_empty(shape, dtype=torch.float32))
    return filled((dx if need_x else None, dmoments, dbefore, dweight, dbias, sums), x, weight)


def _data_gradient(dz, u, x, weight, geometry, need_before):
    """dx and, where they are needed, the cotangents of what stands before the convolution."""
    from ganfast.kernels import _statistics
    from ganfast.kernels import conv_bn_act as kernels

    dx, factor = torch.empty_like(x, memory_format=torch.channels_last), _factor(weight, geometry[0], True)
    into, partials = _pixels(dx), [None]

    def launch(choice):
        configuration, pack = choice
        if need_before:
            rows = kernels.partial_rows(dz.x, factor, into, geometry, configuration, True)
            partials[0] = x.new_empty((rows, 2, x.shape[1]), dtype=torch.float32)
        kernels.backward_data(dz, _packed(factor, pack), into, geometry, configuration, u, partials[0], _tf32(x))

    rest = geometry, *_features(dz, u), need_before, _tf32(x)
    choices = kernels.choices(dz.x, factor, into, geometry, True, u.form != "plain", _tf32(x))
    choices = [(choice, pack) for pack in _packings(factor, _tf32(x)) for choice in choices]
    _fastest("data gradient", choices, launch, (x, weight, dz.x), rest)
    if not need_before:
        return dx, None, None
    sums, dmoments = new_sums(x), new_sums(x)
    _statistics.finish(partials[0], u.moments, u.gain, u.eps, sums, dmoments)
    return dx, dmoments, sums


def _weight_gradient(dz, u, x, weight, geometry):
    from ganfast.kernels import conv_bn_act as kernels

    dweight = torch.empty_like(weight, memory_format=torch.channels_last)
    into = _pixels(dweight)

    def launch(configuration):
        splits = configuration[-1]
        workspace = into.new_empty((splits, *into.shape), dtype=torch.float32) if splits > 1 else None
        kernels.backward_weight(u, dz, into, geometry, configuration, workspace, _tf32(x))

    many = torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else 132
    choices = kernels.weight_choices(u.x, dz.x, into, geometry, _tf32(x), many)
    rest = geometry, *_features(dz, u), _tf32(x)
    _fastest("weight gradient", choices, launch, (x, weight, dz.x), rest)
    return dweight
