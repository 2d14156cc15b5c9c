"""What an installation holds, and that the checkout's root does not hide it.

The tests of archives run where PYMGAN_DIST names a folder with one sdist and one wheel, as in `.ci/run`.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import pymgan

ROOT = Path(__file__).resolve().parent.parent
DIST = os.environ.get("PYMGAN_DIST")
needs_archives = pytest.mark.skipif(not DIST, reason="PYMGAN_DIST names no folder with an sdist and a wheel")


def python(code: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=False)


def test_the_version_has_one_home() -> None:
    newest = re.search(r"^## (\d\S*)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest is not None
    assert importlib.metadata.version("pymgan") == pymgan.__version__ == newest.group(1)


def test_the_root_imports_the_checkout_and_finds_the_installed_extension() -> None:
    done = python("import pymgan, pymgan._core as c; print(pymgan.__file__); print(c.__file__)")
    assert done.returncode == 0, done.stderr
    package, extension = map(Path, done.stdout.split())
    assert package == ROOT / "pymgan" / "__init__.py"
    assert extension.suffix in {".so", ".pyd"}


def test_it_imports_from_elsewhere_too(tmp_path: Path) -> None:
    done = python("import pymgan; print(pymgan.__version__)", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == pymgan.__version__


def test_it_imports_without_triton_and_without_a_gpu() -> None:
    code = (
        "import os, sys; os.environ['CUDA_VISIBLE_DEVICES'] = ''; sys.modules['triton'] = None; import pymgan"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr


def test_the_installed_kernels_are_those_of_the_checkout() -> None:
    done = python("import importlib.util; print(importlib.util.find_spec('pymgan._kernels').origin)")
    assert done.returncode == 0, done.stderr
    installed = {path.name: path.read_bytes() for path in Path(done.stdout.strip()).parent.glob("*.py")}
    own = {path.name: path.read_bytes() for path in (ROOT / "kernels").glob("*.py")}
    assert installed == own, "install this checkout again (pip install -c constraints.txt .)"


@pytest.mark.skipif(shutil.which("readelf") is None, reason="no readelf")
def test_the_extension_links_neither_torch_nor_cuda() -> None:
    """With the cuda engine, too: its runtime is linked statically, and looks for the driver when it is used."""
    spec = importlib.util.find_spec("pymgan._core")
    assert spec is not None
    assert spec.origin is not None
    listed = subprocess.run(["readelf", "-d", spec.origin], capture_output=True, text=True, check=True).stdout
    needed = re.findall(r"\(NEEDED\).*\[(.*)\]", listed)
    assert any(name.startswith("libc.") for name in needed)
    assert not [name for name in needed if re.match(r"lib(torch|c10|cudart|cuda|nv)", name)]


def test_the_command_line_runs_from_the_root() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pymgan", "env"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert pymgan.__version__ in done.stdout


def requirements() -> list[Requirement]:
    return [Requirement(line) for line in importlib.metadata.requires("pymgan") or []]


def test_triton_is_asked_for_on_linux_alone() -> None:
    (triton,) = [r for r in requirements() if r.name == "triton"]
    assert triton.marker is not None
    assert triton.marker.evaluate({"platform_system": "Linux"})
    assert not triton.marker.evaluate({"platform_system": "Darwin"})


def test_every_extra_is_there_and_every_requirement_is_constrained() -> None:
    extras = set(importlib.metadata.metadata("pymgan").get_all("Provides-Extra") or [])
    assert extras == {"all", "bench", "dev", "test"}
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    for requirement in requirements():
        same = [pin for pin in pins if canonicalize_name(pin.name) == canonicalize_name(requirement.name)]
        assert same, f"constraints.txt does not name {requirement.name}"
        for pin in same:
            exact = [s.version for s in pin.specifier if s.operator in {"==", "<="}]
            assert all(requirement.specifier.contains(v) for v in exact), f"{pin} is outside of {requirement}"


def tracked(*folders: str) -> set[str]:
    """Files that git knows under these folders."""
    listed = subprocess.run(
        ["git", "ls-files", "--", *folders], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode or not listed.stdout:
        pytest.skip("not a git checkout")
    return set(listed.stdout.split())


def archive(pattern: str) -> Path:
    (path,) = Path(str(DIST)).glob(pattern)
    return path


@needs_archives
def test_the_sdist_holds_what_is_needed_and_nothing_else() -> None:
    with tarfile.open(archive("*.tar.gz")) as sdist:
        names = {name.split("/", 1)[1] for name in (m.name for m in sdist.getmembers() if m.isfile())}
    folders = ("csrc", "kernels", "pymgan", "tests", "bench", "docs")
    top = {"CMakeLists.txt", "pyproject.toml", "constraints.txt", "README.md", "LICENSE", "CHANGELOG.md"}
    expected = tracked(*folders) | top | {"CONTRIBUTING.md"}
    assert names - {"PKG-INFO"} == expected


@needs_archives
def test_the_wheel_holds_the_package_and_one_extension() -> None:
    with zipfile.ZipFile(archive("*.whl")) as wheel:
        names = {n for n in wheel.namelist() if ".dist-info/" not in n}
        info = {n.split(".dist-info/")[1] for n in wheel.namelist() if ".dist-info/" in n}
    extensions = {n for n in names if n.endswith((".so", ".pyd"))}
    assert len(extensions) == 1
    assert next(iter(extensions)).startswith("pymgan/_core.")
    kernels = {f"pymgan/_{path}" for path in tracked("kernels")}
    assert names - extensions == tracked("pymgan") | kernels
    assert {"METADATA", "entry_points.txt", "licenses/LICENSE"} <= info
