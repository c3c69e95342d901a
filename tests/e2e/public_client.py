"""The public `chutes` client, unmodified, in a virtual environment of its own.

It is installed once into .cache/public-client and used as its users use it: by its command line,
with its configuration file, answering its questions on standard input.
"""

import os
import subprocess
import sys
import threading
from pathlib import Path

from scripts.localnet import ROOT, write_wallet

VENV = ROOT / ".cache" / "public-client"
PACKAGES = ("chutes>=0.6,<0.7", "openai>=1")
INSTALL_TIMEOUT_S = 600
COMMAND_TIMEOUT_S = 400


def installed():
    """Return the folder of the client's commands, or why it cannot be had."""
    binaries = VENV / "bin"
    if (binaries / "chutes").exists():
        return binaries, ""
    try:
        for command in (
            (sys.executable, "-m", "venv", str(VENV)),
            (str(binaries / "pip"), "install", "--quiet", *PACKAGES),
        ):
            subprocess.run(command, check=True, capture_output=True, timeout=INSTALL_TIMEOUT_S)
    except (subprocess.SubprocessError, OSError) as error:
        said = getattr(error, "stderr", None) or b""
        return None, f"{error}: {said.decode(errors='replace')[-300:]}"
    return binaries, ""


class PublicClient:
    """One user of the public client at one validator."""

    def __init__(self, folder, binaries, url):
        self.folder = folder
        self.url = url
        self._binaries = binaries
        self.code = folder / "code"
        self.code.mkdir(parents=True)
        self._environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "CHUTES_API_URL": url,
            "CHUTES_CONFIG_PATH": str(folder / "config.ini"),
            "COLUMNS": "200",
        }

    def run(self, *arguments, answers="y\ny\n", timeout_s=COMMAND_TIMEOUT_S):
        """Run `chutes …` as a user at a terminal would and return what it printed."""
        command = [str(self._binaries / "chutes"), *arguments]
        return self._run(command, answers, timeout_s)

    def python(self, script, *arguments):
        """Run a script in the client's environment and return what it printed."""
        command = [str(self._binaries / "python"), "-c", script, *arguments]
        return self._run(command, "", COMMAND_TIMEOUT_S)

    def watch(self, *arguments, until, timeout_s=COMMAND_TIMEOUT_S):
        """Run a command that never ends until it prints a text; return what it printed."""
        process = subprocess.Popen(
            [str(self._binaries / "chutes"), *arguments],
            cwd=self.code,
            env={**self._environ, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        cut = threading.Timer(timeout_s, process.kill)
        cut.start()
        printed = []
        try:
            for line in process.stdout:
                printed.append(line)
                if until in line:
                    break
        finally:
            cut.cancel()
            process.kill()
            process.stdout.close()
            process.wait()
        return "".join(printed)

    def register(self, username, coldkey, hotkey):
        """Make a wallet in btcli's layout and register with it."""
        wallets = self.folder / "wallets"
        write_wallet(Path(wallets), username, coldkey, hotkey, with_coldkey=False)
        return self.run(
            *("register", "--username", username, "--wallets-path", str(wallets)),
            *("--wallet", username, "--hotkey", "default"),
        )

    def _run(self, command, answers, timeout_s):
        done = subprocess.run(
            command,
            cwd=self.code,
            env=self._environ,
            input=answers,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            check=False,
        )
        return done.stdout
