# %% [markdown]
# # Your own modality
#
# A modality is one entry of a catalog. This notebook adds three that maskweave does not ship (a curve, a class and a number), writes files for them, and trains a
# model that predicts any of them from the others.

# %% [markdown]
# ## Files
#
# Aligned folders: `FOLDER/MODALITY/NAME.EXT`. The files of one sample have the same name. Some samples lack their curve, as real ones do.

# %%
import json
from pathlib import Path

import numpy as np

rng = np.random.default_rng(0)
shapes = {
    "sine": np.sin,
    "square": lambda x: np.sign(np.sin(x)),
    "triangle": lambda x: 2 / np.pi * np.arcsin(np.sin(x)),
}
for folder in ("signal", "shape", "frequency"):
    Path("curves", folder).mkdir(parents=True, exist_ok=True)
for i in range(300):
    shape, frequency = rng.choice([*shapes]), rng.uniform(1, 4)
    x = 2 * np.pi * frequency * np.linspace(0, 1, 128) + rng.uniform(-0.3, 0.3)
    if i % 10:
        np.save(f"curves/signal/{i:03}.npy", (shapes[shape](x) + rng.normal(0, 0.05, 128)).astype(np.float32))
    Path(f"curves/shape/{i:03}.txt").write_text(shape)
    Path(f"curves/frequency/{i:03}.json").write_text(json.dumps(frequency))

# %% [markdown]
# ## Entries
#
# `id` is stable and unique; `kind` says how tokens behave; `value` says what a value is outside of the model. Tokenizer, masking, embeddings, head, figures and
# scores follow from these. `maskweave init curves/` writes such a catalog by looking at the files.

# %%
import maskweave

Path("curves.yaml").write_text("""\
modalities:
  signal:
    id: 1
    kind: grid
    grid: [16]                       # 16 tokens of 8 points
    value: {type: map, size: [128], range: [-1.5, 1.5], unit: V, outside: clip}
    tokenizer: {width: 48, quantizer: {type: fsq, levels: [7, 5, 5]}}
    decoding: {scheme: roar, steps: 2, temperature: 0.5}
  shape:
    id: 2
    kind: grid
    value: {type: label, classes: [sine, square, triangle]}
  frequency:
    id: 3
    kind: grid
    value: {type: scalar, range: [0, 5], unit: Hz, bins: 32}
""")
{name: entry.tokens for name, entry in maskweave.load_catalog("curves.yaml").items()}

# %% [markdown]
# ## Import
#
# `main([...])` runs a command of `maskweave` from Python. The import checks every file once and counts what is missing.

# %%
from maskweave.cli.main import main

assert main(["data", "import", "curves", "shards", "--catalog", "curves.yaml"]) == 0

# %% [markdown]
# ## Training

# %%
Path("recipe.yaml").write_text("""\
catalog: curves.yaml
data: {source: shards, validation: 50}
tokenizers: {samples: 0, train: {steps: 80, batch_size: 32, learning_rate: 3.0e-3}}
model:
  width: 64
  heads: 2
  encoder_depth: 1
  decoder_depth: 1
  init_from_tokenizers: true
  masking:
    input_tokens: 18
    target_tokens: 18
    mixtures:
      - {weight: 1, inputs: {default: 1}, targets: {default: 1}}                       # any from any
      - {weight: 2, inputs: {signal: 1}, targets: {shape: 1, frequency: 1}}            # what the curve tells
train: {steps: 200, batch_size: 16, learning_rate: 3.0e-3}
evaluate:
  samples: 32
  requests:
    - {inputs: [signal], targets: [shape, frequency]}
""")
assert main(["run", "recipe.yaml", "--out", "run"]) == 0

# %% [markdown]
# The table compares each score with that of the best constant prediction. `run/report.html` shows curves, codebooks and examples.

# %%
bundle = maskweave.load("run")
signal = np.sin(2 * np.pi * 2.5 * np.linspace(0, 1, 128)).astype(np.float32)
out = bundle.generate({"signal": signal}, ["shape", "frequency"], seed=0)
frequency = out.distribution("frequency")
print(out["shape"], f"{frequency.mean:.2f} Hz, 90% interval", np.round(frequency.interval(0.9), 2))
out.sheet()

# %% [markdown]
# The model also draws a curve from a class and a number:

# %%
bundle.generate({"shape": "square", "frequency": 2.0}, ["signal"], seed=0).sheet()
