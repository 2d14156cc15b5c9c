"""Every engine, on every instruction set, against the float64 oracle: the whole contract on every case of the battery."""

from __future__ import annotations

import pytest

from tests.battery import check
from tests.engines import all_engines
from tests.oracle_cases import Case, cases

ENGINES = all_engines()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_as_exact_as_torch(case: Case, engine: str) -> None:
    check(ENGINES[engine], case)
