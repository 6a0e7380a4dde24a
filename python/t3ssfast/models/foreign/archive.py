"""The zip archive around a TorchScript model: which members it may have, and their content."""

from __future__ import annotations

import io as stdio
import re
import zipfile
import zlib

from t3ssfast.models.foreign.refusal import Refusal, quoted

__all__ = ["open_zip", "read_members"]

# Names below the archive's one top folder. Source maps, recorded inputs of traced models and extra files of
# other programs are ignored.
READ = re.compile(
    r"data\.pkl|constants\.pkl|version|\.data/version|byteorder"
    r"|(data|constants)/[0-9A-Za-z_]{1,64}"
    r"|code/__torch__(/[0-9A-Za-z_]{1,200}){0,40}\.py",
    re.ASCII,
)
IGNORED = re.compile(
    r".*\.debug_pkl|traced_inputs\.pkl|traced_inputs/[0-9A-Za-z_]{1,64}|extra/.*"
    r"|\.data/serialization_id|\.format_version|\.storage_alignment",
    re.ASCII,
)
# ResNet-18 has 60 kB of source.
MAX_SOURCE_BYTES = 1 << 20
MAX_EXTRA_BYTES = 1 << 20
MAX_MEMBERS = 50_000
ENCRYPTED = 0x1


def open_zip(content: bytes) -> zipfile.ZipFile:
    """Open a zip file; `BadZipFile` if its directory would take far more memory than a model's."""
    if content.count(b"PK\1\2") > MAX_MEMBERS:  # before each entry
        raise zipfile.BadZipFile(f"it has over {MAX_MEMBERS} members")
    return zipfile.ZipFile(stdio.BytesIO(content))


def read_members(content: bytes, extra: str) -> dict[str, bytes]:
    """Read the members of an archive that hold the model, by their names below the top folder.

    Parameters
    ----------
    content
        Content of the file.
    extra
        Name of the one extra file that is read.

    Raises
    ------
    Refusal
        The archive is damaged or ambiguous, or holds a member that no TorchScript file has.
    """
    try:
        with open_zip(content) as archive:
            entries = archive.infolist()
            top = _check_names(entries)
            members = {}
            # Stored members may not share bytes, so they are no longer than the file in total.
            stored, source = len(content), MAX_SOURCE_BYTES
            for entry in entries:
                name = entry.filename.removeprefix(top)
                if not (READ.fullmatch(name) or name == f"extra/{extra}"):
                    if not IGNORED.fullmatch(name):
                        raise Refusal(f"it holds a member {quoted(name)}, which no TorchScript file has")
                    continue
                _check_entry(entry, name)
                if name.startswith("code/"):
                    source -= entry.file_size
                elif not name.startswith("extra/"):
                    stored -= entry.file_size
                if min(stored, source) < 0:
                    raise Refusal("its members unpack to more than the file holds, or to over 1 MiB of code")
                members[name] = archive.read(entry)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError) as error:
        raise Refusal(f"its archive is damaged ({quoted(str(error))})") from error
    except RuntimeError as error:  # encrypted, or a compression that this Python was built without
        raise Refusal(f"its archive cannot be read ({quoted(str(error))})") from error
    return members


def _check_names(entries: list[zipfile.ZipInfo]) -> str:
    """Return the top folder with its slash, if all names are unambiguous and lie in it."""
    if not entries or len(entries) > MAX_MEMBERS:
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
            raise Refusal(f"its archive has a member named {quoted(entry.orig_filename)}")
        if not name.startswith(top):
            raise Refusal(f"its archive has two top folders, {quoted(top)} and {quoted(parts[0])}")
        if name.lower() in seen:
            raise Refusal(f"its archive has two members named {quoted(name)}")
        seen.add(name.lower())
    return top


def _check_entry(entry: zipfile.ZipInfo, name: str) -> None:
    """Refuse what is encrypted, compressed in another way than PyTorch does, or too large."""
    if entry.flag_bits & ENCRYPTED:
        raise Refusal(f"its member {quoted(name)} is encrypted")
    compressible = name.startswith(("code/", "extra/"))
    if entry.compress_type != zipfile.ZIP_STORED and not (
        compressible and entry.compress_type == zipfile.ZIP_DEFLATED
    ):
        raise Refusal(f"its member {quoted(name)} is compressed in a way that PyTorch does not write")
    if name.startswith("extra/") and entry.file_size > MAX_EXTRA_BYTES:
        raise Refusal(f"its metadata have {entry.file_size} bytes, over 1 MiB")
