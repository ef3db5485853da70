"""Data: photographs to look at, a time series, and labelled sets to train on, in their publishers' formats.

photo = sv.datasets.photo("camera")                           # (512, 512), brightness 0 to 1
train = sv.datasets.load("fashion-mnist-small")               # comes with the project; 4000 of 1 x 28 x 28, uint8
train, held = train.split(0.1, seed=0)                        # every class with its share
own = sv.datasets.image_folder("pets/train", side=64)         # class/picture.jpg, read when it is asked for
x = sv.datasets.normalise(train.inputs[:128], *train.channel_stats())
"""

from specviz.datasets.augment import crop_flip, normalise, shift_rotate
from specviz.datasets.catalogue import load, names
from specviz.datasets.folders import ImageFolder, image_folder
from specviz.datasets.labelled import Labelled
from specviz.datasets.photos import MAX_SIDE, PHOTOS, luminance, photo, photo_from, photo_patches, photo_within
from specviz.datasets.places import DATA
from specviz.datasets.timeseries import SERIES, series

Examples = Labelled | ImageFolder  # what can be trained on: in memory, or files read when they are asked for

__all__ = [
    "DATA",
    "MAX_SIDE",
    "PHOTOS",
    "SERIES",
    "Examples",
    "ImageFolder",
    "Labelled",
    "crop_flip",
    "image_folder",
    "load",
    "luminance",
    "names",
    "normalise",
    "photo",
    "photo_from",
    "photo_patches",
    "photo_within",
    "series",
    "shift_rotate",
]
