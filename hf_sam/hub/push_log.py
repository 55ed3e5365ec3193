"""What could not be pushed to the Hub, told in one message with the command that pushes it later."""

import logging
import os
import shlex
import threading
from concurrent.futures import Future
from typing import Any

from huggingface_hub import constants, get_token


logger = logging.getLogger(__name__)

REASONS = {
    401: "the Hub does not accept the token",
    403: "the token has no right to write there",
    404: "there is no such repository or revision, or the token may not see it",
    413: "the storage quota is full, or a file is too large",
    429: "too many requests",
}


class PushLog:
    """
    Keeps account of what is missing on the Hub, and logs it.

    Args:
        args ([`~transformers.TrainingArguments`]): the Trainer's.
    """

    def __init__(self, args: Any):
        self.args = args
        self.token = args.hub_token
        self.repository = args.hub_model_id or os.path.basename(os.path.abspath(args.output_dir))
        self.creation_error: Exception | None = None
        #: Path in the repository ("" is the model at its root) -> local folder.
        self.missing: dict[str, str] = {}
        self._skipped: dict[str, str] = {}
        self._running: list[tuple[Future, str, str]] = []
        self._lock = threading.RLock()
        self._reason = ""
        self._told: set[str] = set()
        self._last_message = ""

    def cannot_create(self, error: Exception) -> None:
        """The repository could not be created, so nothing can be pushed now."""
        self.creation_error = error
        self._reason = explain(error, self.token)
        if self._reason not in self._told:
            self._told.add(self._reason)
            logger.warning(
                f"Cannot push to {self.repository} on the Hub: {self._reason}. Training goes on, and every push tries "
                f"again.{self._remedy()}"
            )

    def failed(self, path_in_repo: str, folder: str, error: BaseException | None = None) -> None:
        """A push failed; without `error`, since the repository could not be created."""
        self.missing[path_in_repo] = folder
        self._reason = explain(self.creation_error if error is None else error, self.token)

    def skipped(self, path_in_repo: str, folder: str) -> None:
        """Nothing was pushed, since the push before is not finished; told only if something fails."""
        self._skipped[path_in_repo] = folder

    def pushed(self, path_in_repo: str) -> None:
        self._skipped.pop(path_in_repo, None)
        if self.missing.pop(path_in_repo, None) is not None and not self.missing:
            self._told.clear()
            self._last_message = ""
            logger.warning(f"Pushing to {self.repository} works again: nothing is missing on the Hub.")

    def watch(self, push: Future, path_in_repo: str, folder: str, outlook: str = "") -> None:
        """Account for a push in the background when it ends. `outlook`: what happens after a failure."""
        with self._lock:
            self._running.append((push, path_in_repo, folder))
        push.add_done_callback(lambda _: self._settle(outlook))

    def _settle(self, outlook: str | None = None) -> None:
        """Account for the pushes that have ended; with `outlook`, log a reason that is new."""
        with self._lock:
            ended = [push for push in self._running if push[0].done()]
            self._running = [push for push in self._running if push not in ended]
            for push, path_in_repo, folder in ended:
                if push.cancelled():
                    continue
                if push.exception() is None:
                    self.pushed(path_in_repo)
                else:
                    self.failed(path_in_repo, folder, push.exception())
            if outlook is not None and self._reason not in self._told:
                self._log_missing(outlook)

    def report(self, repeat: bool = False) -> None:
        """
        Log what is missing, unless the same was logged last.

        Args:
            repeat (`bool`, *optional*, defaults to `False`): say at least that nothing has changed.
        """
        with self._lock:
            # A callback may still be on its way in its thread.
            self._settle()
            if self.missing and self.message() != self._last_message:
                self._log_missing()
            elif self.missing and repeat:
                logger.error(f"Not pushed to {self.repository}, for the same reason as before: {self._reason}.")

    def _log_missing(self, outlook: str = "") -> None:
        if self.missing:
            self._told.add(self._reason)
            self._last_message = self.message()
            # In the middle of training there may be a progress bar in the middle of its line.
            logger.error(("\n" if outlook else "") + self.message(outlook))

    def message(self, outlook: str = "") -> str:
        missing = self.missing | self._skipped
        things = ["the model" if path == "" else path for path in missing]
        kept = {path: folder for path, folder in missing.items() if os.path.isdir(folder)}
        gone = [path for path in missing if path not in kept]
        lines = [f"Not pushed to {self.repository} on the Hub: {', '.join(things)}. The reason: {self._reason}."]
        lines += [f"{outlook}Nothing is lost: everything is in {os.path.abspath(self.args.output_dir)}"]
        if gone:
            lines[-1] += f", except {', '.join(gone)}, which save_total_limit has removed"
        lines[-1] += f".{self._remedy()} To push it later:"
        return "\n".join(lines + [f"    {self._command(path, folder)}" for path, folder in kept.items()])

    def _command(self, path_in_repo: str, folder: str) -> str:
        words = ["hf", "upload", self.repository, os.path.abspath(folder), path_in_repo or "."]
        if path_in_repo == "":
            words += ["--exclude", "checkpoint-*", "--exclude", "_*"]
        if self.args.hub_revision is not None:
            words += ["--revision", self.args.hub_revision]
        if self.args.hub_private_repo:
            words += ["--private"]
        return shlex.join(words)

    def _remedy(self) -> str:
        if self._reason.startswith("no token"):
            return " Log in first, with `hf auth login` or HF_TOKEN."
        if self._reason.startswith(("401", "403")):
            return f" A token that may write comes from {constants.ENDPOINT}/settings/tokens, for `hf auth login`."
        if self.token is not None:
            # The command would not find a token that was given to the Trainer.
            return " Log in first, with `hf auth login` and the token that you gave to the Trainer."
        return ""


def explain(error: BaseException, token: str | None = None) -> str:
    """
    Why a push failed, in a phrase, without any token.

    Args:
        error (`BaseException`): what the Hub's client raised.
        token (`str`, *optional*): the token in use, if it is not the one that is logged in.
    """
    token = token or get_token()
    while getattr(error, "response", None) is None and isinstance(error, RuntimeError) and error.__cause__ is not None:
        error = error.__cause__  # the client wraps what went wrong with one file
    response = getattr(error, "response", None)
    if response is None:
        text = f"{type(error).__name__}: {error}"
        if isinstance(error, ConnectionError) or type(error).__module__.startswith("httpx"):
            text = f"the connection failed ({text})"
    elif response.status_code == 401 and token is None:
        return "no token was found"
    else:
        status = response.status_code
        reason = REASONS.get(status, "the Hub failed" if status >= 500 else "the Hub refused")
        said = response.headers.get("X-Error-Message")
        text = f"{status}, {reason}" + (f" ({said})" if said else "")
    text = " ".join(text.split()).rstrip(".")
    return text if token is None else text.replace(token, "<HUB_TOKEN>")
