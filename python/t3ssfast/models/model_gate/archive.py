"""The zip archive around a TorchScript model: the members it may have, read, checked, and written anew."""

from __future__ import annotations

import io as stdio
import re
import zipfile
import zlib
from collections.abc import Mapping

from t3ssfast.models.model_gate.refusal import Refusal, quoted

__all__ = ["read_members", "write_members"]

# What follows the archive's one top folder. Tensors, pickles, code and the version as PyTorch writes them;
# source maps and recorded inputs of traced models are left out of what is written, as are other programs'
# extra files.
KEPT = re.compile(
    r"data\.pkl|constants\.pkl|version|\.data/version|byteorder"
    r"|(data|constants)/[0-9A-Za-z_]{1,64}"
    r"|code/__torch__(/[0-9A-Za-z_]{1,200}){0,40}\.py",
    re.ASCII,
)
DROPPED = re.compile(
    r".*\.debug_pkl|traced_inputs\.pkl|traced_inputs/[0-9A-Za-z_]{1,64}|extra/.*"
    r"|\.data/serialization_id|\.format_version|\.storage_alignment",
    re.ASCII,
)
# Code may be compressed; honest code unpacks to a hundredth of this.
MOST_UNPACKED_BYTES = 32 << 20
MOST_MEMBERS = 50_000
ENCRYPTED = 0x1


def read_members(content: bytes, extra: str) -> dict[str, bytes]:
    """The members of an archive that loading needs, by their names below the top folder.

    Parameters
    ----------
    content
        Of the file.
    extra
        The one extra file that is kept.

    Raises
    ------
    Refusal
        The archive is damaged, ambiguous, or holds what no TorchScript file holds.
    """
    try:
        with zipfile.ZipFile(stdio.BytesIO(content)) as archive:
            entries = archive.infolist()
            top = _check_names(entries)
            members = {}
            # Members may not share bytes, so what is stored is no more than the file itself.
            left = len(content) + MOST_UNPACKED_BYTES
            for entry in entries:
                name = entry.filename.removeprefix(top)
                if KEPT.fullmatch(name) or name == f"extra/{extra}":
                    left -= entry.file_size
                    _check_entry(entry, name, left)
                    members[name] = archive.read(entry)
                elif not DROPPED.fullmatch(name):
                    raise Refusal(f"it holds a member {quoted(name)}, which no TorchScript file has")
    except Refusal:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError) as error:
        raise Refusal(f"its archive is damaged ({quoted(str(error))})") from error
    except RuntimeError as error:  # encrypted, or a compression that this Python was built without
        raise Refusal(f"its archive cannot be read ({quoted(str(error))})") from error
    return members


def _check_names(entries: list[zipfile.ZipInfo]) -> str:
    """The top folder with its slash, if all names are unambiguous and lie in it."""
    if not entries or len(entries) > MOST_MEMBERS:
        raise Refusal(f"its archive has {len(entries)} members")
    top = entries[0].filename.partition("/")[0] + "/"
    seen: set[str] = set()
    for entry in entries:
        name = entry.filename
        parts = name.split("/")
        if (
            name != entry.orig_filename
            or not (name.isascii() and name.isprintable())
            or "\\" in name
            or ":" in name
            or any(part in ("", ".", "..") for part in parts)
            or len(parts) < 2
        ):
            raise Refusal(f"its archive has a member of the name {quoted(entry.orig_filename)}")
        if not name.startswith(top):
            raise Refusal(f"its archive has two top folders, {quoted(top)} and {quoted(parts[0])}")
        if name.lower() in seen:
            raise Refusal(f"its archive has two members of the name {quoted(name)}")
        seen.add(name.lower())
    return top


def _check_entry(entry: zipfile.ZipInfo, name: str, left: int) -> None:
    """Refuse what is encrypted, oddly packed, or unpacks to too much."""
    if entry.flag_bits & ENCRYPTED:
        raise Refusal(f"its member {quoted(name)} is encrypted")
    code = name.endswith(".py") or name.startswith("extra/")
    if entry.compress_type not in (
        (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) if code else (zipfile.ZIP_STORED,)
    ):
        raise Refusal(f"its member {quoted(name)} is compressed in a way that PyTorch does not write")
    if left < 0:
        raise Refusal(f"its members unpack to over {MOST_UNPACKED_BYTES >> 20} MiB more than the file holds")


def write_members(members: Mapping[str, bytes]) -> bytes:
    """An archive of exactly these members, stored plainly."""
    content = stdio.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(f"archive/{name}"), data)
    return content.getvalue()
