"""from_folder, load_images: what they accept and what it becomes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pymgan import tasks
from pymgan.tasks import from_folder, load_images


def save(path: Path, pixels: Any, mode: str | None = None, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(pixels, dtype=np.uint8))
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def classes_of_images(root: Path, *, count: int = 3, images: int = 4, size: int = 16) -> Path:
    for index in range(count):
        for number in range(images):
            save(root / f"class{index}" / f"{number}.png", np.full((size, size), 40 * index + number))
    return root


def test_folder(tmp_path: Path) -> None:
    distribution = from_folder(classes_of_images(tmp_path / "letters"))
    assert distribution.name == "letters"
    assert distribution.classes == ("class0", "class1", "class2")
    assert distribution.sample_shape == (1, 16, 16)
    assert distribution.sizes == (4, 4, 4)
    batch = distribution.sample(3, 2, 2, np.random.default_rng(0))
    for task, name in enumerate(batch.classes):
        levels = ((torch.cat((batch.support[task], batch.query[task])) + 1) * 127.5).round().unique().tolist()
        assert levels == [40 * int(str(name)[-1]) + number for number in range(4)]
    assert sum(len(distribution.split(name).classes) for name in ("train", "validation", "test")) == 3
    assert tasks.get(str(tmp_path / "letters")).fingerprint == distribution.fingerprint


def test_resizing_is_said_once(tmp_path: Path) -> None:
    root = classes_of_images(tmp_path)
    save(root / "class0" / "large.png", np.full((40, 20), 200))
    save(root / "class2" / "small.png", np.full((8, 8), 200))
    with pytest.warns(UserWarning, match="resized") as caught:
        distribution = from_folder(root)
    assert [str(one.message) for one in caught] == [
        "resized 2 of 14 images to 16x16, from sizes between 8x8 and 20x40"
    ]
    assert distribution.sizes == (5, 4, 5)


def test_colour(tmp_path: Path) -> None:
    pixels = np.zeros((6, 6, 3))
    pixels[:, :3, 0] = 255
    pixels[:, 3:, 2] = 255
    save(tmp_path / "a.png", pixels)
    colour = load_images(tmp_path, size=6, channels=3)
    assert colour.shape == (1, 3, 6, 6)
    assert colour[0, :, 0, 0].tolist() == [1.0, -1.0, -1.0]
    assert colour[0, :, 5, 5].tolist() == [-1.0, -1.0, 1.0]
    grey = load_images(tmp_path, size=6, channels=1)
    assert grey.shape == (1, 1, 6, 6)
    assert float(grey[0, 0, 0, 0]) == pytest.approx(76 / 127.5 - 1)  # 0.299 of red


def test_load_images_order_and_values(tmp_path: Path) -> None:
    for name, level in (("b.png", 255), ("a.png", 0), ("sub/c.png", 51)):
        save(tmp_path / name, np.full((16, 16), level))
    got = load_images(tmp_path)
    assert got.dtype == torch.float32
    assert got[:, 0, 3, 3].tolist() == pytest.approx([-1.0, 1.0, -0.6])


def test_transparency_is_laid_over_white(tmp_path: Path) -> None:
    pixels = np.zeros((16, 16, 4))
    pixels[4:8, 4:8, 3] = 255  # black ink on nothing
    save(tmp_path / "a.png", pixels)
    got = load_images(tmp_path)
    assert (float(got[0, 0, 0, 0]), float(got[0, 0, 5, 5])) == (1.0, -1.0)


def test_sixteen_bits_are_scaled(tmp_path: Path) -> None:
    Image.fromarray(np.full((16, 16), 32768, dtype=np.uint16)).save(tmp_path / "a.png")
    assert load_images(tmp_path)[0, 0, 0, 0].item() == pytest.approx(0.0, abs=0.01)


def test_floats_are_scaled_from_one(tmp_path: Path) -> None:
    pixels = np.zeros((16, 16), dtype=np.float32)
    pixels[:, 4:8], pixels[:, 8:] = 0.2, 1
    Image.fromarray(pixels).save(tmp_path / "a.tiff")
    for channels in (1, 3):
        got = load_images(tmp_path, channels=channels)
        assert got.shape == (1, channels, 16, 16)
        assert got[0, -1, 0, ::5].tolist() == pytest.approx([-1.0, -0.6, 1.0, 1.0])


@pytest.mark.parametrize("level", [-0.1, 1.5, 255.0, np.nan, np.inf])
def test_floats_of_unknown_scale_are_refused(tmp_path: Path, level: float) -> None:
    pixels = np.full((16, 16), 0.5, dtype=np.float32)
    pixels[3, 3] = level
    Image.fromarray(pixels).save(tmp_path / "a.tiff")
    with pytest.raises(
        ValueError, match=r"expected floats from 0 \(black\) to 1 \(white\) in .*a\.tiff, got"
    ):
        load_images(tmp_path)


def test_thirty_two_bits_are_scaled_as_sixteen(tmp_path: Path) -> None:
    Image.fromarray(np.full((16, 16), 32768, dtype=np.int32)).save(tmp_path / "a.tiff")
    Image.fromarray(np.zeros((16, 16), dtype=np.int32)).save(tmp_path / "b.tiff")
    (tmp_path / "c.pgm").write_bytes(b"P5 16 16 65535\n" + 256 * b"\x00\x80")
    got = load_images(tmp_path)[:, 0, 0, 0]
    assert got.tolist() == pytest.approx([0.0, -1.0, -1.0], abs=0.01)


@pytest.mark.parametrize(
    ("level", "message"),
    [
        (65536, r"from 0 \(black\) to 65535 \(white\) in .*a\.tiff, got 7 to 65536"),
        (-1, "got -1 to 7"),
        (255, r"beyond 255, .* got at most 255, .* save the image with 8 or 16 bits"),
    ],
)
def test_thirty_two_bits_of_unknown_scale_are_refused(tmp_path: Path, level: int, message: str) -> None:
    pixels = np.full((16, 16), 7, dtype=np.int32)
    pixels[3, 3] = level
    Image.fromarray(pixels).save(tmp_path / "a.tiff")
    with pytest.raises(ValueError, match=message):
        load_images(tmp_path)


def test_a_turned_photo_is_turned_back(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    pixels = np.zeros((16, 16))
    pixels[:4] = 255
    save(tmp_path / "a.png", pixels, exif=exif)
    got = load_images(tmp_path)
    assert (float(got[0, 0, 0, 0]), float(got[0, 0, 15, 15])) == (-1.0, 1.0)


def test_hidden_files_and_notes_are_passed_over(tmp_path: Path) -> None:
    root = classes_of_images(tmp_path)
    (root / "class0" / ".DS_Store").write_bytes(b"x")
    (root / "class0" / "notes.txt").write_text("x")
    (root / ".git").mkdir()
    (root / "readme.md").write_text("x")
    assert from_folder(root).sizes == (4, 4, 4)


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "header"])
def test_an_unreadable_image_is_named(tmp_path: Path, damage: str) -> None:
    root = classes_of_images(tmp_path)
    noise = np.random.default_rng(0).integers(256, size=(16, 16))
    bad = save(root / "class1" / "bad.png", noise)
    data = bad.read_bytes()
    bad.write_bytes(
        {"cut": data[: len(data) // 2], "text": b"hello", "empty": b"", "header": data[:20] + b"zz"}[damage]
    )
    with pytest.raises(ValueError, match=r"expected a readable image, got .*class1.bad\.png"):
        from_folder(root)
    with pytest.raises(ValueError, match=r"bad\.png"):
        load_images(root / "class1")


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "large.png", np.zeros((64, 64)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)
    with pytest.raises(ValueError, match=r"large\.png .*decompression bomb"):
        load_images(tmp_path)


def test_wrong_folders(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere, which does not exist"):
        from_folder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"one folder of images per class in .*, got no folders"):
        from_folder(tmp_path)
    with pytest.raises(ValueError, match=r"expected images in .*, got none"):
        load_images(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotADirectoryError, match="file, which is a file"):
        from_folder(tmp_path / "file")
    root = classes_of_images(tmp_path / "images")
    (root / "empty").mkdir()
    with pytest.raises(ValueError, match=r"at least 2 images in the class folder .*empty, got 0"):
        from_folder(root)
    with pytest.raises(ValueError, match="expected size to be a whole number >= 1, got 0"):
        from_folder(root, size=0)
    with pytest.raises(ValueError, match=r"expected channels to be 1 \(grey\) or 3 \(colour\), got 2"):
        load_images(root, channels=2)


@pytest.mark.parametrize("beside", [False, True])
def test_folders_of_classes_are_no_class(tmp_path: Path, beside: bool) -> None:
    """The layout of torchvision's ImageFolder, with its parts on top: each part would become one class."""
    for name in ("train", "val", "test"):
        classes_of_images(tmp_path / name)
        if beside:
            save(tmp_path / name / "cover.png", np.zeros((16, 16)))
    side_by_side = (
        r"expected one folder of images a class, got folders within .*test that hold images side by side"
    )
    with pytest.raises(ValueError, match=rf"{side_by_side} \(class0 and class1\); .* point to"):
        from_folder(tmp_path)
    assert from_folder(tmp_path / "train", split=(1, 0, 0)).sizes == (4, 4, 4)
    with pytest.raises(ValueError, match=side_by_side):
        load_images(tmp_path / "test")
    with pytest.raises(ValueError, match=r"\(\w+ and \w+\)" if beside else r"test/class0 and test/class1"):
        load_images(tmp_path)


def test_a_class_may_lie_deeper(tmp_path: Path) -> None:
    root = classes_of_images(tmp_path)
    for place in ("inner/scans", "inner/scans/late", ".thumbnails"):
        save(root / "class0" / place / "x.png", np.zeros((16, 16)))
    (root / "class0" / "notes").mkdir()
    assert from_folder(root).sizes == (6, 4, 4)
