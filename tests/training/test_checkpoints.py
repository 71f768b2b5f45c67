"""Which checkpoint counts, and what a continuation must share."""

import shutil
import zlib

import pytest

from losia_cli.errors import UserError
from losia_cli.training import checkpoints
from losia_cli.training.checkpoints import MANIFEST, never_resumed, newest, recipe_plan, save_safely


def test_checkpoint_10_is_newer_than_9(tmp_path):
    for step in (9, 10):
        folder = tmp_path / f"checkpoint-{step}"
        save_safely(folder, folder.mkdir, {}, 0, first=True)
    assert newest(tmp_path, print).name == "checkpoint-10"


def test_a_sealed_folder_that_is_written_again_and_cut_off_does_not_count(tmp_path):
    folder = tmp_path / "checkpoint-1"
    save_safely(folder, folder.mkdir, {}, 0, first=True)

    def dies():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_safely(folder, dies, {}, 0, first=True)
    assert not (folder / MANIFEST).exists()


def test_the_disk_is_looked_at_by_who_fills_it(tmp_path):
    """Another rank may look when the first one has begun to write."""
    folder = tmp_path / "checkpoint-1"
    too_much = shutil.disk_usage(tmp_path).total + 1
    save_safely(folder, folder.mkdir, {}, too_much, first=False)
    with pytest.raises(UserError, match="nothing was written"):
        save_safely(tmp_path / "checkpoint-2", folder.mkdir, {}, too_much, first=True)


def test_what_decides_the_weights_is_never_free():
    keys = (
        "per_device_train_batch_size", "gradient_accumulation_steps", "seed", "max_steps",
        "losia_rank_factor", "lora_rank", "cutoff_len", "packing",
    )  # fmt: skip
    assert set(recipe_plan(dict.fromkeys(keys, 1))) == set(keys)


@pytest.mark.parametrize("method", ["galore", "apollo"])
def test_layerwise_methods_are_never_resumed(method):
    assert never_resumed({f"use_{method}": True, f"{method}_layerwise": True})
    assert never_resumed({f"use_{method}": True}) is None


def test_a_checksum_is_of_the_whole_file(tmp_path):
    path = tmp_path / "big"
    data = bytes(5 << 20)
    path.write_bytes(data)
    assert checkpoints._checksum(path) == zlib.crc32(data)
