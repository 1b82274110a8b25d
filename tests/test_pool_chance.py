"""The pool at random moments: faults, cancels and full queues leave no one waiting and no byte taken."""

from __future__ import annotations

import asyncio
import random

import pytest

from router.errors import LoadError, RouterError
from router.footprint import Footprint
from router.pool import Pool
from tests.doubles import PIXELS, Double
from tests.pool_doubles import Caller, pool_of, promised


def disturb(pool: Pool, doubles: list[Double], made: list[Caller], chance: random.Random) -> None:
    if chance.random() < 0.4:
        made.append(Caller(pool, chance.choice("abc")))
    double = chance.choice(doubles)
    if chance.random() < 0.1:
        double.fails.setdefault(chance.choice(["load", "unload"]), []).append(LoadError("No."))
    (double.may_load.set if chance.random() < 0.7 else double.may_load.clear)()
    if made and chance.random() < 0.3:
        chance.choice(made).task.cancel()
    if made and chance.random() < 0.5:
        chance.choice(made).let_go()


@pytest.mark.parametrize("seed", range(25))
async def test_whatever_happens_everyone_is_served_or_told_and_every_byte_comes_back(seed: int) -> None:
    """Three instances of which two fit, faults, cancels and full queues at random moments."""
    chance = random.Random(seed)
    sizes = {"a": 1_000, "b": 1_200, "c": 700}
    doubles = [Double(name, footprint=Footprint(size, 1, 0)) for name, size in sizes.items()]
    pool = await pool_of(*doubles, budget=2_000 + 3 * PIXELS, concurrency=2, queue=6)
    made: list[Caller] = []
    for _ in range(150):
        disturb(pool, doubles, made, chance)
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
        assert promised(pool) <= 2_000 + 3 * PIXELS
    for double in doubles:
        double.may_load.set()
    for caller in made:
        caller.let_go()
    await asyncio.wait_for(asyncio.wait([caller.task for caller in made]), timeout=5)
    for caller in made:
        assert caller.task.cancelled() or isinstance(caller.task.exception(), RouterError | None)
    await pool.close()
    assert promised(pool) == 0
    assert "0 running, 0 waiting" in repr(pool)
