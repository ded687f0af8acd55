"""Readable names of classes: from the files that datasets have beside them, and from WordNet."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill_core.data.labels.words import find_words
from distill_core.label_spaces.words import MAX_WORDS, SHOWN, ClassWords, words_of
from tests.support.class_lists import need_timm, without_timm
from tests.support.datasets import data_config, image_folder

NAMES = ("n01440764", "n01443537")
FILES = {
    "classes.tsv": "n01440764\ttench, Tinca tinca\nn01443537\tgoldfish\nn99999999\tnot of these\n",
    "words.txt": "n01440764\ttench, Tinca tinca\nn01443537\tgoldfish\n",
    "LOC_synset_mapping.txt": "n01440764 tench, Tinca tinca\nn01443537 goldfish\n",
    "class_names.json": '{"n01440764": "tench, Tinca tinca", "n01443537": "goldfish"}',
}
BY_LABEL = (
    '["tench, Tinca tinca", "goldfish"]',
    '{"0": "tench, Tinca tinca", "1": "goldfish"}',
    '{"0": ["n01440764", "tench, Tinca tinca"], "1": ["n01443537", "goldfish"]}',
)


@pytest.mark.parametrize(
    ("file", "text"), [*FILES.items(), *(("class_names.json", text) for text in BY_LABEL)]
)
def test_a_file_beside_a_dataset_names_its_classes(
    tmp_path: Path, file: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_timm(monkeypatch)
    (tmp_path / file).write_text(text)
    found = find_words(data_config(tmp_path), NAMES)
    assert found.words == {"n01440764": "tench, Tinca tinca", "n01443537": "goldfish"}
    assert found.titles(NAMES) == ("tench (n01440764)", "goldfish (n01443537)")


def test_the_file_of_the_dataset_comes_before_wordnet() -> None:
    need_timm()
    own = words_of(NAMES, {"classes.tsv": b"n01440764\tmy fish\n"})
    assert own.titles(NAMES) == ("my fish (n01440764)", "goldfish (n01443537)")
    assert words_of(("cat", "dog"), {}).titles(("cat", "dog")) == ("cat", "dog")


def test_real_classes_of_tiny_imagenet_have_the_words_beside_them(cifar10_path: Path) -> None:
    folder = cifar10_path.parent / "tiny-imagenet-50"
    if not folder.is_dir():
        pytest.skip(f"no {folder}; set DISTILL_TEST_DATA to run this test")
    rows = [line.split("\t") for line in (folder / "classes.tsv").read_text().splitlines()]
    names = [wnid for wnid, _ in rows]
    found = find_words(data_config(folder, format="parquet", num_classes=50), names)
    assert len(rows) == 50
    assert dict(found.words) == {wnid: " ".join(words.split()) for wnid, words in rows}


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe\x00", b"[", b'{"n01440764": 3}', b"[1, 2]", b"3", b"\t\t\n\n", b"[" * 100_000],
)
@pytest.mark.parametrize("file", list(FILES))
def test_a_damaged_file_names_nothing(
    file: str, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_timm(monkeypatch)
    assert words_of(NAMES, {file: content}).words == {}


def test_long_names_and_control_characters_are_cut_out(monkeypatch: pytest.MonkeyPatch) -> None:
    without_timm(monkeypatch)
    text = f"n01440764\t\x1b[31mred\x07 {'x' * 999}\nn01443537\t, comma first\n"
    found = words_of(NAMES, {"words.txt": text.encode()})
    assert found.words["n01440764"].startswith("[31mred xxx")
    assert len(found.words["n01440764"]) < MAX_WORDS
    assert len(found.title("n01440764")) == SHOWN + len(" (n01440764)")
    assert found.title("n01443537") == "n01443537"
    assert ClassWords({"cat": "cat"}).title("cat") == "cat"


def test_a_dataset_that_is_away_has_no_words_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_timm(monkeypatch)
    assert find_words(data_config(tmp_path / "gone"), NAMES).words == {}
    assert find_words(data_config(None, format="digits"), NAMES).words == {}
    assert find_words(data_config(image_folder(tmp_path)), ("cat", "dog")).words == {}
