"""The section `data`: where the images come from, and how they are read."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from configs.schema.fields import Address, BelowOne, ConflictError, Count, Natural, Positive, Text
from configs.sections import Section

Sampling = Literal["uniform", "balanced"]  # how training images are drawn


class Data(Section):
    """Where the images come from, and how they are read."""

    source: str  # what holds the images
    eval_split: Literal["validation", "minival"] = "validation"  # minival: the holdout shards
    cache: Literal["none", "memory", "disk"] = "none"  # encoded images, read once and kept here
    cache_dir: Text | None = None  # for cache=disk: a folder on a local disk
    service: Address | None = None  # grpc://HOST:PORT of a data service that makes training images
    on_error: Literal["fail", "skip"] = "fail"  # at a broken image; skipped ones are counted
    max_error_fraction: BelowOne = 0.001  # of an epoch's images; more than that stops the run

    @field_validator("data_dir", check_fields=False)
    @classmethod
    def _without_last_slash(cls, path: str | None) -> str | None:
        """Give a folder one name, so that a run resumes whether or not a shell completed its path."""
        return path and (path.rstrip("/") or "/")

    @model_validator(mode="after")
    def _check_eval_split(self) -> "Data":
        if self.eval_split == "minival" and not hasattr(self, "holdout_shards"):
            raise ConflictError(
                "data.eval_split=minival evaluates the holdout shards, and"
                f" data.source={self.source} is not read in shards: expected validation",
                "data.eval_split",
                "data.source",
            )
        if self.eval_split == "minival" and not getattr(self, "holdout_shards", 0):
            raise ConflictError(
                "data.eval_split=minival evaluates the holdout shards, and there are none:"
                " data.holdout_shards must be at least 1 (20 of ImageNet's 1024 in the recipe)",
                "data.eval_split",
                "data.holdout_shards",
            )
        return self

    @model_validator(mode="after")
    def _check_errors(self) -> "Data":
        default = Data.model_fields["max_error_fraction"].default
        if self.on_error != "skip" and self.max_error_fraction != default:
            raise ConflictError(
                f"data.max_error_fraction={self.max_error_fraction:g} has no effect with"
                f" data.on_error={self.on_error}: it is for skip",
                "data.max_error_fraction",
                "data.on_error",
            )
        return self

    @model_validator(mode="after")
    def _check_cache(self) -> "Data":
        if self.cache == "disk" and not self.cache_dir:
            raise ConflictError(
                "data.cache=disk needs data.cache_dir, a folder on a local disk",
                "data.cache",
                "data.cache_dir",
            )
        if self.cache_dir and self.cache != "disk":
            raise ConflictError(
                f"data.cache_dir={self.cache_dir} is for data.cache=disk, not {self.cache}",
                "data.cache",
                "data.cache_dir",
            )
        if self.service and self.cache != "none":
            raise ConflictError(
                f"data.cache={self.cache} keeps images on this host, and with data.service={self.service}"
                " other machines read them; give one of the two",
                "data.cache",
                "data.service",
            )
        return self


class TFRecord(Data):
    """TFRecord shards, as `python -m input_pipeline.prepare` writes them."""

    source: Literal["tfrecord"] = "tfrecord"
    data_dir: Text | None = None  # folder or gs:// path of the shards; --data_dir
    holdout_shards: Natural = 0  # first train shards kept back as minival
    shuffle_buffer_mib: Positive = 1024.0  # MiB of encoded images per host


class ImageFolder(Data):
    """Image files in a folder for each class."""

    source: Annotated[
        str,
        Field(pattern=r"^image_folder(:[^:]+)?$", description="image_folder[:SHARE]"),
    ] = "image_folder"
    data_dir: Text | None = None  # the folder above the classes'; --data_dir
    sampling: Sampling = "uniform"  # balanced: classes equally often, so an epoch repeats images


class CSV(Data):
    """Image files that CSV files list with their labels."""

    source: Annotated[str, Field(pattern=r"^csv(:[^:]+)?$", description="csv[:SHARE]")] = "csv"
    data_dir: Text | None = None  # the training list, or the folder of train.csv; --data_dir
    sampling: Sampling = "uniform"  # balanced: classes equally often, so an epoch repeats images


class Digits(Data):
    """The 1,797 handwritten digits that ship inside scikit-learn."""

    source: Literal["digits"] = "digits"
    data_dir: Text | None = None  # where to write them as TFRecords; None: data/digits; --data_dir
    shuffle_buffer_mib: Positive = 1024.0  # MiB of encoded images per host


class Textures(Data):
    """Patches of ten grey textures and photographs that ship inside scikit-image."""

    source: Literal["textures"] = "textures"
    data_dir: Text | None = None  # where to write the TFRecords; None: data/textures; --data_dir
    shuffle_buffer_mib: Positive = 1024.0  # MiB of encoded images per host


class DigitScenes(Data):
    """Scenes of several of these digits on a textured background, with masks and boxes."""

    source: Literal["digit_scenes"] = "digit_scenes"
    data_dir: Text | None = None  # where to write them; None: data/digit_scenes; --data_dir


class MaskFolder(Data):
    """Image files and masks of the same names, in folders called images and masks."""

    source: Annotated[
        str, Field(pattern=r"^mask_folder(:[^:]+)?$", description="mask_folder[:SHARE]")
    ] = "mask_folder"
    data_dir: Text | None = None  # the folder above them, or above train and val; --data_dir


class VOC(Data):
    """A set in the folders of PASCAL VOC."""

    source: Literal["voc"] = "voc"
    data_dir: Text | None = None  # the folder of JPEGImages, such as VOC2012; --data_dir


class COCO(Data):
    """Images with boxes in the JSON files of COCO."""

    source: Annotated[str, Field(pattern=r"^coco(:[^:]+)?$", description="coco[:SHARE]")] = "coco"
    data_dir: Text | None = None  # the folder of annotations and images; --data_dir


class VOCBoxes(Data):
    """Images with boxes in the XML files of PASCAL VOC."""

    source: Annotated[
        str, Field(pattern=r"^voc_boxes(:[^:]+)?$", description="voc_boxes[:SHARE]")
    ] = "voc_boxes"
    data_dir: Text | None = None  # the folder of annotations and images; --data_dir


class YOLO(Data):
    """Images with boxes in the text files of YOLO."""

    source: Annotated[str, Field(pattern=r"^yolo(:[^:]+)?$", description="yolo[:SHARE]")] = "yolo"
    data_dir: Text | None = None  # the folder of images, labels and data.yaml; --data_dir


class Synthetic(Data):
    """Noise of the model's image size, for tests."""

    source: Literal["synthetic"] = "synthetic"
    num_train_examples: Count | None = None  # training images; None: as many as ImageNet


class TFDS(Data):
    """A data set that TensorFlow Datasets has prepared, in TFRecord format."""

    source: Annotated[str, Field(pattern=r"^tfds:.+$", description="tfds:NAME")]
    data_dir: Text | None = None  # its data_dir; None: ~/tensorflow_datasets; --data_dir
    holdout_shards: Natural = 0  # first train shards kept back as minival
    shuffle_buffer_mib: Positive = 1024.0  # MiB of encoded images per host
