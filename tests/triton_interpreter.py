"""Makes Triton's interpreter quick enough to run whole games in.

It scans the language's modules for what to replace by numpy whenever one jitted function calls another, although the launch has
done so already, and again for every launch. Here that is done once. What kernels compute is not touched.
"""

from __future__ import annotations

import os
from typing import Any

__all__ = ["hasten"]


class _Kept:
    """The scope of what has been replaced, which stays so."""

    def restore(self) -> None:
        pass


def hasten() -> None:
    """In this process, if it interprets Triton at all; does nothing with a Triton that works otherwise."""
    if os.environ.get("TRITON_INTERPRET") != "1":
        return
    try:
        import triton
        import triton.runtime.interpreter as interpreter
    except ImportError:
        return
    patch = getattr(interpreter, "_patch_lang", None)
    if patch is None:
        return
    done: set[int] = set()

    def once(fn: Any) -> _Kept:
        language = fn.__globals__.get("tl")  # Triton's own functions may call it otherwise
        if id(language) not in done:
            done.add(id(language))
            patch(fn)
            # Triton 3.6 makes whole numbers of arrays, which numpy 2.4 no longer lets it do.
            triton.language.tensor.__index__ = lambda self: int(self.handle.data.squeeze())
        return _Kept()

    interpreter._patch_lang = once
