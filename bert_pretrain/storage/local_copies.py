"""What a URL names - a file, a checkpoint, a folder with a model - as a local path that the rest of a program reads.

Copies are in the cache folder, under a name made of URLs, sizes and versions. A copy appears whole. All processes of a
host share it.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TypeVar

from bert_pretrain.storage import remote
from bert_pretrain.storage.remote import RemoteFile, RemoteFolder
from bert_pretrain.system import files
from bert_pretrain.system.files import ReportBytes
from bert_pretrain.system.locks import locked_file

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")

_STATE, _WEIGHTS, _INDEX = "checkpoint", "model.safetensors", "model.safetensors.index.json"
# Small files that say what weights beside them are; they are fetched with what a URL names.
_COMPANIONS = ("run.json", "results.json", "config.json", "bert_config.json", "vocab.txt", "tokenizer_config.json")
_BEST = "best"  # the folder of a run whose run.json is in the folder above
_MOST_STATE_BYTES = 1 << 20


def localize_settings(settings: T, report: ReportBytes = lambda what, done, total: None) -> T:
    """A dataclass of flags with local paths in place of URLs, where the flags name files that are fetched.

    ValueError, one line, naming flag and URL, for what cannot be fetched.
    """
    given = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    fetched = {field.name for field in dataclasses.fields(settings) if field.metadata["facts"].is_fetched}
    urls = {name: value for name, value in given.items() if name in fetched and value and files.is_url(value.strip())}
    return dataclasses.replace(settings, **{name: local_path(name, url, report) for name, url in urls.items()})


def local_path(flag: str, path: str, report: ReportBytes = lambda what, done, total: None) -> str:
    """A local path with the content of what `path` names; a path that is no URL is returned as it is.

    A URL may name a file, the prefix of a TF1 checkpoint, or a folder with one or with model.safetensors.
    """
    url = path.strip().rstrip("/")
    if not files.is_url(url):
        return path
    try:
        name, chosen = _named_by(url)
        return os.path.join(_fetch(flag, url, chosen, report), name)
    except OSError as error:
        raise _cannot_be_fetched(flag, url, error) from None


def local_folder(flag: str, path: str, names: Iterable[str]) -> str:
    """A local folder with those of the named files that a folder has; a path that is no URL is returned as it is."""
    url = path.strip().rstrip("/")
    if not files.is_url(url):
        return path
    try:
        held = remote.list_folder(url)
        folder = _folder_name(url)
        chosen = {f"{folder}/{name}": held[name] for name in names if name in held}
        return os.path.join(_fetch(flag, url, chosen, lambda what, done, total: None), folder)
    except OSError as error:
        raise _cannot_be_fetched(flag, url, error) from None


def _cannot_be_fetched(flag: str, url: str, error: OSError) -> ValueError:
    if isinstance(error, FileNotFoundError):
        return ValueError(f"--{flag}: {url}: no such file, checkpoint or folder in the storage")
    where = error.filename if error.filename and error.filename != url else ""
    return ValueError(f"--{flag}: {url} cannot be fetched{f' to {where}' if where else ''} ({error.strerror})")


def _named_by(url: str) -> tuple[str, dict[str, RemoteFile]]:
    """The local name of what a URL names, and the files to fetch by their local names. FileNotFoundError."""
    parent, _, name = url.rpartition("/")
    beside = {} if parent.endswith("/") else remote.list_folder_if_any(parent)
    if name in beside:
        chosen = {name} | set(fnmatch.filter(beside, "*.safetensors") if name == _INDEX else ())
    else:
        chosen = _checkpoint(beside, name)
    if chosen:
        folder = _folder_name(parent)
        return f"{folder}/{name}", _with_companions(parent, beside, chosen)
    held = remote.list_folder(url)
    return _folder_name(url), _with_companions(url, held, _model(url, held))


def _model(url: str, held: RemoteFolder) -> set[str]:
    """The names of a folder's weights. FileNotFoundError where there are none."""
    if _STATE in held and held[_STATE].num_bytes <= _MOST_STATE_BYTES:
        named = re.search(rb'^model_checkpoint_path: "(?:.*/)?([^"/]+)"', remote.read_small(held[_STATE].url), re.M)
        chosen = _checkpoint(held, os.fsdecode(named[1])) if named else set()
        if chosen:
            return {_STATE, *chosen}
    if _WEIGHTS in held:
        return {_WEIGHTS}
    if _INDEX in held:
        return {_INDEX, *fnmatch.filter(held, "*.safetensors")}
    raise FileNotFoundError(0, "a folder without weights", url)


def _checkpoint(held: RemoteFolder, prefix: str) -> set[str]:
    """The names of a TF1 checkpoint's files, none where it has no index."""
    pattern = re.compile(re.escape(prefix) + r"\.data-\d+-of-\d+")
    return {f"{prefix}.index", *filter(pattern.fullmatch, held)} if f"{prefix}.index" in held else set()


def _with_companions(url: str, held: RemoteFolder, chosen: Iterable[str]) -> dict[str, RemoteFile]:
    folder = _folder_name(url)
    names = dict.fromkeys([*sorted(chosen), *(name for name in _COMPANIONS if name in held)])
    found = {f"{folder}/{name}": held[name] for name in names}
    if folder == _BEST:
        above = remote.list_folder_if_any(url.rpartition("/")[0])
        found.update({name: above[name] for name in _COMPANIONS[:1] if name in above})
    return found


def _folder_name(url: str) -> str:
    """The last part of a URL, so that messages about a copy remind of it."""
    name = url.rpartition("/")[2]
    return name if re.fullmatch(r"[\w.-]*\w[\w.-]*", name) else "folder"


def _fetch(flag: str, url: str, chosen: Mapping[str, RemoteFile], report: ReportBytes) -> str:
    """The folder with the copies; other processes that want them wait here for the first."""
    identity = repr(sorted((name, *file) for name, file in chosen.items()))
    copies = files.cache_directory("fetched")
    folder = str(copies / hashlib.sha256(identity.encode()).hexdigest()[:24])
    if os.path.isdir(folder):
        return folder
    os.makedirs(copies, exist_ok=True)
    with locked_file(f"{folder}.lock") as is_alone:
        if is_alone:
            files.remove_partials(folder)
        if not os.path.isdir(folder):
            _write(f"fetching --{flag}", folder, chosen, report)
            print(f"{url} is fetched to {folder}", flush=True)
    return folder


def _write(what: str, folder: str, chosen: Mapping[str, RemoteFile], report: ReportBytes) -> None:
    count = remote.byte_counter(what, sum(file.num_bytes for file in chosen.values()), report)
    try:
        with files.atomic_directory(folder) as partial:
            for name, file in chosen.items():
                path = os.path.join(partial, name)
                os.makedirs(os.path.dirname(path), exist_ok=True)
                remote.download_file(file, path, count)
    except OSError:
        if not os.path.isdir(folder):  # else another process was first, on a file system without locks
            raise
