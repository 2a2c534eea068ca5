"""What a seed plans."""

from __future__ import annotations

from itertools import islice

from tests.soak.plan import FROZEN_SECONDS, plan


def test_a_seed_plans_the_same_again_and_another_seed_something_else() -> None:
    first, again, other = plan(7, 60), plan(7, 60), plan(8, 60)
    assert first == again
    assert first.kills != other.kills
    steps = list(islice(first.steps(1), 50))
    assert list(islice(again.steps(1), 50)) == steps
    assert list(islice(other.steps(1), 50)) != steps
    assert list(islice(first.steps(2), 50)) != steps


def test_in_a_minute_forty_are_killed_and_enforcers_sleep_past_their_sessions() -> None:
    for seed in range(20):
        planned = plan(seed, 60)
        assert len(planned.kills) >= 40
        assert {"relay", "kafka", "postgres"} <= {each.target for each in planned.kills}
        assert all(each.at <= 60 for each in planned.kills)
        assert planned.freezes
        assert all(each.seconds == FROZEN_SECONDS for each in planned.freezes)
