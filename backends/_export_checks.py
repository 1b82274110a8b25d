"""Checks of an export before it serves: for this runtime, verified, all as its manifest says.

Each raises `LoadError` with one sentence.
"""

from __future__ import annotations

from packaging.version import InvalidVersion, Version

from backends._export_folder import ExportFolder, Graph
from backends._session import Session
from router.manifest import FILE_NAME, Manifest


def check_verified(folder: ExportFolder, runtime: str) -> None:
    """A parity gate has passed it, and found that the runtime knows its operators."""
    manifest = folder.manifest
    if manifest and manifest.parity is None:
        raise folder.refusal(
            "was never verified; run `python -m export.verify` on it, or set option `unverified`"
        )
    if manifest and manifest.runtimes and runtime not in manifest.runtimes:
        raise folder.refusal(
            f"was checked for {', '.join(manifest.runtimes)} and not for {runtime};"
            f" export it with `--runtime {runtime}` too, or set option `unverified`"
        )


def check_version(folder: ExportFolder, runtime: str, version: str) -> None:
    """The runtime is not older than the one that made the pictures at the gate."""
    needed = _version_at_gate(folder.manifest, runtime) if folder.manifest else None
    if needed and _version(version) < _version(needed):
        raise folder.refusal(
            f"passed its gate with {runtime} {needed}, not {version}; pip install '{runtime}>={needed}'"
        )


def check_sizes(folder: ExportFolder) -> None:
    """The decoder makes pictures of the sizes that the profiles are said to be of."""
    cell = 2 ** (len(folder.config("vae").get("block_out_channels", [0] * 4)) - 1)
    profiles = {profile.name: profile for profile in folder.profiles}
    for graph in folder.graphs["vae_decoder"] if profiles else ():
        height, width = graph.inputs[0].shape[-2:]
        profile = profiles[graph.profile]
        if (height, width) != (profile.height // cell, profile.width // cell):
            raise folder.refusal(
                f"has a profile {profile.name!r} of another size than its graphs; export the model again"
            )


def check_files(folder: ExportFolder) -> None:
    """Configurations and graphs are there; with a manifest, every file has its hash. Reads them all: slow."""
    for name, graphs in folder.graphs.items():
        if not (folder.folder / name / "config.json").is_file():
            raise folder.refusal(f"lacks {name}/config.json; copy the whole export")
        for graph in graphs:
            if not graph.file.is_file():
                raise folder.refusal(f"lacks {name}/{graph.file.name}; copy the whole export")
    for sentence in folder.manifest.check_files(folder.folder) if folder.manifest else ():
        raise folder.refusal(f"is not as it was exported: {sentence.removesuffix('.')}")


def check_graph(folder: ExportFolder, graph: Graph, session: Session) -> None:
    """The graph takes what the manifest says; without a manifest, its axes vary."""
    name = f"{graph.file.parent.name}/{graph.file.name}"
    if folder.manifest is None:
        if not any(None in spec.shape for spec in session.inputs.values()):
            raise folder.refusal(f"has graphs of fixed shapes, {name}, and no {FILE_NAME}; copy it all again")
        return
    said = {record.name: (record.dtype, _static(record.shape)) for record in graph.inputs}
    found = {
        name: (str(spec.dtype).removeprefix("torch."), spec.shape) for name, spec in session.inputs.items()
    }
    if said != found:
        raise folder.refusal(f"has a graph {name} with other inputs than {FILE_NAME} says; export it again")


def _static(shape: tuple[int | str, ...]) -> tuple[int | None, ...]:
    return tuple(axis if isinstance(axis, int) else None for axis in shape)


def _version_at_gate(manifest: Manifest, runtime: str) -> str | None:
    """Of the runtime that made the pictures which were compared; else of the one that took part."""
    name, _, version = manifest.parity.runtime.partition(" ") if manifest.parity else ("", "", "")
    return version if name == runtime else manifest.tools.get(runtime)


def _version(said: str) -> Version:
    try:
        return Version(said)
    except InvalidVersion:
        return Version("0")
