"""Meta-learning for GANs: exact second-order meta-gradients through a compiled engine."""

from __future__ import annotations

# Python run from the checkout's root imports this folder; the compiled extension lies beside the installed
# copy.
__path__ = __import__("pkgutil").extend_path(__path__, __name__)

from ._version import __version__

__all__ = ["__version__"]
