"""pandas Series, DataFrames and indexes, taken apart into arrays and texts and put together again.

Arguments and results both go this way: what makes up a table is the same for its key and for its storage. Columns are
of numbers, booleans, dates or texts; all else is refused. This module is imported only where pandas is in use.
"""

from __future__ import annotations

import datetime
import zoneinfo
from typing import Any

import numpy as np
import pandas as pd
from pandas.tseries.frequencies import to_offset

from ._arguments import Refused

_MISSING_KINDS = (None, float("nan"), pd.NA, pd.NaT)


def take_apart(value: Any) -> tuple[str, dict[str, Any]]:
    """The name of a pandas object's type and what makes it up. Raises Refused."""
    kind = type(value)
    if kind is pd.Timestamp or kind is pd.Timedelta:
        zone = "" if getattr(value, "tzinfo", None) is None else _zone_name(value.tzinfo)
        return f"pandas.{kind.__name__}", {"value": value.asm8, "zone": zone}
    if value is pd.NA or value is pd.NaT:
        return f"pandas.{kind.__name__}", {"missing": True}
    if kind is pd.Series:
        _check_attributes(value)
        parts = {"values": _column(value), "index": _index(value.index), "name": _label(value.name)}
        return "pandas.Series", parts
    if kind is pd.DataFrame:
        _check_attributes(value)
        columns = []
        for i, label in enumerate(value.columns):
            try:
                columns.append(_column(value.iloc[:, i]))
            except Refused as refused:
                raise refused.within(f"[{label!r}]")
        return "pandas.DataFrame", {"columns": _index(value.columns), "index": _index(value.index), "data": columns}
    if isinstance(value, pd.Index):
        return "pandas.Index", _index(value)
    raise Refused(f"is a {kind.__module__}.{kind.__qualname__}", "Pass a Series, a DataFrame or its arrays.")


def put_together(name: str, parts: Any) -> Any:
    """The object of which `take_apart` gave the parts."""
    if name == "pandas.Series":
        return _series(parts["values"], _restore_index(parts["index"]), parts["name"])
    if name == "pandas.DataFrame":
        index = _restore_index(parts["index"])
        data = {i: _series(column, index, None) for i, column in enumerate(parts["data"])}
        frame = pd.DataFrame(data, index=index, copy=False)
        frame.columns = _restore_index(parts["columns"])
        return frame
    if name == "pandas.Index":
        return _restore_index(parts)
    if name in ("pandas.Timestamp", "pandas.Timedelta"):
        if name == "pandas.Timedelta":
            return pd.Timedelta(parts["value"])
        stamp = pd.Timestamp(parts["value"])
        return stamp.tz_localize("UTC").tz_convert(parts["zone"]) if parts["zone"] else stamp
    if name == "pandas.NAType":
        return pd.NA
    if name == "pandas.NaTType":
        return pd.NaT
    raise ValueError(f"a stored result contains a {name}, which this version of npcache does not know")


def _check_attributes(value: Any) -> None:
    if value.attrs:
        raise Refused(f"is a {type(value).__name__} with attrs ({', '.join(map(str, value.attrs))})", "Clear them.")
    if not value.flags.allows_duplicate_labels:
        raise Refused(f"is a {type(value).__name__} that allows no duplicate labels", "Reset its flags.")


def _column(values: Any) -> Any:
    """The values of a Series or an Index: an array, or a dict of what makes up one that numpy has no type for."""
    dtype = values.dtype
    if isinstance(dtype, np.dtype) and dtype.kind in "biufcmM":
        return np.asarray(values)
    if isinstance(dtype, pd.DatetimeTZDtype):
        return {"utc": np.asarray(values.array.tz_convert("UTC").tz_localize(None)), "zone": _zone_name(dtype.tz)}
    if isinstance(dtype, pd.StringDtype):
        missing = "nan" if dtype.na_value is not pd.NA else "NA"
        return {"dtype": f"string {dtype.storage} {missing}", **_texts(values)}
    if isinstance(dtype, np.dtype) and dtype.kind == "O":
        return {"dtype": "object", **_texts(values)}
    raise Refused(f"has a column of {dtype}", "Columns are of numbers, booleans, dates or texts: convert it.")


def _texts(values: Any) -> dict[str, Any]:
    """Texts as one piece of UTF-8, where each ends in it, and which are missing and how."""
    pieces, ends, missing, length = [], [], [], 0
    for text in values:
        kind = 0
        if type(text) is str:
            piece = text.encode("utf-8", "surrogatepass")
            pieces.append(piece)
            length += len(piece)
        elif text is None:
            kind = 1
        elif type(text) is float and text != text:
            kind = 2
        elif text is pd.NA:
            kind = 3
        else:
            raise Refused(f"has a column of objects, one of them a {type(text).__name__}", "Convert it.")
        ends.append(length)
        missing.append(kind)
    parts = {"utf8": np.frombuffer(b"".join(pieces), "u1"), "ends": np.array(ends, "<i8")}
    if any(missing):
        parts["missing"] = np.array(missing, "u1")
    return parts


def _series(column: Any, index: Any, name: Any) -> Any:
    values = _restore_column(column)
    dtype = object if values.dtype.kind == "O" and isinstance(values, np.ndarray) else None  # else taken for texts
    return pd.Series(values, index=index, name=name, dtype=dtype, copy=False)


def _restore_column(column: Any) -> Any:
    if isinstance(column, np.ndarray):
        return column
    if "utc" in column:
        return pd.array(column["utc"], copy=False).tz_localize("UTC").tz_convert(column["zone"])
    data, ends = column["utf8"].tobytes(), column["ends"].tolist()
    texts: list[Any] = [data[start:end].decode("utf-8", "surrogatepass") for start, end in zip([0, *ends[:-1]], ends)]
    if "missing" in column:
        for i in np.flatnonzero(column["missing"]).tolist():
            texts[i] = _MISSING_KINDS[column["missing"][i] - 1]
    values = np.empty(len(texts), object)
    values[:] = texts
    if column["dtype"] == "object":
        return values
    _, storage, missing = column["dtype"].split()
    if missing == "NA":
        return pd.array(values, dtype=pd.StringDtype(storage))
    return pd.array(values, dtype=pd.StringDtype(storage, na_value=float("nan")))


def _zone_name(zone: Any) -> str:
    """A time zone by a name that pandas finds it by."""
    if zone is datetime.timezone.utc:
        return "UTC"
    if isinstance(zone, zoneinfo.ZoneInfo) and zone.key:
        return zone.key
    if isinstance(zone, datetime.timezone):
        offset = zone.utcoffset(None)
        if str(zone) == str(datetime.timezone(offset)) and not offset % datetime.timedelta(minutes=1):
            return str(zone)
    name = getattr(zone, "zone", None)  # pytz
    if isinstance(name, str):
        return name
    raise Refused(f"has dates in the time zone {zone!r}", "Convert them to UTC, or to a zone with a name.")


def _freq_name(freq: Any) -> str | None:
    """A frequency by a name that tells all of it. That of one with holidays, or with opening hours, does not."""
    if freq is None:
        return None
    if to_offset(freq.freqstr) != freq:
        raise Refused(f"has an index of dates with the frequency {freq!r}", "Set the index's freq to None.")
    return str(freq.freqstr)


def _label(label: Any) -> Any:
    if label is None or type(label) in (str, int, float, bool):
        return label
    raise Refused(f"has the label {label!r}", "Labels are texts and numbers.")


def _index(index: Any) -> dict[str, Any]:
    kind = type(index)
    name = _label(index.name) if index.nlevels == 1 else None
    if kind is pd.RangeIndex:
        return {"start": index.start, "stop": index.stop, "step": index.step, "name": name}
    if kind in (pd.DatetimeIndex, pd.TimedeltaIndex):
        return {"values": _column(index), "freq": _freq_name(index.freq), "name": name}
    if kind is pd.Index:
        if index.dtype == object and not all(type(label) is str for label in index):
            return {"labels": [_label(label) for label in index], "name": name}
        return {"values": _column(index), "name": name}
    raise Refused(f"has a {kind.__name__}", "Indexes are of numbers, dates and texts: use reset_index().")


def _restore_index(parts: Any) -> Any:
    name = parts["name"]
    if "step" in parts:
        return pd.RangeIndex(parts["start"], parts["stop"], parts["step"], name=name)
    if "labels" in parts:
        return pd.Index(parts["labels"], dtype=object, name=name)
    values = _restore_column(parts["values"])
    if "freq" in parts:
        kind = pd.TimedeltaIndex if values.dtype.kind == "m" else pd.DatetimeIndex
        index = kind(values, name=name, copy=False)
        if parts["freq"] is not None:
            index.freq = parts["freq"]
        return index
    dtype = object if isinstance(parts["values"], dict) and parts["values"].get("dtype") == "object" else None
    return pd.Index(values, dtype=dtype, name=name, copy=False)
