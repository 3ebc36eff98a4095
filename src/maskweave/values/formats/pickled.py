"""Files of pickled objects. They are never read, because loading one runs the code in it; a message says how to convert them."""

PICKLED = ("pt", "pth", "pkl", "pickle")


def conversion(name: str, ending: str) -> str:
    """Returns what to do about a file of one of these endings; empty for other files.

    Args:
        name: the file's path without its ending.
    """
    if ending not in PICKLED:
        return ""
    load = (
        f"import torch, numpy; d = torch.load('{name}.{ending}', weights_only=True, map_location='cpu')"
        if ending in ("pt", "pth")
        else f"import pickle, numpy; d = pickle.load(open('{name}.{ending}', 'rb'))"
    )
    numbers = "numpy.asarray(v)"
    return (
        "this is a pickle, which can run code when it is loaded, so it is never read; if you trust it, convert it with one line of Python: "
        f"{load}; numpy.savez('{name}.npz', **{{k: {numbers} for k, v in (d.items() if isinstance(d, dict) else zip(('x', 'y'), d))}})"
    )
