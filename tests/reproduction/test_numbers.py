"""The numbers of a table: where each is read from, what is averaged, what stands beside it."""

import csv
import io
import re
import warnings
from collections import Counter
from statistics import fmean, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from losia_cli import paper
from losia_cli.evaluation.suites import SUITES
from losia_cli.reproduction import render
from losia_cli.reproduction.cell import BASE
from losia_cli.reproduction.numbers import (
    COSTS,
    HOURS,
    HOURS_TOGETHER,
    MEMORY,
    PRO,
    Number,
    collect,
)
from losia_cli.reproduction.plan import make
from losia_cli.reproduction.tables import names, published


def scored(score, of=100, documents=100, also=None, domains=None, tasks=1, cut=0):
    return {
        "tasks": tasks,
        "of_tasks": 57 if domains else 1,
        "truncated": cut,
        "score": score / 100,
        "stderr": 0.01,
        "partial": documents < of,
        "documents": documents,
        "of": of,
        "also": {name: {"score": value / 100, "stderr": 0.02} for name, value in also.items()}
        if also
        else {},
        "domains": {
            name: {"score": value / 100, "stderr": 0.03} for name, value in (domains or {}).items()
        },
    }


def run(seconds=3600.0, memory=20e9, resumed=None, loss=None):
    return {
        "seconds": seconds,
        "peak_memory_bytes": memory,
        "kept_for_backward_bytes": memory / 4,
        "held_out_loss": loss,
        "resumed_from": resumed,
    }


def result(cell, score=50.0, **training):
    return {
        "state": "done",
        "scores": {
            suite: scored(score, also={"pass@10,judged": score + 10} if suite == "mbpp" else None)
            for suite in cell.suites
        },
        "training": None if cell.method == BASE else run(**training),
    }


def test_every_number_of_table_1_has_its_place_beside_the_papers():
    plan = make("table1", methods=["losia", "lora"], models=["llama2-7b"])
    numbers = collect(plan, result)
    assert list(numbers) == [("llama2-7b", BASE), ("llama2-7b", "lora"), ("llama2-7b", "losia")]
    ours = numbers["llama2-7b", "losia"]
    assert list(ours) == list(paper.table(1).columns)
    for column, number in ours.items():
        assert number.paper == paper.value(1, column, model="llama2-7b", method="losia")
    assert ours["GSM8K 5-shot"].ours == pytest.approx(50)
    assert ours["GSM8K 5-shot"].error == pytest.approx(1)
    assert ours["MBPP Pass@10"].ours == pytest.approx(60)
    assert ours["MBPP Pass@10"].error == pytest.approx(2)
    assert ours["Avg."].ours == pytest.approx((50 * 5 + 60) / 6)
    assert ours["Avg."].difference == pytest.approx((50 * 5 + 60) / 6 - 40.95)
    assert (ours[HOURS].ours, ours[HOURS + PRO].ours) == (None, 1.0)  # LoSiA-Pro is what trained
    assert numbers["llama2-7b", "lora"][HOURS].ours == 1.0
    assert MEMORY not in numbers["llama2-7b", BASE]
    assert all(number.paper is None for number in numbers["llama2-7b", BASE].values())


def test_what_is_not_measured_is_left_open():
    plan = make("table1", models=["llama2-7b"], methods=["losia"])

    def only_math(cell):
        return result(cell) if cell.dataset == "metamath" else None

    ours = collect(plan, only_math)["llama2-7b", "losia"]
    assert ours["GSM8K 5-shot"].ours == pytest.approx(50)
    assert ours["MBPP Pass@1"].ours is None
    assert ours["MBPP Pass@1"].paper == 28.4
    assert ours["Avg."].ours is None


def test_time_and_memory_are_the_rows_largest_and_a_resumed_training_has_no_time():
    plan = make("table1", models=["llama2-7b"], methods=["lora"])
    took = {"metamath": (7200.0, 20e9), "magicoder": (3600.0, 30e9), "alpaca-gpt4": (9e9, 1e9)}

    def found(cell):
        if cell.method == BASE:
            return result(cell)
        seconds, memory = took[cell.dataset]
        resumed = "checkpoint-1" if cell.dataset == "alpaca-gpt4" else None
        return result(cell, seconds=seconds, memory=memory, resumed=resumed)

    ours = collect(plan, found)["llama2-7b", "lora"]
    assert (ours[HOURS].ours, ours[MEMORY].ours) == (2.0, 30.0)
    assert (ours[HOURS].note, ours[MEMORY].note) == ("of magicoder, metamath alone", "")

    def saving(cell):
        told = found(cell)
        if cell.method != BASE:
            told["training"]["saving_seconds"] = 1800.0
        return told

    assert collect(plan, saving)["llama2-7b", "lora"][HOURS].ours == 1.5
    one = collect(make("table1", methods=["lora"], datasets=["magicoder"]), found)
    hours, memory = (one["llama2-7b", "lora"][column] for column in (HOURS, MEMORY))
    assert hours.note == memory.note == "of magicoder alone"


@pytest.mark.parametrize("table", names())
def test_every_score_of_a_table_that_is_measured_is_shown(table):
    """Whatever else is measured: a number that was there once does not go."""
    plan = make(table)
    numbers = collect(plan, whole)
    assert numbers
    for row, found in numbers.items():
        for column, number in found.items():
            if column not in COSTS:
                assert number.ours is not None, (row, column)
                assert number.seeds == 1
    for cell in {place.cell for place in plan.places}:
        alone = collect(plan, lambda one, cell=cell: whole(one) if one == cell else None)
        for row, found in alone.items():
            for column, number in found.items():
                assert number.ours is None or numbers[row][column].ours is not None, (row, column)


def whole(cell):
    """The result of a cell of any table, with each suite's domains."""
    found = result(cell)
    domains = {"humanities": 41, "other": 52, "social sciences": 50, "stem": 36}
    for suite, score in found["scores"].items():
        if suite == "mmlu-ppl":
            found["scores"][suite] = {**score, "domains": scored(50, domains=domains)["domains"]}
    return found


@given(st.lists(st.floats(0, 100), min_size=2, max_size=5))
def test_several_seeds_give_their_mean_and_deviation(scores):
    seeds = range(len(scores))
    plan = make("table10", models=["gemma-2b"], seeds=seeds)

    def found(cell):
        if cell.method == BASE:
            return result(cell)
        seed = next(text for text in cell.overrides if text.startswith("seed="))
        return result(cell, scores[int(seed.removeprefix("seed="))])

    ours = collect(plan, found)["gemma-2b",]["1/8"]
    assert ours.ours == pytest.approx(fmean(scores))
    assert ours.error == pytest.approx(stdev(scores), abs=1e-9)
    assert (ours.seeds, ours.paper, ours.note) == (len(scores), 42.84, "")
    half = collect(plan, lambda cell: None if "seed=0" in cell.overrides else found(cell))
    one = half["gemma-2b",]["1/8"]
    assert one.ours == pytest.approx(fmean(scores[1:]))
    assert one.note == f"{len(scores) - 1} of {len(scores)} seeds"


def test_of_several_rates_the_best_counts_and_is_named():
    plan = make("table2", methods=["losia"], datasets=["boolq"])

    def found(cell):
        return result(cell, 80.0 if "learning_rate=0.0002" in cell.overrides else 70.0)

    ours = collect(plan, found)["llama2-7b", "losia"]["BoolQ"]
    assert (ours.ours, ours.paper) == (pytest.approx(80), 84.13)
    assert "0.0002" in ours.note


def test_table_2s_hours_are_those_of_the_eight_trainings_that_are_shown():
    plan = make("table2", methods=["lora", "losia"])

    def found(cell):  # at the better of two rates a training takes an hour, at the other two
        better = "0.0002" in str(cell.overrides)
        return result(cell, 80.0 if better else 70.0, seconds=3600.0 if better else 7200.0)

    numbers = collect(plan, found)
    lora, losia = (numbers["llama2-7b", method] for method in ("lora", "losia"))
    assert (lora[HOURS_TOGETHER].ours, lora[HOURS_TOGETHER].paper) == (8.0, 10.0)
    assert (losia[HOURS_TOGETHER].ours, losia[HOURS_TOGETHER].paper) == (None, 9.2)
    assert (losia[HOURS_TOGETHER + PRO].ours, losia[HOURS_TOGETHER + PRO].paper) == (8.0, None)
    alone = collect(make("table2", methods=["lora"], datasets=["boolq"]), found)
    assert alone["llama2-7b", "lora"][HOURS_TOGETHER].ours is None
    assert "filled" in render.markdown("t", numbers, ("model", "method"), paper.table(2).note)


def test_mmlus_domains_are_read_from_one_suite():
    domains = {"humanities": 41, "other": 52, "social sciences": 50, "stem": 36}

    def found(cell):
        return {"scores": {"mmlu-ppl": scored(45, domains=domains, tasks=57)}, "training": None}

    ours = collect(make("table11"), found)["vanilla",]
    assert {name: ours[name].ours for name in domains} == pytest.approx(domains)
    assert {ours[name].error for name in domains} == {3.0}
    assert ours["Avg."].ours == pytest.approx(45)  # weighted by the number of questions
    assert ours["Avg."].paper == 44.95


def test_a_part_of_the_documents_is_said():
    def found(cell):
        return {"scores": {"gsm8k-5shot": scored(45, of=1319, documents=10)}, "training": None}

    plan = make("table10", models=["gemma-2b"])
    assert collect(plan, found)["gemma-2b",]["1/8"].note == "10 of 1319 documents"


def test_tasks_that_lack_prompts_that_were_cut_and_averages_of_such_are_said():
    def found(cell):
        cut = result(cell)
        if "mmlu-ppl" in cell.suites:
            cut["scores"]["mmlu-ppl"] = scored(45, domains={"stem": 1}, tasks=8, cut=3)
        return cut

    plan = make("table1", models=["llama2-7b"], methods=["lora"])
    ours = collect(plan, found)["llama2-7b", "lora"]
    assert ours["MMLU 0-shot, PPL"].note == "8 of 57 tasks, 3 prompts cut"
    assert ours["Avg."].note == "of starred numbers"
    assert collect(plan, result)["llama2-7b", "lora"]["Avg."].note == ""


def test_written_tables_hold_every_number():
    plan = make("table1", models=["llama2-7b"], methods=["losia"])
    numbers, fields = collect(plan, result), ("model", "method")
    lines = list(csv.DictReader(io.StringIO(render.comma_separated(numbers, fields))))
    assert len(lines) == sum(len(found) for found in numbers.values())
    math = next(
        line for line in lines if line["column"] == "GSM8K 5-shot" and line["method"] == "losia"
    )
    assert float(math["ours"]) == pytest.approx(50)
    assert float(math["paper"]) == 44.7
    assert float(math["difference"]) == pytest.approx(5.3)
    text = render.markdown("Table 1", numbers, fields)
    assert "| 50.0 ± 1.0 (44.7, +5.3) |" in text
    assert len({line.count("|") for line in text.splitlines() if line.startswith("|")}) == 1


def test_a_difference_needs_both_numbers():
    assert Number(None, paper=1.0).difference is None
    assert Number(1.0).difference is None
    assert Number(1.0, paper=3.0).difference == -2.0


@pytest.mark.parametrize("table", sorted(set(names()) - {"table5"}))
@pytest.mark.parametrize("width", [80, 100, 150])
def test_a_terminal_of_any_width_shows_every_number_whole(table, width):
    numbers, fields = collect(make(table), whole), published(table).fields
    told = io.StringIO()
    Console(file=told, width=width).print(render.terminal("", numbers, fields, "", width))
    lines = told.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    texts = Counter(word for line in lines for word in re.split(r"[\s│]+", line))
    for found in numbers.values():
        texts.subtract(f"{n.paper:.4g}" for n in found.values() if n.paper is not None)
        texts.subtract(f"{n.difference:+.1f}" for n in found.values() if n.difference is not None)
    assert min(texts.values()) >= 0


def test_table_5_is_table_12_summed_up():
    """With the paper's Table 12 as our scores, ours is the paper's Table 5."""
    after = {place.cell.identity: place.column for place in make("table12").places}

    def found(cell):
        method = "lora" if cell.method == "lora" else "losia"
        column = after[cell.identity]
        if cell.method == BASE:
            return None
        values = {
            suite: paper.value(12, column, method=method, task=SUITES[suite].column)
            for suite in cell.suites
        }
        return {"scores": {suite: scored(value) for suite, value in values.items()}}

    # the first task's sequence is its single training: one cell, whose column is ST's
    summed = collect(make("table5"), found)
    for method in ("lora", "losia"):
        for name, number in summed[method,].items():
            assert number.ours == pytest.approx(number.paper, abs=0.011), (method, name)
    matrix = collect(make("table12"), found)
    assert matrix["losia", "SIQA"]["Winogrande"].difference == pytest.approx(0)
    assert "untrained" in matrix["lora", "PIQA"]


def test_what_is_forgotten_is_read_from_the_model_that_learned_best():
    plan = make("compare", methods=["lora"], datasets=["arc-e"])

    def found(cell):
        best = "learning_rate=0.001" in cell.overrides
        scores = {"arc-e": 60, "piqa": 50, "hellaswag": 20} if best else {}
        return {
            "scores": {suite: scored(scores.get(suite, 55)) for suite in cell.suites},
            "training": None if cell.method == BASE else run(seconds=60.0),
        }

    ours = collect(plan, found)["arc-e", "LoRA r=5"]
    columns = ("ARC-E", "PIQA", "HellaSwag", "Kept(GB)", "Seconds")
    assert [ours[name].ours for name in columns] == pytest.approx([60, 50, 20, 5, 60])
    assert "GSM8K" not in ours


def test_the_loss_on_held_out_rows_is_that_of_the_best_rate():
    plan = make("compare", methods=["LoRA r=5"])
    losses = {
        "learning_rate=0.0005": 1.25,
        "learning_rate=0.001": 1.125,
        "learning_rate=0.003": 1.5,
    }

    def found(cell):
        held_out = losses.get(cell.overrides[-1]) if cell.dataset == "gsm8k" else None
        return result(cell, **({} if cell.method == BASE else {"loss": held_out}))

    numbers = collect(plan, found)
    assert numbers["gsm8k", "LoRA r=5"]["Loss"].ours == 1.125
    assert "1.125" in render.markdown("", numbers, ())
    assert "Loss" not in numbers["arc-e", "LoRA r=5"]


def test_the_loss_is_of_all_seeds_of_the_best_rate():
    plan = make("compare", methods=["LoRA r=5"], datasets=["gsm8k"], seeds=[1, 2, 3])

    def found(cell):
        if cell.method == BASE:
            return result(cell)
        values = dict(text.split("=") for text in cell.overrides)
        better = 2.0 if values["learning_rate"] == "0.001" else 2.5
        return result(cell, loss=better - 2 + int(values["seed"]))

    loss = collect(plan, found)["gsm8k", "LoRA r=5"]["Loss"]
    assert (loss.ours, loss.seeds) == (2.0, 3)
    assert loss.note == "lora_rank=5, lora_alpha=10, learning_rate=0.001, of 3 of 3 tried"
    half = collect(plan, lambda cell: None if "seed=3" in cell.overrides else found(cell))
    assert half["gsm8k", "LoRA r=5"]["Loss"].note.endswith("; 2 of 3 seeds")


def test_what_one_seeds_score_lacks_its_mean_lacks():
    plan = make("table1", models=["llama2-7b"], methods=["lora"], seeds=[1, 2])

    def found(cell):
        told = result(cell)
        if "seed=2" in cell.overrides and "gsm8k-5shot" in cell.suites:
            told["scores"]["gsm8k-5shot"] = scored(45, cut=3)
        return told

    ours = collect(plan, found)["llama2-7b", "lora"]["GSM8K 5-shot"]
    assert (ours.seeds, ours.note) == (2, "3 prompts cut")


def test_the_comparison_is_drawn_with_what_there_is(tmp_path):
    pytest.importorskip("matplotlib")
    from losia_cli.reproduction.plot import draw

    def found(cell):
        return result(cell) if cell.method in (BASE, "lora") and cell.dataset != "gsm8k" else None

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw(collect(make("compare"), found), tmp_path / "compare.png")
        draw(collect(make("compare"), lambda cell: None), tmp_path / "nothing.png")
    assert (tmp_path / "compare.png").stat().st_size > 10_000
    assert not (tmp_path / "nothing.png").exists()
