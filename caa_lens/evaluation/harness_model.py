"""A model as lm-evaluation-harness calls it: requests of text in, log-likelihoods and continuations out.

lm_eval asks three things of a model: how likely a continuation of a context is (``loglikelihood``), how likely a text
is (``loglikelihood_rolling``, window by window where it is longer than the context), and to continue a context until a
stop (``generate_until``). Here they are answered under a way of steering, `way`, that can be changed between runs. The
first two are scored for all ways at once and remembered, since the next run asks the same again.

The base class comes from lm_eval, which need not be installed: `model_class` puts the two together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tqdm.auto import tqdm

from caa_lens.engine.answer_logprobs import Score, Where, answer_logprobs
from caa_lens.engine.decoding import Sampler, decoding
from caa_lens.engine.edits import Edit
from caa_lens.engine.memory import rows_at_once
from caa_lens.models.adapters import Adapter
from caa_lens.prompts import format_prompt

Ways = Mapping[str, Sequence[Edit]]
Pair = tuple[list[int], list[int]]
Windows = Callable[[list[int], int, int, int], Iterable[Pair]]

MAX_NEW_TOKENS = 256
"""Where a task does not say how many: lm_eval's own number."""


def model_class(base: Any, windows: Windows) -> Any:
    """The class below on ``lm_eval.api.model.LM``, with ``lm_eval.utils.get_rolling_token_windows``."""
    return type("SteeredLM", (SteeredModel, base), {"windows": staticmethod(windows)})


@dataclass(frozen=True, slots=True)
class _Continuing:
    """How a task wants its contexts continued."""

    until: tuple[str, ...]
    max_new_tokens: int
    temperature: float
    top_p: float

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> _Continuing:
        """Read a task's ``generation_kwargs``; what would be ignored is refused."""
        known = {"until", "do_sample", "temperature", "top_p", "num_beams"}
        lengths = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
        unknown = sorted(set(given) - known - set(lengths))
        if unknown or given.get("num_beams", 1) != 1:
            raise ValueError(
                f"this task wants to generate with {', '.join(unknown) or 'num_beams'}: only until, do_sample, "
                f"temperature, top_p and {lengths[0]} are supported"
            )
        until = given.get("until") or []
        stops = tuple(stop for stop in ([until] if isinstance(until, str) else until) if stop)
        n_tokens = next((int(given[name]) for name in lengths if given.get(name) is not None), MAX_NEW_TOKENS)
        sampled = given.get("do_sample")
        temperature = float(given.get("temperature") or (1.0 if sampled else 0.0))
        return cls(stops, n_tokens, 0.0 if sampled is False else temperature, float(given.get("top_p") or 1.0))

    def cut(self, text: str) -> str:
        """The text up to the first stop."""
        for stop in self.until:
            text = text.split(stop)[0]
        return text


class SteeredModel:
    """What lm_eval asks of a model; see the module."""

    windows: Windows

    def __init__(
        self, adapter: Adapter, ways: Ways, positions: Where, batch_size: int | None, seed: int, progress: bool
    ) -> None:
        """The first of the ways is the one to begin with."""
        super().__init__()
        self.way = next(iter(ways))
        self._adapter, self._ways = adapter, ways
        self._positions: Where = positions
        self._rows, self._seed, self._progress = batch_size, seed, progress
        self._known: dict[tuple[str, ...], dict[str, list[Score]]] = {}

    @property
    def tokenizer(self) -> Any:
        """The model's."""
        return self._adapter.tokenizer

    @property
    def tokenizer_name(self) -> str:
        """Names lm_eval's caches of chat requests."""
        return self._adapter.name.replace("/", "__")

    @property
    def max_length(self) -> int:
        """Longest text in tokens."""
        return self._adapter.n_ctx

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text without context: BOS, or where there is none the token that ends a text."""
        bos: int | None = self.tokenizer.bos_token_id
        return self.eot_token_id if bos is None else bos

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The conversation as the tokenizer's template lays it out."""
        ending = {"add_generation_prompt": add_generation_prompt, "continue_final_message": not add_generation_prompt}
        return str(self.tokenizer.apply_chat_template(chat_history, tokenize=False, **ending))

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The template's text, for lm_eval's records."""
        return self.tokenizer.chat_template if chat_template else None

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Log-likelihood of each continuation, and whether greedy decoding would give it."""
        found = self._scored(requests, lambda context, continuation: [self._pair(context, continuation)])
        return [(score.logp, score.greedy) for (score,) in found]

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood of each whole text, each token given as many before it as fit."""
        return [sum(score.logp for score in scores) for scores in self._scored(requests, self._rolled)]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Continue each context up to a stop string, an end-of-text token or the task's number of tokens."""
        if self._positions == "all":
            raise ValueError("positions='all' is for scoring answers and this task generates: give 'prompt_end'")
        groups: dict[_Continuing, list[int]] = {}
        for index, request in enumerate(requests):
            groups.setdefault(_Continuing.of(request.args[1]), []).append(index)
        prompts: dict[int, list[int]] = {}
        for how, members in groups.items():
            room = self.max_length - how.max_new_tokens
            if room < 1:
                raise ValueError(
                    f"this task generates up to {how.max_new_tokens} tokens and {self._adapter.name} holds "
                    f"{self.max_length}: set a smaller max_gen_toks in the task's generation_kwargs"
                )
            prompts |= {index: self._encode(requests[index].args[0])[-room:] for index in members}
        texts: dict[int, str] = {}
        with tqdm(total=len(requests), desc="generating", unit="text", disable=not self._progress) as bar:
            for how, members in groups.items():
                todo = sorted(members, key=lambda index: len(prompts[index]), reverse=True)
                while todo:
                    most = rows_at_once(self._adapter, len(prompts[todo[0]]) + how.max_new_tokens)
                    batch, todo = todo[: self._rows or most], todo[self._rows or most :]
                    seeds = [self._seed * 1_000_003 + index for index in batch]
                    texts |= zip(batch, self._continue([prompts[index] for index in batch], how, seeds), strict=True)
                    bar.update(len(batch))
        return [texts[index] for index in range(len(requests))]

    def _encode(self, text: str) -> list[int]:
        return list(format_prompt(self._adapter, text, prompt_format="plain").ids) if text else [self.prefix_token_id]

    def _without_bos(self, text: str) -> list[int]:
        ids = self._encode(text) if text else []
        return ids[1:] if ids[:1] == [self.tokenizer.bos_token_id] else ids

    def _pair(self, context: str, continuation: str) -> Pair:
        """Tokens of both; spaces that end the context go with the continuation, as they do in most tokenizers."""
        bare = context.rstrip()
        continuation = context[len(bare) :] + continuation
        if not bare:
            return [self.prefix_token_id], self._without_bos(continuation)
        question, whole = self._encode(bare), self._encode(bare + continuation)
        return question, whole[len(question) :]

    def _rolled(self, text: str) -> list[Pair]:
        """Windows that predict every token once, their contexts without what they predict."""
        ids = self._without_bos(text)
        pairs = type(self).windows(ids, self.prefix_token_id, self.max_length, 1)
        return [(given[: len(given) - len(predicted) + 1], predicted) for given, predicted in pairs]

    def _scored(self, requests: Sequence[Any], pairs_of: Callable[..., list[Pair]]) -> list[list[Score]]:
        """Scores of each request's pairs under the present way; new requests are scored under all ways."""
        new = [args for args in dict.fromkeys(request.args for request in requests) if args not in self._known]
        pairs = [pairs_of(*args) for args in new]
        flat = [pair for of_request in pairs for pair in of_request]
        progress = "scoring" if self._progress else False
        ways, rows = list(self._ways.values()), self._rows
        scores = answer_logprobs(
            self._adapter, flat, ways, positions=self._positions, batch_size=rows, progress=progress
        )
        for way, of_way in zip(self._ways, scores, strict=True):
            following = iter(of_way)
            for args, of_request in zip(new, pairs, strict=True):
                self._known.setdefault(args, {})[way] = [next(following) for _ in of_request]
        return [self._known[request.args][self.way] for request in requests]

    def _continue(self, prompts: Sequence[list[int]], how: _Continuing, seeds: Sequence[int]) -> list[str]:
        """One batch, token by token; a row leaves it at its stop."""
        adapter, stops = self._adapter, self._adapter.stop_ids
        new: list[list[int]] = [[] for _ in prompts]
        texts = [""] * len(prompts)
        live, tokens = list(range(len(prompts))), torch.tensor([ids[-1] for ids in prompts])
        sampler = Sampler(how.temperature, how.top_p, seeds)
        with decoding(adapter, prompts, [self._ways[self.way]] * len(prompts)) as decoder:
            for _ in range(how.max_new_tokens):
                tokens = sampler.pick(decoder.step(tokens), live)
                going: list[int] = []
                for place, (row, token) in enumerate(zip(live, tokens.tolist(), strict=True)):
                    if token in stops:
                        continue
                    new[row].append(token)
                    texts[row] = str(adapter.tokenizer.decode(new[row], skip_special_tokens=True))
                    if not any(stop in texts[row] for stop in how.until):
                        going.append(place)
                if not going:
                    break
                if len(going) < len(live):
                    decoder.keep(going)
                    live, tokens = [live[place] for place in going], tokens[going]
        return [how.cut(text) for text in texts]
