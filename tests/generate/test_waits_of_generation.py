"""Generation on a GPU: the host does not wait in every step, as far as a CPU can tell."""

from typing import Any

import pytest
import torch
from small_model import CATALOG, generate, make_model
from torch.utils._python_dispatch import TorchDispatchMode

from maskweave.generate.engine import Engine
from maskweave.generate.recording import recorder
from maskweave.generate.schedule import Schedule, make_schedule
from maskweave.modality.decoding import Decoding


def schedule(target: str, guidance: dict[str, Any], **how: Any) -> Schedule:
    decoding = {target: Decoding(top_k=9, **how)}
    return make_schedule(CATALOG, ["photo", "feature"], [target], decoding=decoding, **guidance)


class Waits(TorchDispatchMode):
    """Counts what a GPU would have to finish first: copies to the host, and operators whose result the host needs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.count, copied = 0, torch.Tensor.cpu

        def cpu(tensor: torch.Tensor) -> torch.Tensor:
            self.count += 1
            return copied(tensor)

        monkeypatch.setattr(torch.Tensor, "cpu", cpu)

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = operator.overloadpacket.__name__
        masks = name in ("index", "index_put", "index_put_") and any(
            t.dtype == torch.bool for t in args[1] if t is not None
        )
        self.count += masks or name in ("_local_scalar_dense", "nonzero", "masked_select")
        return operator(*args, **(kwargs or {}))


@pytest.mark.parametrize("scheme", ["roar", "halton", "maskgit"])
@pytest.mark.parametrize("guided", [False, True])
def test_steps_of_a_grid_do_not_wait(scheme, guided, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the finished ids are copied to the host; MaskGIT also looks at the confidences of each step."""
    other, waits = Engine(make_model(), CATALOG), Waits(monkeypatch)
    other.keeps_ids = True
    monkeypatch.setattr("maskweave.generate.engine.FEW", 1000)  # all rows in one batch
    steps = schedule("codes", {"conditions": {"photo": 2.0}} if guided else {}, scheme=scheme, steps=8)
    with waits:
        generate(other, steps, list(range(9)), list(range(9)))
    assert waits.count == (1 + 8 if scheme == "maskgit" else 1)


@pytest.mark.parametrize("ahead", [1, 4])
def test_tokens_of_a_sequence_wait_together(ahead, monkeypatch: pytest.MonkeyPatch) -> None:
    other, waits = Engine(make_model(ending=0.0), CATALOG), Waits(monkeypatch)
    other.ahead, looks = ahead, []
    listed = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor: looks.append(1) or listed(tensor))
    with waits:
        made = generate(other, schedule("caption", {}), list(range(9)), list(range(9)))
    longest = int(made["caption"].mask.sum(1).max())
    assert longest >= 8 and waits.count == 0 and len(looks) <= longest // ahead + 2


def test_what_is_recorded() -> None:
    gpu, cpu = torch.device("cuda", 1), torch.device("cpu")
    assert recorder(cpu, 100) is recorder(gpu, 31) is None and recorder(gpu, 32) is not None
