"""One grammar for all commands: the model, vector files, options; one name, help and default for one thing.

What is found here about each command is found by walking the commands, so that a new one is checked too. Every
exception stands in a table with its reason, and one that is none any more fails.
"""

from __future__ import annotations

import importlib
import inspect
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import typer
from command import error
from typer.testing import CliRunner

import caa_lens.cli.options as options
from caa_lens.cli.app import app
from caa_lens.studies.settings import StudySettings


def walk(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every command that is no group, by its full name."""
    below = getattr(command, "commands", None)
    if below is None:
        yield name, command
    for part, inner in (below or {}).items():
        yield from walk(inner, f"{name} {part}".strip())


def annotated(command: Any) -> Any:
    """The command, each parameter with its annotation in words."""
    hints = get_type_hints(command.callback)
    for each in command.params:
        each.annotation = inspect.formatannotation(hints[each.name]) if each.name in hints else "bool"
    return command


COMMANDS = {name: annotated(command) for name, command in walk(typer.main.get_command(app))}

READS = {  # what commands that neither make nor use vectors read instead; several are all of a kind
    **dict.fromkeys(("judge world", "judge endpoint", "judge local", "judge export", "judge import"), ["answers"]),
    "judge agreement": ["scored", "other"],
    "report": ["folder"],
    "scaling": ["folders"],
}

PANELS = (None, "Data", "Steering", "Prompts", "Model", "Judge", "Endpoint", "Output")

SEVERAL_VECTORS = ("answers", "compose", "entanglement")
MADE_OF_PAIRS = ("extract", "assess", "select", "baselines", "transfer prompts", "analyze pca", "analyze separation")

EXCEPTIONS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("--data", SEVERAL_VECTORS, "each of several vectors has its own data"),
    ("--data", ("analyze pca", "analyze separation", "red-team", "study"), "several behaviours at once"),
    ("--data", ("capabilities",), "questions with a right answer, of which some come with the package"),
    ("--part", (*MADE_OF_PAIRS, "tokens"), "vectors are made of pairs, and measured on test items"),
    ("--other-answers", ("tokens",), "shows any pair, also one that would be refused"),
    ("--test", ("study",), "of several behaviours"),
    ("--layer", SEVERAL_VECTORS, "each of several vectors has its own layer"),
    ("--layer", ("actadd",), "ActAdd counts layers from the other end of the block"),
    ("--multiplier", ("compose",), "each of several vectors has its own"),
    ("--multiplier", ("analyze project",), "a text is read unsteered if nothing else is asked for"),
    ("--multipliers", ("red-team",), "breaks are looked for further out"),
    ("--multipliers", ("select",), "to choose from, in one direction"),
    ("--multipliers", ("side-effects",), "0 is what is compared with, and has no row"),
    ("--coefficients", ("skills",), "the published ones for taking a skill away"),
    ("--prompt", ("generate", "actadd"), "several are continued"),
    ("--prompt-format", ("actadd",), "the paper's models have no template"),
    ("--max-new-tokens", ("actadd",), "the paper's length"),
    ("--temperature", ("actadd",), "the paper's sampling where none is given"),
    ("--top-p", ("actadd",), "the paper's sampling where none is given"),
    ("--frequency-penalty", ("actadd",), "the paper's sampling where none is given"),
    ("--out", ("extract",), "writes vectors"),
    ("--out", ("report",), "writes HTML"),
    ("--out", ("make-hallucinations",), "writes questions"),
)

P = "caa_lens.protocols"
ENDPOINT = "caa_lens.judging.endpoint:EndpointJudge"
MAKE = ("caa_lens.extraction.extraction:extract_vectors", "caa_lens.datasets.contrast:load_contrast_pairs")
CALLS: dict[str, tuple[str, ...]] = {  # the Python functions of each command that takes a setting
    "extract": MAKE,
    "generate": ("caa_lens.steering.steering:generate",),
    "sweep": ("caa_lens.sweeps:sweep",),
    "actadd": (
        "caa_lens.evaluation.actadd:continuations",
        "caa_lens.steering.activation_addition:addition",
    ),
    "assess": (*MAKE, f"{P}.assessment:assess"),
    "baselines": (*MAKE, f"{P}.baselines.comparison:compare"),
    "capabilities": (
        "caa_lens.evaluation.capabilities:capabilities",
        "caa_lens.evaluation.capabilities:load_capabilities",
    ),
    "harness": ("caa_lens.evaluation.harness:evaluate",),
    "select": (*MAKE, f"{P}.selection:select"),
    "side-effects": (f"{P}.selection:damage", f"{P}.selection:at_budget"),
    "entanglement": ("caa_lens.sweeps:sweep",),
    "compose": (f"{P}.composition:sweep_together", f"{P}.composition:search_layers"),
    "skills": (f"{P}.broad_skills:skill_vectors", f"{P}.broad_skills:skill_curve"),
    "transfer layers": (f"{P}.transfer:across_layers",),
    "transfer models": (f"{P}.transfer:across_models",),
    "transfer prompts": (*MAKE, f"{P}.transfer:across_prompts"),
    "answers": ("caa_lens.judging.answers:answers",),
    "conditioning": ("caa_lens.judging.conditioning:after_answers",),
    "judge endpoint": (ENDPOINT,),
    "judge local": ("caa_lens.judging.local:LocalJudge",),
    "judge import": ("caa_lens.judging.human:import_sheet",),
    "tokens": ("caa_lens.prompts:describe_tokens",),
    "analyze massive": ("caa_lens.analysis:massive_dimensions",),
    "analyze pca": (*MAKE, "caa_lens.analysis:pca"),
    "analyze separation": (*MAKE, "caa_lens.analysis:separation"),
    "analyze lens": ("caa_lens.analysis:logit_lens", "caa_lens.analysis:stream_lens"),
    "analyze project": ("caa_lens.analysis:project",),
    "analyze early": ("caa_lens.analysis:early_layer",),
    "red-team": (f"{P}.red_teaming:red_team", f"{P}.red_teaming:breaks", ENDPOINT),
    "make-hallucinations": (f"{P}.hallucination:generate_pairs", "caa_lens.judging.chat:EndpointWriter"),
    "scaling": ("caa_lens.studies.scaling:by_depth",),
}
PARAMETERS = {  # where an option is called otherwise than the parameter
    "--nulls": "n_nulls",
    "--components": "n_components",
    "--final-norm": "norm",
    "--finetuning": "method",
}
READ_FIRST = {  # a name or file on the command line, what is in it in Python
    *("data", "test", "texts", "prompt", "out", "layer", "coefficients", "settings", "operation"),
}


def leaf(names: tuple[str, ...]) -> list[Any]:
    return [COMMANDS[name] for name in names]


def arguments(command: Any) -> list[Any]:
    return [each for each in command.params if each.param_type_name == "argument"]


def given_options(command: Any) -> dict[str, Any]:
    return {each.opts[0]: each for each in command.params if each.param_type_name == "option" and each.name != "help"}


def kind(option: Any) -> tuple[Any, ...]:
    """What may be given: the annotation and its limits."""
    annotation = " | ".join(part for part in option.annotation.split(" | ") if part != "None")
    return annotation, getattr(option, "min", None), getattr(option, "max", None)


def default(option: Any) -> Any:
    """A plain value; None where something must be given, too."""
    value = option.default
    return value if isinstance(value, str | int | float | bool) else None


@pytest.mark.parametrize("name", COMMANDS)
def test_the_model_comes_first_then_vector_files_and_all_else_is_an_option(name: str) -> None:
    places = [each.name for each in arguments(COMMANDS[name])]
    assert places == READS.get(name, places)
    if name not in READS:
        assert places == [each for each in ("model", "vectors") if each in places], "no other position, no other order"
    for each in arguments(COMMANDS[name])[:-1]:
        assert not (each.multiple or each.nargs == -1), "only the last position may take several"
    assert [each.metavar for each in arguments(COMMANDS[name])] == [each.upper() for each in places]


def test_what_is_said_of_positions_is_true() -> None:
    assert sorted(READS) == sorted(name for name, each in COMMANDS.items() if set(READS.get(name, ())) & {
        argument.name for argument in arguments(each)
    })  # fmt: skip
    helps = {each.help for command in COMMANDS.values() for each in arguments(command) if each.name == "model"}
    assert len(helps) == 1


@pytest.mark.parametrize("name", COMMANDS)
def test_an_option_has_one_spelling(name: str) -> None:
    for option in given_options(COMMANDS[name]).values():
        assert len(option.opts) == 1 and not option.secondary_opts, option.opts
        assert re.fullmatch(r"--[a-z]+(-[a-z]+)*", option.opts[0])
    words = set(given_options(COMMANDS[name]))
    positions = {"--model", "--vector", "--vectors", "--file", "--text", "--questions", "--behaviors", "--endpoint"}
    assert not words & positions, "a model and vector files have a position, what is asked is --data or --prompt"
    assert not words & {"--random", "--n-random", "--n-nulls", "--n-null", "--controls", "--against", "--steer"}


def groups(option: str) -> dict[str, dict[str, Any]]:
    """The commands with an option, by the exception that they are; ``""`` is the rest, without `study`'s defaults."""
    found = {name: given_options(each)[option] for name, each in COMMANDS.items() if option in given_options(each)}
    apart = {reason + option: names for of, names, reason in EXCEPTIONS if of == option}
    excepted = {name: reason for reason, names in apart.items() for name in names}
    parts: dict[str, dict[str, Any]] = {}
    for name, each in found.items():
        parts.setdefault(excepted.get(name, ""), {})[name] = each
    return parts


@pytest.mark.parametrize("option", sorted({name for each in COMMANDS.values() for name in given_options(each)}))
def test_an_option_has_one_help_one_type_and_one_default(option: str) -> None:
    told: list[set[Any]] = []
    for reason, part in groups(option).items():
        told.append({(each.help, kind(each), default(each)) for name, each in part.items() if name != "study"})
        assert len(told[-1]) <= 1, (option, reason, told[-1])
        same = {(each.help, kind(each)) for each in part.values()}
        assert len(same) == 1, (option, reason, same)
        assert {each.rich_help_panel for each in part.values()} <= {*PANELS}
    assert len({each.rich_help_panel for part in groups(option).values() for each in part.values()}) == 1
    every = [one for each in told for one in each]
    assert len(set(every)) == len(every), "an exception that says the same as the rest is none"


def test_exceptions_are_of_commands_that_are_there() -> None:
    for option, names, reason in EXCEPTIONS:
        assert reason and all(option in given_options(each) for each in leaf(names)), (option, names)


def test_a_study_takes_every_setting_and_leaves_its_default_to_the_settings() -> None:
    given = given_options(COMMANDS["study"])
    called = {"behaviors": "data", "n_nulls": "nulls"}
    wanted = {f"--{called.get(field, field).replace('_', '-')}" for field in StudySettings.model_fields}
    assert set(given) - wanted == {"--settings", "--folder", "--json", "--quiet"}
    assert wanted - set(given) == {"--model"}, "which has a position"
    assert all(default(each) in (None, False) for each in given.values())


@pytest.mark.parametrize("name", COMMANDS)
def test_panels_come_in_one_order(name: str) -> None:
    places = [PANELS.index(each.rich_help_panel) for each in given_options(COMMANDS[name]).values()]
    assert places == sorted(places)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_without_arguments_shows_its_help(name: str) -> None:
    if not any(each.required for each in COMMANDS[name].params) and name != "study":
        return  # such as `demo`, which needs nothing
    said = CliRunner().invoke(app, name.split()).output
    assert "For example:" in said and f"caa-lens {name}" in said


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_of_the_help_are_read(name: str) -> None:
    lines = re.findall(r"(?m)^ *caa-lens (.+)$", COMMANDS[name].help)
    assert any(line.startswith(name) for line in lines)
    for line in map(shlex.split, lines):
        example = next(each for each in COMMANDS if line[: len(each.split())] == each.split())
        COMMANDS[example].make_context(example, line[len(example.split()) :])


def test_every_endpoint_is_given_the_same_options() -> None:
    asked = {
        name: {key for key, each in given_options(command).items() if each.rich_help_panel == "Endpoint"}
        for name, command in COMMANDS.items()
    }
    some = {name: found for name, found in asked.items() if found}
    assert sorted(some) == ["judge endpoint", "make-hallucinations", "red-team"]
    assert all(found == some["red-team"] for found in some.values()) and "--timeout" in some["red-team"]


def test_read_and_site_are_wherever_vectors_are_made_of_pairs() -> None:
    for name in (*MADE_OF_PAIRS, "study"):
        assert {"--read", "--site"} <= set(given_options(COMMANDS[name])), name


def test_nulls_are_twenty_everywhere() -> None:
    with_nulls = {
        name: given_options(each)["--nulls"] for name, each in COMMANDS.items() if "--nulls" in given_options(each)
    }
    assert {default(each) for name, each in with_nulls.items() if name != "study"} == {20}
    assert StudySettings().n_nulls == 20 and len(with_nulls) > 10


def functions(name: str) -> list[Callable[..., Any]]:
    found: list[Callable[..., Any]] = []
    for each in CALLS[name]:
        module, _, function = each.partition(":")
        found.append(getattr(importlib.import_module(module), function))
    return found


def plain(text: Any, like: Any) -> Any:
    """What a command makes of an option's default, to be compared with a Python default."""
    if isinstance(like, tuple) and text is None:
        return like  # which the command gives on where nothing is given
    if isinstance(like, tuple) and isinstance(text, str):
        return options.parse_multipliers(text) if isinstance(like[0], int | float) else tuple(text.split(","))
    return text


@pytest.mark.parametrize("name", CALLS)
def test_defaults_are_those_of_the_functions(name: str) -> None:
    compared = 0
    for option, each in given_options(COMMANDS[name]).items():
        parameter = PARAMETERS.get(option, option.removeprefix("--").replace("-", "_"))
        for function in functions(name):
            known = inspect.signature(function).parameters.get(parameter)
            if known is None or parameter in READ_FIRST or known.default is inspect.Parameter.empty:
                continue
            assert not each.required, f"{option} is needed, and {function.__name__} has a default"
            assert plain(default(each), known.default) == known.default, (option, function.__name__)
            compared += 1
    assert compared, "nothing was compared"


def test_every_command_that_computes_is_compared() -> None:
    names = {"demo", "study", "report", "behaviors", "models", "judge world", "judge export", "judge agreement"}
    names |= {"analyze cosine", "analyze layers", "analyze compare", "analyze norms"}  # which have no setting
    assert names | set(CALLS) == set(COMMANDS)


# What does not fit is one line, before a model is loaded.

FITTING = {
    "extract": "m --data {pairs} --out x.safetensors",
    "generate": "m {vectors} --layer 1 --prompt p",
    "sweep": "m {vectors} --data {pairs}",
    "actadd": "m --positive a --layer 1 --prompt p --words w",
    "assess": "m --data {pairs}",
    "baselines": "m --data {pairs}",
    "capabilities": "m {vectors}",
    "harness": "m {vectors} --layer 1 --tasks t",
    "select": "m --data {pairs} --max-kl 1",
    "side-effects": "m {vectors} --budget 1",
    "entanglement": "m {vectors} --layer 1 --data {pairs}",
    "compose": "m {vectors} --layer 1 --data {pairs}",
    "compose --search layers": "m {vectors} --data {pairs}",
    "skills": "m --target facts --other neutral --layer 1",
    "transfer layers": "m {vectors} --data {pairs}",
    "transfer models": "m {vectors} --data {pairs}",
    "transfer prompts": "m --data {pairs} --formats base",
    "answers": "m {vectors} --layer 1 --data refusal --out x.csv",
    "conditioning": "m --data {pairs} --out x.csv",
    "tokens": "m --data {pairs}",
    "analyze pca": "m --data {pairs}",
    "analyze separation": "m --data {pairs}",
    "analyze lens": "m {vectors} --layer 1 --prompt p",
    "analyze project": "m {vectors} --layer 1 --prompt p",
    "analyze early": "m {vectors} --data {pairs}",
    "red-team": "m {vectors} --layer 1 --data refusal --out x.csv",
}
WRONG = (
    ("--out", "x.doc", "cannot write x.doc: give a name that ends in"),
    ("--layers", "x", "layers 'x' cannot be read"),
    ("--layers", "99", "layer 99 is not in these vectors"),
    ("--multipliers", "x", "multipliers 'x' cannot be read"),
    ("--layer", "99", "layer 99 is not in these vectors"),
    ("--data", "nonsense", "nonsense"),
    ("--test", "nonsense", "'nonsense' is not a bundled behaviour"),
    ("--texts", "nonsense", "there are no bundled texts 'nonsense'"),
    ("--nulls", "0", "so give 1 or more, as 20"),
    ("--operation", "remove", "operation 'remove' cannot be read"),
    ("--site", "middle", "the site 'middle' is not known: give one of resid_pre"),
    ("--prompt-format", "json", "prompt format 'json' is not known: give one of chat"),
    ("", "none.safetensors", "there is no vector file none.safetensors"),
)
WITHOUT_NULLS = ("sweep", "capabilities", "select", "side-effects", "transfer layers", "transfer models")
WITHOUT_NULLS += ("transfer prompts",)  # whose effects stand for themselves where no nulls are wanted


def cases() -> Iterator[tuple[str, str, str, str]]:
    for line, given in FITTING.items():
        known = given_options(COMMANDS[line.partition(" --")[0]])
        takes_vectors = "{vectors}" in given
        for option, value, message in WRONG:
            if option and option not in known:
                continue  # no such option
            if value in ("99", "none.safetensors") and not takes_vectors:
                continue  # only the model knows its layers
            if option == "--nulls" and line in WITHOUT_NULLS:
                continue
            if (line, option) in (("compose", "--layers"), ("compose --search layers", "--layer")):
                continue  # which go with the other of the two
            yield line, option, value, message


@pytest.mark.parametrize(("line", "option", "value", "message"), [*cases()])
def test_what_does_not_fit_is_said_before_a_model_loads(
    line: str, option: str, value: str, message: str, vectors: Path, pairs: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(options, "open_model", lambda *_: pytest.fail("a model was loaded"))
    monkeypatch.setattr("caa_lens.evaluation.harness.require_lm_eval", lambda: None)
    monkeypatch.chdir(tmp_path)
    given = f"{line} {FITTING[line]}".format(vectors=vectors if option else value, pairs=pairs).split()
    assert message in error(*given, *([option, value] if option else []))


def test_every_command_with_a_model_has_a_line_that_fits() -> None:
    with_model = {name for name, each in COMMANDS.items() if any(part.name == "model" for part in arguments(each))}
    assert with_model - {line.partition(" --")[0] for line in FITTING} == {"study"}, "whose settings are checked first"
