"""The recipe of a project."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from maskweave.init.commented import Line, commented
from maskweave.init.entries import target_name
from maskweave.init.finding import Finding
from maskweave.init.plan import Plan

OWN = 0.3
"""Concentration of a picture's own tokens among the inputs: pictures are generated in several steps, from a part of themselves."""
MOST_SHEETS = 6
SCORED = 0.5
"""Share of a target's samples that should have all inputs of a request."""


def recipe_text(
    findings: Sequence[Finding],
    plan: Plan,
    catalog: str,
    data: str,
    header: Sequence[str],
    held: Mapping[str, np.ndarray],
    group: str = "",
    rare: Sequence[Finding] = (),
    split: str = "",
) -> str:
    """Returns the recipe as commented YAML.

    Args:
        findings: the modalities of the model.
        held: which samples have a file of each modality, by its name, bool (samples,).
        group: `data.split.group`.
        rare: modalities that the recipe leaves out, as few samples have them.
        split: `data.split.file`.
    """
    groups = _groups(findings)
    requests = [_request(findings, group, held) for group in groups]
    whole = all(len(r["inputs"]) + len(g) >= len(findings) for r, g in zip(requests, groups, strict=True))
    asked = "each target from all others" if whole else "each target from the others that most of its samples have"
    names = list(dict.fromkeys(name for f in findings for name in (f.name, target_name(f))))
    tokenizers: list[Line | str] = [
        Line("samples", 4000, "most samples that they are trained on"),
        Line("jobs", plan.jobs, "tokenizers trained at the same time"),
        Line(
            "train",
            below=[
                Line("steps", plan.tokenizer_steps, "the main lever for the quality of maps and pictures"),
                Line("batch_size", 8),
                Line("learning_rate", 5e-3),
                Line("checkpoint_every", 0, "only at the end"),
            ],
        ),
    ]
    mixtures: list[Line | str] = [Line("-", _mixture(findings, group)) for group in groups]
    mixtures.append("any from any, so that a part of a sample is enough:")
    mixtures.append(
        Line("-", {"weight": max(1, len(groups) // 3), "inputs": {"default": 0.5}, "targets": {"default": 0.5}})
    )
    lines: list[Line | str] = [
        *header,
        Line("catalog", catalog, "the modalities"),
        *([Line("modalities", names, f"few samples have the others: {', '.join(f.name for f in rare)}")] * bool(rare)),
        Line(
            "data",
            below=[
                Line("source", data, "the imported files"),
                Line(
                    "validation",
                    plan.validation,
                    "held-out samples, chosen by their names; see data.split in docs/data.md",
                ),
                *([Line("split", {"file": split}, "as the folders of the files say")] * bool(split)),
                *(
                    [Line("split", {"group": group}, "what the names of samples share that are held out together")]
                    * bool(group)
                ),
            ],
        ),
        Line("tokenizers", comment="networks that turn maps and pictures into tokens", below=tokenizers),
        Line(
            "model",
            comment="predicts any modality from any others",
            below=[
                Line("size", plan.size, "nano, micro, mini, Ti, S, B, L or XL"),
                *([Line("encoder_depth", 2), Line("decoder_depth", 2)] if plan.size == "nano" else []),
                Line("tied", True, "one table for embeddings and head: small models learn faster"),
                Line("init_from_tokenizers", True, "tokens start from their codebook vectors"),
                Line(
                    "loss", "mod", "mean over modalities of the mean of each, so that few tokens count as much as many"
                ),
                Line(
                    "masking",
                    below=[
                        Line("input_tokens", plan.input_tokens, "most input tokens of a sample"),
                        Line("target_tokens", plan.target_tokens, "most target tokens of a sample"),
                        Line(
                            "mixtures",
                            comment="what is given and what is predicted; one line is drawn for each sample, by weight",
                            below=mixtures,
                        ),
                    ],
                ),
            ],
        ),
        Line(
            "train",
            below=[
                Line("steps", plan.steps, "updates of the model; the time is about proportional"),
                Line("batch_size", plan.batch_size, "samples of an update"),
                Line("processes", "auto", "processes and threads: measured at the start"),
                Line("optimizer", "muon", "for matrices; in equal time, small models become better than with adamw"),
                Line("learning_rate", 3e-3, "highest rate; it rises first and falls then"),
                Line("precision", "auto", "bfloat16 where the machine is fast at it"),
                Line("checkpoint_every", max(100, plan.steps // 4), "a run that is stopped resumes from the last one"),
                Line("log_every", max(1, plan.steps // 50)),
            ],
        ),
        Line(
            "evaluate",
            below=[
                Line("samples", plan.evaluated, "held-out samples that are scored"),
                Line(
                    "requests",
                    comment=f"{asked}; scores are compared with the best constant",
                    below=[Line("-", r) for r in requests],
                ),
                Line(
                    "sheets",
                    comment="the same as pictures in the report",
                    below=[Line("-", r) for r in requests[:MOST_SHEETS]],
                ),
            ],
        ),
    ]
    return commented(lines)


def _groups(findings: Sequence[Finding]) -> list[list[Finding]]:
    """Returns what is predicted together: each modality alone, but the numbers of one folder's objects together, as one often tells another."""
    groups: dict[str, list[Finding]] = {}
    for f in findings:
        groups.setdefault(f.place, []).append(f)
    return list(groups.values())


def _request(findings: Sequence[Finding], group: Sequence[Finding], held: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns a request for a group from the others that can be given together: samples that lack an input are not scored."""
    targets = np.all([held[f.name] for f in group], axis=0)
    others = [f for f in findings if f not in group]
    others.sort(key=lambda f: (held[f.name] & targets).sum() * _filled(f, held), reverse=True)
    chosen: list[Finding] = []
    samples, share = targets, 1.0
    for f in others:
        both, filled = samples & held[f.name], share * _filled(f, held)
        if chosen and both.sum() * filled < SCORED * targets.sum():
            continue
        chosen.append(f)
        samples, share = both, filled
    inputs = [f.name for f in findings if f in chosen]
    return {"inputs": inputs or [f.name for f in group], "targets": [target_name(f) for f in group]}


def _filled(finding: Finding, held: Mapping[str, np.ndarray]) -> float:
    """Share of a modality's files that hold a value: rows of tables may be empty."""
    return min(finding.files / max(int(held[finding.name].sum()), 1), 1.0)


def _mixture(findings: Sequence[Finding], group: Sequence[Finding]) -> dict[str, Any]:
    """Returns the mixture that predicts a group from all others."""
    if len(findings) == len(group):
        return {"weight": 1, "inputs": {"default": 1}, "targets": {"default": 1}}
    raw = [target_name(f) for f in findings if f.is_raw]
    off: dict[str, float] = dict.fromkeys([*(f.name for f in group), *raw], 0)
    targets = {target_name(f): 1 for f in group}
    if group[0].type == "image":
        off[target_name(group[0])] = OWN
    return {"weight": 1, "inputs": {"default": 1, **off}, "targets": targets, "keep": "all"}
