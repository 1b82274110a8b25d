"""MemoryLedger: bytes promised per device. Integers only; the driver is never asked."""

from __future__ import annotations

from collections.abc import Mapping


class MemoryLedger:
    """What was promised on each device, against what may be promised.

    A device without a budget is unlimited. A configured budget stands, whatever the device has.
    """

    __slots__ = ("_budgets", "_promised")

    def __init__(self, budgets: Mapping[str, int]) -> None:
        self._budgets = dict(budgets)
        self._promised: dict[str, int] = {}

    def set_budget(self, device: str, device_memory_bytes: int | None) -> None:
        """Take what the device has as its budget, unless one is known."""
        if device_memory_bytes is not None:
            self._budgets.setdefault(device, device_memory_bytes)

    def budget_bytes(self, device: str) -> int | None:
        """Bytes that may be promised; `None` is unlimited."""
        return self._budgets.get(device)

    def promised_bytes(self, device: str) -> int:
        return self._promised.get(device, 0)

    def shortage_bytes(self, device: str, needed_bytes: int) -> int:
        """Bytes that others must give back before `needed_bytes` can be promised; 0 where they fit."""
        budget = self._budgets.get(device)
        if budget is None:
            return 0
        return max(0, self._promised.get(device, 0) + needed_bytes - budget)

    def fits(self, device: str, needed_bytes: int) -> bool:
        return self.shortage_bytes(device, needed_bytes) == 0

    def promise(self, device: str, needed_bytes: int) -> bool:
        """Promise the bytes if they fit; else nothing is promised."""
        promised = self._promised.get(device, 0) + needed_bytes
        budget = self._budgets.get(device)
        if budget is not None and promised > budget:
            return False
        self._promised[device] = promised
        return True

    def release(self, device: str, promised_bytes: int) -> None:
        left = self._promised.get(device, 0) - promised_bytes
        if left < 0:
            raise ValueError(f"{promised_bytes} bytes were never promised on {device}: {self!r}")
        self._promised[device] = left

    def devices(self) -> tuple[str, ...]:
        return tuple(sorted(self._budgets.keys() | self._promised.keys()))

    def __repr__(self) -> str:
        parts = [self._part(device) for device in self.devices()]
        return f"<MemoryLedger [{', '.join(parts)}]>"

    def _part(self, device: str) -> str:
        budget = self._budgets.get(device)
        of = "unlimited" if budget is None else f"{budget:,}"
        return f"{device}: {self.promised_bytes(device):,} of {of} bytes"


class Holding:
    """Bytes promised on one device for one purpose, which grow and shrink."""

    __slots__ = ("_ledger", "bytes", "device")

    def __init__(self, ledger: MemoryLedger) -> None:
        self._ledger = ledger
        self.bytes = 0
        self.device = ""
        """Where they are promised; empty while none are."""

    def growth_bytes(self, device: str, bytes: int) -> int:
        """How many more there must be to hold so many on this device."""
        return max(0, bytes - self.bytes) if device == self.device else bytes

    def resize(self, device: str, bytes: int) -> bool:
        """Hold so many on this device if they fit; else all stays as it is."""
        if not self._ledger.promise(device, self.growth_bytes(device, bytes)):
            return False
        self.shrink(bytes if device == self.device else 0)
        self.bytes, self.device = bytes, device
        return True

    def shrink(self, bytes: int = 0) -> None:
        """Give back all that is more than this."""
        if bytes < self.bytes:
            self._ledger.release(self.device, self.bytes - bytes)
            self.bytes = bytes
        if not self.bytes:
            self.device = ""

    def __repr__(self) -> str:
        return f"<Holding of {self.bytes:,} bytes on {self.device or 'no device'}>"
