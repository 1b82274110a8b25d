"""Demands: requests in progress counted by size are the same demand as all of them one by one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from router.footprint import Demand, Demands, Footprint

FOOTPRINTS = [
    Footprint(1_000, row_bytes_per_pixel=7, decode_bytes_per_pixel=11),
    Footprint(0, row_bytes_per_pixel=3, decode_bytes_per_pixel=50, row_limit=4, decode_limit=2),
    Footprint(0, row_bytes_per_pixel=3, decode_bytes_per_pixel=5, decode_tile_pixels=80, overlapped=True),
]
_DEMANDS = st.lists(
    st.builds(Demand, st.integers(1, 6), st.integers(1, 3), st.sampled_from([64, 100, 4096])), min_size=1
)


@given(_DEMANDS, st.data())
def test_by_size_and_one_by_one_need_the_same_bytes(demands: list[Demand], data: st.DataObject) -> None:
    counted, there = Demands(), list[Demand]()
    for demand in demands:
        for footprint in FOOTPRINTS:
            together = footprint.workspace_bytes(counted.together_with(demand))
            assert together == footprint.workspace_bytes([*there, demand])
        counted.add(demand)
        there.append(demand)
    while there:
        demand = data.draw(st.sampled_from(there))
        there.remove(demand)
        counted.remove(demand)
        for footprint in FOOTPRINTS:
            assert footprint.workspace_bytes(counted) == footprint.workspace_bytes(there)
    assert list(counted) == []
