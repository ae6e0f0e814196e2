"""What the benchmarks run on: a random model as a Hugging Face folder, and contrast pairs of CAA's lengths.

Speed does not depend on what the weights say, so they are random. The small model is a Llama of d_model 512, 12 layers,
8 heads and a vocabulary of 32,000; its tokenizer is a byte-level BPE trained on the pairs themselves. The pairs are the
published CAA datasets where the folder ``../shared/data/caa`` is beside the repository, all seven behaviours pooled;
elsewhere, texts of random words whose number follows the same distribution.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import caa_lens as caa

CAA_DATA = Path(__file__).parents[3] / "shared" / "data" / "caa" / "datasets"

SIZES = {
    "small": {"hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 12, "num_attention_heads": 8},
    "1B-like": {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22, "num_attention_heads": 32},
    "7B-like": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32},
}
D_VOCAB = 32_000
WORDS_QUARTILES = (37, 55, 103)  # of the 4,823 questions of the seven published sets


def pairs(n: int, part: str = "generate", seed: int = 0) -> caa.ContrastDataset:
    """So many pairs, drawn over the seven behaviours; repeated where more are wanted than there are."""
    pool = _published(part) if CAA_DATA.is_dir() else _made_up(max(n, 500), seed)
    random.Random(seed).shuffle(pool)
    return caa.ContrastDataset.from_pairs([pool[i % len(pool)] for i in range(n)])


def origin() -> str:
    """Where the pairs come from, for the table."""
    return "the published CAA datasets" if CAA_DATA.is_dir() else "made-up texts with the lengths of CAA's"


def _published(part: str) -> list[tuple[str, str, str]]:
    name = {"generate": "generate_dataset.json", "test": "test_dataset_ab.json"}[part]
    found: list[tuple[str, str, str]] = []
    for path in sorted((CAA_DATA / part).glob(f"*/{name}")):
        loaded = caa.load_contrast_pairs(str(path), other_answers="drop")
        found += [(pair.prompt, pair.positive, pair.negative) for pair in loaded]
    return found


def _made_up(n: int, seed: int) -> list[tuple[str, str, str]]:
    rng = random.Random(seed)
    low, middle, high = WORDS_QUARTILES
    words = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(2, 9))) for _ in range(3000)]
    found: list[tuple[str, str, str]] = []
    for _ in range(n):
        bounds = rng.choice([(low // 2, low), (low, middle), (middle, high), (high, 2 * high)])
        text = " ".join(rng.choices(words, k=rng.randint(*bounds)))
        found.append((f"{text}\n\nChoices:\n (A) {rng.choice(words)}\n (B) {rng.choice(words)}", "(A)", "(B)"))
    return found


def write_model(folder: Path, size: str = "small") -> Path:
    """Save the random model and its tokenizer, once."""
    if (folder / "tokenizer_config.json").exists():
        return folder
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=D_VOCAB,
        max_position_embeddings=2048,
        bos_token_id=0,
        eos_token_id=None,
        pad_token_id=1,
        **SIZES[size],
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=_tokenizer(), bos_token="<s>", pad_token="<pad>")
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=8000,
        special_tokens=["<s>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [f"Input: {pair.prompt}\nResponse: {pair.positive}" for pair in pairs(3000)]
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return tokenizer
