"""The panel of one visitor: what to find, what was found, and how to look at it."""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ovs3d_ros.query.request import check_prompts
from ovs3d_ros.semantics.names import distinct_names
from ovs3d_ros.types import QueryResult, SemanticObject
from ovs3d_ros.viewer.guard import MAX_TEXT
from ovs3d_ros.visualization import pictures

MODES = ("colour", "depth", "parts", "features", "labels")
NOWHERE = "-"
TYPING_PAUSE = 0.2  # seconds after the last letter until the viewer asks
_VERDICTS = {"yes": "found", "unsure": "unsure", "no": "not here"}
_HINT = "Several names are separated by commas"
_TABLE = "width:100%;font-size:0.85em;border-spacing:0 2px"
_SWATCH = "display:inline-block;width:0.8em;height:0.8em;border-radius:2px;margin-right:0.4em;background:"


@dataclass(frozen=True, slots=True)
class Handlers:
    """What the panel calls, on the event loop; none of them may block.

    Attributes:
        ask: the names or the threshold have changed; takes seconds to wait for more changes.
        look: mode, opacity or visibility have changed.
        fly: an object was chosen, by its index.
        measure: measuring was switched.
        save: a file was asked for: "picture", "path" or "answer".
        keep_view: the present view joins the camera path.
    """

    ask: Callable[[float], None]
    look: Callable[[], None]
    fly: Callable[[int], None]
    measure: Callable[[bool], None]
    save: Callable[[str], None]
    keep_view: Callable[[], None]


def parse_names(text: str) -> list[str]:
    """The names in a text, separated by commas; none if it holds none.

    Raises:
        UserError: see `check_prompts`.
    """
    names = [name for name in text.split(",") if name.strip()]
    return distinct_names(check_prompts(names)) if names else []


class Panel:
    """The inputs of one visitor. Their values may be read from any thread."""

    def __init__(self, gui: Any, handlers: Handlers, searchable: bool, threshold: float) -> None:
        """Adds the inputs.

        Args:
            gui: of a viser client.
            handlers: see there.
            searchable: the map can be searched by text.
            threshold: calibrated relevancy from which things are labelled.
        """
        self._handlers = handlers
        self._on_text = ""
        if searchable:
            self._add_search(gui, threshold)
        self._add_looks(gui, searchable)
        with gui.add_folder("Keyframe", visible=False) as self._keyframe_folder:
            self._keyframe = gui.add_image(np.zeros((2, 2, 3), np.uint8), label=None, jpeg_quality=85)
        self._add_tools(gui, searchable)
        self._searchable = searchable

    def _add_search(self, gui: Any, threshold: float) -> None:
        self._text = gui.add_text("Find", "", hint=_HINT)
        self._answer = gui.add_html(_INVITATION)
        self._objects = gui.add_dropdown("Fly to", (NOWHERE,), visible=False)
        self._usual_threshold = round(threshold, 2)
        self._threshold = gui.add_slider(
            "Threshold",
            0.0,
            1.0,
            0.01,
            self._usual_threshold,
            hint="Relevancy from which things are labelled",
        )
        _on_update(self._text, self._typed)
        _on_update(self._threshold, lambda: self._handlers.ask(0.1))
        _on_update(self._objects, self._choose)

    def _add_looks(self, gui: Any, searchable: bool) -> None:
        modes = MODES if searchable else MODES[:3]
        self._mode = gui.add_dropdown("Show", modes)
        self._opacity = gui.add_slider("Opacity", 0.05, 1.0, 0.05, 1.0)
        self._boxes = gui.add_checkbox("Boxes", True, visible=searchable)
        self._keyframes = gui.add_checkbox("Keyframes", True, hint="Click one to stand there")
        for handle in (self._mode, self._opacity, self._boxes, self._keyframes):
            _on_update(handle, self._handlers.look)

    def _add_tools(self, gui: Any, searchable: bool) -> None:
        self._measure = gui.add_checkbox("Measure", False, hint="Click two points")
        self._distance = gui.add_html("", visible=False)
        _on_update(self._measure, lambda: self._handlers.measure(self._measure.value))
        with gui.add_folder("Save", expand_by_default=False):
            for text, kind in (("Picture", "picture"), ("Answer", "answer"), ("Camera path", "path")):
                if kind == "answer" and not searchable:
                    continue
                if kind == "path":
                    self._views = gui.add_button("Add view to path (0)")
                    _on_click(self._views, self._handlers.keep_view)
                _on_click(gui.add_button(text), lambda kind=kind: self._handlers.save(kind))

    @property
    def names(self) -> list[str]:
        """The names to find. Raises UserError if they cannot be used."""
        return parse_names(self._text.value) if self._searchable else []

    @property
    def threshold(self) -> float | None:
        """Relevancy from which things are labelled; None as long as the visitor has not moved the slider."""
        value = float(self._threshold.value)
        return None if value == self._usual_threshold else value

    def set_usual_threshold(self, threshold: float) -> None:
        """Takes another calibrated relevancy, and shows it unless the visitor has moved the slider."""
        if not self._searchable:
            return
        moved = self.threshold is not None
        self._usual_threshold = round(threshold, 2)
        if not moved:
            self._threshold.value = self._usual_threshold

    @property
    def mode(self) -> str:
        """One of `MODES`."""
        return self._mode.value

    @property
    def opacity(self) -> float:
        """Factor of all opacities, 0..1."""
        return float(self._opacity.value)

    @property
    def shows_boxes(self) -> bool:
        """Whether boxes and names are shown."""
        return bool(self._boxes.value)

    @property
    def shows_keyframes(self) -> bool:
        """Whether the frustums of the keyframes are shown."""
        return bool(self._keyframes.value)

    def show_answer(self, result: QueryResult | None) -> None:
        """Shows what was found, and offers the objects to fly to; None clears both."""
        if not self._searchable:
            return
        self._answer.content = answer_table(result) if result is not None else _INVITATION
        options = (NOWHERE, *(object_names(result.objects) if result is not None else ()))
        if options != tuple(self._objects.options):  # a growing map repeats its answer
            self._objects.options, self._objects.value = options, NOWHERE
            self._objects.visible = len(options) > 1

    def show_problem(self, text: str) -> None:
        """Shows why the answer is missing."""
        if self._searchable:
            self._answer.content = _note(html.escape(text))

    def show_keyframe(self, picture: np.ndarray) -> None:
        """Shows a picture [H, W, 3] uint8 of the keyframe that was clicked."""
        self._keyframe.image = picture
        self._keyframe_folder.visible = True

    def show_distance(self, text: str) -> None:
        """Shows what was measured; an empty text hides it."""
        self._distance.content = _note(html.escape(text))
        self._distance.visible = bool(text)

    def count_views(self, count: int) -> None:
        """Shows how many views the camera path has."""
        self._views.label = f"Add view to path ({count})"

    def _typed(self) -> None:
        """Asks when the visitor stops typing, unless the text did not change."""
        text = self._text.value
        if len(text) > MAX_TEXT:
            self._text.value = text = ""
            self.show_problem(f"the text was longer than {MAX_TEXT} characters: name fewer things")
        if text != self._on_text:
            self._on_text = text
            self._handlers.ask(TYPING_PAUSE)

    def _choose(self) -> None:
        options = list(self._objects.options)
        if self._objects.value in options[1:]:
            self._handlers.fly(options.index(self._objects.value) - 1)


def object_names(objects: list[SemanticObject]) -> list[str]:
    """A name for each object, with its number."""
    return [f"{item.instance}. {item.prompt} ({item.score:.2f})" for item in objects]


def answer_table(result: QueryResult) -> str:
    """The answer as HTML: colour, name, verdict, probability and number of objects for each prompt."""
    colors = pictures.label_colors(len(result.prompts))
    rows = []
    for p, prompt in enumerate(result.prompts):
        red, green, blue = colors[p + 1] if result.found[p] else colors[0]
        count = sum(item.label == p + 1 for item in result.objects)
        cells = (
            f'<span style="{_SWATCH}rgb({red},{green},{blue})"></span>{html.escape(prompt)}',
            _VERDICTS[result.verdicts[p]],
            f"{result.presence[p]:.2f}",
            f"{count} &times;" if count else "",
        )
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return f'<div style="padding:0 0.75em"><table style="{_TABLE}">{"".join(rows)}</table></div>'


def _note(text: str) -> str:
    return f'<div style="padding:0 0.75em;font-size:0.85em;opacity:0.8">{text}</div>'


_INVITATION = _note("Type what to find, for example <i>red mug, sofa</i>")


def _on_update(handle: Any, call: Callable[[], None]) -> None:
    """Calls back when the visitor changes an input, not when the viewer itself does.

    It does so on the event loop: a thread for each of a stranger's messages could be exhausted.
    """

    async def react(event: Any) -> None:
        if event.client is not None:
            call()

    handle.on_update(react)


def _on_click(handle: Any, call: Callable[[], None]) -> None:
    async def react(_: Any) -> None:
        call()

    handle.on_click(react)
