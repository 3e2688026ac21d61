"""What runs the network: a new picture, network, layer or class, and more noisy samples.

Each handler gives new values of components, step by step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from captum_sgcampp.demo import html
from captum_sgcampp.demo.changes import Changes, Changing
from captum_sgcampp.demo.explaining import complete, explanation, sampled
from captum_sgcampp.demo.methods import takes_noise
from captum_sgcampp.demo.picked import number_of
from captum_sgcampp.demo.quiet_gradio import gradio as gr
from captum_sgcampp.demo.settings import Settings, settings_of
from captum_sgcampp.demo.visitor import NO_PICTURE, Visitor
from captum_sgcampp.demo.words import of_samples


class Runs(Changing):
    """Handlers that run the network."""

    def opened(self, request: gr.Request) -> Iterator[Changes]:
        """A page was opened, perhaps by a link that holds settings."""
        visitor, given, complaint = Visitor(), dict(request.query_params), ""
        visitor.address = request.headers.get("referer", "").partition("?")[0]
        try:
            visitor.show_scene(int(given.get("scene", 0)))
            settings = complete(visitor, self._networks, settings_of(given))
        except ValueError as error:
            complaint = f"The link does not fit: {error}. These are the default settings."
            visitor.show_scene(0)
            settings = complete(visitor, self._networks, Settings())
        yield self._named({"visitor": visitor, "image": visitor.picture, **self._choices(visitor, settings)})
        yield from self._run(visitor, settings, complaint)

    def uploaded(self, visitor: Visitor, *values: Any) -> Iterator[Changes]:
        """An image was uploaded or pasted, or taken away."""
        *values, path = values  # type: ignore[assignment]
        visitor.turn += 1
        try:
            if path is None:
                raise ValueError(NO_PICTURE)
            visitor.show_file(Path(path))
        except (ValueError, OSError) as error:
            visitor.forget()
            words = str(error).replace(repr(path), "image")
            yield self._named({**self._nothing(), "status": html.status(words, is_error=True)})
            return
        yield from self._of_new_picture(visitor, values)

    def scene_picked(self, visitor: Visitor, event: gr.EventData, *values: Any) -> Iterator[Changes]:
        """An example was clicked."""
        try:
            visitor.show_scene(number_of(event))
        except ValueError as error:
            yield self._failed(error)
            return
        yield self._named({"image": visitor.picture})
        yield from self._of_new_picture(visitor, values)

    def _of_new_picture(self, visitor: Visitor, values: Any) -> Iterator[Changes]:
        forgotten = {"target": None, "compared": None, "feature_maps": "", "neurons": ""}
        yield from self._of_new_choices(visitor, values, forgotten)

    def network_changed(self, visitor: Visitor, *values: Any) -> Iterator[Changes]:
        """Another network was chosen: other layers and classes."""
        forgotten = {"layer": "", "target": None, "compared": None, "feature_maps": "", "neurons": ""}
        yield from self._of_new_choices(visitor, values, forgotten)

    def layer_changed(self, visitor: Visitor, *values: Any) -> Iterator[Changes]:
        """Another layer was chosen: other feature maps and neurons."""
        yield from self._of_new_choices(visitor, values, {"feature_maps": "", "neurons": ""})

    def _of_new_choices(self, visitor: Visitor, values: Any, changed: dict[str, Any]) -> Iterator[Changes]:
        try:
            settings = complete(visitor, self._networks, replace(self._read(values), **changed))
        except (ValueError, RuntimeError) as error:  # no map of another choice stays
            yield {**self._named(self._nothing()), **self._failed(error)}
            return
        yield self._named(self._choices(visitor, settings))
        yield from self._run(visitor, settings)

    def run(self, visitor: Visitor, *values: Any) -> Iterator[Changes]:
        """Take the noisy samples that are missing, and show the maps."""
        try:
            settings = complete(visitor, self._networks, self._read(values))
        except (ValueError, RuntimeError) as error:
            yield self._failed(error)
            return
        yield from self._run(visitor, settings)

    def _run(self, visitor: Visitor, settings: Settings, complaint: str = "") -> Iterator[Changes]:
        visitor.turn += 1
        turn = visitor.turn
        try:
            if any(map(takes_noise, settings.methods)):
                for progress in sampled(visitor, self._networks, settings):
                    yield self._named({"status": html.status("The network runs.", progress)})
            stopped = visitor.turn != turn
            if stopped and not visitor.is_cancelled:  # something newer runs
                return
            found = explanation(visitor, self._networks, settings)
        except (ValueError, RuntimeError) as error:
            yield self._failed(error)
            return
        words = complaint or f"{'Stopped: ' if stopped else ''}{of_samples(found)}"
        yield self._named({**self._all(visitor, found), "status": html.status(words, is_error=bool(complaint))})

    def cancelled(self, visitor: Visitor) -> Changes:
        """The running explanation ends after its present sample, and shows what it has."""
        visitor.cancel()
        return self._named({"status": html.status("Stopped.")})
