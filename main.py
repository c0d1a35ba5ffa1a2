"""Train, evaluate and export EfficientNets on TPUs, GPUs or a CPU.

  python main.py
      trains efficientnet-b0 on real handwritten digits in minutes, with nothing to download.
  python main.py --model=efficientnet-b4 --data_dir=gs://BUCKET/imagenet --model_dir=gs://BUCKET/b4 \\
      --tpu=NAME --tpu_zone=ZONE
      trains the published recipe on a Cloud TPU. The same command resumes an interrupted run.
  python main.py --mode=eval --model_dir=DIR
      evaluates the best checkpoint in DIR. --mode=export exports it again, --mode=eval_loop evaluates the
      checkpoints of a run as they appear, --mode=replay repeats a step that was not finite, layer by layer.
  python main.py --mode=plan --model=efficientnet-b0 --topology=v5e:2x4
      predicts steps, learning rate, memory, throughput and hours without any device.
  python main.py --mode=lr_range --config=FILE --data_dir=DIR
      tries rising learning rates and suggests one.
  python main.py --mode=benchmark --config=FILE --data_dir=DIR
      measures training steps on the present devices: images/s, waiting for input, memory.

An experiment is a YAML file (configs/*.yaml, described in docs/experiments.md); every field of it can be
given as --set section.field=value. EFFICIENTNET_TENSORFLOW_LOGS=1 brings TensorFlow's own log back.
"""

import sys

from absl import app, flags, logging

from configs.load import FLAG_KEYS, ConfigError, config_for_model, load_experiment
from configs.schema import Experiment
from system.errors import UserError, first_line, is_out_of_memory
from system.files import file_errors
from system.memory import limit_malloc_arenas
from system.tensorflow_log import quiet_tensorflow

MODES = (
    "train_and_eval",
    "train",
    "eval",
    "eval_loop",
    "export",
    "plan",
    "replay",
    "lr_range",
    "benchmark",
)

FLAGS = flags.FLAGS
flags.DEFINE_string("model", None, "Network, such as efficientnet-b4.")
flags.DEFINE_string(
    "config", None, "Experiment file; default: the recipe of --model, else the digits."
)
flags.DEFINE_string("data_dir", None, "Folder of the data, local or gs://.")
flags.DEFINE_string("model_dir", None, "Folder of the run, local or gs://; default: runs/NAME.")
flags.DEFINE_enum("mode", "train_and_eval", MODES, "What to do with the run.")
flags.DEFINE_string("tpu", None, "'local' on a TPU VM, a node's name, or grpc://HOST:8470.")
flags.DEFINE_string("tpu_zone", None, "Zone of the TPU that --tpu names.")
flags.DEFINE_string("gcp_project", None, "Project of the TPU that --tpu names.")
flags.DEFINE_enum(
    "strategy",
    "auto",
    ["auto", "tpu", "mirrored", "multi_worker", "cpu"],
    "Devices; auto: the TPU if --tpu is given, else all GPUs if there are any, else the CPU.",
)
flags.DEFINE_string("topology", None, "TPU to plan for, such as v5e:2x4; for --mode=plan.")
flags.DEFINE_integer("seed", None, "Random seed, at least 0.", lower_bound=0)
flags.DEFINE_multi_string(
    "set", [], "Set a field of the experiment: section.field=value; repeatable."
)


def main(argv: list[str]) -> int:
    """Run the mode that the flags name and return the exit status.

    Returns:
      0; 1 for a failure; 2 for a mistake in the flags or the experiment; 75 after SIGTERM and 130 after
      SIGINT (Ctrl-C): the run is saved, and the same command resumes it.
    """
    logging.set_verbosity(logging.WARNING)
    if len(argv) > 1:
        return _report_error(f"{argv[1]!r} is not a flag; see python main.py --help", status=2)
    quiet_tensorflow()
    limit_malloc_arenas()
    folder = FLAGS.model_dir or "runs/NAME"
    advice = (
        f"check --model_dir={folder}, --data_dir and, for gs://, "
        "`gcloud auth application-default login`"
    )
    try:
        with file_errors(advice):
            return run(experiment_from_flags(), FLAGS.mode)
    except UserError as error:
        return _report_error(str(error), status=error.status)
    except KeyboardInterrupt:
        return _report_error(
            "interrupted; the same command resumes from the last checkpoint", status=130
        )
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        from input_pipeline.errors import plain_message

        return _report_error(
            f"out of memory ({plain_message(first_line(error))}); set a smaller train.global_batch_size or "
            "eval.global_batch_size, or a smaller network or model.image_size",
            status=1,
        )


def experiment_from_flags() -> Experiment:
    """Load the experiment that the flags describe.

    Without --config and --model it is that of the run in --model_dir, if there is one.
    """
    from run_folder.experiment import run_experiment_file

    config = FLAGS.config or (config_for_model(FLAGS.model) if FLAGS.model else None)
    if not config and FLAGS.model_dir:
        config = run_experiment_file(FLAGS.model_dir)
        if not config and FLAGS.mode in ("eval", "eval_loop", "export", "replay"):
            fix = "" if FLAGS.mode == "export" else ", or give --config"
            raise ConfigError(
                f"--model_dir={FLAGS.model_dir}: no run here; start training first{fix}"
            )
    values = {key: FLAGS[flag].value for flag, key in FLAG_KEYS.items()}
    experiment = load_experiment(config, overrides=FLAGS.set, values=values)
    if experiment.eval.labels and FLAGS.mode != "eval":
        raise ConfigError(
            f"eval.labels={experiment.eval.labels} has no effect with --mode={FLAGS.mode}: it is for eval"
        )
    if experiment.model_dir is None:
        experiment = experiment.model_copy(update={"model_dir": f"runs/{experiment.name}"})
    return experiment


def run(experiment: Experiment, mode: str) -> int:
    """Run one of MODES, print its results and return the exit status."""
    from serving.export import export_run
    from serving.report import write_report_or_log
    from training import benchmark, eval_loop, loop, lr_range, report
    from training.devices import distribution
    from training.diagnosis import nonfinite

    model_dir = str(experiment.model_dir)
    if mode == "plan":
        from training.forecast import forecast, printing

        printing.print_forecast(forecast.make_forecast(experiment, FLAGS.topology), model_dir)
        return 0
    if mode == "export":
        report.print_exports(export_run(model_dir, experiment))
        return 0
    replicas = distribution.connect(
        FLAGS.strategy, tpu=FLAGS.tpu, tpu_zone=FLAGS.tpu_zone, gcp_project=FLAGS.gcp_project
    )
    if mode == "replay":
        report.print_diagnosis(*nonfinite.replay(experiment))
        return 0
    if mode == "eval_loop":
        eval_loop.follow(experiment, replicas)
        return 0
    if mode == "lr_range":
        found = lr_range.run_range_test(experiment, replicas)
        if replicas.is_chief:
            lr_range.report_range(found, model_dir)
        return 0
    if mode == "benchmark":
        speed = benchmark.run_benchmark(experiment, replicas)
        if replicas.is_chief:
            benchmark.print_speed(speed)
        return 0
    if mode == "eval":
        report.print_evaluation(loop.evaluate_run(experiment, replicas))
        return 0
    outcome = loop.train_and_evaluate(
        experiment, replicas, with_evaluation=mode == "train_and_eval"
    )
    if replicas.is_chief:
        is_old = outcome.measured is None
        files = export_run(model_dir, experiment, only_missing=is_old)
        if experiment.export.report:
            page = write_report_or_log(model_dir, only_missing=is_old)
            files = {"report": page, **files} if page else files
        report.print_outcome(model_dir, outcome, files)
    return 0


def _report_error(message: str, *, status: int) -> int:
    print(f"main.py: {message}", file=sys.stderr)
    return status


def _parse_flags(argv: list[str]) -> list[str]:
    """Parse the flags; exit with status 2 and one line for a mistake in them."""
    try:
        return FLAGS(argv)
    except SystemExit:  # --help and its like, which absl ends with 1
        sys.exit(0)
    except flags.Error as error:
        sys.exit(_report_error(f"{error}; see python main.py --help", status=2))


if __name__ == "__main__":
    app.run(main, flags_parser=_parse_flags)
