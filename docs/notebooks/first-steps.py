# %% [markdown]
# # First steps
#
# What a trained model does, and then a run from start to end: data, tokenizers, a model, predictions.

# %% [markdown]
# ## A trained model
#
# A small model of generated scenes ships with the package: `scenes` are colored shapes, ray-cast, with exact depth, normals, classes, boxes and captions.

# %%
import maskweave
from maskweave.synthetic.scenes import Scenes

trained = maskweave.load("scenes")
scene = Scenes(trained.catalog, 1, seed=3)[0]
out = trained.generate({"rgb": scene["rgb"]}, targets=["depth", "semseg", "caption"], seed=0)
out

# %%
out.sheet()

# %% [markdown]
# ## Data
#
# Now a model of our own. A catalog lists the modalities.

# %%
catalog = maskweave.load_catalog("scenes").subset(["rgb", "tok_rgb", "depth", "caption"])
for name, entry in catalog.items():
    print(f"{name:8} {entry.kind:9} {entry.value.type:6} {entry.tokens} tokens")

# %%
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
# The folder of a run is a bundle, too: model, tokenizers and entries. Any subset of the modalities may be given, and any others asked for.
# This model was trained for seconds, so that the notebook runs anywhere: its predictions are blurs. `make demo` trains a useful one in minutes.

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
