from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.memory import MemoryLedger


def test_promises_count_until_they_are_released() -> None:
    ledger = MemoryLedger({"gpu": 100})
    assert ledger.promise("gpu", 60)
    assert ledger.promised_bytes("gpu") == 60
    assert not ledger.fits("gpu", 41)
    assert ledger.fits("gpu", 40)
    ledger.release("gpu", 60)
    assert ledger.fits("gpu", 100)


def test_a_promise_that_does_not_fit_promises_nothing() -> None:
    ledger = MemoryLedger({"gpu": 100})
    assert not ledger.promise("gpu", 101)
    assert ledger.promised_bytes("gpu") == 0


def test_the_shortage_is_what_others_must_give_back() -> None:
    ledger = MemoryLedger({"gpu": 100})
    ledger.promise("gpu", 60)
    assert ledger.shortage_bytes("gpu", 70) == 30
    assert ledger.shortage_bytes("gpu", 40) == 0


def test_a_device_without_budget_is_unlimited() -> None:
    ledger = MemoryLedger({"gpu": 100})
    assert ledger.promise("cpu", 10**15)
    assert ledger.budget_bytes("cpu") is None


def test_a_configured_budget_stands_whatever_the_device_has() -> None:
    ledger = MemoryLedger({"gpu": 100})
    ledger.set_budget("gpu", 1_000)
    ledger.set_budget("cpu", 500)
    ledger.set_budget("tpu", None)
    assert [ledger.budget_bytes(device) for device in ("gpu", "cpu", "tpu")] == [100, 500, None]


def test_devices_do_not_share_bytes() -> None:
    ledger = MemoryLedger({"cuda:0": 100, "cuda:1": 100})
    ledger.promise("cuda:0", 100)
    assert ledger.fits("cuda:1", 100)


def test_what_was_never_promised_cannot_be_released() -> None:
    ledger = MemoryLedger({"gpu": 100})
    ledger.promise("gpu", 10)
    with pytest.raises(ValueError, match="never promised"):
        ledger.release("gpu", 11)


def test_repr_tells_what_is_promised() -> None:
    ledger = MemoryLedger({"gpu": 2_000})
    ledger.promise("gpu", 1_500)
    ledger.promise("cpu", 7)
    assert repr(ledger) == "<MemoryLedger [cpu: 7 of unlimited bytes, gpu: 1,500 of 2,000 bytes]>"


@given(st.lists(st.integers(min_value=0, max_value=200)))
def test_never_more_is_promised_than_the_budget_and_nothing_is_lost(sizes: list[int]) -> None:
    ledger = MemoryLedger({"gpu": 500})
    kept = [size for size in sizes if ledger.promise("gpu", size)]
    assert ledger.promised_bytes("gpu") == sum(kept) <= 500
    for size in kept:
        ledger.release("gpu", size)
    assert ledger.promised_bytes("gpu") == 0
