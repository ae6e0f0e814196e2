"""From a study's result to its figures and its page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from caa_lens import assessment, baselines
from caa_lens.evaluation.items import steerability
from caa_lens.findings import COLUMNS, MEANINGS, VERDICTS, cells
from caa_lens.run_folder import RUN_FILE, SETTINGS_FILE, read_json
from caa_lens.viz import figures
from caa_lens.viz.page import Section, render_page, write_figures
from caa_lens.whole_files import write_whole

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from caa_lens.experiment import StudyResult

ORGANISM_NOTE = (
    "The bundled models are trained to be steerable, so that the tools can be checked against a known truth. Nothing "
    "measured on them is evidence about other models, and nothing here replicates the paper."
)


def write_report(result: StudyResult) -> None:
    """Write ``figures/*.html``, ``plotly.min.js``, ``index.html`` and, where there is a Chrome, ``figures/*.png``."""
    made = study_figures(result)
    write_figures({name: figure for name, (figure, _) in made.items()}, result.folder)
    text = render_page(
        title=f"{result.settings.name}: steering {Path(result.settings.model).name}",
        notes=_notes(result),
        header=list(COLUMNS.values()),
        rows=_rows(result),
        meanings=MEANINGS | {f"finding: {verdict}": meaning for verdict, meaning in VERDICTS.items()},
        sentences=_sentences(result),
        sections=[Section(name, *_headed(caption), figure) for name, (figure, caption) in made.items()],
        samples=result.samples,
        data=result.tables["data"].to_dict("records"),
        settings=read_json(result.folder / SETTINGS_FILE),
        run=read_json(result.folder / RUN_FILE),
        command=f"caa-lens study --settings {result.folder / SETTINGS_FILE}",
        files=sorted(str(file.relative_to(result.folder)) for file in result.folder.rglob("*.*") if _listed(file)),
    )
    write_whole(result.folder / "index.html", lambda path: path.write_text(text, encoding="utf-8"))


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
    """For each behaviour, the verdict of its assessment at the multipliers shown, and that of its baselines."""
    shown = [multiplier for multiplier in result.settings.shown if multiplier]
    assessed, compared = result.tables["assessment"], result.tables.get("baselines")
    said: dict[str, list[str]] = {}
    for name, part in assessed[assessed["multiplier"].isin(shown)].groupby("behavior", sort=False):
        said[str(name)] = assessment.verdict(part)
        if compared is not None:
            said[str(name)] += baselines.verdict(compared[compared["behavior"] == name])
    return said


def _rows(result: StudyResult) -> list[list[str]]:
    return [list(cells(row).values()) for row in result.tables["findings"].to_dict("records")]


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


def _listed(file: Path) -> bool:
    return file.is_file() and not file.name.startswith(".") and file.name != "index.html"
