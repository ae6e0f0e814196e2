"""One other library's extraction, timed beside the floor; run by `peers.py` in an environment of its own.

    python peer_worker.py steering-vectors|repeng MODEL TEXTS.json OUT.pt ROUNDS

``TEXTS.json`` holds ``[positive, negative]`` texts that end with the answer's letter. Written are the batch size chosen
(the fastest of six on a part of the texts), the median ratio to the floor (one side of each pair, once through the
blocks without logits, sorted by length), and the mean-difference vectors. Nothing of caa_lens is imported: its packages
cannot all be installed here.
"""

from __future__ import annotations

import json
import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from statistics import median

import torch
from measure import fastest, interleaved
from plain_paths import batches, prompt_pass
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

warnings.filterwarnings("ignore")


def main() -> None:
    """Time and save."""
    library, folder, texts_file, out, rounds = sys.argv[1:]
    texts = [tuple(pair) for pair in json.loads(Path(texts_file).read_text(encoding="utf-8"))]
    model = AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.float32).eval()
    file = str(Path(folder) / "tokenizer.json")  # its config names a class that older transformers lack
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=file, bos_token="<s>", pad_token="<pad>")
    ids = [tokenizer(positive).input_ids for positive, _ in texts]
    extract = {"steering-vectors": steering_vectors, "repeng": repeng}[library]
    size = fastest(lambda size: extract(model, tokenizer, texts[:32], size), [1, 2, 4, 8, 16, 32], rounds=1)
    tokens = fastest(lambda tokens: prompt_pass(model, batches(ids[:48], tokens)), [512, 1024, 2048, 4096])
    prepared = batches(ids, tokens)
    found: dict = {}
    times = interleaved(
        {
            "floor": lambda: prompt_pass(model, prepared),
            library: lambda: found.update(extract(model, tokenizer, texts, size)),
        },
        int(rounds),
        warm=True,
    )
    torch.save(
        {
            "library": library,
            "version": version(library),
            "transformers": version("transformers"),
            "batch_size": size,
            "ratio": times.ratio(library, "floor"),
            "spread": times.spread(library, "floor"),
            "seconds": median(times.seconds[library]),
            "vectors": found,
        },
        out,
    )


def steering_vectors(model, tokenizer, texts, size):  # untyped: the packages differ between environments
    """Mean difference of every layer, as the library's users call it."""
    from steering_vectors import train_steering_vector

    found = train_steering_vector(model, tokenizer, texts, batch_size=size, move_to_cpu=True)
    return {layer: vector.float().cpu() for layer, vector in found.layer_activations.items()}


def repeng(model, tokenizer, texts, size):
    """Its reading of hidden states, then the mean difference: without the PCA that it makes of them afterwards.

    Of the last layer it reads what Hugging Face gives after the final norm, which is another quantity: left out.
    """
    import contextlib
    import io

    from repeng.extract import batched_get_hiddens

    layers = list(range(model.config.num_hidden_layers))
    flat = [text for pair in texts for text in pair]
    with contextlib.redirect_stderr(io.StringIO()):
        hidden = batched_get_hiddens(model, tokenizer, flat, layers, size)
    return {layer: torch.from_numpy((hidden[layer][::2] - hidden[layer][1::2]).mean(axis=0)) for layer in layers[:-1]}


if __name__ == "__main__":
    main()
