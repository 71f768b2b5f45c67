"""The documents: their code runs as it stands, and their links lead somewhere."""

import re
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM

from losia_cli.data.sources import SOURCES
from losia_cli.evaluation.keys import EVALUATION_KEYS
from losia_cli.evaluation.suites import GROUPS, SUITES
from tests.models import batches, tiny, weights

ROOT = Path(__file__).parent.parent
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
EXAMPLES = re.findall(r"```python\n(.*?)```", (ROOT / "docs/library.md").read_text(), re.DOTALL)


def given():
    ids = torch.cat(batches(20))
    rows = [{"input_ids": row.tolist(), "labels": row.tolist()} for row in ids]
    loop = [{"input_ids": batch, "labels": batch} for batch in batches(60)]
    return {"model": tiny(dtype=torch.float32), "dataset": Dataset.from_list(rows), "batches": loop}


@pytest.mark.parametrize("number", range(2))
def test_the_library_examples_run(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    example = EXAMPLES[number].replace("max_steps=1000", "max_steps=30, use_cpu=True")
    assert len(EXAMPLES) == 2
    assert len([line for line in EXAMPLES[1].splitlines() if line.strip()]) <= 14
    names = given()
    before = weights(names["model"])
    exec(example, names)
    saved = AutoModelForCausalLM.from_pretrained("out").state_dict()
    assert saved.keys() == before.keys()
    changed = {name for name, value in before.items() if not torch.equal(value, saved[name])}
    assert changed == {f"{name}.weight" for name in names["losia"].layers}


def test_documents_link_to_what_is_there():
    assert len(DOCUMENTS) >= 4
    for document in DOCUMENTS:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_make_targets_in_the_documents_exist():
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for document in DOCUMENTS:
        for name in re.findall(r"`make ([a-z0-9-]+)", document.read_text()):
            assert name in targets, f"{document.name}: make {name}"


def test_the_guide_to_evaluation_names_every_suite_dataset_and_key():
    guide = (ROOT / "docs/evaluation.md").read_text()
    for name in (*SUITES, *GROUPS):
        assert f"`{name}`" in guide, name
    for (path, _), source in SOURCES.items():
        assert f"`{path}`" in guide
        assert source.revision in guide
    keys = (ROOT / "docs/training.md").read_text()
    assert all(f"`{key}`" in keys for key in EVALUATION_KEYS)
