"""Folders of image files: one folder a class, or a table of labels; decoded when asked for."""

from __future__ import annotations

import csv
import io
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

__all__ = ["FilePixels", "Geometry", "ImagePart", "decode_errors", "read_image_folder"]

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".webp", ".tif", ".tiff", ".gif")
# Named, so that a file's contents cannot choose a decoder that runs a program (Pillow's EPS starts Ghostscript).
_FORMATS = ("JPEG", "PNG", "BMP", "PPM", "WEBP", "TIFF", "GIF")
_TEST_FOLDERS = ("val", "test", "validation")
_MAX_TABLE_BYTES = 1 << 28

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
            width, height = image.size
            short = min(width, height)
            if short != resize:
                width, height = resize * width // short, resize * height // short
                image = image.resize((width, height), Image.Resampling.BILINEAR)
            # Rounded to even, as torchvision's CenterCrop does.
            left, top = (width - crop) // 2, (height - crop) // 2  # half a pixel is rounded down
            return np.asarray(image.crop((left, top, left + crop, top + crop))).transpose(2, 0, 1)


def _rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB; transparency is dropped, as torchvision's loader does, and 16-bit grey keeps its high byte."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = np.asarray(image)
        if image.mode == "F":
            raise DataError("images of floating-point pixels are not supported")
        return Image.fromarray((np.clip(values, 0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")


@dataclass(frozen=True)
class ImagePart:
    """The files of a split and their classes."""

    source: FilePixels
    labels: NDArray[np.int64] | None


def read_image_folder(path: Path, geometry: Geometry) -> tuple[ImagePart, ImagePart | None, tuple[str, ...]]:
    """The splits of a folder of images.

    Understood: ``labels.csv`` (columns file and class_index; files lie beside it or in ``images/``; with
    ``classes.csv``, columns class_index and name, for the names); ``val/`` or ``test/``, and ``train/`` where it is
    there, each with one folder a class; folders of classes directly; images without labels.

    Class folders are numbered in sorted order, or by ``classes.csv`` where its wnid or name columns hold their names.

    Returns
    -------
    test, train, class_names

    Raises
    ------
    DataError
        Nothing of that in the folder, missing files, labels out of range, folders of train and test that differ.
    """
    expected = "labels.csv with images/, folders of classes, or val/ (and train/) with folders of classes"
    files.folder(path, expected)
    table = _classes_table(path / "classes.csv") if (path / "classes.csv").is_file() else None
    if (path / "labels.csv").is_file():
        part, names = _labelled_by_table(path, geometry, table)
        return part, None, names
    for name in _TEST_FOLDERS:
        if (path / name).is_dir():
            test_paths, test_classes = _class_folders(path / name)
            train = path / "train"
            train_paths, train_classes = _class_folders(train) if train.is_dir() else ([], test_classes)
            if set(test_classes) - set(train_classes):
                odd = ", ".join(sorted(set(test_classes) - set(train_classes))[:3])
                raise DataError(f"{path / name}: has class folders that {train} has not: {odd}")
            names, index = _class_numbers(train_classes, table, path)
            return (
                _part(test_paths, index, len(names), path / name, geometry),
                _part(train_paths, index, len(names), train, geometry) if train_paths else None,
                names,
            )
    if (path / "train").is_dir():
        raise DataError(f"{path}: has train/ but none of {', '.join(n + '/' for n in _TEST_FOLDERS)} to measure on")
    if any(_is_image(entry) for entry in path.iterdir()):
        plain = sorted(entry for entry in path.iterdir() if _is_image(entry))
        return ImagePart(FilePixels(plain, geometry), None), None, ()
    paths, classes = _class_folders(path)
    names, index = _class_numbers(classes, table, path)
    return _part(paths, index, len(names), path, geometry), None, names


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _class_folders(path: Path) -> tuple[list[tuple[Path, str]], list[str]]:
    """Every image under a folder of class folders, with its folder's name; and the sorted names."""
    names = sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    paths: list[tuple[Path, str]] = []
    for name in names:
        found = sorted(entry for entry in (path / name).rglob("*") if _is_image(entry))
        if not found:
            raise DataError(f"{path / name}: no images in this class folder; expected {', '.join(SUFFIXES)}")
        paths += [(entry, name) for entry in found]
    if not paths:
        raise DataError(f"{path}: no images; expected labels.csv, or one folder a class with {', '.join(SUFFIXES)}")
    return paths, names


def _part(
    paths: list[tuple[Path, str]], index: dict[str, int], classes: int, where: Path, geometry: Geometry
) -> ImagePart:
    labels = check_labels([index[name] for _, name in paths], len(paths), classes, str(where))
    return ImagePart(FilePixels([path for path, _ in paths], geometry), labels)


@dataclass(frozen=True)
class _ClassTable:
    names: tuple[str, ...]
    index: dict[str, int]
    """Class by wnid and by name."""


def _class_numbers(
    folders: list[str], table: _ClassTable | None, where: Path
) -> tuple[tuple[str, ...], dict[str, int]]:
    if table is None:
        return tuple(folders), {name: number for number, name in enumerate(folders)}
    unknown = [name for name in folders if name not in table.index]
    if unknown:
        raise DataError(f"{where}: class folder {unknown[0]!r} is not in classes.csv")
    return table.names, table.index


def _labelled_by_table(path: Path, geometry: Geometry, table: _ClassTable | None) -> tuple[ImagePart, tuple[str, ...]]:
    where = path / "labels.csv"
    rows = _rows(where)
    file_column = _column(where, rows[0], _FILE_COLUMNS)
    label_column = _column(where, rows[0], _LABEL_COLUMNS)
    paths, labels = [], []
    base = path / "images" if (path / "images").is_dir() else path
    for line, row in enumerate(rows[1:], 2):
        name, text = row[file_column], row[label_column]
        image = next((p for p in (base / name, path / name) if name and _safe_is_file(p)), None)
        if image is None:
            raise DataError(f"{where}: line {line}: no such image {name!r} in {base}")
        paths.append(image)
        labels.append(_integer(text, where, line))
    if not paths:
        raise DataError(f"{where}: lists no images")
    checked = check_labels(labels, len(paths), None if table is None else len(table.names), str(where))
    names = table.names if table else tuple(str(n) for n in range(int(checked.max()) + 1))
    return ImagePart(FilePixels(paths, geometry), checked), names


def _safe_is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long for the file system, or with a zero byte
        return False


def _classes_table(where: Path) -> _ClassTable:
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
    return _ClassTable(tuple(names[n] for n in range(len(names))), index)


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
