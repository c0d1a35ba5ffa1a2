"""Whole training steps: the reference's, on any number of devices, in every precision."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from proofs import parity_v1_networks
from tests.training import tiny
from training.devices.distribution import Replica
from training.optimizers import LARS, SGD
from training.step.ema import Averaging
from training.step.packed import pack
from training.step.train_step import make_eval_step, make_train_loop, traced_train_step
from training.step.weight_decay import WeightDecay

pytestmark = pytest.mark.slow

STEPS = 4
BATCHES = tiny.Batches.random(STEPS, 8)


def test_five_steps_are_the_references(goldens):
    rows = list(parity_v1_networks.training_rows(goldens))
    assert len(rows) == 8
    for row in rows:
        assert row.passed, row


# -- any number of devices ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(plain, two_devices, four_devices):
    """By number of devices: metrics and state after 4 steps on the same batches, and the training."""
    trainings = {
        1: plain.reset(),
        2: tiny.start(two_devices, gradient_clip_norm=tiny.CLIP_NORM),
        4: tiny.start(four_devices, gradient_clip_norm=tiny.CLIP_NORM),
    }
    return {n: (t.run(BATCHES), t.state.to_arrays(), t) for n, t in trainings.items()}


def test_losses_are_the_same_on_one_two_and_four_devices(runs):
    expected, _, _ = runs[1]
    assert np.ptp(expected["loss"]) > 0.1
    assert np.all(expected["gradient_norm"] > tiny.CLIP_NORM)
    for n in (2, 4):
        metrics, _, _ = runs[n]
        for name, values in expected.items():
            # The norm of a gradient amplifies the rounding of batch statistics.
            rtol = 1e-4 if name == "gradient_norm" else 1e-5
            np.testing.assert_allclose(metrics[name], values, rtol=rtol, err_msg=name)


def test_weights_slots_and_averages_are_the_same_on_one_two_and_four_devices(
    runs, plain, assert_same
):
    _, expected, _ = runs[1]
    name = "network/stem_conv/kernel"
    assert np.max(np.abs(expected[name] - plain.initial[name])) > 1e-3
    for n in (2, 4):
        assert_same(runs[n][1], expected)


@pytest.mark.parametrize("count", [2, 4])
def test_all_replicas_hold_the_same_bits(runs, count):
    _, _, training = runs[count]
    for variable in tf.nest.flatten(training.state.variables):
        first, *others = training.distribution.strategy.experimental_local_results(variable)
        assert len(others) == count - 1
        for other in others:
            np.testing.assert_array_equal(first.numpy(), other.numpy())


# -- the step as a function ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def random_step(one_device):
    """A step with dropout and stochastic depth, as a function of tensors: (training, call)."""
    training = tiny.start(
        one_device,
        spec=tiny.RANDOM_SPEC,
        global_batch_size=4,
        rate=1.0,
        optimizer=SGD(momentum=0.0),
        gradient_clip_norm=tiny.CLIP_NORM,
    )
    traced = traced_train_step(training.state, training.recipe, one_device, training.batch_spec)
    assert not traced.captured_inputs  # it reads no variable

    def call(replica=0, step=0):
        values = training.state.read()._replace(step=tf.constant(step))
        batch = {"image": BATCHES.images[0, :4], "label": BATCHES.labels[0, :4]}
        batch = {name: tf.constant(array) for name, array in batch.items()}
        return traced(values, batch, Replica(tf.constant(replica), ()))

    return training, call


def test_a_step_is_a_function_and_writes_nothing(random_step):
    training, call = random_step
    first, second = (call()[1]["loss"] for _ in range(2))
    assert float(first) == float(second)
    tf.nest.map_structure(
        np.testing.assert_array_equal, training.state.to_arrays(), training.initial
    )


def test_an_update_is_as_long_as_the_clipped_gradient(random_step):
    training, call = random_step
    after, metrics = call()
    assert metrics["gradient_norm"] > tiny.CLIP_NORM
    moved = pack(after.weights) - pack(training.state.read().weights)
    assert float(tf.norm(moved)) == pytest.approx(tiny.CLIP_NORM, rel=1e-4)


def test_masks_differ_between_steps_and_between_replicas(random_step):
    _, call = random_step
    losses = [float(call(replica, step)[1]["loss"]) for replica in (0, 1) for step in (0, 1)]
    assert len(set(losses)) == 4


def test_replicas_that_see_the_same_images_draw_their_own_masks(random_step, two_devices):
    _, call = random_step
    alone = [float(call(replica)[1]["loss"]) for replica in (0, 1)]
    together = tiny.start(two_devices, spec=tiny.RANDOM_SPEC, group="none")
    half = BATCHES.images[:1, :4], BATCHES.labels[:1, :4]
    twice = tiny.Batches(*(np.concatenate([part, part], 1) for part in half))
    assert together.run(twice)["loss"][0] == pytest.approx(np.mean(alone), rel=1e-5)
    assert abs(alone[0] - alone[1]) > 1e-3


# -- accumulation -------------------------------------------------------------------------------
# Batch statistics are those of a micro-batch: what it normalises by is all that fits in memory. So
# two micro-batches equal two replicas that share no statistics, and they equal one batch of twice the
# size where the statistics of all three are the same.


@pytest.fixture(scope="module")
def accumulating(one_device):
    return tiny.start(one_device, accumulation_steps=2, gradient_clip_norm=tiny.CLIP_NORM)


@pytest.fixture(scope="module")
def separate(two_devices):
    """Two replicas that share no statistics, and learn from shares of classes."""
    return tiny.start(
        two_devices, group="none", soft_labels=True, gradient_clip_norm=tiny.CLIP_NORM
    )


def test_two_micro_batches_are_two_replicas_that_share_no_statistics(
    accumulating, separate, assert_same
):
    metrics = accumulating.reset().run(BATCHES)
    expected = separate.reset().run(BATCHES.with_shares())
    np.testing.assert_allclose(metrics["loss"], expected["loss"], rtol=1e-5)
    np.testing.assert_allclose(metrics["top_1"], expected["top_1"], rtol=1e-5)
    assert_same(accumulating.state.to_arrays(), separate.state.to_arrays())


def test_two_micro_batches_of_equal_statistics_are_one_batch_of_twice_the_size(
    accumulating, fresh, assert_same
):
    # The same images with other labels: their statistics are those of the whole batch.
    images = np.concatenate([BATCHES.images[:, :4]] * 2, axis=1)
    batches = tiny.Batches(images, BATCHES.labels)
    metrics, expected = accumulating.reset().run(batches), fresh.run(batches)
    np.testing.assert_allclose(metrics["loss"], expected["loss"], rtol=1e-5)
    assert_same(accumulating.state.to_arrays(), fresh.state.to_arrays())


def test_micro_batches_of_their_own_statistics_are_not_one_batch(accumulating, fresh):
    metrics, expected = accumulating.reset().run(BATCHES), fresh.run(BATCHES)
    assert np.max(np.abs(metrics["loss"] - expected["loss"])) > 1e-3


# -- frozen parts and rates of their own ----------------------------------------------------------


def backbone(training):
    """Paths of everything but the classifier: weights and statistics."""
    return frozenset(path for path in training.state.paths if not path.startswith("classifier/"))


@pytest.fixture(scope="module")
def head_only(plain, one_device, two_devices, four_devices):
    """By number of devices: a training of the classifier alone, after 4 steps."""
    found = {}
    for count, distribution in ((1, one_device), (2, two_devices), (4, four_devices)):
        training = tiny.start(distribution, frozen=backbone(plain), averaging=Averaging(decay=0.0))
        found[count] = training, training.run(BATCHES)
    return found


@pytest.mark.parametrize("count", [1, 2, 4])
def test_frozen_weights_slots_and_statistics_keep_their_bits(head_only, count):
    training, _ = head_only[count]
    after = training.state.to_arrays()
    assert after.keys() == training.initial.keys()
    moved = {n for n, a in after.items() if not np.array_equal(a, training.initial[n])}
    head = {
        f"{kind}/classifier/{part}"
        for kind in ("network", "optimizer/rms", "optimizer/momentum")
        for part in ("kernel", "bias")
    }
    assert moved == head | {"step"}


@pytest.mark.parametrize("count", [2, 4])
def test_frozen_parts_give_the_same_head_on_any_number_of_devices(head_only, assert_same, count):
    assert_same(head_only[count][0].state.to_arrays(), head_only[1][0].state.to_arrays())


def test_frozen_weights_count_neither_in_the_loss_nor_in_the_norm(head_only):
    training, metrics = head_only[1]
    weights, statistics = (
        [tf.constant(training.initial[f"network/{v.path}"]) for v in variables]
        for variables in (
            training.state.network.trainable_variables,
            training.state.network.non_trainable_variables,
        )
    )
    images = training.recipe.normalize(BATCHES.images[0])
    logits, _ = training.state.network.stateless_call(weights, statistics, images, training=False)
    targets = np.eye(tiny.CLASSES)[BATCHES.labels[0]] * 0.9 + 0.1 / tiny.CLASSES
    probabilities = tf.nn.softmax(logits).numpy()
    entropy = -(targets * np.log(probabilities)).sum(-1).mean()
    kernel, bias = (training.initial[f"network/classifier/{part}"] for part in ("kernel", "bias"))
    decay = 1e-5 * (np.square(kernel).sum() + np.square(bias).sum()) / 2
    assert metrics["loss"][0] == pytest.approx(entropy + decay, rel=1e-5)
    of_bias = (probabilities - targets).mean(0)
    pooled = training.state.network.get_layer("pooled").output
    features = keras.Model(training.state.network.input, pooled)
    found, _ = features.stateless_call(weights[:-2], statistics, images, training=False)
    of_kernel = found.numpy().T @ (probabilities - targets) / len(images) + 1e-5 * kernel
    norm = np.sqrt(np.square(of_kernel).sum() + np.square(of_bias).sum())
    assert metrics["gradient_norm"][0] == pytest.approx(norm, rel=1e-4)


@pytest.mark.parametrize("devices", ["one_device", "two_devices", "four_devices"])
def test_a_rate_of_its_own_moves_a_weight_in_proportion(devices, request):
    distribution = request.getfixturevalue(devices)
    options = {"optimizer": SGD(momentum=0.0), "rate": 0.1}
    one = tiny.Batches(BATCHES.images[:1], BATCHES.labels[:1])
    plain = tiny.start(distribution, **options)
    halved = tiny.start(
        distribution, **options, rate_multipliers={"stem_conv/kernel": 0.5, "classifier/bias": 0.0}
    )
    plain.run(one)
    halved.run(one)
    moved = [
        {n: a - t.initial[n] for n, a in t.state.to_arrays().items() if n.startswith("network/")}
        for t in (plain, halved)
    ]
    own = {"network/stem_conv/kernel": 0.5, "network/classifier/bias": 0.0}
    for name, expected in moved[0].items():
        np.testing.assert_allclose(
            moved[1][name], own.get(name, 1.0) * expected, rtol=1e-3, atol=1e-6, err_msg=name
        )


def without_noise(arrays):
    """Leave out shifts that the next batch norm takes away: rounding alone moves them."""
    noise = {name for name in arrays if "project_bn/beta" in name}
    assert noise
    assert all(np.abs(arrays[name]).max() < 1e-6 for name in noise)
    return {name: array for name, array in arrays.items() if name not in noise}


def test_lars_takes_its_norms_over_the_whole_batch_on_any_number_of_devices(
    one_device, two_devices, four_devices, assert_same
):
    decay = WeightDecay(1e-3, coupled=False)
    ends = []
    for distribution in (one_device, two_devices, four_devices):
        training = tiny.start(
            distribution, optimizer=LARS(coefficient=0.05), rate=0.1, weight_decay=decay
        )
        training.run(BATCHES)
        ends.append(training.state.to_arrays())
    assert (
        np.max(
            np.abs(
                ends[0]["network/stem_conv/kernel"] - training.initial["network/stem_conv/kernel"]
            )
        )
        > 1e-4
    )
    for end in ends[1:]:
        assert_same(without_noise(end), without_noise(ends[0]), tolerance=1e-4)


# -- faults -------------------------------------------------------------------------------------


def test_a_batch_that_is_not_finite_on_one_replica_changes_nothing_but_the_step(separate):
    good = BATCHES.with_shares()
    separate.reset().run(good)
    before = separate.state.to_arrays()

    labels = good.labels[:1].copy()
    labels[0, -1, 0] = np.nan  # the second replica's
    metrics = separate.run(tiny.Batches(good.images[:1], labels))
    assert metrics["finite"] == [0.0]
    assert np.isnan(metrics["loss"][0])
    after = separate.state.to_arrays()
    assert (before.pop("step"), after.pop("step")) == (STEPS, STEPS + 1)
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array, err_msg=name)

    metrics = separate.run(tiny.Batches(good.images[:1], good.labels[:1]))
    assert metrics["finite"] == [1.0]
    assert np.isfinite(metrics["loss"][0])


# -- precision ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def half_precision(one_device):
    return tiny.start(one_device, dtype="mixed_float16", gradient_clip_norm=tiny.CLIP_NORM)


def learns(training):
    losses = training.run(tiny.Batches.random(1, 8).repeated(15))["cross_entropy"]
    assert np.all(np.isfinite(losses))
    arrays = training.state.to_arrays()
    assert all(a.dtype == np.float32 for n, a in arrays.items() if n.startswith("network/"))
    return np.mean(losses[-3:]) < 0.7 * losses[0]


def test_mixed_bfloat16_learns(one_device):
    assert learns(tiny.start(one_device, dtype="mixed_bfloat16"))


def test_mixed_float16_learns(half_precision):
    assert learns(half_precision.reset())


def test_the_scale_of_the_loss_does_not_change_the_step(half_precision, fresh):
    metrics, expected = half_precision.reset().run(BATCHES), fresh.run(BATCHES)
    assert metrics["loss"][0] == pytest.approx(expected["loss"][0], rel=0.01)
    assert metrics["gradient_norm"][0] == pytest.approx(expected["gradient_norm"][0], rel=0.05)


def test_an_overflow_skips_the_update_and_halves_the_scale(half_precision):
    before = half_precision.reset().state.to_arrays()
    half_precision.state.from_arrays(before | {"loss_scale/scale": np.float32(2.0**40)})
    metrics = half_precision.run(tiny.Batches(BATCHES.images[:1], BATCHES.labels[:1]))
    assert metrics["finite"] == [0.0]
    after = half_precision.state.to_arrays()
    assert after["step"] == 1
    assert after["loss_scale/scale"] == 2.0**39
    for name in before:
        if name not in ("step", "loss_scale/scale"):
            np.testing.assert_array_equal(after[name], before[name], err_msg=name)


# -- evaluation ---------------------------------------------------------------------------------

IMAGES = BATCHES.images[0]
LABELS = np.array([0, 1, 2, 3, 4, 5, 6, 9], np.int32)
MASK = np.array([1, 1, 0, 1, 1, 0, 1, 0], np.float32)


@functools.cache
def eval_step(training, kind):
    recipe = training.recipe
    return make_eval_step(
        training.state, kind, recipe.normalize, recipe.task, training.distribution
    )


@pytest.fixture(scope="module", autouse=True)
def _forget_eval_steps():
    """Each holds a network and a trace."""
    yield
    eval_step.cache_clear()


def evaluate(training, mask, kind="raw"):
    def make(host_index, num_hosts):
        columns = {"image": IMAGES, "label": LABELS, "mask": np.asarray(mask, np.float32)}
        return tf.data.Dataset.from_tensors(columns)

    iterator = iter(training.distribution.batches(make, len(IMAGES)))
    measured = eval_step(training, kind)(iterator)
    assert not measured.rows
    return {name: value.numpy() for name, value in measured.sums.items()}


def expected_sums(training, kind, mask):
    """What `evaluate` should find, one example at a time, by sorting."""
    weights, statistics = training.state.read_network(kind)
    images = training.recipe.normalize(IMAGES)
    logits, _ = training.state.network.stateless_call(weights, statistics, images, training=False)
    logits = logits.numpy().astype(np.float64)
    entropy = np.log(np.exp(logits).sum(-1)) - logits[np.arange(len(LABELS)), LABELS]
    order = np.argsort(-logits, -1)
    confusion = np.zeros((tiny.CLASSES, tiny.CLASSES))
    for i in np.flatnonzero(mask):
        confusion[LABELS[i], order[i, 0]] += 1
    return {
        "examples": mask.sum(),
        "cross_entropy": (entropy * mask).sum(),
        "top_1": ((order[:, 0] == LABELS) * mask).sum(),
        "top_5": ((order[:, :5] == LABELS[:, np.newaxis]).any(-1) * mask).sum(),
        "class_examples": confusion.sum(1),
        "class_top_1": np.diag(confusion),
        "confusion": confusion,
    }


@pytest.mark.parametrize("kind", ["raw", "ema"])
def test_padding_counts_for_nothing(plain, kind):
    plain.reset().run(BATCHES)
    sums, expected = evaluate(plain, MASK, kind), expected_sums(plain, kind, MASK)
    assert sums.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(sums[name], value, rtol=1e-5, err_msg=name)
    assert sums["examples"] == 5


def test_a_batch_of_padding_alone_is_nothing(fresh):
    for value in evaluate(fresh, np.zeros(8)).values():
        np.testing.assert_array_equal(value, 0)


def test_four_devices_evaluate_what_one_does(runs, plain):
    _, _, four = runs[4]
    plain.state.from_arrays(four.state.to_arrays())
    sums, expected = evaluate(four, MASK), evaluate(plain, MASK)
    for name, value in expected.items():
        np.testing.assert_allclose(sums[name], value, rtol=1e-5, err_msg=name)


def test_a_network_that_has_died_does_not_look_perfect(fresh):
    classifier = {n: np.zeros_like(a) for n, a in fresh.initial.items() if "/classifier/" in n}
    fresh.state.from_arrays(fresh.initial | classifier)
    sums = evaluate(fresh, np.ones(8))
    # All logits are equal: only the first class is in the top 1, the first five in the top 5.
    assert (sums["top_1"], sums["top_5"]) == (1, 5)


def test_logits_that_are_no_numbers_are_never_right(fresh):
    bias = {"network/classifier/bias": np.full(tiny.CLASSES, np.nan, np.float32)}
    fresh.state.from_arrays(fresh.initial | bias)
    sums = evaluate(fresh, np.ones(8))
    assert (sums["top_1"], sums["top_5"]) == (0, 0)
    assert np.isnan(sums["cross_entropy"])


def test_a_timed_loop_appends_the_wait_for_each_batch_and_changes_nothing_else(fresh, monkeypatch):
    batches = tiny.Batches.random(3, 8)
    expected = fresh.run(batches)
    trained = fresh.state.to_arrays()
    fresh.reset()
    readings = tf.Variable(0.0, dtype=tf.float64)
    # A clock that goes on by a second at each reading.
    monkeypatch.setattr(tf, "timestamp", lambda: tf.identity(readings.assign_add(1.0)))
    parts = (fresh.state, fresh.recipe, fresh.distribution, fresh.batch_spec)
    loop = make_train_loop(*parts, timed=True)
    rows = loop(iter(fresh.distribution.batches(batches.host_batches, 8)), tf.constant(3)).numpy()
    assert rows[:, -1].tolist() == [1.0, 1.0, 1.0]
    assert float(readings) == 6.0
    for name, column in zip(fresh.recipe.metrics, rows[:, :-1].T, strict=True):
        np.testing.assert_array_equal(column, expected[name], err_msg=name)
    for name, array in fresh.state.to_arrays().items():
        np.testing.assert_array_equal(array, trained[name], err_msg=name)
