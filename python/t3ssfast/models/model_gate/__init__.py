"""Validation of model files before PyTorch loads them.

A TorchScript file is a program: PyTorch runs parts of it while loading, and some operators write files. This
package therefore parses the archive, its pickles and its code without running anything, accepts only what
inference of a network needs, and writes a new archive from the parsed parts. PyTorch loads that archive, not
the original file.
"""

from __future__ import annotations

import re

from t3ssfast.errors import ModelError
from t3ssfast.models.model_gate.archive import read_members, write_members
from t3ssfast.models.model_gate.code import vet_code
from t3ssfast.models.model_gate.kinds import Kind
from t3ssfast.models.model_gate.pickles import Instance, read_pickle, storages_of, write_pickle
from t3ssfast.models.model_gate.refusal import Refusal, quoted

__all__ = ["vet"]

VERSION = re.compile(rb"\d{1,2}\n?", re.ASCII)


def vet(content: bytes, name: str, extra: str) -> bytes:
    """Rebuild a TorchScript archive from the parts of a file that inference needs.

    Parameters
    ----------
    content
        Content of the untrusted file.
    name
        Name of the file, for messages.
    extra
        Name of the one extra file in the archive to keep.

    Returns
    -------
    An archive with the same weights, and the same operators in the same order.

    Raises
    ------
    ModelError
        The file contains something that inference does not need.
    """
    try:
        return _rewritten(content, extra)
    except Refusal as refusal:
        raise ModelError(
            f"{name} is refused: {refusal}; save the model again with t3ssfast.models.save_model, or load it "
            "with trust_model=True (--trust-model) if you trust its author as you would for a program."
        ) from refusal


def _rewritten(content: bytes, extra: str) -> bytes:
    members = read_members(content, extra)
    for needed in ("data.pkl", "constants.pkl"):
        if needed not in members:
            raise Refusal(f"its archive has no {needed}")
    if members.get("byteorder", b"little") != b"little":
        raise Refusal("it was saved on a machine of another byte order")
    versions = [members[place] for place in ("version", ".data/version") if place in members]
    if len(versions) != 1 or not VERSION.fullmatch(versions[0]):
        raise Refusal(f"its version is {quoted(versions)}")
    constants = read_pickle(members["constants.pkl"], "constants.pkl")
    if not isinstance(constants, tuple):
        raise Refusal("it has no table of constants")
    sources = {
        member.removeprefix("code/").removesuffix(".py").replace("/", "."): source
        for member, source in members.items()
        if member.startswith("code/")
    }
    code, fields = vet_code(sources, len(constants))
    model = read_pickle(members["data.pkl"], "data.pkl")
    if not isinstance(model, Instance):
        raise Refusal("it does not hold a module")
    data, data_storages = write_pickle(model, Kind(model.class_name), fields, "data.pkl")
    table, table_storages = write_pickle(constants, None, fields, "constants.pkl")
    written = {
        **storages_of(data_storages, "data", members),
        "data.pkl": data,
        **{f"code/{prefix.replace('.', '/')}.py": source for prefix, source in code.items()},
        **storages_of(table_storages, "constants", members),
        "constants.pkl": table,
        "version": versions[0],
        "byteorder": b"little",
    }
    if f"extra/{extra}" in members:
        written[f"extra/{extra}"] = members[f"extra/{extra}"]
    return write_members(written)
