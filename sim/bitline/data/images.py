"""Folders of image files: one folder a class, or a table of labels; decoded when asked for."""

from __future__ import annotations

import csv
import io
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bitline.data import files
from bitline.data.dataset import check_labels
from bitline.errors import DataError

__all__ = ["FilePixels", "Geometry", "ImageFolder", "ImagePart", "decode_errors", "read_image_folder"]

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".webp", ".tif", ".tiff", ".gif")
# Named, so that a file's contents cannot choose a decoder that runs a program (Pillow's EPS starts Ghostscript).
_FORMATS = ("JPEG", "PNG", "BMP", "PPM", "WEBP", "TIFF", "GIF")
_TEST_FOLDERS = ("val", "test", "validation")
_MAX_TABLE_BYTES = 1 << 28
_MAX_CLASSES = 1_000_000
_WHOLE_PIXELS = 1 << 24
"""A resized image of more pixels than this (64 MiB in Pillow) is cropped while it is resized, not after it."""

_FILE_COLUMNS = ("file", "filename", "image", "path")
_LABEL_COLUMNS = ("class_index", "label", "class", "target")


@contextmanager
def decode_errors(path: Path) -> Iterator[None]:
    """Turn whatever Pillow raises for this file into one DataError line that names it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            yield
        except DataError:
            raise
        except FileNotFoundError:
            raise DataError(f"{path}: no such file") from None
        # Pillow's decoders raise anything from SyntaxError to struct.error on damaged files.
        except Exception as error:
            reason = " ".join(str(error).replace(f"'{path}'", "").split())[:200] or type(error).__name__
            raise DataError(f"{path}: image cannot be read ({reason})") from None


@dataclass(frozen=True)
class Geometry:
    """The usual preparation: short side resized (bilinear), then a centre crop."""

    resize: int
    crop: int

    @classmethod
    def choose(cls, resize: int | None, crop: int | None) -> Geometry:
        """Fill in what is not given: crop 224 of 256, the same proportion for a smaller or larger crop.

        A crop of 224 to 256 keeps a short side of 256; a resize below 224 is cropped to a square of that side.

        Raises
        ------
        DataError
            A crop larger than the resized image.
        """
        if crop is None:
            crop = 224 if resize is None else min(224, resize)
        if resize is None:
            resize = 256 if 224 <= crop <= 256 else round(crop * 256 / 224)
        if crop > resize:
            raise DataError(f"crop: must be at most the resized short side {resize}, found {crop}")
        return cls(resize, crop)


class FilePixels:
    """Image files as RGB [shape=(b, 3, crop, crop), uint8], decoded anew at every reading."""

    def __init__(self, paths: Sequence[Path], geometry: Geometry) -> None:
        self.paths = paths
        self.geometry = geometry
        self.shape = (3, geometry.crop, geometry.crop)

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The images at these indices."""
        out = np.empty((len(indices), *self.shape), np.uint8)
        for row, index in zip(out, indices, strict=True):
            row[:] = self._decode(self.paths[index])
        return out

    def _decode(self, path: Path) -> NDArray[np.uint8]:
        resize, crop = self.geometry.resize, self.geometry.crop
        with decode_errors(path), Image.open(path, formats=_FORMATS) as opened:
            image = _rgb(opened)
            columns, rows = image.size
            short = min(columns, rows)
            width, height = resize * columns // short, resize * rows // short
            left, top = (width - crop) // 2, (height - crop) // 2  # half a pixel is rounded down
            if width * height > _WHOLE_PIXELS:
                # A strip of 1 x 16,000 pixels would be 256 x 4,096,000: only what the crop keeps is made.
                across, down = columns / width, rows / height
                box = (left * across, top * down, (left + crop) * across, (top + crop) * down)
                return np.asarray(image.resize((crop, crop), Image.Resampling.BILINEAR, box)).transpose(2, 0, 1)
            if short != resize:
                image = image.resize((width, height), Image.Resampling.BILINEAR)
            return np.asarray(image.crop((left, top, left + crop, top + crop))).transpose(2, 0, 1)


def _rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB; transparency is dropped, as torchvision's loader does, and 16-bit grey keeps its high byte."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = np.asarray(image)
        if image.mode == "F":
            raise ValueError("images of floating-point pixels are not supported")
        if image.mode == "I" and image.format == "TIFF":
            raise ValueError("images of 32-bit pixels are not supported: what white is, is not said")
        return Image.fromarray((np.clip(values, 0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


@dataclass(frozen=True)
class ImagePart:
    """The files of a split and their classes."""

    source: FilePixels
    labels: NDArray[np.int64] | None


@dataclass(frozen=True, kw_only=True)
class ImageFolder:
    """What a folder of images holds."""

    test: ImagePart
    train: ImagePart | None = None
    class_names: tuple[str, ...] = ()
    numbering: str = ""
    """Who says which class has which number; empty without labels."""
    notes: tuple[str, ...] = ()
    """What a reader of the result must know about the numbering."""


def read_image_folder(path: Path, geometry: Geometry) -> ImageFolder:
    """The splits of a folder of images.

    Understood: ``labels.csv`` (columns file and class_index; files lie beside it or in ``images/``; with
    ``classes.csv``, columns class_index and name, for the names); ``val/`` or ``test/``, and ``train/`` where it is
    there, each with one folder a class; folders of classes directly; images without labels.

    Class folders are numbered by ``classes.csv`` where its wnid or name columns hold their names; by their names where
    all of them are numbers; else in sorted order. Hidden folders and files are left out at every level; links to
    folders are followed, each folder once. An image's EXIF orientation is not applied and of several frames the first
    is taken, as torchvision's loader does.

    Raises
    ------
    DataError
        Nothing of that in the folder, missing files, labels out of range, folders of train and test that differ, one
        folder or file under two classes.
    """
    expected = "labels.csv with images/, folders of classes, or val/ (and train/) with folders of classes"
    files.folder(path, expected)
    table = _classes_table(path / "classes.csv") if (path / "classes.csv").is_file() else None
    if (path / "labels.csv").is_file():
        return _labelled_by_table(path, geometry, table)
    for name in _TEST_FOLDERS:
        if (path / name).is_dir():
            test_paths, test_classes = _class_folders(path / name)
            train = path / "train"
            train_paths, train_classes = _class_folders(train) if train.is_dir() else ([], test_classes)
            if set(test_classes) - set(train_classes):
                odd = ", ".join(sorted(set(test_classes) - set(train_classes))[:3])
                raise DataError(f"{path / name}: has class folders that {train} has not: {odd}")
            numbers = _class_numbers(train_classes, table, path)
            return ImageFolder(
                test=_part(test_paths, numbers, path / name, geometry),
                train=_part(train_paths, numbers, train, geometry) if train_paths else None,
                class_names=numbers.names,
                numbering=numbers.numbering,
                notes=numbers.notes,
            )
    if (path / "train").is_dir():
        raise DataError(f"{path}: has train/ but none of {', '.join(n + '/' for n in _TEST_FOLDERS)} to measure on")
    if any(_is_image(entry) for entry in path.iterdir()):
        plain = sorted(entry for entry in path.iterdir() if _is_image(entry))
        return ImageFolder(test=ImagePart(FilePixels(plain, geometry), None))
    paths, classes = _class_folders(path)
    numbers = _class_numbers(classes, table, path)
    return ImageFolder(
        test=_part(paths, numbers, path, geometry),
        class_names=numbers.names,
        numbering=numbers.numbering,
        notes=numbers.notes,
    )


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _class_folders(path: Path) -> tuple[list[tuple[Path, str]], list[str]]:
    """Every image under a folder of class folders, with its folder's name; and the sorted names."""
    names = sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    paths: list[tuple[Path, str]] = []
    seen: dict[tuple[int, int], str] = {}
    for name in names:
        found = sorted(_images_below(path / name, name, seen))
        if not found:
            raise DataError(f"{path / name}: no images in this class folder; expected {', '.join(SUFFIXES)}")
        paths += [(entry, name) for entry in found]
    if not paths:
        raise DataError(f"{path}: no images; expected labels.csv, or one folder a class with {', '.join(SUFFIXES)}")
    return paths, names


def _images_below(top: Path, name: str, seen: dict[tuple[int, int], str]) -> Iterator[Path]:
    """Images under a class folder, links followed; ``seen`` has the class of every folder entered so far.

    Each folder is entered once, so that links that lead back end. One that two classes lead to is refused: its images
    would have two labels.
    """
    _first_visit(top, name, seen)
    for where, folders, entries in os.walk(top, followlinks=True):
        below = (folder for folder in sorted(folders) if not folder.startswith("."))
        folders[:] = [folder for folder in below if _first_visit(Path(where, folder), name, seen)]
        yield from (path for path in (Path(where, entry) for entry in entries) if _is_image(path))


def _first_visit(folder: Path, name: str, seen: dict[tuple[int, int], str]) -> bool:
    """Whether a folder was not entered before, and enter it for class ``name``."""
    try:
        status = folder.stat()
    except OSError:  # a link that leads nowhere
        return False
    key = status.st_dev, status.st_ino
    if key not in seen:
        seen[key] = name
        return True
    if seen[key] != name:
        raise DataError(f"{folder}: is the same folder as one of class {seen[key]!r}: its images have two classes")
    return False


def _part(paths: list[tuple[Path, str]], numbers: _Numbers, where: Path, geometry: Geometry) -> ImagePart:
    labels = check_labels([numbers.index[name] for _, name in paths], len(paths), len(numbers.names), str(where))
    return ImagePart(FilePixels([path for path, _ in paths], geometry), labels)


@dataclass(frozen=True)
class _Numbers:
    """Names of all classes by number, and the numbers of class folders by name (and wnid)."""

    names: tuple[str, ...]
    index: dict[str, int]
    numbering: str = "by classes.csv"
    notes: tuple[str, ...] = ()


def _class_numbers(folders: list[str], table: _Numbers | None, where: Path) -> _Numbers:
    if table is not None:
        unknown = [name for name in folders if name not in table.index]
        if unknown:
            raise DataError(f"{where}: class folder {unknown[0]!r} is not in classes.csv")
        return table
    if not all(name.isascii() and name.isdigit() for name in folders):
        sorted_order = {name: number for number, name in enumerate(folders)}
        return _Numbers(tuple(folders), sorted_order, "class folders in sorted order")
    index = {name: int(name) for name in folders if len(name) <= len(str(_MAX_CLASSES))}
    if len(index) < len(folders) or max(index.values()) >= _MAX_CLASSES:
        raise DataError(f"{where}: class folders are named by numbers, of which some are {_MAX_CLASSES} or more")
    if len(set(index.values())) < len(index):
        raise DataError(f"{where}: two class folders have the same number as their name")
    notes: tuple[str, ...] = ()
    if list(index.values()) != list(range(len(folders))):
        notes = (
            f"class folders are named by numbers ({', '.join(folders[:3])}, ...) and these are taken as class numbers; "
            "torchvision's ImageFolder would number them 0, 1, 2, ... in this order. classes.csv can say otherwise",
        )
    names = {number: name for name, number in index.items()}
    known = tuple(names.get(number, str(number)) for number in range(max(names) + 1))
    return _Numbers(known, index, "class folders' names are class numbers", notes)


def _labelled_by_table(path: Path, geometry: Geometry, table: _Numbers | None) -> ImageFolder:
    where = path / "labels.csv"
    rows = _rows(where)
    file_column = _column(where, rows[0], _FILE_COLUMNS)
    label_column = _column(where, rows[0], _LABEL_COLUMNS)
    labels: dict[Path, int] = {}
    base = path / "images" if (path / "images").is_dir() else path
    for line, row in enumerate(rows[1:], 2):
        name, text = row[file_column], row[label_column]
        image = next((p for p in (base / name, path / name) if name and _safe_is_file(p)), None)
        if image is None:
            raise DataError(f"{where}: line {line}: no such image {name!r} in {base}")
        label = _integer(text, where, line)
        if image in labels:
            before = "the same class" if labels[image] == label else f"class {labels[image]}"
            raise DataError(f"{where}: line {line}: image {name!r} is there twice, with {before} before")
        labels[image] = label
    if not labels:
        raise DataError(f"{where}: lists no images")
    checked = check_labels(list(labels.values()), len(labels), None if table is None else len(table.names), str(where))
    names = table.names if table else tuple(str(n) for n in range(int(checked.max()) + 1))
    part = ImagePart(FilePixels(list(labels), geometry), checked)
    return ImageFolder(test=part, class_names=names, numbering="by labels.csv")


def _safe_is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long for the file system, or with a zero byte
        return False


def _classes_table(where: Path) -> _Numbers:
    rows = _rows(where)
    number_column = _column(where, rows[0], _LABEL_COLUMNS)
    name_column = _column(where, rows[0], ("name", "class_name", "wnid"))
    key_columns = [i for i, cell in enumerate(rows[0]) if cell.strip().lower() in ("wnid", "name", "class_name")]
    names: dict[int, str] = {}
    index: dict[str, int] = {}
    for line, row in enumerate(rows[1:], 2):
        number = _integer(row[number_column], where, line)
        if number in names:
            raise DataError(f"{where}: line {line}: class {number} is there twice")
        names[number] = row[name_column]
        # Names repeat in ImageNet (two cranes, two maillots); a wnid does not, and comes first.
        for column in key_columns:
            index.setdefault(row[column], number)
    if sorted(names) != list(range(len(names))) or not names:
        raise DataError(f"{where}: classes must be numbered 0..{len(names) - 1 if names else 0} without gaps")
    return _Numbers(tuple(names[n] for n in range(len(names))), index)


def _rows(where: Path) -> list[list[str]]:
    """A CSV file's rows, header first, all as long as the header."""
    try:
        text = files.read_file(where, _MAX_TABLE_BYTES).decode("utf-8-sig")
        rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{where}: not a CSV table in UTF-8 ({error})") from None
    if not rows:
        raise DataError(f"{where}: the table is empty")
    for line, row in enumerate(rows, 1):
        if len(row) != len(rows[0]):
            raise DataError(f"{where}: row {line}: expected {len(rows[0])} columns, found {len(row)}")
    return rows


def _column(where: Path, header: list[str], names: Sequence[str]) -> int:
    cells = [cell.strip().lower() for cell in header]
    for name in names:
        if name in cells:
            return cells.index(name)
    raise DataError(f"{where}: needs a column named {' or '.join(names)}, found {', '.join(cells)[:100]}")


def _integer(text: str, where: Path, line: int) -> int:
    try:
        return int(text)
    except ValueError:
        raise DataError(f"{where}: line {line}: expected a class number, found {text[:40]!r}") from None
