"""Files and overrides that are no config: each is refused in one line, at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill_core.config.load import load_run, to_yaml
from distill_core.config.parsing import MAX_YAML_BYTES, MAX_YAML_VALUES, parse_yaml
from distill_core.errors import MAX_LINE, ConfigError

LAUGHS = "a0: &a0 [x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30)
)
MALFORMED = {
    "an impossible date": (b"ipc: 2001-99-99", "2001-99-99"),
    "a word tagged as a number": (b"ipc: !!int abc", "'abc' is not a valid int"),
    "a word tagged as a truth": (b"ipc: !!bool abc", "'abc' is not a valid bool"),
    "a word tagged as a date": (b"ipc: !!timestamp abc", "'abc' is not a valid timestamp"),
    "a number tagged as a list": (b"ipc: !!seq 5", "expected a sequence node"),
    "a call": (b"ipc: !!python/object/apply:os.getcwd []", "invalid YAML"),
    "an unknown tag": (b"ipc: !mine 5", "invalid YAML"),
    "brackets": (b"[" * 400, "more than 20 levels of nesting (line 1, column 21)"),
    "braces": (b"{a: " * 400, "more than 20 levels"),
    "dashes": (b"- " * 400, "more than 20 levels"),
    "one brace": (b"{", "invalid YAML"),
    "two documents": (b"ipc: 1\n---\nipc: 2", "single document"),
    "a number of 5,000 digits": (b"ipc: " + b"9" * 5000, "is not a valid int"),
    "a number of 5,000 hex digits": (
        b"extends: digits-demo\nipc: 0x" + b"f" * 5000,
        "a number of 20000 bits",
    ),
    "another file's number": (b"extends: 5", "extends = 5: expected the name of a preset"),
    "another file's list": (b"extends: [cda-cifar10]", "extends = ['cda-cifar10']"),
    "latin-1": ("source: gr\xfcn".encode("latin-1"), "byte 10 is not UTF-8"),
    "UTF-16": ("ipc: 5".encode("utf-16"), "byte 0 is not UTF-8"),
    "a NUL": (b"ipc: \0", "special characters are not allowed"),
    "an escape": (b"ipc: \x1b[31m", "special characters are not allowed"),
    "a billion laughs": (LAUGHS.encode(), "aliases repeat more than"),
    "an alias of itself": (b"ipc: &a [*a]", "an alias leads back to itself"),
    "a merge of itself": (b"ipc: &a {b: *a}", "an alias leads back to itself"),
    "an unknown alias": (b"ipc: *a", "undefined alias"),
    "60,000 keys": (b"".join(b"k%d: 1\n" % n for n in range(20_000)), "more than 10000 keys"),
    "duplicate keys": (b"ipc: 1\nipc: 2", "duplicate key 'ipc' (line 2, column 1)"),
    "duplicate keys in a part": (b"data:\n  a: 1\n  b: 2\n  a: 3", "'a' (line 4, column 3)"),
    "duplicate keys in different spelling": (b"ipc: 1\n'ipc': 2", "duplicate key 'ipc'"),
    "a list as key": (b"? [a, b]\n: 1", "expected a word"),
    "a number as key": (b"5: 1", "5: no such key"),
    "a key on several lines": (b'"a\\nb\\x1b": 1', "no such key"),
    "nothing": (b"", "empty, expected a YAML mapping"),
    "a comment": (b"# nothing", "empty, expected a YAML mapping"),
    "a list": (b"- 1", "a list, expected a YAML mapping"),
    "a text": (b"ipc=5", "a str, expected a YAML mapping"),
    "a megabyte": (b"# " + b"x" * 2**20, f"at most {MAX_YAML_BYTES} expected"),
}


def refusal(name: str, *overrides: str) -> str:
    """Return the message that refuses a config."""
    with pytest.raises(ConfigError) as caught:
        load_run(name, overrides)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < MAX_LINE
    return text


@pytest.mark.parametrize(("content", "words"), MALFORMED.values(), ids=MALFORMED)
def test_a_file_that_is_no_config_is_refused_in_one_line(
    tmp_path: Path, content: bytes, words: str
) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(content)
    text = refusal(str(path))
    assert str(path) in text
    assert words in text


def test_a_byte_order_mark_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(b"\xef\xbb\xbfextends: digits-demo\nipc: 3\n")
    assert load_run(str(path)).ipc == 3


KEY_OF_AWS = "wJalrXUtnFEMI/K7MDENGbPxRfiCYSEKRETKEY12"  # 40 characters, one of them a slash
WRONG_YAML = (
    "data: {{path: {} ]",
    "data: {{path: {}, name: [",
    'data: "{}',
    "{}: a: b",
    "ipc: [{}}}",
    "a: *x {}",
    "a: {} @",
    "a: !mine {}",
    "a: !<{}> b",
    "a: b\n{}\nc: @",
    "? {}\n @",
)


@pytest.mark.parametrize("pattern", WRONG_YAML)
@pytest.mark.parametrize("blanks", [0, 20, 37, 64, 90])
def test_no_part_of_a_secret_is_in_the_message_about_wrong_yaml(
    tmp_path: Path, pattern: str, blanks: int
) -> None:
    """A snippet of the line would begin anywhere, so that no rule could recognise the rest."""
    path = tmp_path / "run.yaml"
    url = f"s3://AKUSERX:{KEY_OF_AWS}@{'b' * (blanks // 4 + 3)}/x"
    path.write_text(pattern.format(" " * blanks + url))
    for text in (refusal(str(path)), refusal("digits-demo", f"data.path={path.read_text()}")):
        parts = (KEY_OF_AWS[start : start + 5] for start in range(len(KEY_OF_AWS) - 5))
        assert [part for part in parts if part in text] == []


def test_the_message_about_wrong_yaml_has_the_place(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("ipc: 5\ndata: {path: x ]\n")
    assert refusal(str(path)).endswith("got ']' (line 2, column 16).")


def test_paths_that_are_no_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    assert "a folder, expected a file" in refusal(str(tmp_path / "folder.yaml"))
    assert "no such file" in refusal(str(tmp_path / "missing.yaml"))
    assert "cannot be read" in refusal("x" * 300 + ".yaml")
    assert "ends in .yaml" in refusal(str(tmp_path / "run.json"))


def test_only_the_start_of_an_endless_file_is_read(tmp_path: Path) -> None:
    with (tmp_path / "run.yaml").open("wb") as file:
        file.truncate(2**40)
    assert "bytes of YAML" in refusal(str(tmp_path / "run.yaml"))


@pytest.mark.parametrize(
    "address",
    [
        "https://user:SEKRETpw@host/x.yaml",
        "https:/user:SEKRETpw@host/x.yaml",
        "s3://AKUSERX:SEKRET/pw@bucket/x.yml",
        "s3://AKUSERX:SEKRETpw@bucket/x",
        "https://host/x.yaml?token=SEKRETpw",
        "user:SEKRETpw@host/x.yaml",
    ],
)
def test_an_address_of_a_config_with_credentials_is_not_repeated(
    tmp_path: Path, address: str
) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(f"extends: {address}\n")
    for text, key in ((refusal(str(path)), "extends"), (refusal(address), "preset")):
        assert text.startswith(f"{key}: the address contains credentials")
        assert "SEKRET" not in text


def test_a_file_is_named_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("extends: https://host//x.yaml\n")
    assert refusal(str(path)).startswith("https://host//x.yaml: no such file.")


def test_files_that_extend_each_other_are_refused(tmp_path: Path) -> None:
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text(f"extends: {two}\n")
    two.write_text(f"extends: {one}\n")
    assert "extends itself" in refusal(str(one))


def test_a_file_that_extends_itself_by_another_spelling_is_refused(tmp_path: Path) -> None:
    """The path grows by one folder each time, so no name comes twice."""
    (tmp_path / "a").mkdir()
    link = tmp_path / "a" / "a"
    link.symlink_to(tmp_path / "a")
    for number in range(40):
        deeper = tmp_path / ("a/" * (number + 2))
        (tmp_path / "a" / f"r{number}.yaml").write_text(f"extends: {deeper}/r{number + 1}.yaml\n")
    assert "extends itself" in refusal(str(tmp_path / "a" / "r0.yaml"))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("ipc=" + "[" * 400, "ipc: invalid YAML: more than 20 levels"),
        ("ipc=2001-99-99", "ipc: invalid YAML"),
        ("ipc=2001-01-01", "ipc = datetime.date(2001, 1, 1)"),
        ("ipc=!!int abc", "ipc: invalid YAML"),
        (".".join("a" * 5000) + "=1", "at most 20 expected"),
        ("recover." + ".".join("a" * 15) + "=1", "recover.a: no such key"),
        ("squeeze.checkpoint." + ".".join("a" * 15) + "=1", "squeeze.checkpoint ="),
        ("ipc=" + "x" * 100_000, "ipc = 'xxx"),
        ("x" * 1000 + "=1", "no such key"),
        ("=1", "dotted.key=value"),
        ("..=1", "no such key"),
        ("recover.lr=0x" + "f" * 4000, "recover.lr"),
        ("recover.lr=1e999", "recover.lr = '1e999'"),
        ("data.path=5", "data.path = 5"),
        ("data={}", "data.name: missing"),
        ("data=null", "data = None"),
    ],
)
def test_an_override_that_is_no_value_is_refused_in_one_line(override: str, words: str) -> None:
    assert words in refusal("digits-demo", override)


def test_many_values_cost_no_more_than_they_are() -> None:
    """Duplicates were found by counting every key once per key, which took minutes."""
    keys = "".join(f"k{number}: 1\n" for number in range(MAX_YAML_VALUES // 2 - 1))
    assert len(parse_yaml(keys, where="keys")) == MAX_YAML_VALUES // 2 - 1


def test_an_alias_stands_for_its_value() -> None:
    assert parse_yaml("a: &x {b: 1}\nc: *x", where="alias") == {"a": {"b": 1}, "c": {"b": 1}}


def test_yaml_reads_back_every_word_of_a_config() -> None:
    run = load_run("digits-demo", ["source='off: [x] {y} \"z\" & *w'"])
    assert parse_yaml(to_yaml(run), where="shown") == run.model_dump(mode="json")
