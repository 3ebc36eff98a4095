"""Faults of which each would give wrong results without an error, in the package's own words, and the tests that must notice them.

`python tests/mutants.py --named` puts each into the code. A fault whose code is not there any more is an error of this list.
"""

from typing import NamedTuple

NOTICED = "faults/test_noticed.py"
TRAINING = "faults/test_noticed_training.py"


class NamedFault(NamedTuple):
    what: str
    module: str
    old: str
    """Text that the module has once."""
    new: str
    tests: tuple[str, ...]
    """Test files that run."""


NAMED = (
    NamedFault(
        "evaluation on training samples", "evaluate/run.py",
        'source = open_source(recipe, bundle.catalog, "validation", scenes_seed, samples)',
        'source = open_source(recipe, bundle.catalog, "train", scenes_seed, samples)',
        (NOTICED,),
    ),
    NamedFault(
        "transfer examples that include held-out ones", "transfer/data.py",
        "chosen = some_by_hash(source, parts.train, data.samples)",
        "chosen = some_by_hash(source, np.arange(len(source)), data.samples)",
        (NOTICED,),
    ),
    NamedFault(
        "a transfer's target taken before crop and flip", "transfer/data.py",
        "return sample, self.examples.answer(i, sample)",
        "return sample, self.examples.answer(i, self.examples[i])",
        (NOTICED,),
    ),
    NamedFault(
        "the engine's cache ignores raw rows", "generate/engine.py",
        "for x, y in (*pairs, *((a_rows[name], b_rows[name]) for name in a_rows)))",
        "for x, y in pairs)",
        (TRAINING,),
    ),
    NamedFault(
        "state across requests", "generate/engine.py",
        "if last is not None and _same(packed, rows, last[0], last[1]):",
        "if last is not None and packed.ids.shape == last[0].ids.shape:",
        (TRAINING, NOTICED),
    ),
    NamedFault(
        "stale FAISS files", "retrieve/indexing.py",
        'for path in folder.glob("*.faiss") if todo else ():', "for path in ():", (NOTICED,),
    ),
    NamedFault(
        "a data set that has grown", "retrieve/indexing.py",
        '            "keys": keys_of(source),\n            "samples": len(source),\n', "", (NOTICED,),
    ),
    NamedFault("fsync dropped", "system.py", "            os.fsync(file.fileno())\n        return", "            pass\n        return", ("test_files.py",)),
    NamedFault("fsync of the folder dropped", "files.py", "            os.fsync(handle)\n", "            pass\n", ("test_files.py",)),
    NamedFault(
        "the old folder removed before the new one is in place", "files.py",
        "            system.rename(target, old)\n", "            system.rename(target, old)\n            remove(old)\n", ("test_files.py",),
    ),
    NamedFault(
        "a living writer's partial file swept", "files.py",
        "        if not has_ended:\n            continue\n", "", ("test_locks.py",),
    ),
    NamedFault(
        "CC12M's mean and deviation replaced by ImageNet's", "interop/m3ae.py",
        "MEAN, STD = (0.5762, 0.5503, 0.5213), (0.3207, 0.3169, 0.3307)",
        "MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)",
        (NOTICED,),
    ),
    NamedFault(
        "a codebook wiped by the first training step", "tokenizers/quantizers/vq.py",
        "                if not self.initialized:\n", "                if True:\n", (NOTICED,),
    ),
    NamedFault(
        "a published codebook that counts as not initialized", "interop/fourm/tokenizers.py",
        'ours["quantizer.initialized"] = torch.tensor(True)', 'ours["quantizer.initialized"] = torch.tensor(False)',
        ("interop/test_fourm_tokenizer_interop.py", NOTICED),
    ),
    NamedFault(
        "a modality embedding not compared", "interop/fourm/model.py",
        "tensors.prescribed(second, row[None, None])", "tensors.take(second, 1, 1, D)", (NOTICED,),
    ),
    NamedFault(
        "a missing proj_bias key", "interop/fourm/model.py", '"proj_bias": True,', '"proj_bias": False,', (TRAINING,),
    ),
    NamedFault(
        "a stop signal to one rank alone", "training/updates.py",
        "self.stopped = bool(stops)", "self.stopped = self._stop()", (TRAINING,),
    ),
    NamedFault(
        "ranks with one seed", "training/loop.py",
        "torch.manual_seed(settings.seed + ranks.rank)", "torch.manual_seed(settings.seed)", (TRAINING,),
    ),
    NamedFault(
        "top-k before temperature", "generate/sampling.py",
        "(keep_likely(logits_nV / temperature, top_k, top_p) + noise_nV)",
        "(keep_likely(logits_nV, top_k, top_p) / temperature + noise_nV)",
        (NOTICED,),
    ),
    NamedFault(
        "commitment loss divided by D", "tokenizers/quantizers/vq.py",
        "self.commitment * (z - codes).square().sum(-1).mean()", "self.commitment * (z - codes).square().mean()", (NOTICED,),
    ),
    NamedFault(
        "the final probe fitted to 80%", "transfer/probe.py",
        "return cls.fit(train, num_classes, max(", "return cls.fit(kept, num_classes, max(", (NOTICED,),
    ),
    NamedFault("id 65,536 wrapped to 0", "data/token_store.py", "< 2**16 else", "<= 2**16 else", (NOTICED,)),
    NamedFault(
        "true for a whole number", "config.py",
        "or (isinstance(value, bool) and hint is not bool)", "or False", (NOTICED,),
    ),
)  # fmt: skip
