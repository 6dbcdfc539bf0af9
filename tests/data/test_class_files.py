"""Class lists of other programs are read, or refused by name; none becomes a prompt in silence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from data.set_files import write
from hypothesis import given
from hypothesis import strategies as st
from refusals import refusal

from tpt.data.class_files import note_list, read_class_list
from tpt.data.class_lists import list_names
from tpt.errors import SourceError
from tpt.text import drop_invisible, fold


def names_of(text: str | bytes, path: str = "list.txt") -> tuple[str, ...]:
    return list_names(read_class_list(write(path, text)))


def message_of(value: str) -> str:
    return refusal(SourceError, read_class_list, value)


@pytest.mark.parametrize(
    "text",
    [
        '["cat", "dog"]',
        '{"0": "cat", "1": "dog"}',
        '{"10": "dog", "9": "cat"}',
        '{"cat": 0, "dog": 1}',
        '{"0": ["n02123045", "cat"], "1": ["n02085620", "dog"]}',
        '{"n02123045": "cat", "n02085620": "dog"}',
        '{"id2label": {"0": "cat", "1": "dog"}, "label2id": {"cat": 0, "dog": 1}, "size": 3}',
        '{"categories": [{"id": 3, "name": "cat", "color": 1}, {"id": 7, "name": "dog"}]}',
        '[["n02123045", "cat"], ["n02085620", "dog"]]',
        "n02123045 cat\nn02085620 dog\n",
        "n02123045\tcat\nn02085620\tdog\n",
        "n02123045: cat\nn02085620: dog\n",
        "n02123045,cat\nn02085620,dog\n",
        "n02123045=cat\nn02085620=dog\n",
        '0: "cat"\n1: "dog"\n',
        "0: cat\n1: dog",
        "3: cat\n90: dog",
        "0 cat\n1 dog",
        "1. cat\n2. dog",
        "1) cat\n2) dog",
        "0,cat\n1,dog",
        "0\tcat\n1\tdog",
        "cat 0\ndog 1",
        "cat,0\ndog,1",
        "cat=0\ndog=1",
        "id,name\n0,cat\n1,dog",
        "name,id\ncat,0\ndog,1",
        "label,name\n0,cat\n1,dog",
        ",class_name\n0,cat\n1,dog",
        "id;name\r\n0;cat\r\n1;dog\r\n",
        "index\tlabel\n0\tcat\n1\tdog",
        'class_id,class_name\n0,"cat"\n1,"dog"',
        "cat, dog",
        '"cat","dog"',
        '"cat"\n"dog"\n',
        "'cat',\n'dog',\n",
        "cat,\ndog",
        "- cat\n- dog\n",
        "\ufeffcat\r\ndo\u200bg\r\n",
    ],
)
def test_lists_of_other_programs_are_read(text: str) -> None:
    assert names_of(text) == ("cat", "dog")
    if "\r" not in text and "\ufeff" not in text:
        assert list_names(read_class_list(text)) == ("cat", "dog")  # on the command line


def test_a_table_of_one_column_is_read_where_it_is_called_one() -> None:
    assert names_of("name\ncat\ndog\n", "list.csv") == ("cat", "dog")


def test_a_name_may_hold_commas_where_it_is_told_apart() -> None:
    for text in ('cat\n"dog, wild"\n', '["cat", "dog, wild"]', '"cat","dog, wild"'):
        assert names_of(text) == ("cat", "dog, wild")
    assert note_list(["cat", "dog, wild"], None) == (
        "1 class name holds a comma: each is taken for one name: dog, wild.",
    )


@pytest.mark.parametrize(
    "value", ["7 up,cola", "grade 0,grade 1", "2012 Audi,2013 BMW", "cat (wild),dog [tame]", "0,1"]
)
def test_names_with_numbers_stay_names(value: str) -> None:
    assert list_names(read_class_list(value)) == tuple(value.split(","))


def test_word_net_ids_alone_are_named() -> None:
    assert read_class_list("n02123045,n02085620") == ("n02123045=tabby cat", "n02085620=Chihuahua")
    assert read_class_list("ImageNet") == ("imagenet",)
    assert len(list_names(("imagenet",))) == 1000
    assert len(list_names(("imagenet-r",))) == 200


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("names:\n  0: cat\n  1: dog\n", "is a line of YAML"),
        ("names: [cat, dog]\nnc: 2\n", "is a line of YAML"),
        ("0: cat\ndog\n", "holds a number and a name; expected that of all classes or of none"),
        ("n02123045 cat\ndog\n", "holds a WordNet id"),
        ("n99999999\ncat\n", "holds a WordNet id"),
        ("# pets\ncat\n", "is a comment"),
        ("cat; dog\n", "holds several names"),
        ("cat|dog", "holds several names"),
        ("cat\tdog\n", "holds several names"),
        ("cat,feline\ndog,canine\n", "holds a comma, as every line does"),
        ("cat: a pet\ndog: another\n", "holds a colon, as every line does"),
        ("cat\\ndog\\ncup\n", "holds a line break or a tab as two letters"),
        ("item {\n  id: 1\n}", "holds brackets of a file format"),
        ("<name>cat</name>\n<name>dog</name>", "holds brackets of a file format"),
        ('names = ["cat", "dog"]', "holds brackets of a file format"),
        ("['cat', 'dog']", "begins like JSON but is none"),
        ("{0: 'cat'}", "begins like JSON but is none"),
        ('{"a": "cat", "a": "dog"}', "begins like JSON but is none (a key comes twice)"),
        ("[" * 100_000, "begins like JSON but is none"),
        ('{"cat": ["furry", "small"], "dog": ["loud", "big"]}', "is JSON, but no list of class"),
        ('["cat", null]', "is JSON, but no list of class names"),
        ("[1, 2]", "is JSON, but no list of class names"),
        ('["cat", ""]', 'Class 2 of "list.txt" is empty'),
        ("[]", "The list of classes is empty"),
        ('["a=b", "c"]', 'holds "=", which stands between an id and a name here'),
        ("name\ncat\ndog\n", 'The first line of "list.txt", "name", looks like the title'),
        ("path,label\na.jpg,cat\n", "is a table with the columns path, label; expected a list of"),
        ("a=\ncat\n", "lacks a name"),
        ("cat\0dog", "is no text"),
        ("cat\ndog".encode("utf-16"), "cannot be read as UTF-8 text"),
        ("café".encode("latin-1"), "cannot be read as UTF-8 text"),
        (b"a\n" * 8_000_001, "is larger than 16 MB"),
    ],
)
def test_other_forms_are_refused_by_name(text: str | bytes, words: str) -> None:
    assert words in message_of(write("list.txt", text))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("cat;dog;cup", "Class name 1 ('cat;dog;cup') holds several names; expected commas"),
        (
            "imagenet1k",
            'is the name of a data set whose class list is not kept here. Did you mean "i',
        ),
        ("CIFAR-10", '"CIFAR-10" is the name of a data set'),
        ("oxford_pets", '"oxford_pets" is the name of a data set'),
        ("names.yaml", 'There is no class file "names.yaml"'),
        ("@there.txt", 'Did you mean "there.txt"?'),
        ("folder", '"folder" is a folder; expected class names'),
        ("<cat>,dog", "holds brackets of a file format"),
    ],
)
def test_words_on_the_command_line_are_refused_by_name(value: str, words: str) -> None:
    Path("there.txt").write_text("cat\n")
    Path("folder").mkdir(exist_ok=True)
    assert words in message_of(value)


@pytest.mark.parametrize(
    "names",
    [
        ("cat", "\uff23\uff21\uff34"),
        ("rock 'n' roll", "rock \u2019n\u2019 roll"),
        ("salt & pepper", "salt &amp; pepper"),
        ("caf\u00e9", "cafe\u0301"),
        ("cat", "ca\u200bt"),
        ("polar_bear", "Polar  bear"),
        ("\ufb01sh", "fish"),
    ],
)
def test_two_spellings_of_one_name_are_refused(names: tuple[str, str]) -> None:
    assert fold(names[0]) == fold(names[1])
    assert "is the same prompt as name 1" in message_of(",".join(names))


def test_names_that_the_tokenizer_tells_apart_are_two() -> None:
    assert read_class_list("Masse,Ma\u00dfe") == ("Masse", "Ma\u00dfe")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (
            ["n02085620-Chihuahua", "n02085782-Spaniel"],
            "2 class names begin with a number or an id",
        ),
        (
            ["001.Black_footed_Albatross", "002.Laysan"],
            "2 class names begin with a number or an id",
        ),
        (["nan", "cat"], "1 class name is what programs write where a label is missing"),
        (["cat"], 'There is one class, "cat"'),
        (["0", "1"], "The class names are numbers"),
    ],
)
def test_doubtful_names_are_told(names: list[str], words: str) -> None:
    (note,) = note_list(names, None)
    assert words in note
    assert note_list(["cat", "7-up"], None) == ()


def test_entries_of_one_name_are_told_to_be_one_class() -> None:
    entries = read_class_list('{"0": "crane", "1": "crane", "2": "cat"}')
    assert note_list(list_names(entries), entries) == (
        "The list has 3 entries but 2 classes: entries of one name are one class.",
    )


# --- any list ---

plain_names = st.lists(
    st.text("abcdefgh\u00e9\u732b '()-.", min_size=1, max_size=12).filter(
        lambda name: (
            fold(name) and not name.strip().startswith(("-", "'")) and name.strip()[-1:] != "'"
        )
    ),
    min_size=2,
    max_size=6,
    unique_by=fold,
)


@given(plain_names)
def test_names_come_out_of_every_form_as_they_went_in(names: list[str]) -> None:
    expected = tuple(name.strip() for name in names)
    numbered = {str(number): name for number, name in enumerate(names)}
    for text in (
        "\n".join(names),
        json.dumps(names),
        json.dumps(numbered),
        "id,name\n" + "\n".join(f'{number},"{name}"' for number, name in numbered.items()),
        "\n".join(f"{number}: {name}" for number, name in numbered.items()),
    ):
        assert names_of(text) == expected


@given(st.text(max_size=60))
def test_any_text_is_a_list_of_names_or_one_sentence(text: str) -> None:
    for value in (text, "list.txt"):
        Path("list.txt").write_text(text, encoding="utf-8", errors="replace", newline="")
        if "\0" in value or len(value.encode("utf-8", "replace")) > 200:
            continue
        try:
            names = list_names(read_class_list(value))
        except SourceError:
            continue
        assert names
        assert all(fold(name) for name in names)
        assert len(set(map(fold, names))) == len(names) or len(names) in (200, 1000)
        assert names == tuple(map(drop_invisible, names))
