"""The one place that holds the version: pyproject.toml, the package and the run folder all read it here."""

__version__ = "0.1.0"
