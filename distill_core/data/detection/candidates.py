"""The formats that the names at the top of a dataset can mean. Pure: names in, candidates out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from distill_core.config.data import DataConfig
from distill_core.data.detection.survey import (
    CLASS_FOLDERS,
    HUB_FOLDER,
    SPLITS,
    TEST,
    TRAIN,
    Tree,
    join,
)
from distill_core.data.readers.cifar import KINDS
from distill_core.data.readers.compression import ARCHIVES, archive_stem
from distill_core.data.readers.names import is_image
from distill_core.data.readers.parquet_files import split_name
from distill_core.data.readers.tiny_imagenet import ANNOTATIONS, IMAGES

Kind = Literal["cifar", "flat", "imagefolder", "parquet", "tars", "tiny", "webdataset"]
TITLES: Mapping[Kind, str] = {
    "cifar": "CIFAR's batches",
    "flat": "flat folder with a list",
    "imagefolder": "ImageFolder",
    "parquet": "Parquet",
    "tars": "tar files of classes",
    "tiny": "Tiny-ImageNet's layout",
    "webdataset": "WebDataset shards",
}
CLASS_LISTS = ("classes.txt", "classnames.txt", "class_names.txt", "map_clsloc.txt")
LABEL_LISTS = ("LOC_val_solution.csv", ANNOTATIONS, "val.txt", "validation.txt")
GROUND_TRUTH = "validation_ground_truth.txt"
LABEL_MEMBERS = (".cls", ".cls.txt")
WHOLE = "."  # the dataset's folder as a split


@dataclass(frozen=True)
class SplitFound:
    """One split, as it may be read."""

    name: str  # for data.train or data.test
    kind: Kind
    evidence: str

    @property
    def title(self) -> str:
        """Return the split in a few words."""
        return f"{self.name} ({TITLES[self.kind]}: {self.evidence})"


@dataclass(frozen=True)
class Candidate:
    """One way to read a dataset."""

    train: SplitFound
    test: SplitFound
    lists: Mapping[str, str]  # class_list and label_list of the config, where they are needed

    @property
    def formats(self) -> tuple[Kind, Kind | None]:
        """Return the format, and that of the test split if it is another one."""
        train, test = self.train.kind, self.test.kind
        if train == "tiny":
            return ("tiny", None) if test == "flat" else ("imagefolder", None)
        return train, None if train == test else test

    @property
    def title(self) -> str:
        """Return the candidate in a few words."""
        return f"train = {self.train.title}, test = {self.test.title}"


# Names that stand in a config for whatever its dataset calls the split.
DEFAULTS = frozenset(DataConfig.model_fields[key].default for key in ("train", "test"))


def candidates(tree: Tree, train: str, test: str | None) -> list[Candidate]:
    """Return every way to read a dataset; splits that the config names come before others.

    Args:
        tree: its names.
        train: `data.train`.
        test: `data.test`; None: the training split is divided.
    """
    if cifar := _cifar(tree):
        return cifar
    first = _chosen(tree, train, TRAIN)
    if test is None:
        first = first or [s for s in splits(tree, _whole(tree)) if _is_labelled(tree, s)]
        return [Candidate(a, a, _lists(tree, a, a)) for a in first]
    second = _chosen(tree, test, TEST)
    return [
        Candidate(a, b, _lists(tree, a, b))
        for a in first
        for b in second
        if a.kind != "flat" and _fit(a.kind, b.kind)
    ]


def splits(tree: Tree, names: Sequence[str]) -> list[SplitFound]:
    """Return the splits of some names, each in every way that it can be read."""
    return [found for name in names for found in _split(tree, name)]


def _chosen(tree: Tree, configured: str, usual: Sequence[str]) -> list[SplitFound]:
    """Return the split of the config, or those of the usual names where the config names none."""
    found = splits(tree, [configured.strip("/")])
    return found if found or is_named(configured) else splits(tree, usual)


def is_named(split: str) -> bool:
    """Return whether `data.train` or `data.test` is not the default, so that no other will do."""
    return split.strip("/") not in DEFAULTS


def _whole(tree: Tree) -> Sequence[str]:
    """Return the dataset's folder as a split, unless a part of it is called like one."""
    names = [*tree.folders.get("", ()), *(archive_stem(name) for name in tree.files.get("", ()))]
    return () if any(name.lower() in SPLITS for name in names) else (WHOLE,)


def _is_labelled(tree: Tree, split: SplitFound) -> bool:
    """Return whether the classes of a split are known, from folders or from a list."""
    return split.kind != "flat" or "label_list" in _lists(tree, split, split)


def _fit(train: Kind, test: Kind) -> bool:
    """Return whether both splits can belong to one dataset."""
    return train == test or (test in ("flat", "imagefolder", "tars") and train != "parquet")


def _cifar(tree: Tree) -> list[Candidate]:
    found = []
    for kind in KINDS:
        if kind.folder in tree.folders.get("", ()) or kind.names in tree.files.get("", ()):
            split = SplitFound(".", "cifar", kind.folder)
            found.append(Candidate(split, split, {}))
    return found


def _split(tree: Tree, name: str) -> Iterator[SplitFound]:
    """Yield every way to read a split."""
    yield from _in_folders(tree, name)
    yield from _in_archives(tree, name)
    for folder in ("", HUB_FOLDER, name):
        files = tree.paths(folder, ".parquet")
        names = {split_name(path) for path in files}
        split = name if folder == name else join(folder, name)
        if name == WHOLE and len(names) == 1:  # all files are parts of one set
            split = names.pop()
        if mine := [path for path in files if folder == name or split_name(path) == split]:
            yield SplitFound(split, "parquet", _some(mine))
            return


def _in_folders(tree: Tree, name: str) -> Iterator[SplitFound]:
    split, name = name, "" if name == WHOLE else name
    folders, files = tree.folders.get(name, ()), tree.files.get(name, ())
    if name not in tree.folders:
        return
    if ANNOTATIONS in files and IMAGES in folders:
        yield SplitFound(split, "flat", join(name, ANNOTATIONS))
        return
    inside = [join(name, folder) for folder in folders[:CLASS_FOLDERS]]
    inside += [join(top, inner) for top in inside for inner in tree.folders.get(top, ())[:1]]
    if any(is_image(path) for folder in inside for path in tree.paths(folder)):
        evidence = f"{join(name, folders[0])} and {len(folders) - 1:,} more folders"
        is_tiny = "wnids.txt" in tree.files[""] and any(
            list(tree.folders.get(folder, ())) == [IMAGES] for folder in inside
        )
        yield SplitFound(split, "tiny" if is_tiny else "imagefolder", evidence)
    elif images := [path for path in files if is_image(path)]:
        yield SplitFound(split, "flat", f"{len(images):,} images in {split}")


def _in_archives(tree: Tree, name: str) -> Iterator[SplitFound]:
    """Yield a split in tar files: in its folder, named after it, or with its name in theirs."""
    top = tree.paths("", ARCHIVES)
    stems = {path: archive_stem(path) for path in top}
    exact = [p for p, stem in stems.items() if name in (p, stem) or stem.startswith(f"{name}-")]
    near = [path for path, stem in stems.items() if f"_{name}" in stem.lower()]
    files = top if name == WHOLE else tree.paths(name, ARCHIVES)
    for found, setting in ((files, name), (exact, name), (near, near[0] if near else "")):
        if not found:
            continue
        members = next((tree.members[path] for path in found if path in tree.members), ())
        if any(member.endswith(LABEL_MEMBERS) for member in members):
            yield SplitFound(setting, "webdataset", _some(found))
        elif members and len(found) == 1 and found is not files and _is_flat(found[0], members):
            yield SplitFound(setting, "flat", found[0])
        else:
            yield SplitFound(setting, "tars", _some(found))
        return


def _is_flat(archive: str, members: Sequence[str]) -> bool:
    """Return whether an archive of a split has images side by side, by its first members."""
    below = [member.removeprefix(f"{archive_stem(archive)}/") for member in members]
    return all(is_image(member) and "/" not in member for member in below)


def _lists(tree: Tree, train: SplitFound, test: SplitFound) -> dict[str, str]:
    """Return the lists that a candidate needs, where exactly one of each kind is there."""
    top, found = tree.files.get("", ()), {}
    if test.kind == "flat" and train.kind != "tiny":
        names = [n for n in top if n in LABEL_LISTS or n.endswith(GROUND_TRUTH)]
        names += [f"{test.name}/{n}" for n in tree.files.get(test.name, ()) if n in LABEL_LISTS]
        if len(names) == 1:
            found["label_list"] = names[0]
    needs_names = train.kind == "webdataset" or found.get("label_list", "").endswith(GROUND_TRUTH)
    lists = [name for name in top if name in CLASS_LISTS]
    if needs_names and len(lists) == 1:
        found["class_list"] = lists[0]
    return found


def _some(paths: Sequence[str]) -> str:
    return f"{paths[0]} and {len(paths) - 1:,} more" if len(paths) > 1 else paths[0]
