"""The networks and losses in PyTorch: what kerasgal's are compared with (`peers.py`, `gpu.py`).

Channels come first, (batch, channel, x, y, z). Modules have the names of our layers, or their order, so that `copy`
can give them our weights: the outputs are then the same.
"""

import math

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm


class UNet(nn.Module):
    """protohalo's. Modules in the order of our layers."""

    def __init__(self, levels, filters, dropout, output_slope):
        super().__init__()
        widths = [filters * 2**level for level in range(levels + 1)]
        self.dropout, self.slope = dropout, output_slope
        self.down = nn.ModuleList(self.block(before, width) for before, width in zip([1, *widths], widths))
        self.doubled, self.up = nn.ModuleList(), nn.ModuleList()
        for width in reversed(widths[:-1]):
            self.doubled.append(nn.ConvTranspose3d(2 * width, width, 3, stride=2))
            self.up.append(self.block(2 * width, width))
        self.last = nn.Conv3d(filters, 1, 1)

    def block(self, before, width):
        middle = [nn.Dropout(self.dropout)] if self.dropout else []
        return nn.Sequential(nn.Conv3d(before, width, 3, padding=1), nn.LeakyReLU(0.05), *middle,
                             nn.Conv3d(width, width, 3, padding=1), nn.LeakyReLU(0.05))

    def forward(self, x):
        skips = []
        for block in self.down[:-1]:
            x = block(x)
            skips.append(x)
            x = functional.max_pool3d(x, 2)
        x = self.down[-1](x)
        for doubled, block in zip(self.doubled, self.up):
            x = doubled(x)[..., :-1, :-1, :-1]
            x = block(torch.cat([skips.pop(), x], 1))
        return functional.leaky_relu(self.last(x), self.slope if self.training else 0.0)

    def parts(self):
        inner = [part for block in self.down for part in block]
        for doubled, block in zip(self.doubled, self.up):
            inner += [doubled, *block]
        return [part for part in [*inner, self.last] if list(part.parameters())]


class HalomassNet(nn.Module):
    """halomass's convolutional network, zero-padded. Modules in the order of our layers."""

    def __init__(self, side, filters, dense, scale, rate):
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv3d(before, width, 3, padding=1)
                                          for before, width in zip([1, *filters], filters))
        for _ in filters[1:]:
            side = -(-side // 2)
        self.side = side
        widths = [filters[-1] * side**3, *dense, 1]
        self.dense = nn.ModuleList(nn.Linear(before, width) for before, width in zip(widths, widths[1:]))
        self.register_buffer("mean", torch.zeros(1))
        self.register_buffer("deviation", torch.ones(1))
        self.log_scale, self.rate = nn.Parameter(torch.tensor([math.log(scale) / rate])), rate

    def forward(self, x):
        x = (x - self.mean) / self.deviation
        for number, convolution in enumerate(self.convolutions):
            x = functional.leaky_relu(convolution(x), 0.03)
            if number:
                x = functional.max_pool3d(x, 2, ceil_mode=True)
        x = x.flatten(1)
        for layer in self.dense[:-1]:
            x = functional.leaky_relu(layer(x), 0.03)
        x = self.dense[-1](x)
        return torch.cat([x, (self.rate * self.log_scale).exp().expand(len(x), 1)], 1)

    def parts(self):
        return [*self.convolutions, *self.dense]

    def prior(self, alpha, last):
        """Eq. 7 of Lucie-Smith et al. 2020; last: of the last dense layer, too."""
        total = sum(part.weight.square().sum() for part in self.convolutions)
        for part in self.dense if last else self.dense[:-1]:
            total = total + part.weight.abs().sum() + part.weight.norm(dim=0).sum()
        return alpha * total


class Inception(nn.ModuleDict):
    """cascade's classifier."""

    branches = {"branch_1": (6, 1), "branch_3": (8, 3), "branch_5": (10, 5), "branch_average": (3, 1)}

    def __init__(self):
        super().__init__()
        for name, (width, size) in self.branches.items():
            self.normalised(name, 1, width, size)
        self.normalised("inner_1", 27, 27, 3)
        self.normalised("inner_2", 27, 13, 3)
        self.normalised("logits", 13, 2, 1)

    def normalised(self, name, before, width, size):
        self[f"{name}_convolution"] = nn.Conv3d(before, width, size, padding=size // 2, bias=False)
        self[f"{name}_normalisation"] = nn.BatchNorm3d(width, eps=1e-5, momentum=0.1)

    def basic(self, name, x):
        return functional.relu(self[f"{name}_normalisation"](self[f"{name}_convolution"](x)))

    def forward(self, x):
        average = functional.avg_pool3d(x, 3, stride=1, padding=1)
        x = torch.cat([self.basic(name, average if name == "branch_average" else x) for name in self.branches], 1)
        x = self.basic("inner_2", self.basic("inner_1", x))
        return self["logits_normalisation"](self["logits_convolution"](x)).softmax(1)


class R2UNet(nn.ModuleDict):
    """cascade's recurrent residual U-Net, one output."""

    levels = 3

    def __init__(self, filters, t, output_slope):
        super().__init__()
        self.t, self.slope, before = t, output_slope, 1
        for level in range(self.levels):
            self.add_block(f"down_{level}", before, filters * 2**level)
            before = filters * 2**level
        self.add_block("bottom", before, filters * 2**self.levels)
        before = filters * 2**self.levels
        for level in reversed(range(self.levels)):
            width = filters * 2**level
            self[f"up_{level}_transposed"] = nn.ConvTranspose3d(before, width, 3, stride=2, padding=1, output_padding=1)
            self.add_block(f"up_{level}", 2 * width if level else width, width // 2)
            before = width // 2
        self["output"] = nn.Conv3d(before, 1, 1)

    def add_block(self, name, before, width):
        self[f"{name}_projection"] = nn.Conv3d(before, width, 1)
        for unit in (1, 2):
            self[f"{name}_recurrent_{unit}"] = nn.Conv3d(width, width, 3, padding=1)

    def block(self, name, x):
        y = x = self[f"{name}_projection"](x)
        for unit in (1, 2):
            convolution, start = self[f"{name}_recurrent_{unit}"], y
            y = functional.relu(convolution(start))
            for _ in range(self.t):
                y = functional.relu(convolution(start + y))
        return x + y

    def forward(self, x):
        skips = []
        for level in range(self.levels):
            x = self.block(f"down_{level}", x)
            skips.append(x)
            x = functional.max_pool3d(x, 2)
        x = self.block("bottom", x)
        for level in reversed(range(self.levels)):
            x = functional.relu(self[f"up_{level}_transposed"](x))
            if level:
                x = torch.cat([skips[level], x], 1)
            x = self.block(f"up_{level}", x)
        return functional.leaky_relu(self["output"](x), self.slope)


class Shifted(nn.Module):
    """Weight-normalised convolution that sees nothing below and right of a pixel."""

    def __init__(self, before, width, size=(1, 1), stride=1):
        super().__init__()
        self.linear = weight_norm(nn.Conv2d(before, width, size, stride))
        rows, columns = size
        self.padding = (columns // 2, (columns - 1) // 2, rows - 1, 0)

    def forward(self, x):
        return self.linear(functional.pad(x, self.padding) if any(self.padding) else x)


class ShiftedTransposed(nn.Module):
    """Its transposed of stride 2, cut to the rows and columns of its second argument."""

    def __init__(self, before, width, size):
        super().__init__()
        self.linear = weight_norm(nn.ConvTranspose2d(before, width, size, 2), dim=1)
        self.left = (size[1] - 1) // 2

    def forward(self, x, like):
        rows, columns = like.shape[2:]
        return self.linear(x)[..., :rows, self.left:self.left + columns]


def concatenated_elu(x):
    return functional.elu(torch.cat([x, -x], 1))


class Gated(nn.Module):
    """Gated residual block."""

    def __init__(self, width, size, dropout, more=0):
        super().__init__()
        self.first, self.second = Shifted(2 * width, width, size), Shifted(2 * width, 2 * width, size)
        self.dropout = nn.Dropout(dropout)
        self.more = Shifted(2 * more, width) if more else None

    def forward(self, x, more=None):
        hidden = self.first(concatenated_elu(x))
        if more is not None:
            hidden = hidden + self.more(concatenated_elu(more))
        a, b = self.second(self.dropout(concatenated_elu(hidden))).chunk(2, 1)
        return x + a * torch.sigmoid(b)


class PixelCNN(nn.ModuleDict):
    """morph's PixelCNN++, of one channel."""

    sizes, levels = {"vertical": (2, 3), "horizontal": (2, 2)}, 3

    def __init__(self, blocks, filters, mixtures, dropout):
        super().__init__()
        self.blocks = blocks
        self["input_vertical"], self["input_above"] = Shifted(2, filters, (2, 3)), Shifted(2, filters, (1, 3))
        self["input_left"] = Shifted(2, filters, (2, 1))
        for level in range(self.levels):
            for stream, size in self.sizes.items():
                if level:
                    self[f"down_{level}_{stream}"] = Shifted(filters, filters, size, 2)
                if level < self.levels - 1:
                    self[f"up_{level}_{stream}"] = ShiftedTransposed(filters, filters, size)
                for block in range(blocks):
                    more = filters if stream == "horizontal" else 0
                    self[f"down_{level}_{block}_{stream}"] = Gated(filters, size, dropout, more)
                for block in range(blocks + (level < self.levels - 1)):
                    more = 2 * filters if stream == "horizontal" else filters
                    self[f"up_{level}_{block}_{stream}"] = Gated(filters, size, dropout, more)
        self["last"] = Shifted(filters, 3 * mixtures)  # a module cannot be called `parameters`

    def forward(self, x):
        x = torch.cat([2 * x - 1, torch.ones_like(x)], 1)
        vertical = functional.pad(self["input_vertical"](x), (0, 0, 1, 0))[:, :, :-1]
        horizontal = (functional.pad(self["input_above"](x), (0, 0, 1, 0))[:, :, :-1]
                      + functional.pad(self["input_left"](x), (1, 0, 0, 0))[..., :-1])
        skips = []
        for level in range(self.levels):
            if level:
                vertical = self[f"down_{level}_vertical"](vertical)
                horizontal = self[f"down_{level}_horizontal"](horizontal)
            skips.append([(vertical, horizontal)])
            for block in range(self.blocks):
                vertical = self[f"down_{level}_{block}_vertical"](vertical)
                horizontal = self[f"down_{level}_{block}_horizontal"](horizontal, vertical)
                skips[level].append((vertical, horizontal))
        vertical, horizontal = skips[-1].pop()
        for level in reversed(range(self.levels)):
            if level < self.levels - 1:
                like = skips[level][0][0]
                vertical = self[f"up_{level}_vertical"](vertical, like)
                horizontal = self[f"up_{level}_horizontal"](horizontal, like)
            for block, (above, left) in enumerate(reversed(skips[level])):
                vertical = self[f"up_{level}_{block}_vertical"](vertical, above)
                horizontal = self[f"up_{level}_{block}_horizontal"](horizontal, torch.cat([vertical, left], 1))
        return self["last"](functional.elu(horizontal))


def copy(network, peer):
    """Give a peer the weights of our network."""
    inner = network
    while any(hasattr(layer, "layers") for layer in inner.layers):
        inner = next(layer for layer in inner.layers if hasattr(layer, "layers"))
    layers = {layer.name: layer for layer in inner.layers if layer.trainable_variables}
    if isinstance(peer, nn.ModuleDict):
        pairs = [(layers[{"last": "parameters"}.get(name, name)], part) for name, part in peer.items()]
        assert len(layers) == len(pairs)
    else:
        ordered = [layer for layer in layers.values() if layer.name != "scales"]
        pairs = list(zip(ordered, peer.parts(), strict=True))
    with torch.no_grad():
        for layer, part in pairs:
            copy_layer(layer, part, peer)
        if "scales" in layers:
            peer.log_scale.copy_(tensor(layers["scales"].log_scales))


def copy_layer(layer, part, peer):
    """The weights of one layer, or of the layers in a gated block."""
    if isinstance(part, Gated):
        for name in ("first", "second", "more"):
            if getattr(part, name) is not None:
                copy_layer(getattr(layer, name), getattr(part, name), peer)
    elif isinstance(part, Shifted | ShiftedTransposed):
        gain, direction = part.linear.parametrizations.weight.original0, part.linear.parametrizations.weight.original1
        direction.copy_(channels_first(layer.v))
        gain.copy_(tensor(layer.g).reshape(gain.shape))
        part.linear.bias.copy_(tensor(layer.b))
    elif isinstance(part, nn.BatchNorm3d):
        for ours, theirs in ((layer.gamma, part.weight), (layer.beta, part.bias),
                             (layer.moving_mean, part.running_mean), (layer.moving_variance, part.running_var)):
            theirs.copy_(tensor(ours))
    else:
        if isinstance(part, nn.Linear):
            kernel = tensor(layer.kernel)
            if part is peer.dense[0]:  # what it reads was flattened with the channels first
                kernel = kernel.reshape(*(peer.side,) * 3, -1, kernel.shape[1]).movedim(3, 0).flatten(0, 3)
            part.weight.copy_(kernel.T)
        else:
            part.weight.copy_(channels_first(layer.kernel))
        if part.bias is not None:
            part.bias.copy_(tensor(layer.bias))


def tensor(variable):
    import keras

    return torch.from_numpy(keras.ops.convert_to_numpy(variable).copy())


def channels_first(kernel):
    """A kernel (..., before, width), or of a transposed convolution (..., width, before), as PyTorch has it."""
    kernel = tensor(kernel)
    return kernel.movedim((-1, -2), (0, 1))


def normalised_distance(true, output, margin):
    inner = (..., *(slice(margin, -margin),) * 3)
    true, output = true[inner], output[inner]
    scale = true.flatten(1).sum(1).mean().clamp(min=1.0)
    return ((true - output).abs().flatten(1).sum(1) / scale).mean()


def selection_likelihood(d, output):
    """Eqs. 5 and 6 of Lucie-Smith et al. 2020 with a Cauchy distribution."""
    y, gamma = output.unbind(1)
    d, inner = d[:, 0], y.clamp(-1, 1)
    mass = gamma * (((1 - inner) / gamma).atan() + ((inner + 1) / gamma).atan())
    inside = ((d - inner) / gamma).square().log1p() + mass.log()
    slope = -2 * (d - inner) / (gamma**2 + (d - inner)**2)
    ends = [1 / (1 + ((end - inner) / gamma)**2) for end in (-1, 1)]
    slope = slope + (ends[0] - ends[1]) / mass
    coefficient = (slope * y.sign() - math.e * math.exp(math.e)) / 2
    beyond = (y.abs() - 1).relu()
    outside = coefficient * beyond * (beyond + 2)
    outside = outside + math.exp(math.e) * torch.expm1(math.e * torch.expm1(beyond.clamp(max=2)))
    outside = outside + math.exp(math.exp(3) + 3) * (beyond - 2).relu()
    return (inside + outside).mean()


def weighted_cross_entropy(true, output, weight):
    logarithm = output.clamp(min=torch.finfo(torch.float32).tiny).log()
    value = torch.where(true[:, 0] > 0, weight * logarithm[:, 1], logarithm[:, 0])
    return -value.flatten(1).mean(1).mean() / (weight + 1)


def weighted_squared_error(true, output, weight):
    galaxies, occupied = true[:, :1], true[:, 1:]
    difference = torch.where(occupied > 0, output - galaxies, 0.0)
    return (torch.where(galaxies > 0, weight, 1.0) * difference.square()).flatten(1).sum(1).mean()


def logistic_mixture(x, parameters):
    """-ln p of a pixel under a mixture of logistics, averaged: the density of its continuous value."""
    weight, mean, log_scale = parameters.chunk(3, 1)
    log_scale = log_scale.clamp(min=-7.0)
    z = ((2 * x - 1 - mean) * (-log_scale).exp()).abs()
    density = -z - 2 * functional.softplus(-z) - log_scale + math.log(2)
    return -(weight.log_softmax(1) + density).logsumexp(1).mean()
