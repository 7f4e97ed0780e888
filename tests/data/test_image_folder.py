"""Folders of image files: layouts, geometry by hand arithmetic, odd modes, broken and hostile files."""

from __future__ import annotations

import contextlib
import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bitline.data import open_dataset
from bitline.errors import BitlineError, DataError


def _png(path: Path, colour=(10, 20, 30), size=(8, 8), mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)
    return path


def _open(folder: Path, resize: int | None = 8, crop: int | None = 8):
    return open_dataset(f"imagefolder:{folder}", resize=resize, crop=crop, normalisation="byte")


def _firsts(split) -> list[int]:
    """The red value of every image's first pixel: which file it was."""
    return split.pixels(0, len(split))[:, 0, 0, 0].tolist()


def test_one_folder_a_class(tmp_path: Path):
    for number, name in enumerate(["b/1.png", "b/sub/2.PNG", "a/1.jpeg", "c/9.webp"]):
        _png(tmp_path / name, (number * 50, 0, 0), (8, 8))
    (tmp_path / "a" / "notes.txt").write_text("not an image")
    (tmp_path / ".cache").mkdir()
    dataset = _open(tmp_path)
    assert dataset.class_names == ("a", "b", "c")
    assert dataset.test.labels.tolist() == [0, 1, 1, 2]
    assert _firsts(dataset.test) == pytest.approx([100, 0, 50, 150], abs=3)  # jpeg is not exact
    assert dataset.train is None


@pytest.mark.parametrize("name", ["val", "test", "validation"])
def test_train_and_test_folders(tmp_path: Path, name: str):
    _png(tmp_path / "train" / "cat" / "1.png", (1, 0, 0))
    _png(tmp_path / "train" / "dog" / "1.png", (2, 0, 0))
    _png(tmp_path / name / "dog" / "1.png", (3, 0, 0))
    dataset = _open(tmp_path)
    assert (_firsts(dataset.train), dataset.train.labels.tolist()) == ([1, 2], [0, 1])
    # The class keeps its training number though the test split lacks the other one.
    assert (_firsts(dataset.test), dataset.test.labels.tolist()) == ([3], [1])
    _png(tmp_path / name / "emu" / "1.png")
    with pytest.raises(DataError, match=r"class folders that .*train has not: emu"):
        _open(tmp_path)


def test_labels_from_a_table(tmp_path: Path):
    for number in range(3):
        _png(tmp_path / "images" / f"{number}.png", (number, 0, 0))
    (tmp_path / "labels.csv").write_text("file,class_index,wnid\n2.png,1,n1\nimages/0.png,3,n3\n")
    (tmp_path / "classes.csv").write_text("class_index,wnid,name\n" + "".join(f"{n},n{n},name {n}\n" for n in range(5)))
    dataset = _open(tmp_path)
    assert (_firsts(dataset.test), dataset.test.labels.tolist()) == ([2, 0], [1, 3])
    assert (dataset.classes, dataset.class_names[3]) == (5, "name 3")
    (tmp_path / "classes.csv").unlink()
    assert _open(tmp_path).classes == 4


def test_class_folders_numbered_by_the_table(tmp_path: Path):
    """Ten classes of a thousand keep the network's numbers when classes.csv says which they are."""
    _png(tmp_path / "n7" / "1.png")
    _png(tmp_path / "n2" / "1.png")
    (tmp_path / "classes.csv").write_text("class_index,wnid,name\n" + "".join(f"{n},n{n},name {n}\n" for n in range(9)))
    dataset = _open(tmp_path)
    assert (dataset.test.labels.tolist(), dataset.classes) == ([2, 7], 9)
    _png(tmp_path / "n9" / "1.png")
    with pytest.raises(DataError, match=r"class folder 'n9' is not in classes\.csv"):
        _open(tmp_path)


def test_a_name_that_repeats_is_its_first_class(tmp_path: Path):
    """ImageNet has two classes called crane; folders by wnid tell them apart."""
    (tmp_path / "classes.csv").write_text("class_index,wnid,name\n0,n0,crane\n1,n1,crane\n")
    _png(tmp_path / "crane" / "1.png")
    _png(tmp_path / "n1" / "1.png")
    assert _open(tmp_path).test.labels.tolist() == [0, 1]


def test_hidden_folders_are_left_out_at_every_level(tmp_path: Path):
    """Notebooks keep copies in .ipynb_checkpoints, macOS previews in ._1.png."""
    _png(tmp_path / "a" / "1.png", (1, 0, 0))
    for hidden in ("a/.ipynb_checkpoints/1-checkpoint.png", "a/deep/.thumbs/2.png", ".git/3.png", "a/._1.png"):
        _png(tmp_path / hidden, (9, 0, 0))
    assert _firsts(_open(tmp_path).test) == [1]


def test_links_are_followed_once(tmp_path: Path):
    here = tmp_path / "set"
    _png(tmp_path / "elsewhere" / "2.png", (2, 0, 0))
    _png(here / "a" / "1.png", (1, 0, 0))
    (here / "a" / "more").symlink_to(tmp_path / "elsewhere")
    (here / "a" / "again").symlink_to(tmp_path / "elsewhere")
    (here / "a" / "more" / "back").symlink_to(here / "a")
    (here / "a" / "gone").symlink_to(tmp_path / "nowhere")
    (here / "b").symlink_to(tmp_path / "other")
    _png(tmp_path / "other" / "3.png", (3, 0, 0))
    dataset = _open(here)
    assert (_firsts(dataset.test), dataset.test.labels.tolist()) == ([1, 2, 3], [0, 0, 1])


def test_a_folder_of_two_classes_is_refused(tmp_path: Path):
    _png(tmp_path / "a" / "1.png")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(DataError, match="/b: is the same folder as one of class 'a'"):
        _open(tmp_path)


@pytest.mark.parametrize(
    ("names", "labels", "said"),
    [
        ("0 1 2", [0, 1, 2], False),
        ("00 01 02", [0, 1, 2], False),
        ("0 2 10 222", [0, 10, 2, 222], True),
        ("1 2 3", [1, 2, 3], True),
        (" ".join(map(str, range(11))), [0, 1, 10, *range(2, 10)], True),
        ("1 2 b", [0, 1, 2], False),
        ("n02 n1", [0, 1], False),
    ],
)
def test_folders_named_by_numbers(tmp_path: Path, names: str, labels: list[int], said: bool):
    """Labels of the images in sorted order of their folders, so that 10 comes before 2."""
    for name in names.split():
        _png(tmp_path / name / "1.png")
    dataset = _open(tmp_path)
    assert dataset.test.labels.tolist() == labels
    assert dataset.classes == max(labels) + 1
    assert bool(dataset.notes) == said
    assert "number" in dataset.numbering or "sorted" in dataset.numbering


@pytest.mark.parametrize(
    ("names", "match"),
    [("1 999999999999", "of which some are 1000000 or more"), ("1 01", "have the same number as their name")],
)
def test_impossible_numbers_of_classes(tmp_path: Path, names: str, match: str):
    for name in names.split():
        _png(tmp_path / name / "1.png")
    _refused(tmp_path, match)


def test_images_without_labels(tmp_path: Path):
    _png(tmp_path / "b.png", (5, 0, 0))
    _png(tmp_path / "a.png", (4, 0, 0))
    dataset = _open(tmp_path)
    assert (_firsts(dataset.test), dataset.test.labels, dataset.classes) == ([4, 5], None, 0)


# --- geometry ---------------------------------------------------------------------------------------------------------


def test_the_crop_is_the_centre(tmp_path: Path):
    pixels = np.arange(6 * 9 * 3, dtype=np.uint8).reshape(6, 9, 3)
    (tmp_path / "a").mkdir()
    Image.fromarray(pixels).save(tmp_path / "a" / "1.png")
    got = _open(tmp_path, resize=6, crop=4).test.pixels(0, 1)[0]
    # (6 - 4) / 2 = 1 from the top; (9 - 4) / 2 = 2.5, rounded down to 2, from the left.
    np.testing.assert_array_equal(got, pixels[1:5, 2:6].transpose(2, 0, 1))


@pytest.mark.parametrize("turned", [False, True])
def test_the_short_side_is_resized_bilinearly(tmp_path: Path, turned: bool):
    """Halving averages four pixels with the weights 1 3 3 1 (a triangle of twice the width), by hand on a step."""
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[:, 4:] = 80
    image = pixels.transpose(1, 0, 2) if turned else pixels
    (tmp_path / "a").mkdir()
    Image.fromarray(np.ascontiguousarray(image)).save(tmp_path / "a" / "1.png")
    got = _open(tmp_path, resize=2, crop=2).test.pixels(0, 1)[0, 1]
    np.testing.assert_array_equal(got.T if turned else got, [[10, 70], [10, 70]])  # the middle two of 0 10 70 80


@pytest.mark.parametrize(
    ("resize", "crop", "want"),
    [
        (None, None, (256, 224)),
        (None, 227, (256, 227)),
        (None, 128, (146, 128)),
        (None, 299, (342, 299)),
        (232, None, (232, 224)),
        (64, None, (64, 64)),
        (40, 32, (40, 32)),
    ],
)
def test_sizes_not_given_are_the_usual(tmp_path: Path, resize, crop, want):
    _png(tmp_path / "a" / "1.png")
    dataset = _open(tmp_path, resize, crop)
    assert dataset.name == f"imagefolder (short side {want[0]}, centre crop {want[1]})"
    assert dataset.image_shape == (3, want[1], want[1])
    assert dataset.test.images(0, 1).shape == (1, 3, want[1], want[1])


@pytest.mark.parametrize("turned", [False, True])
def test_a_strip_is_cropped_while_it_is_resized(tmp_path: Path, turned: bool, monkeypatch: pytest.MonkeyPatch):
    """1 x 70,000 at a short side of 256 would be 18 million lines; the crop's 224 lie within pixel 35,000.

    Line i of the crop reads the strip at (17,920,000 / 2 - 112 + i + 0.5) / 256, and bilinear weights are linear
    between the centres of two pixels: the middle of 34,999 | 35,000 is white over black, half each.
    """
    made: list[tuple[int, int]] = []
    resize = Image.Image.resize

    def watched(self: Image.Image, size: tuple[int, int], *rest: object) -> Image.Image:
        made.append(size)
        return resize(self, size, *rest)

    monkeypatch.setattr(Image.Image, "resize", watched)
    strip = np.zeros((70_000, 1), np.uint8)
    strip[:35_000] = 200
    (tmp_path / "a").mkdir()
    Image.fromarray(strip.T if turned else strip).save(tmp_path / "a" / "1.png")
    got = _open(tmp_path, resize=256, crop=224).test.pixels(0, 1)[0, 0]
    assert made == [(224, 224)]
    line = got[7] if turned else got[:, 7]
    want = [200 * (1 - (i - 112 + 0.5 + 128) / 256) for i in range(224)]
    assert np.abs(line - np.array(want)).max() <= 1


def test_a_crop_larger_than_the_image_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match="at most the resized short side 8, found 9"):
        _open(tmp_path, 8, 9)


def test_the_default_normalisation_is_imagenets(tmp_path: Path):
    _png(tmp_path / "a" / "1.png", (255, 0, 51))
    dataset = open_dataset(f"imagefolder:{tmp_path}")
    want = [(1 - 0.485) / 0.229, -0.456 / 0.224, (0.2 - 0.406) / 0.225]
    assert dataset.test.images(0, 1)[0, :, 100, 100].tolist() == pytest.approx(want, abs=1e-6)


# --- modes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "colour", "suffix", "want"),
    [
        ("L", 77, "png", (77, 77, 77)),
        ("1", 1, "png", (255, 255, 255)),
        ("RGBA", (1, 2, 3, 0), "png", (1, 2, 3)),
        ("LA", (9, 0), "png", (9, 9, 9)),
        ("CMYK", (0, 0, 255, 0), "tif", (255, 255, 0)),
        ("I;16", 0x4D80, "png", (0x4D, 0x4D, 0x4D)),
        ("P", 0, "gif", (0, 0, 0)),
    ],
)
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str, colour, suffix: str, want):
    _png(tmp_path / "a" / f"1.{suffix}", colour, mode=mode)
    assert tuple(_open(tmp_path).test.pixels(0, 1)[0, :, 3, 3]) == want


def test_orientation_and_frames_are_as_torchvisions_loader_takes_them(tmp_path: Path):
    """EXIF's "turned by 90 degrees" is not applied, and of an animation the first frame counts."""
    (tmp_path / "a").mkdir()
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[0] = 200  # the first line
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "a" / "1.png", exif=exif)
    frames = [Image.new("RGB", (8, 8), (value, 0, 0)) for value in (40, 90)]
    frames[0].save(tmp_path / "a" / "2.gif", save_all=True, append_images=frames[1:])
    first, second = _open(tmp_path).test.pixels(0, 2)
    np.testing.assert_array_equal(first, pixels.transpose(2, 0, 1))
    assert second[:, 3, 3].tolist() == [40, 0, 0]


def test_a_palette_with_transparency(tmp_path: Path):
    """Pillow warns of these; a warning is an error in this suite."""
    (tmp_path / "a").mkdir()
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    image.save(tmp_path / "a" / "1.png", transparency=bytes([0, 128]))
    assert tuple(_open(tmp_path).test.pixels(0, 1)[0, :, 0, 0]) == (200, 100, 50)


# --- refused ----------------------------------------------------------------------------------------------------------


def _read_all(folder: Path) -> None:
    dataset = _open(folder)
    dataset.test.images(0, len(dataset.test))


def _refused(folder: Path, match: str) -> None:
    with pytest.raises(DataError, match=match) as caught:
        _read_all(folder)
    assert "\n" not in str(caught.value)


def test_missing_and_empty(tmp_path: Path):
    _refused(tmp_path / "none", "no such folder")
    _refused(tmp_path, "folder is empty; expected labels.csv")
    _refused(_png(tmp_path / "a.png"), "is a file; expected a folder")
    (tmp_path / "a.png").unlink()
    (tmp_path / "cat").mkdir()
    _refused(tmp_path, "cat: no images in this class folder")
    (tmp_path / "cat").rmdir()
    (tmp_path / "notes.txt").touch()
    _refused(tmp_path, "no images; expected labels.csv")
    _png(tmp_path / "train" / "a" / "1.png")
    _refused(tmp_path, "has train/ but none of val/, test/, validation/")


@pytest.mark.parametrize(
    ("table", "match"),
    [
        ("", "the table is empty"),
        ("file,class_index\n", "lists no images"),
        ("name,class_index\n1.png,0\n", "needs a column named file or filename"),
        ("file,kind\n1.png,0\n", "needs a column named class_index or label"),
        ("file,label\n1.png\n", "row 2: expected 2 columns, found 1"),
        ("file,label\n1.png,cat\n", "line 2: expected a class number, found 'cat'"),
        ("file,label\n1.png,-1\n", "found -1"),
        ("file,label\n1.png,3\n", r"labels must be 0\.\.1, found 3"),
        ("file,label\n1.png,0\n7.png,0\n", "line 3: no such image '7.png'"),
        ("file,label\n1.png,0\n1.png,1\n", "line 3: image '1.png' is there twice, with class 0 before"),
        ("file,label\n1.png,0\n1.png,0\n", "line 3: image '1.png' is there twice, with the same class before"),
        ("file,label\n\0,0\n", "line 2: no such image"),
        ("file,label\n" + "x" * 5000 + ",0\n", "line 2: no such image"),
        ("file,label\n" + "x" * 200_000 + ",0\n", "not a CSV table"),
        (b"file,label\n\xff\xfe,0\n", "not a CSV table in UTF-8"),
    ],
)
def test_wrong_tables(tmp_path: Path, table, match: str):
    _png(tmp_path / "images" / "1.png")
    (tmp_path / "classes.csv").write_text("class_index,name\n0,a\n1,b\n")
    (tmp_path / "labels.csv").write_bytes(table.encode() if isinstance(table, str) else table)
    _refused(tmp_path, match)


@pytest.mark.parametrize(
    "table", ["class_index,name\n0,a\n2,b\n", "class_index,name\n0,a\n0,b\n", "class_index,name\n"]
)
def test_wrong_class_tables(tmp_path: Path, table: str):
    _png(tmp_path / "a" / "1.png")
    (tmp_path / "classes.csv").write_text(table)
    _refused(tmp_path, "without gaps|there twice")


def test_broken_images_are_named(tmp_path: Path):
    path = tmp_path / "a" / "1.jpg"
    _png(path, size=(64, 64))
    whole = path.read_bytes()
    for body in (whole[: len(whole) // 2], b"", b"not an image"):
        path.write_bytes(body)
        _refused(tmp_path, r"a/1\.jpg: image cannot be read")
    path.unlink()
    path.symlink_to(tmp_path / "gone.jpg")
    _refused(tmp_path, "no images in this class folder")
    path.unlink()
    Image.new("F", (8, 8), 1.5).save(path.with_suffix(".tif"))
    _refused(tmp_path, r"1\.tif: image cannot be read \(images of floating-point pixels")
    Image.new("I", (8, 8), 70_000).save(path.with_suffix(".tif"))
    _refused(tmp_path, "32-bit pixels")


def test_an_image_that_vanishes_is_named(tmp_path: Path):
    path = _png(tmp_path / "a" / "1.png")
    dataset = _open(tmp_path)
    path.unlink()
    with pytest.raises(DataError, match=r"a/1\.png: no such file"):
        dataset.test.images(0, 1)


def test_a_decoder_that_runs_programs_is_not_reached(tmp_path: Path):
    """PostScript under an image's name would start Ghostscript."""
    (tmp_path / "a").mkdir()
    text = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"
    (tmp_path / "a" / "1.png").write_text(text)
    _refused(tmp_path, "cannot identify image file")


def test_an_image_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    _png(tmp_path / "a" / "1.png", size=(100, 100))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 9_000)
    _refused(tmp_path, r"a/1\.png: image cannot be read .*exceeds limit")


@given(data=st.data())
def test_mutated_images_raise_data_errors_only(tmp_path_factory, data):
    here = tmp_path_factory.mktemp("mutated")
    path = _png(here / "a" / f"1.{data.draw(st.sampled_from(['png', 'jpg', 'webp', 'bmp', 'tif', 'gif', 'ppm']))}")
    body = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(body[: data.draw(st.integers(1, len(body)))]))
    with contextlib.suppress(BitlineError):
        assert _open(here).test.images(0, 1).shape == (1, 3, 8, 8)


# --- the real thing ---------------------------------------------------------------------------------------------------


@pytest.mark.realdata
def test_the_real_imagenet_folder(shared_data: Path):
    folder = shared_data / "imagenet"
    dataset = open_dataset(f"imagefolder:{folder}")
    assert (len(dataset.test), dataset.classes, dataset.train) == (500, 1000, None)
    np.testing.assert_array_equal(dataset.test.labels, np.arange(0, 1000, 2))
    assert dataset.class_names[:2] == ("tench", "goldfish")
    assert dataset.test.images(0, 4).shape == (4, 3, 224, 224)
    # Already 256 on the short side: the crop is the decoded file's own pixels.
    with (folder / "labels.csv").open() as table:
        name = list(csv.DictReader(table))[7]["file"]
    with Image.open(folder / "images" / name) as image:
        whole = np.asarray(image.convert("RGB"))
    top, left = ((n - 224) // 2 for n in whole.shape[:2])
    want = whole[top : top + 224, left : left + 224].transpose(2, 0, 1)
    np.testing.assert_array_equal(dataset.test.pixels(7, 8)[0], want)
