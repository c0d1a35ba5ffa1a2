"""Hosts that are simulated: what each of them reads, step by step, is an epoch and nothing else."""

import numpy as np
import pytest

from configs.load import load_experiment
from input_pipeline.stream import order
from input_pipeline.stream.pipeline import eval_steps
from training.plan import make_plan

pytestmark = pytest.mark.slow

HOSTS = (1, 2, 4, 8, 64)
BATCH, EXAMPLES = 128, 128 * 7


def experiment():
    return load_experiment(
        overrides=[f"train.global_batch_size={BATCH}", "train.duration=1 epochs"]
    )


@pytest.mark.parametrize("num_hosts", HOSTS)
def test_the_steps_of_an_epoch_show_every_example_once_over_all_hosts(num_hosts):
    steps = make_plan(experiment(), EXAMPLES).total_steps
    size = BATCH // num_hosts
    seen = []
    for host in range(num_hosts):
        stream = order.indexed_order(
            EXAMPLES,
            seed=1,
            host_batch_size=size,
            position=order.Position(host_index=host, num_hosts=num_hosts),
        ).batch(size, drop_remainder=True)
        batches = list(stream.take(steps).as_numpy_iterator())
        assert [int(b["step"][0]) for b in batches] == list(range(steps))
        assert all(not b["epoch"].any() for b in batches)
        seen.append(np.concatenate([b["index"] for b in batches]))
    assert {len(part) for part in seen} == {EXAMPLES // num_hosts}
    assert sorted(np.concatenate(seen)) == list(range(EXAMPLES))


@pytest.mark.parametrize("num_hosts", [1, 8])
def test_no_epoch_is_longer_or_shorter_for_its_last_step(num_hosts):
    """ImageNet's 1,281,167 images are no multiple of 4096: the batch in which an epoch ends has the rest
    of the next one, on whichever host its place falls, and no host's stream has more or fewer batches."""
    num_examples, batch = 1_281_167, 4096
    size = batch // num_hosts
    last = num_examples // batch  # the step in which the first epoch ends
    places = []
    for host in range(num_hosts):
        stream = order.indexed_order(
            num_examples,
            seed=1,
            host_batch_size=size,
            position=order.Position(start_step=last, host_index=host, num_hosts=num_hosts),
        )
        (rows,) = stream.batch(size).take(1).as_numpy_iterator()
        assert len(rows["index"]) == size
        places.append(rows["epoch"])
    epochs = np.concatenate(places)
    assert (epochs == 0).sum() == num_examples - last * batch
    assert (epochs == 1).sum() == batch - (epochs == 0).sum()


@pytest.mark.parametrize("num_hosts", HOSTS)
def test_all_hosts_evaluate_for_the_same_number_of_steps(num_hosts):
    size = 1024 // num_hosts
    steps = eval_steps(50_000, size, num_hosts)
    shares = [order.host_range(50_000, host, num_hosts) for host in range(num_hosts)]
    assert steps == max(-(-(last - first) // size) for first, last in shares)
