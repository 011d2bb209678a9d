"""Workflow: a model folder goes to the Hub, after a dry run, private unless the user says otherwise.

The token is the one that ``hf auth login`` or ``HF_TOKEN`` gave to huggingface_hub; it is never read into a
message, a log or a file of ours.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import yaml
from huggingface_hub import CommitOperationAdd, HfApi, ModelCard, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError
from huggingface_hub.utils._validators import validate_repo_id
from huggingface_hub.utils.sha import git_hash

from embedtrain.errors import UserError
from embedtrain.models.backbone.fetching import first_line
from embedtrain.release.servers import loading_problems

REFUSED = (".bin", ".pt", ".pth", ".pkl", ".ckpt", ".py")
"""Endings of files that can run code where they are loaded."""


@dataclass(frozen=True)
class Upload:
    """What would be uploaded, and where to."""

    folder: Path
    repository: str
    private: bool
    files: tuple[tuple[str, int], ...]
    """Paths in the repository and bytes."""
    problems: dict[str, list[str]]
    """Reader to the reasons why it would not give the same vectors."""

    @property
    def num_bytes(self) -> int:
        """Bytes of all files."""
        return sum(size for _, size in self.files)


def plan_push(folder: Path, repository: str, *, public: bool = False) -> Upload:
    """Check a model folder and say what an upload would do; nothing leaves this machine.

    Raises:
        UserError: If the name cannot be a repository, the card is missing or invalid, or a file could run
            code when loaded.
    """
    try:
        validate_repo_id(repository)
        whole = repository.count("/") == 1
    except HFValidationError:
        whole = False
    if not whole:
        raise UserError(
            "--push", "needs a name like org/name", got=repository, cure="Write org/name"
        )
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if refused := [path for path in files if path.suffix in REFUSED]:
        raise UserError(
            folder, "holds a file that can run code", got=refused[0].name, cure="Remove it"
        )
    check_card(folder / "README.md")
    sizes = tuple((path.relative_to(folder).as_posix(), path.stat().st_size) for path in files)
    return Upload(folder, repository, not public, sizes, loading_problems(folder))


def check_card(path: Path) -> None:
    """Let huggingface_hub read the card's metadata and its results.

    Raises:
        UserError: If the card is missing or the Hub would refuse it.
    """
    if not path.is_file():
        raise UserError(path, "is missing", cure="Export from the run folder, which has a card")
    try:
        card = ModelCard(path.read_text(encoding="utf-8"))
    except (ValueError, TypeError, KeyError, yaml.YAMLError) as error:
        raise UserError(path, "is no valid card", got=first_line(error)) from error
    if "model-index" in card.content and not getattr(card.data, "eval_results", None):
        raise UserError(path, "has a model-index that the Hub cannot read", cure="Export it again")


def push(upload: Upload) -> str:
    """Create the repository, upload all files in one commit, and compare hashes with what the Hub then has.

    Returns:
        The address of the commit.

    Raises:
        UserError: If there is no token, the Hub refuses, the repository is public but should not be, or what
            it holds afterwards is not what was sent.
    """
    if get_token() is None:
        raise UserError(
            "--push", "needs a token of the Hub", cure="Run `hf auth login` or set HF_TOKEN"
        )
    api = HfApi()
    try:
        _create(api, upload)
        operations = [
            CommitOperationAdd(path_in_repo=name, path_or_fileobj=upload.folder / name)
            for name, _ in upload.files
        ]
        commit = api.create_commit(
            upload.repository, operations, commit_message="Upload a model exported by embedtrain"
        )
        _compare(api, upload, str(commit.oid))
    except UserError:
        raise
    except (HfHubHTTPError, OSError, ValueError, RuntimeError) as error:
        raise UserError(
            upload.repository,
            "could not be uploaded",
            got=first_line(error),
            cure="Check the name, the network and the rights of the token; nothing local was changed",
        ) from error
    return str(commit.commit_url)


def _create(api: HfApi, upload: Upload) -> None:
    try:
        found = api.model_info(upload.repository)
    except RepositoryNotFoundError:
        api.create_repo(upload.repository, private=upload.private)
        return
    if upload.private and not found.private:
        raise UserError(
            upload.repository, "exists and is public", cure="Add --public, or choose another name"
        )


def _compare(api: HfApi, upload: Upload, revision: str) -> None:
    """Compare the hashes that the Hub states: SHA-256 of large files, git's of small ones."""
    info = api.model_info(upload.repository, revision=revision, files_metadata=True)
    stated = {one.rfilename: one for one in info.siblings or ()}
    for name, _ in upload.files:
        there = stated.get(name)
        content = (upload.folder / name).read_bytes()
        if there is not None and there.lfs is not None:
            same = there.lfs.sha256 == hashlib.sha256(content).hexdigest()
        else:
            same = there is not None and there.blob_id == git_hash(content)
        if not same:
            raise UserError(
                upload.repository, "holds another file than was sent", got=name, cure="Push again"
            )
