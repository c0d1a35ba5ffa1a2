"""The yardstick of the input benchmark does the same work as what it is held against."""

from pathlib import Path

from benchmarks.input_pipeline import count_equal, find_jpegs, write_records


def test_the_published_structure_gives_the_same_pixels(
    imagenet_sample: Path, tmp_path: Path
) -> None:
    source = write_records(find_jpegs(imagenet_sample)[:64], str(tmp_path))
    assert count_equal(source, image_size=64, images=48) == 48
