"""Files that are either whole or absent: atomic writes, and safetensors with a state and a checksum.

A file is one safetensors document. Its metadata has a single key, `pymgan`, whose value is a JSON object

    {"format": 1, "kind": "run" | "generator", "sha256": ..., "state": {...}}

A single key because safetensors keeps metadata in a hash map: two keys would come in any order and the same
state would not give the same bytes. The checksum covers the state and every tensor's name, type, shape and
bytes. Nothing here depends on the time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import CheckpointError

__all__ = ["FORMAT", "atomic_write", "decode", "encode", "load", "save"]

FORMAT = 1


def atomic_write(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path` so that a reader, or a crash, sees the old file or the new one and nothing
    between.

    Raises:
        OSError: the folder is read-only, full, or not there; the message names the file and says what to do.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            _sync_folder(path.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: str | os.PathLike[str], error: OSError) -> OSError:
    """The same kind of OSError with a message that names the file and the way out."""
    reason = error.strerror or str(error)
    return OSError(
        error.errno, f"cannot write {path}: {reason}; free some space there or choose another folder"
    )


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable. Not every system can open a folder."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def encode(tensors: Mapping[str, Tensor], state: Mapping[str, Any], *, kind: str) -> bytes:
    """The bytes of one checkpoint; equal content gives equal bytes."""
    from safetensors.torch import save as to_bytes

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = _canonical(state)
    header = _canonical(
        {"format": FORMAT, "kind": kind, "sha256": _digest(plain, text), "state": json.loads(text)}
    )
    return to_bytes(plain, metadata={"pymgan": header})


def decode(data: bytes, *, kind: str, source: str = "the data") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and state of `encode`'s bytes.

    Raises:
        CheckpointError: truncated, damaged, foreign, of another kind or of a newer format.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load as from_bytes

    header = _header(data, source)
    try:
        tensors = from_bytes(data)
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(
            f"{source} is truncated or damaged ({error}); restore it from a copy"
        ) from error
    if header.get("format") != FORMAT:
        raise CheckpointError(
            f"{source} has checkpoint format {header.get('format')}, expected {FORMAT}; use the pymgan "
            "that wrote it"
        )
    if header.get("kind") != kind:
        raise CheckpointError(f"{source} holds a {header.get('kind')!r}, expected a {kind!r}")
    state = header.get("state")
    if not isinstance(state, dict) or header.get("sha256") != _digest(tensors, _canonical(state)):
        raise CheckpointError(f"{source} is damaged: its checksum does not match; restore it from a copy")
    return tensors, state


def save(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], state: Mapping[str, Any], *, kind: str
) -> None:
    """Write one checkpoint atomically."""
    atomic_write(path, encode(tensors, state, kind=kind))


def load(path: str | os.PathLike[str], *, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read one checkpoint.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: see `decode`.
    """
    return decode(Path(path).read_bytes(), kind=kind, source=str(path))


def _header(data: bytes, source: str) -> dict[str, Any]:
    """The JSON object under safetensors' metadata key `pymgan`."""
    foreign = f"{source} is not a pymgan checkpoint"
    if len(data) < 8:
        raise CheckpointError(f"{foreign}: expected a safetensors file, got {len(data)} bytes")
    (size,) = struct.unpack("<Q", data[:8])
    if size > len(data) - 8:
        raise CheckpointError(
            f"{foreign}, or it is truncated: its header does not fit into its {len(data)} bytes"
        )
    try:
        header = json.loads(data[8 : 8 + size])["__metadata__"]["pymgan"]
        parsed = json.loads(header)
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{foreign}: expected safetensors metadata with the key 'pymgan'") from error
    if not isinstance(parsed, dict):
        raise CheckpointError(f"{foreign}: expected a JSON object under the key 'pymgan'")
    return parsed


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _digest(tensors: Mapping[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()
