"""Glyphs: which classes there are, which faces a task shows, and how a picture becomes a sample."""

from __future__ import annotations

import hashlib
import os
import pickle
import time
import unicodedata
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pymgan import metrics, tasks
from pymgan.tasks import cache, glyph_bank
from pymgan.tasks.glyph_alphabet import ALPHABET, TWINS, candidates, derive, differences
from pymgan.tasks.glyph_bank import GlyphBank
from pymgan.tasks.glyph_fonts import FACES, Face
from pymgan.tasks.glyph_tasks import Glyphs, _affine


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYMGAN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def glyphs(_own_cache: None) -> Glyphs:
    return tasks.glyphs()


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def faces_of(
    distribution: Glyphs, shots: int, queries: int, seed: int = 0
) -> list[tuple[list[int], list[int]]]:
    """The faces of every class's support and queries."""
    rows = distribution._bank.rows
    face = {int(row): number for line in rows for number, row in enumerate(line) if row >= 0}
    chosen = np.asarray(distribution._chosen)
    drawn = distribution._pictures(chosen, shots, queries, generator(seed))
    for index, line in zip(chosen, drawn, strict=True):
        assert set(line) <= set(rows[index][rows[index] >= 0]), "a picture of another class"
    return [([face[int(r)] for r in line[:shots]], [face[int(r)] for r in line[shots:]]) for line in drawn]


# --- classes


def test_the_list_is_what_the_rule_gives() -> None:
    assert derive() == ALPHABET


def test_the_alphabet() -> None:
    assert len(ALPHABET) == len(set(ALPHABET)) == 547
    assert len(candidates([Face(name) for name in FACES])) == 637
    assert {unicodedata.category(one) for one in ALPHABET} == {"Lu", "Ll", "Lo", "Nd"}
    assert not any(unicodedata.decomposition(one) for one in ALPHABET)
    scripts = {unicodedata.name(one).split()[0] for one in ALPHABET}
    assert {"DIGIT", "LATIN", "GREEK", "CYRILLIC", "ARMENIAN", "GEORGIAN"} <= scripts


def test_one_of_each_twins_is_left() -> None:
    assert set("0123456789") | {chr(c) for r in ((65, 91), (97, 123)) for c in range(*r)} <= set(ALPHABET)
    twins = "\u0391\u0410\u0415\u0395\u041e\u039f\u0555\u0430\u0435\u043e\u03bf\u0585\u0456\u0440\u0441\u0445"
    assert not set(twins) & set(ALPHABET)
    assert sum(one in ALPHABET for one in "\u00d0\u0110\u0189") == 1  # three capitals D with a stroke


def test_twins_differ_less_than_letters() -> None:
    faces = [Face(name) for name in ("DejaVuSans", "DejaVuSerif", "STIXGeneral")]
    unlike = differences("A\u0391\u0410OQoC0", faces)
    assert np.allclose(np.diag(unlike), 0, atol=1e-6)
    assert unlike[0, 1] < TWINS / 5
    assert unlike[0, 2] < TWINS / 5
    rest = unlike[2:, 2:][np.triu_indices(6, 1)]
    assert (rest > TWINS).all()


def test_faces() -> None:
    faces = [Face(name) for name in FACES]
    assert len(faces) == 22
    assert all(max(face.characters) < 128 for face in faces if face.name.startswith("cm"))
    # A face without the character would draw a placeholder box; the same box for different characters.
    assert ord("\u4e2d") not in faces[0].characters
    with pytest.raises(FileNotFoundError, match=r"Nowhere.ttf"):
        Face("Nowhere")


def test_split_is_fixed(glyphs: Glyphs) -> None:
    parts = [glyphs.split(name).classes for name in ("train", "validation", "test")]
    assert [len(one) for one in parts] == [487, 20, 40]
    assert set().union(*parts) == set(ALPHABET)
    # Results are comparable only while these classes stay the same.
    assert (
        hashlib.sha256("".join(parts[1] + ("|",) + parts[2]).encode()).hexdigest()[:16] == "8054554f15f5b650"
    )


def test_wrong_splits(glyphs: Glyphs) -> None:
    with pytest.raises(ValueError, match="expected a split of train, validation, test, got 'dev'"):
        glyphs.split("dev")
    with pytest.raises(ValueError, match="which is a split already"):
        glyphs.split("test").split("train")


# --- pictures


def test_every_picture_is_whole_and_centred(glyphs: Glyphs) -> None:
    images, rows = glyphs._bank.images.numpy(), glyphs._bank.rows
    assert images.shape == (len(images), 32, 32)
    assert sorted(rows[rows >= 0].tolist()) == list(range(len(images)))
    assert (rows >= 0).sum(1).min() >= 10
    for axis in (1, 2):
        inked = images.any(axis)
        first, last = inked.argmax(1), 31 - inked[:, ::-1].argmax(1)
        assert first.min() >= 3, "cut off, or so large that a small turn would"
        assert last.max() <= 28
        assert np.abs((first + last) / 2 - 15.5).max() <= 1
    assert images.reshape(len(images), -1).sum(1).min() > 255 * 4


def test_pictures_keep_their_proportions(glyphs: Glyphs) -> None:
    def height(character: str, face: str) -> int:
        row = glyphs._bank.rows[ALPHABET.index(character), FACES.index(face)]
        return int(glyphs._bank.images[row].numpy().any(1).sum())

    # Capitals of an em of 0.8 * 32 pixels; a small o is lower than a capital one.
    for face in ("DejaVuSans", "STIXGeneral", "cmr10"):
        assert 15 <= height("H", face) <= 21
        assert height("o", face) < 0.85 * height("O", face)


def test_pictures_of_a_class_differ_between_faces_and_classes(glyphs: Glyphs) -> None:
    flat = glyphs._bank.images.flatten(1).numpy()
    for character in "gR\u0416\u10d0":
        own = [row for row in glyphs._bank.rows[ALPHABET.index(character)] if row >= 0]
        assert len({flat[row].tobytes() for row in own}) == len(own)
    regular = glyphs._bank.rows[:, 0]
    # Three pairs, such as Greek and Latin iota, are one drawing in this face and two in most others.
    assert len({flat[row].tobytes() for row in regular}) >= len(ALPHABET) - 3


# --- sampling


def test_batch(glyphs: Glyphs) -> None:
    batch = glyphs.sample(3, 5, 4, generator())
    assert batch.support.shape == (3, 5, 1, 16, 16)
    assert batch.query.shape == (3, 4, 1, 16, 16)
    assert batch.support.dtype == batch.query.dtype == torch.float32
    assert batch.support.is_contiguous()
    both = torch.cat((batch.support, batch.query), 1)
    assert float(both.min()) == -1.0
    assert 0.8 < float(both.max()) <= 1.0
    assert torch.equal(((both + 1) * 127.5).round() * (2 / 255) - 1, both), "not whole grey levels"
    assert all(name in ALPHABET for name in batch.classes)
    assert batch.ids.dtype == torch.int64
    assert len(set(batch.ids.tolist())) == 3


@pytest.mark.parametrize(("shots", "queries"), [(8, 8), (3, 20), (20, 1)])
def test_queries_have_faces_of_their_own(glyphs: Glyphs, shots: int, queries: int) -> None:
    for support, query in faces_of(glyphs, shots, queries):
        assert not set(support) & set(query)
        for side in (support, query):
            counts = np.bincount(side)
            counts = counts[counts > 0]
            assert counts.max() - counts.min() <= 1, "a face came twice before another came once"


def test_a_half_holds_half_of_the_faces(glyphs: Glyphs) -> None:
    for support, query in faces_of(glyphs, 60, 60):
        assert 0 <= len(set(support)) - len(set(query)) <= 1
        assert len(set(support)) + len(set(query)) >= 10


def test_halves_are_drawn_anew(glyphs: Glyphs) -> None:
    assert faces_of(glyphs, 4, 4, seed=0) != faces_of(glyphs, 4, 4, seed=1)
    seen = {face for seed in range(20) for face in faces_of(glyphs, 11, 11, seed)[10][0]}
    assert len(seen) == 22  # "A": every face is in some support


def test_shared_faces(glyphs: Glyphs) -> None:
    variant = glyphs.split("test").variants()["shared_faces"]
    assert isinstance(variant, Glyphs)
    assert variant.classes == glyphs.split("test").classes
    assert variant.fingerprint != glyphs.split("test").fingerprint
    assert variant.name == "glyphs-shared-faces"
    shared = [len(set(support) & set(query)) for support, query in faces_of(variant, 30, 30)]
    assert min(shared) >= 10  # all faces of the class on both sides
    assert variant.variants() == {}
    batch = variant.sample(40, 8, 8, generator())
    equal = (batch.support.unsqueeze(2) == batch.query.unsqueeze(1)).flatten(3).all(3)
    assert not bool(equal.any()), "a query is a support image"


def test_tasks_cover_the_classes_evenly(glyphs: Glyphs) -> None:
    test = glyphs.split("test")
    classes = test.sample(100, 1, 1, generator()).classes
    counts = [list(classes).count(one) for one in test.classes]
    assert set(counts) == {2, 3}
    assert len(set(glyphs.split("train").sample(487, 1, 1, generator()).classes)) == 487


def test_the_generator_decides_everything(glyphs: Glyphs) -> None:
    one, same, other = (glyphs.sample(4, 3, 2, generator(seed)) for seed in (5, 5, 6))
    assert torch.equal(one.support, same.support)
    assert torch.equal(one.query, same.query)
    assert torch.equal(one.ids, same.ids)
    assert one.classes == same.classes
    assert not torch.equal(one.ids, other.ids)
    assert not torch.equal(one.support, other.support)
    rng = generator(5)
    glyphs.sample(4, 3, 2, rng)
    assert not torch.equal(glyphs.sample(4, 3, 2, rng).ids, one.ids)


def test_threads_change_no_bit(glyphs: Glyphs) -> None:
    before = torch.get_num_threads()
    try:
        batches = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            batches.append(glyphs.sample(16, 8, 8, generator()).support)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(batches[0], batches[1])
    assert torch.equal(batches[0], batches[2])


def test_pickle(glyphs: Glyphs) -> None:
    test = glyphs.split("test")
    again = pickle.loads(pickle.dumps(test))
    assert again.fingerprint == test.fingerprint
    assert torch.equal(again.sample(2, 2, 2, generator()).query, test.sample(2, 2, 2, generator()).query)


def test_fingerprint_tells_distributions_apart(glyphs: Glyphs) -> None:
    images = glyphs._bank.images.clone()
    images[7, 16, 16] ^= 1
    changed = Glyphs(GlyphBank(images, glyphs._bank.rows), 16, shared_faces=False)
    parts = [glyphs.split(name) for name in ("train", "validation", "test")]
    prints = [one.fingerprint for one in (glyphs, changed, *parts)]
    assert len(set(prints)) == 5
    assert tasks.glyphs().fingerprint == glyphs.fingerprint


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 1, 1), "expected n_tasks >= 1, got 0"),
        ((1, 0, 1), "expected shots >= 1, got 0"),
        ((1, 1, -2), "expected queries >= 1, got -2"),
    ],
)
def test_wrong_counts(glyphs: Glyphs, arguments: tuple[int, int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        glyphs.sample(*arguments, generator())


def test_wrong_types(glyphs: Glyphs) -> None:
    with pytest.raises(TypeError, match=r"expected shots to be a whole number, got 2\.0"):
        glyphs.sample(1, 2.0, 1, generator())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"expected rng to be a generator .*, got int"):
        glyphs.sample(1, 1, 1, 0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected size to be a whole number >= 8, got 4"):
        tasks.glyphs(4)


# --- affine changes


def test_without_a_change_a_sample_is_the_picture(glyphs: Glyphs) -> None:
    rows = np.array([0, 40, 8000])
    identity = torch.tensor([[1.0, 0, 0], [0, 1, 0]]).expand(3, 2, 3)
    got = glyphs._resample(rows, identity)
    pictures = glyphs._bank.images[torch.from_numpy(rows)].float()
    # Two pixels of the picture for one of the sample: each sample is the mean of four.
    expected = F.avg_pool2d(pictures.unsqueeze(1), 2).round() * (2 / 255) - 1
    assert float((got - expected).abs().max()) <= 2.01 / 255
    assert float((got - expected).abs().mean()) < 1e-4


def test_a_change_is_what_torch_makes_of_it(glyphs: Glyphs) -> None:
    rows = np.arange(0, 8000, 500)
    affine = _affine(len(rows), generator())
    grid = F.affine_grid(affine, [len(rows), 1, 16, 16], align_corners=False)
    pictures = glyphs._bank.images[torch.from_numpy(rows)].unsqueeze(1).float()
    expected = F.grid_sample(pictures, grid, align_corners=False) * (2 / 255) - 1
    assert float((glyphs._resample(rows, affine) - expected).abs().max()) <= 1.02 / 255


def test_a_shift_moves_the_ink(glyphs: Glyphs) -> None:
    # Looking 2 pixels (of 16, so 0.25 of the range) further right and down moves the ink left and up.
    rows = np.array([100])
    still = torch.tensor([[[1.0, 0, 0], [0, 1, 0]]])
    moved = still + torch.tensor([[[0.0, 0, 0.25], [0, 0, 0.25]]])
    one, two = glyphs._resample(rows, still), glyphs._resample(rows, moved)
    assert torch.allclose(two[..., :14, :14], one[..., 2:, 2:], atol=2.01 / 255)


def test_changes_are_small_and_centred() -> None:
    maps = _affine(20000, generator()).double()
    forward = torch.linalg.inv(maps[:, :, :2])
    stretch = torch.linalg.svdvals(forward)
    assert 0.84 < float(stretch.min()) < 0.88  # exp(-0.1), and a shear of 0.1
    assert 1.13 < float(stretch.max()) < 1.18
    shift = -(forward @ maps[:, :, 2:]).squeeze(2)
    assert float(shift.abs().max()) == pytest.approx(0.1, abs=1e-3)
    # The y axis does not take part in the shear, so it shows the turn alone.
    turn = torch.atan2(forward[:, 1, 0], forward[:, 0, 0])
    assert float(turn.abs().max()) == pytest.approx(np.deg2rad(10), abs=1e-3)
    # Turned back, what is left is a scale and a shear along x.
    cos, sin = turn.cos(), turn.sin()
    rest = torch.stack((torch.stack((cos, sin), 1), torch.stack((-sin, cos), 1)), 1) @ forward
    assert float(rest[:, 1, 0].abs().max()) < 1e-6
    assert torch.allclose(rest[:, 0, 0], rest[:, 1, 1], rtol=1e-5)
    assert float((rest[:, 0, 1] / rest[:, 1, 1]).abs().max()) == pytest.approx(0.1, abs=1e-3)
    assert torch.allclose(maps.mean(0), torch.tensor([[1.0, 0, 0], [0, 1, 0]]).double(), atol=0.01)
    assert bool((torch.linalg.det(forward) > 0).all())


def test_samples_are_seldom_cut(glyphs: Glyphs) -> None:
    batch = glyphs.sample(547, 4, 4, generator())
    images = torch.cat((batch.support, batch.query), 1)[:, :, 0]
    border = torch.cat((images[..., 0, :], images[..., -1, :], images[..., 0], images[..., -1]), -1).amax(-1)
    assert float((border > 0).float().mean()) < 0.003


def test_classes_can_be_told_apart(glyphs: Glyphs) -> None:
    batch = glyphs.split("test").sample(40, 8, 8, generator())
    own = metrics.energy(batch.query, batch.support)
    other = metrics.energy(batch.query, batch.support.roll(1, 0))
    assert float(other.mean()) > 4 * float(own.mean())


def test_glyphs32_is_the_same_larger(glyphs: Glyphs) -> None:
    large = tasks.glyphs32()
    assert (large.name, large.sample_shape) == ("glyphs32", (1, 32, 32))
    assert large.split("test").classes == glyphs.split("test").classes
    small, big = glyphs.sample(8, 4, 4, generator()), large.sample(8, 4, 4, generator())
    assert small.classes == big.classes
    halved = F.avg_pool2d(big.support.flatten(0, 1), 2)
    difference = float((halved - small.support.flatten(0, 1)).abs().mean())
    assert difference < 0.05
    assert float((halved.roll(1, 0) - small.support.flatten(0, 1)).abs().mean()) > 4 * difference


def test_sampling_is_fast(glyphs: Glyphs) -> None:
    train, rng = glyphs.split("train"), generator()
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as in training; on a busy machine more threads wait for each other
    try:
        times = []
        for _ in range(100):
            start = time.perf_counter()
            train.sample(16, 8, 8, rng)
            times.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(before)
    assert min(times) < 2e-3


# --- the cache on disk


@pytest.fixture
def small_bank(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """An empty cache and a bank that is drawn at once; the list grows with every drawing."""
    drawn: list[int] = []

    def draw(size: int) -> tuple[np.ndarray, np.ndarray]:
        drawn.append(size)
        return np.full((3, 2 * size, 2 * size), 7, dtype=np.uint8), np.arange(3)[None]

    monkeypatch.setenv("PYMGAN_CACHE", str(tmp_path / "deep" / "cache"))
    monkeypatch.setattr(glyph_bank, "_draw_all", draw)
    return drawn


def test_cache_is_filled_and_used(small_bank: list[int], tmp_path: Path) -> None:
    first, second = glyph_bank.load_bank(16), glyph_bank.load_bank(16)
    assert small_bank == [16]
    assert torch.equal(first.images, second.images)
    assert np.array_equal(first.rows, second.rows)
    glyph_bank.load_bank(32)
    assert small_bank == [16, 32]
    files = sorted(path.name for path in (tmp_path / "deep" / "cache").iterdir())
    assert len(files) == 2, "temporary files are left"
    assert files[0].startswith("glyphs16-")


def test_cache_knows_versions(small_bank: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    import PIL

    glyph_bank.load_bank(16)
    monkeypatch.setattr(PIL, "__version__", "0.0")
    glyph_bank.load_bank(16)
    assert small_bank == [16, 16]


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_damaged_cache_is_drawn_again(small_bank: list[int], tmp_path: Path, damage: str) -> None:
    glyph_bank.load_bank(16)
    (path,) = (tmp_path / "deep" / "cache").iterdir()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes({"cut": data[:-9], "flip": data, "empty": b""}[damage])
    with pytest.warns(UserWarning, match="is damaged; computing it again"):
        bank = glyph_bank.load_bank(16)
    assert int(bank.images[0, 0, 0]) == 7
    glyph_bank.load_bank(16)
    assert small_bank == [16, 16], "the damaged file was not replaced"


def test_unwritable_cache(small_bank: list[int], tmp_path: Path) -> None:
    (tmp_path / "deep").write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="cache") as caught:
        bank = glyph_bank.load_bank(16)
    assert int(bank.images[0, 0, 0]) == 7
    assert any(
        "cannot write the cache" in str(one.message) and "PYMGAN_CACHE" in str(one.message) for one in caught
    )


def test_full_disk_leaves_no_half_file(
    small_bank: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: str, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.warns(UserWarning, match="No space left"):
        cache.store("x", {"a": np.zeros(3)})
    assert list((tmp_path / "deep" / "cache").iterdir()) == []


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYMGAN_CACHE", str(tmp_path))
    assert cache.directory() == tmp_path
    monkeypatch.delenv("PYMGAN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.directory() == tmp_path / "pymgan"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/ignored")
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache.directory() == Path("/home/someone/.cache/pymgan")


def test_missing_cache_is_silent(small_bank: list[int]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cache.load("nothing") is None
        glyph_bank.load_bank(16)
