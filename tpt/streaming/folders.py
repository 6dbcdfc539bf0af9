"""List the images in folders in natural order, without hidden and system files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from natsort import natsort_keygen, ns

from tpt.errors import SourceError, why
from tpt.streaming.items import Reading
from tpt.text import some

_EXTENSIONS = """
apng avif avifs bmp dds gif heic heif hif ico j2k jfif jp2 jpe jpeg jpf jpg jpx jxl mpo pbm pcx pfm
pgm png pnm ppm psd qoi sgi tga tif tiff webp
"""


IMAGE_EXTENSIONS = frozenset("." + extension for extension in _EXTENSIONS.split())
"""What counts as an image inside a folder. HEIC and JPEG XL need the extra `formats`. They are
listed even without it, because an error record is better than a photo skipped in silence."""


_SYSTEM_NAMES = frozenset(
    (
        *("@eadir", "@recycle", "@recently-snapshot", "@snapshots", "@tmp", "@__thumb"),
        *("@sharebin", "#recycle", "#snapshot", "~snapshot"),
        *("$recycle.bin", "recycler", "recycled"),
        *("lost+found", "system volume information", "network trash folder", "temporary items"),
        *("__macosx", "__pycache__", "found.000", "thumbs.db", "ehthumbs.db", "desktop.ini"),
    )
)
"""What network disks, systems and archives add to folders: neither classes nor pictures."""


_split_naturally = natsort_keygen(alg=ns.PATH | ns.IGNORECASE)


@dataclass
class Search:
    """How folders are searched, and the files that were skipped."""

    recursive: bool = False  # walk into sub-folders
    all_files: bool = False  # look inside files without an image's extension
    left_out: list[str] = field(default_factory=list)  # files skipped, in the order found
    reading: Reading = field(default_factory=Reading)  # how files that hold many pictures are read

    def images(self, folder: str, here: Listing) -> list[str]:
        """The images among the files of a folder, in natural order."""
        here = replace(here, looks_in=folder if self.all_files else None)
        images, others = (
            sort_naturally(os.path.join(folder, name) for name in names)
            for names in (here.images, here.others)
        )
        self.left_out += others
        return images


def sort_naturally(names: Iterable[str]) -> list[str]:
    """Names with "2" before "10", upper and lower case alike."""
    # "A.jpg" and "a.jpg" tie naturally, so the text decides.
    return sorted(names, key=lambda name: (_split_naturally(name), name))


def list_images(folder: str, search: Search) -> list[str]:
    """The images of a folder, and with `search.recursive` of its sub-folders.

    Raises:
        SourceError: only sub-folders hold images, and `recursive` is off.
    """
    if search.recursive:
        return [image for at, here in _walk(folder) for image in search.images(at, here)]
    here = scan_folder(folder)
    images = search.images(folder, here)
    below = (os.path.join(folder, name) for name in here.folders)
    if not images and any(found.images for sub in below for _, found in _walk(sub)):
        raise SourceError(
            f"The folder {folder!r} holds no images itself, but its sub-folders do. "
            "Add --recursive to walk into them."
        )
    return images


def note_left_out(files: Sequence[str], looked_inside: bool = False) -> str:
    """A sentence about files that were skipped, by their extension or after a look inside."""
    why = "no picture inside" if looked_inside else "not an image's extension"
    return f"{len(files):,} file{'s' if len(files) > 1 else ''} skipped ({why}): {some(files)}."


def walk_images(folder: str) -> list[str]:
    """All images in a folder and below it, in natural order."""
    return [image for _, images in walk_folders(folder) for image in images]


def walk_folders(
    folder: str,
    *,
    natural: bool = True,
    others: list[str] | None = None,
    all_files: bool = False,
) -> Iterator[tuple[str, list[str]]]:
    """Yield (folder, its images) from the top down, each real folder once.

    Links to folders are followed, because data sets are often made of links. Files that are no
    images are added to `others`; with `all_files` files without an image's extension are read to
    find out.
    """
    for here, listing in _walk(folder, natural, all_files):
        names = sort_naturally(listing.images) if natural else listing.images
        if others is not None:
            others += (os.path.join(here, name) for name in listing.others)
        yield here, [os.path.join(here, name) for name in names]


def _walk(
    folder: str, natural: bool = True, all_files: bool = False
) -> Iterator[tuple[str, Listing]]:
    seen: set[str] = set()
    stack = [folder]
    while stack:
        here = stack.pop()
        real = os.path.realpath(here)
        if real in seen:
            continue
        seen.add(real)
        listing = scan_folder(here, all_files)
        yield here, listing
        folders = sort_naturally(listing.folders) if natural else listing.folders
        stack += (os.path.join(here, name) for name in reversed(folders))


@dataclass(frozen=True)
class Listing:
    """The names directly in a folder, sorted as text, without hidden and system ones."""

    files: tuple[str, ...]
    folders: tuple[str, ...]
    looks_in: str | None = None  # the folder, if files without an image's extension are read too

    @cached_property
    def images(self) -> tuple[str, ...]:
        # Broken links and pipes count as images: each becomes an error record, not a gap.
        return tuple(filter(self._is_image, self.files))

    @cached_property
    def others(self) -> tuple[str, ...]:
        images = {*self.images}
        return tuple(name for name in self.files if name not in images)

    def _is_image(self, name: str) -> bool:
        from tpt.images.decode import begins_as_image

        by_name = os.path.splitext(name)[1].lower() in IMAGE_EXTENSIONS
        inside = self.looks_in
        return by_name or (inside is not None and begins_as_image(os.path.join(inside, name)))


def scan_folder(folder: str, all_files: bool = False) -> Listing:
    """List a folder once ("" is the current directory).

    With `all_files` the listing looks inside files without an image's extension, when its images
    are asked for. Names are not in natural order: at 40 µs a name, sorting a million takes a
    minute.

    Raises:
        SourceError: the folder cannot be read.
    """
    try:
        with os.scandir(folder or os.curdir) as entries:
            is_folder = {e.name: _is_folder(e) for e in entries if not is_hidden(e.name)}
    except OSError as error:
        raise SourceError(
            f"The folder {folder or os.curdir!r} cannot be read ({why(error)}). Give this user the "
            "right to read it, or name other folders."
        ) from error
    names = sorted(is_folder)
    files = tuple(name for name in names if not is_folder[name])
    folders = tuple(name for name in names if is_folder[name])
    return Listing(files, folders, folder if all_files else None)


def is_hidden(name: str) -> bool:
    """Whether a file or a folder is hidden, or the system's own."""
    return name.startswith(".") or is_system(name)


def is_system(name: str) -> bool:
    """Whether a network disk or an operating system makes files or folders of that name."""
    return name.lower() in _SYSTEM_NAMES


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
