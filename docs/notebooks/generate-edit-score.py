# %% [markdown]
# # Generate, edit and score
#
# What a trained bundle can do, on a tiny model that is trained here for seconds. With a model of your own, only the first cell changes: `maskweave.load("runs/mine")`.

# %%
from pathlib import Path

import maskweave
from maskweave.synthetic.scenes import Scenes
from maskweave.training.pipeline import run_recipe

Path("recipe.yaml").write_text("""\
catalog: scenes
modalities: [rgb, tok_rgb, depth, caption]
data: {source: scenes, samples: 64, validation: 8}
tokenizers: {samples: 48, train: {steps: 20, batch_size: 16, learning_rate: 3.0e-3}}
model:
  {width: 64, heads: 2, encoder_depth: 1, decoder_depth: 1,
   masking: {input_tokens: 48, target_tokens: 48}}
train: {steps: 30, batch_size: 16, learning_rate: 3.0e-3}
""")
run_recipe(maskweave.load_recipe("recipe.yaml"), Path("run"), "maskweave run recipe.yaml --out run")
bundle = maskweave.load("run")
scene = Scenes(bundle.catalog, 1, seed=5)[0]

# %% [markdown]
# ## A schedule is data
#
# A request becomes a list of steps: print it, save it, change it, use it again.

# %%
schedule = bundle.schedule(["rgb"], ["depth"])
print(schedule)

# %%
from maskweave.modality.decoding import Decoding

slow = Decoding("maskgit", steps=4, temperature=1.0, top_p=0.9)
out = bundle.generate({"rgb": scene["rgb"]}, ["depth"], decoding={"depth": slow}, seed=0)
len(out.schedule.steps), out["depth"].shape

# %% [markdown]
# The same seed gives the same result, regardless of the batch it is in.

# %%
batch = bundle.generate_batch(
    [{"caption": scene["caption"]}, {"rgb": scene["rgb"]}], ["depth"], decoding={"depth": slow}, seeds=[9, 0]
)
(batch[1]["depth"] == out["depth"]).all()

# %% [markdown]
# ## Edit
#
# `edit` maps a target that is also an input to the region to regenerate: a box, a mask, a share of the tokens, or words of a text. All other tokens are kept.

# %%
edited = bundle.generate(
    {"tok_rgb": scene["rgb"], "caption": "1 object: a large red cube."},
    ["tok_rgb"],
    edit={"tok_rgb": [0.25, 0.25, 0.75, 0.75]},
    seed=0,
)
edited.sheet()

# %% [markdown]
# ## Ensembles
#
# The mean of several predictions has a lower error than each of them.

# %%
bundle.ensemble({"rgb": scene["rgb"]}, ["depth"], samples=4, seed=0)["depth"].shape

# %% [markdown]
# ## Score
#
# Log-likelihoods say how well a value fits the inputs. Here, two captions of one picture.

# %%
for caption in (scene["caption"], "3 objects: a small blue cube, a large red cone and a green sphere."):
    score = bundle.score({"rgb": scene["rgb"]}, {"caption": caption})["caption"]
    print(f"{score.total / len(score.tokens):6.2f} nats per token: {caption}")

# %% [markdown]
# ## Step by step
#
# Stop whenever you like; partial results decode at any time.

# %%
session = bundle.start([{"rgb": scene["rgb"]}], ["depth", "caption"], decoding={"depth": slow}, seeds=[0])
for step in session:
    print(step.target, session.done, "of", session.total)
    if step.target == "caption":
        break
session.results()[0]["depth"].shape
