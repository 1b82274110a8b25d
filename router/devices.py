"""Devices: an instance that names several devices is as many instances, one on each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

SPREAD_POLICY = "fastest"
"""Of a model that says none and has such an instance: the least predicted completion chooses."""


def spread(table: Any) -> Any:
    """A model's table in which every instance has one device. What is no such table stays as it is.

    `device = ["cuda:0", "cuda:1"]` makes two of an instance; one called `photo` becomes `photo@cuda:0`
    and `photo@cuda:1`. Raises `ValueError` for an empty list, and for one that names a device twice.
    """
    instances = table.get("instances") if isinstance(table, Mapping) else None
    if not isinstance(instances, Sequence) or not any(map(_has_several, instances)):
        return table
    each = [one for instance in instances for one in _spread(instance)]
    return {"policy": SPREAD_POLICY, **table, "instances": each}


def split(devices: str) -> list[str]:
    """`cuda:0,cuda:1` as a list, as it stands in `TRIPTYCH_DEVICE`."""
    return list(dict.fromkeys(device.strip() for device in devices.split(",") if device.strip()))


def _has_several(instance: Any) -> bool:
    return isinstance(instance, Mapping) and isinstance(instance.get("device"), list | tuple)


def _spread(instance: Any) -> list[Any]:
    if not _has_several(instance):
        return [instance]
    devices = list(instance["device"])
    if not devices or len(set(map(str, devices))) < len(devices):
        raise ValueError(f"`device` is {devices}; name each device once, and at least one")
    return [{**instance, "device": device, **_named(instance, device, devices)} for device in devices]


def _named(instance: Mapping[str, Any], device: object, devices: Sequence[object]) -> dict[str, str]:
    name = instance.get("name")
    return {"name": f"{name}@{device}"} if name and len(devices) > 1 else {}
