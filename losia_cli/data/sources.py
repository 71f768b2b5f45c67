"""The hub's datasets that suites read, at pinned revisions."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """A dataset of the hub that suites read.

    Attributes:
        revision: the commit it is pinned to.
        folder: what `--data DIR` calls it.
        columns: what its rows hold, as far as the tasks read it.
        parts: whether its configurations are folders of their own, as MMLU's subjects are.
    """

    revision: str
    folder: str
    columns: tuple[str, ...]
    parts: bool = False


SOURCES: Mapping[tuple[str, str | None], Source] = {
    ("openai/gsm8k", "main"): Source(
        "740312add88f781978c0658806c59bc2815b9866", "gsm8k", ("question", "answer")
    ),
    ("google-research-datasets/mbpp", "full"): Source(
        "4bb6404fdc6cacfda99d4ac4205087b89d32030c",
        "mbpp",
        ("task_id", "text", "code", "test_list", "test_setup_code"),
    ),
    ("cais/mmlu", None): Source(
        "c30699e8356da336a370243923dbaf21066bb9fe",
        "mmlu",
        ("question", "choices", "answer"),
        parts=True,
    ),
    ("allenai/ai2_arc", "ARC-Challenge"): Source(
        "210d026faf9955653af8916fad021475a3f00453",
        "arc_challenge",
        ("question", "choices", "answerKey"),
    ),
    ("allenai/ai2_arc", "ARC-Easy"): Source(
        "210d026faf9955653af8916fad021475a3f00453",
        "arc_easy",
        ("question", "choices", "answerKey"),
    ),
    ("Rowan/hellaswag", None): Source(
        "218ec52e09a7e7462a5400043bb9a69a41d06b76",
        "hellaswag",
        ("activity_label", "ctx_a", "ctx_b", "endings", "label"),
    ),
    ("allenai/winogrande", "winogrande_xl"): Source(
        "01e74176c63542e6b0bcb004dcdea22d94fb67b5",
        "winogrande",
        ("sentence", "option1", "option2", "answer"),
    ),
    ("baber/piqa", None): Source(
        "142f6d7367fd9877f0fb3b5734ea6a545f54cdd1", "piqa", ("goal", "sol1", "sol2", "label")
    ),
    ("allenai/openbookqa", "main"): Source(
        "388097ea7776314e93a529163e0fea805b8a6454",
        "openbookqa",
        ("question_stem", "choices", "answerKey"),
    ),
    ("lighteval/siqa", None): Source(
        "54c6a1f8cb6daf4f5abf24a601852612fb35eb25",
        "social_i_qa",
        ("context", "question", "answerA", "answerB", "answerC", "label"),
    ),
    ("aps/super_glue", "boolq"): Source(
        "3de24cf8022e94f4ee4b9d55a6f539891524d646", "boolq", ("question", "passage", "label")
    ),
}


def source(path: str, name: str | None) -> Source | None:
    """What is known of a dataset and its configuration."""
    return SOURCES.get((path, name)) or SOURCES.get((path, None))
