"""Random calls of conv_act and conv_bn_act for their tests."""

import torch

from ganfast import activations
from ganfast.ops.conv_bn_act import conv_act, conv_bn_act, is_from_output
from ganfast.reference import activate

BOUNDS = {torch.float64: 1e-12, torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}
ACTS = [name for name in activations.ROWS if is_from_output(name)]
EPS = 1e-3


class Layer:
    """One call. form: "act" (conv_act), "apply" or "leave" (conv_bn_act, with its output or without).

    tensors: x, moments, gain, offset, weight, bias and, of conv_bn_act, bn_weight and bn_bias; None where not used.
    """

    def __init__(
        self, transposed, form="act", *, before=False, in_activation=None, activation=None, bias=True,
        size=(2, 3, 4, 3), c_out=2, kernel=(3, 2), stride=(2, 1), padding=(1, 0), output_padding=(1, 0),
        dtype=torch.float64, device="cpu", channels_last=False, requires_grad=True,
    ):  # fmt: skip
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        c_in = size[1]
        weight = (c_in, c_out) if transposed else (c_out, c_in)

        def tensor(*shape, dtype=dtype, deviation=1.0, least=None):
            t = deviation * torch.randn(shape, device=device, dtype=torch.float64)
            t = t if least is None else t.abs() + least
            if channels_last and len(shape) == 4:
                t = t.to(memory_format=torch.channels_last)
            return t.to(dtype).requires_grad_(requires_grad)

        self.form, self.activation, self.in_activation = form, activation, in_activation
        self.tensors = [
            tensor(*size),
            tensor(2, c_in, dtype=wide, least=0.5) if before else None,  # var > 0
            tensor(c_in, dtype=wide) if before else None,
            tensor(c_in, dtype=wide) if before else None,
            tensor(*weight, *kernel, deviation=(c_in * kernel[0] * kernel[1]) ** -0.5),  # tanh is not saturated
            tensor(c_out) if bias else None,
        ]
        if form != "act":
            self.tensors += [tensor(c_out, dtype=wide, least=0.5), tensor(c_out, dtype=wide)]
        self.geometry = transposed, stride, padding, output_padding if transposed else (0, 0)

    @property
    def leaves(self):
        return [t for t in self.tensors if t is not None]

    def put(self, leaves, running=(None, None, None), momentum=0.1):
        """The arguments with other leaves."""
        leaves, before = iter(leaves), (EPS, self.in_activation, 0.2)
        tensors = [None if t is None else next(leaves) for t in self.tensors]
        if self.form == "act":
            return *tensors, *self.geometry, *before, self.activation, 0.3
        behind = momentum, EPS, self.activation, 0.3, self.form == "apply"
        return *tensors, *running, *self.geometry, *before, *behind

    def __call__(self, leaves=None, through=None):
        """Its results as a tuple, without the empty one; through: of torch.ops.ganfast."""
        leaves = self.leaves if leaves is None else leaves
        if self.form == "act":
            return ((through or conv_act)(*self.put(leaves)),)
        results = (through or conv_bn_act)(*self.put(leaves))
        return results if self.form == "apply" else results[1:]

    @property
    def operator(self):
        return conv_act if self.form == "act" else conv_bn_act

    def composed(self, leaves=None, activation=True):
        """The same of torch's own functions, differentiated by autograd; without the last activation if so."""
        leaves = iter(self.leaves if leaves is None else leaves)
        x, moments, gain, offset, weight, bias, *bn = (None if t is None else next(leaves) for t in self.tensors)
        if moments is not None:
            t = (x - moments[0, :, None, None]) * (moments[1, :, None, None] + EPS).rsqrt()
            x = activate(t * gain[:, None, None] + offset[:, None, None], self.in_activation, 0.2)
        transposed, stride, padding, output_padding = self.geometry
        if transposed:
            z = torch.nn.functional.conv_transpose2d(x, weight, bias, stride, padding, output_padding)
        else:
            z = torch.nn.functional.conv2d(x, weight, bias, stride, padding)
        act = self.activation if activation else None
        if self.form == "act":
            return (activate(z, act, 0.3),)
        found = torch.stack((z.mean((0, 2, 3)), z.var((0, 2, 3), correction=0)))
        if self.form == "leave":
            return z, found
        a = (z - found[0, :, None, None]) * (found[1, :, None, None] + EPS).rsqrt()
        return activate(a * bn[0][:, None, None] + bn[1][:, None, None], act, 0.3), z, found

    @property
    def at_kinks(self):
        """What its activations with a kink take."""
        x, moments, gain, offset, *_ = self.tensors
        taken = []
        if moments is not None and self.in_activation and activations.ROWS[self.in_activation].piecewise_linear:
            t = (x - moments[0, :, None, None]) * (moments[1, :, None, None] + EPS).rsqrt()
            taken.append((t * gain[:, None, None] + offset[:, None, None]).detach())
        if self.activation and activations.ROWS[self.activation].piecewise_linear:
            taken.append(self.composed(activation=False)[0].detach())
        return taken
