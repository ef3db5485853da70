"""ResNet (He et al. 2016)."""

from typing import Any

from torch import nn

from specviz.models.forms import Form
from specviz.models.network import network


class Residual(nn.Module):
    """Two 3 x 3 units and a shortcut around them: (B, C, H, W) -> (B, O, H/stride, W/stride), images or half spectra.

    Where the shapes differ the shortcut is a 1 x 1 convolution. The sum comes before the last activation.
    """

    def __init__(self, form: Form, C: int, O: int, stride: int) -> None:
        super().__init__()
        self.first = form.unit(C, O, 3, stride=stride)
        self.second = form.unit(O, O, 3)
        same = (C, stride) == (O, 1)
        self.shortcut = nn.Identity() if same else form.unit(C, O, 1, stride=stride, activate=False)

    def forward(self, x: Any) -> Any:
        return self.second(self.first(x), self.shortcut(x))


@network(smallest=8, batch_norm=True)
def resnet18(form: Form) -> nn.Module:
    """ResNet-18: four stages of two residual units, 64 to 512 channels, halved by strides (He et al. 2016).

    On small images the first convolution is 3 x 3 with stride 1 and without pooling. SpecNet pads the first spectrum
    to a multiple of 8, the product of the later strides; on large images it crops the spectrum so after the pooling.

    >>> sv.models.resnet18(num_classes=10, width=0.25)(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    C = form.channels(64)
    if form.imagenet:
        features = [
            form.unit(form.in_channels, C, 7, stride=2, multiple=2),
            form.max_pool(3, padding=1, multiple=8),
        ]
    else:
        features = [form.unit(form.in_channels, C, 3, multiple=8)]
    for usual, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        O = form.channels(usual)
        features += [Residual(form, C, O, stride), Residual(form, O, O, 1)]
        C = O
    return form.network(features, C, side=1)


@network(smallest=8, batch_norm=True, imagenet=False)
def resnet9(form: Form) -> nn.Module:
    """ResNet-9: three halvings with 48, 96 and 128 channels, residual pairs after the first and the last.

    It is small enough to train on two cores, with `training.RECIPE`. The largest pixel of each last map goes to the
    linear layer, whose scores are divided by 9. It follows Page (2018), "How to train your ResNet", with fewer
    channels.

    >>> sv.models.resnet9(num_classes=10, width=0.25)(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    c24, c48, c96, c128 = (form.channels(c) for c in (24, 48, 96, 128))
    features = [
        form.unit(form.in_channels, c24, 3, multiple=form.folds(8)),
        form.unit(c24, c48, 3, pool=True),
        Residual(form, c48, c48, 1),
        form.unit(c48, c96, 3, pool=True),
        form.unit(c96, c128, 3, pool=True),
        Residual(form, c128, c128, 1),
    ]
    return form.network(features, c128, side=1, largest=True, scale=1 / 9)
