"""A real Kamailio as the proxy in front of the PBX, with the configuration that docs/pbx/kamailio.cfg recommends."""

import socket

from tree import HERE, Program

RECIPE = HERE.parents[1] / "docs" / "pbx" / "kamailio.cfg"


class Kamailio(Program):
    """One Kamailio. `words` maps what stands in the recipe to what holds here."""

    def __init__(self, name, address, words):
        super().__init__(name)
        self.address = address
        text = RECIPE.read_text()
        for theirs, ours in words.items():
            assert theirs in text, f"{RECIPE} does not speak of {theirs}"
            text = text.replace(theirs, ours)
        (self.run / "kamailio.cfg").write_text(text)

    def start(self):
        """Returns once it listens."""
        modules = next(self.root.glob("usr/lib/*/kamailio/modules"))
        self.launch("/usr/sbin/kamailio", "-DD", "-E", "-m", "32", "-M", "4", "-Y", self.inside, "-w", self.inside,
                    "-L", "/" + str(modules.relative_to(self.root)), "-f", f"{self.inside}/kamailio.cfg")
        return self.until(self._listens, 10, "Kamailio did not listen")

    def _listens(self):
        try:
            socket.create_connection((self.address, 5060), timeout=1).close()
            return True
        except OSError:
            return False
