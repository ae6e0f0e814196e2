"""Tiny random models in the shapes of real ones, made offline in a second.

`write_model(style, folder)` saves a Hugging Face folder (weights, config, fast tokenizer). `load_bridge` and
`load_hooked` open that folder as the two TransformerLens model classes, with the same, unprocessed weights. Weights are
large and random, and no bias or norm weight is trivial: an answer that is right by luck is unlikely.

The styles differ in what the code under test must cope with:

| style    | attention                          | norm           | tokenizer adds BOS          | chat template     |
|----------|------------------------------------|----------------|-----------------------------|-------------------|
| llama    | grouped queries, rotary            | RMS            | yes                         | Llama-2 `[INST]`  |
| mistral  | grouped queries, window of 8       | RMS            | yes                         | none              |
| gpt2     | learned positions                  | LayerNorm      | has one, does not add it    | none              |
| gpt_neox | half rotary, parallel MLP          | LayerNorm      | has one, does not add it    | none              |
| qwen2    | grouped queries with biases        | RMS            | has none                    | ChatML            |
| qwen3    | grouped queries, q and k norm      | RMS            | has none                    | ChatML            |
| gemma2   | every other layer window of 8      | RMS, 4 a block | yes                         | no system role    |
| gemma3   | as gemma2, q and k norm, two bases | RMS, 4 a block | yes                         | no system role    |
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

Kind = Literal["bridge", "hooked"]

STYLES = ("llama", "mistral", "gpt2", "gpt_neox", "qwen2", "qwen3", "gemma2", "gemma3")
"""Every style there is a folder for; each of them can be a TransformerBridge."""

HOOKED_STYLES = STYLES
"""The styles that HookedTransformer 3.9 reproduces, to 1e-5 of Hugging Face: all (tests/test_tiny_models.py)."""

SLIDING_WINDOW = 8
N_CTX = 512
D_MODEL = 32
N_HEADS = 4
N_KV_HEADS = 2
D_HEAD = D_MODEL // N_HEADS
D_MLP = 64
N_LAYERS = {"llama": 4, "gemma2": 4, "gemma3": 4}  # the others have 3

LLAMA_TEMPLATE = (
    "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}"
    "{% set system = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' %}"
    "{% else %}{% set rest = messages %}{% set system = '' %}{% endif %}"
    "{% for message in rest %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + (system if loop.index0 == 0 else '') + message['content'].strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'].strip() + ' ' + eos_token }}{% endif %}"
    "{% endfor %}"
)
CHATML_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
GEMMA_TEMPLATE = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\\n' + message['content'].strip() + '<end_of_turn>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)

SENTENCEPIECE_MERGES = (("▁", "("), ("I", "N"), ("S", "T"), ("IN", "ST"), ("t", "h"), ("th", "e"), ("▁", "the"))
BYTE_LEVEL_MERGES = tuple((left.replace("▁", "Ġ"), right) for left, right in SENTENCEPIECE_MERGES)


def available_model_kinds() -> tuple[Kind, ...]:
    """Returns the model classes that the installed TransformerLens has: 4.0 removed HookedTransformer."""
    return ("bridge", "hooked") if int(version("transformer-lens").split(".")[0]) < 4 else ("bridge",)


def model_cases(styles: tuple[str, ...] = STYLES) -> list[tuple[Kind, str]]:
    """Returns every (kind, style) that can be made here, of these styles."""
    cases: list[tuple[Kind, str]] = [("bridge", style) for style in styles]
    if "hooked" in available_model_kinds():
        cases += [("hooked", style) for style in styles if style in HOOKED_STYLES]
    return cases


def write_model(style: str, folder: Path) -> Path:
    """Saves a random model of the style, with its tokenizer, as a Hugging Face folder."""
    from transformers import AutoModelForCausalLM

    tokenizer = _tokenizer(style)
    config = _config(style, tokenizer)
    with torch.random.fork_rng():
        torch.manual_seed(STYLES.index(style))
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                noise = torch.randn_like(parameter)
                if parameter.ndim > 1:
                    parameter.copy_(0.25 * noise)
                elif name.endswith("bias") or style.startswith("gemma"):  # gemma's norms multiply by 1 + weight
                    parameter.copy_(0.2 * noise)
                else:
                    parameter.copy_(1 + 0.2 * noise)
    model.tie_weights()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def load_hugging_face(path: Path) -> Any:
    """Opens the folder with transformers, with eager attention: the yardstick of the other two."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()


def load_bridge(path: Path) -> Any:
    """Opens the folder as a TransformerBridge, as booted: float32, no weight processing."""
    from transformer_lens.model_bridge import TransformerBridge

    return TransformerBridge.boot_transformers(str(path), dtype=torch.float32, device="cpu").eval()


def load_hooked(path: Path, *, center_writing_weights: bool = False) -> Any:
    """Opens the folder as a HookedTransformer (transformer-lens 3 only).

    `HookedTransformer.from_pretrained` looks names up in a table and refuses a local folder, so the config is built
    here and the weights go through TransformerLens's own converters.

    Args:
        path: the folder.
        center_writing_weights: make it a *processed* model, whose residual stream is not Hugging Face's.
    """
    from transformer_lens import HookedTransformer
    from transformer_lens.pretrained import weight_conversions as convert
    from transformers import AutoTokenizer

    hf_model = load_hugging_face(path)
    converters = {
        "gpt2": convert.convert_gpt2_weights,
        "gpt_neox": convert.convert_neox_weights,
        "llama": convert.convert_llama_weights,
        "mistral": convert.convert_mistral_weights,
        "qwen2": convert.convert_qwen2_weights,
        "qwen3": convert.convert_qwen3_weights,
        "gemma2": convert.convert_gemma_weights,
        "gemma3_text": convert.convert_gemma_weights,
    }
    config = _hooked_config(hf_model.config)
    model = HookedTransformer(config, tokenizer=AutoTokenizer.from_pretrained(path), default_padding_side="right")
    with torch.no_grad():
        state = converters[hf_model.config.model_type](hf_model, config)
        state = {name: value.detach().clone() for name, value in state.items()}
        model.load_and_process_state_dict(
            state,
            fold_ln=False,
            center_writing_weights=center_writing_weights,
            center_unembed=False,
            fold_value_biases=False,
        )
    return model.eval()


def hugging_face_residuals(hf_model: Any, ids: torch.Tensor) -> list[torch.Tensor]:
    """Returns every block's output, taken by forward hooks: the last of `hidden_states` is after the final norm."""
    blocks = next(module for module in hf_model.modules() if isinstance(module, torch.nn.ModuleList))
    outputs: list[torch.Tensor] = []
    handles = [
        block.register_forward_hook(lambda _m, _i, out: outputs.append(out[0] if isinstance(out, tuple) else out))
        for block in blocks
    ]
    try:
        with torch.no_grad():
            hf_model(ids)
    finally:
        for handle in handles:
            handle.remove()
    return outputs


def fingerprint(model: Any) -> float:
    """Returns a number that changes when any weight does."""
    with torch.no_grad():
        total = [
            p.double().mul(torch.arange(1, p.numel() + 1).reshape(p.shape)).sum().item() for p in model.parameters()
        ]
    return sum(total)


def attached_hooks(model: Any) -> list[str]:
    """Returns the names of the hook points that still carry a hook."""
    return [name for name, point in model.hook_dict.items() if point.fwd_hooks or point.bwd_hooks]


def _hooked_config(config: Any) -> Any:
    """Translates a Hugging Face config the way TransformerLens's name table does (`convert_hf_model_config`)."""
    from transformer_lens import HookedTransformerConfig

    style = config.model_type
    common = {
        "model_name": f"tiny-{style}",
        "original_architecture": config.architectures[0],
        "n_layers": config.num_hidden_layers,
        "n_heads": config.num_attention_heads,
        "n_ctx": config.max_position_embeddings,
        "d_model": config.hidden_size,
        "d_head": getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        "d_vocab": config.vocab_size,
        "dtype": torch.float32,
        "device": "cpu",
    }
    if style == "gpt2":
        specific = {
            "d_mlp": config.n_inner or 4 * config.n_embd,
            "act_fn": config.activation_function,
            "eps": config.layer_norm_epsilon,
            "normalization_type": "LN",
        }
    elif style == "gpt_neox":
        specific = {
            "d_mlp": config.intermediate_size,
            "act_fn": config.hidden_act,
            "eps": config.layer_norm_eps,
            "normalization_type": "LN",
            "parallel_attn_mlp": config.use_parallel_residual,
            "positional_embedding_type": "rotary",
            "rotary_dim": round(config.rope_parameters["partial_rotary_factor"] * common["d_head"]),
            "rotary_base": config.rope_parameters["rope_theta"],
            "default_prepend_bos": False,
        }
    else:
        specific = {
            "d_mlp": config.intermediate_size,
            "act_fn": getattr(config, "hidden_act", None) or config.hidden_activation,
            "eps": config.rms_norm_eps,
            "n_key_value_heads": config.num_key_value_heads,
            "normalization_type": "RMS",
            "final_rms": True,
            "gated_mlp": True,
            "positional_embedding_type": "rotary",
            "rotary_dim": common["d_head"],
        }
        rope = config.rope_parameters
        if style == "gemma3_text":
            specific |= {
                "rotary_base": rope["full_attention"]["rope_theta"],
                "rotary_base_local": rope["sliding_attention"]["rope_theta"],
            }
        else:
            specific["rotary_base"] = rope["rope_theta"]
        if style in ("qwen3", "gemma3_text"):
            specific["use_qk_norm"] = True
        if style in ("qwen2", "qwen3"):
            specific["default_prepend_bos"] = False
        if style == "mistral":
            layer_types = ["sliding_attention"] * config.num_hidden_layers
        else:
            layer_types = getattr(config, "layer_types", None) or []
        if "sliding_attention" in layer_types:
            specific |= {
                "use_local_attn": True,
                "window_size": config.sliding_window,
                "attn_types": ["local" if kind == "sliding_attention" else "global" for kind in layer_types],
            }
        if style.startswith("gemma"):
            specific |= {
                "use_normalization_before_and_after": True,
                "attn_scale": config.query_pre_attn_scalar**0.5,
            }
        if style == "gemma2":
            specific |= {
                "attn_scores_soft_cap": config.attn_logit_softcapping,
                "output_logits_soft_cap": config.final_logit_softcapping,
            }
    return HookedTransformerConfig(**(common | specific))


def _config(style: str, tokenizer: Any) -> Any:
    from transformers import AutoConfig

    n_layers = N_LAYERS.get(style, 3)
    special = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    shape = {
        "hidden_size": D_MODEL,
        "intermediate_size": D_MLP,
        "num_hidden_layers": n_layers,
        "num_attention_heads": N_HEADS,
        "max_position_embeddings": N_CTX,
    }
    if style == "gpt2":
        return AutoConfig.for_model(
            "gpt2", n_embd=D_MODEL, n_layer=n_layers, n_head=N_HEADS, n_positions=N_CTX, **special
        )
    if style == "gpt_neox":
        return AutoConfig.for_model(
            "gpt_neox",
            **special,
            **shape,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
        )
    shape |= {"num_key_value_heads": N_KV_HEADS}
    if style == "mistral":
        shape |= {"sliding_window": SLIDING_WINDOW, "head_dim": D_HEAD}
    if style == "qwen3":
        shape |= {"head_dim": D_HEAD}
    if style.startswith("gemma"):
        shape |= {
            "head_dim": D_HEAD,
            "query_pre_attn_scalar": D_HEAD,
            "sliding_window": SLIDING_WINDOW,
            "layer_types": ["sliding_attention", "full_attention"] * (n_layers // 2),
        }
    if style == "gemma2":
        shape |= {"attn_logit_softcapping": 5.0, "final_logit_softcapping": 30.0}
    return AutoConfig.for_model("gemma3_text" if style == "gemma3" else style, **special, **shape)


def _tokenizer(style: str) -> Any:
    """Makes a fast tokenizer that knows every byte, with a few merges; "(A)" is three tokens, also after a space."""
    from transformers import PreTrainedTokenizerFast

    if style in ("llama", "mistral"):
        special, roles = ("<unk>", "<s>", "</s>"), {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
        tokenizer = _sentencepiece_bpe(special)
    elif style.startswith("gemma"):
        special = ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>")
        roles = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
        tokenizer = _byte_level_bpe(special)
    elif style.startswith("qwen"):
        special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
        roles = {"pad_token": "<|endoftext|>", "eos_token": "<|im_end|>"}
        tokenizer = _byte_level_bpe(special)
    else:
        special = ("<|endoftext|>",)
        roles = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
        tokenizer = _byte_level_bpe(special)

    adds_bos = style in ("llama", "mistral", "gemma2", "gemma3")
    if adds_bos:
        bos = roles["bos_token"]
        byte_level = [] if style in ("llama", "mistral") else [processors.ByteLevel(trim_offsets=False)]
        template = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B:1", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
        tokenizer.post_processor = processors.Sequence([*byte_level, template])
    else:
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=N_CTX,
        clean_up_tokenization_spaces=False,
        **roles,
    )
    templates = {"llama": LLAMA_TEMPLATE, "qwen2": CHATML_TEMPLATE, "qwen3": CHATML_TEMPLATE}
    templates |= {"gemma2": GEMMA_TEMPLATE, "gemma3": GEMMA_TEMPLATE}
    if style in templates:
        fast.chat_template = templates[style]
    return fast


def _byte_level_bpe(special: tuple[str, ...]) -> Tokenizer:
    """GPT-2's kind: bytes shown as letters (a space is "Ġ")."""
    pieces = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(pair) for pair in BYTE_LEVEL_MERGES)]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=list(BYTE_LEVEL_MERGES)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return tokenizer


def _sentencepiece_bpe(special: tuple[str, ...]) -> Tokenizer:
    """Llama-2's kind: a space is "▁", one is put before the text, unknown characters become byte tokens."""
    characters = [chr(code) for code in range(33, 127)]
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    pieces = [*special, *byte_tokens, "▁", *characters, *("".join(pair) for pair in SENTENCEPIECE_MERGES)]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocabulary, merges=list(SENTENCEPIECE_MERGES), unk_token="<unk>", fuse_unk=True, byte_fallback=True
        )
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return tokenizer
