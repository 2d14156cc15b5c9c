"""``python -m tests.triton_formulas``: writes what Triton kernels know of activations, losses, penalties and optimisers, from the
formulas that the compiled core exports. A test compares the files with what is `generated`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymgan._core as core

from pymgan.contract import OPTIMISERS

FOLDER = Path(__file__).resolve().parent.parent / "kernels"
ACTIVATIONS = [name for name in core.Activation.__members__ if name != "identity"]
LOSSES = list(core.Loss.__members__)
TERMS = ("g", "g_real", "d_fake", "d_real")
PENALTIES = [name for name in core.PenaltyKind.__members__ if name != "none"]
PARTS = ("direction", "m0", "m1", "w", "v0", "v1")
KNOBS = ("momentum", "beta1", "beta2", "rest1", "rest2", "bias1", "bias2", "eps", "past", "norm", "along")
VARIABLES = ("F", "m0", "m1", "a", "v0", "v1", *KNOBS)

INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
CALLS = {
    "exp": "tl.exp",
    "expm1": "expm1",
    "log1p": "log1p",
    "tanh": "tanh",
    "erf": "tl.erf",
    "abs": "tl.abs",
    "sqrt": "tl.sqrt",
    "max": "maximum",
}
FOLDED = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "neg": lambda a: -a,
}

HEAD = '''"""{title} in Triton.

Made by ``python -m tests.triton_formulas`` from what the compiled core exports; not to be edited.
"""

import triton
import triton.language as tl

{imports}'''


def _uses(formula: tuple[Any, ...], found: Counter[tuple[Any, ...]]) -> None:
    """Counts how often each part of a formula is wanted, given that what is wanted twice is computed once."""
    found[formula] += 1
    if found[formula] == 1:
        for argument in formula[1:]:
            if isinstance(argument, tuple):
                _uses(argument, found)


class Body:
    """The statements of one formula, with a name for each part that is used more than once."""

    def __init__(self, formula: tuple[Any, ...], called: dict[str, str]) -> None:
        self.called = called
        self.uses: Counter[tuple[Any, ...]] = Counter()
        _uses(formula, self.uses)
        self.known: dict[tuple[Any, ...], str] = {}
        self.lines: list[str] = []
        self.result = self.value(formula)

    def value(self, formula: tuple[Any, ...]) -> str | float:
        """A number, or an expression that is an operand as it stands."""
        kind, *arguments = formula
        if kind == "constant":
            return float(arguments[0])
        if kind == "variable":
            return self.called.get(arguments[0], str(arguments[0]))
        if formula in self.known:
            return self.known[formula]
        text = self._operation(kind, [self.value(argument) for argument in arguments])
        if isinstance(text, str) and self.uses[formula] > 1:
            self.known[formula] = f"t{len(self.lines)}"
            self.lines.append(f"{self.known[formula]} = {text}")
            return self.known[formula]
        return f"({text})" if kind in INFIX and isinstance(text, str) else text

    def _operation(self, kind: str, values: list[Any]) -> str | float:
        if kind in FOLDED and all(isinstance(value, float) for value in values):
            return FOLDED[kind](*values)
        if kind == "neg":
            return f"-{values[0]}"
        if kind in INFIX:
            return f"{values[0]} {INFIX[kind]} {values[1]}"
        if kind == "where_positive":
            return f"tl.where({values[0]} > 0.0, {values[1]}, {values[2]})"
        return f"{CALLS[kind]}({', '.join(map(str, values))})"


def _lines(formula: tuple[Any, ...], like: str, **called: str) -> list[str]:
    """Statements that leave a formula's value, of the shape of the variable `like`, in y; variables may be `called` otherwise."""
    body = Body(formula, called)
    if isinstance(body.result, float):
        return [f"y = tl.full({like}.shape, {body.result}, {like}.dtype)"]
    return [*body.lines, f"y = {body.result}"]


def _choice(name: str, options: list[tuple[str, list[str]]], otherwise: list[str]) -> list[str]:
    """One of several blocks by the constant `name`."""
    lines = []
    for i, (value, block) in enumerate(options):
        lines += [f"{'elif' if i else 'if'} {name} == {value}:", *(f"    {line}" for line in block)]
    return [*lines, "else:", *(f"    {line}" for line in otherwise)]


def _function(head: str, doc: str, body: list[str]) -> list[str]:
    lines = ["", "@triton.jit", f"def {head}:"]
    return [*lines, *([f'    """{doc}"""'] if doc else []), *(f"    {line}" for line in body), ""]


def _activations() -> Iterator[list[str]]:
    for name in ACTIVATIONS:
        kind = core.Activation.__members__[name]
        blocks = [(str(n), _lines(core.activation_formula(kind, n), "x", ref="x")) for n in range(4)]
        body = _choice("ORDER", blocks[:3], blocks[3][1])
        yield _function(f"_{name}(x, p0, p1, ORDER: tl.constexpr)", "", [*body, "return y"])
    yield _function(
        "activation(x, p0, p1, KIND: tl.constexpr, ORDER: tl.constexpr)",
        "f (order 0, of x), or a derivative at `ref`, which is the activation's output or what went in.",
        [
            *_choice(
                "KIND",
                [(f'"{name}"', [f"y = _{name}(x, p0, p1, ORDER)"]) for name in ACTIVATIONS],
                ["y = x", "if ORDER > 0:", "    y = tl.full(x.shape, 1.0 if ORDER == 1 else 0.0, x.dtype)"],
            ),
            "return y",
        ],
    )


def _losses() -> Iterator[list[str]]:
    for loss in LOSSES:
        blocks = []
        for term in TERMS:
            by_order = [_lines(core.loss_formula(loss, term, order), "s") for order in range(3)]
            blocks.append(
                (f'"{term}"', _choice("ORDER", [("0", by_order[0]), ("1", by_order[1])], by_order[2]))
            )
        body = _choice("TERM", blocks[:-1], blocks[-1][1])
        yield _function(f"_{loss}(s, e, TERM: tl.constexpr, ORDER: tl.constexpr)", "", [*body, "return y"])
    calls = [(f'"{loss}"', [f"y = _{loss}(s, e, TERM, ORDER)"]) for loss in LOSSES]
    yield _function(
        "loss_term(s, e, LOSS: tl.constexpr, TERM: tl.constexpr, ORDER: tl.constexpr)",
        "A loss's term of scores s, or a derivative; e is the smoothing.",
        [*_choice("LOSS", calls[:-1], calls[-1][1]), "return y"],
    )
    options = []
    for penalty in PENALTIES:
        kind = core.PenaltyKind.__members__[penalty]
        by_order = [_lines(core.penalty_formula(kind, order), "n") for order in range(3)]
        block = _choice("ORDER", [("0", by_order[0]), ("1", by_order[1])], by_order[2])
        options.append((f'"{penalty}"', block))
    yield _function(
        "penalty_term(n, eps, KIND: tl.constexpr, ORDER: tl.constexpr)",
        "A penalty in the squared norms n of gradients, or a derivative.",
        [*_choice("KIND", options[:-1], options[-1][1]), "return y"],
    )


def _optimisers() -> Iterator[list[str]]:
    for part in PARTS:
        start = {"direction": "F", "w": "a"}.get(part, part)
        body = [f"result = {start}"]
        for i, kind in enumerate(OPTIMISERS):
            lines = _lines(core.optimiser_formula(kind, part), start)
            body += [f"if (KINDS >> {i}) & 1:  # {kind}"]
            body += [f"    {line}" for line in lines]
            body += [f"    result = tl.where(kind == {i}, y, result)"]
        yield _function(
            f"{part}_of(kind, {', '.join(VARIABLES)}, KINDS: tl.constexpr)",
            "Of each task's own optimiser `kind`, a number in pymgan.contract.OPTIMISERS; KINDS has a bit for each that occurs.",
            [*body, "return result"],
        )


def generated() -> dict[Path, str]:
    """The files and their text."""
    found = {}
    for stem, title, functions in (
        ("activations", "Activations: the formulas of csrc/formulas.h", _activations()),
        ("losses", "Losses and penalties: the formulas of csrc/formulas.h", _losses()),
        ("optimisers", "Inner optimisers: the formulas of csrc/optimisers.h", _optimisers()),
    ):
        text = "\n".join("\n".join(function) + "\n" for function in functions).rstrip("\n") + "\n"
        used = [
            name for name in ("expm1", "log1p", "maximum", "tanh") if f"{name}(" in text.replace("_tanh(", "")
        ]
        imports = f"from .arithmetic import {', '.join(used)}\n\n" if used else ""
        found[FOLDER / f"{stem}.py"] = HEAD.format(title=title, imports=imports) + text
    return found


if __name__ == "__main__":
    for path, text in generated().items():
        path.write_text(text, encoding="utf-8")
