"""From a study's result to its figures and its report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caa_lens.evaluation.items import steerability
from caa_lens.files.whole import write_whole
from caa_lens.prompts import TokenRow
from caa_lens.protocols import assessment, baselines
from caa_lens.studies.files import LEFT_OUT_FILE, REPORT_FILE, TABLES, table_files
from caa_lens.studies.findings import COLUMNS, MEANINGS, VERDICTS, cells
from caa_lens.studies.folder import RUN_FILE, SETTINGS_FILE, read_json
from caa_lens.viz import figures
from caa_lens.viz.page import Section, Table, draw_images, render_page
from caa_lens.viz.token_views import TokenView, roles, steered_beside

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from caa_lens.studies.result import StudyResult

ORGANISM_NOTE = (
    "The bundled models are trained to be steerable, so that the tools can be checked against a known truth. Nothing "
    "measured on them is evidence about other models, and nothing here replicates the paper."
)

FIRST = ("behavior", "layer", "multiplier", "verdict")
RESULT = (*FIRST, *(key for key in COLUMNS if key not in FIRST))
"""Columns of the result table: the finding stands where no screen is too narrow for it."""


def write_report(result: StudyResult, path: Path | None = None) -> Path:
    """Write a study's report as one HTML file that needs no other file and no network.

    Args:
        result: A finished study, from `caa_lens.run_study` or `caa_lens.studies.read_study`.
        path: Where; None is ``index.html`` in the run folder, and then every figure is also written there as
            ``figures/*.png``, where kaleido and a Chrome or Chromium are installed.

    Returns:
        The path.
    """
    made = study_figures(result)
    drawn = draw_images(
        {name: figure for name, (figure, _) in made.items()}, {"webp": 1} | ({} if path else {"png": 2})
    )
    for name, content in drawn.get("png", {}).items():
        write_whole(result.folder / "figures" / f"{name}.png", lambda to, content=content: to.write_bytes(content))
    to = path or result.folder / REPORT_FILE
    stills = drawn["webp"]
    run = read_json(result.folder / RUN_FILE)
    text = render_page(
        title=f"{result.settings.name}: steering {Path(result.settings.model).name}",
        subtitle=_subtitle(result, run),
        notes=_notes(result),
        header=[COLUMNS[key] for key in RESULT],
        rows=_rows(result),
        meanings=MEANINGS | {f"finding: {verdict}": meaning for verdict, meaning in VERDICTS.items()},
        sentences=_sentences(result),
        sections=[
            Section(name, *_headed(caption), figure, stills.get(name)) for name, (figure, caption) in made.items()
        ],
        samples=result.samples,
        tokens=_tokens(result),
        tables=_tables(result),
        commands=[f"caa-lens study --settings {SETTINGS_FILE} --folder again", "caa-lens report again"],
        settings=read_json(result.folder / SETTINGS_FILE),
        facts=_facts(result, run),
        files=_files(result.folder, to),
    )
    write_whole(to, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return to


def study_figures(result: StudyResult) -> dict[str, tuple[go.Figure, str]]:
    """The figures by file name, each with a heading and, after a colon, a caption."""
    tables, common = result.tables, result.common_layer
    title = f"Cosine between behaviours, layer {common}"
    made: dict[str, tuple[Any, str]] = {
        "dose_response": (
            figures.dose_response(tables["summary"]),
            "Effect on the test items: where the two lines part, the model is answering a letter, not a question. "
            "An effect inside the grey bands is what null vectors of this length do.",
        ),
    }
    if (tables["summary"]["n_random"] > 0).any():
        made["nulls"] = (
            figures.null_distribution(tables["test"]),
            "Beside its nulls: random vectors, the same entries at other dimensions, and the same pairs with labels "
            "exchanged. A vector that means something stands outside all three.",
        )
    made["items"] = (
        figures.item_slopes(steerability(tables["test"])),
        "Item by item: how much an item's log odds change for one unit of the multiplier. A mean can hide items that "
        "go the other way.",
    )
    if tables["test"]["letter"].isin(["A", "B"]).any():
        made["letters"] = (
            figures.letter_balance(tables["test"]),
            "Letters: where items that match with A and items that match with B part, the vector prefers a letter.",
        )
    if "baselines" in tables:
        made["baselines"] = (
            figures.baselines(tables["baselines"]),
            "Beside prompting: what a system prompt or answered examples do alone, and what steering adds to them. "
            "Prompting often wins.",
        )
    if "side_effects" in tables:
        made["side_effects"] = (
            figures.side_effects(tables["side_effects"]),
            "Side effects: what steering does to text that has nothing to do with the behaviour.",
        )
    made |= {
        "sweep": (
            figures.sweep_heatmap(tables["dev_summary"], result.layers),
            "Choosing the layer: measured on the dev items, from which the framed layer of each behaviour was taken: "
            "the largest difference between the outermost multipliers. It is not reported from these items.",
        ),
    }
    if len(result.vectors) > 1:
        made["cosines"] = (
            figures.cosine_heatmap(tables["cosines"], title),
            f"Between behaviours: at layer {common}, with the largest mean swing over behaviours on the dev items. "
            "Where a cosine is large, expect steering one behaviour to move the other.",
        )
    made |= {
        "cross_layer": (
            figures.cross_layer(tables["cross_layer"]),
            "Between layers: a block of high cosines is a range of layers that share a direction, in which one layer's "
            "vector can be used at another.",
        ),
    }
    if "base_versus_chat" in tables:
        made["base_versus_chat"] = (
            figures.base_versus_chat(tables["base_versus_chat"]),
            "Between models: how much of the direction was there before chat training. A cosine means little at a "
            "layer where the vector does nothing.",
        )
    made["norms"] = (
        figures.norms(tables["norms"]),
        "Length: a multiplier is in units of the vector, so that a longer vector moves the model further.",
    )
    return made


def _headed(caption: str) -> tuple[str, str]:
    heading, _, text = caption.partition(": ")
    return heading, f"{text[:1].upper()}{text[1:]}"


def _sentences(result: StudyResult) -> dict[str, list[str]]:
    """For each behaviour its findings, the verdict of its assessment at the multipliers shown, and its baselines'."""
    shown = [multiplier for multiplier in result.settings.shown if multiplier]
    assessed, compared = result.tables["assessment"], result.tables.get("baselines")
    said: dict[str, list[str]] = {}
    found = result.tables["findings"]
    for name, part in assessed[assessed["multiplier"].isin(shown)].groupby("behavior", sort=False):
        rows = found[found["behavior"] == name].to_dict("records")
        said[str(name)] = ["; ".join(f"at {row['multiplier']:+g}: {row['verdict']}" for row in rows)]
        said[str(name)] += assessment.describe_assessment(part)
        if compared is not None:
            said[str(name)] += baselines.describe_baselines(compared[compared["behavior"] == name])
    return said


def _rows(result: StudyResult) -> list[list[str]]:
    texts = [cells(row) for row in result.tables["findings"].to_dict("records")]
    return [[text[key] for key in RESULT] for text in texts]


def _notes(result: StudyResult) -> list[str]:
    """What a reader must know before the numbers."""
    settings, notes = (
        result.settings,
        [
            "The layer of each behaviour was chosen on dev items and is reported on test items, which were used for "
            "nothing else."
        ],
    )
    if settings.model.startswith("organism-"):
        notes.append(ORGANISM_NOTE)
    if settings.site != "resid_post":
        notes.append(f"Vectors are read and added at {settings.site}, not in the residual stream after the block.")
    seen = result.tables["data"].query("seen > 0")
    notes += [
        f"{row['seen']} of the {row['n_test']} test prompts of {row['behavior']} are also among the items that "
        "its vector and layer come from: its result is too good."
        for row in seen.to_dict("records")
    ]
    found = result.tables["findings"]
    low = sorted(
        {f"{row['behavior']} at {row['multiplier']:+g}" for row in found[found["mass"] < 0.5].to_dict("records")}
    )
    if low:
        notes.append(
            f"The two answers hold less than half of the probability for {', '.join(low)}: read those with care."
        )
    processing = {v.provenance.weight_processing for v in result.vectors.values()} - {"none"}
    if processing:
        notes.append(f"The model's weights were processed ({', '.join(processing)}).")
    return notes


def _subtitle(result: StudyResult, run: Mapping[str, Any]) -> str:
    """What was run and when, in a line."""
    n, versions = len(result.vectors), run.get("versions", {})
    made_with = f"caa_lens {versions.get('caa_lens', 'of an unknown version')}"
    begun = str(run.get("begun", "an unknown day")).partition("T")[0]
    return f"{n} behaviour{'s' if n != 1 else ''}, begun on {begun} with {made_with}"


def _tokens(result: StudyResult) -> dict[str, list[TokenView]]:
    """For each behaviour, what was read and steered in a pair, and its vector in a text, unsteered and steered."""
    read, beside = result.tables["read_tokens"], result.tables["sample_tokens"]
    views: dict[str, list[TokenView]] = {}
    for name in result.vectors:
        rows = [
            TokenRow(row["pos"], row["token_id"], row["token"], _roles(row["roles"]), row["read"], row["steered"])
            for row in read[read["behavior"] == name].to_dict("records")
        ]
        views[name] = [roles(rows)]
        texts = [part for _, part in beside[beside["behavior"] == name].groupby(beside["multiplier"] != 0)]
        if len(texts) == 2:
            views[name].append(steered_beside(texts[0], texts[1]))
    return views


def _roles(joined: str) -> tuple[str, ...]:
    return tuple(joined.split(", ")) if joined else ()


def _tables(result: StudyResult) -> list[Table]:
    """The folder's tables in the order of the report."""
    tables: list[Table] = []
    for file in table_files(result.settings):
        frame = result.tables[Path(file).stem]
        tables.append(Table(file, TABLES[file], frame if frame.index.name is None else frame.reset_index()))
    return tables


def _facts(result: StudyResult, run: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """What ``run.json`` and two more small files know, by heading."""
    file = result.folder / LEFT_OUT_FILE
    layers = {name: f"layer {layer}" for name, layer in result.layers.items()}
    return {
        "Layers, chosen on the dev items": layers | {"for all together": f"layer {result.common_layer}"},
        "Baselines that could not be asked": read_json(file) if file.is_file() else {},
        "Versions": run.get("versions", {}),
        "Machine": run.get("machine", {}),
        "Made from": {name: f"hash {value[:16]}" for name, value in run.get("made_from", {}).items()},
        "Seconds": {name: f"{value:.1f}" for name, value in run.get("seconds", {}).items()},
    }


def _files(folder: Path, report: Path) -> dict[str, int]:
    """The folder's files and their sizes, without the report itself."""
    found = sorted(file for file in folder.rglob("*") if file.is_file() and not file.name.startswith("."))
    left_out = {report.resolve(), (folder / REPORT_FILE).resolve()}
    return {
        file.relative_to(folder).as_posix(): file.stat().st_size for file in found if file.resolve() not in left_out
    }
