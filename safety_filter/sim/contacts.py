"""What touched what, judged at every physics step."""

from __future__ import annotations

from dataclasses import dataclass

import pybullet as p

FINGERS = ("panda_leftfinger", "panda_rightfinger")
HAND = ("panda_hand",)


@dataclass
class Contact:
    """One uninterrupted touch. Forces in N, times in s, `depth` the deepest penetration in m."""

    body: str  # the robot's link, or "held" for the object in the gripper
    other: str  # name of the object, or "table"
    role: str  # role of the other: "target", "destination", "object", "mover" or "table"
    start: float
    end: float
    peak_force: float
    depth: float

    @property
    def collision(self) -> bool:
        """Whether this touch should not have been.

        Allowed are fingers and hand on the target, fingers and the held object on the
        destination and on the table. Everything else counts, arm links on anything and a grasp of
        another object included.
        """
        if self.role == "target":
            return self.body not in (*FINGERS, *HAND)
        if self.role in ("destination", "table"):
            return self.body not in (*FINGERS, "held")
        return True


class ContactJudge:
    """Collects contacts of the robot and of the held object."""

    def __init__(self, client: int, robot: int, links: dict[int, str]) -> None:
        self._client = client
        self._robot = robot
        self._links = links
        self._open: dict[tuple[str, str], Contact] = {}
        self.contacts: list[Contact] = []

    def update(self, now: float, names: dict[int, tuple[str, str]], held: int | None) -> None:
        """Judge the physics step that ended at `now`.

        names: body id -> (name, role) of everything but the robot; held: body id in the gripper.
        """
        touching = set()
        points = [(self._links[c[3]], c) for c in p.getContactPoints(
            bodyA=self._robot, physicsClientId=self._client) if c[2] in names]
        if held is not None:
            points += [("held", c) for c in p.getContactPoints(
                bodyA=held, physicsClientId=self._client) if c[2] in names]
        for body, c in points:
            name, role = names[c[2]]
            force, depth = float(c[9]), max(0.0, -float(c[8]))
            # What moves through in one step leaves no force; what is only near has neither.
            apart = force <= 0.0 and depth <= 0.0
            if apart or (body == "panda_link0" and name == "table"):
                continue
            key = (body, name)
            touching.add(key)
            contact = self._open.get(key)
            if contact is None:
                contact = Contact(body, name, role, now, now, force, depth)
                self._open[key] = contact
                self.contacts.append(contact)
            contact.end = now
            contact.peak_force = max(contact.peak_force, force)
            contact.depth = max(contact.depth, depth)
        for key in list(self._open):
            if key not in touching:
                del self._open[key]

    @property
    def hit(self) -> set[str]:
        """Names of what is in a collision in the newest physics step."""
        return {c.other for c in self._open.values() if c.collision}

    @property
    def collisions(self) -> list[Contact]:
        """The contacts that should not have been."""
        return [c for c in self.contacts if c.collision]
