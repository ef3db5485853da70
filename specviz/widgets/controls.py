"""Controls on the page: ipywidgets' own, drawn from the specification."""

from __future__ import annotations

from typing import Any

import ipywidgets as ipw

from specviz.widgets.column import Column
from specviz.widgets.specification import Choice, Control, Slider


class GridSlider(ipw.IntSlider):
    """A slider in real units: `GridSlider(name, low, high, step, value, unit="", open_ended=False)`, as `Slider` says.

    It is an IntSlider whose ticks are mapped here, because a FloatSlider writes rounded values back while
    it is being dragged (ipywidgets issue 3951). `real` is the value in real units; setting it to a number
    between two ticks keeps that number and moves the handle to the nearest tick.
    """

    def __init__(self, *described: Any, **more: Any) -> None:
        self._slider = slider = Slider(*described, **more)
        tick = slider.tick(slider.value)
        self._between = None if slider.real(tick) == slider.value else slider.value  # a number between two ticks
        width, name_width, text_width = slider.widths
        super().__init__(
            min=0,
            max=max(slider.last, 1),  # a slider with one place only is no slider in the browser
            value=tick,
            description=slider.name,
            readout=False,
            continuous_update=not slider.at_rest,
            layout=ipw.Layout(width=f"{width}px"),
            style={"description_width": f"{name_width}px"},
        )
        self._class = f"specviz-handle-{self.model_id}"
        self.add_class(self._class)
        self.text = ipw.Label(self._text(), layout=ipw.Layout(width=f"{text_width}px"))
        self.observe(self._moved, "value")

    # These are of the slider as it is now: its range may depend on other controls.
    name = property(lambda self: self._slider.name)
    low = property(lambda self: self._slider.low)
    high = property(lambda self: self._slider.high)
    values = property(lambda self: self._slider.values)
    unit = property(lambda self: self._slider.unit)
    open_ended = property(lambda self: self._slider.open_ended)

    def _moved(self, change: Any) -> None:
        if self._between is not None and self._slider.tick(self._between) != change["new"]:
            self._between = None
        self.text.value = self._text()

    def _text(self) -> str:
        return f"{self.real:g} {self._slider.unit}".strip()

    @property
    def real(self) -> float:
        return self._slider.real(self.value) if self._between is None else self._between

    @real.setter
    def real(self, value: Any) -> None:
        number = self.check(value)
        tick = self._slider.tick(number)
        self._between = None if self._slider.real(tick) == number else number
        self.value = tick
        self.text.value = self._text()

    def check(self, value: Any) -> float:
        """A number, or an array or tensor of one, as a float; ValueError unless it is a number in the range."""
        return self._slider.check(self._slider.name, value)

    def fit(self, slider: Slider) -> None:
        """Take another range or name; the caller sets the value next."""
        self._slider, self.description = slider, slider.name
        self.max = max(slider.last, 1)

    def accessible(self) -> dict[str, str]:
        """What a screen reader says at the handle."""
        return {"selector": f".{self._class} .noUi-handle", "name": self.name, "text": self._text()}


def widget_of(control: Control) -> Any:
    """A control's widget."""
    if isinstance(control, Slider):
        return GridSlider(**vars(control))
    if control.look == "tick":
        return ipw.Checkbox(description=control.name, indent=False)
    if control.look == "column":
        return Column(control.name, control.options, control.measure)
    if control.look == "list":
        style = {"description_width": control.name_style["width"]} if control.name_style else {}
        layout = ipw.Layout(width=f"{control.width}px") if control.width else ipw.Layout()
        return ipw.Dropdown(options=control.options, description=control.name, style=style, layout=layout)
    buttons = ipw.ToggleButtons(
        options=control.options, style={"button_width": f"{control.width}px"}, tooltips=control.tooltips
    )
    buttons.add_class(f"specviz-choice-{buttons.model_id}")
    return buttons


def row_of(widget: Any, control: Control) -> Any:
    """A control's widget with what stands beside it: a slider's value, or the name of a group of buttons."""
    if isinstance(widget, GridSlider):
        return ipw.HBox([widget, widget.text])
    if isinstance(widget, ipw.ToggleButtons):
        assert isinstance(control, Choice)
        return ipw.HBox([ipw.Label(control.name, layout=ipw.Layout(**control.name_style)), widget])
    return widget


def value_of(widget: Any) -> Any:
    """A control's value, in real units."""
    return widget.real if isinstance(widget, GridSlider) else widget.value


def move(widget: Any, control: Control, value: Any, enabled: bool) -> None:
    """Give a widget its control's state and a value. Properties that did not change stay as the reader set them."""
    if isinstance(control, Slider):
        if widget._slider != control:
            widget.fit(control)
        widget.real = value
        enabled = enabled and control.last > 0
        options: tuple[Any, ...] = ()
    else:
        options = () if control.look == "tick" else control.options
        if options != _last(widget)[0] and tuple(widget.options) != options:
            widget.options = options
        widget.value = value
    if enabled != _last(widget)[1]:
        widget.disabled = not enabled
    widget._specviz_last = options, enabled


def _last(widget: Any) -> tuple[tuple[Any, ...], bool]:
    """The options, and whether the widget could be moved, as an explorer last set them; a new widget can be."""
    last: tuple[tuple[Any, ...], bool] = getattr(widget, "_specviz_last", ((), True))
    return last


def accessible(widget: Any, control: Control) -> dict[str, str] | None:
    """A control's place on the page and its name for screen readers, if ipywidgets does not give it one."""
    if isinstance(widget, GridSlider):
        return widget.accessible()
    if isinstance(widget, ipw.ToggleButtons):
        return {"selector": f".{widget._dom_classes[0]}", "name": control.name}  # a closed one has no id any more
    return None
