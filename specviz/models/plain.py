"""Plain chains of convolutions and pooling: LeNet, AlexNet and VGGs."""

from torch import nn

from specviz.models.forms import Form
from specviz.models.network import network


@network(smallest=28, batch_norm=False, imagenet=False)
def lenet(form: Form) -> nn.Module:
    """LeNet-5: two 5 x 5 convolutions with pooling, three linear layers (LeCun et al. 1998).

    This is today's form: max pooling, and every filter sees all channels. Images of 28 pixels are padded to the
    original's 32. Larger ones are averaged to its 5 x 5 maps before the linear layers.

    >>> sv.models.lenet(num_classes=10, width=0.25)(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    c6, c16 = form.channels(6), form.channels(16)
    features = [
        form.unit(form.in_channels, c6, 5, padding=0 if form.image_size >= 32 else 2, multiple=form.folds(4)),
        form.max_pool(),
        form.unit(c6, c16, 5, padding=0),
        form.max_pool(),
    ]
    return form.network(features, c16, side=5, hidden=(120, 84))


@network(smallest=28, batch_norm=False)
def alexnet(form: Form) -> nn.Module:
    """AlexNet: five convolutions, three of them with pooling, three linear layers (Krizhevsky et al. 2012).

    It has the channels of the one-GPU version (2014), as torchvision's AlexNet has. On small images the first
    convolution is 5 x 5 with stride 1, and the hidden layers have 1024 numbers, not 4096. Dropout, 0.5, follows both
    hidden layers.

    >>> sv.models.alexnet(num_classes=10, width=0.25)(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    c64, c192, c384, c256 = (form.channels(c) for c in (64, 192, 384, 256))
    if form.imagenet:
        first = form.unit(form.in_channels, c64, 11, stride=4, padding=2, multiple=4 * form.folds(8))
    else:
        first = form.unit(form.in_channels, c64, 5, multiple=form.folds(8))
    features = [
        first,
        form.max_pool(3),
        form.unit(c64, c192, 5),
        form.max_pool(3),
        form.unit(c192, c384, 3),
        form.unit(c384, c256, 3),
        form.unit(c256, c256, 3),
        form.max_pool(3),
    ]
    side, hidden = (6, 4096) if form.imagenet else (3, 1024)
    return form.network(features, c256, side, hidden=(hidden, hidden), dropout=0.5)


def _vgg(form: Form, depths: tuple[int, ...]) -> nn.Module:
    features: list[nn.Module] = []
    C = form.in_channels
    for depth, usual in zip(depths, (64, 128, 256, 512, 512), strict=True):
        for _ in range(depth):
            first = not features
            features.append(form.unit(C, C := form.channels(usual), 3, multiple=form.folds(32) if first else 1))
        features.append(form.max_pool())
    if form.imagenet:
        return form.network(features, C, side=7, hidden=(4096, 4096), dropout=0.5)
    return form.network(features, C, side=1)


@network(smallest=32, batch_norm=True)
def vgg11(form: Form) -> nn.Module:
    """VGG-11: eight 3 x 3 convolutions in five stages, each halved by pooling (Simonyan & Zisserman 2015, net A).

    It has batch norm, as usual on CIFAR; batch_norm=False gives the paper's net. One linear layer follows on small
    images. Three follow on large ones, with dropout, 0.5, after both hidden layers.

    >>> sv.models.vgg11(num_classes=10, width=0.25)(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    return _vgg(form, (1, 1, 2, 2, 2))


@network(smallest=32, batch_norm=True)
def vgg16(form: Form) -> nn.Module:
    """VGG-16: thirteen 3 x 3 convolutions in five stages, each halved by pooling (Simonyan & Zisserman 2015, net D).

    It has batch norm, as usual on CIFAR; batch_norm=False gives the paper's net. One linear layer follows on small
    images. Three follow on large ones, with dropout, 0.5, after both hidden layers.

    >>> sv.models.vgg16(num_classes=10, width=0.25)(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    return _vgg(form, (2, 2, 3, 3, 3))


@network(smallest=8, batch_norm=True, imagenet=False)
def vgg7(form: Form) -> nn.Module:
    """VGG-7: three pairs of 3 x 3 convolutions, 32, 96 and 160 channels, each halved by pooling; one linear layer.

    It is small enough to train on two cores, with `training.RECIPE`. Pooling comes before a pair's first norm, which
    saves computation. The largest pixel of each last map goes to the linear layer, whose scores are divided by 9. After
    Jordan (2024), "94 % on CIFAR-10 in 3.29 seconds".

    >>> sv.models.vgg7(num_classes=10, width=0.25)(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    features: list[nn.Module] = []
    C = form.in_channels
    for usual in (32, 96, 160):
        O = form.channels(usual)
        features += [form.unit(C, O, 3, pool=True, multiple=1 if features else form.folds(8)), form.unit(O, O, 3)]
        C = O
    return form.network(features, C, side=1, largest=True, scale=1 / 9)
