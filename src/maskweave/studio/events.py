"""Events of the page: none of them is an endpoint of an API, and their errors are short messages without a traceback."""

import html
import sys
import traceback
from collections.abc import Callable
from typing import Any

from maskweave.errors import MaskweaveError
from maskweave.studio.showing import error_html

INTERNAL = "an internal error; the terminal of the studio says more"
MODEL: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1}
"""Of events that run a model: one at a time, so that none is slowed down by others."""
HIDDEN: dict[str, Any] = {"show_progress": "hidden"}
"""Of events that take no time."""


def told(error: Exception) -> str:
    """Returns the HTML of an error; one that the user cannot fix is printed to the terminal and not shown."""
    if isinstance(error, MaskweaveError):
        return error_html(error)
    traceback.print_exception(error, file=sys.stderr)
    return error_html(RuntimeError(INTERNAL))


def on(
    event: Callable[..., Any], function: Callable[..., Any], inputs: Any = None, outputs: Any = None, **options: Any
) -> Any:
    """Connects an event; it is no endpoint of an API."""
    return event(function, inputs, outputs, api_visibility="private", **options)


def page_load() -> Any:
    """Returns the event of a page that is opened."""
    from gradio.context import Context

    return Context.root_block.load  # type: ignore[union-attr]


def guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    """Makes errors of an event a short message in the page."""
    import gradio as gr

    def call(*values: Any) -> Any:
        try:
            return function(*values)
        except MaskweaveError as error:
            raise gr.Error(html.escape(str(error)), print_exception=False) from error
        except Exception as error:
            traceback.print_exception(error, file=sys.stderr)
            raise gr.Error(INTERNAL, print_exception=False) from error

    return call
