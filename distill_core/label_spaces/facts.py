"""The named label spaces: number of classes and hash of each; the lists are read where they are.

A hash covers the sorted ids, so it identifies the set of classes whatever their order is. The lists
of ImageNet are those of the package timm (see docs/decisions/0035 and 0038).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_CIFAR100 = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch
crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo
keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse
mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy
porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper
snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television
tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""
CIFAR100 = tuple(_CIFAR100.split())
TINY = (  # ids of its classes in ImageNet-1K
    *(1, 25, 30, 32, 50, 61, 69, 71, 75, 76, 79, 99, 105, 107, 109, 113, 114, 115, 122, 123, 128),
    *(145, 146, 149, 151, 187, 207, 208, 235, 267, 281, 283, 285, 286, 291, 294, 301, 308, 309),
    *(311, 313, 314, 315, 319, 323, 325, 329, 338, 341, 345, 347, 349, 353, 354, 365, 367, 372),
    *(386, 387, 398, 400, 406, 411, 414, 421, 424, 425, 427, 430, 435, 436, 437, 438, 440, 445),
    *(447, 448, 457, 458, 462, 463, 466, 467, 470, 471, 474, 480, 485, 488, 492, 496, 500, 508),
    *(509, 511, 517, 525, 526, 532, 542, 543, 557, 562, 565, 567, 568, 570, 573, 576, 604, 605),
    *(612, 614, 619, 621, 625, 627, 635, 645, 652, 655, 675, 677, 678, 682, 683, 687, 704, 707),
    *(716, 720, 731, 733, 734, 735, 737, 739, 744, 747, 758, 760, 761, 765, 768, 774, 779, 781),
    *(786, 801, 806, 808, 811, 815, 817, 821, 826, 837, 839, 842, 845, 849, 850, 853, 862, 866),
    *(873, 874, 877, 879, 887, 888, 890, 899, 900, 909, 910, 917, 923, 924, 928, 929, 932, 935),
    *(938, 945, 947, 950, 951, 954, 957, 962, 963, 964, 967, 970, 972, 973, 975, 978, 988),
)


@dataclass(frozen=True)
class LabelSpace:
    """A class list that several datasets or teachers share.

    Its classes are `classes`, or the list in a file of timm, or some of those of another space.
    """

    name: str
    count: int
    source: str
    digest: (
        str | None
    )  # `digest_of` its ids; None: only its number, `within` and `contains` are known
    classes: tuple[str, ...] = ()
    file: str | None = None  # of timm/data/_info, with one id in each line
    within: str | None = None  # a space that has all of its classes
    contains: str | None = None  # a space whose classes are all among its own
    places: tuple[int, ...] = ()  # of its classes in `within`
    images: tuple[int, int] | None = None  # published numbers, to train and to test on

    @property
    def listed(self) -> bool:
        """Return whether its classes are known, and not only how many there are."""
        return self.digest is not None


def digest_of(ids: Iterable[str]) -> str:
    """Return the identity of a set of classes: sha256 of the sorted ids, one in each line."""
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()


def find_space(ids: Iterable[str]) -> LabelSpace | None:
    """Return the space whose classes these are, in any order."""
    digest = digest_of(ids)
    return next((space for space in SPACES.values() if space.digest == digest), None)


_SPACES = (
    LabelSpace(
        "imagenet-1k",
        1000,
        "ILSVRC 2012 (image-net.org)",
        "385e0240499426c022b773be1ae4da780f057b89c9694c7f47199f62746b6edd",
        file="imagenet_synsets.txt",
        images=(1_281_167, 50_000),
    ),
    LabelSpace(
        "imagenet-12k",
        11821,
        "the classes of fall11 on which timm trains its in12k networks",
        "009d4c9f19667ccf35878fb10718a90ccc9afe27004b4d42880d5feab073a3b1",
        file="imagenet12k_synsets.txt",
    ),
    LabelSpace(
        "imagenet-21k-p",
        10450,
        "arXiv:2104.10972, made from the winter21 release",
        "68202583aa200623fa7f326a1a4f8ff8f9a2e33ee8cd78ae16d52fb34e345dd4",
        file="imagenet21k_miil_w21_synsets.txt",
        images=(11_060_223, 522_500),
    ),
    LabelSpace(
        "imagenet-21k-p-fall11",
        11221,
        "arXiv:2104.10972, made from the fall11 release; the outputs of timm's miil networks",
        "e96927e3af1cf32cd60c35b4407ba6e16396a2696feefed66c4017b403c5596a",
        file="imagenet21k_miil_synsets.txt",
        images=(11_797_632, 561_052),
    ),
    LabelSpace(
        "imagenet-21k-winter21",
        19167,
        "the winter21 release (image-net.org)",
        None,  # no package has the list of its ids
        within="imagenet-21k",
        contains="imagenet-21k-p",
    ),
    LabelSpace(
        "imagenet-21k",
        21841,
        "the fall11 release (image-net.org); the outputs of timm's in22k networks",
        "6320b72b72e43c09a768f0253d28c3b55707760bbf3b9d308887800b0d86658d",
        file="imagenet22k_synsets.txt",
    ),
    LabelSpace(
        "imagenet-21k-ms",
        21842,
        "the outputs of timm's ms_in22k networks: those of ImageNet-1K first",
        "b605787e507de7b6972206835e0989e76a013bf1e1428225a1bd3d4f8e65325a",
        file="imagenet22k_ms_synsets.txt",
    ),
    LabelSpace(
        "imagenet-21k-goog",
        21843,
        "the outputs of timm's augreg_in21k networks: fall11 and two classes more",
        "c03345e3490e010defaeac86b00012db28ecb79af13daba0b72525fa37c66e94",
        file="imagenet21k_goog_synsets.txt",
    ),
    LabelSpace(
        "tiny-imagenet",
        200,
        "CS231n (cs231n.stanford.edu/tiny-imagenet-200.zip)",
        "add4bf0c8712ef7fb4bca98e3bbaf07101636c5db62cce486fd2af71cc11caf8",
        within="imagenet-1k",
        places=TINY,
        images=(100_000, 10_000),
    ),
    LabelSpace(
        "cifar10",
        10,
        "A. Krizhevsky, 2009 (cs.toronto.edu/~kriz/cifar.html)",
        "bb3914949cecedee6d1257f7f5fdb8f43fa3b2c8095fd1763161caf1b873fe59",
        classes=CIFAR10,
        images=(50_000, 10_000),
    ),
    LabelSpace(
        "cifar100",
        100,
        "A. Krizhevsky, 2009 (cs.toronto.edu/~kriz/cifar.html), fine labels",
        "fbe8ad23bbaf24969898a386833b49c3aaf6ad1119d43f7b41cdea1b3416d578",
        classes=CIFAR100,
        images=(50_000, 10_000),
    ),
)
SPACES: Mapping[str, LabelSpace] = {space.name: space for space in _SPACES}
