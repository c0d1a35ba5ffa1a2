import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.durations import Duration
from configs.load import (
    FLAG_KEYS,
    RESUME_KEYS,
    STAGE_RESUME_KEYS,
    ConfigError,
    difference,
    load_experiment,
    save_experiment,
    to_yaml,
)
from configs.schema import Digits, Experiment, Model, TFRecord, section_classes

ROOT = Path(__file__).parents[2]
TRAIN_KEYS = (
    "global_batch_size, duration, patience, accumulation_steps, steps_per_call, label_smoothing,"
    " weight_decay, weight_decay_coupled, weight_decay_pattern, gradient_clip_norm, gradient_clip_each,"
    " trainable, freeze_batch_norm, precision, on_nonfinite, max_skipped_steps"
)
TOP_KEYS = (
    "name, model_dir, seed, model, task, data, augment, train, optimizer, schedule, ema, batch_norm,"
    " eval, checkpoint, init, export, lr_range, benchmark, stages"
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder that is the current one, so that messages name files as they were given."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(**files: str) -> None:
    for name, text in files.items():
        Path(f"{name}.yaml").write_text(text, encoding="utf-8")


def error_of(path=None, **arguments) -> str:
    with pytest.raises(ConfigError) as raised:
        load_experiment(path, **arguments)
    assert len(str(raised.value).splitlines()) == 1
    return str(raised.value)


# Precedence of the layers


def test_a_file_holds_what_differs_from_the_defaults(folder):
    write(x="name: mine\ntrain: {weight_decay: 1e-4}\n")
    expected = Experiment(name="mine", train={"weight_decay": 1e-4})
    assert load_experiment("x.yaml") == expected


def test_a_file_lies_over_its_base_section_by_section(folder):
    write(
        deepest="model: {name: efficientnet-b1, dropout: 0.5}\nseed: 7\n",
        middle="base: deepest.yaml\nmodel: {dropout: 0.4}\naugment: {crop_area: [0.5, 0.9]}\n",
        top="base: middle.yaml\nmodel: {image_size: 64}\naugment: {crop_area: [0.1, 1]}\n",
    )
    experiment = load_experiment("top.yaml")
    assert experiment.model == Model(name="efficientnet-b1", dropout=0.4, image_size=64)
    assert experiment.augment.crop_area == (0.1, 1.0)
    assert experiment.seed == 7


def test_of_several_bases_the_later_lies_over_the_earlier(folder):
    write(
        a="seed: 1\ntrain: {global_batch_size: 8}",
        b="seed: 2\nname: b",
        x="base: [a.yaml, b.yaml]\nname: x",
    )
    experiment = load_experiment("x.yaml")
    assert (experiment.seed, experiment.name) == (2, "x")
    assert experiment.train.global_batch_size == 8


def test_one_base_may_be_reached_twice(folder):
    write(a="seed: 1", b="base: a.yaml", c="base: a.yaml\nname: c", x="base: [b.yaml, c.yaml]")
    assert load_experiment("x.yaml").seed == 1


def test_a_base_is_found_from_the_folder_of_the_file_that_names_it(folder):
    (folder / "recipes/own").mkdir(parents=True)
    (folder / "recipes/below.yaml").write_text("seed: 3")
    (folder / "recipes/own/x.yaml").write_text("base: ../below.yaml")
    assert load_experiment("recipes/own/x.yaml").seed == 3
    assert load_experiment(folder / "recipes/own/x.yaml").seed == 3
    write(y=f"base: {folder}/recipes/below.yaml")
    assert load_experiment("y.yaml").seed == 3


def test_null_in_an_overlay_takes_a_value_away(folder):
    write(below="model: {image_size: 64}", x="base: below.yaml\nmodel: {image_size: null}")
    assert load_experiment("x.yaml").model.image_size is None


def test_set_lies_over_files_and_flags_over_both(folder):
    write(x="seed: 1\nmodel: {name: efficientnet-b1}\ntrain: {global_batch_size: 8}")
    overrides = ["seed=2", "train.global_batch_size=16", "seed=3"]
    experiment = load_experiment("x.yaml", overrides=overrides, values={"seed": 4})
    assert (experiment.seed, experiment.train.global_batch_size) == (4, 16)
    assert load_experiment("x.yaml", overrides=overrides).seed == 3


def test_flags_that_were_not_given_count_for_nothing(folder):
    write(x="seed: 1")
    values = dict.fromkeys(FLAG_KEYS.values())
    assert load_experiment("x.yaml", values=values) == Experiment(seed=1)


def test_every_flag_is_a_key_of_the_experiment():
    values = {"model": "efficientnet-b1", "data_dir": "here", "model_dir": "there", "seed": 5}
    experiment = load_experiment(values={FLAG_KEYS[flag]: value for flag, value in values.items()})
    assert (experiment.model.name, experiment.data.data_dir) == ("efficientnet-b1", "here")
    assert (experiment.model_dir, experiment.seed) == ("there", 5)
    assert set(values) == set(FLAG_KEYS)


@pytest.mark.parametrize(
    ("override", "section", "field", "value"),
    [
        ("optimizer.momentum=0.8", "optimizer", "momentum", 0.8),
        ("train.weight_decay=1e-5", "train", "weight_decay", 1e-5),
        ("train.weight_decay=1", "train", "weight_decay", 1.0),
        ("augment.crop_area=[0.5, 1]", "augment", "crop_area", (0.5, 1.0)),
        ("augment={crop_area: [0.5, 1]}", "augment", "crop_area", (0.5, 1.0)),
        ("augment.flip=false", "augment", "flip", False),
        ("train.duration=10 epochs", "train", "duration", Duration(10, "epochs")),
        ("schedule.warmup=0 steps", "schedule", "warmup", Duration(0, "steps")),
        ("model.image_size=null", "model", "image_size", None),
        ("model.image_size=", "model", "image_size", None),
        ("data.data_dir=a=b", "data", "data_dir", "a=b"),
        ("data.data_dir=gs://bucket/data", "data", "data_dir", "gs://bucket/data"),
        (" model.phi = 1.5", "model", "phi", 1.5),
        ("batch_norm.group=all", "batch_norm", "group", "all"),
        ("batch_norm.group=16", "batch_norm", "group", 16),
        ("export.formats=[tflite, onnx]", "export", "formats", ("tflite", "onnx")),
        ("export.formats=[]", "export", "formats", ()),
    ],
)
def test_set_takes_scalars_lists_and_null(override, section, field, value):
    changed = getattr(load_experiment(overrides=[override]), section)
    assert getattr(changed, field) == value
    before = getattr(load_experiment(), section)
    assert changed.model_copy(update={field: getattr(before, field)}) == before


# Invalid experiments


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "train: {label_smothing: 0.2}",
            "unknown key train.label_smothing (with the value 0.2); did you mean label_smoothing?"
            f" train has {TRAIN_KEYS}",
        ),
        (
            "trian: {label_smoothing: 0.2}",
            'unknown key trian (with the value {"label_smoothing": 0.2}); did you mean train?'
            f" an experiment has {TOP_KEYS}",
        ),
        ("zzz: 1", f"unknown key zzz (with the value 1); an experiment has {TOP_KEYS}"),
        (
            "model.name: efficientnet-b1",
            'unknown key model.name (with the value "efficientnet-b1"); did you mean model:'
            f" {{name: ...}}? an experiment has {TOP_KEYS}",
        ),
        (
            "label_smoothing: 0.2",
            "unknown key label_smoothing (with the value 0.2); did you mean train.label_smoothing?"
            f" an experiment has {TOP_KEYS}",
        ),
        (
            "train: {global_batch_size: big}",
            'train.global_batch_size must be a whole number of at least 1, not "big"',
        ),
        (
            "train: {global_batch_size: 8.5}",
            "train.global_batch_size must be a whole number of at least 1, not 8.5",
        ),
        (
            "train: {global_batch_size: true}",
            "train.global_batch_size must be a whole number of at least 1, not true",
        ),
        (
            "train: {global_batch_size: null}",
            "train.global_batch_size must be a whole number of at least 1, not null",
        ),
        ("seed: -1", "seed must be a whole number of at least 0 and below 2147483648, not -1"),
        (
            "train: {label_smoothing: 1}",
            "train.label_smoothing must be a number of at least 0 and below 1, not 1",
        ),
        (
            "train: {label_smoothing: '0.1'}",
            'train.label_smoothing must be a number of at least 0 and below 1, not "0.1"',
        ),
        (
            "model: {survival_probability: 0}",
            "model.survival_probability must be a number above 0 and at most 1, or null, not 0",
        ),
        ("train: {weight_decay: .inf}", "train.weight_decay must be a number of at least 0, not I"),
        ("train: {weight_decay: .nan}", "train.weight_decay must be a number of at least 0, not N"),
        ("augment: {flip: no}", 'augment.flip must be true or false, not "no"'),
        ("augment: {flip: 1}", "augment.flip must be true or false, not 1"),
        (
            "augment: {policy: autoagment}",
            'augment.policy must be autoaugment, randaugment, cutout or none, not "autoagment"',
        ),
        (
            "augment: {crop_area: [1, 0.5]}",
            "augment.crop_area must be [low, high], both above 0, at most 1, and low not above"
            " high, not [1, 0.5]",
        ),
        ("augment: {crop_area: [0.5, 2]}", "augment.crop_area must be [low, high], both above 0"),
        ("augment: {crop_area: [0.5]}", "augment.crop_area must be [low, high], both above 0"),
        ("augment: {crop_area: 0.5}", "augment.crop_area must be [low, high], both above 0"),
        (
            "batch_norm: {group: some}",
            "batch_norm.group must be recipe, up_to_8, up_to_32, all or none, or a whole number",
        ),
        (
            "export: {formats: [saved_model, coreml]}",
            "export.formats must be a list of saved_model, tflite or onnx,"
            ' not ["saved_model", "coreml"]',
        ),
        (
            "train: {duration: 350}",
            "train.duration must be a duration above 0 and up to 1e12, as in '350 epochs',"
            " '100 steps' or '6400 examples', not 350",
        ),
        (
            "train: {duration: 3 weeks}",
            "train.duration must be a duration above 0 and up to 1e12, as in '350 epochs',"
            " '100 steps' or '6400 examples', not \"3 weeks\"",
        ),
        ("eval: {every: 0 epochs}", "eval.every must be a duration above 0 and up to 1e12"),
        ("schedule: {warmup: 1e999 steps}", "schedule.warmup must be a duration from 0 to 1e12"),
        (
            "model: efficientnet-b1",
            "model must be a section with the keys name, num_classes, image_size, width, depth,"
            ' phi, dropout, survival_probability, normalization, padding, network, not "efficientnet-b1"',
        ),
        ("model:", "model must be a section with the keys name"),
        ("data: {data_dir: ''}", 'data.data_dir must be text (not empty), or null, not ""'),
        ("name: ../../etc", "name must be a name of letters, digits and _ . + - that begins with"),
        ("data: {data_dir: 5}", "data.data_dir must be text (not empty), or null, not 5"),
        (
            "model: {phi: 1, width: 2}",
            "model.phi=1 sets width and depth: give either phi or those",
        ),
        ("data: {eval_split: minival}", "data.eval_split=minival evaluates the holdout shards"),
        ("data: {cache: disk}", "data.cache=disk needs data.cache_dir"),
        ("data: {cache_dir: x}", "data.cache_dir=x is for data.cache=disk, not none"),
        (
            "data: {cache: memory, service: 'grpc://h:1'}",
            "data.cache=memory keeps images on this host",
        ),
        ("data: {service: 'localhost:1'}", "data.service must be grpc://HOST:PORT, or null"),
        (
            "train: {global_batch_size: 10, accumulation_steps: 4}",
            "train.accumulation_steps=4 must divide train.global_batch_size=10",
        ),
        (
            "seed: -1\nmodel: {width: 0}\nname: 5",
            "name must be a name of letters, digits and _ . + - that begins with a letter or"
            " digit, not 5 (and 2 more)",
        ),
        ("seed: 1\nseed: 2", "not an experiment in YAML: line 2: the key 'seed' is given twice"),
        ("train: {a: 1, a: 2}", "not an experiment in YAML: line 1: the key 'a' is given twice"),
        ("train: [", "not an experiment in YAML: line 1: expected the node content"),
        (
            "a: &a [x]\nb: *a",
            "not an experiment in YAML: line 2: aliases (*name) are not supported",
        ),
        ("", "expected sections of keys and values, not null"),
        ("- model\n- data", 'expected sections of keys and values, not ["model", "data"]'),
        ("efficientnet-b0", 'expected sections of keys and values, not "efficientnet-b0"'),
        ("base: 5", "base must be a file or a list of files, not 5"),
        ("base: [a.yaml, null]", 'base must be a file or a list of files, not ["a.yaml", null]'),
        ("base: null", "base must be a file or a list of files, not null"),
        ("base: x.yaml", "circular base: x.yaml -> x.yaml"),
    ],
)
def test_a_wrong_file_is_one_line_that_names_it(folder, text, message):
    write(x=text)
    assert error_of("x.yaml").startswith(f"x.yaml: {message}")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.duration", "expected KEY=VALUE, as in --set optimizer.momentum=0.8"),
        ("=5", "expected KEY=VALUE, as in --set optimizer.momentum=0.8"),
        ("", "expected KEY=VALUE, as in --set optimizer.momentum=0.8"),
        ("seed=[1", "not a value in YAML: line 1: expected ',' or ']', but got '<stream end>'"),
        ("train..duration=1", 'unknown key train. (with the value {"duration": 1}); train has'),
        (
            "seed.x=1",
            'seed must be a whole number of at least 0 and below 2147483648, not {"x": 1}',
        ),
        ("model=5", "model must be a section with the keys name"),
        ("base=x.yaml", 'unknown key base (with the value "x.yaml"); an experiment has'),
        (
            "optimizer.momentun=0.8",
            "unknown key optimizer.momentun (with the value 0.8); did you mean momentum?"
            " optimizer.name=rmsprop has name, layer_decay, decay, momentum, epsilon",
        ),
        (
            "optimizer.momentum=1",
            "optimizer.momentum must be a number of at least 0 and below 1, n",
        ),
    ],
)
def test_a_wrong_set_is_one_line_that_names_it(override, message):
    assert error_of(overrides=["seed=5", override]).startswith(f"--set {override}: {message}")


def test_a_wrong_flag_is_one_line_that_names_it():
    message = "seed must be a whole number of at least 0 and below 2147483648, not -5"
    assert error_of(values={"seed": -5}) == f"--seed=-5: {message}"
    message = 'data.data_dir must be text (not empty), or null, not ""'
    assert error_of(values={"data.data_dir": ""}) == f"--data_dir=: {message}"


def test_an_error_names_the_file_that_gave_the_value(folder):
    write(below="seed: -1", x="base: below.yaml\nname: x")
    assert error_of("x.yaml").startswith("below.yaml: seed must be")
    assert load_experiment("x.yaml", overrides=["seed=1"]).seed == 1
    write(x="base: below.yaml\nseed: -2")
    assert error_of("x.yaml").startswith("x.yaml: seed must be")


def test_values_that_contradict_each_other_name_all_their_places(folder):
    write(x="model: {phi: 1}\nseed: 3")
    message = error_of("x.yaml", overrides=["model.depth=2", "train.steps_per_call=5"])
    assert message == (
        "x.yaml and --set model.depth=2: model.phi=1 sets width and depth: give either phi or those"
    )


@pytest.mark.parametrize("key", ["eval.weights", "export.weights"])
def test_an_average_that_the_run_does_not_keep_cannot_be_asked_for(folder, key):
    write(x="ema: {decay: 0}")
    assert error_of("x.yaml", overrides=[f"{key}=ema"]) == (
        f"--set {key}=ema and x.yaml: {key}=ema needs a moving average, and ema.decay=0 keeps none: "
        f"leave {key} out, set it to raw, or raise ema.decay"
    )
    load_experiment("x.yaml", overrides=[f"{key}=raw"])
    load_experiment("x.yaml", overrides=[f"{key}=ema", "ema.decay=0.9"])


def test_a_value_wrong_in_two_ways_is_one_problem(folder):
    write(x="batch_norm: {group: some}")
    assert error_of("x.yaml").endswith('a whole number of at least 1, not "some"')
    write(x="augment: {crop_area: [-1, 2]}")
    assert error_of("x.yaml").endswith("not [-1, 2]")


def test_bases_in_a_circle_are_named(folder):
    write(a="base: b.yaml", b="base: [c.yaml]", c="base: ./a.yaml")
    message = "a.yaml: circular base: a.yaml -> b.yaml -> c.yaml -> a.yaml"
    assert error_of("a.yaml") == message
    assert error_of("./a.yaml") == message


def test_a_missing_file_is_named_with_near_ones(folder):
    write(flowers="name: x", x="base: flower.yaml")
    near = "flower.yaml: file not found; did you mean flowers.yaml?"
    assert error_of("flower.yaml") == near
    assert error_of("x.yaml") == f"x.yaml: base: {near}"
    write(digits="name: y")
    assert error_of("nothing.yaml") == "nothing.yaml: file not found"
    assert error_of("digit") == "digit: file not found; did you mean digits.yaml?"
    assert error_of("nowhere/zzz.yaml") == "nowhere/zzz.yaml: file not found"


def test_files_that_are_no_text_are_one_line(folder):
    Path("latin.yaml").write_bytes(b"name: caf\xe9")
    assert error_of("latin.yaml") == "latin.yaml: not UTF-8 text (byte 9)"
    Path("nul.yaml").write_bytes(b"name: \x00")
    assert error_of("nul.yaml").startswith("nul.yaml: not an experiment in YAML: ")
    Path("giant.yaml").write_text("# " + "x" * 2**20)
    assert error_of("giant.yaml").startswith("giant.yaml: not an experiment in YAML: more than 1")
    Path("folder.yaml").mkdir()
    assert error_of("folder.yaml") == "folder.yaml: cannot be read: Is a directory"


def test_a_byte_order_mark_is_no_part_of_the_first_key(folder):
    Path("x.yaml").write_bytes(b"\xef\xbb\xbfseed: 5")
    assert load_experiment("x.yaml").seed == 5


def test_an_endless_chain_of_bases_ends(folder):
    for i in range(120):
        Path(f"{i}.yaml").write_text(f"base: {i + 1}.yaml")
    assert error_of("0.yaml") == "0.yaml: more than 100 files, each the base of another"


def test_a_long_value_is_shortened(folder):
    write(x=f"seed: {'y' * 1000}")
    assert len(error_of("x.yaml")) < 200
    assert len(error_of(overrides=[f"seed={'y' * 1000}"])) < 300
    assert len(error_of(values={"seed": "y" * 1000})) < 300


@pytest.mark.slow
@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(st.text(), st.sampled_from(["{}", "name={}", "train.duration={}", "model={{{}}}", "{}=1"]))
def test_no_set_is_more_than_one_line_of_trouble(text, form):
    try:
        load_experiment(overrides=[form.format(text)])
    except ConfigError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017 (most texts are errors, not all)


# Writing


@pytest.mark.parametrize("path", sorted(ROOT.glob("configs/*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_reads_back_as_it_was_written(path, folder):
    experiment = load_experiment(path)
    save_experiment(experiment, "resolved.yaml")
    assert load_experiment("resolved.yaml") == experiment
    assert Path("resolved.yaml").read_text("utf-8") == to_yaml(experiment)


def test_nothing_is_lost_in_writing(folder):
    experiment = Experiment(
        name="1e5",
        model_dir="gs://bücket/no",
        model={"phi": 0.1 + 0.2, "image_size": None},
        data={"data_dir": "a: b # c\u2028'\"\x85\t", "source": "tfds:null"},
        train={"weight_decay": 1e-7, "duration": "12345678.9 examples"},
        export={"formats": ()},
    )
    save_experiment(experiment, "x.yaml")
    assert load_experiment("x.yaml") == experiment


def test_what_is_written_holds_every_field():
    written = load_experiment(overrides=["seed=5"])
    assert to_yaml(written).count("\n") > 60
    assert "\nseed: 5\n" in to_yaml(written)


def test_saving_replaces_the_file_and_leaves_nothing_beside_it(folder):
    save_experiment(Experiment(seed=1), "deep/er/x.yaml")
    save_experiment(Experiment(seed=2), Path("deep/er/x.yaml"))
    assert load_experiment("deep/er/x.yaml").seed == 2
    assert [file.name for file in Path("deep/er").iterdir()] == ["x.yaml"]


def test_a_file_that_cannot_be_written_is_one_line_and_keeps_what_was(folder):
    write(x="seed: 1")
    with pytest.raises(ConfigError, match=r"^x.yaml/y.yaml: cannot be written: .*$"):
        save_experiment(Experiment(), "x.yaml/y.yaml")
    Path("folder.yaml").mkdir()
    with pytest.raises(ConfigError, match=r"^folder.yaml: cannot be written: Is a directory$"):
        save_experiment(Experiment(), "folder.yaml")
    assert {file.name for file in folder.iterdir()} == {"x.yaml", "folder.yaml"}


# Differences


def test_the_difference_is_a_line_for_each_value():
    old = Experiment(model=Model(name="efficientnet-b0", image_size=32))
    new = Experiment(
        model=Model(name="efficientnet-b4"),
        data=TFRecord(holdout_shards=20),
        augment={"flip": False},
    )
    assert difference(old, new) == [
        "model.name: efficientnet-b0 -> efficientnet-b4",
        "model.image_size: 32 -> null",
        "data.holdout_shards: 0 -> 20",
        "augment.flip: true -> false",
    ]
    assert difference(old, old) == []


def test_a_resume_asks_for_the_network_the_images_and_the_batch_alone():
    old = Experiment()
    harmless = Experiment(
        name="other",
        seed=3,
        model_dir="there",
        data={"on_error": "skip"},
        train={"precision": "auto"},
    )
    assert difference(old, harmless, RESUME_KEYS) == []
    assert difference(old, Experiment(train={"global_batch_size": 8}), RESUME_KEYS) == [
        "train.global_batch_size: 4096 -> 8"
    ]
    other = Experiment(model=Model(width=2.0), data=Digits(data_dir="x"))
    assert difference(old, other, RESUME_KEYS) == [
        "model.width: null -> 2.0",
        "data.source: tfrecord -> digits",
        "data.data_dir: null -> x",
    ]


def test_the_difference_of_two_kinds_is_the_kind_and_what_both_have():
    old = Experiment(data={"source": "tfrecord", "data_dir": "x", "holdout_shards": 20})
    new = Experiment(data={"source": "synthetic", "num_train_examples": 5, "cache": "memory"})
    assert difference(old, new) == [
        "data.source: tfrecord -> synthetic",
        "data.cache: none -> memory",
    ]
    assert difference(old, new, RESUME_KEYS) == ["data.source: tfrecord -> synthetic"]


def test_resume_keys_are_keys_of_the_schema():
    for key in RESUME_KEYS + STAGE_RESUME_KEYS:
        section, _, name = key.partition(".")
        classes = section_classes()[section]
        assert not name or any(name in each.model_fields for each in classes), key


def test_configs_need_no_tensorflow():
    code = (
        "import sys; from configs import load, document; load.load_experiment();"
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
