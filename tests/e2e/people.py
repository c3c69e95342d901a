"""Users for the end-to-end tests."""

from chutes_core.base.units import RAO_PER_TAO
from scripts.localuser import EXAMPLES, LocalUser


class TestUser(LocalUser):
    """A user who can also deploy an example under a username of its own."""

    __test__ = False

    def deploy_as_own(self, name, *, changes=()):
        """Deploy an example under this username, with other (old, new) texts replaced too."""
        folder = self._folder / "chutes"
        folder.mkdir(parents=True, exist_ok=True)
        text = (EXAMPLES / f"{name}.py").read_text()
        for old, new in (('username="demo"', f'username="{self.username}"'), *changes):
            assert old in text
            text = text.replace(old, new)
        (folder / f"{name}.py").write_text(text)
        return self.deploy(name, folder=folder)


def rich_user(net, url, username="demo"):
    """Return a registered user with a key and one TAO of credit."""
    user = TestUser(net, url, username)
    user.register()
    user.make_key()
    user.pay(RAO_PER_TAO)
    return user
