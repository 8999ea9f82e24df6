"""Random calls of conv_bn_act for its tests."""

import torch

BOUNDS = {torch.float64: 1e-12, torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}
ACTS = (None, "relu", "leaky_relu", "tanh")


class Link:
    """One call: tensors (x, scale, shift, weight, bias; None where not used) and what comes after them."""

    def __init__(
        self, transposed, *, affine=False, in_activation=None, out_activation=None, statistics=False, bias=True,
        size=(2, 3, 4, 3), c_out=2, kernel=(3, 2), stride=(2, 1), padding=(1, 0), output_padding=(1, 0),
        dtype=torch.float64, device="cpu", channels_last=False, requires_grad=True,
    ):  # fmt: skip
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        c_in = size[1]
        weight = (c_in, c_out) if transposed else (c_out, c_in)

        def tensor(*shape, dtype=dtype, deviation=1.0):
            t = deviation * torch.randn(shape, device=device, dtype=torch.float64)
            if channels_last and len(shape) == 4:
                t = t.to(memory_format=torch.channels_last)
            return t.to(dtype).requires_grad_(requires_grad)

        self.tensors = (
            tensor(*size),
            tensor(c_in, dtype=wide) if affine else None,
            tensor(c_in, dtype=wide) if affine else None,
            tensor(*weight, *kernel, deviation=(c_in * kernel[0] * kernel[1]) ** -0.5),  # tanh is not saturated
            tensor(c_out) if bias else None,
        )
        self.geometry = transposed, stride, padding, output_padding if transposed else (0, 0)
        self.activations = in_activation, 0.2, out_activation, 0.3
        self.statistics = statistics

    @property
    def rest(self):
        return *self.geometry, *self.activations, self.statistics

    @property
    def leaves(self):
        return [t for t in self.tensors if t is not None]

    @property
    def at_kinks(self):
        """What its activations with a kink take."""
        x, scale, shift, *_ = self.tensors
        in_activation, in_slope, out_activation, _ = self.activations
        taken = [x if scale is None else x * scale[:, None, None] + shift[:, None, None]]
        taken.append(composed(*self.tensors, *self.geometry, in_activation, in_slope, None, 0.0, False)[0])
        return [t.detach() for t, act in zip(taken, (in_activation, out_activation)) if act in ("relu", "leaky_relu")]

    def put(self, leaves):
        """The arguments with other leaves."""
        leaves = iter(leaves)
        return *(None if t is None else next(leaves) for t in self.tensors), *self.rest


def composed(x, scale, shift, weight, bias, transposed, stride, padding, output_padding, *rest):
    """conv_bn_act of torch's own functions, derived by autograd."""
    in_activation, in_slope, out_activation, out_slope, statistics = rest
    act = {
        None: lambda t, slope: t,
        "relu": lambda t, slope: torch.relu(t),
        "leaky_relu": torch.nn.functional.leaky_relu,
        "tanh": lambda t, slope: torch.tanh(t),
    }
    if scale is not None:
        x = act[in_activation](x * scale[:, None, None] + shift[:, None, None], in_slope)
    if transposed:
        y = torch.nn.functional.conv_transpose2d(x, weight, bias, stride, padding, output_padding)
    else:
        y = torch.nn.functional.conv2d(x, weight, bias, stride, padding)
    y = act[out_activation](y, out_slope)
    if not statistics:
        return y, y.new_empty(0), y.new_empty(0)
    return y, y.mean((0, 2, 3)), y.var((0, 2, 3), correction=0)
