"""Metadata of time series: one object of numbers, or one date, for each frame.

The numbers of frame i stand under `NAME@i`, with the id `id + i · (highest id + 1)`, so that each frame's numbers are tokens of their own.
"""

import datetime
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, Protocol, TypeVar

from maskweave.errors import shown
from maskweave.values.base import refuse
from maskweave.values.items import is_number

MOST_FRAMES = 1000
Part = Literal["none", "year", "day_of_year", "hour"]
"""Part of a date that a key holds; `none`: its numbers are no dates."""


class DatedKey(Protocol):
    """What is needed of a key."""

    @property
    def id(self) -> int: ...

    @property
    def of(self) -> str: ...

    @property
    def date(self) -> Part: ...


K = TypeVar("K", bound=Any)


def key_of_frame(name: str, frame: int) -> str:
    return f"{name}@{frame}"


def keys_of_frames(keys: Mapping[str, K], frames: int) -> dict[str, K]:
    """Returns the keys of all frames."""
    step = 1 + max((key.id for key in keys.values()), default=0)
    return {
        key_of_frame(name, i): replace(key, id=key.id + i * step) for i in range(frames) for name, key in keys.items()
    }


def part_of_date(text: str, part: Part, where: str) -> float:
    """Returns a part of a date: the year, the day of the year (1 to 366), or the hour (0 to below 24).

    Args:
        text: in ISO 8601: 2021-03-05, 20210305 or 2021-03-05T10:30.

    Raises:
        BadSample: it is no such date.
    """
    try:
        moment = datetime.datetime.fromisoformat(text.strip())
    except ValueError:
        raise refuse(where, f"the date {shown(text)}", "a date as 2021-03-05 or 2021-03-05T10:30") from None
    if part == "year":
        return moment.year
    if part == "day_of_year":
        return moment.timetuple().tm_yday
    return moment.hour + moment.minute / 60 + moment.second / 3600


def numbers_of(value: Any, keys: Mapping[str, DatedKey], where: str) -> dict[Any, Any]:
    """Returns the numbers of one object by the entry's names: those of dates, and of keys that have another name in files. Other content stays.

    Args:
        value: an object; or a date, for all keys with a `date`; or a number, if there is only one key.
    """
    if isinstance(value, str):
        value = {key.of or name: value for name, key in keys.items() if key.date != "none"}
    elif len(keys) == 1 and is_number(value):
        value = {key.of or name: value for name, key in keys.items()}
    if not isinstance(value, Mapping):
        raise refuse(where, shown(value), "keys and numbers")
    read = {key.of for key in keys.values() if key.of}
    found = {name: number for name, number in value.items() if name in keys or name not in read}
    for name, key in keys.items():
        if key.of and name not in value and key.of in value:
            found[name] = value[key.of]
        if key.date != "none" and isinstance(found.get(name), str):
            found[name] = part_of_date(found[name], key.date, f"{where}: {name}")
    return found


def numbers_of_frames(value: Any, keys: Mapping[str, DatedKey], frames: int, where: str) -> dict[Any, Any]:
    """Returns the numbers of a list of frames, or those by the names of all frames, by the names of all frames.

    Args:
        value: a list with an object, a date, a number or null for each frame, at most `frames`; or an object as this function returns it.

    Raises:
        BadSample: more frames, or something else.
    """
    if isinstance(value, Mapping):
        return dict(value)
    if not isinstance(value, (list, tuple)):
        raise refuse(where, shown(value), f"a list with an object or a date for each of at most {frames} frames")
    if len(value) > frames:
        raise refuse(where, f"a list of {len(value)} frames", f"at most {frames}", "raise the entry's value.dates")
    found = {}
    for i, item in enumerate(value):
        if item is None:
            continue
        for name, number in numbers_of(item, keys, f"{where}: frame {i}").items():
            found[key_of_frame(name, i)] = number
    return found
