"""Files that are whole or not there."""

import pytest

from losia_cli import files
from losia_cli.files import write_atomically


def test_a_file_that_could_not_be_written_leaves_nothing_and_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    write_atomically(path, "before")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, "after")
    assert [each.name for each in tmp_path.iterdir()] == ["results.json"]
    assert path.read_text() == "before"
