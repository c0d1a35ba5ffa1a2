"""TFRecord files in ImageNet's format, on a local disk or gs://."""

from input_pipeline.errors import DatasetError
from input_pipeline.sources.dataset_info import find_dataset_info
from input_pipeline.sources.source import Source, SourceRequest, sharded_examples


def open_tfrecord(request: SourceRequest) -> Source:
    """Open the records in `request.data_dir`, described by its dataset_info.json or counted.

    Raises:
      DatasetError: no data_dir, no records in it, or they do not match their description.
    """
    if request.data_dir is None:
        raise DatasetError(
            "data source tfrecord needs data_dir: a folder or gs:// path of train-00000-of-N files"
        )
    info = find_dataset_info(
        request.data_dir, num_classes=request.num_classes, skip_damage=request.skip_damage
    )
    splits = {
        name: sharded_examples(request.data_dir, split, request.target)
        for name, split in info.splits.items()
    }
    return Source(info, splits)
