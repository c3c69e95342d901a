"""Chute files made by chance: image directives, node selectors, cords with all kinds of hints."""

import random

HEAD = """
import enum
from typing import *

from fastapi import Response
from pydantic import BaseModel, Field

from chutes.chute import Chute, NodeSelector
from chutes.chute.job import Port
from chutes.image import Image


class Colour(enum.Enum):
    red = "red"
    blue = "blue"


class Level(enum.IntEnum):
    low = 1
    high = 2


class Inner(BaseModel):
    size: int = Field(3, ge=1, le=9, description="how large")
    name: Optional[str] = None


class Outer(Inner):
    parts: List[Inner] = []
    level: Level = Level.low
    by_name: Dict[str, Inner] = Field(default_factory=dict)


class Tree(BaseModel):
    children: List["Tree"] = []

"""
ATOMS = (
    *("str", "int", "float", "bool", "list", "dict", "set", "tuple", "bytes", "Any", "None"),
    *("Colour", "Level", "Inner", "Outer", "Tree", "List", "Dict", "Response", "object"),
    'Literal["a", 1]',
)
HASHABLE = ("str", "int", "float", "bool", "Colour")
GENERICS = (
    *("List[{}]", "list[{}]", "Dict[str, {}]", "dict[int, {}]", "Set[{}]", "Optional[{}]"),
    *("Tuple[{}, {}]", "tuple[{}, ...]", "Union[{}, {}]", "Union[{}, {}, None]", "Sequence[{}]"),
    *("{} | None", "Annotated[{}, 'note']", "Type[{}]", "AsyncGenerator[{}, None]"),
)
SCHEMAS = ("Inner", "Outer", "Tree", '{"type": "object"}', "{}")
WORDS = ("alpha", "beta", "v1", "chat", "x_y", "a-b", "_hidden", "9")


class Maker:
    """Makes one file after another from a seed."""

    def __init__(self, seed):
        self._random = random.Random(seed)

    def file(self, cords=12):
        """Return the text of one chute file."""
        lines = [HEAD, f"image = {self._image()}", f"chute = {self._chute()}", ""]
        for number in range(cords):
            lines += self._cord(number)
        for number in range(self._random.randint(0, 2)):
            lines += self._job(number)
        return "\n".join(lines) + "\n"

    def hint(self, depth=0):
        """Return a type hint."""
        if depth > 2 or self._random.random() < 0.5:
            return self._random.choice(ATOMS)
        generic = self._random.choice(GENERICS)
        parts = []
        for _ in range(generic.count("{}")):
            part = self.hint(depth + 1)
            # `"X" | None` and None | None are no hints; quoted names are none inside `|`.
            parts.append("int" if part == "None" and "|" in generic else part)
        return generic.format(*parts)

    def _image(self):
        pick = self._random.choice
        calls = [
            '.from_base("nvidia/cuda:12.4.1-devel-ubuntu22.04")',
            '.with_python("3.12.7")',
            '.with_maintainer("a@example.com")',
            f'.set_user("{pick(("root", "app", "1000:1000"))}")',
            f'.set_workdir("{pick(("/app", "/srv/x y"))}")',
            '.apt_install(["git", "curl"])',
            '.apt_install("jq")',
            '.apt_remove("curl")',
            f'.with_env("{pick(("A", "PATH"))}", "{pick(("1", "/x:$PATH", ""))}")',
            '.run_command("pip install a && \\\\\\n  pip install b")',
            '.run_command("echo 1\\n")',
            '.add("file.txt", "/x/file.txt")',
            '.add("folder", "/x", chown="a:b", chmod="755")',
            '.with_entrypoint(["python", "-m", "x"])',
        ]
        chosen = self._random.choices(calls, k=self._random.randint(0, 8))
        name, tag = pick(("app", "My-App", "a.b_c")), pick(("1", "V2.0-x"))
        return f'Image(username="Bob", name="{name}", tag="{tag}")' + "".join(chosen)

    def _chute(self):
        pick = self._random.choice
        selector = ", ".join(
            self._random.sample(
                [
                    f"gpu_count={pick([1, 2, 8])}",
                    f"min_vram_gb_per_gpu={pick([16, 24, 80])}",
                    f"exclude={pick(([], ['a4000'], ['v100', 'a40']))}",
                    f"include={pick((None, ['h100', 'h200'], ['mi300x', 'RTX4090']))}",
                    "max_hourly_price_per_gpu=4.25",
                ],
                k=self._random.randint(0, 5),
            )
        )
        options = self._random.sample(
            [
                "concurrency=7",
                "max_instances=3",
                'tagline="t"',
                "shutdown_after_seconds=60",
                "scaling_threshold=0.5",
                "allow_external_egress=True",
                'revision="main"',
            ],
            k=self._random.randint(0, 7),
        )
        name = pick(["app", "Org/Model-7B", "x.y_z"])
        parts = [f'username="Bob", name="{name}", image=image', *options]
        return f"Chute({', '.join(parts)}, node_selector=NodeSelector({selector}))"

    def _cord(self, number):
        pick, chance = self._random.choice, self._random.random
        stream = chance() < 0.2
        options = ["stream=True"] if stream else []
        if chance() < 0.3:
            options.append(f'path="{pick(["", "/"])}{self._path(number)}/"')
        if chance() < 0.5:
            options.append(f'public_api_path="/{self._path(number)}"')
            options.append(f'public_api_method="{pick(("GET", "POST", "PUT", "DELETE"))}"')
        if chance() < 0.2:
            options.append(f'method="{pick(("GET", "POST", "PUT"))}"')
        if chance() < 0.2:
            options.append("input_schema=" + pick(SCHEMAS))
        if chance() < 0.2:
            options.append("minimal_input_schema=" + pick(SCHEMAS))
        if chance() < 0.2:
            options.append("output_schema=" + pick(SCHEMAS))
        if chance() < 0.3:
            options.append(f'output_content_type="{pick(("image/png", "text/event-stream"))}"')
        passthrough = not stream and chance() < 0.2
        if passthrough:
            options.append(f"passthrough=True, passthrough_port={pick([8000, 9001])}")
        parameters = ["self"]
        for index in range(self._random.randint(0, 4)):
            hint = self.hint()
            parameters.append(f"p{index}: {hint} = None" if chance() < 0.3 else f"p{index}: {hint}")
        parameters.sort(key=lambda one: "=" in one)
        returned = f" -> {self.hint()}" if chance() < 0.7 else ""
        verb = pick(["async def", "def"])
        body = "    yield None" if stream else "    return None"
        return [
            f"@chute.cord({', '.join(options)})",
            f"{verb} cord_{number}({', '.join(parameters)}){returned}:",
            body,
            "",
        ]

    def _job(self, number):
        pick = self._random.choice
        options = [
            pick(["timeout=None", "timeout=30", "timeout=86400"]),
            pick(["upload=True", "upload=False"]),
            pick(["ssh=True", "ssh=False"]),
            pick(["ports=[]", 'ports=[Port(name="web", port=8080, proto="http")]']),
        ]
        return [
            f"@chute.job({', '.join(options)})",
            f"async def job_{number}(self, **job_data):",
            "    return None",
            "",
        ]

    def _path(self, number):
        words = self._random.choices(WORDS, k=self._random.randint(1, 2))
        return "/".join((*words, str(number)))
