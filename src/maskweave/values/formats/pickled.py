"""Files of pickled objects. They are never read, because loading one runs the code in it; a message says how to convert them."""

TORCH, OTHERS = ("pt", "pth"), ("pkl", "pickle")


def conversion(name: str, ending: str) -> str:
    """Returns what to do about a file of one of these endings; empty for other files.

    Args:
        name: the file's path without its ending.
    """
    if ending not in (*TORCH, *OTHERS):
        return ""
    refused = "this is a pickle, which can run code when it is loaded, so it is never read; "
    if ending in OTHERS:
        return (
            f"{refused}if you trust it, load it in Python and save its arrays with numpy.savez('{name}.npz', x=…, y=…)"
        )
    return (
        f"{refused}convert it with one line of Python: "
        f"from torch import load; import numpy; d = load('{name}.{ending}', weights_only=True, map_location='cpu'); "
        f"numpy.savez('{name}.npz', **{{k: numpy.asarray(v) for k, v in (d.items() if isinstance(d, dict) else zip(('x', 'y'), d))}})"
    )
