"""Packages of ganfast; pyproject.toml holds everything that needs no code."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["ganfast", "ganfast.*"]), "ganfast.kernels"],
    package_dir={"ganfast.kernels": "kernels"},
)
