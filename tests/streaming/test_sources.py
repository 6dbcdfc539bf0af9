"""Sources expand to the right paths in the right order, and an empty one says what to do."""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from listing import expand_sources, list_folder
from PIL import Image

from tpt.errors import SourceError
from tpt.images import _files
from tpt.streaming import sources
from tpt.streaming.folders import IMAGE_EXTENSIONS, Search, walk_images
from tpt.streaming.sources import find_listed, find_sources, is_live

ODD_NAMES = ["a b.png", "it's.png", 'say "x".png', "new\nline.png", "tab\t.png", "猫é.png", "#.png"]
unix_names = pytest.mark.skipif(
    sys.platform in ("darwin", "win32"), reason="names there are always Unicode"
)


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def touch(*paths: str) -> None:
    """Make empty files: nothing here opens an image."""
    for path in paths:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch()


def byte_stdin(data: bytes) -> io.TextIOWrapper:
    """Like the real stdin in a strict locale."""
    return io.TextIOWrapper(io.BytesIO(data), encoding="ascii")


def message_of(*names: str, recursive: bool = False, stdin: str | None = None) -> str:
    """The message of the SourceError, checked to be one full line."""
    stream = None if stdin is None else io.StringIO(stdin)
    with pytest.raises(SourceError) as caught:
        expand_sources(names, recursive=recursive, stdin=stream)
    message = str(caught.value)
    assert message.isprintable()
    assert message.endswith((".", "?"))
    return message


# --- files ---


def test_files_in_the_order_given() -> None:
    touch("b.png", "a.png", "notes.txt")
    assert expand_sources(["b.png", "notes.txt", "a.png"]) == ["b.png", "notes.txt", "a.png"]


def test_paths_stay_as_given() -> None:
    touch("pics/a.png")
    absolute = os.path.abspath("pics")
    assert expand_sources(["./pics/a.png"]) == ["./pics/a.png"]
    assert expand_sources([absolute]) == [os.path.join(absolute, "a.png")]
    assert expand_sources(["pics/"]) == ["pics/a.png"]
    assert expand_sources(["."], recursive=True) == ["./pics/a.png"]


def test_a_path_reached_twice_is_kept_at_its_first_place() -> None:
    touch("pics/1.png", "pics/2.png", "pics/3.png")
    Path("list.txt").write_text("pics/1.png\npics//2.png\n")
    paths = expand_sources(["./pics/2.png", "pics", "pics/../pics/3.png", "pics/*", "@list.txt"])
    assert paths == ["./pics/2.png", "pics/1.png", "pics/3.png"]


@pytest.mark.parametrize("name", ["@list.txt", "a*.png", "photo[1].png", "what?.png", "-x"])
def test_an_existing_file_wins_over_a_meaning(name: str) -> None:
    touch(name, "list.txt", "abc.png", "photo1.png", "whats.png")
    assert expand_sources([name]) == [name]


def test_a_file_called_dash() -> None:
    touch("-")
    assert expand_sources(["./-"]) == ["./-"]


# --- folders ---


def test_folder_in_natural_order() -> None:
    touch(*(f"pics/{name}" for name in ["10.png", "9.png", "B.jpg", "a.jpg", "c1.JPG", "C02.jpg"]))
    names = ["9.png", "10.png", "a.jpg", "B.jpg", "c1.JPG", "C02.jpg"]
    assert expand_sources(["pics"]) == [f"pics/{name}" for name in names]


def test_a_copy_follows_its_original() -> None:
    touch("pics/cat (2).jpg", "pics/cat.jpg", "pics/cat (10).jpg")
    names = ["cat.jpg", "cat (2).jpg", "cat (10).jpg"]
    assert expand_sources(["pics"]) == [f"pics/{name}" for name in names]


def test_order_does_not_depend_on_the_file_system(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["A.jpg", "a.jpg", "1.jpg", "01.jpg", "é.jpg", "e\u0301.jpg", "E.jpg"]
    touch(*(f"pics/{name}" for name in names))
    before = expand_sources(["pics"])
    real = os.scandir

    class Backwards:
        def __init__(self, path: str) -> None:
            self.entries = list(real(path))[::-1]

        def __enter__(self) -> Iterable[os.DirEntry[str]]:
            return self.entries

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(os, "scandir", Backwards)
    assert expand_sources(["pics"]) == before


def test_folder_keeps_images_only() -> None:
    touch("pics/a.JPeG", "pics/b.webp", "pics/c.tiff", "pics/d.avif", "pics/e.pgm", "pics/f.heic")
    touch("pics/.hidden.jpg", "pics/._a.jpg", "pics/notes.txt", "pics/jpg", "pics/x.jpg.part")
    touch("pics/folder.jpg/inside.jpg")
    found = [os.path.basename(path) for path in expand_sources(["pics"])]
    assert found == ["a.JPeG", "b.webp", "c.tiff", "d.avif", "e.pgm", "f.heic"]


def test_extensions_are_those_that_decode_reads() -> None:
    by_plugin = {".heic", ".heif", ".hif", ".jxl"}
    known = Image.registered_extensions()
    for extension in IMAGE_EXTENSIONS - by_plugin:
        assert known[extension] in (*_files.FORMATS, "MPO"), extension


def test_recursive_walks_in_natural_order() -> None:
    touch("d/z.png", "d/10/a.png", "d/9/a.png", "d/9/x/b.png", "d/9/.git/c.png", "d/B/a.png")
    assert expand_sources(["d"], recursive=True) == [
        *("d/z.png", "d/9/a.png", "d/9/x/b.png", "d/10/a.png", "d/B/a.png")
    ]
    assert expand_sources(["d"]) == ["d/z.png"]


def test_symlink_loops_end() -> None:
    touch("d/a/1.png")
    os.symlink("..", "d/a/up")
    os.symlink(".", "d/here")
    os.symlink("self", "d/self")
    assert expand_sources(["d"], recursive=True) == ["d/a/1.png"]
    assert expand_sources(["d/**/*.png"]) == ["d/a/1.png"]
    assert "Add --recursive" in message_of("d")


def test_linked_folders_are_followed() -> None:
    touch("far/1.png")
    os.mkdir("d")
    os.symlink("../far", "d/near")
    assert expand_sources(["d"], recursive=True) == ["d/near/1.png"]


def test_broken_link_is_listed() -> None:
    """It becomes an error record: better than a gap that nobody sees."""
    os.mkdir("d")
    os.symlink("gone.png", "d/link.png")
    assert expand_sources(["d"]) == ["d/link.png"]


def test_deep_folders() -> None:
    path = "d"
    for _ in range(300):
        path = os.path.join(path, "x")
    touch(os.path.join(path, "a.png"))
    assert expand_sources(["d"], recursive=True) == [os.path.join(path, "a.png")]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_everywhere(name: str) -> None:
    touch(f"pics/{name}")
    path = f"pics/{name}"
    assert expand_sources([path]) == [path]
    assert expand_sources(["pics"]) == [path]
    assert expand_sources(["pics/*.png"]) == [path]
    assert expand_sources(["-"], stdin=byte_stdin(path.encode() + b"\0")) == [path]


@unix_names
def test_names_that_are_not_utf8() -> None:
    raw = b"pics/caf\xe9.png"
    name = os.fsdecode(raw)
    touch(name)
    Path("list.txt").write_bytes(raw + b"\n")
    assert expand_sources(["pics"]) == [name]
    assert expand_sources(["pics/*"]) == [name]
    assert expand_sources(["@list.txt"]) == [name]
    assert expand_sources(["-"], stdin=byte_stdin(raw + b"\n")) == [name]
    assert os.path.exists(expand_sources(["@list.txt"])[0])


def test_empty_folder() -> None:
    touch("pics/notes.txt")
    message = message_of("pics")
    assert "The folder 'pics' holds no images: expected files ending in .jpg" in message
    assert "holds no images: expected" in message_of("pics", recursive=True)


def test_images_only_in_subfolders() -> None:
    touch("pics/a/b/1.png")
    message = message_of("pics")
    assert "'pics' holds no images itself, but its sub-folders do. Add --recursive" in message
    assert expand_sources(["pics"], recursive=True) == ["pics/a/b/1.png"]


def test_unreadable_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: str) -> None:  # chmod does not stop root, who runs many a CI
        raise PermissionError(13, "Permission denied")

    os.mkdir("pics")
    monkeypatch.setattr(os, "scandir", refuse)
    assert "The folder 'pics' cannot be read (Permission denied). Give" in message_of("pics")


# --- folders, for those who know what is inside ---


def test_list_folder_gives_images_and_folders_apart() -> None:
    touch("d/10.png", "d/9.JPG", "d/notes.txt", "d/.hidden.png", "d/.git/x.png")
    touch("d/b10/x.png", "d/b9/x.png", "d/A/notes.txt", "d/c.png/x.png")
    folders = ["d/A", "d/b9", "d/b10", "d/c.png"]
    assert list_folder("d") == (["d/9.JPG", "d/10.png"], folders)
    assert list_folder("d/A") == ([], [])


def test_list_folder_joins_paths_to_the_folder_as_given() -> None:
    touch("a.png", "d/b.png")
    assert list_folder("") == (["a.png"], ["d"])
    assert list_folder(".") == (["./a.png"], ["./d"])
    assert list_folder("d/") == (["d/b.png"], [])


def test_list_folder_follows_links_and_keeps_broken_ones() -> None:
    touch("far/1.png")
    os.mkdir("d")
    os.symlink("../far", "d/near")
    os.symlink("gone.png", "d/link.png")
    os.symlink("self", "d/self")
    assert list_folder("d") == (["d/link.png"], ["d/near"])


@pytest.mark.parametrize("read", [list_folder, walk_images])
def test_a_folder_that_cannot_be_read(read: Callable[[str], object]) -> None:
    touch("file.png")
    for path, why in [("none", "No such file or directory"), ("file.png", "Not a directory")]:
        with pytest.raises(SourceError) as caught:
            read(path)
        assert str(caught.value) == (
            f"The folder '{path}' cannot be read ({why}). Give this user the right to read it, or "
            "name other folders."
        )


def test_walk_images_goes_all_the_way_down_in_natural_order() -> None:
    touch("d/z.png", "d/10/a.png", "d/9/a.png", "d/9/x/b.png", "d/9/.git/c.png", "d/9/notes.txt")
    assert walk_images("d") == ["d/z.png", "d/9/a.png", "d/9/x/b.png", "d/10/a.png"]
    assert walk_images("d/9/x") == ["d/9/x/b.png"]


def test_walk_images_of_a_folder_without_any_is_an_empty_list() -> None:
    touch("d/notes.txt", "d/e/.hidden.png")
    assert walk_images("d") == []


def test_walk_images_ends_on_link_loops() -> None:
    touch("d/a/1.png")
    os.symlink("..", "d/a/up")
    assert walk_images("d") == ["d/a/1.png"]


# --- names that do not exist ---


@pytest.mark.parametrize("wrong", ["pics/cta.png", "pics/CAT.PNG", "pics/cat.pgn"])
def test_missing_path_has_suggestions(wrong: str) -> None:
    touch("pics/cat.png", "pics/holiday.jpeg")
    message = message_of(wrong)
    assert f"The source '{wrong}' does not exist: expected a file, a folder, a glob" in message
    assert message.endswith('Did you mean "cat.png"?')


def test_missing_folder_has_suggestions() -> None:
    touch("photos/cat.png")
    assert message_of("phots/").endswith('Did you mean "photos"?')


def test_missing_path_without_a_neighbour() -> None:
    assert message_of("x.png").endswith("Check the spelling.")
    assert 'Its folder "no/such" cannot be listed either.' in message_of("no/such/x.png")
    assert "The source '' does not exist" in message_of("")


def test_suggestions_keep_to_one_line() -> None:
    touch("new\nline.png")
    assert "Did you mean" not in message_of("new line.png")


def test_a_dangling_link_named_outright_is_missing() -> None:
    os.symlink("gone.png", "link.png")
    assert "'link.png' does not exist" in message_of("link.png")


def test_nothing_named() -> None:
    assert message_of().startswith("No images were named: expected files, folders")


# --- glob patterns ---


def test_glob_in_natural_order_as_they_are() -> None:
    touch("p/10.png", "p/9.png", "p/1.txt", "p/.hidden.png")
    assert expand_sources(["p/*"]) == ["p/1.txt", "p/9.png", "p/10.png"]
    assert expand_sources(["p/[19]*.png"]) == ["p/9.png", "p/10.png"]
    assert expand_sources(["*/9.???"]) == ["p/9.png"]


def test_glob_of_folders_expands_them() -> None:
    touch("d/2/b.png", "d/10/a.png", "d/2/notes.txt", "d/empty/notes.txt")
    assert expand_sources(["d/*"]) == ["d/2/b.png", "d/10/a.png"]
    assert expand_sources(["d/*/"]) == ["d/2/b.png", "d/10/a.png"]


def test_double_star() -> None:
    touch("1.png", "d/10.png", "d/9.png", "d/a/x.png", "d/a/.git/y.png", "d/a/b/x.txt", "e/x.png")
    everywhere = ["d/9.png", "d/10.png", "d/a/x.png"]
    assert expand_sources(["d/**/*.png"]) == everywhere
    assert expand_sources(["**/*.png"]) == ["1.png", *everywhere, "e/x.png"]
    assert expand_sources(["d/**"]) == everywhere
    assert expand_sources(["d/**/"]) == everywhere
    assert expand_sources(["./**/x.*"]) == ["./d/a/b/x.txt", "./d/a/x.png", "./e/x.png"]
    assert expand_sources(["**/a/**/x.*"]) == ["d/a/b/x.txt", "d/a/x.png"]
    absolute = os.getcwd()
    assert expand_sources([f"{absolute}/e/**/x.png"]) == [f"{absolute}/e/x.png"]


def test_double_star_in_a_folder_with_magic_in_its_name() -> None:
    touch("d/[x]*/1.png")
    assert expand_sources(["d/**/*.png"]) == ["d/[x]*/1.png"]


def test_glob_with_nested_images_only() -> None:
    touch("d/a/b/1.png", "d/c/2.png")
    assert "'d/a' holds no images itself, but its sub-folders do. Add --rec" in message_of("d/*")
    assert expand_sources(["d/*"], recursive=True) == ["d/a/b/1.png", "d/c/2.png"]


@pytest.mark.parametrize("pattern", ["*.png", "no/*.png", "no/**/*.png", "photo[1].png"])
def test_glob_without_match(pattern: str) -> None:
    message = message_of(pattern)
    assert f"The pattern '{pattern}' matches nothing, and no file has that name." in message


def test_glob_of_empty_folders() -> None:
    touch("d/a/notes.txt")
    assert "The pattern 'd/*' matches only folders, and they hold no images" in message_of("d/*")


# --- lists ---


@pytest.mark.parametrize(
    "data",
    [
        b"a.png\nsub/b c.png\n",
        b"a.png\nsub/b c.png",
        b"\n\na.png\n   \nsub/b c.png\n\n",
        b"a.png\r\nsub/b c.png\r\n",
        b"\xef\xbb\xbfa.png\r\n\r\nsub/b c.png\r\n",
        b"a.png\0sub/b c.png\0",
    ],
)
def test_lists(data: bytes) -> None:
    """The paths need not exist: a missing one becomes an error record."""
    Path("list.txt").write_bytes(data)
    expected = ["a.png", "sub/b c.png"]
    assert expand_sources(["@list.txt"]) == expected
    assert expand_sources(["-"], stdin=byte_stdin(data)) == expected
    text = io.StringIO(data.decode("utf-8"), newline="")
    assert expand_sources(["-"], stdin=text) == expected


def test_list_keeps_odd_names() -> None:
    names = [" a.png ", "@x", "*.png", "-", "#1.png", "line\u2028sep.png", "feed\x0c.png", "猫.png"]
    Path("list.txt").write_text("\n".join(names), encoding="utf-8")
    assert expand_sources(["@list.txt"]) == names


def test_nul_separated_names_hold_newlines() -> None:
    data = b"new\nline.png\0cr\r\0"
    assert expand_sources(["-"], stdin=byte_stdin(data)) == ["new\nline.png", "cr\r"]


def test_list_does_not_expand_folders() -> None:
    touch("pics/a.png")
    Path("list.txt").write_text("pics\n")
    assert expand_sources(["@list.txt"]) == ["pics"]


def test_list_is_relative_to_the_current_folder() -> None:
    touch("lists/a.png")
    Path("lists/list.txt").write_text("a.png\n")
    assert expand_sources(["@lists/list.txt"]) == ["a.png"]


def test_real_stdin_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources.sys, "stdin", byte_stdin(b"a.png\n"))
    assert expand_sources(["-"]) == ["a.png"]


@pytest.mark.parametrize("text", ["", "\n \n", "\ufeff", "\0\0"])
def test_empty_lists(text: str) -> None:
    Path("list.txt").write_text(text, encoding="utf-8")
    assert "The list file 'list.txt' names no images: expected a path a line" in message_of(
        "@list.txt"
    )
    assert "The source - (stdin) named no images: expected a path a line" in message_of(
        "-", stdin=text
    )


def test_missing_list() -> None:
    touch("lists/list.txt")
    message = message_of("@lists/lst.txt")
    assert "The list file 'lists/lst.txt' cannot be read (No such file or directory)" in message
    assert message.endswith('Did you mean "list.txt"?')
    assert "The list file '' cannot be read" in message_of("@")


def test_list_that_is_a_folder() -> None:
    os.mkdir("pics")
    assert "The list file 'pics' cannot be read (Is a directory)" in message_of("@pics")


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_list(encoding: str) -> None:
    Path("list.txt").write_bytes("\ufeffa.png\n".encode(encoding))
    message = message_of("@list.txt")
    assert "is UTF-16: expected UTF-8. Save it as UTF-8 and try again" in message


def test_stdin_twice() -> None:
    message = message_of("-", "-", stdin="a.png")
    assert "The source - (stdin) is named twice: it can be read once. Remove one" in message


def test_closed_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources.sys, "stdin", None)
    assert "The source - (stdin) named no images" in message_of("-")


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("https://example.org/a.jpg?size=*", "pip install 'tpt-runtime\\[remote\\]'"),
        ("s3://bucket/[1]", "pip install 'tpt-runtime\\[remote\\]'"),
        ("file:///a", "is not a remote address"),
        ("nosuch://a/b", "cannot be opened"),
    ],
)
def test_an_address_names_the_extra_that_it_needs(
    address: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsspec = pytest.importorskip("fsspec.core")
    find = fsspec.url_to_fs

    def refuse(url: str) -> Any:
        if url.startswith("nosuch"):
            return find(url)
        raise ImportError("Install another package")

    monkeypatch.setattr(fsspec, "url_to_fs", refuse)
    with pytest.raises(SourceError, match=told):
        expand_sources([address])


# --- what systems leave ---


SYSTEM = ["@eaDir", "@Recycle", "#recycle", "$RECYCLE.BIN", "__MACOSX", "lost+found", "#snapshot"]


@pytest.mark.parametrize("name", SYSTEM)
def test_folders_of_disks_and_archives_are_not_looked_into(name: str) -> None:
    touch("p/a.png", f"p/{name}/b.png", f"p/c/{name}/d.png", "p/c/e.png")
    assert expand_sources(["p"], recursive=True) == ["p/a.png", "p/c/e.png"]
    assert expand_sources(["p/*"]) == ["p/a.png", "p/c/e.png"]
    assert expand_sources(["p/**/*.png"]) == ["p/a.png", "p/c/e.png"]
    assert expand_sources(["p/*/*.png"]) == ["p/c/e.png"]
    assert walk_images("p") == ["p/a.png", "p/c/e.png"]
    assert expand_sources([f"p/{name}"]) == [f"p/{name}/b.png"]  # what is named is wanted
    assert expand_sources([f"p/{name}/*"]) == [f"p/{name}/b.png"]


# --- files that no name calls pictures ---


def write_pictures() -> None:
    touch("p/a.png", "p/notes.txt", "p/sub/model.bin", "p/.hidden", "p/Thumbs.db")
    for name in ("p/photo", "p/sub/photo.dat"):
        Image.new("RGB", (2, 2)).save(name, "JPEG")


def test_files_that_are_no_pictures_by_name_are_kept_count_of() -> None:
    write_pictures()
    search = Search(recursive=True)
    assert expand_sources(["p"], search=search) == ["p/a.png"]
    assert search.left_out == ["p/notes.txt", "p/photo", "p/sub/model.bin", "p/sub/photo.dat"]


def test_all_files_looks_inside() -> None:
    write_pictures()
    search = Search(recursive=True, all_files=True)
    found = expand_sources(["p", "p/*"], search=search)
    assert found == ["p/a.png", "p/photo", "p/sub/photo.dat", "p/notes.txt"]
    assert search.left_out[:2] == ["p/notes.txt", "p/sub/model.bin"]


def test_a_folder_of_other_files_says_how_to_look_inside() -> None:
    touch("p/1", "p/2")
    message = message_of("p")
    assert "2 files skipped (not an image's extension): p/1, p/2. --all-fi" in message


# --- lists made on Windows ---


def test_back_slashes_of_windows_are_read_as_in_a_csv_file() -> None:
    touch("f/cup.png", "f/odd\\name.png")
    data = b'f\\cup.png\r\n"f\\cup.png"\r\nf/odd\\name.png\r\nf\\gone.png\r\n'
    Path("list.txt").write_bytes(data)
    expected = ["f/cup.png", "f/odd\\name.png", "f/gone.png"]
    assert expand_sources(["@list.txt"]) == expected
    assert expand_sources(["-"], stdin=byte_stdin(data)) == expected
    assert find_listed("cup.png", "f") == "cup.png"
    assert find_listed('"a".png') == '"a".png'


# --- pipes ---


def test_paths_of_a_pipe_come_as_they_are_written() -> None:
    touch("a.png")
    reader, writer = os.pipe()
    with open(reader, "rb", buffering=0) as pipe, open(writer, "wb", buffering=0) as end:
        found = find_sources(["-", "a.png"], Search(), SimpleNamespace(buffer=pipe))  # type: ignore[arg-type]
        paths = iter(found)
        for name in ("a.png", "b.png", "c d.png"):
            end.write(f"{name}\n".encode())
            assert next(paths) == name
        end.write(b"half")
        end.write(b".png\r\nlast.png")
        assert next(paths) == "half.png"
        end.close()
        assert list(paths) == ["last.png"]


def test_other_sources_are_found_before_a_pipe_is_read() -> None:
    with pytest.raises(SourceError, match="does not exist"):
        find_sources(["-", "gone.png"], Search(), byte_stdin(b"a.png"))


def test_a_named_pipe_is_a_list_that_comes_as_it_is_written() -> None:
    os.mkfifo("fifo")
    assert is_live(["@fifo"])
    assert not is_live(["@list.txt", "p"])
    writer = threading.Thread(target=lambda: Path("fifo").write_bytes(b"a.png\nb.png\n"))
    writer.start()
    assert expand_sources(["@fifo"]) == ["a.png", "b.png"]
    writer.join()


names = st.lists(
    st.text(
        st.characters(blacklist_characters='\0\n\r"\\', blacklist_categories=["Cs"]), min_size=1
    )
    .filter(str.strip)
    .filter(lambda name: not name.startswith("\ufeff")),
    min_size=1,
    unique_by=os.path.normpath,
)


@given(names, st.sampled_from(["\n", "\r\n", "\0"]), st.integers(1, 7))
def test_any_names_come_through_any_pipe(listed: list[str], end: str, size: int) -> None:
    data = end.join([*listed, ""]).encode()
    parts = [data] if end == "\0" else [data[i : i + size] for i in range(0, len(data), size)]
    assert list(sources._split_lines(parts)) == listed
