"""Models on the Hugging Face hub (https://huggingface.co/docs/huggingface_hub): ``hf://user/name``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Self
from urllib.parse import quote, unquote

from sfdkit import __version__
from sfdkit.errors import CheckpointError, ConfigError, MissingError, SfdkitError, StorageError
from sfdkit.storage.urls import redact
from sfdkit.weights.folder import ABOUT, CARD, LOADED, WEIGHTS, read_about

SCHEME = "hf://"
_PART = r"[A-Za-z0-9_][\w.-]*"
_ADDRESS = re.compile(rf"hf://({_PART}/{_PART})(?:@([\w.%-]+))?((?:/{_PART})*)/?", re.ASCII)


class HubAddress(NamedTuple):
    """A folder of a model repository on the hub."""

    repository: str
    """``user/name``."""
    revision: str | None = None
    """A branch, a tag or a commit; None for the main branch."""
    folder: str = ""
    """The folder in it; empty for the repository's own."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``hf://user/name``, ``hf://user/name@revision`` or either with ``/folder``.

        Raises:
            ConfigError: It has another form.
        """
        if not (match := _ADDRESS.fullmatch(text)):
            raise ConfigError(
                f"{redact(text)!r} is no address on the hub; write hf://user/name, hf://user/name@revision "
                "(with %2F for a slash in the revision), and /folder after it if the model is not at the top"
            )
        return cls(match[1], match[2] and unquote(match[2]), match[3].strip("/"))

    def __str__(self) -> str:
        revision = f"@{quote(self.revision, safe='')}" if self.revision else ""
        return f"{SCHEME}{self.repository}{revision}{'/' if self.folder else ''}{self.folder}"


class Fetched(NamedTuple):
    """A model of the hub in the cache of huggingface_hub."""

    weights: Path
    commit: str


def fetch(address: HubAddress) -> Fetched:
    """Download what loading a model needs into the cache of huggingface_hub, unless it is there.

    Raises:
        CheckpointError: What is there is no model of sfdkit.
        StorageError: There is no such repository or revision, access is refused, or the hub cannot be reached.
    """
    from huggingface_hub import hf_hub_download

    def load(name: str, revision: str | None) -> Path:
        with _one_line(address, name):
            return Path(hf_hub_download(address.repository, name, subfolder=address.folder, revision=revision))

    about = load(ABOUT, address.revision)
    commit = about.parents[len(Path(address.folder).parts)].name
    digests = read_about(about.parent)["sha256"]
    for name in LOADED:
        if name in digests:
            load(name, commit)
    return Fetched(about.with_name(WEIGHTS), commit)


def push(folder: Path, address: HubAddress, private: bool, revision: str | None) -> str:
    """Upload a model folder, its own files alone, and return the address of the commit.

    Args:
        folder: The folder; its caller has checked it.
        address: The repository, which is created unless it exists.
        private: Nobody else may see the repository; one that exists must be so.
        revision: A branch, which is created unless it exists; the main one by default.

    Raises:
        ConfigError: The address names a folder or a revision, or the repository is public.
        StorageError: The hub refuses or cannot be reached.
    """
    from huggingface_hub import HfApi

    if address.folder or address.revision:
        raise ConfigError(f"{address} is more than a repository; give hf://user/name, and a branch as --revision")
    api = HfApi(library_name="sfdkit", library_version=__version__)
    with _one_line(address, CARD):
        api.create_repo(address.repository, private=private or None, exist_ok=True)
        if private and not api.model_info(address.repository).private:
            raise ConfigError(f"private: {address} exists and is public; make it private on its page, or name another")
        if revision:
            api.create_branch(address.repository, branch=revision, exist_ok=True)
        done = api.upload_folder(
            repo_id=address.repository,
            folder_path=folder,
            allow_patterns=[ABOUT, CARD, *LOADED],
            revision=revision,
            commit_message=f"Upload a model of sfdkit {__version__}",
        )
    return str(done.commit_url)


@contextmanager
def _one_line(address: HubAddress, name: str) -> Iterator[None]:
    """Say in one line what huggingface_hub cannot do."""
    from huggingface_hub import constants, errors

    log_in = "log in with a token that has the right (hf auth login, or HF_TOKEN in the environment)"
    try:
        yield
    except SfdkitError:
        raise
    except errors.GatedRepoError:
        raise StorageError(f"{address} asks for consent: accept its conditions on its page, and {log_in}") from None
    except errors.RepositoryNotFoundError:
        raise MissingError(
            f"there is no {address} on {constants.ENDPOINT}, or it is private: check the name, or {log_in}"
        ) from None
    except errors.RevisionNotFoundError:
        raise MissingError(f"{address} has no such revision; check the branch, tag or commit after the @") from None
    except errors.LocalEntryNotFoundError as error:
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else _words(error.__cause__ or error)
        raise StorageError(
            f"{address}: {constants.ENDPOINT} cannot be reached ({why}), and {name} is not in the cache; "
            "check the network, or give a folder on this machine"
        ) from None
    except errors.EntryNotFoundError:
        raise CheckpointError(
            f"{address} is no model folder: it lacks {name}; sfdkit model push uploads what sfdkit model save wrote"
        ) from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise StorageError(f"{address}: access is refused (status {status}); {log_in}") from None
        raise StorageError(f"{address}: {_words(error)}; try again later") from None
    except ValueError as error:
        raise ConfigError(f"{address}: {_words(error)}; correct it and try again") from None
    except Exception as error:  # of the library for http, which is another one in each release
        raise StorageError(f"{address}: {_words(error)}; check the network and try again") from None


def _words(error: BaseException) -> str:
    return redact(" ".join(str(error).split()))[:300] or type(error).__name__
