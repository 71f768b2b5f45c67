"""The guide to the data, held against what the code does."""

from pathlib import Path

import pytest

from losia_cli.data.prompts import TEMPLATES
from losia_cli.data.training_sets import SETS

GUIDE = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
TABLES = [line for line in GUIDE.splitlines() if line.startswith("|")]


def rows_of(name):
    return [line for line in TABLES if f"`{name}`" in line]


@pytest.mark.parametrize("name", [name for name in SETS if not name.endswith("0k")])
def test_the_table_names_each_source_as_it_is_used(name):
    wanted = SETS[name]
    (row,) = [line for line in rows_of(name) if wanted.revision in line]
    assert wanted.repository in row
    assert wanted.subset is None or f", {wanted.subset}" in row
    drawn = f"all {wanted.published:,}"
    if wanted.rows is not None:
        drawn = f"{wanted.rows:,} of {wanted.published:,}"
    assert f"| {drawn} |" in row
    assert any(f"`{wanted.template}`" in line for line in rows_of(name))
    columns = [line for line in rows_of(name) if all(c in line for c in wanted.columns)]
    assert columns


def test_the_other_draws_and_the_templates_are_named():
    (row,) = [line for line in TABLES if "30,000, 70,000" in line]
    assert "`metamathqa_30k`, `metamathqa_70k`" in row
    assert (SETS["metamathqa_30k"].rows, SETS["metamathqa_70k"].rows) == (30_000, 70_000)
    assert all(f"`{name}`" in GUIDE for name in TEMPLATES)
