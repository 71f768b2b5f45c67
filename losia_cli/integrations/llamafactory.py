"""The one place that reaches into LLaMA-Factory: `finetuning_type: losia` in its own workflow.

LLaMA-Factory has no registry for methods. What is replaced, for the length of one run, is named in
`_SEAMS`; if the installed version lacks one of them, the error names it.
"""

import contextlib
import dataclasses
import importlib
import io
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import PreTrainedModel, Seq2SeqTrainingArguments, Trainer

from losia_cli.data import prompts
from losia_cli.errors import UserError, first_line
from losia_cli.method import LoSiAConfig, LoSiAController, attach, use_chunked_loss

VERSION = "0.9.5"
LOSIA = "losia"
PISSA_FIRST = "pissa_init"  # in an output folder: the adapter before the first step
_TRAINERS = {
    "pt": "CustomTrainer",
    "sft": "CustomSeq2SeqTrainer",
    "dpo": "CustomDPOTrainer",
    "kto": "CustomKTOTrainer",
    "rm": "PairwiseTrainer",
}
_SEAMS = {
    "llamafactory.hparams.parser": ("_TRAIN_ARGS", "get_train_args"),
    "llamafactory.hparams.finetuning_args": ("FinetuningArguments",),
    "llamafactory.model.loader": ("init_adapter", "apply_liger_kernel", "load_tokenizer"),
    "llamafactory.data.loader": ("_get_preprocessed_dataset", "get_dataset"),
    "llamafactory.data.template": (
        "TEMPLATES",
        "get_template_and_fix_tokenizer",
        "register_template",
    ),
    "llamafactory.data.formatter": ("EmptyFormatter", "StringFormatter"),
    "llamafactory.train.tuner": ("run_exp",),
    "llamafactory.train.callbacks": ("PissaConvertCallback",),
    "llamafactory.chat.chat_model": ("run_chat",),
    **{f"llamafactory.train.{stage}.trainer": (name,) for stage, name in _TRAINERS.items()},
}
# Losses of LLaMA-Factory that want the logits of the whole batch.
_LOGITS_LOSSES = ("use_dft_loss", "use_asft_loss", "use_eaft_loss")
_OTHERS_LOSS = ("use_unsloth", "enable_liger_kernel", "use_liger_kernel")  # bring one of their own


@dataclass
class Plan:
    """What is plugged into one run of LLaMA-Factory.

    Attributes:
        arguments: LLaMA-Factory's own, flat.
        config: LoSiA's settings, or None for any other method.
        prepare: called once, with the Trainer and LoSiA's controller (None for other methods),
            when the model, the data and the optimizer are there and nothing has been trained.
        rows: per tokenized dataset, "train" first, its rows before and after LLaMA-Factory's
            processing; None where it streams or packs.
        cast: the dtypes the base weights were cast from and to, if they were.
    """

    arguments: dict[str, Any]
    config: LoSiAConfig | None
    prepare: Callable[[Trainer, LoSiAController | None], None]
    rows: list[tuple[int, int]] = field(default_factory=list)
    cast: tuple[torch.dtype, torch.dtype] | None = None
    controller: LoSiAController | None = None


def run(plan: Plan) -> None:
    """Run LLaMA-Factory's whole workflow for `plan`.

    Raises:
        UserError: the installed LLaMA-Factory lacks a seam, or refuses an argument.
    """
    with _plugged_in(plan):
        _module("llamafactory.train.tuner").run_exp(dict(plan.arguments))


def parse(arguments: dict[str, Any], losia: bool) -> tuple[Any, ...]:
    """LLaMA-Factory's own parsing: model, data, training, fine-tuning, generating arguments.

    Raises:
        UserError: it refuses them, in its own words.
    """
    with _fine_tuning_type(losia), _own_words():
        return _module("llamafactory.hparams.parser").get_train_args(dict(arguments))


def templates() -> list[str]:
    """The prompts that a recipe can name: LLaMA-Factory's and ours; loads no more than it must."""
    _register_templates()
    return list(importlib.import_module("llamafactory.data.template").TEMPLATES)


def _module(name: str) -> Any:
    """A module of LLaMA-Factory, all seams checked first."""
    os.environ["ALLOW_EXTRA_ARGS"] = "0"
    for module_name, attributes in _SEAMS.items():
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            raise UserError(_moved(module_name)) from error
        for attribute in attributes:
            if not hasattr(module, attribute):
                raise UserError(_moved(f"{module_name}.{attribute}"))
    _register_templates()
    return importlib.import_module(name)


def _register_templates() -> None:
    """Let recipes and `losia chat` name the paper's prompts."""
    template = importlib.import_module("llamafactory.data.template")
    formatter = importlib.import_module("llamafactory.data.formatter")
    around = formatter.StringFormatter
    for name, ours in prompts.TEMPLATES.items():
        if name not in template.TEMPLATES:
            template.register_template(
                name,
                format_prefix=formatter.EmptyFormatter(slots=[{"bos_token"}]),
                format_user=around(slots=[ours.prompt]),
                format_assistant=around(slots=[ours.answer, {"eos_token"}]),
                format_system=around(slots=[ours.system]),
                default_system=ours.default_system,
                replace_jinja_template=True,  # the model's own is not what it learns
            )


def _moved(what: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        installed = version("llamafactory")
    except PackageNotFoundError:
        return f"LLaMA-Factory is not installed: pip install llamafactory=={VERSION}"
    return (
        f"{what} is not in LLaMA-Factory {installed}; this version of losia is made for "
        f"{VERSION}: pip install llamafactory=={VERSION}"
    )


@contextlib.contextmanager
def _plugged_in(plan: Plan) -> Iterator[None]:
    loader = _module("llamafactory.model.loader")
    data = _module("llamafactory.data.loader")
    with contextlib.ExitStack() as stack:
        stack.enter_context(_fine_tuning_type(plan.config is not None))
        replace = [
            (loader, "init_adapter", _init_adapter(plan, loader.init_adapter)),
            (loader, "apply_liger_kernel", _apply_liger(plan, loader.apply_liger_kernel)),
            (data, "_get_preprocessed_dataset", _count(plan, data._get_preprocessed_dataset)),
            (PreTrainedModel, "from_pretrained", _whole(PreTrainedModel.from_pretrained)),
        ]
        for stage, name in _TRAINERS.items():
            trainer = getattr(_module(f"llamafactory.train.{stage}.trainer"), name)
            made = _create_optimizer(plan, trainer.create_optimizer)
            replace.append((trainer, "create_optimizer", made))
        for owner, name, value in replace:
            stack.enter_context(mock.patch.object(owner, name, value))
        stack.enter_context(_own_words())
        yield


@contextlib.contextmanager
def _own_words() -> Iterator[None]:
    """Turn LLaMA-Factory's complaints about arguments into a `UserError`, traceback kept."""
    try:
        yield
    except (ValueError, AssertionError, ImportError) as error:
        frames = traceback.walk_tb(error.__traceback__)
        raised_in = [frame.f_globals.get("__name__", "") for frame, _ in frames]
        if any(name.startswith("llamafactory.hparams") for name in raised_in):
            raise UserError(f"LLaMA-Factory refuses the recipe: {error}") from error
        raise


@contextlib.contextmanager
def _fine_tuning_type(losia: bool) -> Iterator[None]:
    """Let LLaMA-Factory's parser accept `finetuning_type: losia`."""
    if not losia:
        yield
        return
    parser = _module("llamafactory.hparams.parser")
    plain = _module("llamafactory.hparams.finetuning_args").FinetuningArguments

    def __post_init__(self: Any) -> None:
        self.finetuning_type = "full"  # what LLaMA-Factory's checks should take it for
        plain.__post_init__(self)
        self.finetuning_type = LOSIA

    ours = dataclasses.make_dataclass(
        plain.__name__, [], bases=(plain,), namespace={"__post_init__": __post_init__}
    )
    arguments = [ours if kind is plain else kind for kind in parser._TRAIN_ARGS]
    with mock.patch.object(parser, "_TRAIN_ARGS", arguments):
        yield


def _whole(original: Any) -> Any:
    """Transformers' loading, which draws the weights that a checkpoint lacks at random."""

    def from_pretrained(
        kind: Any, *args: Any, output_loading_info: bool = False, **kwargs: Any
    ) -> Any:
        model, info = original.__func__(kind, *args, output_loading_info=True, **kwargs)
        missing = sorted(info["missing_keys"])
        if missing:
            raise UserError(
                f"the model in {model.name_or_path} lacks weights ({missing[0]} and"
                f" {len(missing) - 1} more), which would begin as random numbers: is the download,"
                " or the copy, whole?"
            )
        return (model, info) if output_loading_info else model

    return classmethod(from_pretrained)


def _init_adapter(plan: Plan, original: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    def init_adapter(
        config: Any, model: PreTrainedModel, model_args: Any, finetuning_args: Any, trainable: bool
    ) -> nn.Module:
        if trainable or _compares(plan):
            _cast_base(plan, model, model_args)
        if plan.config is None or finetuning_args.finetuning_type != LOSIA:
            asked = any(plan.arguments.get(key) for key in _OTHERS_LOSS)
            if trainable and finetuning_args.finetuning_type == "lora" and not asked:
                _chunk_loss(model, finetuning_args)  # or LoRA would be compared by another loss
            return original(config, model, model_args, finetuning_args, trainable)
        if not trainable:  # what LoSiA trained is a plain model
            return model
        settings = plan.config
        if finetuning_args.stage == "rm":  # its loss never reaches the output layer
            settings = dataclasses.replace(settings, output_factor=0)
        plan.controller = attach(model, settings)
        autocast = plan.arguments.get("bf16") or plan.arguments.get("fp16")
        if autocast and not finetuning_args.pure_bf16:
            _train_in_float32(model)
        _chunk_loss(model, finetuning_args)
        return model

    return init_adapter


def _chunk_loss(model: PreTrainedModel, finetuning_args: Any) -> None:
    """No logits of a whole batch, where the stage's loss is the model's own."""
    wants_logits = any(getattr(finetuning_args, name) for name in _LOGITS_LOSSES)
    if finetuning_args.stage in ("pt", "sft") and not wants_logits:
        use_chunked_loss(model, in_evaluation=not finetuning_args.compute_accuracy)


def _compares(plan: Plan) -> bool:
    """Whether the trained model is compared with a frozen one, the same function at the start."""
    return bool(plan.arguments.get("do_train")) and plan.arguments.get("stage") in ("dpo", "kto")


def _train_in_float32(model: nn.Module) -> None:
    """Norms and embeddings, whose small steps would round away; their outputs keep their dtype."""

    def cast_to(dtype: torch.dtype) -> Callable[..., Tensor]:
        return lambda _module, _inputs, output: output.to(dtype)

    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if parameter.requires_grad and parameter.dtype != torch.float32:
                module.register_forward_hook(cast_to(parameter.dtype))
                parameter.data = parameter.data.float()


def _cast_base(plan: Plan, model: nn.Module, model_args: Any) -> None:
    """Cast the base weights to the dtype of computation, whatever the method.

    A float16 checkpoint under bfloat16 autocast otherwise keeps a float32 residual stream and a
    cast copy of every weight, which voids any comparison of memory and speed. Buffers (RoPE
    frequencies) keep their dtype.
    """
    dtype = None
    if plan.arguments.get("bf16") or plan.arguments.get("pure_bf16"):
        dtype = torch.bfloat16
    elif plan.arguments.get("fp16"):
        dtype = torch.float16
    if dtype is None or getattr(model, "quantization_method", None) is not None:
        return
    for parameter in model.parameters():
        upcast_norm = model_args.upcast_layernorm and parameter.dim() == 1
        if parameter.is_floating_point() and parameter.dtype != dtype and not upcast_norm:
            plan.cast = plan.cast or (parameter.dtype, dtype)
            parameter.data = parameter.data.to(dtype)


def _apply_liger(plan: Plan, original: Callable[..., None]) -> Callable[..., None]:
    """Liger's kernels without its fused loss, which reads the output layer's weight past us."""

    def apply_liger_kernel(
        config: Any, model_args: Any, is_trainable: bool, require_logits: bool
    ) -> None:
        keep_logits = require_logits or plan.config is not None
        original(config, model_args, is_trainable, require_logits=keep_logits)

    return apply_liger_kernel


def _count(plan: Plan, original: Callable[..., Any]) -> Callable[..., Any]:
    def get_preprocessed_dataset(dataset: Any, *args: Any, **kwargs: Any) -> Any:
        with contextlib.redirect_stdout(io.StringIO()):
            processed = original(dataset, *args, **kwargs)
        if hasattr(dataset, "__len__") and hasattr(processed, "__len__"):
            plan.rows.append((len(dataset), len(processed)))
        return processed

    return get_preprocessed_dataset


def _create_optimizer(plan: Plan, original: Callable[..., Any]) -> Callable[..., Any]:
    def create_optimizer(trainer: Trainer, *args: Any, **kwargs: Any) -> Optimizer:
        first = trainer.optimizer is None
        if first and plan.controller is not None:
            trainer.optimizer = losia_optimizer(trainer, plan.controller)
        optimizer = original(trainer, *args, **kwargs)
        if first:
            plan.prepare(trainer, plan.controller)
        return optimizer

    return create_optimizer


def losia_optimizer(trainer: Trainer, controller: LoSiAController) -> Optimizer:
    """The optimizer that the Trainer's arguments name, over LoSiA's parameter groups."""
    kind, settings = Trainer.get_optimizer_cls_and_kwargs(trainer.args, trainer.model)
    groups = controller.parameter_groups(trainer.model)
    for group in groups:
        matrices = all(parameter.dim() > 1 for parameter in group["params"])
        group["weight_decay"] = trainer.args.weight_decay if matrices else 0.0
    optimizer = kind(groups, **settings)
    controller.drive(optimizer)
    return optimizer


def keep_first_pissa(trainer: Trainer) -> None:
    """Leave alone the adapter that PiSSA began with, for which a resumed one would be saved.

    The conversion takes off what is there: of a checkpoint's adapter, all learned before it.
    """
    kind = _module("llamafactory.train.callbacks").PissaConvertCallback
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, kind):
            callback.on_train_begin = lambda *_, **__: None


def tokenize(arguments: dict[str, Any]) -> tuple[Any, Any]:
    """The samples that LLaMA-Factory makes of a data set for stage sft, and the tokenizer.

    Args:
        arguments: of a recipe: model_name_or_path, and what concerns the data.

    Raises:
        UserError: the model's tokenizer does not load.
    """
    hparams = _module("llamafactory.hparams")
    model_keys = {each.name for each in dataclasses.fields(hparams.ModelArguments)}
    of_model = {key: value for key, value in arguments.items() if key in model_keys}
    of_data = {key: value for key, value in arguments.items() if key not in model_keys}
    with _own_words():
        model, data = hparams.ModelArguments(**of_model), hparams.DataArguments(**of_data)
    loader = _module("llamafactory.model.loader")
    try:
        tokenizer = loader.load_tokenizer(model)["tokenizer"]
    except (OSError, ValueError) as error:
        raise UserError(
            f"{model.model_name_or_path} holds no tokenizer that loads ({first_line(error)})"
        ) from error
    template = _module("llamafactory.data.template").get_template_and_fix_tokenizer(tokenizer, data)
    training = Seq2SeqTrainingArguments(use_cpu=True, report_to="none", log_level="error")
    get_dataset = _module("llamafactory.data.loader").get_dataset
    with contextlib.redirect_stdout(io.StringIO()):
        made = get_dataset(template, model, data, training, stage="sft", tokenizer=tokenizer)
    return made["train_dataset"], tokenizer


def chat(arguments: dict[str, Any]) -> None:
    """LLaMA-Factory's own chat on the terminal; the end of the input ends it too."""
    flags = [text for key, value in arguments.items() for text in (f"--{key}", str(value))]
    module = _module("llamafactory.chat.chat_model")
    argv = mock.patch.object(sys, "argv", ["losia", *flags])
    with argv, _own_words(), contextlib.suppress(EOFError, KeyboardInterrupt):
        module.run_chat()
