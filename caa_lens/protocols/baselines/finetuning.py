"""Supervised finetuning on the answer's letter: the trained rival of a steering vector.

CAA (arXiv 2312.06681, its section on finetuning, and ``finetune_llama.py`` of its code) trains a copy of the model on
the same pairs that the vector is made from: one epoch of plain SGD, cross-entropy of the answer's letter alone. Here
the letter is the first token at which the two answers differ, which is where `caa_lens.sweep` measures, so what is
trained is what is measured. The model that comes back is a plain one, and everything in this package works on it. LoRA
(arXiv 2106.09685) trains a low-rank change of the blocks' linear layers, which is added to their weights at the end.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from caa_lens.datasets.contrast import ContrastPair, Pairs, as_dataset
from caa_lens.engine.branching import check_context
from caa_lens.files.messages import brief
from caa_lens.models.adapters import Adapter, BridgeAdapter, HookedModel, adapt
from caa_lens.prompts import PromptFormat, both_answers
from caa_lens.protocols.baselines.prompting import Direction, answered, check_direction

Method = Literal["full", "lora"]

LEARNING_RATES: dict[Method, float] = {"full": 1e-4, "lora": 2e-4}
"""Of CAA's code (SGD), and of LoRA's paper for its language models (AdamW)."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """One answer to learn: the tokens up to where the two answers differ, and the next one of the right answer."""

    ids: tuple[int, ...]
    target: int


def finetune(
    model: HookedModel,
    pairs: Pairs,
    *,
    direction: Direction = "positive",
    method: Method = "full",
    learning_rate: float | None = None,
    epochs: int = 1,
    train_batch_size: int = 2,
    rank: int = 8,
    seed: int = 0,
    prompt_format: PromptFormat | None = None,
    system: str | None = None,
    progress: bool | str = False,
) -> HookedModel:
    """Train a copy of a model to give the matching answers, or the others.

    The model given is not changed, and is copied before anything else is done: memory for two is needed, and for the
    gradients (``full``) of one. Weights are trained in their own dtype, as in CAA's code: in ``bfloat16`` the steps of
    a small learning rate are lost in rounding. There is no dropout. Hooks on the model are not taken over. Where a
    bridge splits a fused query-key-value matrix (GPT-2, GPT-NeoX), the parts it computes with are trained, and the
    fused matrix, which it does not use, stays.

    Args:
        model: A TransformerBridge, or (``full`` alone) a HookedTransformer.
        pairs: What to learn from, such as the pairs that a vector is made from.
        direction: ``positive`` for the matching answers, ``negative`` for the others, ``mixed`` for half of each
            letter's the one and half the other: what training does that teaches no behaviour.
        method: ``full`` trains all weights with SGD (CAA), ``lora`` low-rank changes of all linear layers of the blocks
            with AdamW (needs the extra ``finetuning``).
        learning_rate: None takes that of `LEARNING_RATES`, which are for models of billions of parameters; small ones
            need a higher one.
        epochs: Passes over the pairs, each in an order of its own; 0 gives a copy.
        train_batch_size: Pairs for each step; the loss is their mean. CAA's code has two processes with one each.
        rank: Of LoRA's changes; their scale is 1.
        seed: Of the order, of ``mixed``, and of LoRA's first weights.
        prompt_format: See `format_prompt`.
        system: A system prompt for every pair.
        progress: Show a progress bar, under this text where it is one.

    Returns:
        A model of the same class, in the mode (train or eval) and with the ``requires_grad`` of the one given.

    Raises:
        ImportError: For ``lora`` without peft.
        ValueError: For settings out of range, pairs that cannot be told apart by one token, or ``lora`` on a model
            whose blocks have no linear layers (HookedTransformer), before anything runs; later, if the training
            diverges.

    Example:
        >>> import caa_lens as caa
        >>> model = caa.load_model("organism-chat")
        >>> tuned = finetune(model, caa.load_contrast_pairs("sycophancy")[:8], learning_rate=0.02)
        >>> tuned is model
        False
    """
    adapter = adapt(model)
    check_finetuning(
        adapter, method=method, learning_rate=learning_rate, epochs=epochs, train_batch_size=train_batch_size, rank=rank
    )
    check_direction(direction)
    order = random.Random(f"{seed}/finetuning")
    turned = answered(list(as_dataset(pairs)), direction, order)
    lessons = lessons_of(adapter, turned, prompt_format=prompt_format, system=system)
    rate = LEARNING_RATES[method] if learning_rate is None else learning_rate
    # Whatever the caller has switched off or counts on: gradients, inference mode, the state of the random numbers.
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng():
        torch.manual_seed(seed)
        tuned = adapt(_copy(adapter))
        with _training(tuned):
            low_rank = tuned if method == "lora" and isinstance(tuned, BridgeAdapter) else None
            if low_rank:
                add_lora(low_rank, rank)
            weights = [weight for _, weight in tuned.named_parameters() if weight.requires_grad]
            optimizer: Any = torch.optim.SGD if method == "full" else torch.optim.AdamW
            steps = optimizer(weights, lr=rate)
            for batch in _batches(lessons, epochs, train_batch_size, order, progress):
                loss = letter_loss(tuned, batch)
                if not math.isfinite(loss.item()):
                    raise ValueError(_diverged(rate))
                loss.backward()
                steps.step()
                steps.zero_grad(set_to_none=True)
            if not all(bool(weight.isfinite().all()) for weight in weights):
                raise ValueError(_diverged(rate))
            if low_rank:
                merge_lora(low_rank)
            _forget_graphs(tuned)
    return tuned.model


def check_finetuning(
    model: HookedModel | Adapter,
    *,
    method: Method = "full",
    learning_rate: float | None = None,
    epochs: int = 1,
    train_batch_size: int = 2,
    rank: int = 8,
) -> None:
    """Refuse what `finetune` would refuse, without running or copying anything; see there."""
    adapter = adapt(model)
    if method not in get_args(Method):
        raise ValueError(f"method {brief(method)} is not known: give one of {', '.join(get_args(Method))}")
    if learning_rate is not None and not 0 <= learning_rate < math.inf:
        raise ValueError(f"learning_rate must be a number of at least 0, got {learning_rate}")
    if epochs < 0 or rank < 1:
        raise ValueError(f"epochs {epochs}, rank {rank}: epochs is at least 0, rank is at least 1")
    if train_batch_size < 1:
        raise ValueError(f"train_batch_size is {train_batch_size}: give 1 or more pairs for each step")
    if method == "lora":
        if not isinstance(adapter, BridgeAdapter) or not _linear_layers(adapter):
            raise ValueError(
                f"LoRA changes linear layers, and the blocks of {adapter.name} ({type(adapter.model).__name__}) have "
                "none: give method='full', or load the model with caa_lens.load_model()"
            )
        _peft()


def lessons_of(
    model: HookedModel | Adapter,
    pairs: Sequence[ContrastPair],
    *,
    prompt_format: PromptFormat | None = None,
    system: str | None = None,
) -> list[Lesson]:
    """What `finetune` learns of each pair, its positive answer being the right one.

    Raises:
        ValueError: For a pair whose answers cannot be told apart by one token, or that the model's context cannot hold.
    """
    adapter = adapt(model)
    found: list[Lesson] = []
    for index, pair in enumerate(pairs):
        right, _, _, at = both_answers(adapter, pair, f"pair {index}", prompt_format=prompt_format, system=system)
        found.append(Lesson(right[:at], right[at]))
    check_context(adapter, [len(lesson.ids) for lesson in found])
    return found


def letter_loss(adapter: Adapter, lessons: Sequence[Lesson]) -> Float[Tensor, ""]:
    """The mean cross-entropy, in nats, of the right answers' tokens, over the whole vocabulary.

    Rows are padded on the right: under causal attention no token sees what is padded, and no padded one sees nothing,
    which would make gradients NaN.
    """
    lengths = [len(lesson.ids) for lesson in lessons]
    ids = torch.zeros(len(lessons), max(lengths), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, lesson in enumerate(lessons):
        ids[row, : lengths[row]] = torch.tensor(lesson.ids)
        mask[row, : lengths[row]] = 1
    last = torch.tensor(lengths, device=adapter.device) - 1
    logits = adapter.forward(ids.to(adapter.device), mask.to(adapter.device), last)
    targets = torch.tensor([lesson.target for lesson in lessons], device=logits.device)
    return torch.nn.functional.cross_entropy(logits.float(), targets)


def add_lora(adapter: BridgeAdapter, rank: int) -> None:
    """Put LoRA layers, which change nothing yet, around the blocks' linear layers; they alone are trained."""
    peft = _peft()
    settings = peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=_linear_layers(adapter))
    peft.inject_adapter_in_model(settings, adapter.wrapped)


def merge_lora(adapter: BridgeAdapter) -> None:
    """Add the changes to the weights, and put the linear layers back into their places."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for parent in list(adapter.wrapped.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, BaseTunerLayer):
                child.merge()
                setattr(parent, name, child.get_base_layer())
    del adapter.wrapped.peft_config


def _linear_layers(adapter: BridgeAdapter) -> list[str]:
    inside = {id(module) for block in adapter.blocks for module in block.modules()}
    return [
        name
        for name, module in adapter.wrapped.named_modules()
        if isinstance(module, torch.nn.Linear) and id(module) in inside
    ]


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise ImportError(
            "LoRA needs the package peft: pip install caa_lens[finetuning], or give method='full'"
        ) from error
    return peft


def _modules(adapter: Adapter) -> list[torch.nn.Module]:
    """All modules; a bridge and the model in it have some that the other has not."""
    tops = (adapter.model, adapter.wrapped) if isinstance(adapter, BridgeAdapter) else (adapter.model,)
    return list({id(module): module for top in tops for module in cast(Any, top).modules()}.values())


def _computed(adapter: Adapter) -> Iterator[tuple[torch.nn.Module, str, Tensor]]:
    """What modules keep of their last pass with its gradients, such as an attention pattern."""
    for module in _modules(adapter):
        for name, value in list(vars(module).items()):
            if isinstance(value, Tensor) and not value.is_leaf:
                yield module, name, value


def _copy(adapter: Adapter) -> HookedModel:
    """A copy that shares nothing with the model but what is computed anew in every pass, without its hooks."""
    memo: dict[int, Any] = {id(value): value.detach() for _, _, value in _computed(adapter)}
    copied = copy.deepcopy(adapter.model, memo)
    cast(Any, copied).reset_hooks()
    return copied


def _forget_graphs(adapter: Adapter) -> None:
    for module, name, value in _computed(adapter):
        vars(module)[name] = value.detach()


@contextmanager
def _training(adapter: Adapter) -> Generator[None]:
    """All weights can be trained and nothing is random in here; modes and flags are as before after it."""
    modes = [(module, module.training) for module in _modules(adapter)]
    flags = [(weight, weight.requires_grad) for _, weight in adapter.named_parameters()]
    cast(Any, adapter.model).eval()
    for weight, _ in flags:
        weight.requires_grad_(True)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for weight, flag in flags:
            weight.requires_grad_(flag)


def _batches(
    lessons: Sequence[Lesson], epochs: int, batch_size: int, order: random.Random, progress: bool | str
) -> Iterator[list[Lesson]]:
    text = progress if isinstance(progress, str) else "finetuning"
    with tqdm(total=epochs * len(lessons), desc=text, unit="pair", disable=not progress) as bar:
        for _ in range(epochs):
            shuffled = order.sample(lessons, len(lessons))
            for at in range(0, len(shuffled), batch_size):
                batch = shuffled[at : at + batch_size]
                yield batch
                bar.update(len(batch))


def _diverged(rate: float) -> str:
    return f"finetuning diverged at learning_rate {rate:g}: give a lower one"
