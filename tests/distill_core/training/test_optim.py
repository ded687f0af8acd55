from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from distill_core.config.training import OptimizerConfig, ScheduleConfig
from distill_core.errors import DataError
from distill_core.training.checkpoint import PackedState, pack_state
from distill_core.training.distributed import DistributedContext
from distill_core.training.optim import WeightEma, build_optimizer, lr_at


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_weight_decay_skips_biases_and_norms(name: str) -> None:
    config = OptimizerConfig(name=name, lr=0.1, weight_decay=0.5)
    decayed, plain = build_optimizer(network(), config).param_groups
    assert [p.ndim for p in decayed["params"]] == [4, 2]
    assert [p.ndim for p in plain["params"]] == [1, 1, 1, 1]
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.5, 0.0)


def rate(config: ScheduleConfig, epoch: float) -> float:
    return lr_at(config, 1.0, step=round(10 * epoch), steps_per_epoch=10, epochs=10)


def test_the_cosine_ends_at_zero_or_with_zeta_two_at_half() -> None:
    assert rate(ScheduleConfig(per_step=True), 10) == pytest.approx(0.0)
    assert rate(ScheduleConfig(per_step=True, zeta=2), 10) == pytest.approx(0.5)
    assert rate(ScheduleConfig(per_step=True), 5) == pytest.approx(0.5)


def test_a_schedule_by_epoch_is_constant_within_an_epoch() -> None:
    assert rate(ScheduleConfig(), 3.0) == rate(ScheduleConfig(), 3.9)
    assert rate(ScheduleConfig(per_step=True), 3.0) > rate(ScheduleConfig(per_step=True), 3.9)


def test_milestones_replace_the_cosine() -> None:
    config = ScheduleConfig(milestones=(4, 8), gamma=0.1, warmup_epochs=1, warmup_start=0.5)
    found = [rate(config, epoch) for epoch in (0, 1, 3, 4, 7, 8, 9)]
    assert found == pytest.approx([0.5, 1.0, 1.0, 0.1, 0.1, 0.01, 0.01])


def test_the_warm_up_rises_linearly_to_the_full_rate() -> None:
    config = ScheduleConfig(warmup_epochs=2, warmup_start=0.1, per_step=True)
    assert [rate(config, e) for e in (0, 1, 2)] == pytest.approx([0.1, 0.55, 1.0])
    assert rate(config, 10) == pytest.approx(0.0)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_packed_state_comes_back_bit_for_bit(name: str) -> None:
    config = OptimizerConfig(name=name, lr=0.1)
    model = network()
    optimizer, ema = build_optimizer(model, config), WeightEma(model, 0.9)
    step(model, optimizer)
    ema.update(model)
    data = pack_state(model, optimizer, ema=ema, meta={"epoch": 1})

    other = network(seed=1)
    again, average = build_optimizer(other, config), WeightEma(other, 0.9)
    state = PackedState.parse(data)
    state.check(other, again, average)
    state.load(other, again, average)
    assert state.meta == {"epoch": 1}
    for one in (model, other):
        step(one, optimizer if one is model else again)
    assert all(map(torch.equal, model.state_dict().values(), other.state_dict().values()))
    assert all(map(torch.equal, ema.state_dict().values(), average.state_dict().values()))


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    images = torch.linspace(-1, 1, 2 * 3 * 16).view(2, 3, 4, 4)
    optimizer.zero_grad()
    model(images).square().sum().backward()
    optimizer.step()


def test_a_state_of_another_network_is_refused() -> None:
    config = OptimizerConfig(name="sgd", lr=0.1)
    data = pack_state(network(), build_optimizer(network(), config))
    other = nn.Linear(3, 2)
    with pytest.raises(DataError, match="another network"):
        PackedState.parse(data).check(other, build_optimizer(other, config), None)


def test_the_average_follows_the_weights_and_takes_over_buffers() -> None:
    model = network()
    ema = WeightEma(model, 0.5)
    before = ema.model.get_parameter("0.weight").clone()
    with torch.no_grad():
        model.get_parameter("0.weight").add_(1.0)
        model.get_buffer("1.running_mean").fill_(3.0)
    ema.update(model)  # the first update copies
    ema.update(model)
    ema.copy_buffers(model)
    assert not torch.equal(ema.model.get_parameter("0.weight"), before)
    assert (ema.model.get_buffer("1.running_mean") == 3.0).all()


@pytest.mark.parametrize(("count", "size"), [(10, 3), (7, 2), (2, 4)])
def test_processes_share_a_batch_without_gap_or_overlap(count: int, size: int) -> None:
    parts = [range(count)[DistributedContext(rank, size).share(count)] for rank in range(size)]
    assert [n for part in parts for n in part] == list(range(count))


def test_averaged_weights_are_those_of_torch() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    ours, average = WeightEma(model, 0.7), get_ema_multi_avg_fn(0.7)
    theirs = AveragedModel(model, multi_avg_fn=average)
    for _ in range(3):
        model(torch.randn(5, 4)).sum().backward()
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(torch.randn_like(weight))
        ours.update(model)
        theirs.update_parameters(model)
    state, expected = ours.state_dict(), theirs.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in state)
