"""For which machine an image is: its name among images, its names among wheels, what markers see there."""

from __future__ import annotations

from dataclasses import dataclass

from modelserve.errors import InputError, NotSupportedError

#: As images call a processor, and as Linux and wheels call it.
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
# The C library that every base still maintained has: Debian 12, Ubuntu 22.04, RHEL 9, Amazon Linux 2023.
_NEWEST_GLIBC = 34
_OLDEST_GLIBC = 5
_LEGACY = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}


@dataclass(frozen=True, slots=True)
class Platform:
    """Linux on one kind of processor."""

    architecture: str

    def __post_init__(self) -> None:
        if self.architecture not in _MACHINES:
            raise _refused(str(self))

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Read "linux/amd64".

        Raises:
            InputError: there is no runtime image for it.
        """
        system, _, architecture = text.partition("/")
        if system != "linux":
            raise _refused(text)
        return cls(architecture)

    @property
    def machine(self) -> str:
        """As Linux calls the processor."""
        return _MACHINES[self.architecture]

    @property
    def wheel_platforms(self) -> list[str]:
        """The tags of wheels that run there, best first."""
        found: list[str] = []
        for minor in range(_NEWEST_GLIBC, _OLDEST_GLIBC - 1, -1):
            found.append(f"manylinux_2_{minor}_{self.machine}")
            found += [f"{_LEGACY[minor]}_{self.machine}"] if minor in _LEGACY else []
        return [*found, f"linux_{self.machine}"]

    def markers(self, python: str) -> dict[str, str]:
        """What the conditions of requirements see there.

        Args:
            python: Such as "3.12".
        """
        return {
            "implementation_name": "cpython",
            "implementation_version": f"{python}.0",
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": f"{python}.0",
            "python_version": python,
            "sys_platform": "linux",
        }

    def __str__(self) -> str:
        return f"linux/{self.architecture}"


def _refused(asked: str) -> InputError:
    known = ", ".join(f"linux/{architecture}" for architecture in _MACHINES)
    return InputError(f"There is no runtime image for {asked!r}; there are {known}.")


def refuse_accelerator(asked: str) -> None:
    """Say that the runtime image has no accelerator's libraries; for whoever is asked for one.

    Args:
        asked: What was asked for, such as "instance type 'ml.g5.xlarge'".
    """
    raise NotSupportedError(
        f"{asked} has an accelerator, and the runtime image runs on processors only: the accelerator would be paid for "
        "and stay idle. Choose a machine without one, or give an image of your own (image=) that has its libraries."
    )
