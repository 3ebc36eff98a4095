# %% [markdown]
# # First steps
#
# A run from start to end: data, tokenizers, a model, predictions. The model is tiny and trained for seconds, so that this notebook runs anywhere;
# its predictions are blurs. `make demo` trains a useful one in minutes.

# %% [markdown]
# ## Data
#
# `scenes` are made on the spot: colored shapes, ray-cast, with exact depth, normals, classes, boxes and captions. A catalog lists the modalities.

# %%
import maskweave

catalog = maskweave.load_catalog("scenes").subset(["rgb", "tok_rgb", "depth", "caption"])
for name, entry in catalog.items():
    print(f"{name:8} {entry.kind:9} {entry.value.type:6} {entry.tokens} tokens")

# %%
from maskweave.synthetic.scenes import Scenes

scene = Scenes(catalog, 1, seed=3)[0]
print(scene["caption"])
{name: getattr(value, "shape", None) for name, value in scene.items()}

# %% [markdown]
# ## A run
#
# A recipe is a YAML file that fixes a run. `maskweave run recipe.yaml --out run` does the same as the cell after the next.

# %%
from pathlib import Path

Path("recipe.yaml").write_text("""\
catalog: scenes
modalities: [rgb, tok_rgb, depth, caption]
data: {source: scenes, samples: 64, validation: 8}
tokenizers:
  samples: 48
  train: {steps: 20, batch_size: 16, learning_rate: 3.0e-3}
model:
  {width: 64, heads: 2, encoder_depth: 1, decoder_depth: 1,
   masking: {input_tokens: 48, target_tokens: 48}}
train: {steps: 30, batch_size: 16, learning_rate: 3.0e-3}
""")
recipe = maskweave.load_recipe("recipe.yaml")
recipe.train.steps, recipe.model.family

# %%
from maskweave.training.pipeline import run_recipe

run_recipe(recipe, Path("run"), "maskweave run recipe.yaml --out run")
sorted(path.name for path in Path("run").iterdir())

# %% [markdown]
# ## Predictions
#
# The folder of a run is a bundle: model, tokenizers and entries. Any subset of the modalities may be given, and any others asked for.

# %%
bundle = maskweave.load("run")
out = bundle.generate({"rgb": scene["rgb"]}, targets=["depth", "caption"], seed=0)
out["depth"].shape, out["depth"].dtype, out["caption"]

# %%
out.sheet()

# %% [markdown]
# The other way around: a picture from words. Each finished target joins the inputs of the next one.

# %%
bundle.generate({"caption": scene["caption"]}, targets=["tok_rgb", "depth"], seed=0).sheet()
