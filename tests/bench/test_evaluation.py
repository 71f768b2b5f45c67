"""The evaluation benchmark on a tiny model: both ways of answering give the same scores."""

import pytest

from losia_cli.bench.evaluation import render, run_evaluation_benchmark
from losia_cli.evaluation.sandbox import diagnose
from tests.e2e.conftest import _tokenizer
from tests.evaluation.conftest import SHARED, make


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason=f"needs the data slices in {SHARED}")
def test_both_ways_answer_alike(tmp_path):
    make(max_position_embeddings=2048).save_pretrained(tmp_path)
    _tokenizer().save_pretrained(tmp_path)
    names = ("arc-e", "gsm8k-cot")
    result = run_evaluation_benchmark(names, SHARED, 3, 1, str(tmp_path), lambda line: None)
    for name in names:
        suite = result["suites"][name]
        assert suite["documents"] == 3
        assert suite["differing_scores"] == 0
        assert suite["faster"] == suite["seconds"]["plain"] / suite["seconds"]["losia"]
    if any(works for _, works, _ in diagnose()):
        assert result["sandbox"]["ratio"] > 0
    else:
        assert result["sandbox"] is None
    assert "equal" in render(result)
    assert "differ" not in render(result)
