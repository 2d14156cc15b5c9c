"""Imports follow the flow modules -> plan -> engine -> bindings, and derivatives stay where they belong.

Python files are read as syntax trees, so words in docstrings and comments do not count.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "pymgan"
FILES = sorted(PACKAGE.rglob("*.py"))
SOURCES = [p for p in sorted((ROOT / "csrc").rglob("*")) if p.suffix in {".h", ".cpp", ".cu", ".cuh"}]
KERNELS = sorted((ROOT / "kernels").glob("*.py"))
LONGEST = 600

# Files that may import the compiled module: the plan fills its record, engines run it, `engine` reports it.
COMPILED = {
    "plan",
    "engine",
    "cpu_engine",
    "cuda_engine",
    "list_engine",
    "torch_interpreter",
    "triton_engine",
    "triton_interpreter",
    "triton_tables",
}
# Files that may differentiate with torch: the oracle, the autograd wrapper around an engine, and the policy gradient of RL².
DIFFERENTIATING = {"reference", "reference_layers", "reference_losses", "adapt", "rl2.ppo"}

# Every file's place in the flow; it imports its own place and lower ones. What is not listed is at FACE.
PLACES = {
    **dict.fromkeys(["_version", "errors"], 0),
    "gan": 1,
    "nn": 1,
    "plan": 2,
    "plan_layers": 2,
    "spectral": 1,
    **dict.fromkeys(["buffers", "checks", "contract", "meta_gradient", "noise", "task_sum", "updates"], 3),
    **dict.fromkeys(
        [
            "address_engine",
            "cpu_engine",
            "cuda_engine",
            "frame",
            "list_engine",
            "torch_augment",
            "torch_engine",
            "torch_formulas",
            "torch_interpreter",
            "torch_spectral",
            "torch_tables",
            "triton_engine",
            "triton_interpreter",
            "triton_tables",
            "reference",
            "reference_augment",
            "reference_layers",
            "reference_losses",
            "reference_optimisers",
            "reference_spectral",
        ],
        4,
    ),
    "selection": 4,
    "engine": 5,
    "adapt": 6,
    **dict.fromkeys(["tasks", "metrics"], 6),
}
FACE = 7
# The package's own face and the command line stand above everything.
TOP = dict.fromkeys(["", "cli", "__main__"], 8)


def module_of(path: Path) -> str:
    """ "engine" for pymgan/engine.py, "meta.maml", and "" for the package itself."""
    parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[tuple[str, ast.stmt, bool]]:
    """(absolute dotted name, statement, is for type checking only) of every import, wherever it stands."""
    package = ["pymgan", *path.relative_to(PACKAGE).parent.parts]

    def walk(node: ast.AST, typing_only: bool) -> Iterator[tuple[str, ast.stmt, bool]]:
        for child in ast.iter_child_nodes(node):
            inside = typing_only or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield alias.name, child, inside
            elif isinstance(child, ast.ImportFrom):
                base = package[: len(package) - child.level + 1] if child.level else []
                stem = ".".join([*base, *([child.module] if child.module else [])])
                for alias in child.names:
                    yield f"{stem}.{alias.name}", child, inside
            else:
                yield from walk(child, inside)

    yield from walk(tree(path), False)


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def own_module(name: str) -> str | None:
    """The file that an import's dotted name reaches, as `module_of` names it; None outside of pymgan/, as the kernels are."""
    if name.split(".")[0] != "pymgan":
        return None
    parts = name.split(".")[1:]
    if parts[:1] == ["_kernels"]:
        return None
    while parts and not (
        PACKAGE.joinpath(*parts).with_suffix(".py").exists() or PACKAGE.joinpath(*parts).is_dir()
    ):
        parts.pop()
    return ".".join(parts)


def place(module: str) -> int:
    return TOP.get(module, PLACES.get(module.split(".")[0], FACE))


def dotted(node: ast.expr) -> str:
    """ "torch.autograd.grad" of an attribute chain; "" when it does not start at a name."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def differentiations(source: ast.Module) -> list[str]:
    """Every use of torch's derivatives: imports, attribute chains and ``.backward()``."""
    forbidden = re.compile(r"(torch\.(autograd|func|_functorch)|functorch)(\.|$)")
    found = []
    for node in ast.walk(source):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute):
            names = [dotted(node)]
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "backward"
        ):
            found.append(f"line {node.lineno}: .backward()")
        found += [f"line {node.lineno}: {name}" for name in names if forbidden.match(name)]
    return found


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=name)
def test_compiled_module_is_imported_by_the_engine_layer_alone(path: Path) -> None:
    found = [
        f"line {at.lineno}" for what, at, _ in imports(path) if what.split(".")[:2] == ["pymgan", "_core"]
    ]
    assert not found or module_of(path) in COMPILED, f"imports pymgan._core: {found}"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_derivatives_of_torch_appear_in_the_oracle_and_in_adapt_alone(path: Path) -> None:
    found = differentiations(tree(path))
    assert not found or module_of(path) in DIFFERENTIATING, found


@pytest.mark.parametrize("path", FILES, ids=name)
def test_imports_do_not_go_against_the_flow(path: Path) -> None:
    own = module_of(path)
    against = [
        f"line {at.lineno}: {target or 'pymgan'}"
        for what, at, typing_only in imports(path)
        if not typing_only and (target := own_module(what)) is not None and what != "pymgan._core"
        if target != own and place(target) > place(own)
    ]
    assert not against, "a file that only lower ones need gets its place in PLACES"


def test_no_import_cycles() -> None:
    """Among imports that run when a module is loaded: those at the top of a file."""
    graph: dict[str, set[str]] = {}
    for path in FILES:
        top = {id(node) for node in tree(path).body}
        lines = {node.lineno for node in tree(path).body}
        assert top
        targets = {
            own_module(what)
            for what, at, typing_only in imports(path)
            if at.lineno in lines and not typing_only
        }
        graph[module_of(path)] = {t for t in targets if t}
    done: set[str] = set()

    def visit(module: str, trail: list[str]) -> None:
        assert module not in trail, " -> ".join([*trail, module])
        if module not in done:
            for target in sorted(graph.get(module, ())):
                if target != module:
                    visit(target, [*trail, module])
            done.add(module)

    for module in sorted(graph):
        visit(module, [])


def test_only_the_triton_engine_knows_the_kernels() -> None:
    users = {
        module_of(path)
        for path in FILES
        for what, _, typing_only in imports(path)
        if what.startswith("pymgan._kernels") and not typing_only
    }
    assert users == {"triton_engine", "triton_interpreter", "triton_tables"}


@pytest.mark.parametrize("path", KERNELS, ids=name)
def test_kernels_know_triton_torch_and_each_other_alone(path: Path) -> None:
    modules = {
        alias.name if isinstance(node, ast.Import) else "." * node.level + (node.module or "")
        for node in ast.walk(tree(path))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    }
    own = {"." + other.stem for other in KERNELS}
    known = {"__future__", "collections", "dataclasses", "functools", "os", "typing", "torch", "triton"}
    assert {module for module in modules if module.split(".")[0] not in known} <= own


@pytest.mark.parametrize("path", [*FILES, *KERNELS], ids=name)
def test_no_assert_statements_in_the_package(path: Path) -> None:
    found = [f"line {node.lineno}" for node in ast.walk(tree(path)) if isinstance(node, ast.Assert)]
    assert not found, "user input is checked with exceptions; python -O drops an assert"


def test_no_file_is_too_long() -> None:
    files = [*FILES, *KERNELS, *SOURCES]
    for folder in ("tests", "bench"):
        files += [p for p in (ROOT / folder).rglob("*") if p.suffix in {".py", ".h", ".cpp"}]
    long = {name(p): n for p in files if (n := len(p.read_text(encoding="utf-8").splitlines())) > LONGEST}
    assert not long, f"expected at most {LONGEST} lines"


def test_only_the_bindings_know_pybind11_and_nothing_knows_torch() -> None:
    found = {}
    for path in SOURCES:
        includes = re.findall(
            r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', path.read_text(encoding="utf-8"), re.MULTILINE
        )
        framework = [i for i in includes if re.match(r"(pybind11|torch|ATen|c10|Python\.h|numpy)", i)]
        if framework and not (
            path.stem.startswith("bindings") and all(i.startswith("pybind11") for i in framework)
        ):
            found[name(path)] = framework
    assert not found


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("import torch\ntorch.autograd.grad(x, y)", 2),  # torch.autograd.grad, and torch.autograd within it
        ("from torch.func import vjp", 1),
        ("from torch import func", 1),
        ("import functorch", 1),
        ("loss.backward()", 1),
        ('"""torch.autograd and torch.func are not used here."""', 0),
        ("torch.functional.norm(x)  # torch.func", 0),
        ("x.func.y", 0),
    ],
)
def test_the_search_for_derivatives_itself(source: str, count: int) -> None:
    assert len(differentiations(ast.parse(source))) == count
