# %% [markdown]
# # Transfer and retrieval
#
# The encoder of a trained model gives features for probes, fine-tuning and search. The model here is tiny and trained for seconds.

# %%
from pathlib import Path

import maskweave
from maskweave.cli.main import main
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

# %% [markdown]
# ## Features
#
# Any subset of the modalities goes into the encoder.

# %%
from maskweave.synthetic.scenes import Scenes

scenes = Scenes(bundle.catalog, 16, seed=11)
samples = [{"rgb": scenes[i]["rgb"], "caption": scenes[i]["caption"]} for i in range(len(scenes))]
features = bundle.encoder(["rgb", "caption"])(samples)
features.tokens.shape, features.pooled.shape, features.feature_map("rgb").shape

# %% [markdown]
# ## Fine-tuning
#
# The value type of the target decides head, loss and scores: a map over a picture gets a head of convolutions and is scored by its errors. The head starts from
# a linear model, so 24 pictures are enough to begin. After these few steps, its
# scores are still below those of the best constant, which the advice says; with the demo's model and `recipes/transfer-scenes-semseg.yaml` they are not.

# %%
Path("depth.yaml").write_text("""\
start: run
inputs: [rgb]
target: depth
data: {source: scenes, samples: 24, validation: 8}
head: {width: 16, depth: 1}
train: {steps: 15, batch_size: 8, learning_rate: 3.0e-3}
""")
assert main(["transfer", "depth.yaml", "--out", "depth"]) == 0

# %%
from maskweave.transfer.build import load_transferred

model = load_transferred(Path("depth"))
depth = model.predict([{"rgb": samples[0]["rgb"]}])[0]
depth.shape, depth.dtype

# %% [markdown]
# ## Retrieval
#
# An index holds one vector per sample and modality. A query may use any other modality; recall is compared with chance.

# %%
assert main(["retrieve", "index", "run", "scenes", "--samples", "32", "--out", "index"]) == 0

# %%
assert main(["retrieve", "evaluate", "index", "--query", "depth"]) == 0

# %% [markdown]
# A model that was trained for longer finds more, such as the one that ships with the package. `align` takes samples of its training data: from these, the index
# learns which directions of the features pictures and captions have in common. Printed is how often a caption finds its own picture among ten, before and after.

# %%
from maskweave.data.opening import open_data
from maskweave.retrieve.index import Index
from maskweave.retrieve.indexing import make_index
from maskweave.retrieve.sheet import sheet_of

bundle = maskweave.load("scenes")
both = bundle.catalog.subset(["rgb", "caption"])
searched, training = open_data("scenes", both, samples=200, seed=1), open_data("scenes", both, samples=500, seed=0)
made = make_index(bundle, searched, "index-scenes", views=["rgb"], align=training)
print(*made.alignment, sep="\n")

# %%
query = bundle.read({"caption": "1 object: a large red cube."})
sheet_of(query, Index("index-scenes", bundle).query(query, k=5), searched, bundle.catalog, "rgb")
