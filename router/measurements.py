"""Measurements: what runs of one instance have shown, in the place of the formulas, and kept for later."""

from __future__ import annotations

from dataclasses import replace

from router.capabilities import Capabilities
from router.footprint import Workspace
from router.measured import Choices, Conditions, MeasuredStore

_NEWS = 0.02
"""Share by which a workspace must differ to be worth telling and writing."""


class Measurements:
    """Of one instance. Where its capabilities name no conditions, all lives in this process alone."""

    def __init__(self, store: MeasuredStore) -> None:
        self._store = store
        self._conditions: Conditions = ()
        self._workspace = Workspace()
        self._choices: Choices = ()
        self.load_s: float | None = None
        """Seconds that loading took the last time, in this process or before."""

    async def recall(self, capabilities: Capabilities) -> Capabilities:
        """The same with what was measured under its conditions, and a note where the file is of no use."""
        known = await self._store.find(capabilities.conditions)
        if capabilities.conditions != self._conditions:  # another model lies there now
            self._conditions, self._workspace, self._choices = capabilities.conditions, Workspace(), ()
        if known is not None:
            self._choices = self._choices or tuple(known.choices.items())
            self._workspace = self._workspace.joined(known.workspace)
            self.load_s = self.load_s or known.load_s
        if self._store.fault and capabilities.conditions:
            capabilities = replace(capabilities, notes=(*capabilities.notes, self._store.fault))
        return self._applied(capabilities)

    def learn(self, capabilities: Capabilities, workspace: Workspace) -> Capabilities:
        """The capabilities with what a run has shown; the very same where that is no news."""
        self._workspace = self._workspace.joined(workspace)
        learned = self._applied(capabilities)
        if not _differ(capabilities, learned):
            return capabilities
        self._keep(capabilities)
        return learned

    def loaded(self, capabilities: Capabilities, seconds: float) -> None:
        """Remember how long loading took."""
        self.load_s = seconds
        self._keep(capabilities)

    def chosen(self, capabilities: Capabilities, choices: Choices) -> None:
        """Remember what loading found to be fastest."""
        if choices and choices != self._choices:
            self._choices = choices
            self._keep(capabilities)

    def _keep(self, capabilities: Capabilities) -> None:
        self._store.keep(capabilities.conditions, self._workspace, self.load_s, self._choices)

    def _applied(self, capabilities: Capabilities) -> Capabilities:
        if self._choices != capabilities.choices:
            capabilities = replace(capabilities, choices=self._choices)
        if self._workspace == Workspace():
            return capabilities
        return replace(capabilities, footprint=capabilities.footprint.with_measured(self._workspace))


def _differ(one: Capabilities, other: Capabilities) -> bool:
    before, now = one.footprint, other.footprint
    pairs = (
        (before.row_bytes_per_pixel, now.row_bytes_per_pixel),
        (before.decode_bytes_per_pixel, now.decode_bytes_per_pixel),
    )
    return before.measured != now.measured or any(abs(a - b) > _NEWS * max(a, b) for a, b in pairs)
