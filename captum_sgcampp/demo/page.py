"""The page: Gradio's components, and which handler answers which of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from captum_sgcampp.demo import clickable, html
from captum_sgcampp.demo.answers import Answers
from captum_sgcampp.demo.changes import OUTPUTS, SETTINGS
from captum_sgcampp.demo.choice import Choice
from captum_sgcampp.demo.kept_samples import MOST_SAMPLES
from captum_sgcampp.demo.methods import DEFAULT, SHOWN
from captum_sgcampp.demo.networks import Networks
from captum_sgcampp.demo.quiet_gradio import gradio as gr
from captum_sgcampp.demo.runs import Runs
from captum_sgcampp.demo.scenes import SEEDS, example_scene
from captum_sgcampp.demo.settings import COLOR_MAPS, NOISE_RANGE, Settings
from captum_sgcampp.demo.upload import UploadedImage
from captum_sgcampp.demo.visitor import Visitor

TITLE = "What did the network look at?"
INTRODUCTION = """# What did the network look at?
Class maps by Grad-CAM, Grad-CAM++ and Smooth Grad-CAM++, side by side. Warm colors: what raised the score of the class.
"""
VISITOR_SECONDS = 3600  # without a sign of life, then all is forgotten
MOST_RUNS, MOST_ANSWERS = 2, 8  # at the same time, of all visitors

Parts = dict[str, Any]


def make_page(networks: Networks) -> Any:
    """The page of these networks, not yet served. `serve` makes it safe.

    Args:
        networks: that visitors can choose.

    Returns:
        *gradio.Blocks*
    """
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as page:
        gr.Markdown(INTRODUCTION)
        parts: Parts = {"visitor": gr.State(Visitor(), time_to_live=VISITOR_SECONDS, delete_callback=Visitor.forget)}
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                parts |= _picture_parts(networks)
                parts |= _noise_parts()
            with gr.Column(scale=2, min_width=300):
                parts |= _result_parts()
        _connect(page, parts, Runs(networks, parts), Answers(networks, parts))
    return page


def _picture_parts(networks: Networks) -> Parts:
    first = networks.names[0]
    return {
        "image": UploadedImage(
            label="Image: upload or paste",
            type="filepath",
            sources=["upload", "clipboard"],
            height=240,
            buttons=[],
            elem_id="image",
        ),
        "scenes": clickable.tiles("scenes", html.scenes([example_scene(k) for k in range(len(SEEDS))])),
        "network": gr.Dropdown(networks.names, value=first, label="Network", elem_id="network"),
        "layer": Choice([], label="Layer", elem_id="layer"),
        "target": Choice([], label="Class, the most probable first", elem_id="target"),
        "compared": Choice([], label="Compare with", elem_id="compared"),
    }


def _noise_parts() -> Parts:
    parts: Parts = {
        "methods": gr.CheckboxGroup(
            [(title, name) for name, title in SHOWN.items()], value=list(DEFAULT), label="Methods", elem_id="methods"
        ),
        "nt_samples": gr.Slider(
            1, MOST_SAMPLES, value=Settings.nt_samples, step=1, label="n, noisy samples", elem_id="n"
        ),
        "auto": gr.Checkbox(False, label="auto: as many as it takes", elem_id="auto"),
        "noise_level": gr.Slider(
            *NOISE_RANGE, value=Settings.noise_level, step=0.01, label="Noise level", elem_id="noise"
        ),
        "opacity": gr.Slider(0, 1, value=Settings.opacity, step=0.05, label="Opacity of the colors", elem_id="opacity"),
        "cmap": gr.Dropdown(list(COLOR_MAPS), value=Settings.cmap, label="Color map", elem_id="cmap"),
    }
    with gr.Accordion("Seed of the noise", open=False):
        parts["seed"] = gr.Number(0, precision=0, minimum=0, maximum=2**32 - 1, label="Seed", elem_id="seed")
    return parts


def _result_parts() -> Parts:
    parts: Parts = {"status": clickable.status()}
    with gr.Row():
        parts["run"] = gr.Button("Explain", variant="primary", elem_id="run", min_width=120)
        parts["cancel"] = gr.Button("Cancel", variant="stop", elem_id="cancel", min_width=120)
    parts["maps"] = clickable.maps()
    parts["words"] = clickable.sentences()
    with gr.Row():
        with gr.Column(min_width=280):
            gr.Markdown("### Feature maps with the largest weights\nClick to show only these.")
            parts["tiles"] = clickable.tiles("tiles")
            parts["feature_maps"] = gr.Textbox(
                label="Feature maps, as 3 17 (empty: all)", max_lines=1, elem_id="feature-maps"
            )
        with gr.Column(min_width=280):
            gr.Markdown("### Neurons\nDrag a box, or click cells, to count only these.")
            parts["grid"] = clickable.grid()
            parts["neurons"] = gr.Textbox(
                label="Rows and columns, as 2:5,3:7 (empty: all)", max_lines=1, elem_id="neurons"
            )
    return parts | _download_parts()


def _download_parts() -> Parts:
    parts: Parts = {}
    with gr.Accordion("Download, link and Python code", open=False, elem_id="more"):
        parts["prepare"] = gr.Button("Prepare the files", elem_id="prepare")
        parts["files"] = gr.File(
            label="Picture, maps (.npy), manifest and code",
            file_count="multiple",
            interactive=False,
            visible=False,
            elem_id="files",
        )
        parts["link"] = gr.Textbox(
            label="Link to these settings (without your own picture)",
            buttons=["copy"],
            interactive=False,
            elem_id="link",
        )
        # A text field: the colors and the scrolling of gradio.Code are no good for people who see badly.
        parts["code"] = gr.Textbox(
            label="Python code that makes these maps",
            lines=12,
            max_lines=30,
            buttons=["copy"],
            interactive=False,
            elem_id="code",
        )
    return parts


def _connect(page: Any, parts: Parts, runs: Runs, answers: Answers) -> None:
    """Which handler answers which component."""
    inputs = [parts["visitor"], *(parts[name] for name in SETTINGS)]
    shown = [parts[name] for name in OUTPUTS]
    running: Parts = {"concurrency_id": "run", "concurrency_limit": MOST_RUNS, "show_progress": "hidden"}
    quick: Parts = {"concurrency_id": "quick", "concurrency_limit": MOST_ANSWERS, "show_progress": "hidden"}

    def on(
        event: Callable[..., Any],
        handler: Callable[..., Any],
        given: list[Any],
        options: Parts,
        refused: str = html.busy(),
        emptied: Sequence[str] = (),
    ) -> None:
        answered = event(handler, given, shown, api_visibility="private", **options)
        # Beyond the queue no handler runs, so the browser alone says it.
        nothing = json.dumps([refused, *[None for _ in emptied]])
        answered.failure(None, None, [parts[name] for name in ("status", *emptied)], js=f"() => {nothing}")

    # Else Gradio drops what comes while an event of its kind is answered. A paste is two: an image goes, and one comes.
    again = {**running, "trigger_mode": "always_last"}
    on(page.load, runs.opened, [], running, refused=html.busy(reloads=True))
    # What shows no maps is taken away.
    on(parts["image"].input, runs.uploaded, [*inputs, parts["image"]], again, emptied=["image"])
    on(parts["scenes"].pick, runs.scene_picked, inputs, {**running, "trigger_mode": "multiple"})
    for name, changed in (("network", runs.network_changed), ("layer", runs.layer_changed)):
        on(parts[name].input, changed, inputs, again)
    for name in ("target", "compared", "auto"):
        on(parts[name].input, runs.run, inputs, again)
    released = (parts["nt_samples"].release, parts["noise_level"].release)
    for event in (*released, parts["seed"].submit, parts["run"].click):
        on(event, runs.run, inputs, again)
    on(parts["cancel"].click, runs.cancelled, [parts["visitor"]], {"queue": False, "show_progress": "hidden"})
    latest = {**quick, "trigger_mode": "always_last"}
    for event in (parts["methods"].input, parts["cmap"].input, parts["opacity"].release):
        on(event, answers.redrawn, inputs, latest)
    for name in ("feature_maps", "neurons"):
        on(parts[name].submit, answers.redrawn, inputs, latest)
        on(parts[name].blur, answers.redrawn, inputs, latest)
    on(parts["tiles"].pick, answers.map_picked, inputs, {**quick, "trigger_mode": "multiple"})
    on(parts["grid"].pick, answers.cells_picked, inputs, {**quick, "trigger_mode": "multiple"})
    on(parts["prepare"].click, answers.files_prepared, inputs, quick)
