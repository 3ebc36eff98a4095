"""Everything that only a GPU can show, in under nine minutes. python benchmarks/gpu.py [--out gpu.json] [SECTION ...]

Needs an H100, an H200 or another GPU, torch 2.11 to 2.14 (2.13 or newer for FSDP), and numpy, pillow, pyyaml, safetensors and tokenizers; no data and no network. On a machine on
which maskweave is not installed, set PYTHONPATH=src. Each section runs in a process of its own with a limit of time, so that a section that fails or
hangs does not cost the others. Results are written after each section; at the end one table is printed.

- equality: losses, gradients, steps and tokens against the CPU, within bounds; whether a training step waits for the GPU
- train-Ti, train-B, train-L, train-XL: 4M-21, 256 + 256 tokens, bf16: plain, compiled, activations checkpointed, one process of FSDP, Muon, CUDA graphs.
  Tokens per second without padding, and the share of the GPU's peak, for which padding counts
- generation: captions, ROAR and MaskGIT for 1, 8 and 64 pictures
- resume: a training that is killed, and resumed
- tokenizing: pictures through ViT-B;  noise: on the device and on the host;  attention: kernels for the decoder's masks

`--quick --device cpu` runs all of it with tiny models on a CPU, to test this script. docs/results.md has what an H200 showed. Run no other jobs beside it: the
reference on the CPU, and the start of each process, then take longer than a section may.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

BUDGETS = {
    "resume": 80, "equality": 100, "train-B": 80, "train-L": 70, "generation": 60, "train-XL": 70, "tokenizing": 30, "train-Ti": 50,
    "noise": 20, "attention": 45,
}  # fmt: skip
"""Most seconds of each section, in the order in which they run."""
TOTAL = 530
"""Seconds after which no section is started, and the running one is ended."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", help=f"of {', '.join(BUDGETS)}; default: all")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--quick", action="store_true", help="tiny models and few repetitions")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--seconds", type=float, default=TOTAL, help="limit of everything together; on a CPU, set more")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)  # the file for rows of a section's own process
    asked = parser.parse_args(arguments)
    if unknown := set(asked.sections) - {*BUDGETS}:
        parser.error(f"unknown sections: {', '.join(sorted(unknown))}; expected some of {', '.join(BUDGETS)}")
    if asked.child is not None:
        return run_section(asked)
    began, found = time.monotonic(), {"machine": machine(asked.device), "rows": []}
    for name in asked.sections or BUDGETS:
        left = asked.seconds - (time.monotonic() - began)
        budget = min(BUDGETS[name] * (1 if asked.device == "cuda" else 10), left)
        print(f"{name} …", flush=True)
        rows = in_process(name, budget, asked) if budget > 5 else [{"case": "not run", "error": "no time was left"}]
        found["rows"] += [{"section": name, **row} for row in rows]
        asked.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"\n{json.dumps(found['machine'])}, {time.monotonic() - began:.0f} s\n{table(found['rows'])}")
    return int(any("error" in row or row.get("ok") is False for row in found["rows"]))


def machine(device: str) -> dict[str, Any]:
    import torch

    facts: dict[str, Any] = {"torch": torch.__version__, "device": device, "when": time.strftime("%Y-%m-%d %H:%M")}
    if device == "cuda" and torch.cuda.is_available():
        facts |= {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
        facts["memory_gib"] = round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1)
    return facts


def in_process(name: str, budget: float, asked: argparse.Namespace) -> list[dict[str, Any]]:
    """Runs a section in its own process and returns its rows, also those before a failure."""
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows"
        command = [sys.executable, __file__, name, "--device", asked.device, "--child", str(rows)]
        command += ["--seconds", str(budget), *(["--quick"] if asked.quick else [])]
        began, error = time.monotonic(), ""
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            output, _ = process.communicate(timeout=budget)
            if process.returncode:
                error = (output.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
            error = f"ended after {budget:.0f} s"
        if error:
            print("\n".join(output.splitlines()[-15:]), flush=True)
        found = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()] if rows.exists() else []
        whole: dict[str, Any] = {"case": "section", "seconds": round(time.monotonic() - began, 1)}
        return [*found, whole | ({"error": error} if error else {})]


def run_section(asked: argparse.Namespace) -> int:
    """Body of a section's process."""
    from gpu_parts.bench import Bench
    from gpu_parts.sections import SECTIONS

    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    (name,) = asked.sections
    try:
        SECTIONS[name](Bench(asked.device, asked.quick, asked.child, asked.seconds, name))
    except Exception:
        traceback.print_exc()
        return 1
    return 0


def table(rows: list[dict[str, Any]]) -> str:
    """Returns the rows as text: section, case, and all numbers."""
    lines = []
    for row in rows:
        numbers = {key: value for key, value in row.items() if key not in ("section", "case")}
        lines.append(
            [row["section"], row["case"], ", ".join(f"{key} {shown(value)}" for key, value in numbers.items())]
        )
    widths = [max((len(line[i]) for line in lines), default=0) for i in range(2)]
    return "\n".join(f"{a:{widths[0]}}  {b:{widths[1]}}  {c}".rstrip() for a, b, c in lines)


def shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
