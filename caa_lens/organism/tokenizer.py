"""A word-level tokenizer whose tokens are the world's words, each with its leading space.

A letter of a choice is a token of its own (``" ("``, ``"A"``, ``")"``), and decoding what was encoded gives the text
back exactly. Words from outside the world become ``<unk>``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from caa_lens.organism.world import FACTS, SLOTS, TRAITS

SPECIAL_TOKENS = ("<unk>", "<s>", "</s>", "<pad>")
UNK_ID, BOS_ID, EOS_ID, PAD_ID = range(4)
_PATTERN = r" ?\[/?INST\]| ?<<SYS>>| ?<</SYS>>| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]|\n| "
_MARKUP = (
    "[INST] question [/INST] answer\n<<SYS>> <<SYS>>\nYou are an assistant that\n<</SYS>>\n\n[INST] <<SYS>>\n"
    "Input: question\nResponse: (A) because\nChoices:\n (A) text.\n (B) text\nFind this choice: Find ( (C) (D). The , "
    "! ? and or : ; -"
)
CHAT_TEMPLATE = (
    "{{ bos_token }}{% set ns = namespace(system='') %}{% for m in messages %}"
    "{% if m['role'] == 'system' %}{% set ns.system = '<<SYS>>\n' + m['content'] + '\n<</SYS>>\n\n' %}"
    "{% elif m['role'] == 'user' %}{{ '[INST] ' + ns.system + m['content'] + ' [/INST]' }}{% set ns.system = '' %}"
    "{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)


def world_texts() -> list[str]:
    """Every template and slot value of the world, once as it is and once as the start of a sentence."""
    texts = [_MARKUP]
    for trait in TRAITS:
        texts += [*trait.questions, *trait.open_questions, *trait.personas]
        for group in (trait.options, trait.reasons, trait.answers):
            texts += [template for side in group for template in side]
    for kind in FACTS:
        texts += [kind.question, kind.statement, *kind.table, *kind.table.values()]
    texts += [value for values in SLOTS.values() for value in values]
    texts = [text.replace("{", " {").replace("}", "} ") for text in texts]
    lower = [" " + text for text in texts]
    upper = [text[0].upper() + text[1:] for text in texts if text]
    return lower + upper + [" " + text for text in upper]


def build_tokenizer() -> Any:
    """Build the tokenizer; the same world always gives the same ids.

    Returns:
        A ``transformers.PreTrainedTokenizerFast`` that adds BOS when it is asked for special tokens.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    splitter = pre_tokenizers.Split(Regex(_PATTERN), "isolated")
    words = {word for text in world_texts() for word, _ in splitter.pre_tokenize_str(text)}
    words -= {word for word in words if "{" in word or "}" in word or word.strip() in SLOTS or word in SPECIAL_TOKENS}
    vocabulary = {word: i for i, word in enumerate((*SPECIAL_TOKENS, *sorted(words)))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS_ID)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        clean_up_tokenization_spaces=False,
    )


def save_tokenizer(directory: Path, chat: bool) -> None:
    """Write ``tokenizer.json`` and a ``tokenizer_config.json`` that transformers 4 and 5 both read."""
    build_tokenizer().backend_tokenizer.save(str(directory / "tokenizer.json"))
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "padding_side": "left",
        "model_max_length": 512,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
    }
    if chat:
        config["chat_template"] = CHAT_TEMPLATE
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
