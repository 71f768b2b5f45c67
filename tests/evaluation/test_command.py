"""How the command line of `losia eval` is read."""

import pytest

from losia_cli.cli.eval import spelled_out


@pytest.mark.parametrize(
    ("words", "meaning"),
    [
        (["--allow-code"], ["--allow-code=sandboxed"]),
        (["--allow-code", "run"], ["--allow-code=sandboxed", "run"]),
        (["--allow-code", "unsandboxed", "run"], ["--allow-code=unsandboxed", "run"]),
        (["--allow-code=unsandboxed"], ["--allow-code=unsandboxed"]),
        (["run", "--allow-code", "--json"], ["run", "--allow-code=sandboxed", "--json"]),
        (["unsandboxed"], ["unsandboxed"]),
    ],
)
def test_code_is_allowed_with_and_without_a_word(words, meaning):
    assert spelled_out(words) == meaning
