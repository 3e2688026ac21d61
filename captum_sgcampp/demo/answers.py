"""What needs no run of the network: colors, methods, feature maps, neurons and files. Each handler gives new values of
components."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from captum_sgcampp.demo import html
from captum_sgcampp.demo.changes import Changes, Changing
from captum_sgcampp.demo.downloads import write_files
from captum_sgcampp.demo.explaining import complete, explanation
from captum_sgcampp.demo.picked import box_of, number_of
from captum_sgcampp.demo.quiet_gradio import gradio as gr
from captum_sgcampp.demo.selection import feature_maps_of, text_of_maps, toggled, with_box
from captum_sgcampp.demo.settings import Settings
from captum_sgcampp.demo.visitor import Visitor
from captum_sgcampp.demo.words import of_samples


class Answers(Changing):
    """Handlers that answer at once."""

    def redrawn(self, visitor: Visitor, *values: Any) -> Changes:
        """Something changed that needs no run of the network."""
        try:
            settings = complete(visitor, self._networks, self._read(values))
            found = explanation(visitor, self._networks, settings)
        except (ValueError, RuntimeError) as error:
            return self._failed(error)
        return self._named({**self._all(visitor, found), "status": html.status(of_samples(found))})

    def map_picked(self, visitor: Visitor, event: gr.EventData, *values: Any) -> Changes:
        """A feature map was clicked: it counts, or no longer."""
        try:
            settings = complete(visitor, self._networks, self._read(values))
            layer = self._networks[settings.network].layer(settings.layer)
            chosen = toggled(feature_maps_of(settings.feature_maps, layer.feature_maps), number_of(event))
        except (ValueError, RuntimeError) as error:
            return self._failed(error)
        return self._selected(visitor, replace(settings, feature_maps=text_of_maps(chosen)), unchanged="grid")

    def cells_picked(self, visitor: Visitor, event: gr.EventData, *values: Any) -> Changes:
        """A box was dragged, or a cell clicked; an empty box clears all."""
        try:
            settings = complete(visitor, self._networks, self._read(values))
            size = self._networks[settings.network].layer(settings.layer).size
            neurons = with_box(settings.neurons, box_of(event), size)
        except (ValueError, RuntimeError) as error:
            return self._failed(error)
        return self._selected(visitor, replace(settings, neurons=neurons), unchanged="tiles")

    def _selected(self, visitor: Visitor, settings: Settings, unchanged: str) -> Changes:
        try:
            found = explanation(visitor, self._networks, settings)
        except (ValueError, RuntimeError) as error:
            return self._failed(error)
        chosen = {"feature_maps": settings.feature_maps, "neurons": settings.neurons}
        changes = {**self._all(visitor, found, unchanged), **chosen, "status": html.status(of_samples(found))}
        return self._named(changes)

    def files_prepared(self, visitor: Visitor, *values: Any) -> Changes:
        """Write the files. Those of before go."""
        try:
            settings = complete(visitor, self._networks, self._read(values))
            found = explanation(visitor, self._networks, settings)
            paths = write_files(visitor.new_folder(), visitor, found)
        except (ValueError, RuntimeError, OSError) as error:
            return self._failed(error)
        return self._named(
            {
                "files": gr.File([str(path) for path in paths], visible=True),
                "status": html.status("The files are ready."),
            }
        )
