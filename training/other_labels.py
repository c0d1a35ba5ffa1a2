"""Evaluate a run on images with labels from elsewhere, by eval.labels."""

import dataclasses

from configs.schema import Experiment
from input_pipeline.sources.dataset_info import read_dataset_info
from input_pipeline.sources.labelled import open_labelled
from training.devices.distribution import Distribution
from training.initial import with_expectations
from training.job import ExperimentError, Job, check_batches, make_job, make_target, model_spec


def labelled_job(experiment: Experiment, distribution: Distribution) -> Job:
    """Build the job of a run whose evaluation images have the labels of eval.labels.

    The classes are those of the run, which keeps a description of its data. The data that it was trained
    on is not read.

    Raises:
      UsageError: there is no data_dir, or batches do not divide among the replicas.
      DatasetError: the run has no description of its data, or an image has a label that is no class.
    """
    check_batches(experiment, distribution)
    data, labels = experiment.data, experiment.eval.labels
    folder = getattr(data, "data_dir", None)
    if folder is None or labels is None:
        raise ExperimentError(
            f"eval.labels={labels} labels the images in --data_dir: give the folder"
        )
    experiment = with_expectations(experiment, model_spec)
    info, split = read_dataset_info(str(experiment.model_dir)), data.eval_split
    source = open_labelled(folder, labels, info, split=split, target=make_target(experiment))
    job = make_job(experiment, info, distribution, lambda: source)
    evaluated = dataclasses.replace(
        info, name=source.info.name, splits={**info.splits, split: source.info.splits[split]}
    )
    return dataclasses.replace(job, data_info=evaluated)
