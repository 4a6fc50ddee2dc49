"""The panel beside the scene: what stands on it, and in which order."""

from __future__ import annotations

from typing import Any

from densegen.editor import words
from densegen.editor.sample_faces import SampleFaces
from densegen.editor.scene import HEAT_MM
from densegen.editor.views import VIEWS
from densegen.editor.words import MODES
from densegen.face.regions import REGIONS

__all__ = ["Panel"]


class Panel:
    """The fields of the panel; what they do is the page's. ``gui`` is that of a ``viser.ViserServer``."""

    def __init__(self, gui: Any, faces: SampleFaces) -> None:
        gui.configure_theme(show_logo=False, show_share_button=False)
        gui.main_panel.dock_right()
        self.about = gui.add_html("")
        self.mode_shown = gui.add_html("")
        self.mode = gui.add_button_group("click to", MODES)
        self.note = gui.add_html("")
        self.reason = gui.add_text("why", "", disabled=True, hint="the reason of the last edit, kept in the file")
        self.steps = gui.add_button_group("edits", ("Undo", "Redo", "Delete"))
        self.save = gui.add_button("Save", color="green")
        self.find = gui.add_text("find", "", hint="a name or an id")
        self.view = gui.add_button_group("view", VIEWS)
        self.next_gap = gui.add_button("next largest gap (G)")
        with gui.add_folder("edits", expand_by_default=False):
            self.history = gui.add_html("")
            self.back_to = gui.add_dropdown("back to", ("start",), hint="the state after this edit")
        with gui.add_folder("show", expand_by_default=False):
            self.heat = gui.add_checkbox("coverage as heat", False)
            self.heat_scale = gui.add_html(words.heat_scale(HEAT_MM), visible=False)
            self.links = gui.add_checkbox("link mirror partners", False)
            self.ids = gui.add_checkbox("ids around the selected", False)
            self.midline = gui.add_checkbox("put onto the midline", False, hint="the next landmark that is added")
        with gui.add_folder("faces", expand_by_default=False):
            self.sample = gui.add_slider("face", min=0, max=faces.count, step=1, initial_value=0)
            self.photograph = gui.add_checkbox("photograph", bool(faces.fits), disabled=not faces.fits,
                                               hint="of the fits in --fits")  # fmt: skip
            self.play = gui.add_checkbox("play", False)
        with gui.add_folder("regions", expand_by_default=False):
            self.legend = gui.add_html("")
            self.regions = {name: gui.add_checkbox(name, True) for name in REGIONS}
        with gui.add_folder("keys", expand_by_default=False):
            gui.add_html(words.KEYS)
