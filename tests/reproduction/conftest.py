import pytest

from losia_cli.reproduction.store import Store


@pytest.fixture
def store(tmp_path):
    """An empty one, in a folder of an awkward name."""
    made = Store(tmp_path / "a: b #1", {"miniature": False})
    made.open()
    return made
