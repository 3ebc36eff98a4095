"""A bundle: a trained model with its tokenizers and modality entries, ready to predict any modality from any others."""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Unpack, cast

import torch

from maskweave import limits
from maskweave.arguments import check_arguments
from maskweave.bundle.io import NOTHING_KNOWN, load_bundle, save_bundle, trained_settings
from maskweave.config import whole_number
from maskweave.data.bundle_place import bundle_folder
from maskweave.errors import MaskweaveError, shown
from maskweave.families.base import Family, ModelSettings, family_of
from maskweave.generate.best_of import best_result, check_judging, judges_of
from maskweave.generate.calibration import Calibration, calibrate
from maskweave.generate.editing import keep_rest
from maskweave.generate.engine import Engine, Precision, check_usable
from maskweave.generate.ensemble import OVERLAP, check_ensemble, member_seeds, merge_results
from maskweave.generate.features import FeatureExtractor
from maskweave.generate.places import find_places
from maskweave.generate.pushing import push
from maskweave.generate.request import GenerationRequest, Options, Sample, make_request, plan, read, twin
from maskweave.generate.result import Generated
from maskweave.generate.schedule import Schedule
from maskweave.generate.scoring import Score, check_scored, score_tokens
from maskweave.generate.session import Session
from maskweave.generate.tile_scene import tile_scene
from maskweave.generate.tiles import OVERLAP as OVERLAP_OF_TILES
from maskweave.generate.tiles import Tiled
from maskweave.generate.token_state import token_states
from maskweave.generate.untrained import check_trained
from maskweave.masking.paths import TrainedPaths
from maskweave.modality.catalogs import Catalog
from maskweave.modality.decoding import Decoding, Ramp
from maskweave.models.fourm import FourM
from maskweave.nn.layers import count_parameters
from maskweave.provenance import Provenance, with_license
from maskweave.report.card import EVALUATION, model_card
from maskweave.tokenizers.base import Tokenizer
from maskweave.tokenizers.external import code_allowed

Watch = Callable[[Session], object]
"""Called after every step; generation stops if it returns False."""


class Bundle:
    """A model, its tokenizers and its modalities.

    Args:
        tokenizers: by modality. A modality without tokenizer must be given as `Tokens`, and its results are tokens only.
        folder: where it was loaded from, for messages.
        unconditional: whether the model was also trained on samples without inputs; None if unknown.
        provenance: what it was made from, and its license.
    """

    def __init__(
        self,
        catalog: Catalog,
        tokenizers: Mapping[str, Tokenizer],
        model: torch.nn.Module,
        folder: Path | None = None,
        unconditional: bool | None = None,
        provenance: Provenance = NOTHING_KNOWN,
    ):
        self.catalog, self.tokenizers, self.folder = catalog, dict(tokenizers), folder
        self.provenance = provenance
        self.model: Any = model.eval()
        self.family: Family[Any, Any] = family_of(model)
        self.unconditional = unconditional
        self.settings: ModelSettings | None = None
        """Settings of the training; None if unknown."""
        self._told: set[str] = set()
        self.calibration: dict[str, float] = {}
        """Temperature of the predicted distributions by modality; see `calibrate`. Clear it to undo the calibration."""
        self._engines: dict[tuple[Precision, bool], tuple[object, Engine]] = {}

    def __getstate__(self) -> dict[str, Any]:
        # An engine's weights may be packed for the CPU and cannot be copied; engines are rebuilt on demand.
        return {**self.__dict__, "_engines": {}}

    def __repr__(self) -> str:
        license = self.provenance.describe_license()
        return f"Bundle({self.folder}, modalities: {', '.join(self.catalog)}, license: {license})"

    @property
    def device(self) -> torch.device:
        device: torch.device = next(self.model.parameters()).device
        return device

    @cached_property
    def trained_paths(self) -> TrainedPaths | None:
        """How often the training saw inputs together with a target; None if unknown."""
        if self.settings is None:
            return None
        try:
            return self.family.trained_paths(self.settings, self.catalog)
        except MaskweaveError:  # entries of another training; the model can still be used
            return None

    def to(self, device: torch.device | str) -> "Bundle":
        """Moves the model and the tokenizers' networks to a device; returns this bundle.

        Raises:
            MaskweaveError: torch cannot use the device.
        """
        check_usable(device)
        for part in (self.model, *self.tokenizers.values()):
            if isinstance(part, torch.nn.Module):
                part.to(device)
        self._engines.clear()
        return self

    @check_arguments
    def save(self, place: str | os.PathLike[str]) -> Path | str:
        """Writes the bundle into a new folder, or to a URL such as `s3://bucket/name`; `maskweave.load` opens it. Returns the place.

        Raises:
            MaskweaveError: the folder exists and is not empty, or the URL holds other files or cannot be written.
        """
        return save_bundle(self.catalog, self.model, self.tokenizers, place, self.calibration, self.provenance)

    @check_arguments
    def card(self, name: str = "", license: str = "") -> str:
        """Returns the model card, Markdown: use, modalities, scores (of a run that was evaluated), license and provenance.

        Args:
            name: its name, such as the Hub id; default: the folder's name.
            license: license of the bundle as a whole, such as `apache-2.0`, if its provenance states none.
        """
        return model_card(
            name or (self.folder.name if self.folder else "model"),
            self.catalog,
            self.family,
            count_parameters(self.model),
            with_license(self.provenance, license),
            self.folder / EVALUATION if self.folder else None,
        )

    @check_arguments
    def push(
        self, repository: str, *, license: str = "", private: bool = False, revision: str = "main", message: str = ""
    ) -> str:
        """Uploads the bundle with its model card to the Hugging Face Hub, after `hf auth login`. `maskweave.load("owner/name")` opens it. Returns its URL.

        Args:
            repository: OWNER/NAME; it is made if it does not exist.
            license: as for `card`.
            private: whether a new repository is private.
            revision: branch to write to; it is made if it does not exist.
            message: of the commit.

        Raises:
            MaskweaveError: not the id of a repository, no access, or the Hub cannot be reached.
        """
        return push(self, repository, license, private, revision, message)

    def generate(
        self,
        inputs: Sample,
        targets: Sequence[str] | None = None,
        *,
        seed: int = 0,
        watch: Watch | None = None,
        **options: Unpack[Options],
    ) -> Generated:
        """Predicts `targets` from `inputs`.

        Args:
            inputs: value by modality: an array, a PIL image, a string, the path of a file, or `Tokens`. Images of other sizes are center-cropped
                and resized. For text modalities, a string is the text itself; pass a path as a `pathlib.Path`.
            targets: in the order of generation. An input-only modality is replaced by the grid with the same source. A target that is also an
                input is regenerated completely, unless `edit` limits this to a region. Optional if a schedule is given.
            seed: fixes the result.
            watch: called with the `Session` after every step; if it returns False, the partial result is returned.
            options: `decoding`, `conditions`, `guide_with_finished`, `chain`, `think`, `schedule`, `edit`, `return_probs`, `precision`, `compiled`, `on_untrained`; see `Options`.

        Returns:
            Values by modality, in their units.

        Raises:
            MaskweaveError: an unknown modality, a target that cannot be predicted, an input that does not fit its entry, or a request
                that contradicts itself; all checked before any work.
        """
        return self.generate_batch([inputs], targets, seeds=[seed], watch=watch, **options)[0]

    def generate_batch(
        self,
        inputs: Sequence[Sample],
        targets: Sequence[str] | None = None,
        *,
        seeds: Sequence[int] | None = None,
        batch_size: int = 64,
        watch: Watch | None = None,
        **options: Unpack[Options],
    ) -> list[Generated]:
        """`generate` for many samples, `batch_size` at a time; the samples may have different inputs.

        Args:
            seeds: one per sample; 0, 1, 2, ... by default. A sample's result does not depend on its index in the batch.

        Returns:
            One result per sample; fewer if `watch` stopped generation.
        """
        batch_size = whole_number("batch_size", batch_size, 1)
        request = self.request(inputs, targets, seeds, options)
        results: list[Generated] = []
        for start in range(0, len(inputs), batch_size):
            session = self._session(request, slice(start, start + batch_size), options)
            stopped = any(watch is not None and watch(session) is False for _ in session)
            found = session.results()
            for sample, result in zip(inputs[start : start + batch_size], found, strict=True):
                result.places = find_places(sample, self.catalog)
            results += found
            if stopped:
                break
        return results

    def start(
        self,
        inputs: Sequence[Sample],
        targets: Sequence[str] | None = None,
        *,
        seeds: Sequence[int] | None = None,
        **options: Unpack[Options],
    ) -> Session:
        """`generate_batch` step by step, with all samples in one batch: iterate over the session, and call its `results` at any time."""
        return self._session(self.request(inputs, targets, seeds, options), slice(None), options)

    @check_arguments
    def schedule(
        self, inputs: Sequence[str], targets: Sequence[str] | None = None, **options: Unpack[Options]
    ) -> Schedule:
        """Returns the schedule of a request with these inputs, to print, save, edit and pass as `schedule=`."""
        self._generative()
        return plan(self.catalog, inputs, targets, options, self.unconditional)[1]

    @check_arguments
    def ensemble(
        self,
        inputs: Sample,
        targets: Sequence[str],
        *,
        samples: int = 10,
        seed: int = 0,
        overlap: float = OVERLAP,
        batch_size: int = 64,
        watch: Watch | None = None,
        **options: Unpack[Options],
    ) -> Generated:
        """Generates several times and merges: averages of continuous values, majority vote for classes, instances and boxes without duplicates.

        Args:
            samples: number of members to merge.
            overlap: instances or boxes of one class with at least this intersection over union are duplicates.

        Returns:
            A result without tokens.

        Raises:
            MaskweaveError: as `generate`, or a target whose values cannot be merged, such as text; checked before any work.
        """
        seed = whole_number("seed", seed, most=limits.SEED)
        wanted = [self.catalog[twin(self.catalog, name)] for name in targets]
        check_ensemble(wanted, self.tokenizers, samples, overlap)
        seeds = member_seeds(seed, samples)
        members = self.generate_batch(
            [inputs] * samples, targets, seeds=seeds, batch_size=batch_size, watch=watch, **options
        )
        merged = merge_results(members, overlap)
        merged.places = members[0].places
        return merged

    @check_arguments
    def best_of(
        self,
        inputs: Sample,
        targets: Sequence[str],
        *,
        samples: int = 8,
        by: Sequence[str] = (),
        seed: int = 0,
        batch_size: int = 64,
        watch: Watch | None = None,
        **options: Unpack[Options],
    ) -> Generated:
        """Generates several times and keeps the result from which the inputs are likeliest, by this model; see `maskweave.generate.best_of`.

        Args:
            samples: number of results to choose from; the cost grows with it.
            by: inputs that decide; by default all that the model can predict and that are no targets.

        Returns:
            The best result, with its `likelihoods`.

        Raises:
            MaskweaveError: as `generate`, or no input can decide; checked before any work.
        """
        seed = whole_number("seed", seed, most=limits.SEED)
        judges = judges_of(self.catalog, [*inputs], targets, by, samples)
        told = options.get("on_untrained", "warn"), self._told
        check_judging(self.trained_paths, self.catalog, targets, judges, *told)
        seeds = member_seeds(seed, samples)
        members = self.generate_batch(
            [inputs] * samples, targets, seeds=seeds, batch_size=batch_size, watch=watch, **options
        )
        return best_result(members, inputs, targets, judges, self.score_batch, batch_size)

    def score(self, inputs: Sample, values: Sample, *, precision: Precision = "float32") -> dict[str, Score]:
        """Returns the log-likelihood of each of `values` given `inputs` only; see `maskweave.generate.scoring`."""
        return self.score_batch([inputs], [values], precision=precision)[0]

    def score_batch(
        self, inputs: Sequence[Sample], values: Sequence[Sample], *, precision: Precision = "float32"
    ) -> list[dict[str, Score]]:
        """`score` for several samples in one batch; all must have values of the same modalities.

        Raises:
            MaskweaveError: a value does not fit its entry, is input only, or is missing in some samples.
        """
        check_scored(inputs, values)
        given_names = list(dict.fromkeys(name for sample in inputs for name in sample))
        targets, _ = plan(self.catalog, given_names, list(values[0]), {"precision": precision}, self.unconditional)
        read_inputs = [read(sample, self.catalog, self.tokenizers) for sample in inputs]
        renamed = [{twin(self.catalog, name): value for name, value in sample.items()} for sample in values]
        truths = token_states(self.catalog, [read(v, self.catalog, self.tokenizers) for v in renamed], self.tokenizers)
        given = token_states(self.catalog, read_inputs, self.tokenizers)
        engine = self._engine({"precision": precision})
        scores = [score_tokens(engine, given, target, truths[target]) for target in targets]
        return [dict(zip(values[0], of_sample, strict=True)) for of_sample in zip(*scores, strict=True)]

    @check_arguments
    def calibrate(
        self,
        samples: Sequence[Sample],
        inputs: Sequence[str],
        targets: Sequence[str],
        *,
        batch_size: int = 64,
        decoding: Mapping[str, Decoding] | None = None,
        conditions: Mapping[str, float | Ramp] | None = None,
    ) -> dict[str, Calibration]:
        """Chooses a temperature for each target's predicted distributions, which minimizes the NLL of held-out samples; see `maskweave.generate.calibration`.

        It is kept in `calibration`, and saved by `save`. From then on, `Generated.probabilities` and the distributions of scalars and labels are at
        this temperature; what is sampled stays the same. `calibration.clear()` undoes it.

        Args:
            samples: values by modality that the model was not trained on. Those without an input or the target are left out.
            inputs: modalities that are given, as later in requests: other inputs may need another temperature.
            targets: grids and sequences.
            decoding: as for `generate`, of which guidance matters: other guidance may need another temperature, too. By default that of the entries.
            conditions: as for `generate`.

        Raises:
            MaskweaveError: as `score`, or no sample has the inputs and a target.
        """
        options: Options = {"decoding": decoding, "conditions": conditions}
        engine = self._engine({})
        found = calibrate(engine, self.tokenizers, samples, inputs, targets, batch_size, options, self.unconditional)
        self.calibration |= {twin(self.catalog, name): one.temperature for name, one in found.items()}
        return found

    @check_arguments
    def tiles(
        self,
        scene: Sample,
        targets: Sequence[str],
        *,
        overlap: float = OVERLAP_OF_TILES,
        seed: int = 0,
        batch_size: int = 8,
        folder: str | os.PathLike[str] | None = None,
        **options: Unpack[Options],
    ) -> Tiled:
        """Predicts `targets` of a scene of any size from overlapping tiles of the entries' sizes, and blends them.

        Args:
            scene: planes, as arrays or files, in the resolution that the model was trained with; `.npy` and TIFF files and memory maps are read by windows.
                Other inputs, such as a caption, hold for every tile.
            targets: planes.
            overlap: share of a tile that neighbors share, 0 to below 1.
            folder: where the outputs are kept as memory maps, NAME.npy; by default they are in memory.
            options: as for `generate`, except `edit`.

        Raises:
            MaskweaveError: as `generate` and `predict_tiles`; a target that is not a plane, or without tokenizer.
        """
        return tile_scene(self, scene, targets, overlap, seed, batch_size, Path(folder) if folder else None, options)

    def encoder(self, modalities: Sequence[str], precision: Precision = "float32") -> FeatureExtractor:
        """Returns the model's encoder over some of its modalities, to compute features of samples that have all of them.

        Args:
            precision: of matrix products; the features are float32.

        Raises:
            MaskweaveError: an unknown modality, or an empty list.
        """
        if not isinstance(modalities, Sequence) or not all(isinstance(name, str) for name in modalities):
            raise MaskweaveError(f"modalities: found {shown(modalities)}; expected a list of names")
        return FeatureExtractor(self.family.encoder(self.model, self.catalog, modalities), self.tokenizers, precision)

    @check_arguments
    def read(self, inputs: Sample) -> dict[str, Any]:
        """Converts inputs in any accepted form to checked values of their entries' sizes.

        Raises:
            MaskweaveError: a value does not fit its entry.
        """
        return read(inputs, self.catalog, self.tokenizers)

    def request(
        self, inputs: Sequence[Sample], targets: Sequence[str] | None, seeds: Sequence[int] | None, options: Options
    ) -> GenerationRequest:
        """Returns the checked request that `generate` would run, with its inputs read; see `make_request`. Warns of untrained paths, or refuses them."""
        request = make_request(self.catalog, self.tokenizers, inputs, targets, seeds, options, self.unconditional)
        check_trained(
            self.trained_paths,
            [list(sample) for sample in request.samples],
            request.schedule,
            options.get("on_untrained", "warn"),
            self._told,
        )
        return request

    def _session(self, request: GenerationRequest, part: slice, options: Options) -> Session:
        """Returns a session for some samples of a request."""
        samples, seeds = request.samples[part], request.seeds[part]
        known = token_states(self.catalog, samples, self.tokenizers)
        given, made = keep_rest(self.catalog, known, request.edits[part])
        engine = self._engine(options)
        return Session(
            engine,
            self.tokenizers,
            request.names,
            request.schedule,
            samples,
            given,
            made,
            seeds,
            self.calibration,
            options.get("return_probs", False),
        )

    def _generative(self) -> FourM:
        if not self.family.generates:
            raise MaskweaveError(
                f"{self!r}: its model is of family {self.family.name!r}, which cannot generate; use it for features, or use a run of another family, such as fourm"
            )
        return cast(FourM, self.model)

    def _engine(self, options: Options) -> Engine:
        """Returns the cached engine, or a new one if the model has changed."""
        kind = options.get("precision", "float32"), options.get("compiled", False)
        state = [(id(p), 0 if p.is_inference() else p._version) for p in self.model.parameters()]
        if kind not in self._engines or self._engines[kind][0] != state:
            self._engines[kind] = state, Engine(self._generative(), self.catalog, *kind)
        return self._engines[kind][1]


@check_arguments
def load(
    folder_or_hub_id: str | os.PathLike[str],
    device: torch.device | str = "cpu",
    revision: str | None = None,
    allow_code: bool = False,
) -> Bundle:
    """Loads a bundle: the folder of a finished run, its URL (`s3://bucket/name`, read through the cache of this machine), or the id of one on the Hugging Face
    Hub (`owner/name` or `owner/name@REVISION`). The name of a bundle that ships in the package is looked up last.

    Args:
        revision: branch, tag or commit on the Hub, if the id contains none.
        allow_code: run the Python functions that the bundle's entries name as tokenizers (`external: "python: …"`).

    Raises:
        MaskweaveError: no such folder or device, an unfinished run, damaged files, or parts that do not match.
    """
    check_usable(device)
    folder = bundle_folder(folder_or_hub_id, revision)
    with code_allowed(allow_code):
        catalog, model, tokenizers, calibration, provenance = load_bundle(folder)
    bundle = Bundle(catalog, tokenizers, model, folder, provenance=provenance)
    bundle.calibration = calibration
    bundle.settings = trained_settings(bundle.family, folder)
    if bundle.settings is not None:
        bundle.unconditional = bundle.family.trained_without_inputs(bundle.settings)
    return bundle.to(device)
