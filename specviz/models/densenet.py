"""DenseNet (Huang et al. 2017)."""

from typing import Any

from torch import nn

from specviz.models.forms import Form
from specviz.models.network import network


class DenseLayer(nn.Module):
    """Adds `growth` maps to those it is given: (B, C, H, W) -> (B, C + growth, H, W), images or half spectra."""

    def __init__(self, form: Form, C: int, growth: int, bottleneck: bool) -> None:
        super().__init__()
        if bottleneck:
            units = [form.preactivated(C, 4 * growth, 1), form.preactivated(4 * growth, growth, 3)]
        else:
            units = [form.preactivated(C, growth, 3)]
        self.units = nn.Sequential(*units)
        self.concatenate = form.concatenate

    def forward(self, x: Any) -> Any:
        return self.concatenate([x, self.units(x)])


def _densenet(
    form: Form, depths: tuple[int, ...], *, growth: int, first: int, bottleneck: bool, compression: float
) -> nn.Module:
    """Dense blocks of `depths` layers; between them a 1 x 1 convolution leaves the share `compression` of the maps."""
    C, growth = form.channels(first), form.channels(growth)
    if form.imagenet:
        features = [form.unit(form.in_channels, C, 7, stride=2, multiple=2), form.max_pool(3, padding=1)]
    else:
        features = [form.convolution(form.in_channels, C, 3, multiple=form.folds(2 ** (len(depths) - 1)))]
    for block, depth in enumerate(depths):
        if block > 0:
            features += [form.preactivated(C, C := int(C * compression), 1), form.average_pool()]
        for _ in range(depth):
            features.append(DenseLayer(form, C, growth, bottleneck))
            C += growth
    return form.network([*features, form.last_activation(C)], C, side=1)


@network(smallest=8, batch_norm=True, imagenet=False)
def densenet40(form: Form) -> nn.Module:
    """DenseNet-40: three dense blocks of twelve 3 x 3 convolutions, 12 maps each (Huang et al. 2017).

    It is for CIFAR, with neither bottlenecks nor compression. In the spatial form a unit is batch norm, activation,
    convolution; SpecNet's blocks convolve first. The paper's dropout, 0.2 inside the blocks, is left out: it was for
    training without augmentation.

    >>> sv.models.densenet40(num_classes=10, width=0.25)(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    return _densenet(form, (12, 12, 12), growth=12, first=16, bottleneck=False, compression=1.0)


@network(smallest=8, batch_norm=True)
def densenet121(form: Form) -> nn.Module:
    """DenseNet-121: four dense blocks of 6, 12, 24, 16 bottleneck layers, 32 maps each (Huang et al. 2017).

    In the spatial form a unit is batch norm, activation, convolution; SpecNet's blocks convolve first. On small images
    the first convolution is 3 x 3 with stride 1 and without pooling.

    >>> sv.models.densenet121(num_classes=10, width=0.25)(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    return _densenet(form, (6, 12, 24, 16), growth=32, first=64, bottleneck=True, compression=0.5)


@network(smallest=8, batch_norm=True)
def densenet169(form: Form) -> nn.Module:
    """DenseNet-169: four dense blocks of 6, 12, 32, 32 bottleneck layers, 32 maps each; otherwise as `densenet121`.

    >>> sv.models.densenet169(num_classes=10, width=0.25)(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    return _densenet(form, (6, 12, 32, 32), growth=32, first=64, bottleneck=True, compression=0.5)
