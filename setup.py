"""Packaging: installs chutes_core and graval; the neurons are thin scripts of the checkout.

`install_requires` is what a developer's laptop and a chute's container need (SDK, CLI, runner).
Each role on a server adds its extra: validator, miner, gpu, devnet; `compile` adds what
scripts/compile.py needs, `dev` the checks, and `examples` what the examples' images have.
"""

from setuptools import find_packages, setup

TORCH = "torch==2.11.0"  # as in scripts/prover_bundle/pins.py: what graval was measured with

CHAIN = ["bittensor==11.3.0", "substrate-interface==1.8.1"]
WALLET = ["bittensor==11.3.0", "loguru>=0.7,<1"]  # for chutes deposit --send
SERVER = [
    "aiohttp>=3.14,<4",
    "httptools>=0.8",
    "loguru>=0.7,<1",
    "pydantic-settings>=2.16,<3",
    "uvicorn>=0.54,<1",
]
VALIDATOR = [
    *CHAIN,
    *SERVER,
    "docker>=7.2,<8",
    "h11>=0.16,<1",
    "numpy>=2",
    "orjson>=3.11",
    "python-multipart>=0.0.30",
    "sqlite-utils>=4.2,<5",
    "uvloop>=0.23",
]
MINER = [
    *CHAIN,
    *SERVER,
    "PyYAML>=6",
    "docker>=7.2,<8",
    "numpy>=2",
    "prometheus-client>=0.22",
    "psutil>=7",
    "sqlite-utils>=4.2,<5",
    "uvloop>=0.23",
]
DEVNET = [*CHAIN, *SERVER, "kyber-py>=1", "pycryptodome>=3.24", "websockets>=16"]
# What the images of the examples install: their tests run with it (CI; scripts/setup.sh
# dev,examples). Apart from TORCH: Triton's kernels do not run here, and 2.13.0 has a build for CPUs
# of some hundred MB in CI; elsewhere pip takes PyPI's for CUDA, of some GB. No demo asks for it.
EXAMPLES = ["pillow~=12.0", "torch==2.13.0", "transformers~=5.23"]
COMPILE = ["mypy>=2.4", "setuptools>=77"]  # mypyc, for scripts/compile.py
DEV = [
    *VALIDATOR,
    *MINER,
    *DEVNET,
    *COMPILE,
    "httpx2>=2.16",  # what starlette.testclient asks for
    "hypothesis>=6.170",
    "import-linter>=2.16",
    "pytest>=9",
    "pytest-asyncio>=1.5",
    "pytest-timeout>=2.4",
    "pytest-xdist>=3.8",
    "ruff>=0.17",
    "schemathesis>=4.32",
]

setup(
    name="chutes-core",
    version="0.1.0",
    description="An open serverless GPU cloud on Bittensor: miner, validator, SDK and graval.",
    python_requires=">=3.10,<3.15",
    packages=find_packages(include=["chutes_core", "chutes_core.*", "graval", "graval.*"]),
    package_data={"chutes_core": ["py.typed"], "graval": ["py.typed"]},
    install_requires=[
        "bittensor-core>=0.1.5",
        "click>=8.3",
        "cryptography>=46",
        "fastapi>=0.162",  # the last that takes Python 3.10, which an image may have
        "httpx>=0.28",
        "pydantic>=2.14",
        "rich>=15",
        "uvicorn>=0.54,<1",  # `chutes dev` and `chutes run --dev`
    ],
    extras_require={
        "validator": VALIDATOR,
        "miner": MINER,
        "gpu": [TORCH],
        "wallet": WALLET,
        "devnet": DEVNET,
        "compile": COMPILE,
        "examples": EXAMPLES,
        "dev": DEV,
    },
    entry_points={"console_scripts": ["chutes = chutes_core.cli.main:main"]},
)
