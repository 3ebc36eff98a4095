"""The model card of a bundle: a Markdown page with a head that the Hugging Face Hub reads."""

from pathlib import Path
from typing import Any

import yaml

from maskweave.errors import MaskweaveError
from maskweave.families.base import Family
from maskweave.files import read_json
from maskweave.modality.catalogs import Catalog
from maskweave.provenance import NOT_STATED, Origin, Provenance
from maskweave.report.tables import short_number

EVALUATION = "evaluation.json"
"""File of a run folder with its scores."""
LICENSE_IDS = (
    "apache-2.0", "mit", "bsd-3-clause", "bsd-2-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "openrail",
    "gpl-3.0", "agpl-3.0", "lgpl-3.0", "unknown",
)  # fmt: skip
"""Those that the Hub knows by their names and that are often used; others are `other` with a name."""

USE = """\
```python
import maskweave

bundle = maskweave.load({place!r})
out = bundle.generate({{{inputs}}}, targets={targets!r}, seed=0)
```"""


def model_card(
    name: str,
    catalog: Catalog,
    family: Family[Any, Any],
    parameters: int,
    provenance: Provenance,
    evaluation: Path | None,
) -> str:
    """Returns the card.

    Args:
        evaluation: file with scores; it may be missing.
    """
    sections = [
        _head(provenance, family),
        f"# {name}\n\n{f'{family.summary} {parameters / 1e6:,.1f}'.strip()} million parameters, {len(catalog)} modalities.",
        *([f"## Use\n\n{_use(name, catalog)}"] if family.generates else []),
        f"## Modalities\n\n{_modalities(catalog)}",
        f"## Scores\n\n{_scores(evaluation)}",
        f"## License and provenance\n\n{_provenance(provenance)}",
    ]
    return "\n\n".join(sections) + "\n"


def _head(provenance: Provenance, family: Family[Any, Any]) -> str:
    head: dict[str, Any] = {"library_name": "maskweave", "tags": ["maskweave", family.name, "multimodal"]}
    if family.generates:
        head["pipeline_tag"] = "any-to-any"
    license = provenance.card_license()
    if license.lower() in LICENSE_IDS:
        head["license"] = license.lower()
    elif license or provenance.origins:
        head |= {"license": "other", "license_name": license or "see-below"}
        urls = {origin.license_url for origin in provenance.origins if origin.license_url}
        head |= {"license_link": urls.pop()} if len(urls) == 1 else {}
    return f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---"


def _use(place: str, catalog: Catalog) -> str:
    targets = [m for m in catalog.values() if m.is_target]
    given = next((m for m in catalog.values() if m not in targets), targets[0])
    wanted = [m.name for m in targets if m is not given][:2] or [targets[0].name]
    return USE.format(place=place, inputs=f'"{given.name}": …', targets=wanted)


def _modalities(catalog: Catalog) -> str:
    rows = [
        [
            f"`{m.name}`",
            "in and out" if m.is_target else "in",
            m.kind,
            str(m.tokens) if m.grid else f"≤ {m.max_tokens}",
            m.value.describe(),
            f"{m.value.describe_range()} {m.value.unit or ''}".strip(),
        ]
        for m in catalog.values()
    ]
    return _table(["modality", "use", "kind", "tokens", "value", "range"], rows)


def _scores(evaluation: Path | None) -> str:
    if evaluation is None or not evaluation.is_file():
        return "Not evaluated."
    rows = read_json(evaluation)
    try:
        table = [
            [
                " + ".join(f"`{name}`" for name in row["inputs"]) or "nothing",
                f"`{row['target']}`",
                f"{row['metric']} ({row['better'] if row['better'] in ('lower', 'higher') else 'ideal ' + str(row['better'])})",
                _number(row["value"]),
                _number(row["constant"]),
                f"{int(row['samples']):,}",
            ]
            for row in rows
            if not row.get("part")
        ]
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise MaskweaveError(f"{evaluation}: damaged ({error!r}); run maskweave evaluate again") from error
    note = "On held-out samples. *Constant* is the best constant prediction: a model that is not better has learned nothing."
    return f"{note}\n\n{_table(['from', 'predicted', 'metric', 'score', 'constant', 'samples'], table)}"


def _number(value: float | None) -> str:
    return "–" if value is None else short_number(float(value))


def _provenance(provenance: Provenance) -> str:
    lines = [f"License: {provenance.describe_license()}."]
    if provenance.made_with:
        lines.append(f"Made with {provenance.made_with}.")
    if not provenance.origins:
        lines.append("Trained from scratch, as far as is recorded.")
    if any(not origin.license for origin in provenance.origins):
        lines.append("Where no license is stated, ask its owner before you use the weights.")
    table = _table(["taken", "from", "license"], [_origin(one) for one in provenance.origins])
    return "\n".join(lines) + (f"\n\n{table}" if provenance.origins else "")


def _origin(origin: Origin) -> list[str]:
    license = f"[{origin.license}]({origin.license_url})" if origin.license_url else origin.license or NOT_STATED
    return [origin.part, origin.place + (f" at {origin.revision}" if origin.revision else ""), license]


def _table(heads: list[str], rows: list[list[str]]) -> str:
    cells = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in cells)
