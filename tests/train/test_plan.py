"""Why a run that goes on ends at once is told, and only then."""

import pytest

from cmid.train.plan import Plan, differing_numbers, fixed_numbers


@pytest.mark.parametrize(
    ("step", "max_steps", "says"),
    [(17, 0, ""), (18, 0, "all epochs are done"), (18, 4, "all epochs are done"), (3, 4, ""), (17, 20, "")],
)
def test_what_is_left(step, max_steps, says):
    said = Plan(3, 6, max_steps=max_steps).why_over(step)
    assert says in said and bool(says) == bool(said)


def test_a_run_that_its_own_settings_stopped_tells_how_to_go_on():
    said = Plan(3, 12, accumulate=2, max_steps=4).why_over(4)
    assert "train.max_steps is 4; --train.max_steps 0 goes on to step 18" in said


def test_other_processes_may_add_up_other_batches_to_a_step_of_as_many_images():
    def numbers(processes, images, accumulate):
        plan = Plan(3, 64 // (processes * images), accumulate=accumulate)
        return fixed_numbers(plan, 0, images, processes, {})

    alone = numbers(1, 8, 4)
    assert differing_numbers(alone, numbers(4, 8, 1)) == differing_numbers(alone, numbers(2, 4, 4)) == []
    assert differing_numbers(alone, numbers(2, 8, 1)) == ["accumulate was 4, is 1"]
    found = differing_numbers(alone, numbers(1, 16, 2))
    assert found[:2] == ["images_per_batch was 8, is 16", "accumulate was 4, is 2"], "one process is not another"
