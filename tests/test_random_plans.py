"""A few random games against the oracle; `python -m tests.random_plans 10000` runs many."""

from __future__ import annotations

import pytest

from tests.random_plans import WRONG, compare


@pytest.mark.parametrize("number", range(40))
def test_a_random_game(number: int) -> None:
    error, quantity, game = compare(20261127, number)
    assert error <= WRONG, f"{quantity} of {game}"
