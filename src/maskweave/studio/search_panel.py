"""Search in an index with the inputs of the form as the query."""

from collections.abc import Sequence
from typing import Any

from maskweave.errors import MaskweaveError
from maskweave.retrieve.index import Index
from maskweave.retrieve.sheet import sheet_of
from maskweave.retrieve.sources import reopen_indexed
from maskweave.studio.desk import Desk, Field, read_inputs
from maskweave.studio.events import MODEL, on
from maskweave.studio.showing import png_tag

MOST_RESULTS = 50


def search(index: Index, inputs: dict[str, Any], view: str, count: float | None) -> str:
    """Returns the HTML of a query's results.

    Args:
        view: as written into the field.
        count: number of results; None: the field is empty.

    Raises:
        MaskweaveError: an input that the index's bundle lacks, or as `Index.query`.
    """
    view = view.strip()
    if count is None or not 1 <= count <= MOST_RESULTS:
        raise MaskweaveError(f"results: found {'nothing' if count is None else count}; expected 1 to {MOST_RESULTS}")
    for name in inputs:
        index.bundle.catalog[name]
    hits = index.query(inputs, view=view, k=int(count))
    source = reopen_indexed(index.facts, index.bundle.catalog)
    sheet = sheet_of(index.bundle.read(inputs), hits, source, index.bundle.catalog, view or index.views[0])
    words = ", ".join(f"{hit.key} ({hit.score:.3f})" for hit in hits)
    return f'<div class="mw-card">{png_tag(sheet, f"results: {words}")}</div>'


class SearchPanel:
    """The components of the search, which get the form's fields when the form is drawn."""

    def __init__(self, page: Any):
        import gradio as gr

        self.page = page
        names = [*page.offered.indexes]
        with gr.Accordion("Search an index with these inputs", open=False):
            with gr.Row():
                self.index = gr.Dropdown(names, value=names[0], label="Index")
                self.view = gr.Textbox(label="View (empty: the first)", min_width=120)
                self.count = gr.Number(10, label="Results", precision=0, minimum=1, maximum=MOST_RESULTS, min_width=90)
            self.button = gr.Button("Search")
            self.found = gr.HTML(elem_id="found")

    def connect(self, places: Sequence[Field], components: Sequence[Any], desk: Any) -> None:
        """Connects the button to the fields of the form."""

        def work(name: str, view: str, count: float | None, state: Desk, *payloads: Any) -> str:
            def look() -> str:
                catalog = self.page.offered.bundle(state.bundle).catalog
                index, inputs = self.page.offered.index(name), read_inputs(state, catalog, places, payloads)
                with self.page.bounds.timed():
                    return search(index, inputs, view, count)

            found: str = self.page.said(look, lambda words: words)
            return found

        on(self.button.click, work, [self.index, self.view, self.count, desk, *components], [self.found], **MODEL)


def search_panel(page: Any) -> SearchPanel:
    """Draws the search."""
    return SearchPanel(page)
