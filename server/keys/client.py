"""The client that an API key identifies."""

from __future__ import annotations

from server.keys.api_key import Profile, Role
from server.keys.usage import ClientUsage


class Client:
    """One for each name in the keys, for as long as the server runs and the name exists.

    name None: the only client of a server without keys, which may do everything.
    """

    def __init__(self, profile: Profile | None) -> None:
        self.profile = profile or Profile("", Role.ADMIN)
        self.name = None if profile is None else profile.name
        self.is_admin = self.profile.role is Role.ADMIN
        self.usage = ClientUsage()
        self.usage.set_limits(self.profile.limits)

    def update(self, profile: Profile, *, alone: bool) -> None:
        """Called after the keys were read. alone: there is no other client that it could affect."""
        if profile.limits != self.profile.limits:
            self.usage.set_limits(profile.limits)
        self.profile = profile
        self.is_admin = profile.role is Role.ADMIN or (alone and profile.role is None)

    def may_see(self, owner: str | None) -> bool:
        """Whether it may see the running requests of the client with this name."""
        return self.is_admin or owner == self.name
