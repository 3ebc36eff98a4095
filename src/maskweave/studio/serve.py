"""Serves the page on this machine, with the web server's own limits."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from maskweave.errors import MaskweaveError
from maskweave.studio.bounds import Bounds
from maskweave.studio.offered import Offered
from maskweave.studio.widgets import head, style

LOOPBACK = "127.0.0.1"
SESSIONS = 64
"""Windows whose work is kept in memory."""
THREADS = 8


def serve(
    offered: Offered, bounds: Bounds, *, port: int | None = None, opens: bool = False, blocks: bool = True
) -> Any:
    """Starts the web server on the loopback interface, and waits until it is stopped.

    Args:
        port: a free one from 7860 on by default.
        opens: open the page in the browser.
        blocks: wait; otherwise return the running page, which has `local_url` and `close()`.

    Raises:
        MaskweaveError: Gradio is not installed, or the port is taken.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from maskweave.studio.page import build_page, quiet

    scratch = Path(tempfile.mkdtemp(prefix="maskweave-studio-"))  # only this user can read it
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    os.environ["GRADIO_TEMP_DIR"] = str(scratch)
    page = build_page(offered, bounds, scratch)
    import gradio as gr

    quiet()
    fonts = ["system-ui", "sans-serif"]
    try:
        page.launch(
            server_name=LOOPBACK,
            server_port=port,
            inbrowser=opens,
            share=False,
            quiet=True,
            show_error=False,
            prevent_thread_lock=True,
            max_file_size=bounds.upload_mb * 2**20,
            max_threads=THREADS,
            state_session_capacity=SESSIONS,
            allowed_paths=[],
            footer_links=[],
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            enable_monitoring=False,
            theme=gr.themes.Default(font=fonts, font_mono=["ui-monospace", "monospace"]),
            css=style(),
            head=head(),
        )
    except OSError as error:
        raise MaskweaveError(f"the page cannot be served: {error}; choose another --port") from error
    if blocks:
        print(f"The studio runs at {page.local_url} (this machine only). Stop it with Ctrl-C.", flush=True)
        page.block_thread()
    return page
