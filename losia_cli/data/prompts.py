"""The prompts that the paper's models are trained with, as templates for LLaMA-Factory.

Their text is the authors' code's. Every sequence begins with BOS and ends with EOS.
"""

from dataclasses import dataclass

ALPACA_HEADER = (
    "Below is an instruction that describes a task. Write a response that appropriately completes"
    " the request."
)
ALPACA_HEADER_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further"
    " context. Write a response that appropriately completes the request."
)


@dataclass(frozen=True)
class Template:
    """What stands around a row's texts; "{{content}}" is where the text goes.

    Attributes:
        prompt: around the row's prompt, on which there is no loss.
        answer: around its answer; EOS follows.
        system: around its system text, which precedes the prompt.
        default_system: the system text of rows that have none.
    """

    prompt: str = "{{content}}"
    answer: str = "{{content}}"
    system: str = "{{content}}"
    default_system: str = ""


TEMPLATES = {
    "losia_metamath": Template("[INST][/INST] Question: {{content}}\n", "Answer: {{content}}\n"),
    "losia_magicoder": Template("[INST]\nQuestion: {{content}}\nAnswer: [/INST]"),
    "losia_alpaca": Template(
        "### Instruction:\n{{content}}\n\n### Response:\n",
        system="{{content}}\n\n",
        default_system=ALPACA_HEADER,
    ),
    "losia_plain": Template(),  # all of the text is in the rows
    # Not the paper's: the peft library's comparison (docs/peft-suite.md).
    "losia_peft_suite": Template("Question: {{content}} Think step by step.\nAnswer:"),
}
