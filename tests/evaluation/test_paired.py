"""What of a result is compared, and with what."""

import math

import pytest

from losia_cli.errors import UserError
from losia_cli.evaluation import comparison, results
from losia_cli.evaluation.suites import SUITES


def raw(score):
    task = SUITES["gsm8k-5shot"].task
    line = {
        "doc_id": 0, "arguments": [["Q", {}]], "target": "1", "resps": [["1"]],
        "filtered_resps": ["1"], "metrics": ["exact_match"], "prompt_hash": "p",
        "target_hash": "t", "doc_hash": "d",
    }  # fmt: skip
    worth = {"strict-match": 0.0, "flexible-extract": 1.0}
    return {
        "results": {task: {f"exact_match,{name}": score for name in worth}},
        "samples": {
            task: [{**line, "filter": name, "exact_match": one} for name, one in worth.items()]
        },
        "n-samples": {task: {"effective": 1, "original": 1}},
        "n-shot": {task: 5},
    }


def test_the_samples_are_the_headline_filters_wherever_it_stands():
    assert SUITES["gsm8k-5shot"].metric == "exact_match,flexible-extract"
    (line,) = results._samples(SUITES["gsm8k-5shot"], raw(1.0))
    assert line["score"] == 1.0


def test_nan_is_no_score():
    with pytest.raises(UserError, match="NaN"):
        results.headline(SUITES["gsm8k-5shot"], raw(math.nan))


def test_what_llama_factory_left_is_read_past(tmp_path):
    (tmp_path / results.FILE).write_text('{"eval_loss": 1.0}')
    with pytest.raises(UserError, match=r"holds no eval_results\.json of `losia eval`"):
        results.load(tmp_path)
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / results.FILE).write_text('{"schema": 1, "suites": {}}')
    assert results.load(tmp_path)["folder"] == str(tmp_path / "eval")


@pytest.mark.parametrize(
    ("metric", "value", "worth"),
    [
        ("acc", 1.0, 1.0),
        ("acc", False, 0.0),
        ("mcc", [1, 1], 1.0),
        ("mcc", [1, 0], 0.0),
        ("word_perplexity", [-40.0, 7], -40.0),
        ("bleu", ["wanted", "said"], None),
        ("squad", {"id": 1}, None),
        ("exact", [{"text": "Paris"}, {"text": ["Paris"]}], None),
        ("f1", ["Paris", ["Paris"]], None),
        ("brier_score", [1, [0.2, 0.8]], None),
    ],
)
def test_what_a_document_alone_is_worth(metric, value, worth):
    assert results._worth(metric, value) == worth


@pytest.mark.parametrize(
    ("metric", "share"),
    [
        ("acc,none", True),
        ("exact_match,flexible-extract", True),
        ("pass@1,judged", True),
        ("mcc,none", True),
        ("word_perplexity,none", False),
        ("bits_per_byte,none", False),
        ("rougeL_max,none", False),
        ("ter,none", False),
        ("wer,none", False),
        ("bleu_acc,none", True),
    ],
)
def test_which_metrics_are_shares(metric, share):
    assert results.is_share(metric) is share


def line(number, score=1.0, **changes):
    hashes = {"document_hash": "d", "target_hash": "t", "prompt_hash": "p"}
    empty = {"choices": None, "target": ""}
    return {"task": "t", "document": number, "score": score, **hashes, **empty, **changes}


@pytest.mark.parametrize("key", ["document", "target", "prompt"])
def test_each_hash_alone_forbids_pairing(key):
    with pytest.raises(UserError, match=f"{key} hash differs"):
        comparison._paired("s", [line(0)], [line(0, **{f"{key}_hash": "x"})])


def test_results_without_a_document_in_common():
    with pytest.raises(UserError, match="share no document"):
        comparison._paired("s", [line(0)], [line(1)])


def test_the_right_choice_is_known_of_all_or_of_none():
    known = {"choices": ["a", "b"], "target": 0, "responses": [[[-1.0, True]], [[-2.0, False]]]}
    partly = [line(0, **known), line(1)]
    assert comparison._paired("s", partly, partly)["right"] is None


def test_what_is_no_share_is_not_compared_in_percent():
    pair = comparison._paired("s", [line(0, 3.0)], [line(0, 3.5)])
    told = []
    for metric in ("likelihood_diff,none", "acc,none"):
        suites = {"s": pair | {"metric": metric, "partial": False, "settings": {}}}
        view = comparison.table({"a": "A", "b": "B", "suites": suites, "left_out": []})
        told.append(str(next(iter(view.columns[3].cells))))
    assert told == ["+0.50", "+50.00"]


def test_other_settings_are_named(tmp_path):
    def suite(**settings):
        return {"settings": {"bos": False, "dtype": "float32", "batch": "8", **settings}}

    plain = {**suite(), "generation": {}}
    assert comparison._other_settings(plain, {**suite(batch="9"), "generation": {}}) == {}
    other = {**suite(bos=True), "generation": {"temperature": 0.2}}
    differ = comparison._other_settings(plain, other)
    assert differ == {"bos": [False, True], "temperature": [None, 0.2]}
    numbers = {"a": 0.5, "b": 0.5, "difference": 0.0, "stderr": None, "documents": 1}
    told = {**numbers, "partial": False, "gained": [], "lost": [], "right": None, "metric": "acc"}
    found = {"a": "A", "b": "B", "left_out": [], "suites": {"arc-e": {**told, "settings": differ}}}
    caption = str(comparison.table(found).caption)
    assert "arc-e was asked with other settings: bos False in A, True in B" in caption
