import json

import pytest
from lm_eval.api.model import LM

from losia_cli.quickstart import problems, suites
from losia_cli.quickstart.suites import KNOWN, SKILL, evaluate, load_model

KNOWN_ITEMS = [json.loads(line) for line in suites.KNOWN_DOCUMENTS.read_text().splitlines()]


class Scripted(LM):
    """Answers every problem as told and every question by one rule: to see the scoring alone."""

    tokenizer_name = "none"

    def __init__(self, answers: dict[str, str], knows: bool) -> None:
        super().__init__()
        self.answers = answers
        self.right = {(i["question"], i["choices"][i["answer"]]) for i in KNOWN_ITEMS if knows}

    def apply_chat_template(self, chat_history, add_generation_prompt=True):
        return chat_history[-1]["content"]

    def generate_until(self, requests, disable_tqdm=False):
        return [self.answers[r.args[0]] for r in requests]

    def loglikelihood(self, requests, disable_tqdm=False):
        return [(-1.0 if r.args in self.right else -2.0, False) for r in requests]

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        raise NotImplementedError


@pytest.fixture
def heldout(tmp_path):
    drawn = problems.generate("heldout", 6, 1)
    problems.write(tmp_path, drawn, drawn)
    return tmp_path / problems.HELDOUT_FILE, drawn


RIGHT = ["The sum is {n}.\n#### {n}", "It is {n}", "So ${n}.00 are left.", "7 - 5 = {n}."]
WRONG = ["", "no number", "{n} and then 1000", "#### {n}5", "{n}.5", "-{n}"]


@pytest.mark.parametrize("form", RIGHT)
def test_the_last_number_of_a_response_is_what_counts(heldout, form):
    file, drawn = heldout
    answers = {p.question: form.format(n=p.number) for p in drawn}
    scores = evaluate(Scripted(answers, knows=True), file)
    assert (scores.skill.value, scores.skill.count) == (1.0, 6)
    assert (scores.known.value, scores.known.count) == (1.0, len(KNOWN_ITEMS))


@pytest.mark.parametrize("form", WRONG)
def test_any_other_response_is_wrong(heldout, form):
    file, drawn = heldout
    answers = {p.question: form.format(n=p.number) for p in drawn}
    assert evaluate(Scripted(answers, knows=False), file).skill.value == 0.0


def test_a_score_carries_its_standard_error_and_the_responses(heldout):
    file, drawn = heldout
    answers = {p.question: str(p.number + (i % 2)) for i, p in enumerate(drawn)}
    scores = evaluate(Scripted(answers, knows=False), file)
    assert scores.skill.value == 0.5
    assert scores.skill.stderr == pytest.approx((0.25 / 5) ** 0.5)  # of a mean of 6
    assert [suites.response(scores, i) for i in range(6)] == [answers[p.question] for p in drawn]
    json.dumps(scores.results)


def test_the_known_questions_are_sound():
    assert len({item["question"] for item in KNOWN_ITEMS}) == len(KNOWN_ITEMS) >= 50
    for item in KNOWN_ITEMS:
        assert len(set(item["choices"])) == 3
        assert item["answer"] in range(3)
    places = [item["answer"] for item in KNOWN_ITEMS]
    assert max(places.count(place) for place in range(3)) <= len(places) // 3 + 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tiny_model", "tiny_model_without_template"])
def test_training_and_evaluation_write_the_prompt_token_by_token_alike(kind, heldout, request):
    model = str(request.getfixturevalue(kind))
    file, drawn = heldout
    trained = _training_samples(model, file.parent)
    lm = load_model(model)
    asked = evaluate(lm, file).results["samples"]
    prompts = {s["doc_id"]: s["arguments"][0][0] for s in asked[SKILL]}
    for i, (prompt, response) in enumerate(trained):
        assert lm.tok_batch_encode([prompts[i]])[0][0].tolist() == prompt
        assert lm.tokenizer.decode(response).rstrip("\n") == drawn[i].answer + "<|im_end|>"
    context = asked[KNOWN][0]["arguments"][0][0]
    assert context == prompts[0].replace(drawn[0].question, KNOWN_ITEMS[0]["question"])


def _training_samples(model, data):
    """Prompt and supervised tokens of each sample, as the quickstart's recipe trains them."""
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.model import load_tokenizer

    from losia_cli import recipes
    from losia_cli.integrations import llamafactory
    from losia_cli.quickstart.run import model_overrides

    folders = [f"dataset_dir={data}", f"output_dir={data / 'trained'}"]
    given = [*model_overrides(model), *folders, "overwrite_cache=true"]
    recipe = recipes.load("quickstart", overrides=given)
    arguments = llamafactory.parse(recipe.llamafactory_arguments(), losia=True)
    model_args, data_args, training_args = arguments[:3]
    loaded = load_tokenizer(model_args)
    template = get_template_and_fix_tokenizer(loaded["tokenizer"], data_args)
    samples = get_dataset(template, model_args, data_args, training_args, "sft", **loaded)
    for sample in samples["train_dataset"]:
        start = next(i for i, label in enumerate(sample["labels"]) if label != -100)
        assert sample["labels"][start:] == sample["input_ids"][start:]
        yield sample["input_ids"][:start], sample["labels"][start:]
