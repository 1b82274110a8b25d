"""Joining calls of a module along the batch axis: what may share a run, and that rows stay whose they are."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from backends._gather import BATCHED, Digests, Gathering
from router.call import Call
from router.errors import DeviceLostError


class UNet2DConditionModel(torch.nn.Module):
    """Stands for the class of that name: adds up all that it is given, and remembers the rows."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[int] = []

    def forward(
        self,
        sample: torch.Tensor,
        timestep: Any,
        encoder_hidden_states: torch.Tensor,
        added_cond_kwargs: Any = None,
        cross_attention_kwargs: Any = None,
        return_dict: bool = True,
    ) -> Any:
        self.rows.append(len(sample))
        time = torch.as_tensor(timestep, dtype=torch.float32).expand(len(sample))
        out = sample * 2 + time[:, None, None, None] + encoder_hidden_states.mean((1, 2))[:, None, None, None]
        if added_cond_kwargs:
            out = out + added_cond_kwargs["text_embeds"].sum(1)[:, None, None, None]
        return (out,)


class FluxTransformer2DModel(torch.nn.Module):
    def forward(
        self, hidden_states: torch.Tensor, timestep: torch.Tensor, img_ids: torch.Tensor, **others: Any
    ) -> Any:
        assert img_ids.shape == (16, 3), "img_ids were joined"
        return (hidden_states + timestep[:, None, None] + img_ids.sum(),)


def rows(count: int, fill: float = 1.0, side: int = 2) -> dict[str, Any]:
    return {
        "sample": torch.full((count, 4, side, side), fill),
        "encoder_hidden_states": torch.full((count, 7, 3), fill),
    }


def call(gathering: Gathering, share: bool = True, **values: Any) -> Call:
    return gathering.call((), {"return_dict": False, **values}, Digests(), share=share)


@pytest.fixture
def model() -> UNet2DConditionModel:
    return UNet2DConditionModel()


@pytest.fixture
def gathering(model: UNet2DConditionModel) -> Gathering:
    return Gathering(model, row_limit=16)


def test_each_call_gets_its_own_rows(gathering: Gathering, model: UNet2DConditionModel) -> None:
    calls = [
        call(gathering, **rows(2, 1.0), timestep=torch.tensor(5)),
        call(gathering, **rows(1, 3.0), timestep=torch.tensor([7.5])),
        call(gathering, **rows(2, 5.0), timestep=9.25),
    ]
    alone = [gathering([one])[0][0] for one in calls]
    model.rows.clear()
    together = [out[0] for out in gathering(calls)]
    assert model.rows == [5]
    for joined, single in zip(together, alone, strict=True):
        torch.testing.assert_close(joined, single)


def test_integer_and_real_timesteps_share_a_key(gathering: Gathering) -> None:
    keys = {
        call(gathering, **rows(1), timestep=timestep).key
        for timestep in (torch.tensor(981), torch.tensor(3.25), 17, 0.5)
    }
    assert len(keys) == 1


@pytest.mark.parametrize(
    "other",
    [
        {**rows(1, side=3), "timestep": 1},
        {**rows(1), "timestep": 1, "encoder_hidden_states": torch.ones(1, 8, 3)},
        {**rows(1), "timestep": 1, "encoder_hidden_states": torch.ones(1, 7, 3, dtype=torch.float64)},
        {**rows(1), "timestep": 1, "cross_attention_kwargs": {"scale": 0.5}},
        {**rows(1), "timestep": 1, "added_cond_kwargs": {"text_embeds": torch.ones(1, 4)}},
        {**rows(1), "timestep": 1, "return_dict": True},
    ],
)
def test_what_differs_beyond_the_batch_axis_is_kept_apart(
    gathering: Gathering, other: dict[str, Any]
) -> None:
    assert call(gathering, **rows(1), timestep=1).key != call(gathering, **other).key


def test_nested_conditioning_is_joined(gathering: Gathering, model: UNet2DConditionModel) -> None:
    calls = [
        call(gathering, **rows(1), timestep=0, added_cond_kwargs={"text_embeds": torch.full((1, 4), value)})
        for value in (1.0, 10.0)
    ]
    assert calls[0].key == calls[1].key
    first, second = (out[0].mean().item() for out in gathering(calls))
    assert (first, second) == (7.0, 43.0)


def test_a_call_that_shares_nothing_has_a_key_of_its_own(gathering: Gathering) -> None:
    first, second = (call(gathering, share=False, **rows(1), timestep=1) for _ in range(2))
    assert first.key != second.key


def test_a_single_call_runs_with_the_very_arguments_it_was_given() -> None:
    seen: list[dict[str, Any]] = []
    model = UNet2DConditionModel()
    model.register_forward_pre_hook(lambda module, args, values: seen.append(values), with_kwargs=True)
    gathering = Gathering(model, row_limit=16)
    timestep = torch.tensor(981)
    gathering([call(gathering, **rows(2), timestep=timestep)])
    assert seen[0]["timestep"] is timestep


def test_a_compiled_module_knows_the_form_of_joined_calls_only(model: UNet2DConditionModel) -> None:
    seen: list[dict[str, Any]] = []

    def forward(**values: Any) -> Any:
        seen.append(values)
        return (values["sample"],)

    gathering = Gathering(model, row_limit=16, compiled=forward)
    gathering([call(gathering, **rows(2), timestep=torch.tensor(981))])
    assert seen[0]["timestep"].tolist() == [981.0, 981.0]


def test_a_call_is_widened_to_a_bucket_by_its_first_row(model: UNet2DConditionModel) -> None:
    gathering = Gathering(model, row_limit=4, row_buckets=(4,))
    one = call(gathering, **{**rows(2), "sample": torch.arange(8.0).reshape(2, 4, 1, 1)}, timestep=1)
    wide = gathering.widened(one, 4)
    assert (wide.rows, len(wide.arguments.values["encoder_hidden_states"])) == (4, 4)
    assert wide.arguments.values["sample"][:, :, 0, 0].tolist() == [[0, 1, 2, 3]] * 4
    assert wide.key != one.key
    gathering([wide])
    assert model.rows == [4]


def test_a_compiled_module_runs_in_the_modules_place(model: UNet2DConditionModel) -> None:
    class Compiled:
        """As `torch.compile` makes them: asking for the truth of one raises."""

        def __call__(self, **values: Any) -> Any:
            return ("compiled",)

        def __len__(self) -> int:
            raise TypeError

    gathering = Gathering(model, row_limit=16, compiled=Compiled())
    assert gathering([call(gathering, **rows(2), timestep=1)]) == [("compiled",)]
    assert model.rows == []


def test_more_rows_than_the_limit_run_in_slices(model: UNet2DConditionModel) -> None:
    gathering = Gathering(model, row_limit=2)
    values = {"sample": torch.arange(5.0).reshape(5, 1, 1, 1), "encoder_hidden_states": torch.zeros(5, 1, 1)}
    (out,) = gathering([call(gathering, **values, timestep=torch.tensor(1))])
    assert model.rows == [2, 2, 1]
    assert out[0].flatten().tolist() == [1, 3, 5, 7, 9]


def test_runs_are_padded_to_the_row_buckets(model: UNet2DConditionModel) -> None:
    gathering = Gathering(model, row_limit=16, row_buckets=(1, 4, 8))
    assert gathering.row_limit == 8
    outs = gathering([call(gathering, **rows(2, value), timestep=1) for value in (1.0, 2.0, 3.0)])
    assert model.rows == [8]
    assert [len(out[0]) for out in outs] == [2, 2, 2]
    assert [out[0].mean().item() for out in outs] == [4.0, 7.0, 10.0]


def test_flux_image_ids_are_not_taken_for_rows_when_there_are_as_many() -> None:
    gathering = Gathering(FluxTransformer2DModel(), row_limit=32)
    ids = torch.arange(48.0).reshape(16, 3)

    def one(count: int, fill: float) -> Call:
        states = torch.full((count, 16, 4), fill)
        return call(gathering, hidden_states=states, timestep=torch.full((count,), fill), img_ids=ids.clone())

    calls = [one(16, 1.0), one(1, 2.0)]
    assert calls[0].key == calls[1].key
    big, small = gathering(calls)
    assert (len(big[0]), len(small[0])) == (16, 1)
    moved = call(gathering, hidden_states=torch.ones(1, 16, 4), timestep=torch.ones(1), img_ids=ids + 1)
    assert moved.key != calls[0].key


def test_an_unknown_class_runs_its_calls_one_by_one() -> None:
    class Mystery(torch.nn.Module):
        def forward(self, sample: torch.Tensor) -> torch.Tensor:
            return sample

    assert "Mystery" not in BATCHED
    gathering = Gathering(Mystery(), row_limit=1)
    calls = [gathering.call((torch.ones(3, 1),), {}, Digests(), share=True) for _ in range(2)]
    assert calls[0].key != calls[1].key
    assert gathering(calls[:1])[0].shape == (3, 1)


def test_a_tensor_is_hashed_once() -> None:
    digests, tensor = Digests(), torch.ones(3)
    first = digests.of(tensor)
    tensor.zero_()
    assert digests.of(tensor) == first
    assert digests.of(torch.zeros(3)) != first


@pytest.mark.parametrize(
    ("says", "raised"),
    [
        ("CUDA out of memory. Tried to allocate 2 GiB", MemoryError),
        ("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes", MemoryError),
        ("CUDA error: an illegal memory access was encountered", DeviceLostError),
        ("mat1 and mat2 shapes cannot be multiplied", RuntimeError),
    ],
)
def test_the_librarys_errors_become_the_lanes(model: Any, says: str, raised: type[Exception]) -> None:
    def fail(**values: Any) -> None:
        raise RuntimeError(says)

    gathering = Gathering(model, row_limit=4, compiled=fail)
    with pytest.raises(raised):
        gathering([call(gathering, **rows(1), timestep=1)])


def test_lists_are_compared_by_what_is_in_them(gathering: Gathering) -> None:
    def key(layers: Any) -> Any:
        return call(gathering, **rows(1), timestep=1, cross_attention_kwargs=layers).key

    assert key([7, 8]) == key([7, 8]) != key([7, 9])
    assert key((torch.ones(2),)) != key((torch.ones(2),))


def test_what_the_module_broadcasts_runs_alone_and_whole(model: UNet2DConditionModel) -> None:
    gathering = Gathering(model, row_limit=2, row_buckets=(2,))
    values = {"sample": torch.ones(3, 1, 1, 1), "encoder_hidden_states": torch.full((1, 1, 1), 5.0)}
    one, other = (call(gathering, **values, timestep=torch.tensor(1)) for _ in range(2))
    assert one.key != other.key
    assert gathering([one])[0][0].flatten().tolist() == [8, 8, 8]
    call(gathering, **{**values, "encoder_hidden_states": torch.tensor(5.0)}, timestep=1)


def test_joined_timesteps_are_where_the_sample_is() -> None:
    """A UNet brings a scalar to its device itself, but not the row of many."""
    seen: list[torch.Tensor] = []

    def forward(sample: torch.Tensor, timestep: torch.Tensor, **others: Any) -> Any:
        seen.append(timestep)
        return (sample,)

    gathering = Gathering(UNet2DConditionModel(), row_limit=4, compiled=forward)
    there = {name: tensor.to("meta") for name, tensor in rows(1).items()}
    gathering([call(gathering, **there, timestep=timestep) for timestep in (3, torch.tensor(4))])
    assert seen[0].device.type == "meta"


def test_an_error_of_the_module_is_not_its_own_cause(gathering: Gathering) -> None:
    """It would hold itself, and with it all that the module had allocated."""
    wrong = call(gathering, **{**rows(1), "encoder_hidden_states": None}, timestep=torch.ones(3))
    with pytest.raises(RuntimeError) as caught:
        gathering([wrong])
    assert caught.value.__cause__ is None
